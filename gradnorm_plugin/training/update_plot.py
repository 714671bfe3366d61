"""`gradnorm.png`: what GradNorm saw and did, over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.balancing import BALANCERS, GradientSurgery
from gradnorm_plugin.run_folder import CLASSIFICATION, UPDATES_FILE, UPDATES_PICTURE, ImageTasks, image_tasks, read_facts
from gradnorm_plugin.training.figures import OTHER, draw, head, log_scale, read_rows, task_colours


def plot_updates(folder: Path) -> list[Path]:
    """Draw `gradnorm.csv` of a run's folder; returns the pictures written, none if nothing was measured."""
    rows = read_rows(folder / UPDATES_FILE)
    if rows is None:
        return []
    facts = read_facts(folder)
    return draw(lambda: updates_figure(rows, facts.get("balancing", {}), image_tasks(facts)), folder / UPDATES_PICTURE)


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
