"""Trains the runs of a comparison: one after the other, or several at a time, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gradnorm_plugin.compare.folders import CompareError, is_finished
from gradnorm_plugin.compare.logs import reason
from gradnorm_plugin.compare.runs import FAILED, FINISHED, RUNNING, WAITING, Run

PATIENCE = 10.0
"""Seconds that a run has to end by itself when it is told to."""
_PROGRAM = (
    f"import sys; sys.path[:] = [{str(Path(__file__).resolve().parents[2])!r}, *filter(None, sys.path)]; "
    "from gradnorm_plugin.cli import main; main()"
)
"""`python -m gradnorm_plugin`, which would first look for modules in the working folder: that is where a stranger's plan says."""
_MARKS = ("weights", "opt.yaml", "hyp.yaml", "run.json")
"""What a training run writes into its folder first."""


def train_all(
    runs: Sequence[Run],
    flags: Sequence[str],
    jobs: int,
    threads: int,
    on_change: Callable[[Run], None],
    stopped: Callable[[], bool] = lambda: False,
    inherited: Sequence[int] = (),
) -> None:
    """Train the runs that wait, `jobs` at a time; one that fails does not end the others.

    Whatever ends this function, none of its processes is left.

    Args:
        runs: all of the comparison; their states change.
        flags: the training flags that all share.
        jobs: how many train at the same time.
        threads: CPU threads of each.
        on_change: called with a run that has started, is finished or has failed.
        stopped: asked all the time whether to break off.
        inherited: file descriptors that the processes get.

    Raises:
        KeyboardInterrupt: if it was `stopped`.
    """
    try:
        while any(run.state in (WAITING, RUNNING) for run in runs):
            if stopped():
                raise KeyboardInterrupt
            for run in [run for run in runs if run.state == RUNNING and run.process.poll() is not None]:
                _settle(run)
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
    own = ["--project", str(run.folder.parent), "--name", run.folder.name, "--exist-ok", "--seed", str(run.seed)]
    return [sys.executable, "-c", _PROGRAM, "train", *flags, *run.method.flags, *own]


def _start(run: Run, flags: Sequence[str], threads: int, inherited: Sequence[int]) -> None:
    clear(run.folder)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",  # the log keeps up with the run
    }
    run.log.unlink(missing_ok=True)  # what lies there may be a link
    with run.log.open("xb") as log:
        run.process = subprocess.Popen(
            command(run, flags),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a group of its own: it is ended with the processes of its loader, and by nobody else
            pass_fds=inherited,
        )
    run.started, run.state = time.monotonic(), RUNNING  # in this order: another thread draws them


def clear(folder: Path) -> None:
    """Remove what a broken run left: started anew, a run gives the figures of an undisturbed one; resumed, it need not.

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


def _settle(run: Run) -> None:
    status = run.process.returncode
    if status == 0 and is_finished(run.folder):
        run.seconds, run.state = time.monotonic() - run.started, FINISHED
    else:
        run.error, run.state = reason(run.log, status), FAILED


def _stop(running: Sequence[Run]) -> None:
    for run in running:
        _signal(run, "SIGTERM")
    deadline = time.monotonic() + PATIENCE
    for run in running:
        try:
            run.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        _signal(run, "SIGKILL")  # also what is left of its loader
        run.process.wait()
        run.state = WAITING


def _signal(run: Run, name: str) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(run.process.pid, getattr(signal, name))
        else:  # Windows
            run.process.terminate()
    except ProcessLookupError:
        pass
