"""What a comparison trains and where: the plan in `compare.yaml`, the folder, and the checks before the first run starts.

ROOT/compare.yaml              the plan
ROOT/METHOD/seed0/             the folder of a training run, as `train` writes it
ROOT/METHOD/seed0.log          what the run printed

With folds: ROOT/METHOD/fold0 and so on, and ROOT/folds/ (see `folds`).
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gradnorm_plugin.compare.flags import MOST_FOLDS
from gradnorm_plugin.compare.methods import SEPARATE, Method, methods_of
from gradnorm_plugin.files import write_text
from gradnorm_plugin.outputs import Classes, the_classes
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.run_folder import CLASSIFICATION, METRICS_FILE, ImageTasks, image_tasks, read_facts
from gradnorm_plugin.training.balancers import make_balancer
from gradnorm_plugin.training.flags import given_flags
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import FETCHED, check_files, is_address, read_tasks
from gradnorm_plugin.training.options import parse_options, resolve_weights
from gradnorm_plugin.upstream.gateway import upstream

if sys.platform != "win32":
    import fcntl

PLAN_FILE = "compare.yaml"
SEED, FOLD = "seed", "fold"
"""What the runs of a method differ in."""
ALLOW_DOWNLOAD = "--allow-download"

_IN_A_METHOD = {
    "seed": "every method is trained with the seeds of --seeds",
    "evolve": "it changes the hyperparameters from run to run: run train --evolve first, hand on its result with --hyp",
    "project": "each run has its own folder in the comparison's: name that with compare's --project and --name",
    "name": "each run has its own folder in the comparison's: name that with compare's --project and --name",
    "exist_ok": "each run has its own folder in the comparison's",
    "resume": "a run that broke is trained anew",
    "allow_download": "give it to compare itself",
}
"""Training options that no method may set, with the reason; below, those that the shared flags may not."""
_FOR_ALL = {
    **_IN_A_METHOD,
    **dict.fromkeys(
        ("balancer", "backbone", "initial_weights"),
        'it is what the methods differ in: choose with --methods, or define one with --method NAME="FLAGS"',
    ),
}

_T = TypeVar("_T")


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
    return root / method / f"{unit}{seed}.log"


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
    """Write `compare.yaml`. Registered methods are kept by name, the user's own in full.

    Raises:
        WriteError: if it cannot be written.
    """
    own = {
        method.name: {
            "flags": list(method.flags),
            "detects": method.detects,
            "classifies": method.classifies,
            **({"untrained": list(method.untrained)} if method.untrained else {}),
        }
        for method in plan.methods
        if method.name not in methods_of(plan.tasks)
    }
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
        contents["image_outputs"] = [
            {"task": task.name, "kind": task.kind, "columns": list(task.figures), "headline": task.headline}
            for task in plan.tasks
        ]
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
        unit = FOLD if "folds" in contents else SEED
        return Plan(
            methods=tuple(_read_method(name, own, tasks) for name in contents["methods"]),
            seeds=tuple(range(_read_folds(contents["folds"])))
            if unit == FOLD
            else tuple(int(seed) for seed in contents["seeds"]),
            flags=_without_permission(contents["flags"]),
            directory=str(contents.get("directory") or ""),
            started=str(contents["started"]),
            tasks=tasks,
            threads=_read_threads(contents.get("threads")),
            unit=unit,
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


def _read_folds(value: Any) -> int:
    if type(value) is not int or not 2 <= value <= MOST_FOLDS:
        raise ValueError(f"folds is {value!r}: expected a whole number from 2 to {MOST_FOLDS}")
    return value


def _read_threads(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"threads is {value!r}: expected a whole number from 1")
    return value


def _without_permission(flags: list[Any]) -> tuple[str, ...]:
    """The flags in a file, less the one that only the command line may give."""
    return tuple(str(flag) for flag in flags if flag != ALLOW_DOWNLOAD)


def planned_tasks(flags: Sequence[str]) -> ImageTasks:
    """The image outputs of the data that training flags name.

    Raises:
        CompareError: if the flags cannot be used.
        OptionError, DescriptionError: if the data yaml cannot be read, or describes none.
    """
    return read_tasks(_parse(flags, "training flags"))


def make_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options of a new comparison describe.

    Without `--weights`, the initial weights are settled here, for all runs: a run on its own would choose by its network.

    Raises:
        CompareError: naming the flag that cannot be used.
    """
    flags, given = options.flags, _check_flags(options.flags, "training flags", _FOR_ALL)
    start = _parse(flags, "training flags")
    if "weights" not in given:
        note = resolve_weights(start)
        if note:
            upstream("utils.general").LOGGER.info(note)
        flags = (*flags, "--weights", str(start.weights), *(("--cfg", start.cfg) if "cfg" not in given and start.cfg else ()))
    methods = tuple(_complete(method, flags, options.tasks) for method in options.methods)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return Plan(methods, options.seeds, flags, os.getcwd(), started, options.tasks, unit=FOLD if options.folds else SEED)


