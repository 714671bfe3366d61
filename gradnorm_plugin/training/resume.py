"""`--resume`: bring the run's folder back to its last checkpoint, whatever moment the run was killed at."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gradnorm_plugin.files import read_text, remove_leftovers, replace_links, whole_file, write_text
from gradnorm_plugin.training.files import FETCHED, OptionError, is_address, read_checkpoint
from gradnorm_plugin.upstream.gateway import upstream

_PERMISSIONS = {"allow_download", "bucket", "evolve", "upload_dataset"}
"""Options that only a command line gives: they run code, reach other machines, or make another run of it."""


def resume_options(options: argparse.Namespace) -> bool:
    """Give a resumed run the options that it was started with, and its folder the state of its last checkpoint.

    Returns:
        Whether there is anything left to train: a run killed after its last epoch is finished here.

    Raises:
        OptionError: if there is no such run, or it is finished.
    """
    general = upstream("utils.general")
    last = Path(options.resume if isinstance(options.resume, str) else general.get_latest_run() or "last.pt").resolve()
    folder = last.parent.parent
    saved = folder / "opt.yaml"
    if not last.is_file() or not saved.is_file():
        raise OptionError(f"--resume: {last} with its {saved} is not there: name the last.pt of a run that was interrupted")
    checkpoint = read_checkpoint("resume", last)
    if not isinstance(checkpoint.get("epoch"), int) or checkpoint["epoch"] < 0:
        raise OptionError(f"--resume: the run of {last} is finished; start a new one with --weights {last}")
    for name, value in _saved_options(saved, options.allow_download).items():
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


def _saved_options(file: Path, allow_download: bool) -> dict[str, Any]:
    """The options that a run was started with. It may be somebody else's: what they permit is left out.

    Raises:
        OptionError: if they cannot be read, or name an address and `allow_download` is not set.
    """
    try:
        found = yaml.safe_load(read_text(file))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise OptionError(f"--resume: {file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise OptionError(f"--resume: {file} holds no options: it is not the file that training wrote")
    for name in FETCHED:
        if is_address(found.get(name)) and not allow_download:
            raise OptionError(
                f"--resume: {file}: `{name}` is the address {found[name]}, and nothing is fetched because a file says so: add "
                "--allow-download if you trust it"
            )
    return {name: value for name, value in found.items() if name not in _PERMISSIONS}


def _clean(folder: Path, checkpoint: dict[str, Any], options: argparse.Namespace) -> None:
    for place in (folder, folder / "weights"):
        remove_leftovers(place)
        replace_links(place)  # YOLOv5 appends to results.csv, and draws its pictures, by name
    write_text(folder / "opt.yaml", yaml.safe_dump({**vars(options), "resume": False}, sort_keys=False))
    _cut_results(folder / "results.csv", checkpoint["epoch"])
    _complete_best(folder / "weights", checkpoint)


def _cut_results(table: Path, epoch: int) -> None:
    """Drop the rows of upstream's table that were written after the checkpoint of `epoch`, and one cut off in the middle."""
    if not table.is_file():
        return
    header, *rows = table.read_text().splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and row.count(",") == header.count(",") and int(row.split(",")[0]) <= epoch]
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
