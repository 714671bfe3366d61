"""A run's pictures: the figures and losses of all tasks over the epochs, and what GradNorm saw and did over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import lcm
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.balancing import BALANCERS, GradientSurgery
from gradnorm_plugin.report.run_files import best_epoch, read_facts
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    EPOCHS_FILE,
    EPOCHS_PICTURE,
    UPDATES_FILE,
    UPDATES_PICTURE,
    ImageTask,
    ImageTasks,
    image_tasks,
)
from gradnorm_plugin.training.figures import DETECTION, OTHER, draw, head, log_scale, task_colours

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
    facts, rows = read_facts(folder), _rows(folder / EPOCHS_FILE)
    make = partial(epochs_figure, rows, majority_share(facts), image_tasks(facts))
    return [] if rows.empty else draw(make, folder / EPOCHS_PICTURE)


def plot_updates(folder: Path) -> list[Path]:
    """Draw `gradnorm.csv` of a run's folder; returns the pictures written, none if nothing was measured."""
    facts, rows = read_facts(folder), _rows(folder / UPDATES_FILE)
    make = partial(updates_figure, rows, facts.get("balancing", {}), image_tasks(facts))
    return [] if rows.empty else draw(make, folder / UPDATES_PICTURE)


def _rows(table: Path) -> pd.DataFrame:
    return pd.read_csv(table) if table.is_file() else pd.DataFrame()


