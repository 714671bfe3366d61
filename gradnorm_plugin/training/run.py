"""The launcher: upstream's `train.main()`, run on both tasks."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.files import WriteError, replace_links
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.loss import NonFiniteLossError
from gradnorm_plugin.model.checkpoint import finite_weights
from gradnorm_plugin.report.compose import write_report
from gradnorm_plugin.report.run_files import ReportError
from gradnorm_plugin.terminal import fail, guard_log
from gradnorm_plugin.training.evolution import check_table
from gradnorm_plugin.training.flags import build_parser, given_flags
from gradnorm_plugin.training.hooks import make_callbacks
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import OptionError, check_files, check_place, read_checkpoint
from gradnorm_plugin.training.options import choices, parse_options, resolve_weights, settle
from gradnorm_plugin.training.resume import resume_options
from gradnorm_plugin.training.seams import whole_files
from gradnorm_plugin.upstream.gateway import swapped, under_their_own_names, upstream

_TrustError = upstream("utils.trust").TrustError

LAUNCHER = "train_joint_gradnorm_fixed.py"


def main(argv: Sequence[str] | None = None) -> None:
    """Train with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    line = list(sys.argv[1:] if argv is None else argv)
    guard_log()
    options = parse_options(line)
    try:
        train(options, command=[LAUNCHER, *line])
    except KeyboardInterrupt:  # `train` has said how to go on
        sys.exit(130)
    except (LabelErrors, DescriptionError, NonFiniteLossError, OptionError, WriteError, ReportError, _TrustError) as error:
        fail(str(error))
    except AssertionError as error:  # upstream's way to say what is wrong with its input
        if not str(error):
            raise
        fail(_plain(str(error)))


def train(options: argparse.Namespace, command: Sequence[str] = ()) -> JointRun | None:
    """Run upstream's training with our parts substituted for its own, and restore them at the end.

    `command`, the launcher and its flags, is recorded in `run.json`; a resumed run reports which flags it ignores.

    Returns:
        The run; None for a resumed one with nothing left to train.

    Raises:
        LabelErrors, DescriptionError: if the data is invalid; nothing has been written then.
        OptionError: if a file named by the options is missing or invalid.
        NonFiniteLossError: if training diverged.
        WriteError: if a file of the run cannot be written.
        ReportError: if a file of the finished run cannot be read.
        TrustError: upstream's, if the model yaml names something that is not a layer.
    """
    module = upstream("train")
    log = upstream("utils.general").LOGGER
    if options.resume and not options.evolve and not resume_options(options, given_flags(command[1:])):
        return None
    note = resolve_weights(options)
    settle(options)
    chosen = choices(options, given_flags(command[1:])) if command and not options.resume else {}
    if module.RANK in {-1, 0}:
        for line in (*([note] if note else ()), *(f"--{name.replace('_', '-')} {why}" for name, why in chosen.items())):
            log.info(line)
    if options.evolve and options.project == build_parser().get_default("project"):
        options.project = str(Path(options.project).with_name("evolve"))
    run = JointRun(options)
    run.command, run.choices = command, chosen
    if module.RANK in {-1, 0}:
        # Upstream creates the run folder before checking the data; bad data should leave nothing behind.
        check_files(options)
        run.check_dataset(options.data)
        if options.exist_ok:
            replace_links(Path(options.project) / options.name)  # upstream adds to results.csv, and draws, by name
        check_place(options)
        if options.evolve:
            check_table(options)
    with under_their_own_names(), run.in_place(), whole_files(), swapped(module, Callbacks=lambda: make_callbacks(run)):
        callbacks = make_callbacks(run)
        try:
            with callbacks.tracking.watched():
                module.main(options, callbacks)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"{error}{_where(run)}") from None
        except KeyboardInterrupt:
            if module.RANK in {-1, 0} and not options.evolve:
                log.info(f"\n{_how_to_go_on(run)}")
            raise
    if module.RANK in {-1, 0} and not options.evolve:
        # After upstream's loggers have drawn their plots.
        *_, page = write_report(Path(run.loggers.save_dir))
        log.info(f"Report: {page}")
        callbacks.tracking.end("FINISHED", Path(run.loggers.save_dir) / "weights" / "best.pt", page)
    return run


def _plain(message: str) -> str:
    """Upstream's assertion message in one line; from a loader worker it includes a traceback."""
    message = message.rpartition("\nAssertionError: ")[2].strip()
    unreadable = message.removeprefix("Image Not Found ")  # upstream says this of existing files, too
    return (
        message if unreadable == message else f"{unreadable} cannot be read by OpenCV: save it anew, as PNG or JPEG, or remove it"
    )


def _how_to_go_on(run: JointRun) -> str:
    last = Path(getattr(run.options, "save_dir", "")) / "weights" / "last.pt"  # unset until upstream has chosen the folder
    if not last.is_file():
        return "Interrupted before the first epoch was saved: there is nothing to resume from"
    return f"Interrupted. Resume with: python {LAUNCHER} --resume {shlex.quote(str(last))}"


def _where(run: JointRun) -> str:
    """The images of the failed batch, and the last good checkpoint."""
    saved = [Path(run.options.save_dir) / "weights" / name for name in ("last.pt", "best.pt")]
    there = [path for path in saved if path.is_file()]
    # With --noval an epoch's weights are saved unchecked.
    good = next((path for path in there if finite_weights(read_checkpoint("resume", path)["model"])), None)
    if good:
        left = f"the last good checkpoint is {good}"
    else:
        left = (
            "there is no good checkpoint: the weights of the last one are not finite" if there else "there is no checkpoint yet"
        )
    return "\n".join(["\n  images of the batch:", *(f"    {path}" for path in run.paths), f"  {left}"])
