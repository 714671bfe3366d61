"""The runs of a comparison: their order, their state, and the processes that train them, one or several at a time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.compare.plan import FOLD, SEED, CompareError, Plan, fold_file, is_finished, log_file, run_folder
from gradnorm_plugin.report.run_files import read_facts
from gradnorm_plugin.run_folder import CLASSIFICATION, ImageTasks

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
PATIENCE = 10.0
"""Seconds a run has to end once it is told to."""
LOG_TAIL = 64 * 1024
"""Bytes of a log that are searched for the reason, which is at its end: progress bars make logs long."""

_PROGRAM = f"import sys; sys.path[:] = [{str(Path(__file__).resolve().parents[2])!r}, *filter(None, sys.path)]; "
_TRAIN = f"{_PROGRAM}from gradnorm_plugin.cli import main; main()"
_TRAIN_SEPARATE = f"{_PROGRAM}from gradnorm_plugin.compare.separate import main; main()"
"""`python -m gradnorm_plugin` without the working folder on the import path: a stranger's plan may name that folder."""
_MARKS = ("weights", "opt.yaml", "hyp.yaml", "run.json", "images")
"""What a training run writes into its folder first."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Run:
    """One training of a comparison, and its state."""

    method: Method
    seed: int
    folder: Path
    log: Path
    epochs: int
    state: str = WAITING
    started: float = 0.0
    """`time.monotonic` of its start."""
    seconds: float | None = None
    """How long it took, once it is finished."""
    error: str = ""
    """Why it failed, in one line."""
    process: subprocess.Popen[bytes] | None = None
    tasks: ImageTasks = (CLASSIFICATION,)
    """The image outputs of the data."""
    unit: str = SEED
    """What `seed` is, in the plan's words."""
    data: tuple[str, ...] = ()
    """The flag for a data yaml of its own."""

    @property
    def name(self) -> str:
        """In messages: `gradnorm seed 0`."""
        return f"{self.method.name} {self.unit} {self.seed}"


def make_runs(root: Path, plan: Plan, epochs: Mapping[str, int]) -> list[Run]:
    """All runs in their order; those that an earlier start finished are marked so.

    The seeds are the outer loop: whenever a comparison is broken off, no method is more than one run ahead of another.
    """
    runs = []
    for seed in plan.seeds:
        for method in plan.methods:
            folder, log = (place(root, method.name, seed, plan.unit) for place in (run_folder, log_file))
            data = ("--data", str(fold_file(root, seed))) if plan.unit == FOLD else ()
            run = Run(method, seed, folder, log, epochs[method.name], tasks=plan.tasks, unit=plan.unit, data=data)
            if is_finished(folder):
                seconds = read_facts(folder).get("seconds")
                run.state, run.seconds = FINISHED, float(seconds) if isinstance(seconds, (int, float)) else None
            runs.append(run)
    return runs


def train_all(
    runs: Sequence[Run],
    flags: Sequence[str],
    jobs: int,
    threads: int,
    on_change: Callable[[Run], None],
    stopped: Callable[[], bool] = lambda: False,
    inherited: Sequence[int] = (),
) -> None:
    """Train the waiting runs, `jobs` at a time; one that fails does not end the others.

    However this function ends, it leaves no process behind.

    Args:
        runs: all of the comparison; their states change.
        flags: the training flags that all share.
        jobs: how many train at the same time.
        threads: CPU threads of each.
        on_change: called with a run that has started, finished or failed.
        stopped: polled; true to break off.
        inherited: file descriptors for the processes to inherit.

    Raises:
        KeyboardInterrupt: if it was `stopped`.
    """
    try:
        while any(run.state in (WAITING, RUNNING) for run in runs):
            if stopped():
                raise KeyboardInterrupt
            for run in runs:
                status = run.process.poll() if run.process and run.state == RUNNING else None
                if status is None:
                    continue
                if status == 0 and is_finished(run.folder):
                    run.seconds, run.state = time.monotonic() - run.started, FINISHED
                else:
                    run.error, run.state = failure(run.log, status), FAILED
                on_change(run)
            free = jobs - sum(run.state == RUNNING for run in runs)
            for run in [run for run in runs if run.state == WAITING][:free]:
                try:
                    _start(run, flags, threads, inherited)
                except (CompareError, OSError) as error:
                    run.error, run.state = str(error), FAILED
                on_change(run)
            time.sleep(0.1)
    finally:
        _stop([run for run in runs if run.state == RUNNING])


def command(run: Run, flags: Sequence[str]) -> list[str]:
    """The command line of a run; what the comparison sets comes last, so nothing before it can change it."""
    own = [*run.data, "--project", str(run.folder.parent), "--name", run.folder.name, "--exist-ok", "--seed", str(run.seed)]
    program = [_TRAIN_SEPARATE] if run.method.separate else [_TRAIN, "train"]
    return [sys.executable, "-c", *program, *flags, *run.method.flags, *own]


def clear(folder: Path) -> None:
    """Remove what a broken run left: trained anew, it gives the figures of an undisturbed run; resumed, it might not.

    Raises:
        CompareError: if there is something that no training run wrote.
        OSError: if it cannot be removed.
    """
    if folder.parent.is_symlink():
        raise CompareError(f"{folder.parent} is a link, and runs are written and removed there: put the folder itself there")
    if not os.path.lexists(folder):
        return
    is_run = folder.is_dir() and not folder.is_symlink()
    if not is_run or (any(folder.iterdir()) and not any((folder / name).exists() for name in _MARKS)):
        raise CompareError(f"{folder} is there and is not a training run's: move it away")
    shutil.rmtree(folder)


def failure(log: Path, status: int) -> str:
    """Why a run failed, in one line: the error in its log, else the signal that ended it, else the last line of the log.

    Args:
        log: all that the run printed.
        status: of its process; negative for a signal.
    """
    lines = _last_lines(log)
    errors = [line for line in lines if line.startswith("ERROR:")]
    if errors:
        return errors[-1].removeprefix("ERROR:").strip()
    if status < 0:
        name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
        return f"ended by signal {name}" + (" (short of memory?)" if name == "SIGKILL" else "")
    last = lines[-1] if lines else "it printed nothing"
    return last if status else f"it ended without its results; its last line: {last}"


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in re.split(r"[\r\n]+", _ESCAPES.sub("", text)) if line.strip()]


def _start(run: Run, flags: Sequence[str], threads: int, inherited: Sequence[int]) -> None:
    clear(run.folder)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    settings = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    settings["PYTHONUNBUFFERED"] = "1"  # the log keeps up with the run
    run.log.unlink(missing_ok=True)  # it may be a link
    with run.log.open("xb") as log:
        run.process = subprocess.Popen(
            command(run, flags),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            start_new_session=True,  # a process group of its own: signalled together with its data loader, and only by us
            pass_fds=inherited,
        )
    run.started, run.state = time.monotonic(), RUNNING  # in this order: another thread draws the table


def _stop(running: Sequence[Run]) -> None:
    processes = [run.process for run in running if run.process]
    for process in processes:
        _signal(process, "SIGTERM")
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        _signal(process, "SIGKILL")  # also what is left of its data loader
        process.wait()
    for run in running:
        run.state = WAITING


def _signal(process: subprocess.Popen[bytes], name: str) -> None:
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, getattr(signal, name))
        else:  # Windows
            process.terminate()
