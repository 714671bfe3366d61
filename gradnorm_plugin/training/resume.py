"""`--resume`: bring the run's folder and its balancer back to the last checkpoint, whatever moment the run was killed at."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from gradnorm_plugin.files import remove_leftovers, replace_links, whole_file, write_text
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.reading import DescriptionError, read_text, read_yaml
from gradnorm_plugin.report.run_files import Record, ReportError, read_facts, read_table
from gradnorm_plugin.run_folder import (
    BATCHES_FILE,
    EPOCHS_FILE,
    FACTS_FILE,
    OPTIONS_FILE,
    PLAIN_EPOCHS_FILE,
    UPDATES_FILE,
)
from gradnorm_plugin.training.balancers import make_balancer
from gradnorm_plugin.training.option_files import FETCHED, OptionError, check_network, is_address, read_checkpoint
from gradnorm_plugin.upstream.gateway import upstream

ATTRIBUTE = "balancer_state"
"""Where the model that upstream pickles carries the balancer's state, plain data; gone when upstream strips a checkpoint."""
_PERMISSIONS = {"allow_download", "bucket", "evolve", "upload_dataset"}
"""Options that only a command line gives: they run code, reach other machines, or make another run of it."""
_OF_THIS_START = _PERMISSIONS | {"resume", "local_rank"}
"""Flags that count beside `--resume`: those of the new start, not of the run."""


def resume_options(options: argparse.Namespace, given: Collection[str] = ()) -> bool:
    """Give a resumed run the options that it was started with, and its folder the state of its last checkpoint.

    Args:
        options: filled in place.
        given: the options that the command line sets; a warning names those that differ from what the run was started with.

    Returns:
        Whether there is anything left to train: a run killed after its last epoch is finished here.

    Raises:
        OptionError: if there is no such run, or it is finished.
    """
    general = upstream("utils.general")
    named = options.resume if isinstance(options.resume, str) else general.get_latest_run()
    if not named:
        raise OptionError(f"--resume: there is no last.pt of a run in or below {Path.cwd()}: name one")
    last = Path(named).resolve()
    if last.is_dir():
        inside = next((path for path in (last / "weights" / "last.pt", last / "last.pt") if path.is_file()), None)
        raise OptionError(f"--resume: {last} is a folder: name the last.pt of a run" + (f", here {inside}" if inside else ""))
    folder = last.parent.parent
    saved = folder / OPTIONS_FILE
    if not last.is_file() or not saved.is_file():
        raise OptionError(f"--resume: {last} with its {saved} is not there: name the last.pt of a run that was interrupted")
    checkpoint = _read_unfinished(last)
    started_with = {"precision": "auto"} | _read_options(saved, options)  # as it was before there was this flag
    if upstream("train").RANK in {-1, 0}:
        _tell_ignored({name: getattr(options, name) for name in given}, started_with)
    for name, value in started_with.items():
        setattr(options, name, value)
    options.resume = str(last)
    options.save_dir = str(folder)  # it may have been moved, or named from another folder
    if upstream("train").RANK in {-1, 0}:
        _clean(folder, checkpoint, options)
    if checkpoint["epoch"] + 1 < options.epochs:
        return True
    if upstream("train").RANK in {-1, 0}:
        _finish(last)
    return False


def _read_unfinished(last: Path) -> dict[str, Any]:
    """The checkpoint of an unfinished joint run, with its optimizer."""
    checkpoint = read_checkpoint("resume", last)
    epoch, new_run = checkpoint.get("epoch"), f"start a new run with --weights {last}"
    if not isinstance(checkpoint["model"], JointDetectionModel):
        raise OptionError(f"--resume: {last} is not of a joint run; {new_run}, or go on with YOLOv5's own train.py")
    check_network("resume", last, checkpoint["model"])
    if type(epoch) is not int or epoch < 0:
        raise OptionError(f"--resume: the run of {last} is finished; {new_run}")
    number = (int, float, np.number, np.ndarray)
    kinds = {"optimizer": (dict,), "ema": (JointDetectionModel,), "updates": (int,), "best_fitness": number}
    wrong = [key for key, of in kinds.items() if not isinstance(checkpoint.get(key), of)]
    if wrong:
        raise OptionError(f"--resume: {last} cannot be resumed from ({', '.join(wrong)}); {new_run}")
    return checkpoint


