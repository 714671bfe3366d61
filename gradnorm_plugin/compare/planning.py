"""From the options to a plan; and flags, files and data looked at before the first run starts."""

from __future__ import annotations

import argparse
import io
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gradnorm_plugin.compare.folders import ALLOW_DOWNLOAD, PLAN_FILE, CompareError, Plan, read_plan
from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.training.files import FETCHED, check_files, is_address
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.options import given_flags as training_flags
from gradnorm_plugin.training.options import make_balancer, parse_options, resolve_weights
from gradnorm_plugin.upstream.gateway import upstream

_IN_A_METHOD = {
    "seed": "every method is trained with the seeds of --seeds",
    "evolve": "it changes the hyperparameters from run to run: run train --evolve first, hand on its result with --hyp",
    "project": "each run has its own folder in the comparison's: name that with compare's --project and --name",
    "name": "each run has its own folder in the comparison's: name that with compare's --project and --name",
    "exist_ok": "each run has its own folder in the comparison's",
    "resume": "a run that broke is trained anew",
    "allow_download": "give it to compare, in full: --allow-download",
}
_FOR_ALL = {
    **_IN_A_METHOD,
    **dict.fromkeys(
        ("balancer", "backbone", "initial_weights"),
        'it is what the methods differ in: choose with --methods, or define one with --method NAME="FLAGS"',
    ),
}


def make_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options of a new comparison describe.

    Where `--weights` was left out, it is settled here what all runs start from: left to each run, the network would decide.

    Raises:
        CompareError: naming the flag that cannot be used.
    """
    flags, given = options.flags, given_flags(options.flags, "training flags", _FOR_ALL)
    start = _parse(flags, "training flags")
    if "weights" not in given:
        note = resolve_weights(start)
        if note:
            upstream("utils.general").LOGGER.info(note)
        flags = (*flags, "--weights", str(start.weights), *(("--cfg", start.cfg) if "cfg" not in given and start.cfg else ()))
    methods = tuple(_complete(method, flags) for method in options.methods)
    return Plan(methods, options.seeds, flags, os.getcwd(), datetime.now().astimezone().isoformat(timespec="seconds"))


def extend_plan(root: Path, options: argparse.Namespace) -> Plan:
    """The plan of the comparison in `root` with the methods and seeds of the options added.

    Raises:
        CompareError: if `root` is no comparison, or it is trained with other flags.
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
    known = {method.name: method for method in plan.methods}
    for method in options.methods:
        if method.name in known and known[method.name].flags != method.flags:
            raise CompareError(f"--method {method.name} has other flags in {file}: take another name")
    more = tuple(_complete(method, plan.flags) for method in options.methods if method.name not in known)
    return replace(plan, methods=plan.methods + more, seeds=tuple(dict.fromkeys(plan.seeds + options.seeds)))


def check_origin(plan: Plan, root: Path) -> None:
    """Look at the flags of a plan that may come from somebody else: nothing is fetched because a file says so.

    Raises:
        CompareError: naming the flag that no plan of ours has, or that names an address.
    """
    where = f"{root / PLAN_FILE}"
    given_flags(plan.flags, where, _FOR_ALL)
    for method in plan.methods:
        given_flags(method.flags, where, _IN_A_METHOD)
        options = vars(_parse((*plan.flags, *method.flags), where))
        for name in FETCHED:
            if is_address(options.get(name)):
                raise CompareError(
                    f"{where}: --{name} {options[name]} is an address, and nothing is fetched because a file says so: add "
                    f"{ALLOW_DOWNLOAD} if you trust it"
                )


def check_plan(plan: Plan, allow_download: bool = False) -> dict[str, int]:
    """Look at the flags and files of every method and at the data set, as each run will.

    Returns:
        The number of epochs by the method's name.

    Raises:
        CompareError: if a method's flags cannot be used.
        OptionError, DescriptionError, LabelErrors: what training says of files and data.
    """
    allowed = (ALLOW_DOWNLOAD,) * allow_download
    runs = {method.name: JointRun(_parse((*plan.flags, *method.flags, *allowed), method.name)) for method in plan.methods}
    for run in runs.values():
        check_files(run.options)
    looked_at = set()
    for run in sorted(runs.values(), key=lambda run: bool(run.detection_only)):  # those that need more of the data first
        if run.options.data not in looked_at:
            run.check_dataset(run.options.data)
            looked_at.add(run.options.data)
    return {name: run.options.epochs for name, run in runs.items()}


def given_flags(flags: Sequence[str], where: str, refused: dict[str, str]) -> set[str]:
    """The names of the training options that `flags` set.

    Raises:
        CompareError: if one is unknown, has a bad value, or is among the `refused`, which say why.
    """
    given = _said(lambda: training_flags(flags), where)
    for name in sorted(given & refused.keys()):
        raise CompareError(f"{where}: --{name.replace('_', '-')} cannot be set here: {refused[name]}")
    return given


def _complete(method: Method, shared: Sequence[str]) -> Method:
    """The method; one of the user's checked, with what it trains told by its weights."""
    if method.name in METHODS:
        return method
    where = f"--method {method.name}"
    given_flags(method.flags, where, _IN_A_METHOD)
    options = _parse((*shared, *method.flags), where)
    if options.balancer != "fixed":
        return method
    detection, classification = make_balancer(options).weights.tolist()
    return replace(method, detects=detection > 0, classifies=classification > 0)


def _parse(flags: Sequence[str], where: str) -> argparse.Namespace:
    return _said(lambda: parse_options(list(flags)), where)


def _said(parse: Callable[[], Any], where: str) -> Any:
    """What `parse` returns; training's parsers end the program, after a line of usage: here only what is wrong is told."""
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            return parse()
    except SystemExit:
        raise CompareError(f"{where}: {stderr.getvalue().rpartition('error: ')[2].strip()}") from None
