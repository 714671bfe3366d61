"""Trains with the flags of the command line, once for each moment, and is killed there, as by `kill -9`.

Usage: killed_training.py PROJECT FLAGS. A run's folder is in PROJECT/MOMENT; prints a line "MOMENT STATUS" for each. They are
forks of one process, because loading PyTorch takes longer than a training.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from gradnorm_plugin.training import joint_run, run
from gradnorm_plugin.upstream.gateway import upstream

MOMENTS = ("batch", "epoch", "checkpoint", "between", "end")


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, function: Callable[..., Any], action: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with `action` on the same arguments in its place from the given call on."""
    count = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return action(*args, **kwargs) if count > calls else function(*args, **kwargs)

    return counted


def half_written(contents: Any, file: BinaryIO) -> None:
    """Half of a checkpoint, and then nothing more."""
    whole = io.BytesIO()
    save(contents, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()


def train(moment: str, flags: list[str]) -> None:
    """Train until the moment."""
    if moment == "batch":  # the second of the second epoch
        joint_run.JointRun.end_batch = after(7, joint_run.JointRun.end_batch, die)
    elif moment == "epoch":  # the tables have the second epoch's rows, the checkpoint is not written yet
        upstream("utils.loggers").Loggers.on_fit_epoch_end = after(1, upstream("utils.loggers").Loggers.on_fit_epoch_end, die)
    elif moment == "between":  # last.pt of the second epoch is there, best.pt of it is not
        torch.save = after(4, torch.save, die)  # the first saves the layers into memory, to see whether that can be read again
    elif moment == "checkpoint":
        torch.save = after(3, torch.save, half_written)
    elif moment == "end":  # all epochs are trained, nothing is stripped
        upstream("train").strip_optimizer = die
    run.main(flags)


save = torch.save
project, *flags = sys.argv[1:]
upstream("train")  # loaded once
for moment in MOMENTS:
    child = os.fork()
    if not child:
        train(moment, [*flags, "--project", f"{project}/{moment}"])
        os._exit(0)
    print(moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
