"""The ways to train that `compare` knows, each a name and the training flags that make it. One more is one more entry here."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Method:
    """One way to train: the row of a comparison's table.

    Raises:
        ValueError: if the name cannot be that of a folder.
    """

    name: str
    """Of its folder, and on the command line."""
    label: str
    """In tables and pictures."""
    flags: tuple[str, ...]
    """Training flags, which follow those that all methods share."""
    detects: bool = True
    """Whether boxes are trained; if not, its detection figures say nothing."""
    classifies: bool = True
    """Whether the image's class is trained."""
    note: str = ""
    """What it is, in a line."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"method name {self.name!r}: it names a folder, use letters, digits, '.', '_' and '-'")


def _fixed(detection: str, classification: str) -> tuple[str, ...]:
    return "--balancer", "fixed", "--initial-weights", detection, classification


_ALONE = "the joint network with the other task's loss switched off"

_POOLED = ("--head", "pooled")  # without a detector that learns there is nothing to be guided by; two backbones share nothing

METHODS = {
    method.name: method
    for method in (
        Method("detection-only", "Detection only", _fixed("1", "0"), classifies=False, note=_ALONE),
        Method("classification-only", "Classification only", (*_fixed("0", "1"), *_POOLED), detects=False, note=_ALONE),
        Method("fixed-1-0.01", "Fixed 1 / 0.01", _fixed("1", "0.01"), note="the weights that GradNorm starts from, kept"),
        Method("fixed-1-1", "Fixed 1 / 1", _fixed("1", "1"), note="the plain sum of the losses"),
        Method("uncertainty", "Uncertainty", ("--balancer", "uncertainty"), note="a learned noise for each task (Kendall 2018)"),
        Method("dwa", "DWA", ("--balancer", "dwa"), note="weights from how fast each loss falls (Liu 2019)"),
        Method("pcgrad", "PCGrad", ("--balancer", "pcgrad"), note="conflicting gradients are projected apart (Yu 2020)"),
        Method("cagrad", "CAGrad", ("--balancer", "cagrad"), note="the step that is best for the worse task (Liu 2021)"),
        Method("gradnorm", "GradNorm", ("--balancer", "gradnorm"), note="gradient norms by training rate (Chen 2018)"),
        Method("dual", "Two backbones", ("--backbone", "dual", *_POOLED), note="nothing is shared; a larger network"),
    )
}
"""By name, in the order of the tables."""
