"""How well the images' classes were told, over the labelled images of one validation pass."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score


@dataclass(frozen=True)
class ClassificationMetrics:
    """Figures of one pass; NaN where no image has a class."""

    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that occur: 1 / C for a model that names one class always."""
    macro_f1: float
    loss: float
    """Mean cross-entropy, unweighted."""
    images: int
    """Labelled images."""
    confusion: np.ndarray
    """(C, C) counts, row true, column predicted."""


def classification_metrics(probabilities: np.ndarray, classes: np.ndarray) -> ClassificationMetrics:
    """Score (N, C) probabilities against (N,) classes, -1 for an image without one, which is left out."""
    num_classes = probabilities.shape[1]
    labelled = classes >= 0
    probabilities, classes = probabilities[labelled].astype(np.float64), classes[labelled]
    if not len(classes):
        return ClassificationMetrics(*[math.nan] * 4, 0, np.zeros((num_classes, num_classes), dtype=np.int64))
    predicted = probabilities.argmax(1)
    labels = list(range(num_classes))
    with warnings.catch_warnings():
        # scikit-learn warns of predicted classes that no image has, which is usual early in training.
        warnings.simplefilter("ignore", UserWarning)
        balanced = balanced_accuracy_score(classes, predicted)
        confusion = confusion_matrix(classes, predicted, labels=labels)
    of_true_class = probabilities[np.arange(len(classes)), classes]
    loss = -np.log(np.maximum(of_true_class, np.finfo(np.float32).tiny)).mean()  # NaN stays NaN and raises nothing
    return ClassificationMetrics(
        accuracy=float(accuracy_score(classes, predicted)),
        balanced_accuracy=float(balanced),
        macro_f1=float(f1_score(classes, predicted, labels=np.unique(classes), average="macro", zero_division=0)),
        loss=float(loss),
        images=len(classes),
        confusion=confusion,
    )
