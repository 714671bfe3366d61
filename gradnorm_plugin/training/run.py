"""The launcher: upstream's `train.main()`, run on both tasks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.loss import NonFiniteLossError
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.training.files import OptionError, check_files
from gradnorm_plugin.training.hooks import make_callbacks
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.options import build_parser, parse_options, resolve_weights
from gradnorm_plugin.upstream.gateway import swapped, upstream


def main(argv: Sequence[str] | None = None) -> None:
    """Train with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        train(options)
    except (LabelErrors, DescriptionError, NonFiniteLossError, OptionError) as error:
        fail(str(error))
    except AssertionError as error:  # upstream's way to say what is wrong with its input
        if not str(error):
            raise
        fail(str(error))


def train(options: argparse.Namespace) -> JointRun:
    """Run upstream's training with our parts in place of its own; they are taken out again at the end.

    Raises:
        LabelErrors, DescriptionError: if the data is not as it should be; nothing has been written then.
        OptionError: if a file that the options name is not there or not what it should be.
        NonFiniteLossError: if training diverged.
    """
    module = upstream("train")
    _resume_options(options)
    note = resolve_weights(options)
    if note and module.RANK in {-1, 0}:
        upstream("utils.general").LOGGER.info(note)
    if module.RANK != -1 and options.balancer == "gradnorm":
        raise OptionError(
            "GradNorm does not run on several processes yet: each would measure its own batches, and the weights would drift "
            "apart. Train on one GPU, or with --balancer fixed"
        )
    if options.evolve and options.project == build_parser().get_default("project"):
        options.project = str(Path(options.project).with_name("evolve"))
    run = JointRun(options)
    if module.RANK in {-1, 0}:
        # Upstream makes the run's folder before it looks at the data; bad data should leave nothing behind.
        check_files(options)
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
        raise OptionError(f"--resume: {last} with its {saved} is not there: name the last.pt of a run that was interrupted")
    if torch.load(last, map_location="cpu", weights_only=False)["epoch"] < 0:
        raise OptionError(f"--resume: the run of {last} is finished; start a new one with --weights {last}")
    for name, value in yaml.safe_load(saved.read_text(errors="ignore")).items():
        setattr(options, name, value)
    options.resume = str(last)
