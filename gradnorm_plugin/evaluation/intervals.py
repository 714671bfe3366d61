"""Upstream's figures of the boxes of one validation pass, and confidence intervals of any figures by resampling the images.

That is the percentile bootstrap (Efron & Tibshirani, 1993); `Resampler` is the fast way to upstream's detection figures of many
such draws. n predictions, m boxes, T IoU thresholds (0.5, 0.55, ... 0.95), K classes of the boxes that occur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from gradnorm_plugin.run_folder import DETECTION_FIGURES
from gradnorm_plugin.upstream.gateway import upstream

Figure = TypeVar("Figure", float, np.ndarray)


@dataclass(frozen=True)
class Predictions:
    """What upstream hands its `ap_per_class`, and the image that each prediction and each box is of."""

    correct: np.ndarray
    """(n, T) bool: whether the prediction meets a box of its image and class at that IoU; a box is met once at most."""
    confidence: np.ndarray
    classes: np.ndarray
    images: np.ndarray
    """(n,) each."""
    box_classes: np.ndarray
    box_images: np.ndarray
    """(m,) each."""


@dataclass(frozen=True)
class DetectionMetrics:
    """Upstream's figures, (K,) each, at the confidence with the best mean F1; empty if nothing was found."""

    classes: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    ap: np.ndarray
    """(K, T)."""

    def headlines(self) -> dict[str, float]:
        """The means over the classes, as upstream prints them; F1 is that of the mean precision and recall."""
        if not len(self.classes):
            return dict.fromkeys(DETECTION_FIGURES, 0.0)
        means = (self.precision.mean(), self.recall.mean(), self.ap[:, 0].mean(), self.ap.mean(1).mean())
        return detection_headlines(*map(float, means))


def detection_headlines(precision: Figure, recall: Figure, map50: Figure, map5095: Figure) -> dict[str, Figure]:
    """These means over the classes, and F1, by name."""
    f1 = 2 * precision * recall / (precision + recall + 1e-16)
    return dict(zip(DETECTION_FIGURES, (precision, recall, f1, map50, map5095), strict=True))


Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
"""(draws, images) whole numbers, how often each draw has every image, to (draws,) figures by name."""
_NUMBERS_AT_ONCE = 2_000_000
"""Draws are handed on in tables of about this many numbers, so that the memory does not grow with the set."""
_CONFIDENCES = np.linspace(0, 1, 1000)
"""Where upstream reads precision and recall, to choose the confidence with the best F1."""
_RECALLS = np.linspace(0, 1, 101)
"""Where it reads the precision's envelope for the average precision."""
_NUMBERS_IN_A_TABLE = 1_000_000
"""Size of the largest table of a resample, in numbers: it bounds the memory, whatever the set's size."""


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