def extend_plan(root: Path, options: argparse.Namespace) -> Plan:
    """The plan of the comparison in `root` with the methods and seeds of the options added.

    Raises:
        CompareError: if `root` is no comparison, or was started with other flags.
    """
    plan, given = read_plan(root), options.flags
    file = root / PLAN_FILE
    added = plan.flags[len(given) :]
    same = plan.flags[: len(given)] == given and (not added or added[0] == "--weights")  # what `make_plan` settled
    if not same or Path.cwd() != Path(plan.directory):
        raise CompareError(
            f"{file} is a comparison with other training flags: repeat them as they are there, in {plan.directory} "
            f"({shlex.join(plan.flags)}), or leave out --exist-ok to start another one"
        )
    if (options.folds or None) != (len(plan.seeds) if plan.unit == FOLD else None):
        planned = f"--folds {len(plan.seeds)}" if plan.unit == FOLD else "seeds, without --folds"
        raise CompareError(f"{file} is a comparison over {planned}: repeat that, or leave out --exist-ok to start another one")
    if options.tasks != plan.tasks:
        raise CompareError(f"{file} {_other_outputs(plan.tasks, options.tasks)}: leave out --exist-ok to start another one")
    known = {method.name: method for method in plan.methods}
    for method in options.methods:
        if method.name in known and known[method.name].flags != method.flags:
            raise CompareError(f"--method {method.name} has other flags in {file}: take another name")
    more = tuple(_complete(method, plan.flags, plan.tasks) for method in options.methods if method.name not in known)
    return replace(plan, methods=plan.methods + more, seeds=tuple(dict.fromkeys(plan.seeds + options.seeds)))


def check_origin(plan: Plan, root: Path) -> None:
    """Check the flags of a plan that may be somebody else's: nothing is fetched because a file says so.

    Raises:
        CompareError: naming the flag that `compare` would not have written, or that is an address.
    """
    where = f"{root / PLAN_FILE}"
    _check_flags(plan.flags, where, _FOR_ALL)
    for method in plan.methods:
        _check_flags(method.flags, where, _IN_A_METHOD)
        options = vars(_parse((*plan.flags, *method.flags), where))
        for name in FETCHED:
            if is_address(options.get(name)):
                raise CompareError(
                    f"{where}: --{name} {options[name]} is an address, and nothing is fetched because a file says so: add "
                    f"{ALLOW_DOWNLOAD} if you trust it"
                )


