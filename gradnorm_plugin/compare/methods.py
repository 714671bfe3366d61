"""The ways to train that `compare` knows, each a name and the training flags that make it.

Every balancer is one of them by itself; any other is an entry here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gradnorm_plugin.balancing import BALANCERS, Balancer, FixedWeights, GradNorm

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


def _of(balancer: type[Balancer]) -> Method:
    """The balancer with its own settings."""
    return Method(balancer.name, balancer.label, ("--balancer", balancer.name), note=balancer.note)


_ALONE = "the joint network with the other task's loss switched off"

_POOLED = ("--head", "pooled")  # without a detector that learns there is nothing to be guided by; two backbones share nothing

METHODS = {
    method.name: method
    for method in (
        Method("detection-only", "Detection only", _fixed("1", "0"), classifies=False, note=_ALONE),
        Method("classification-only", "Classification only", (*_fixed("0", "1"), *_POOLED), detects=False, note=_ALONE),
        Method("fixed-1-0.01", "Fixed 1 / 0.01", _fixed("1", "0.01"), note="the weights that GradNorm starts from, kept"),
        Method("fixed-1-1", "Fixed 1 / 1", _fixed("1", "1"), note="the plain sum of the losses"),
        *(_of(balancer) for balancer in BALANCERS.values() if balancer not in (FixedWeights, GradNorm)),
        _of(GradNorm),
        Method("dual", "Two backbones", ("--backbone", "dual", *_POOLED), note="nothing is shared; a larger network"),
    )
}
"""By name, in the order of the tables."""