class Resampler:
    """The headline figures of sets of images in which each image stands a given number of times, for many such sets at once.

    Equal to upstream's `ap_per_class` on predictions and boxes repeated as often, to 1e-12 (predictions of equal confidence stand
    in whatever order, there as here). Nothing is repeated: the predictions are sorted once, and counted by how often each is
    drawn. The average precision is taken at the hits alone, where its curve has its corners.

    D draws; n predictions of a class, by falling confidence; h of them hits at an IoU threshold.
    """

    def __init__(self, predictions: Predictions) -> None:
        order = np.argsort(-predictions.confidence)  # as upstream sorts, so that ties fall alike
        classes = predictions.classes[order]
        self._classes = []
        for index in np.unique(predictions.box_classes):
            rows = order[classes == index]
            self._classes.append(
                _ClassCurves(
                    predictions.box_images[predictions.box_classes == index],
                    predictions.images[rows],
                    -predictions.confidence[rows].astype(np.float64),
                    np.ascontiguousarray(predictions.correct[rows].T),
                )
            )
        longest = max((len(curves.images) for curves in self._classes), default=0)
        self._at_once = max(1, _NUMBERS_IN_A_TABLE // (longest + len(_CONFIDENCES)))

    def __call__(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Figures by name, (D,) each, for (D, images) whole numbers; NaN where a draw has no box at all."""
        parts = [self._figures(times[start : start + self._at_once]) for start in range(0, len(times), self._at_once)]
        return {name: np.concatenate([part[name] for part in parts]) for name in DETECTION_FIGURES}

    def best_confidence(self, images: int) -> float:
        """The confidence with the best mean F1 over all images once: where upstream reads precision, recall and F1."""
        _, _, f1, _, _, occurring = self._sums(np.ones((1, images), dtype=np.int64))
        return float(_CONFIDENCES[_best(f1 / max(occurring[0], 1))[0]])

    def _figures(self, times: np.ndarray) -> dict[str, np.ndarray]:
        precision, recall, f1, map50, map5095, occurring = self._sums(times)
        with np.errstate(invalid="ignore"):  # 0 / 0 without any box is NaN, as it should be
            at_best = np.arange(len(times)), _best(f1 / occurring[:, None])
            return detection_headlines(*(found / occurring for found in (precision[at_best], recall[at_best], map50, map5095)))

    def _sums(self, times: np.ndarray) -> tuple[np.ndarray, ...]:
        """Over the classes that each draw has boxes of: precision, recall and F1 at `_CONFIDENCES`, mAP50, mAP50-95, and 1."""
        precision, recall, f1 = np.zeros((3, len(times), len(_CONFIDENCES)))
        map50, map5095, occurring = np.zeros((3, len(times)))
        for curves in self._classes:
            occurs, of_precision, of_recall, ap = curves.of_draws(times)
            occurring += occurs
            precision += of_precision
            recall += of_recall
            f1 += 2 * of_precision * of_recall / (of_precision + of_recall + 1e-16)
            map50 += ap[:, 0]
            map5095 += ap.mean(1)
        return precision, recall, f1, map50, map5095, occurring


def _best(f1: np.ndarray) -> list[int]:
    """Index of the best of 1000 F1 in each row of (D, 1000), smoothed as upstream does."""
    smooth = upstream("utils.metrics").smooth
    return [int(smooth(curve, 0.1).argmax()) for curve in f1]


@dataclass(frozen=True)
class _ClassCurves:
    """One class of boxes: how its curves follow from the draws. Draws without a box of the class have 0 everywhere."""

    box_images: np.ndarray
    images: np.ndarray
    """(n,) of the predictions."""
    falling: np.ndarray
    """(n,) confidences with a minus sign, so that they rise."""
    correct: np.ndarray
    """(T, n)."""

    def of_draws(self, times: np.ndarray) -> tuple[np.ndarray, ...]:
        """Which draws have boxes of the class, (D,); precision and recall at `_CONFIDENCES`, (D, 1000) each; AP, (D, T)."""
        boxes = times.take(self.box_images, 1).sum(1)
        drawn = times.take(self.images, 1).astype(np.int32)
        found = drawn.cumsum(1, dtype=np.int32)
        occurs = boxes > 0
        counts = occurs & (found[:, -1] > 0 if len(self.images) else False)
        boxes = np.maximum(boxes, 1)[:, None]
        if not counts.any():
            nothing = np.zeros((len(times), len(_CONFIDENCES)))
            return occurs, nothing, nothing, np.zeros((len(times), len(self.correct)))
        precision, recall = self._at_confidences(boxes, drawn, found)
        ap = np.stack([_average_precision(boxes, drawn, found, np.flatnonzero(hits)) for hits in self.correct], 1)
        return occurs, *(np.where(counts[:, None], figure, 0.0) for figure in (precision, recall, ap))

    def _at_confidences(self, boxes: np.ndarray, drawn: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both curves as `np.interp` reads them: on the line from the last copy of one prediction to the next one's first."""
        hits, count = self.correct[0], drawn.shape[1]
        places = np.arange(count, dtype=np.int32)
        place = np.searchsorted(self.falling, -_CONFIDENCES, side="right")
        before, behind = np.maximum(place - 1, 0), np.minimum(place, count - 1)
        previous = np.maximum.accumulate(np.where(drawn > 0, places, -1), 1)[:, before]
        previous = np.where(place > 0, previous, -1)
        following = np.minimum.accumulate(np.where(drawn > 0, places, count)[:, ::-1], 1)[:, ::-1][:, behind]
        following = np.where(place < count, following, count)
        inner = np.minimum(following, count - 1)
        so_far = found[:, before]
        reached = np.pad(drawn[:, hits].cumsum(1, dtype=np.int32), ((0, 0), (1, 0)))
        hits_so_far = reached[:, np.concatenate([[0], hits.cumsum()])[place]]
        with np.errstate(divide="ignore", invalid="ignore"):  # where there is nothing on one side, which is settled below
            share = -_CONFIDENCES - self.falling[previous], self.falling[inner] - self.falling[previous]
            curves = []
            for here, there, ahead in (
                (hits_so_far / so_far, (hits_so_far + hits[inner]) / (so_far + 1), 1.0),
                (hits_so_far / boxes, (hits_so_far + hits[inner]) / boxes, 0.0),
            ):
                between = (there - here) / share[1] * share[0] + here
                curves.append(np.where(previous < 0, ahead, np.where(following == count, here, between)))
        return curves[0], curves[1]


def _average_precision(boxes: np.ndarray, drawn: np.ndarray, found: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Upstream's `compute_ap` of every draw, (D,), from the hits alone; `hits` are their places among the predictions.

    Between two hits the recall stands still while the precision falls, and stays below that of the second: the curve's envelope
    is the highest precision from the second on. Behind the last it falls to 0 in a line, from the last prediction's precision.
    """
    if not len(hits):
        return np.zeros(len(drawn))
    reached = drawn.take(hits, 1).cumsum(1, dtype=np.int64)
    envelope = np.maximum.accumulate((reached / np.maximum(found.take(hits, 1), 1))[:, ::-1], 1)[:, ::-1]
    total = reached[:, -1:]
    # Hits whose recall is no more than where the curve is read, in the same rounding as upstream's division.
    passed = (_RECALLS * boxes).astype(np.int64)
    passed += (passed + 1) / boxes <= _RECALLS
    passed -= passed / boxes > _RECALLS
    rows = np.arange(len(drawn))[:, None]
    stride = total.max() + 2
    place = np.searchsorted((reached + rows * stride).ravel(), (np.minimum(passed, total - 1) + 1 + rows * stride).ravel())
    inside = envelope.ravel()[np.minimum(place, envelope.size - 1)].reshape(passed.shape)
    recall, precision = total / boxes, total / np.maximum(found[:, -1:], 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a recall of 1 is read at 1 alone
        behind = -precision / (1 - recall) * (_RECALLS - recall) + precision
    curve = np.where(passed < total, inside, np.where(_RECALLS < 1, behind, 0.0))
    return (np.diff(_RECALLS) * (curve[:, 1:] + curve[:, :-1]) / 2.0).sum(1)
