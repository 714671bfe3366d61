"""What every kind of image output has in common: something that the network says about the whole image, beside its boxes.

A kind owns all that differs from one to the next: how its line in a label file is read and written, the loss, the activation, the
figures, and how an answer is said. Everything else loops over outputs.

B images in a batch, N images, D draws of them, W logits of the output.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

CLASS = "class"
"""The output of `classification_names`, whose columns and files had their names before there were others."""
LONGEST = 60
"""Characters of a name in a sentence or on a picture."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_RESERVED = (
    "detection", "classification", "images", "boxes", "total", "output0",
    "box", "obj", "cls", "epoch", "batch", "step", "cosine", "norm", "loss", "weight", "rate",  # columns of a run's tables
    "results", "joint_results", "gradnorm", "confusion_matrix", "f1_curve", "p_curve", "r_curve", "pr_curve",  # its pictures
)  # fmt: skip

Target = tuple[float, ...]
"""What a label file says about one image for one output."""


class OutputError(ValueError):
    """The description of an image output cannot be used; the message says why and what to write."""


class ImageOutput(ABC):
    """One image output. Instances compare by value and hold nothing but their description.

    Targets of N images are one array: what `targets` makes of label files. An image without a label has a row that `known` tells.
    """

    kind: ClassVar[str]
    """The key that names the kind in a data yaml."""
    figures: ClassVar[tuple[str, ...]]
    """What `measure` gives for every epoch."""
    headline: ClassVar[str]
    """The figure that stands for the others; 1 is perfect."""
    name: str

    @classmethod
    @abstractmethod
    def from_description(cls, name: str, description: Mapping[str, Any]) -> ImageOutput:
        """The output that the data yaml describes under `name`.

        Raises:
            OutputError: saying what is wrong.
        """

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Plain data that `from_description` reads: what checkpoints and exported files hold."""

    @property
    @abstractmethod
    def width(self) -> int:
        """W."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows of the last layer, by which weights are taken over from another checkpoint."""
        return (self.name,)

    @property
    def task(self) -> str:
        """The task's name in tables: `detection` is the other one."""
        return "classification" if self.name == CLASS else self.name

    def column(self, figure: str) -> str:
        """The column of one of its figures in a run's tables."""
        return figure if self.name == CLASS else f"{self.name}_{figure}"

    @abstractmethod
    def parse(self, fields: Sequence[str]) -> Target:
        """The target that the fields of a label line stand for.

        Raises:
            ValueError: saying what is wrong with them.
        """

    @abstractmethod
    def format(self, target: Target) -> str:
        """The fields of a label line, so that `parse` gives `target` back."""

    @abstractmethod
    def targets(self, rows: Sequence[Target | None]) -> np.ndarray:
        """(N, ...) targets; None for an image without a label."""

    @abstractmethod
    def known(self, targets: Any) -> Any:
        """(N,) bool: which of these targets (array or tensor) are labels."""

    @abstractmethod
    def agrees(self, anchor: Any, targets: np.ndarray) -> np.ndarray:
        """(N,) bool: with which images one that has the label `anchor` can share a mosaic, whose label is `anchor` then."""

    def draw_weights(self, targets: np.ndarray) -> np.ndarray:
        """(N,) how likely each image is drawn so that what is rare is seen as often; 0 without a label."""
        return self.known(targets).astype(np.float64)

    def varied(self, targets: np.ndarray) -> bool:
        """Whether two of these labels differ: if not, one answer is always right."""
        return len(np.unique(targets[self.known(targets)], axis=0)) > 1

    @abstractmethod
    def summary(self, targets: np.ndarray) -> str:
        """What these labels are, in a few words."""

    def absent(self, targets: np.ndarray) -> list[str]:
        """Those of `rows` that no image has, among these targets."""
        return []

    def balance(self, targets: np.ndarray) -> Tensor | None:
        """What `loss` needs so that what is rare among these targets counts as much as what is frequent; None for nothing."""
        return None

    def label_weights(self, targets: Tensor, balance: Tensor | None) -> Tensor:
        """(labelled,) how much each label counts in the mean that `loss` takes, for known targets."""
        return torch.ones(len(targets), device=targets.device)

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, balance: Tensor | None, smoothing: float) -> Tensor:
        """The mean loss, a scalar, of (B, W) float32 logits and B known targets.

        Args:
            balance: as `balance` gives it, or None.
            smoothing: of the labels, YOLOv5's `--label-smoothing`.
        """

    @abstractmethod
    def activate(self, logits: Tensor) -> Tensor:
        """(B, W) logits to what the user is told: probabilities or values."""

    @abstractmethod
    def measure(self, answers: np.ndarray, targets: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """The `figures`, (D,) each; NaN where a draw has no label.

        Args:
            answers: (N, W) activated.
            targets: as `targets` gives them, all known.
            times: (D, N) how often each image stands in each draw.
        """

    @abstractmethod
    def answer_losses(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(N,) the loss of each image, unweighted, of (N, W) activated and N known targets."""

    def answer_loss(self, answers: np.ndarray, targets: np.ndarray) -> float:
        """Their mean; NaN for none."""
        return float(self.answer_losses(answers, targets).mean()) if len(targets) else math.nan

    @abstractmethod
    def details(self, answers: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """What `joint_metrics.json` has of (N, W) activated and N known targets: images, figures, and row by row `classes`."""

    def figure(self, answers: np.ndarray, targets: np.ndarray) -> Figure | None:
        """A picture of (N, W) activated against N known targets; None for none."""
        return None

    @abstractmethod
    def decide(self, answer: np.ndarray) -> Target:
        """The target that (W,) activated logits come to."""

    def right(self, answer: np.ndarray, target: Target) -> bool:
        """Whether (W,) activated logits come to this label."""
        return self.decide(answer) == target

    @abstractmethod
    def say(self, answer: np.ndarray) -> str:
        """(W,) activated logits in words, for a person."""

    def behind(self, answer: np.ndarray) -> dict[int, str]:
        """What an explanation of (W,) activated logits explains: the logits that `say` is about, each in words of its own."""
        return {0: self.say(answer)}

    @abstractmethod
    def joined(self, mean: np.ndarray, count: int, answer: np.ndarray) -> np.ndarray:
        """(W,), the mean of `count` images' activated logits, after that of one more image of the same thing."""

    @abstractmethod
    def say_target(self, target: Target) -> str:
        """A label in words."""

    def titled(self, text: str) -> str:
        """The text after the output's name; that of `class` needs none."""
        return text if self.name == CLASS else f"{self.name}: {text}"

    @staticmethod
    def target(row: Any) -> Target:
        """The label that a row of `targets` (array or tensor) is."""
        return tuple(np.atleast_1d(np.asarray(row)).tolist())

    @abstractmethod
    def as_data(self, answer: np.ndarray) -> dict[str, Any]:
        """(W,) activated logits as plain data, for JSON."""

    @abstractmethod
    def cells(self, answer: np.ndarray) -> dict[str, Any]:
        """(W,) activated logits as the cells of a table, by column."""


@dataclass(frozen=True)
class NamedLogits(ImageOutput):
    """What the kinds have in common whose logits have names each: `{KIND: [A, B]}`."""

    name: str
    names: tuple[str, ...]

    @classmethod
    def from_description(cls, name: str, description: Mapping[str, Any]) -> NamedLogits:
        """`{KIND: [A, B]}`."""
        refuse_other_keys(name, description, (cls.kind,))
        return cls(name, name_list(name, cls.kind, description[cls.kind]))

    @property
    def description(self) -> dict[str, Any]:
        """`{KIND: [A, B]}`."""
        return {self.kind: list(self.names)}

    @property
    def width(self) -> int:
        """The number of names."""
        return len(self.names)

    @property
    def rows(self) -> tuple[str, ...]:
        """The names."""
        return self.names


def check_output_name(name: Any) -> None:
    """Refuse a name that cannot stand in label lines, columns of tables and exported files.

    Raises:
        OutputError: saying why.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OutputError(f"{name!r} is no name of an image output: use 1 to 40 of A-Z a-z 0-9 _ -, a letter first")
    if name.lower() in _RESERVED or hasattr(nn.ModuleDict(), name):  # which holds the heads by their names
        raise OutputError(f"{name!r} cannot name an image output: the word has a meaning of its own; take another")


def name_list(name: str, kind: str, found: Any) -> tuple[str, ...]:
    """The names that a description gives as a list or as {0: name, 1: name, ...}.

    Raises:
        OutputError: if they are no texts, or not different.
    """
    if isinstance(found, Mapping) and sorted(found, key=str) == sorted(range(len(found)), key=str):
        found = [found[index] for index in range(len(found))]
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise OutputError(f"`{kind}` of image output `{name}` is {found!r}: write a list of names, such as [A, B]")
    if len(set(found)) < len(found):
        raise OutputError(f"`{kind}` of image output `{name}` has a name twice ({', '.join(found)}): rename one")
    return tuple(found)


def refuse_other_keys(name: str, description: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse keys that the kind does not know: a misspelt one would be without effect.

    Raises:
        OutputError: naming the first.
    """
    for key in description:
        if key not in keys:
            raise OutputError(
                f"image output `{name}` has the key `{key}`, expected {' and '.join(f'`{known}`' for known in keys)}"
            )