def check_plan(plan: Plan, allow_download: bool = False) -> dict[str, JointRun]:
    """Check the flags and files of every method and the data set, as each run will.

    Returns:
        Each method's run; the first for a data yaml has what its labels say.

    Raises:
        CompareError: if a method's flags cannot be used, or its data have other image outputs than was planned.
        OptionError, DescriptionError, LabelErrors: what training says about files and data.
    """
    allowed = (ALLOW_DOWNLOAD,) * allow_download
    runs = {method.name: JointRun(_parse((*plan.flags, *method.flags, *allowed), method.name)) for method in plan.methods}
    for name, run in runs.items():
        if plan.unit == FOLD and run.options.data != _parse(plan.flags, name).data:
            raise CompareError(f"{name}: --data cannot be set for a method: the folds are those of one data yaml")
        check_files(run.options)
    checked = set()
    outputs = {method.name: sum(method.trains(task.name) for task in plan.tasks) for method in plan.methods}
    for name in sorted(runs, key=lambda name: -outputs[name]):  # those that need more of the data first
        run = runs[name]
        if run.options.data not in checked:
            run.check_dataset(run.options.data)
            checked.add(run.options.data)
            if run.tasks != plan.tasks:
                raise CompareError(f"{name}: this comparison {_other_outputs(plan.tasks, run.tasks)} ({run.options.data})")
            if any(method.separate for method in plan.methods):
                check_separate(run)
    return runs


def check_separate(run: JointRun) -> Classes:
    """The classes that YOLOv5's `classify/train.py` can be trained to tell, where the labels of `run` have been checked.

    Raises:
        CompareError: saying what, and what to do.
    """
    output = the_classes(run.outputs)
    if output is None:
        raise CompareError(f"{SEPARATE}: YOLOv5's classifier tells a class, and the data yaml has no `classification_names`")
    if run.options.batch_size < 1:
        raise CompareError(f"{SEPARATE}: YOLOv5's classifier does not estimate a --batch-size, give a number")
    for split, scan in run.scans.items():
        absent = output.absent(scan.targets[output.name])
        if absent:
            raise CompareError(
                f"{SEPARATE}: no image of `{split}` is of the class {absent[0]}, and YOLOv5's classifier needs one of each: add "
                f"one, or leave the method out"
            )
    return output


def _other_outputs(planned: ImageTasks, found: ImageTasks) -> str:
    names = [", ".join(f"{task.name} ({task.kind})" for task in tasks) for tasks in (planned, found)]
    return f"was planned for the image outputs {names[0]}, but the data have {names[1]}"


def _complete(method: Method, shared: Sequence[str], tasks: ImageTasks) -> Method:
    """The method; one of the user's is checked, and its fixed weights tell which tasks it trains."""
    if method.name in methods_of(tasks):
        return method
    where = f"--method {method.name}"
    _check_flags(method.flags, where, _IN_A_METHOD)
    options = _parse((*shared, *method.flags), where)
    try:
        detection, *weights = make_balancer(options, 1 + len(tasks)).weights.tolist()
    except ValueError as error:
        raise CompareError(f"{where}: {error}") from None
    if options.balancer != "fixed":
        return method
    untrained = tuple(task.name for task, weight in zip(tasks, weights, strict=True) if not weight > 0)
    classifies = len(untrained) < len(tasks)
    return replace(method, detects=detection > 0, classifies=classifies, untrained=untrained if classifies else ())


def _check_flags(flags: Sequence[str], where: str, refused: dict[str, str]) -> set[str]:
    """The names of the training options that `flags` set.

    Raises:
        CompareError: if one is unknown, has a bad value, or is `refused` for the reason there.
    """
    given = _without_exit(lambda: given_flags(flags), where)
    for name in sorted(given & refused.keys()):
        raise CompareError(f"{where}: --{name.replace('_', '-')} cannot be set here: {refused[name]}")
    return given


def _parse(flags: Sequence[str], where: str) -> argparse.Namespace:
    return _without_exit(lambda: parse_options(list(flags)), where)


def _without_exit(parse: Callable[[], _T], where: str) -> _T:
    """What `parse` returns; where a training parser would print its usage and exit, an error that says what is wrong."""
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            return parse()
    except SystemExit:
        raise CompareError(f"{where}: {stderr.getvalue().rpartition('error: ')[2].strip()}") from None
