"""The runs of a comparison, in their order, and how long they may still take."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradnorm_plugin.compare.figures import figures_so_far, seconds_trained
from gradnorm_plugin.compare.folders import Plan, is_finished, log_file, run_folder
from gradnorm_plugin.compare.methods import Method

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"


@dataclass
class Run:
    """One training of a comparison, and where it stands."""

    method: Method
    seed: int
    folder: Path
    log: Path
    epochs: int
    state: str = WAITING
    started: float = 0.0
    """`time.monotonic` of its start."""
    seconds: float | None = None
    """How long it took, if it is finished."""
    error: str = ""
    """Why it failed, in one line."""
    process: subprocess.Popen[bytes] | None = None


def make_runs(root: Path, plan: Plan, epochs: Mapping[str, int]) -> list[Run]:
    """All runs in their order; those that an earlier start finished are so already.

    The seeds are the outer loop: whenever a comparison is broken off, its methods have had the same chances, but for one.
    """
    runs = []
    for seed in plan.seeds:
        for method in plan.methods:
            folder = run_folder(root, method.name, seed)
            run = Run(method, seed, folder, log_file(root, method.name, seed), epochs[method.name])
            if is_finished(folder):
                run.state, run.seconds = FINISHED, seconds_trained(folder)
            runs.append(run)
    return runs


def seconds_left(runs: Sequence[Run], jobs: int) -> float | None:
    """An estimate of the time to the end of the last run; None as long as there is nothing to go by.

    Runs that wait are taken to last as long as the finished ones did on average, or as the running ones will at their pace.
    """
    now, paces, left = time.monotonic(), [], []
    running = [run for run in runs if run.state == RUNNING]
    for run in running:
        share = figures_so_far(run.folder).epochs / run.epochs
        paces.append((now - run.started) / share if share else None)
    known = [run.seconds for run in runs if run.state == FINISHED and run.seconds] or [pace for pace in paces if pace]
    if not known:
        return None
    mean = sum(known) / len(known)
    left = [max(0.0, (pace or mean) - (now - run.started)) for run, pace in zip(running, paces, strict=True)]
    waiting = sum(run.state == WAITING for run in runs)
    return max([(sum(left) + waiting * mean) / jobs, *left])