def majority_share(facts: Mapping[str, Any]) -> float | None:
    """The accuracy of always naming the most frequent class of the validation images; None where it is not known."""
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
    above, below = (
        [figure.add_subplot(grid[row, at : at + columns // count]) for at in range(0, columns, columns // count)]
        for row, count in enumerate((panels, losses))
    )
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
    titled += [(f"{task.name}_loss", f"{_title(task)} loss", colours[task.name]) for task in tasks]
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


def _curve(axis: Axes, rows: pd.DataFrame, column: str, **look: Any) -> None:
    """A line, with a marker at each epoch while they are few; a value that is missing is a gap."""
    axis.plot(rows["epoch"], rows[column], marker="o" if len(rows) <= 30 else None, markersize=2.6, **look)


def updates_figure(rows: pd.DataFrame, settings: Mapping[str, Any], tasks: ImageTasks = (CLASSIFICATION,)) -> Figure:
    """Weights, losses, gradient norms alone and weighted, training rates and cosine of the rows of `gradnorm.csv`.

    `settings` are the run's `balancing` facts; what they do not hold (the weights' ranges, the norms' targets) is not drawn.
    """
    figure = Figure(figsize=(6.6, 6.2), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True)
    window, colours = _window(len(rows)), task_colours(tasks)
    _weights(axes[0, 0], rows, settings, colours)
    head(axes[0, 1], "b", "Losses of a batch, unweighted")
    # Gradient surgery compares the gradients at the shared layer's output z, the others at its last weights W.
    balancer = BALANCERS.get(str(settings.get("balancer")))
    place = "z" if balancer is not None and issubclass(balancer, GradientSurgery) else "W"
    head(axes[1, 0], "c", rf"Gradient norms, unweighted:  $\|\nabla_{place} L_i\|$")
    head(axes[1, 1], "d", rf"Gradient norms, weighted:  $w_i\,\|\nabla_{place} L_i\|$")
    for task, colour in colours.items():
        norm = rows[f"{task}_norm"]
        _line(axes[0, 1], rows["step"], rows[f"{task}_loss"], colour, window, log=True)
        _line(axes[1, 0], rows["step"], norm, colour, window, log=True)
        _line(axes[1, 1], rows["step"], norm * rows[f"{task}_weight"], colour, window, log=True)
        _line(axes[2, 0], rows["step"], rows[f"{task}_rate"], colour, window)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]):
        log_scale(axis)
    head(axes[2, 0], "e", "Relative training rates (above 1: slower)")
    axes[2, 0].axhline(1, color=OTHER, linewidth=0.6)
    _cosine(axes[2, 1], rows, window, len(colours))
    _epochs(axes, rows)
    for axis in axes[2]:
        axis.set_xlabel("step (batch)")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles = _legend(window, bool(settings.get("weight_ranges")), colours)
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    return figure


def _weights(axis: Axes, rows: pd.DataFrame, settings: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Each weight as it was applied, from the first batch on, in the band of its range."""
    start, total = [rows[f"{task}_weight"].iloc[0] for task in colours], settings.get("weight_sum")
    shown = ", ".join(f"{weight:g}" for weight in start[:-1]) + f" and {start[-1]:g}"
    head(axis, "a", f"Task weights, from {shown}" + (f"; sum {total:g}" if total else ""))
    ranges = settings.get("weight_ranges") or [None] * len(colours)
    steps = np.concatenate([[0], rows["step"]])
    for (task, colour), bounds in zip(colours.items(), ranges, strict=True):
        weights = rows[f"{task}_weight"].to_numpy()
        # The weights move at the rows only: those of a row were in use since the row before it.
        axis.plot(steps, np.concatenate([weights[:1], weights]), color=colour, drawstyle="steps-pre")
        axis.plot(0, weights[0], marker="o", markersize=3.5, color=colour, clip_on=False)
        if bounds:
            axis.axhspan(*bounds, color=colour, alpha=0.08, linewidth=0)


def _line(axis: Axes, steps: pd.Series, values: pd.Series, colour: str, window: int, log: bool = False) -> None:
    """The measured values, faint, and their running mean; on a log axis of their logarithms."""
    values = values.where(values > 0) if log else values
    if window == 1:
        axis.plot(steps, values, color=colour, marker=".")
        return
    axis.plot(steps, values, color=colour, alpha=0.28, linewidth=0.7)
    scaled = np.log(values) if log else values
    smooth = scaled.rolling(window, min_periods=1, center=True).mean()
    axis.plot(steps, np.exp(smooth) if log else smooth, color=colour)


def _window(count: int) -> int:
    """Values of a running mean: an odd number, about a twentieth of all; 1 where they are few."""
    return 1 if count < 30 else max(3, count // 20 | 1)


def _cosine(axis: Axes, rows: pd.DataFrame, window: int, num_tasks: int) -> None:
    """The cosine, how often it is negative, and its mean; of more than two tasks, that of the two that agree least."""
    head(axis, "f", "Cosine of the two gradients" if num_tasks == 2 else "Lowest cosine of any two gradients")
    cosine = rows["cosine"].dropna()
    limit = min(1.02, max(0.1, 1.2 * cosine.abs().max())) if len(cosine) else 1.02
    axis.set_ylim(-1.25 * limit, limit)  # with room for the words below
    axis.axhspan(-1.25 * limit, 0, color=OTHER, alpha=0.07, linewidth=0)
    axis.axhline(0, color=OTHER, linewidth=0.6)
    _line(axis, rows["step"], rows["cosine"], OTHER, window)
    if len(cosine):
        share, mean = 100 * (cosine < 0).mean(), f"{cosine.mean():+.3f}".replace("-", "\N{MINUS SIGN}")
        axis.text(
            0.02, 0.03, f"in conflict (below 0): {share:.0f} % (n = {len(cosine)}); mean {mean}",
            transform=axis.transAxes, fontsize=7, color=OTHER, bbox={"color": "white", "alpha": 0.7, "pad": 1},
        )  # fmt: skip


def _epochs(axes: np.ndarray, rows: pd.DataFrame) -> None:
    """A second x axis above the upper panels, in epochs, and a line through every panel where a labelled one begins."""
    later = rows[rows["epoch"] > 0]
    if later.empty:
        return
    batches = (later["step"] // later["epoch"]).min()  # of an epoch; the table has only some steps
    last = int(rows["epoch"].max())
    epochs = [int(e) for e in MaxNLocator(6, integer=True).tick_values(0, last) if 0 <= e <= last and e == int(e)]
    for axis in axes.flat:
        axis.grid(False, axis="x")
        for epoch in epochs:
            axis.axvline(epoch * batches, color="#bbbbbb", linewidth=0.5, linestyle=(0, (2, 2)), zorder=0.5)
    for axis in axes[0]:
        top = axis.secondary_xaxis("top", functions=(lambda step: step / batches, lambda epoch: epoch * batches))
        top.set_xticks(epochs, [f"epoch {epoch}" if epoch == epochs[0] else str(epoch) for epoch in epochs])
        top.spines["top"].set_visible(False)


def _legend(window: int, ranges: bool, colours: Mapping[str, str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [Line2D([], [], color=colour, label=task) for task, colour in colours.items()]
    if ranges:
        handles.append(Patch(color=OTHER, alpha=0.15, linewidth=0, label="allowed range"))
    if window > 1:
        handles.append(Line2D([], [], color=OTHER, alpha=0.35, linewidth=0.7, label="measured"))
        handles.append(Line2D([], [], color=OTHER, label=f"running mean of {window} (b\N{EN DASH}d: geometric)"))
    return handles
