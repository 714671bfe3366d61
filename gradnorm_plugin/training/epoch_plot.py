"""`joint_results.png`: both tasks' figures and losses over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.run_folder import EPOCHS_FILE, EPOCHS_PICTURE, best_epoch, read_facts
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION, OTHER, draw, head, log_scale, read_rows

# (column, label, colour, line): the figures that choose the best epoch are the bold ones.
_DETECTION = (
    ("precision", "precision", "#88CCEE", "-"),
    ("recall", "recall", "#777777", (0, (4, 1.5))),
    ("mAP50", "mAP50", "#4477AA", "-"),
    ("mAP50-95", "mAP50-95", DETECTION, "-"),
)
_CLASSIFICATION = (
    ("accuracy", "accuracy", "#F0B27A", "-"),
    ("macro_F1", "macro-F1", "#777777", (0, (4, 1.5))),
    ("balanced_accuracy", "balanced accuracy", CLASSIFICATION, "-"),
)
_LOSSES = (
    ("box_loss", "Box loss", DETECTION),
    ("obj_loss", "Objectness loss", DETECTION),
    ("cls_loss", "Box class loss", DETECTION),
    ("classification_loss", "Classification loss", CLASSIFICATION),
)


def plot_epochs(folder: Path) -> list[Path]:
    """Draw `joint_results.csv` of a run's folder; returns the pictures written, none if no epoch was."""
    rows = read_rows(folder / EPOCHS_FILE)
    if rows is None:
        return []
    majority = majority_share(read_facts(folder))
    return draw(lambda: epochs_figure(rows, majority), folder / EPOCHS_PICTURE)


def majority_share(facts: Mapping[str, Any]) -> float | None:
    """The accuracy of naming the most frequent class of the validation images always; None where it is not known."""
    counts = facts.get("data", {}).get("val", {}).get("image_classes") or [0]
    return max(counts) / sum(counts) if sum(counts) else None


def best_row(rows: pd.DataFrame) -> pd.Series | None:
    """The row of the epoch that `best.pt` holds; None without a fitness."""
    best = best_epoch(rows["fitness"].tolist())
    return None if best is None else rows.iloc[best]


def epochs_figure(rows: pd.DataFrame, majority: float | None = None) -> Figure:
    """Detection and classification figures, and all losses in training and validation, of the rows of `joint_results.csv`."""
    figure = Figure(figsize=(7.1, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=(1.35, 1))
    detection, classification = figure.add_subplot(grid[0, :2]), figure.add_subplot(grid[0, 2:])
    head(detection, "a", "Detection, validation", pad=30)
    head(classification, "b", "Classification, validation", pad=30)
    for axis, lines in ((detection, _DETECTION), (classification, _CLASSIFICATION)):
        for column, label, colour, line in lines:
            _curve(axis, rows, column, color=colour, linestyle=line, label=label)
        axis.set(ylim=(-0.02, 1.02), xlabel="epoch")
    if majority is not None:
        classification.axhline(majority, color=OTHER, linewidth=0.8, linestyle="--", label="accuracy of the majority class")
    losses = [figure.add_subplot(grid[1, column]) for column in range(4)]
    for axis, letter, (name, title, colour) in zip(losses, "cdef", _LOSSES, strict=True):
        head(axis, letter, title)
        _curve(axis, rows, f"train_{name}", color=colour)
        _curve(axis, rows, f"val_{name}", color=colour, linestyle=(0, (3, 1.2)), markerfacecolor="white")
        axis.set(xlabel="epoch")
        log_scale(axis)
    best = best_row(rows)
    for axis in (detection, classification, *losses):
        if best is not None:
            axis.axvline(best["epoch"], color=OTHER, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(6 if axis in losses else 10, integer=True, min_n_ticks=1))
        first, last = rows["epoch"].min(), rows["epoch"].max()
        margin = max(0.03 * (last - first), 0.2)
        axis.set_xlim(first - margin, last + margin)  # also where a panel has no values
    for axis in (detection, classification):
        axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2)
    note = "c\N{EN DASH}f: solid training, dashed validation"
    if best is not None:
        note += f"; dotted line: epoch {best['epoch']:.0f}, kept as best.pt (fitness {best['fitness']:.3f})"
    figure.supxlabel(note, fontsize=7.5, color=OTHER)
    return figure


def _curve(axis: Axes, rows: pd.DataFrame, column: str, **look: Any) -> None:
    """A line, with a marker at each epoch while they are few; a value that is missing is a gap."""
    axis.plot(rows["epoch"], rows[column], marker="o" if len(rows) <= 30 else None, markersize=2.6, **look)
