"""Trains with the flags of the command line and kills itself, as `kill -9` would, at the moment that its first argument names."""

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


save = torch.save
moment, *flags = sys.argv[1:]
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
else:
    sys.exit(f"no such moment: {moment}")
run.main(flags)
