"""The figures of one validation pass: how well the images' classes were told, and upstream's figures of the boxes.

N labelled images, C classes of the image, M bins of confidence. Counts of true against predicted classes carry every figure of
the classification but loss and calibration, so a resample of the images needs its counts only.
n predictions, m boxes, T IoU thresholds (0.5, 0.55, ... 0.95), K classes of the boxes that occur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gradnorm_plugin.run_folder import DETECTION_FIGURES

CALIBRATION_BINS = 15

Figure = TypeVar("Figure", float, np.ndarray)


@dataclass(frozen=True)
class ClassScores:
    """What (C, C) counts say; NaN for a class that no image has, and everywhere if there is no image."""

    precision: np.ndarray
    """(C,); 0 for a class that is never predicted."""
    recall: np.ndarray
    f1: np.ndarray
    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that occur: 1 / C for a model that names one class always."""
    macro_precision: float
    macro_f1: float
    """Means over the classes that occur."""


@dataclass(frozen=True)
class Calibration:
    """How often the predicted class is right where the model is so and so sure, in M equally wide bins of confidence.

    Confidence is the predicted class's probability; bin m holds those in (m / M, (m + 1) / M].
    """

    counts: np.ndarray
    """(M,) images."""
    confidence: np.ndarray
    """(M,) mean confidence, NaN in an empty bin."""
    accuracy: np.ndarray
    """(M,) share of right predictions, NaN in an empty bin."""

    @property
    def error(self) -> float:
        """Top-label expected calibration error, sum over m of n_m / N * |accuracy_m - confidence_m| (Guo et al., ICML 2017)."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float((self.counts[filled] * gaps).sum() / self.counts.sum()) if filled.any() else math.nan


@dataclass(frozen=True)
class ClassificationMetrics:
    """Figures of one pass; NaN where no image has a class."""

    confusion: np.ndarray
    """(C, C) counts, row true, column predicted."""
    scores: ClassScores
    loss: float
    """Mean cross-entropy (log loss), unweighted, natural logarithm."""
    calibration: Calibration

    @property
    def images(self) -> int:
        """Labelled images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the labelled images whose class is told right."""
        return self.scores.accuracy

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur."""
        return self.scores.balanced_accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return self.scores.macro_f1


def classification_metrics(probabilities: np.ndarray, classes: np.ndarray) -> ClassificationMetrics:
    """Score (N, C) probabilities against (N,) classes, -1 for an image without one, which is left out."""
    num_classes = probabilities.shape[1]
    labelled = classes >= 0
    probabilities, classes = probabilities[labelled].astype(np.float64), classes[labelled]
    predicted = probabilities.argmax(1)
    confusion = count_pairs(classes, predicted, num_classes)
    of_true_class = probabilities[np.arange(len(classes)), classes]
    losses = -np.log(np.maximum(of_true_class, np.finfo(np.float32).tiny))  # NaN stays NaN and raises nothing
    return ClassificationMetrics(
        confusion=confusion,
        scores=class_scores(confusion),
        loss=float(losses.mean()) if len(classes) else math.nan,
        calibration=calibrate(probabilities.max(1), predicted == classes),
    )


def count_pairs(classes: np.ndarray, predicted: np.ndarray, num_classes: int, times: np.ndarray | None = None) -> np.ndarray:
    """(C, C) counts, row true, column predicted, of (N,) indices; `times` (N,) counts an image so many times."""
    pairs = classes.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, times, num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """The figures of (C, C) counts, row true, column predicted."""
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurs = support > 0
    if not occurs.any():
        nothing = np.full(len(hits), math.nan)
        return ClassScores(nothing, nothing, nothing, *[math.nan] * 4)
    precision = np.where(occurs, hits / np.maximum(predicted, 1), math.nan)
    recall = np.where(occurs, hits / np.maximum(support, 1), math.nan)
    f1 = np.where(occurs, 2 * hits / np.maximum(support + predicted, 1), math.nan)
    return ClassScores(
        precision,
        recall,
        f1,
        accuracy=float(hits.sum() / support.sum()),
        balanced_accuracy=float(recall[occurs].mean()),
        macro_precision=float(precision[occurs].mean()),
        macro_f1=float(f1[occurs].mean()),
    )


def calibrate(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Sort (N,) predictions by their confidence in 0..1 into bins; `right` (N,) says which hit the true class."""
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    index = np.digitize(confidence, inner_edges, right=True)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is NaN, as it should be
        means = [np.bincount(index, values, bins) / counts for values in (confidence, right)]
    return Calibration(counts, *means)


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
