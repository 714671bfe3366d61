"""`--resume`: bring the run's folder back to its last checkpoint, whatever moment the run was killed at."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gradnorm_plugin.training.files import OptionError, read_checkpoint
from gradnorm_plugin.training.whole_files import SUFFIX, whole_file
from gradnorm_plugin.upstream.gateway import upstream


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
    allow_download = options.allow_download
    for name, value in yaml.safe_load(saved.read_text(errors="ignore")).items():
        setattr(options, name, value)
    options.resume = str(last)
    options.allow_download = allow_download  # the user says so, not a file that may have come with the checkpoint
    options.save_dir = str(folder)  # it may have been moved, or named from another folder
    if upstream("train").RANK in {-1, 0}:
        _clean(folder, checkpoint, options)
    if checkpoint["epoch"] + 1 < options.epochs:
        return True
    if upstream("train").RANK in {-1, 0}:
        _finish(last)
    return False


def _clean(folder: Path, checkpoint: dict[str, Any], options: argparse.Namespace) -> None:
    for leftover in (*folder.glob(f"*{SUFFIX}*"), *(folder / "weights").glob(f"*{SUFFIX}")):
        leftover.unlink()
    with whole_file(folder / "opt.yaml") as partial:
        partial.write_text(yaml.safe_dump({**vars(options), "resume": False}, sort_keys=False))
    _cut_results(folder / "results.csv", checkpoint["epoch"])
    _complete_best(folder / "weights", checkpoint)


def _cut_results(table: Path, epoch: int) -> None:
    """Drop the rows of upstream's table that were written after the checkpoint of `epoch`, and one cut off in the middle."""
    if not table.is_file():
        return
    header, *rows = table.read_text().splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and row.count(",") == header.count(",") and int(row.split(",")[0]) <= epoch]
    if kept != rows:
        with whole_file(table) as partial:
            partial.write_text(header + "".join(kept))


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
