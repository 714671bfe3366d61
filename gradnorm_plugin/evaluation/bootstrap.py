"""Confidence intervals of any figures by drawing the images again: the percentile bootstrap (Efron & Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
"""(draws, images) whole numbers, how often each draw has every image, to (draws,) figures by name."""
_NUMBERS_AT_ONCE = 2_000_000
"""Draws are handed on in tables of about this many numbers, so that the memory does not grow with the set."""


@dataclass(frozen=True)
class Bootstrap:
    """How often to draw, from which seed, and the share of the draws that an interval holds."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def intervals(self, images: int, *measures: Measure) -> list[dict[str, list[float] | None]]:
        """[low, high] of every figure of every measure, None where no draw had a value.

        Args:
            images: how many there are to draw from; each draw takes as many, with replacement.
            measures: all see the same draws. A figure that is NaN in a draw is left out of its interval.
        """
        rng = np.random.default_rng(self.seed)
        parts: list[list[dict[str, np.ndarray]]] = [[] for _ in measures]
        draws = self.resamples if images else 0
        at_once = max(1, _NUMBERS_AT_ONCE // max(images, 1))
        for start in tqdm(range(0, draws, at_once), desc="bootstrap", delay=2, leave=False):
            size = min(at_once, draws - start)
            times = np.stack([np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(size)])
            for part, measure in zip(parts, measures, strict=True):
                part.append(measure(times))
        return [
            {name: self._interval(np.concatenate([figures[name] for figures in part])) for name in (part[0] if part else ())}
            for part in parts
        ]

    def _interval(self, values: np.ndarray) -> list[float] | None:
        known = values[~np.isnan(values)]
        return np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2]).tolist() if len(known) else None
