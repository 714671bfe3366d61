"""`curves.png`: the headline figures of a comparison's methods over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.compare.methods import baseline
from gradnorm_plugin.compare.results import Outcome, RunResult
from gradnorm_plugin.training.figures import OTHER, draw, task_colours

CURVES_FILE = "curves.png"
Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Epochs, and the mean, lowest and highest value over the seeds in each."""
_COLUMNS = 5
"""Most panels side by side."""
_DOTS = (0, (1, 1.3))


def plot_curves(outcome: Outcome) -> list[Path]:
    """Draw `curves.png`; returns the pictures written, none without an epoch to draw."""
    if not any(run.curves for run in outcome.runs):
        return []
    return draw(lambda: curves_figure(outcome), outcome.root / CURVES_FILE)


def curves_figure(outcome: Outcome) -> Figure:
    """The headline figures over the epochs, one panel per method, to see whether training has levelled off.

    The mean over the seeds lies in the band from the lowest to the highest; the tasks alone are dotted.
    """
    methods = outcome.methods
    columns = min(_COLUMNS, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(max(1.75 * columns + 0.6, 4.2), 1.75 * rows + 0.75), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    last = max(len(curve) for run in outcome.runs for curve in run.curves.values()) - 1
    colours = task_colours(outcome.tasks)
    alone = {task: band(outcome.of(baseline(task)), name) for task, name in outcome.headlines.items()}
    for axis, method in zip(axes.flat, methods, strict=False):
        axis.set_title(method.label, loc="left", pad=4)
        for task, name in outcome.headlines.items():
            usual, found = alone[task], band(outcome.of(method.name), name)
            if usual is not None and method.name != baseline(task):
                _draw_dotted(axis, usual, colours[task])
            if found is not None:
                _draw_band(axis, found, colours[task])
        axis.set(xlim=(-0.03 * last - 0.2, 1.03 * last + 0.2), ylim=(-0.02, 1.02))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for column in range(columns):  # the lowest visible panel has the numbers
        lowest = axes[(len(methods) - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("epoch")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colours[task], label=name.replace("_", " ")) for task, name in outcome.headlines.items()
    ]
    if len(outcome.plan.seeds) > 1:
        handles.append(Patch(color=OTHER, alpha=0.25, linewidth=0, label=f"lowest to highest {outcome.plan.unit}"))
    if any(of is not None for of in alone.values()):
        handles.append(Line2D([], [], color=OTHER, linewidth=0.8, linestyle=_DOTS, label="the task alone"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4 if len(outcome.tasks) == 1 else max(2, columns - 1))
    return figure


def band(runs: Sequence[RunResult], figure: str) -> Band | None:
    """The course of a figure over the epochs in which it was measured; None if it never was.

    A run that stopped early counts in the epochs that it has.
    """
    found = [pd.Series(run.curves[figure], dtype=float) for run in runs if figure in run.curves]
    curves = pd.DataFrame(dict(enumerate(found))).dropna(how="all")
    if curves.empty:
        return None
    return curves.index.to_numpy(), curves.mean(axis=1).to_numpy(), curves.min(axis=1).to_numpy(), curves.max(axis=1).to_numpy()


def change_at_end(found: Band | None) -> float | None:
    """What the last fifth of the epochs added to the mean; None if nothing was measured before it, or nothing in it."""
    if found is None:
        return None
    epochs, mean = found[0], found[1]
    before = mean[epochs < min(0.8 * (epochs[-1] + 1), epochs[-1])]  # epochs count from 0
    return float(mean[-1] - before[-1]) if len(before) else None


def _draw_band(axis: Axes, found: Band, colour: str) -> None:
    epochs, mean, low, high = found
    if len(epochs) == 1:  # only the last epoch was measured
        axis.errorbar(epochs, mean, yerr=[mean - low, high - mean], fmt="o", color=colour, markersize=3, elinewidth=0.8)
        return
    axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(epochs, mean, color=colour)


def _draw_dotted(axis: Axes, found: Band, colour: str) -> None:
    epochs, mean, *_ = found
    look: dict[str, Any] = {"color": colour, "linewidth": 0.8, "linestyle": _DOTS, "alpha": 0.8}
    if len(epochs) == 1:
        axis.axhline(mean[0], **look)
    else:
        axis.plot(epochs, mean, **look)
