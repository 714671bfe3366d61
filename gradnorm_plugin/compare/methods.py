"""The methods that `compare` knows: each is a name and the training flags that select it.

Every balancer is a method of its own; any other method is an entry here, or the user's (`--method NAME=FLAGS`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from gradnorm_plugin.balancing import BALANCERS, Balancer, FixedWeights, GradNorm

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Method:
    """One way to train: a row of a comparison's tables.

    Raises:
        ValueError: if the name cannot be a folder's.
    """

    name: str
    """On the command line, and of the folder that holds its runs."""
    label: str
    """In tables and pictures."""
    flags: tuple[str, ...]
    """Training flags, added after those that all methods share."""
    detects: bool = True
    """Whether detection is trained; if not, its detection figures mean nothing."""
    classifies: bool = True
    """Whether the image's class is trained."""
    note: str = ""
    """What it is, in one line."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"method name {self.name!r}: it names a folder, use letters, digits, '.', '_' and '-'")


def _fixed(detection: str, classification: str) -> tuple[str, ...]:
    return "--balancer", "fixed", "--initial-weights", detection, classification


def _of(balancer: type[Balancer]) -> Method:
    """A balancer with its default settings."""
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

BASELINES = {"detection": "detection-only", "classification": "classification-only"}
"""Task -> the method that trains it alone."""


def own_method(text: str) -> Method:
    """The method that `--method NAME=FLAGS` defines; the flags are split as a shell would.

    Raises:
        ValueError: if it does not define one.
    """
    name, equals, flags = text.partition("=")
    if not equals or not flags.strip().startswith("-"):
        raise ValueError(f'--method {text!r}: expected NAME="FLAGS", e.g. alpha0="--balancer gradnorm --gradnorm-alpha 0"')
    if name in METHODS:
        raise ValueError(f"--method {name}: there is one of this name already (see --list), take another name")
    return Method(name, name, tuple(shlex.split(flags)), note="your own")


def choose_methods(names: Sequence[str] | None, own: Sequence[Method]) -> tuple[Method, ...]:
    """The named methods in that order (default: all in `METHODS`), then those of the user's own that were not named.

    Raises:
        ValueError: if a name is unknown, or two of the user's methods share one.
    """
    of_user = {method.name: method for method in own}
    if len(of_user) < len(own):
        raise ValueError("--method: two methods have the same name, give each its own")
    known = {**METHODS, **of_user}
    chosen = list(names if names is not None else METHODS)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f'no method {unknown[0]}: take {", ".join(METHODS)}, or define it with --method {unknown[0]}="FLAGS"')
    return tuple(known[name] for name in dict.fromkeys([*chosen, *of_user]))