def _read_options(saved: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a run's `opt.yaml` says, if it is that of a joint run whose options can still be used.

    It may be somebody else's: what it permits is left out.
    """
    try:
        found = read_yaml(saved)
    except DescriptionError as error:
        raise OptionError(f"--resume: {error}") from None
    numbers = ("epochs", "batch_size", "imgsz")
    wrong = [name for name in numbers if not isinstance(found, dict) or type(found.get(name)) is not int]
    if wrong:
        raise OptionError(f"--resume: {saved} is not that of a run: it has no {', '.join(wrong)} in whole numbers")
    for name in FETCHED:
        if is_address(found.get(name)) and not options.allow_download:
            raise OptionError(
                f"--resume: {saved}: `{name}` is the address {found[name]}, and nothing is fetched because a file says so: add "
                "--allow-download if you trust it"
            )
    found = {name: value for name, value in found.items() if name not in _PERMISSIONS}
    try:
        make_balancer(argparse.Namespace(**{**vars(options), **found}))
    except (ValueError, TypeError, LookupError) as error:
        raise OptionError(f"--resume: {saved} is not that of a joint run: {error}") from None
    return found


def _tell_ignored(given: Mapping[str, Any], started_with: Mapping[str, Any]) -> None:
    ignored = [
        f"--{name.replace('_', '-')} {_shown(value)} (the run has {_shown(started_with.get(name))})"
        for name, value in given.items()
        if name not in _OF_THIS_START and not _same(value, started_with.get(name))
    ]
    if ignored:
        upstream("utils.general").LOGGER.warning(
            f"WARNING ⚠️ --resume keeps the settings that the run was started with; ignored: {', '.join(ignored)}. "
            f"To train with others start a new run from its weights, with --weights"
        )


def _same(value: object, saved: object) -> bool:
    """Equal as text, or names of one file: the run keeps whole paths."""
    if isinstance(value, str) and isinstance(saved, str) and os.path.abspath(value) == os.path.abspath(saved):
        return True
    return _shown(value) == _shown(saved)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "its own"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _clean(folder: Path, checkpoint: dict[str, Any], options: argparse.Namespace) -> None:
    try:
        for name in (EPOCHS_FILE, UPDATES_FILE, BATCHES_FILE):
            if rows := read_table(folder / name):
                rows.numbers("epoch")  # better now than when the first batch is done
        for name in ("seconds", "peak_memory_mb"):
            Record(FACTS_FILE, read_facts(folder)).number(name)
    except ReportError as error:
        raise OptionError(f"--resume: {error}; mend or remove this file of {folder}") from None
    for place in (folder, folder / "weights"):
        remove_leftovers(place)
        replace_links(place)  # YOLOv5 appends to results.csv, and draws its pictures, by name
    write_text(folder / OPTIONS_FILE, yaml.safe_dump({**vars(options), "resume": False}, sort_keys=False))
    _cut_results(folder / PLAIN_EPOCHS_FILE, checkpoint["epoch"])
    _complete_best(folder / "weights", checkpoint)


def _cut_results(table: Path, epoch: int) -> None:
    """Drop the rows of upstream's table that were written after the checkpoint of `epoch`, and one cut off in the middle."""
    if not table.is_file():
        return
    header, *rows = read_text(table).splitlines(keepends=True) or [""]
    try:
        kept = [
            row for row in rows if row.endswith("\n") and row.count(",") == header.count(",") and int(row.split(",")[0]) <= epoch
        ]
    except ValueError:
        raise OptionError(f"--resume: {table} is not the table that YOLOv5 wrote: remove it") from None
    if kept != rows:
        write_text(table, header + "".join(kept))


def _complete_best(weights: Path, checkpoint: dict[str, Any]) -> None:
    """Upstream writes last.pt, then best.pt: killed in between, the last epoch is the best one and best.pt does not know."""
    last, best = weights / "last.pt", weights / "best.pt"
    known = np.asarray(read_checkpoint("resume", best)["best_fitness"]).item() if best.is_file() else None
    if known is None or known < np.asarray(checkpoint["best_fitness"]).item():
        with whole_file(best) as partial:
            shutil.copyfile(last, partial)


def _finish(last: Path) -> None:
    general = upstream("utils.general")
    for file in (last, last.with_name("best.pt")):
        general.strip_optimizer(file)
    general.LOGGER.info(
        f"All epochs of this run were trained; its checkpoints are complete now. Measure with: "
        f"python -m gradnorm_plugin val --weights {last.with_name('best.pt')}"
    )


def attach_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Let the next checkpoint of `model` carry `state`."""
    setattr(model, ATTRIBUTE, state)


def read_state(checkpoint: Path) -> dict[str, Any] | None:
    """The balancer's state in a checkpoint that training wrote; None if it is a stripped one, or not a joint model's.

    Raises:
        TrustError: upstream's, if the file asks for more than a checkpoint needs.
    """
    contents = upstream("utils.trust").load_checkpoint(checkpoint)
    return getattr(contents["model"], ATTRIBUTE, None)
