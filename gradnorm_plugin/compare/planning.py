"""From flags to a plan that can be trained: a new one, an extended one, and the checks before the first run starts."""

from __future__ import annotations

import argparse
import io
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from gradnorm_plugin.compare.methods import SEPARATE, Method, methods_of
from gradnorm_plugin.compare.plan import ALLOW_DOWNLOAD, FOLD, PLAN_FILE, SEED, CompareError, Plan, read_plan
from gradnorm_plugin.outputs import Classes, the_classes
from gradnorm_plugin.run_folder import ImageTasks
from gradnorm_plugin.training.balancers import make_balancer
from gradnorm_plugin.training.flags import given_flags
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import FETCHED, check_files, is_address, read_tasks
from gradnorm_plugin.training.options import parse_options, resolve_weights
from gradnorm_plugin.upstream.gateway import upstream

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


def planned_tasks(flags: Sequence[str]) -> ImageTasks:
    """The image outputs of the data that the training flags name.

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
    """The classes that YOLOv5's `classify/train.py` can be trained on; the labels of `run` must have been checked.

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
    with _named(where):
        given = given_flags(flags)
    for name in sorted(given & refused.keys()):
        raise CompareError(f"{where}: --{name.replace('_', '-')} cannot be set here: {refused[name]}")
    return given


def _parse(flags: Sequence[str], where: str) -> argparse.Namespace:
    with _named(where):
        options = parse_options(list(flags))
    return options


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Where a training parser would print its usage and exit, an error that says what is wrong and where."""
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            yield
    except SystemExit:
        raise CompareError(f"{where}: {stderr.getvalue().rpartition('error: ')[2].strip()}") from None
