"""The launcher: upstream's `train.main()`, run on both tasks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.loss import NonFiniteLossError
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.training.hooks import JointCallbacks, make_callbacks
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.options import parse_options, resolve_weights
from gradnorm_plugin.upstream.gateway import swapped, upstream


def main(argv: Sequence[str] | None = None) -> None:
    """Train with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        train(options)
    except (LabelErrors, DescriptionError, NonFiniteLossError, FileNotFoundError) as error:
        fail(str(error))


def train(options: argparse.Namespace) -> JointRun:
    """Run upstream's training with our parts in place of its own; they are taken out again at the end.

    Raises:
        LabelErrors, DescriptionError: if the data is not as it should be; nothing has been written then.
        FileNotFoundError: if a file that the options name is not there.
        NonFiniteLossError: if training diverged.
    """
    module = upstream("train")
    _resume_options(options)
    note = resolve_weights(options)
    if note and module.RANK in {-1, 0}:
        upstream("utils.general").LOGGER.info(note)
    if module.RANK == 0 and options.balancer == "gradnorm":
        upstream("utils.general").LOGGER.warning(
            "WARNING ⚠️ GradNorm measures each process by itself: with several, their task weights can drift apart"
        )
    run = JointRun(options)
    if module.RANK in {-1, 0}:
        # Upstream makes the run's folder before it looks at the data; bad data should leave nothing behind.
        _check_files(options)
        run.check_dataset(options.data)
    with run.in_place(), swapped(module, Callbacks=lambda: make_callbacks(run)):
        module.main(options, make_callbacks(run))
    return run


def _resume_options(options: argparse.Namespace) -> None:
    """Give a resumed run the options it was started with, as upstream does."""
    if not options.resume or options.evolve:
        return
    general = upstream("utils.general")
    last = Path(options.resume if isinstance(options.resume, str) else general.get_latest_run() or "last.pt")
    saved = last.parent.parent / "opt.yaml"
    if not last.is_file() or not saved.is_file():
        raise FileNotFoundError(f"--resume: {last} with its {saved} is not there: name the last.pt of a run that was interrupted")
    for name, value in yaml.safe_load(saved.read_text(errors="ignore")).items():
        setattr(options, name, value)
    options.resume = str(last)


def _check_files(options: argparse.Namespace) -> None:
    """Find the files that the options name, where upstream looks for them.

    Raises:
        FileNotFoundError: naming the flag and the file.
    """
    general = upstream("utils.general")
    # A resumed run has its hyperparameters in its options, and its model in the checkpoint.
    for flag in ("data",) if options.resume else ("data", "cfg", "hyp"):
        name = getattr(options, flag)
        try:
            setattr(options, flag, general.check_file(name))
        except (AssertionError, FileNotFoundError) as error:
            raise FileNotFoundError(f"--{flag} {name}: {error}") from None
    if options.weights and not options.resume and not Path(str(options.weights)).is_file():
        try:
            found = upstream("utils.downloads").attempt_download(options.weights)
        except Exception as error:  # upstream's download fails in many ways; to the user they are one
            raise FileNotFoundError(f"--weights {options.weights} is not there and cannot be fetched: {error}") from None
        if not Path(found).is_file():
            raise FileNotFoundError(f"--weights {options.weights} is not there and cannot be fetched: name an existing file")


__all__ = ["JointCallbacks", "main", "train"]
