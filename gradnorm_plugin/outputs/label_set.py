"""Any number of L labels, none included: a sigmoid and binary cross-entropy each. A 0 or 1 for each in a label file.

L labels of the output; a label is predicted from a probability of 0.5 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gradnorm_plugin.names import shortened
from gradnorm_plugin.outputs.output import LONGEST, NamedLogits, Target

_THRESHOLD = 0.5
_MARGIN = 1e-7
"""A probability nearer to 0 or 1 counts as if it were this far away."""


@dataclass(frozen=True)
class LabelSet(NamedLogits):
    """Any of `names`. Targets are (N, L) float32 of 0 and 1, NaN for an image without labels; answers are L probabilities."""

    kind = "labels"
    figures = ("macro_F1", "mean_AP")
    headline = "macro_F1"

    def parse(self, fields: Sequence[str]) -> Target:
        """A 0 or 1 for each label."""
        if len(fields) != self.width or not set(fields) <= {"0", "1"}:
            raise ValueError(f"`{self.name}` has {self.width} labels: write a plain 0 or 1 for each")
        return tuple(map(float, fields))

    def format(self, target: Target) -> str:
        """A 0 or 1 for each label."""
        return " ".join("1" if value else "0" for value in target)

    def targets(self, rows: Sequence[Target | None]) -> np.ndarray:
        """(N, L) float32."""
        nothing = (np.nan,) * self.width
        return np.array([nothing if row is None else row for row in rows], dtype=np.float32).reshape(-1, self.width)

    def known(self, targets: Any) -> Any:
        """Where there are labels: NaN is not equal to itself."""
        return targets[:, 0] == targets[:, 0]

    def agrees(self, anchor: Any, targets: np.ndarray) -> np.ndarray:
        """Those with the same labels."""
        return (targets == anchor).all(1)

    def draw_weights(self, targets: np.ndarray) -> np.ndarray:
        """For each label the images with and without it have the same share; the mean over the labels."""
        present, known = targets == 1, self.known(targets)
        count, labelled = present.sum(0), known.sum()
        share = np.where(present, 1 / np.maximum(count, 1), 1 / np.maximum(labelled - count, 1))
        return np.where(known, share.mean(1), 0.0)

    def summary(self, targets: np.ndarray) -> str:
        """How many images have each label."""
        counts = (targets == 1).sum(0)
        return ", ".join(f"{name} {count}" for name, count in zip(self.names, counts, strict=True))

    def absent(self, targets: np.ndarray) -> list[str]:
        """Labels without an image."""
        return [name for name, present in zip(self.names, (targets == 1).any(0), strict=True) if not present]

    def balance(self, targets: np.ndarray) -> Tensor:
        """(L,) how many images are without each label for one that has it; 1 where one of both does not occur."""
        present, absent = (torch.from_numpy((targets == value).sum(0)).float() for value in (1, 0))
        return torch.where((present > 0) & (absent > 0), absent / present.clamp(min=1), 1.0)

    def loss(self, logits: Tensor, targets: Tensor, balance: Tensor | None, smoothing: float) -> Tensor:
        """The mean over images and labels; smoothing takes half of its amount from either side."""
        targets = targets.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=balance)

    def activate(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()

    def measure(self, answers: np.ndarray, targets: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Means over the labels that occur in a draw: F1, and average precision as scikit-learn computes it."""
        truth, predicted = targets == 1, answers >= _THRESHOLD
        present = times @ truth
        hits, called = times @ (truth & predicted), times @ predicted
        with np.errstate(invalid="ignore"):  # 0 / 0 where a label occurs in no image, which is left out
            f1 = np.where(present > 0, 2 * hits / (present + called), np.nan)
            columns = zip(answers.T, truth.T, strict=True)
            ap = np.stack([_average_precision(answer, of_label, times) for answer, of_label in columns], 1)
        return {"macro_F1": _mean_of_known(f1), "mean_AP": _mean_of_known(ap)}

    def answer_losses(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Binary cross-entropy, natural logarithm, the mean over the labels."""
        right = np.where(targets == 1, answers, 1 - answers.astype(np.float64))
        return -np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean(1)

    def details(self, answers: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """Figures, and each label's precision, recall, F1 and average precision at the threshold."""
        once = np.ones((1, len(targets)), dtype=np.int64)
        truth, called = targets == 1, answers >= _THRESHOLD
        rows = []
        for name, of_label, of_call, answer in zip(self.names, truth.T, called.T, answers.T, strict=True):
            hits, support, calls = int((of_label & of_call).sum()), int(of_label.sum()), int(of_call.sum())
            known = support > 0
            rows.append(
                {
                    "name": name,
                    "support": support,
                    "predicted": calls,
                    "precision": hits / max(calls, 1) if known else math.nan,
                    "recall": hits / support if known else math.nan,
                    "F1": 2 * hits / (support + calls) if known else math.nan,
                    "AP": float(_average_precision(answer, of_label, once)[0]),
                }
            )
        return {
            "images": len(targets),
            **{name: float(value[0]) for name, value in self.measure(answers, targets, once).items()},
            "loss": self.answer_loss(answers, targets),
            "classes": rows,
        }

    def figure(self, answers: np.ndarray, targets: np.ndarray) -> Figure | None:
        """Precision over recall of each label."""
        if not len(targets):
            return None
        figure = Figure(figsize=(6, 5), layout="constrained")
        axis = figure.subplots()
        for name, answer, truth in zip(self.names, answers.T, targets.T == 1, strict=True):
            if not truth.any():
                continue
            order = np.argsort(-answer, kind="stable")
            hits = truth[order].cumsum()
            ap = _average_precision(answer, truth, np.ones((1, len(truth)), dtype=np.int64))[0]
            axis.step(hits / hits[-1], hits / np.arange(1, len(hits) + 1), where="post", label=f"{name}: AP {ap:.3f}")
        axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="Recall", ylabel="Precision", title=f"Image output: {self.name}")
        axis.legend(loc="lower left", fontsize="small")
        return figure

    def decide(self, answer: np.ndarray) -> Target:
        """The labels that are more probable than not."""
        return tuple((answer >= _THRESHOLD).astype(float).tolist())

    def say(self, answer: np.ndarray) -> str:
        """The labels that are there, with their probabilities."""
        pairs = zip(self.names, answer, strict=True)
        there = [f"{shortened(name, LONGEST)} {value:.2f}" for name, value in pairs if value >= _THRESHOLD]
        return self.titled(", ".join(there) or "none")

    def behind(self, answer: np.ndarray) -> dict[int, str]:
        """Each label that is there; the most probable one if none is."""
        there = np.flatnonzero(answer >= _THRESHOLD) if (answer >= _THRESHOLD).any() else [answer.argmax()]
        return {int(index): self.titled(f"{shortened(self.names[index], LONGEST)} {answer[index]:.2f}") for index in there}

    def joined(self, mean: np.ndarray, count: int, answer: np.ndarray) -> np.ndarray:
        """The mean of each label's logit."""
        logits = [np.log(value / (1 - value)) for value in np.clip([mean, answer], _MARGIN, 1 - _MARGIN)]
        return 1 / (1 + np.exp(-(count * logits[0] + logits[1]) / (count + 1)))

    def say_target(self, target: Target) -> str:
        """The labels that are there."""
        there = [shortened(name, LONGEST) for name, value in zip(self.names, target, strict=True) if value]
        return self.titled(", ".join(there) or "none")

    def as_data(self, answer: np.ndarray) -> dict[str, Any]:
        """The labels that are there, and all probabilities."""
        there = [name for name, value in zip(self.names, answer, strict=True) if value >= _THRESHOLD]
        return {"labels": there, "probabilities": dict(zip(self.names, answer.tolist(), strict=True))}

    def cells(self, answer: np.ndarray) -> dict[str, Any]:
        """The labels that are there, and each probability."""
        each = {f"{self.name}_{name}": float(value) for name, value in zip(self.names, answer, strict=True)}
        return {self.name: "; ".join(self.as_data(answer)["labels"]), **each}


def _average_precision(answers: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(D,) of one label: the sum over its images of the precision at their probability, by their number; NaN without any."""
    order = np.argsort(-answers, kind="stable")
    drawn = times[:, order]
    # Images of one probability are called together: the precision is read behind the last of them.
    last = np.searchsorted(-answers[order], -answers[order], side="right") - 1
    hits = (drawn * truth[order]).cumsum(1)
    precision = hits[:, last] / np.maximum(drawn.cumsum(1)[:, last], 1)
    present = hits[:, -1] if len(order) else np.zeros(len(times))
    return (precision * drawn * truth[order]).sum(1) / np.where(present > 0, present, np.nan)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """(D,) of (D, L), without NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0).sum(1) / np.maximum(count, 1), np.nan)
