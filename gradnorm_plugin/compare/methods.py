"""The methods that `compare` knows: each is a name and the training flags that select it.

Every balancer is a method of its own; any other method is an entry here, or the user's (`--method NAME=FLAGS`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from gradnorm_plugin.balancing import BALANCERS, Balancer, FixedWeights, GradNorm
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, ImageTasks, task_names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Method:
    """One way to train: a row of a comparison's tables.

    Raises:
        ValueError: if the name cannot be a folder's.
    """

    name: str
    """On the command line; also the folder of its runs."""
    label: str
    """In tables and pictures."""
    flags: tuple[str, ...]
    """Training flags, added after those that all methods share."""
    detects: bool = True
    """Whether detection is trained; if not, its detection figures mean nothing."""
    classifies: bool = True
    """Whether an image output is trained."""
    note: str = ""
    """What it is, in one line."""
    untrained: tuple[str, ...] = ()
    """Image outputs that are not trained although others are."""
    extra: bool = False
    """Whether it is trained only if it is named."""
    separate: bool = False
    """Whether it is a network of its own that upstream's `classify/train.py` trains (`separate`)."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"method name {self.name!r}: it names a folder, use letters, digits, '.', '_' and '-'")

    def trains(self, task: str) -> bool:
        """Whether the figures of a task mean something."""
        return self.detects if task == DETECTION else self.classifies and task not in self.untrained


def _fixed(*weights: str) -> tuple[str, ...]:
    return "--balancer", "fixed", "--initial-weights", *weights


_POOLED = ("--head", "pooled")  # without a detector that learns there is nothing to be guided by; two backbones share nothing
SEPARATE = "separate-classifier"
GRID, GRID_METHODS = "fixed-grid", ("fixed-1-0.1", "fixed-1-0.01", "fixed-1-0.001")
"""A name for several methods: fixed ratios, of which the page names the best."""


def baseline(task: str) -> str:
    """The name of the method that trains a task alone."""
    return f"{task}-only"


def _alone(task: str, tasks: ImageTasks) -> Method:
    label = f"{task.capitalize() if task in (DETECTION, CLASSIFICATION.name) else task} only"
    others = "other task's loss" if len(tasks) == 1 else "losses of all other tasks"
    note = f"the joint network with the {others} switched off"
    if task == DETECTION:
        return Method(baseline(task), label, _fixed("1", "0"), classifies=False, note=note)
    flags = (*_fixed(*("1" if name == task else "0" for name in task_names(tasks))), *_POOLED)
    untrained = tuple(other.name for other in tasks if other.name != task)
    return Method(baseline(task), label, flags, detects=False, note=note, untrained=untrained)


@cache
def methods_of(tasks: ImageTasks) -> dict[str, Method]:
    """The methods for detection and these image outputs, by name, in the order of the tables."""
    found = [
        *(_alone(name, tasks) for name in task_names(tasks)),
        Method("fixed-1-0.01", "Fixed 1 / 0.01", _fixed("1", "0.01"), note="the weights that GradNorm starts from, kept"),
        Method("fixed-1-1", "Fixed 1 / 1", _fixed("1", "1"), note="the plain sum of the losses"),
    ]
    balancers: list[type[Balancer]] = [of for of in BALANCERS.values() if of not in (FixedWeights, GradNorm)]
    balancers.append(GradNorm)
    found += [Method(of.name, of.label, ("--balancer", of.name), note=of.note) for of in balancers]
    found.append(Method("dual", "Two backbones", ("--backbone", "dual", *_POOLED), note="nothing is shared; a larger network"))
    for ratio in ("0.1", "0.001"):
        note = "of the grid of fixed ratios"
        found.append(Method(f"fixed-1-{ratio}", f"Fixed 1 / {ratio}", _fixed("1", ratio), note=note, extra=True))
    classes = [task.name for task in tasks if task.kind == "classes"]
    if len(classes) == 1:
        note = "YOLOv5's own classify/train.py on the image's class: a second network, from the same weights"
        others = tuple(task.name for task in tasks if task.name not in classes)
        separate = Method(
            SEPARATE, "Separate classifier", (), detects=False, note=note, untrained=others, extra=True, separate=True
        )
        found.append(separate)
    return {method.name: method for method in found}


METHODS = methods_of((CLASSIFICATION,))
"""The methods for a data set with one image class."""


def own_method(text: str) -> Method:
    """The method that `--method NAME=FLAGS` defines; the flags are split as a shell would.

    Raises:
        ValueError: if it does not define one.
    """
    name, equals, flags = text.partition("=")
    if not equals or not flags.strip().startswith("-"):
        raise ValueError(f'--method {text!r}: expected NAME="FLAGS", e.g. alpha0="--balancer gradnorm --gradnorm-alpha 0"')
    return Method(name, name, tuple(shlex.split(flags)), note="your own")


def choose_methods(
    names: Sequence[str] | None, own: Sequence[Method], tasks: ImageTasks = (CLASSIFICATION,)
) -> tuple[Method, ...]:
    """The named methods in that order (default: all for these image outputs but the extra ones), then the user's own not named.

    Raises:
        ValueError: if a name is unknown, or one of the user's methods has the name of another.
    """
    registered = methods_of(tasks)
    for method in own:
        if method.name in registered:
            raise ValueError(f"--method {method.name}: there is one of this name already (see --list), take another name")
    of_user = {method.name: method for method in own}
    if len(of_user) < len(own):
        raise ValueError("--method: two methods have the same name, give each its own")
    known = {**registered, **of_user}
    usual = [method.name for method in registered.values() if not method.extra]
    named = [GRID_METHODS if name == GRID else (name,) for name in (names if names is not None else usual)]
    chosen = [name for of in named for name in of]
    for name in chosen:
        if name not in known:
            every = ", ".join([*registered, GRID])
            raise ValueError(f'no method {name}: take {every}, or define it with --method {name}="FLAGS"')
    return tuple(known[name] for name in dict.fromkeys([*chosen, *of_user]))
