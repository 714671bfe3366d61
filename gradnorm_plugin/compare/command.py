"""The command `compare`: its flags, and the comparison from the plan through the checks and the runs to the tables."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from gradnorm_plugin.compare.flags import build_parser, parse_flags
from gradnorm_plugin.compare.folds import write_folds
from gradnorm_plugin.compare.live import progress_shown
from gradnorm_plugin.compare.methods import GRID, GRID_METHODS, Method, choose_methods, methods_of, own_method
from gradnorm_plugin.compare.page import write_comparison
from gradnorm_plugin.compare.plan import ALLOW_DOWNLOAD, FOLD, PLAN_FILE, CompareError, Plan, exclusive, read_plan, write_plan
from gradnorm_plugin.compare.planning import check_origin, check_plan, extend_plan, make_plan, planned_tasks
from gradnorm_plugin.compare.runner import FAILED, FINISHED, Run, make_runs, train_all
from gradnorm_plugin.convert.oddities import ConversionError
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.files import explain
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.report.run_files import ReportError
from gradnorm_plugin.run_folder import CLASSIFICATION
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.training.option_files import OptionError
from gradnorm_plugin.upstream.gateway import upstream

Writer = Callable[[Path], Sequence[Path]]
"""Writes the tables and pictures of the finished runs in a comparison's folder, and returns their paths."""


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check `compare`'s own flags; the others are in `flags`, a tuple, still unchecked.

    `methods` and `seeds` are tuples, of `Method` and of numbers; `resume` is None, '' (the newest) or a folder; `tasks` are the
    image outputs of the data.
    Errors end the program as argparse does: usage and one line, status 2.
    """
    parser = build_parser()
    options = parse_flags(parser, argv)
    options.name = options.name or "exp"
    options.seeds = tuple(dict.fromkeys(options.seeds if options.seeds is not None else (0, 1, 2)))
    if min(options.seeds) < 0:
        parser.error(f"--seeds must not be negative, found {min(options.seeds)}")
    options.tasks, unread = (CLASSIFICATION,), ""
    if options.resume is None:
        try:
            options.tasks = planned_tasks(options.flags)
        except (CompareError, OptionError, DescriptionError) as error:  # raised again when the comparison is planned
            unread = f" (of the data: {error})"
    if options.list:
        _list(methods_of(options.tasks).values())
        parser.exit()
    try:
        own = [own_method(text) for text in options.method or ()]
        options.methods = choose_methods(options.methods, own, options.tasks)
    except ValueError as error:
        parser.error(f"{error}{unread}")
    return options


def _list(methods: Collection[Method]) -> None:
    wide = max(len(method.name) for method in methods)
    for method in methods:
        rest = " (only if named)" if method.extra else ""
        print(f"{method.name:{wide}}  {method.label}: {method.note}{rest}\n{'':{wide}}  {' '.join(method.flags)}")
    print(f"{GRID:{wide}}  {', '.join(GRID_METHODS)}, the best of which is marked")


def main(argv: Sequence[str] | None = None, write: Writer | None = None) -> None:
    """Compare with the flags of `argv` (default: the command line's); `write` (default: `write_comparison`) makes the tables.

    Exits with status 1 and one message on bad input, and if a run failed (after all others); with 130 if it was stopped.
    """
    options = parse_options(argv)
    try:
        root, plan = find_plan(options)
        runs = compare(root, plan, options, write or partial(write_comparison, predictions=options.original_predictions))
    except (CompareError, ConversionError, OptionError, DescriptionError, LabelErrors, ReportError) as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))
    failed = sum(run.state == FAILED for run in runs)
    if failed:
        fail(f"{failed} of {len(runs)} runs failed: mend what their logs say, then `{_resume(root)}` trains them again")


def find_plan(options: argparse.Namespace) -> tuple[Path, Plan]:
    """The folder and the plan of the comparison that the options start, extend or resume.

    Resuming changes to the working folder that it was started in: its flags may hold relative paths.

    Raises:
        CompareError: if there is no such comparison, or its flags cannot be used.
    """
    project = Path(options.project).resolve()
    if options.resume is not None:
        root = Path(options.resume).resolve() if options.resume else _newest(project)
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


def compare(root: Path, plan: Plan, options: argparse.Namespace, write: Writer) -> list[Run]:
    """Train what is not finished, and write the tables whenever a run finishes, and at the end.

    Raises:
        CompareError, ConversionError, OptionError, DescriptionError, LabelErrors: what is wrong with flags, files or data, before
            anything starts.
        SystemExit: with status 130 if Ctrl-C or a signal stopped it; it can be resumed then.
    """
    checked = check_plan(plan, options.allow_download)
    plan = replace(plan, threads=options.threads or plan.threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root) as inherited:
        if plan.unit == FOLD and not (root / PLAN_FILE).is_file():
            write_folds(root, plan, next(run for run in checked.values() if run.scans), options)
        write_plan(root, plan)
        runs = make_runs(root, plan, {name: run.options.epochs for name, run in checked.items()})
        flags = (*plan.flags, *((ALLOW_DOWNLOAD,) * options.allow_download))
        try:
            with _stop_signals() as stopped, progress_shown(runs, root, options.jobs) as screen:

                def changed(run: Run) -> None:
                    screen.changed(run)
                    if run.state == FINISHED:
                        with suppress(Exception):  # raised again at the end: it must not cost the runs still to come
                            write(root)

                threads = plan.threads or max(1, cores // options.jobs)
                train_all(runs, flags, options.jobs, threads, changed, stopped, inherited)
        except KeyboardInterrupt:
            print(f"Stopped; go on with: {_resume(root)}", flush=True)
            sys.exit(130)
        if any(run.state == FINISHED for run in runs):
            for file in write(root):
                print(file)
    return runs


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C, SIGTERM and SIGHUP instead of exiting on them; yields a function that says whether one arrived.

    A run is thus never stopped while its process is being started.
    """
    seen: list[int] = []
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    signals = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in signals}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _newest(project: Path) -> Path:
    plans = sorted(project.glob(f"*/{PLAN_FILE}"), key=lambda file: file.stat().st_mtime)
    if not plans:
        raise CompareError(f"--resume: there is no comparison in {project}, name its folder: --resume FOLDER")
    return plans[-1].parent


def _resume(root: Path) -> str:
    return shlex.join(["yolov5-gradnorm", "compare", "--resume", str(root)])
