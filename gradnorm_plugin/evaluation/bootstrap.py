"""Confidence intervals of any figures by drawing the images again: the percentile bootstrap (Efron & Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

Figures = dict[str, float]


@dataclass(frozen=True)
class Bootstrap:
    """How often to draw, from which seed, and the share of the draws that an interval holds."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def intervals(self, images: int, *measures: Callable[[np.ndarray], Figures]) -> list[dict[str, list[float] | None]]:
        """[low, high] of every figure of every measure, None where no draw had a value.

        Args:
            images: how many there are to draw from; each draw takes as many, with replacement.
            measures: each takes how often every image was drawn, (images,) whole numbers, and returns figures by name. All
                see the same draws. A figure that is NaN in a draw is left out of its interval.
        """
        rng = np.random.default_rng(self.seed)
        draws: list[list[Figures]] = [[] for _ in measures]
        for _ in tqdm(range(self.resamples if images else 0), desc="bootstrap", delay=2, leave=False):
            times = np.bincount(rng.integers(images, size=images), minlength=images)
            for figures, measure in zip(draws, measures, strict=True):
                figures.append(measure(times))
        return [{name: self._interval([draw[name] for draw in figures]) for name in _names(figures)} for figures in draws]

    def _interval(self, values: list[float]) -> list[float] | None:
        known = np.array(values)[~np.isnan(values)]
        return np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2]).tolist() if len(known) else None


def _names(draws: list[Figures]) -> list[str]:
    return list(draws[0]) if draws else []
