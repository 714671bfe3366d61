"""`curves.png`: both tasks' headline figures over the epochs, so that one sees whether training has levelled off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradnorm_plugin.compare.collect import CURVES, RunResult
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION, OTHER, draw

FILE = "curves.png"
_COLOURS = {"detection": DETECTION, "classification": CLASSIFICATION}
_COLUMNS = 5
_DOTTED = (0, (1, 1.3))


def plot_curves(outcome: Outcome) -> list[Path]:
    """Draw it; returns the pictures written, none as long as no epoch was.

    Raises:
        WriteError: if one cannot be written.
    """
    if not any(run.curves for run in outcome.runs):
        return []
    return draw(lambda: curves_figure(outcome), outcome.root / FILE)


def curves_figure(outcome: Outcome) -> Figure:
    """A panel a method: the mean over the seeds in the band from the lowest to the highest, and the tasks alone, dotted."""
    methods = outcome.methods
    columns = min(_COLUMNS, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(max(1.75 * columns + 0.6, 4.2), 1.75 * rows + 0.75), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    last = max(len(curve) for run in outcome.runs for curve in run.curves.values()) - 1
    alone = {task: band(outcome.of(BASELINES[task]), figure_) for task, figure_ in CURVES.items()}
    for axis, method in zip(axes.flat, methods, strict=False):
        axis.set_title(method.label, loc="left", pad=4)
        for task, figure_ in CURVES.items():
            if alone[task] is not None and method.name != BASELINES[task]:
                _draw_alone(axis, alone[task], _COLOURS[task])
            found = band(outcome.of(method.name), figure_)
            if found is not None:
                _draw_band(axis, found, _COLOURS[task])
        axis.set(xlim=(-0.03 * last - 0.2, 1.03 * last + 0.2), ylim=(-0.02, 1.02))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for column in range(columns):  # the lowest panel that is there has the numbers
        lowest = axes[(len(methods) - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("epoch")
    figure.legend(handles=_legend(outcome, any(of is not None for of in alone.values())), loc="outside upper center", ncols=4)
    return figure


def band(runs: Sequence[RunResult], figure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Epochs that were measured, mean, lowest and highest over the runs in each; None if there are none.

    A run that stopped early counts in the epochs that it has.
    """
    curves = [run.curves[figure] for run in runs if figure in run.curves]
    if not curves:
        return None
    values = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    epochs = np.flatnonzero(np.isfinite(values).any(0))
    if not len(epochs):
        return None
    values = values[:, epochs]
    return epochs, np.nanmean(values, 0), np.nanmin(values, 0), np.nanmax(values, 0)


def _draw_band(axis: Axes, found: tuple[np.ndarray, ...], colour: str) -> None:
    epochs, mean, low, high = found
    if len(epochs) == 1:  # only the last epoch was measured
        axis.errorbar(epochs, mean, yerr=[mean - low, high - mean], fmt="o", color=colour, markersize=3, elinewidth=0.8)
        return
    axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(epochs, mean, color=colour)


def _draw_alone(axis: Axes, found: tuple[np.ndarray, ...], colour: str) -> None:
    look = {"color": colour, "linewidth": 0.8, "linestyle": _DOTTED, "alpha": 0.8}
    if len(found[0]) == 1:
        axis.axhline(found[1][0], **look)
    else:
        axis.plot(found[0], found[1], **look)


def _legend(outcome: Outcome, alone: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=DETECTION, label="mAP50-95"),
        Line2D([], [], color=CLASSIFICATION, label="balanced accuracy"),
    ]
    if len(outcome.plan.seeds) > 1:
        handles.append(Patch(color=OTHER, alpha=0.25, linewidth=0, label="lowest to highest seed"))
    if alone:
        handles.append(Line2D([], [], color=OTHER, linewidth=0.8, linestyle=_DOTTED, label="the task alone"))
    return handles
