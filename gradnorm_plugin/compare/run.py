"""The command `compare`: plan, look at everything that could be wrong, train, and keep the tables up to date."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from gradnorm_plugin.compare.folders import ALLOW_DOWNLOAD, PLAN_FILE, CompareError, Plan, read_plan, write_plan
from gradnorm_plugin.compare.live import shown
from gradnorm_plugin.compare.lock import alone_in
from gradnorm_plugin.compare.options import parse_options
from gradnorm_plugin.compare.planning import check_origin, check_plan, extend_plan, make_plan
from gradnorm_plugin.compare.runner import train_all
from gradnorm_plugin.compare.runs import FAILED, FINISHED, Run, make_runs
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.files import explain
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.run_folder import ReportError
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.training.files import OptionError
from gradnorm_plugin.upstream.gateway import upstream

Writer = Callable[[Path], Sequence[Path]]
"""Writes the tables and pictures of the runs in a comparison's folder that are finished, and returns their paths."""


def main(argv: Sequence[str] | None = None, write: Writer | None = None) -> None:
    """Compare with the flags of `argv` (default: the command line's).

    Ends with status 1 and one message on bad input, and if a run failed (after all others); with 130 if it was stopped.
    """
    options = parse_options(argv)
    try:
        root, plan = planned(options)
        if write is None:
            module = import_module("gradnorm_plugin.compare.write")
            write = partial(module.write_comparison, predictions=options.original_predictions)
        runs = compare(root, plan, options, write)
    except (CompareError, OptionError, DescriptionError, LabelErrors, ReportError) as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))
    failed = sum(run.state == FAILED for run in runs)
    if failed:
        fail(f"{failed} of {len(runs)} runs failed: mend what their logs say, then `{_resume(root)}` trains them again")


def planned(options: argparse.Namespace) -> tuple[Path, Plan]:
    """The folder and the plan of the comparison that the options begin, extend or go on with.

    The working folder becomes the one that it was started in: paths among its flags count from there.

    Raises:
        CompareError: if there is no such comparison, or its flags cannot be used.
    """
    project = Path(options.project).resolve()
    if options.resume is not None:
        root = Path(options.resume).resolve() if options.resume else newest(project)
        plan = read_plan(root)
        if not options.allow_download:
            check_origin(plan, root)
        if Path(plan.directory).is_dir():
            os.chdir(plan.directory)
        return root, plan
    root = upstream("utils.general").increment_path(project / options.name, exist_ok=options.exist_ok)
    if (root / PLAN_FILE).is_file():
        return root, extend_plan(root, options)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise CompareError(f"{root} is there and is no comparison: take another --name")
    return root, make_plan(options)


def newest(project: Path) -> Path:
    """The folder of the comparison in `project` that was planned last.

    Raises:
        CompareError: if there is none.
    """
    plans = sorted(project.glob(f"*/{PLAN_FILE}"), key=lambda file: file.stat().st_mtime)
    if not plans:
        raise CompareError(f"--resume: there is no comparison in {project}, name its folder: --resume FOLDER")
    return plans[-1].parent


def compare(root: Path, plan: Plan, options: argparse.Namespace, write: Writer) -> list[Run]:
    """Train what is not finished, and write the tables whenever a run is, and at the end.

    Raises:
        CompareError, OptionError, DescriptionError, LabelErrors: what is wrong with flags, files or data, before anything starts.
        SystemExit: with status 130 if Ctrl-C or a signal stopped it; it can be gone on with then.
    """
    epochs = check_plan(plan, options.allow_download)
    root.mkdir(parents=True, exist_ok=True)
    with alone_in(root) as inherited:
        write_plan(root, plan)
        runs = make_runs(root, plan, epochs)
        flags = (*plan.flags, *((ALLOW_DOWNLOAD,) * options.allow_download))
        try:
            with stop_signals() as stopped, shown(runs, root, options.jobs) as screen:

                def changed(run: Run) -> None:
                    screen.changed(run)
                    if run.state == FINISHED:
                        _write_early(write, root)

                train_all(runs, flags, options.jobs, options.threads, changed, stopped, inherited)
        except KeyboardInterrupt:
            print(f"Stopped; go on with: {_resume(root)}", flush=True)
            sys.exit(130)
        if any(run.state == FINISHED for run in runs):
            for file in write(root):
                print(file)
    return runs


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Take Ctrl-C, SIGTERM and a closed terminal as the wish to stop: it is asked for where no process is just being started."""
    seen: list[int] = []
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    signals = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in signals}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_early(write: Writer, root: Path) -> None:
    """The tables so far. Whatever is wrong with them is told at the end: it must not cost the runs that are still to come."""
    with suppress(Exception):
        write(root)


def _resume(root: Path) -> str:
    return shlex.join(["yolov5-gradnorm", "compare", "--resume", str(root)])
