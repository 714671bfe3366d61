"""Upstream's figures of the boxes of one validation pass.

n predictions, m boxes, T IoU thresholds (0.5, 0.55, ... 0.95), K classes of the boxes that occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gradnorm_plugin.run_folder import DETECTION_FIGURES

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
