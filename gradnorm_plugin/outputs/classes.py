"""Exactly one of C classes: softmax and cross-entropy. One-hot in a label file.

Counts of true against predicted classes carry every figure but loss and calibration, so a draw of the images needs its counts
only. C classes of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gradnorm_plugin.names import shortened
from gradnorm_plugin.outputs.output import LONGEST, NamedLogits, Target

NO_CLASS = -1
CALIBRATION_BINS = 15
_TINY = 1e-30
"""In the place of a probability of 0."""


@dataclass(frozen=True)
class Classes(NamedLogits):
    """One of `names`. Targets are (N,) int64, -1 for an image without a class; answers are probabilities that sum to 1."""

    kind = "classes"
    figures = ("accuracy", "balanced_accuracy", "macro_F1")
    headline = "balanced_accuracy"

    def parse(self, fields: Sequence[str]) -> Target:
        """A one-hot line: (index,)."""
        if len(fields) != self.width or not set(fields) <= {"0", "1"} or fields.count("1") != 1:
            raise ValueError(f"`{self.name}` has {self.width} classes: write {self.width} of plain 0 and 1 with exactly one 1")
        return (fields.index("1"),)

    def format(self, target: Target) -> str:
        """One-hot."""
        return " ".join("1" if index == int(target[0]) else "0" for index in range(self.width))

    def targets(self, rows: Sequence[Target | None]) -> np.ndarray:
        """(N,) int64."""
        return np.array([NO_CLASS if row is None else int(row[0]) for row in rows], dtype=np.int64)

    def known(self, targets: Any) -> Any:
        """Where there is a class."""
        return targets >= 0

    def agrees(self, anchor: Any, targets: np.ndarray) -> np.ndarray:
        """Those of the same class."""
        return targets == anchor

    def draw_weights(self, targets: np.ndarray) -> np.ndarray:
        """Every class has the same share."""
        return self.balance(targets).numpy()[targets] * (targets >= 0)

    def summary(self, targets: np.ndarray) -> str:
        """How many images each class has."""
        return ", ".join(f"{name} {(targets == index).sum()}" for index, name in enumerate(self.names))

    def absent(self, targets: np.ndarray) -> list[str]:
        """Classes without an image."""
        return [name for index, name in enumerate(self.names) if not (targets == index).any()]

    def balance(self, targets: np.ndarray) -> Tensor:
        """(C,) weights inverse to each class's frequency, 1 on average over the labelled images; 1 for a class without images."""
        counts = np.bincount(targets[targets >= 0], minlength=self.width)
        return torch.tensor([counts.sum() / (self.width * count) if count else 1.0 for count in counts]).float()

    def label_weights(self, targets: Tensor, balance: Tensor | None) -> Tensor:
        """The weight of each label's class."""
        return super().label_weights(targets, balance) if balance is None else balance[targets]

    def loss(self, logits: Tensor, targets: Tensor, balance: Tensor | None, smoothing: float) -> Tensor:
        """PyTorch's weighted mean of the cross-entropy."""
        return F.cross_entropy(logits, targets, weight=balance, label_smoothing=smoothing)

    def activate(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.softmax(1)

    def measure(self, answers: np.ndarray, targets: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy, and means of recall and F1 over the classes that occur."""
        predicted = answers.argmax(1)
        found = [class_scores(count_pairs(targets, predicted, self.width, of_draw)) for of_draw in times]
        values = np.array([(scores.accuracy, scores.balanced_accuracy, scores.macro_f1) for scores in found]).reshape(-1, 3)
        return dict(zip(self.figures, values.T, strict=True))

    def answer_losses(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Cross-entropy (log loss), natural logarithm."""
        return _log_losses(answers, targets)

    def details(self, answers: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """Figures, calibration, and each class's precision, recall and F1; the confusion has the true classes in its rows."""
        found = classification_metrics(answers, targets)
        scores = found.scores
        columns = zip(self.names, found.confusion.sum(1), scores.precision, scores.recall, scores.f1, strict=True)
        return {
            "images": found.images,
            "accuracy": scores.accuracy,
            "balanced_accuracy": scores.balanced_accuracy,
            "macro_precision": scores.macro_precision,
            "macro_F1": scores.macro_f1,
            "calibration_error": found.calibration.error,
            "loss": found.loss,
            "classes": [dict(zip(("name", "support", "precision", "recall", "F1"), row, strict=True)) for row in columns],
            "confusion": found.confusion,
        }

    def decide(self, answer: np.ndarray) -> Target:
        """The most probable class."""
        return (int(answer.argmax()),)

    def say(self, answer: np.ndarray) -> str:
        """The class and its probability."""
        return f"{self.say_target(self.decide(answer))} {answer.max():.2f}"

    def behind(self, answer: np.ndarray) -> dict[int, str]:
        """The class that is told."""
        return {int(answer.argmax()): self.say(answer)}

    def joined(self, mean: np.ndarray, count: int, answer: np.ndarray) -> np.ndarray:
        """The mean of the logits, which are the logarithms of the probabilities up to a constant."""
        logits = (count * np.log(np.maximum(mean, _TINY)) + np.log(np.maximum(answer, _TINY))) / (count + 1)
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def say_target(self, target: Target) -> str:
        """The class."""
        return self.titled(shortened(self.names[int(target[0])], LONGEST))

    def as_data(self, answer: np.ndarray) -> dict[str, Any]:
        """The class, its probability and all others'."""
        return {
            "class": self.names[int(answer.argmax())],
            "probability": float(answer.max()),
            "probabilities": dict(zip(self.names, answer.tolist(), strict=True)),
        }

    def cells(self, answer: np.ndarray) -> dict[str, Any]:
        """The class and its probability."""
        return {self.name: self.names[int(answer.argmax())], f"{self.name}_probability": float(answer.max())}


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


def calibrate(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Sort (N,) predictions by their confidence in 0..1 into bins; `right` (N,) says which hit the true class."""
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    index = np.digitize(confidence, inner_edges, right=True)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is NaN, as it should be
        means = [np.bincount(index, values, bins) / counts for values in (confidence, right)]
    return Calibration(counts, *means)


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


def _log_losses(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    of_true_class = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    return -np.log(np.maximum(of_true_class, np.finfo(np.float32).tiny))  # NaN stays NaN and raises nothing


def classification_metrics(probabilities: np.ndarray, classes: np.ndarray) -> ClassificationMetrics:
    """Score (N, C) probabilities against (N,) classes, -1 for an image without one, which is left out."""
    num_classes = probabilities.shape[1]
    labelled = classes >= 0
    probabilities, classes = probabilities[labelled].astype(np.float64), classes[labelled]
    predicted = probabilities.argmax(1)
    confusion = count_pairs(classes, predicted, num_classes)
    losses = _log_losses(probabilities, classes)
    return ClassificationMetrics(
        confusion=confusion,
        scores=class_scores(confusion),
        loss=float(losses.mean()) if len(classes) else math.nan,
        calibration=calibrate(probabilities.max(1), predicted == classes),
    )
