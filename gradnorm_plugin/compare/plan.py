"""What a comparison trains and where: the plan in `compare.yaml`, and the folder.

ROOT/compare.yaml              the plan
ROOT/METHOD/seed0/             the folder of a training run, as `train` writes it
ROOT/METHOD/seed0.log          what the run printed

With folds: ROOT/METHOD/fold0 and so on, and ROOT/folds/ (see `folds`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.compare.flags import MOST_FOLDS
from gradnorm_plugin.compare.methods import Method, methods_of
from gradnorm_plugin.files import write_text
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.report.run_files import read_facts
from gradnorm_plugin.run_folder import CLASSIFICATION, METRICS_FILE, ImageTasks, image_tasks

if sys.platform != "win32":
    import fcntl

PLAN_FILE = "compare.yaml"
SEED, FOLD = "seed", "fold"
"""What the runs of a method differ in."""
ALLOW_DOWNLOAD = "--allow-download"


class CompareError(ValueError):
    """A comparison cannot be started, resumed or read; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What a comparison trains: every method with every seed, or on every fold, with the same flags."""

    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    """Or the folds: each is trained with its number as the seed."""
    flags: tuple[str, ...]
    """Training flags of all runs, before a method's own. None of them grants a permission."""
    directory: str
    """The working folder it was started in, which relative paths among the flags refer to."""
    started: str
    """ISO 8601, with the time zone."""
    tasks: ImageTasks = (CLASSIFICATION,)
    """The image outputs of the data."""
    threads: int | None = None
    """CPU threads of a run; None: as many as there are cores for it."""
    unit: str = SEED
    """`SEED` or `FOLD`."""


def run_folder(root: Path, method: str, seed: int, unit: str = SEED) -> Path:
    """The folder of one run."""
    return root / method / f"{unit}{seed}"


def log_file(root: Path, method: str, seed: int, unit: str = SEED) -> Path:
    """The file with one run's output."""
    return run_folder(root, method, seed, unit).with_suffix(".log")


def fold_file(root: Path, fold: int) -> Path:
    """The data yaml of one fold."""
    return root / "folds" / f"fold{fold}.yaml"


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` was trained and measured to its end."""
    return read_facts(folder).get("finished") is not None and (folder / METRICS_FILE).is_file()


@contextmanager
def exclusive(root: Path) -> Iterator[tuple[int, ...]]:
    """Lock the folder `root`: two comparisons in it would delete each other's running runs. Nothing is written to it.

    Yields:
        File descriptors for the runs to inherit: a run that outlives a killed `compare` keeps the lock.

    Raises:
        CompareError: if another process holds the lock.
    """
    if sys.platform == "win32":
        yield ()
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompareError(
                f"{root} is being worked on, by another `compare` or by a run that a killed one left behind: wait until it has "
                f"ended, or end it (`pgrep -af {root}` shows it)"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield (handle,)
    finally:
        os.close(handle)


def write_plan(root: Path, plan: Plan) -> None:
    """Write `compare.yaml`. Registered methods are kept by name, the user's own in full."""
    own = {}
    for method in plan.methods:
        if method.name not in methods_of(plan.tasks):
            own[method.name] = {"flags": list(method.flags), "detects": method.detects, "classifies": method.classifies}
            if method.untrained:
                own[method.name]["untrained"] = list(method.untrained)
    contents: dict[str, Any] = {
        "methods": [method.name for method in plan.methods],
        **({"folds": len(plan.seeds)} if plan.unit == FOLD else {"seeds": list(plan.seeds)}),
        "flags": list(plan.flags),
        "own_methods": own,
        "directory": plan.directory,
        "started": plan.started,
        "threads": plan.threads,
    }
    if plan.tasks != (CLASSIFICATION,):
        contents["image_outputs"] = [task.facts for task in plan.tasks]
    write_text(root / PLAN_FILE, yaml.safe_dump(contents, sort_keys=False, allow_unicode=True))


def read_plan(root: Path) -> Plan:
    """The plan of the comparison in `root`.

    Raises:
        CompareError: if there is none, or it cannot be used.
    """
    file = root / PLAN_FILE
    if not file.is_file():
        raise CompareError(f"{root} has no {PLAN_FILE}: name the folder of a comparison, such as runs/compare/exp")
    try:
        contents = read_yaml(file)
        own, tasks = contents.get("own_methods") or {}, image_tasks(contents)
        folds = _whole(contents, "folds", 2, MOST_FOLDS)
        return Plan(
            methods=tuple(_read_method(name, own, tasks) for name in contents["methods"]),
            seeds=tuple(map(int, contents["seeds"] if folds is None else range(folds))),
            flags=_without_permission(contents["flags"]),
            directory=str(contents.get("directory") or ""),
            started=str(contents["started"]),
            tasks=tasks,
            threads=_whole(contents, "threads", 1),
            unit=SEED if folds is None else FOLD,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f"{file} is not as `compare` wrote it ({type(error).__name__}: {error}): restore it") from None


def _read_method(name: str, own: dict[str, Any], tasks: ImageTasks) -> Method:
    if name in methods_of(tasks):
        return methods_of(tasks)[name]
    if name not in own:
        raise ValueError(f"no method is called {name}")
    found = own[name]
    untrained = tuple(str(task) for task in found.get("untrained", ()))
    flags = _without_permission(found["flags"])
    return Method(name, name, flags, found["detects"], found["classifies"], untrained=untrained)


def _whole(contents: dict[str, Any], key: str, least: int, most: int | None = None) -> int | None:
    value = contents.get(key)
    if value is not None and (type(value) is not int or value < least or (most and value > most)):
        raise ValueError(f"{key} is {value!r}: expected a whole number from {least}{f' to {most}' if most else ''}")
    return value


def _without_permission(flags: list[Any]) -> tuple[str, ...]:
    """Flags from a file, without the one that only the command line may grant."""
    return tuple(str(flag) for flag in flags if flag != ALLOW_DOWNLOAD)
