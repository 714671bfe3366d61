"""A number in a range, in a unit: a sigmoid scaled to the range, and the smooth L1 loss of what it comes to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gradnorm_plugin.names import shortened
from gradnorm_plugin.outputs.output import LONGEST, ImageOutput, OutputError, Target, refuse_other_keys

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ALIKE = 0.05
"""Share of the range by which images of one mosaic, or an answer and its label, may differ."""
_BETA = 0.1
"""Share of the range below which an error counts by its square."""


@dataclass(frozen=True)
class Value(ImageOutput):
    """A number from `low` to `high` in `unit`. Targets are (N,) float32, NaN for an image without one, as answers in the unit."""

    name: str
    unit: str
    low: float
    high: float

    kind = "value"
    figures = ("MAE", "R2")
    headline = "R2"

    @classmethod
    def from_description(cls, name: str, description: Mapping[str, Any]) -> Value:
        """`{value: percent, range: [0, 100]}`."""
        refuse_other_keys(name, description, (cls.kind, "range"))
        unit, limits = description[cls.kind], description.get("range")
        if not isinstance(unit, str) or not unit.strip():
            raise OutputError(f"`value` of image output `{name}` is {unit!r}: write the unit, such as `value: percent`")
        ends = limits if isinstance(limits, (list, tuple)) else []
        if len(ends) != 2 or not all(type(end) in (int, float) and math.isfinite(end) for end in ends) or ends[0] >= ends[1]:
            raise OutputError(
                f"`range` of image output `{name}` is {limits!r}: write [lowest, highest], such as `range: [0, 100]`"
            )
        return cls(name, unit, float(ends[0]), float(ends[1]))

    @property
    def description(self) -> dict[str, Any]:
        """`{value: percent, range: [0, 100]}`."""
        return {self.kind: self.unit, "range": [self.low, self.high]}

    @property
    def width(self) -> int:
        """1."""
        return 1

    def parse(self, fields: Sequence[str]) -> Target:
        """One number in the range."""
        if len(fields) != 1 or not _NUMBER.fullmatch(fields[0]):
            raise ValueError(f"`{self.name}` is one number, found `{' '.join(fields)}`")
        value = float(fields[0])
        if not self.low <= value <= self.high:
            raise ValueError(f"`{self.name}` is {fields[0]}, outside its range {self.low:g} to {self.high:g}: correct either")
        return (value,)

    def format(self, target: Target) -> str:
        """The number, every bit of it."""
        return repr(float(target[0]))

    def targets(self, rows: Sequence[Target | None]) -> np.ndarray:
        """(N,) float32."""
        return np.array([np.nan if row is None else row[0] for row in rows], dtype=np.float32)

    def known(self, targets: Any) -> Any:
        """Where there is a number: NaN is not equal to itself."""
        return targets == targets

    def agrees(self, anchor: Any, targets: np.ndarray) -> np.ndarray:
        """Those within a twentieth of the range."""
        return np.abs(targets - anchor) <= _ALIKE * (self.high - self.low)

    def summary(self, targets: np.ndarray) -> str:
        """Mean, least and greatest."""
        known = targets[self.known(targets)]
        return f"{known.mean():.3g} {self.unit} ({known.min():.3g} to {known.max():.3g})" if len(known) else "no value"

    def loss(self, logits: Tensor, targets: Tensor, balance: Tensor | None, smoothing: float) -> Tensor:
        """The mean, in shares of the range."""
        scaled = (targets.to(logits.dtype) - self.low) / (self.high - self.low)
        return F.smooth_l1_loss(logits.sigmoid().squeeze(1), scaled, beta=_BETA)

    def activate(self, logits: Tensor) -> Tensor:
        """In the unit."""
        return self.low + (self.high - self.low) * logits.sigmoid()

    def measure(self, answers: np.ndarray, targets: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Mean absolute error in the unit, and the share of the variance that is explained, NaN where there is no variance."""
        targets = targets.astype(np.float64)
        errors, count = answers[:, 0] - targets, times.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):  # an empty draw
            mean = times @ targets / count
            residual, spread = times @ errors**2, times @ targets**2 - count * mean**2
            r2 = np.where(spread > 1e-9 * count * (self.high - self.low) ** 2, 1 - residual / spread, np.nan)
            return {"MAE": times @ np.abs(errors) / count, "R2": r2}

    def answer_losses(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Smooth L1, in shares of the range."""
        errors = np.abs(answers[:, 0] - targets.astype(np.float64)) / (self.high - self.low)
        return np.where(errors < _BETA, errors**2 / (2 * _BETA), errors - _BETA / 2)

    def details(self, answers: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """Figures, and the mean of the labels and of the answers."""
        once = np.ones((1, len(targets)), dtype=np.int64)
        known = len(targets) > 0
        return {
            "images": len(targets),
            **{name: float(value[0]) for name, value in self.measure(answers, targets, once).items()},
            "loss": self.answer_loss(answers, targets),
            "unit": self.unit,
            "mean": float(targets.mean()) if known else math.nan,
            "predicted_mean": float(answers.mean()) if known else math.nan,
            "classes": [],
        }

    def figure(self, answers: np.ndarray, targets: np.ndarray) -> Figure | None:
        """Each answer over its label."""
        if not len(targets):
            return None
        figure = Figure(figsize=(5.5, 5.5), layout="constrained")
        axis = figure.subplots()
        axis.plot((self.low, self.high), (self.low, self.high), color="grey", linewidth=1)
        axis.plot(targets, answers[:, 0], "o", markersize=4, alpha=0.6)
        axis.set(xlabel=f"True ({self.unit})", ylabel=f"Predicted ({self.unit})", title=f"Image output: {self.name}")
        return figure

    def decide(self, answer: np.ndarray) -> Target:
        """The number; what single precision may add at the ends of the range is taken off."""
        return (min(max(float(answer[0]), self.low), self.high),)

    def say(self, answer: np.ndarray) -> str:
        """The number and its unit."""
        return self.say_target(self.decide(answer))

    def joined(self, mean: np.ndarray, count: int, answer: np.ndarray) -> np.ndarray:
        """The mean of the numbers: that of the logits would follow a single image at an end of the range."""
        return (count * mean + answer) / (count + 1)

    def say_target(self, target: Target) -> str:
        """The number and its unit."""
        return self.titled(f"{target[0]:.3g} {shortened(self.unit, LONGEST)}")

    def right(self, answer: np.ndarray, target: Target) -> bool:
        """Whether they differ by a twentieth of the range at most."""
        return abs(float(answer[0]) - target[0]) <= _ALIKE * (self.high - self.low)

    def as_data(self, answer: np.ndarray) -> dict[str, Any]:
        """The number and its unit."""
        return {"value": float(answer[0]), "unit": self.unit}

    def cells(self, answer: np.ndarray) -> dict[str, Any]:
        """The number."""
        return {self.name: float(answer[0])}
