"""`joint_results.png`: the figures and losses of all tasks over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    EPOCHS_FILE,
    EPOCHS_PICTURE,
    ImageTask,
    ImageTasks,
    best_epoch,
    image_tasks,
    read_facts,
)
from gradnorm_plugin.training.figures import DETECTION, OTHER, draw, head, log_scale, read_rows, task_colours

_Line = str | tuple[int, tuple[float, float]]
"""A line's style, as Matplotlib takes it."""
# (column, label, colour, line): the figures that choose the best epoch are the bold ones.
_DETECTION: tuple[tuple[str, str, str, _Line], ...] = (
    ("precision", "precision", "#88CCEE", "-"),
    ("recall", "recall", "#777777", (0, (4, 1.5))),
    ("mAP50", "mAP50", "#4477AA", "-"),
    ("mAP50-95", "mAP50-95", DETECTION, "-"),
)
_CLASSES: dict[str, tuple[str, _Line]] = {"accuracy": ("#F0B27A", "-"), "macro_F1": ("#777777", (0, (4, 1.5)))}
"""Colour and line of what is not the headline; of other kinds they are grey and dashed."""
_BOX_LOSSES = (("box_loss", "Box loss"), ("obj_loss", "Objectness loss"), ("cls_loss", "Box class loss"))


def plot_epochs(folder: Path) -> list[Path]:
    """Draw `joint_results.csv` of a run's folder; returns the pictures written, none if no epoch was."""
    rows = read_rows(folder / EPOCHS_FILE)
    if rows is None:
        return []
    facts = read_facts(folder)
    return draw(lambda: epochs_figure(rows, majority_share(facts), image_tasks(facts)), folder / EPOCHS_PICTURE)


def majority_share(facts: Mapping[str, Any]) -> float | None:
    """The accuracy of naming the most frequent class of the validation images always; None where it is not known."""
    counts = facts.get("data", {}).get("val", {}).get("image_classes") or [0]
    return max(counts) / sum(counts) if sum(counts) else None


def best_row(rows: pd.DataFrame) -> pd.Series | None:
    """The row of the epoch that `best.pt` holds; None without a fitness."""
    best = best_epoch(rows["fitness"].tolist())
    return None if best is None else rows.iloc[best]


def epochs_figure(rows: pd.DataFrame, majority: float | None = None, tasks: ImageTasks = (CLASSIFICATION,)) -> Figure:
    """The figures of detection and each image output, and all losses in training and validation, of `joint_results.csv`."""
    panels, losses = 1 + len(tasks), len(_BOX_LOSSES) + len(tasks)
    columns, letters = lcm(panels, losses), iter(ascii_lowercase)
    figure = Figure(figsize=(7.1 * max(1.0, 0.4 * panels), 4.6), layout="constrained")
    grid, colours = figure.add_gridspec(2, columns, height_ratios=(1.35, 1)), task_colours(tasks)
    above = [figure.add_subplot(grid[0, _part(index, panels, columns)]) for index in range(panels)]
    below = [figure.add_subplot(grid[1, _part(index, losses, columns)]) for index in range(losses)]
    head(above[0], next(letters), "Detection, validation", pad=30)
    for column, label, colour, line in _DETECTION:
        _curve(above[0], rows, column, color=colour, linestyle=line, label=label)
    for axis, task in zip(above[1:], tasks, strict=True):
        head(axis, next(letters), f"{_title(task)}, validation", pad=30)
        for column in sorted(task.figures, key=lambda column: column == task.headline):
            label = column.removeprefix(f"{task.name}_").replace("macro_F1", "macro-F1").replace("_", " ")
            colour, line = _CLASSES.get(column, ("#777777", (0, (4, 1.5))))
            if column == task.headline:
                colour, line = colours[task.name], "-"
            where = axis.twinx() if column.endswith("_MAE") else axis  # in the unit of the value
            _curve(where, rows, column, color=colour, linestyle=line, label=label)
            if where is not axis:
                where.set_ylabel(label)
    for axis in above:
        axis.set(ylim=(-0.02, 1.02), xlabel="epoch")
    if majority is not None:
        above[1].axhline(majority, color=OTHER, linewidth=0.8, linestyle="--", label="accuracy of the majority class")
    titled = [(*loss, DETECTION) for loss in _BOX_LOSSES]
    titled += [
        (f"{t.name}_loss", f"{t.name.capitalize() if t == CLASSIFICATION else t.name} loss", colours[t.name]) for t in tasks
    ]
    for axis, (name, title, colour) in zip(below, titled, strict=True):
        head(axis, next(letters), title)
        _curve(axis, rows, f"train_{name}", color=colour)
        _curve(axis, rows, f"val_{name}", color=colour, linestyle=(0, (3, 1.2)), markerfacecolor="white")
        axis.set(xlabel="epoch")
        log_scale(axis)
    best = best_row(rows)
    for axis in (*above, *below):
        if best is not None:
            axis.axvline(best["epoch"], color=OTHER, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(6 if axis in below else 10, integer=True, min_n_ticks=1))
        first, last = rows["epoch"].min(), rows["epoch"].max()
        margin = max(0.03 * (last - first), 0.2)
        axis.set_xlim(first - margin, last + margin)  # also where a panel has no values
    for axis in above:
        axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2)
    note = f"{ascii_lowercase[panels]}\N{EN DASH}{ascii_lowercase[panels + losses - 1]}: solid training, dashed validation"
    if best is not None:
        note += f"; dotted line: epoch {best['epoch']:.0f}, kept as best.pt (fitness {best['fitness']:.3f})"
    figure.supxlabel(note, fontsize=7.5, color=OTHER)
    return figure


def _title(task: ImageTask) -> str:
    return task.name.capitalize() if task == CLASSIFICATION else task.name


def _part(index: int, parts: int, columns: int) -> slice:
    """The columns of one of equally wide panels."""
    width = columns // parts
    return slice(index * width, (index + 1) * width)


def _curve(axis: Axes, rows: pd.DataFrame, column: str, **look: Any) -> None:
    """A line, with a marker at each epoch while they are few; a value that is missing is a gap."""
    axis.plot(rows["epoch"], rows[column], marker="o" if len(rows) <= 30 else None, markersize=2.6, **look)
