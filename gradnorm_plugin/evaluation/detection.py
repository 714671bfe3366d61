"""Upstream's detection figures of a pass, and the same figures of any resample of its images, fast.

n predictions, m boxes, T IoU thresholds (0.5, 0.55, ... 0.95), K classes of the boxes that occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradnorm_plugin.upstream.gateway import upstream

_metrics = upstream("utils.metrics")

HEADLINES = ("precision", "recall", "F1", "mAP50", "mAP50-95")
_CONFIDENCES = np.linspace(0, 1, 1000)
"""Where upstream reads precision and recall, to choose the confidence with the best F1."""


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
            return dict.fromkeys(HEADLINES, 0.0)
        return _headlines(self.precision.mean(), self.recall.mean(), self.ap[:, 0].mean(), self.ap.mean(1).mean())


class Resampler:
    """The headline figures of a set of images in which each image stands a given number of times.

    Equal to upstream's `ap_per_class` on predictions and boxes repeated as often, to 1e-12 (predictions of equal confidence stand
    in whatever order, there as here), in an eighth of its time: sorted once, and the average precision is taken at the corners of
    the curve alone.
    """

    def __init__(self, predictions: Predictions) -> None:
        order = np.argsort(-predictions.confidence)  # as upstream sorts, so that ties fall alike
        classes = predictions.classes[order]
        self._classes = []
        for index in np.unique(predictions.box_classes):
            rows = order[classes == index]
            self._classes.append(
                (
                    predictions.box_images[predictions.box_classes == index],
                    predictions.images[rows],
                    -predictions.confidence[rows],
                    np.ascontiguousarray(predictions.correct[rows].T),
                )
            )

    def best_confidence(self, images: int) -> float:
        """The confidence with the best mean F1 over all images once: where upstream reads precision, recall and F1."""
        curves, _ = self._curves(np.ones(images, dtype=np.int64))
        return float(_CONFIDENCES[_best(*np.stack(curves, 1))])

    def __call__(self, times: np.ndarray) -> dict[str, float]:
        """Figures by name for (images,) whole numbers; NaN where the images have no box at all."""
        curves, ap = self._curves(times)
        if not ap:
            return dict.fromkeys(HEADLINES, float("nan"))
        precision, recall = np.stack(curves, 1)
        best = _best(precision, recall)
        ap = np.array(ap)
        return _headlines(precision[:, best].mean(), recall[:, best].mean(), ap[:, 0].mean(), ap.mean(1).mean())

    def _curves(self, times: np.ndarray) -> tuple[list[np.ndarray], list]:
        """Of each class that has boxes: (2, 1000) precision and recall at `_CONFIDENCES`, and (T,) average precision."""
        curves, ap = [], []
        for box_images, images, falling, correct in self._classes:
            boxes = times[box_images].sum()
            if not boxes:
                continue
            rows = np.repeat(np.arange(len(images)), times[images])
            if not len(rows):
                curves.append(np.zeros((2, len(_CONFIDENCES))))
                ap.append(np.zeros(len(correct)))
                continue
            hits = correct[0, rows].cumsum()
            recall, precision = hits / boxes, hits / np.arange(1, len(rows) + 1)
            at = -_CONFIDENCES, falling[rows]
            curves.append(np.stack([np.interp(*at, precision, left=1), np.interp(*at, recall, left=0)]))
            ap.append([_average_precision(np.flatnonzero(found[rows]), len(rows), boxes) for found in correct])
        return curves, ap


def _best(precision: np.ndarray, recall: np.ndarray) -> int:
    """Index of the best mean F1 of (K, 1000) curves."""
    f1 = 2 * precision * recall / (precision + recall + 1e-16)
    return int(_metrics.smooth(f1.mean(0), 0.1).argmax())


def _headlines(precision: float, recall: float, map50: float, map5095: float) -> dict[str, float]:
    f1 = 2 * precision * recall / (precision + recall + 1e-16)
    return {name: float(v) for name, v in zip(HEADLINES, (precision, recall, f1, map50, map5095), strict=True)}


def _average_precision(hits: np.ndarray, predictions: int, boxes: int) -> float:
    """Upstream's `compute_ap` at the corners of the curve: before and at each hit, and at the last prediction.

    `hits` are the places of the hits among the predictions, from 0. Between two hits the recall stands still while the precision
    falls, and stays below that of the second: the curve's envelope is the second's from the recall of the first on.
    """
    before = np.arange(len(hits))
    recall = np.stack([before, before + 1], 1).ravel() / boxes
    precision = np.repeat((before + 1) / (hits + 1), 2)
    last = len(hits) / boxes, len(hits) / predictions
    return _metrics.compute_ap(np.append(recall, last[0]), np.append(precision, last[1]))[0]
