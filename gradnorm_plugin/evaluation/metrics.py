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

from gradnorm_plugin.outputs.classes import Calibration, ClassScores, calibrate, class_scores, count_pairs
from gradnorm_plugin.run_folder import DETECTION_FIGURES

Figure = TypeVar("Figure", float, np.ndarray)


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
