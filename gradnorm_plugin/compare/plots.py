"""`comparison.png`: which method of a comparison to choose, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from string import ascii_lowercase
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.methods import Method, baseline, methods_of
from gradnorm_plugin.compare.results import HEADLINE, Outcome
from gradnorm_plugin.compare.spread import Spread
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, ImageTask, ImageTasks
from gradnorm_plugin.training.figures import OTHER, draw, head, task_colours

CHOICE_FILE = "comparison.png"
Handle = Line2D | Patch
Entry = tuple[Handle, str, list[str]]
"""Of the legend: what is drawn, its words, and the figures that are out of view."""

# Tol's "muted" scheme without what is near the tasks' own colours; then again with other shapes, for methods of the user's own.
_COLOURS = ("#117733", "#CC6677", "#332288", "#AA4499", "#44AA99", "#999933", "#882255", "#333333")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")
_GOOD = "#2E7D32"
_DASHES = (0, (4, 2))

_COLLAPSED = 0.6
"""Below this share of the methods' median a figure is shown at the panel's edge, so that the others stay distinguishable."""
_EDGE = 0.05
"""Distance of such a marker from that edge, as a share of the panel."""
_LEGEND_COLUMNS = 6
"""Most columns of the legend, if they fit."""
_COSTS = (
    ("parameters", "Parameters", 1e-6, "million"),
    ("gflops", "GFLOPs", 1.0, ""),
    ("seconds_per_epoch", "Training", 1.0, "s an epoch"),
    ("latency", "Prediction", 1.0, "ms, batch 1"),
)
"""Cost, title, factor to the unit shown, unit."""


class Look(NamedTuple):
    """How a method is drawn."""

    marker: str
    colour: str


def looks(methods: Sequence[Method], tasks: ImageTasks = (CLASSIFICATION,)) -> dict[str, Look]:
    """Marker and colour by the method's name: distinct for the colour-blind, and in grey by shape.

    They are the same in every comparison: the baselines have the colours of their tasks, the others theirs by their place in the
    registry; the user's own follow in the plan's order.
    """
    alone = {baseline(task): Look("d", colour) for task, colour in task_colours(tasks).items()}
    registered = [method for method in methods_of(tasks).values() if not method.extra]
    others = [name for name in dict.fromkeys(method.name for method in (*registered, *methods)) if name not in alone]
    found = {name: Look(_SHAPES[i % len(_SHAPES)], _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(others)}
    return {**alone, **found}


def plot_choice(outcome: Outcome, latency: Latency | None) -> list[Path]:
    """Draw `comparison.png`; returns the pictures written, none as long as no run is finished."""
    return draw(lambda: choice_figure(outcome, latency), outcome.root / CHOICE_FILE) if outcome.methods else []


def choice_figure(outcome: Outcome, latency: Latency | None) -> Figure:
    """Left: for each image output a panel of its headline figure over detection's, a marker per method, and the two tasks alone.

    Right: costs. Below: the legend.
    """
    panels, letters = len(outcome.tasks), iter(ascii_lowercase)
    figure = Figure(figsize=(10.4 + 3.9 * (panels - 1), 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(panels, 1.06), wspace=0.03)[0]
    look = looks(outcome.plan.methods, outcome.tasks)
    seeds = f"mean of the {outcome.plan.unit}s; bars: standard deviation" if len(outcome.plan.seeds) > 1 else "one seed"
    entries: dict[str, tuple[Handle, list[str]]] = {}
    for axis, task in zip(left.subplots(1, panels, squeeze=False)[0], outcome.tasks, strict=True):
        head(axis, next(letters), f"Both tasks, {seeds}" if panels == 1 else f"Detection and {task.name}")
        for handle, label, hidden in _draw_choice(axis, outcome, task, look):
            entries.setdefault(label, (handle, []))[1].extend(hidden)
    for label, (handle, hidden) in entries.items():
        handle.set_label(f"{label} ({', '.join(dict.fromkeys(hidden))})" if hidden else label)
    _draw_costs(right, outcome, latency, look, letters)
    for columns in range(_LEGEND_COLUMNS, 0, -1) if entries else ():
        handles = [handle for handle, _ in entries.values()]
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=seeds if panels > 1 else None)
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    return figure


def _draw_choice(axis: Axes, outcome: Outcome, task: ImageTask, look: dict[str, Look]) -> list[Entry]:
    """Markers, bars and baselines; returns what the legend is to show."""
    axis.set(xlabel=f"{DETECTION}: {HEADLINE}", ylabel=f"{task.name}: {task.figure(task.headline).replace('_', ' ')}")
    names = {DETECTION: HEADLINE, task.name: task.headline}
    found = [(method, [outcome.spread(method.name, name) for name in names.values()]) for method in outcome.joint_methods]
    points = [(method, (x, y)) for method, (x, y) in found if x and y]
    alone = [outcome.spread(baseline(of), name) for of, name in names.items()]
    limits = [_limits([pair[which] for _, pair in points], alone[which]) for which in (0, 1)]
    axis.set(xlim=limits[0], ylim=limits[1])
    for of, (low, high) in zip((axis.xaxis, axis.yaxis), limits, strict=True):
        of.set_ticks([tick for tick in of.get_ticklocs() if low <= tick <= min(high, 1)])
    handles = _draw_baselines(axis, outcome.tasks, dict(zip(names, alone, strict=True)))
    for method, pair in points:
        hidden = [f"{of.mean:.3f}" for of, (low, _) in zip(pair, limits, strict=True) if of.mean < low]
        handles.append((_draw_point(axis, look[method.name], pair, limits), method.label, hidden))
    if not points:
        axis.text(0.5, 0.5, "no joint method is finished", transform=axis.transAxes, ha="center", color=OTHER)
    return handles


def _limits(spreads: Sequence[Spread], alone: Spread | None) -> tuple[float, float]:
    """The range of what is near the median, with its bars and a margin; collapsed figures stay outside.

    No figure is above 1, and where none is below 0, none can be: a margin beyond that is for the markers only.
    """
    every = [*spreads, *([alone] if alone else [])]
    if not every:
        return 0.0, 1.0
    middle = median(of.mean for of in every)
    usual = [of for of in every if middle <= 0 or of.mean >= _COLLAPSED * middle]
    low, high = min(of.mean - (of.sd or 0) for of in usual), max(of.mean + (of.sd or 0) for of in usual)
    margin = max(0.16 * (high - low), 0.01)
    edge = 0.03 * (high - low + 2 * margin)
    return (low - margin if min(of.mean for of in usual) < 0 else max(low - margin, -edge)), min(high + margin, 1 + edge)


def _draw_baselines(axis: Axes, tasks: ImageTasks, alone: dict[str, Spread | None]) -> list[Entry]:
    """Dashed lines at the tasks alone in the band of their standard deviation, and the corner that is as good as both."""
    handles: list[Entry] = []
    draws: list[tuple[Callable[..., Line2D], Callable[..., Patch], float]] = [
        (axis.axvline, axis.axvspan, axis.get_xlim()[0]),
        (axis.axhline, axis.axhspan, axis.get_ylim()[0]),
    ]
    for (task, of), (draw_line, draw_span, low) in zip(alone.items(), draws, strict=True):
        if of:
            colour, label = task_colours(tasks)[task], methods_of(tasks)[baseline(task)].label
            draw_span(of.mean - (of.sd or 0), of.mean + (of.sd or 0), color=colour, alpha=0.11, linewidth=0, zorder=0.5)
            line = draw_line(of.mean, color=colour, linewidth=0.9, linestyle=_DASHES, zorder=1)
            handles.append((line, label, [f"{of.mean:.3f}"] if of.mean < low else []))
    x, y = alone.values()
    if x and y:
        size = axis.get_xlim()[1] - x.mean, axis.get_ylim()[1] - y.mean
        corner = Rectangle((x.mean, y.mean), *size, color=_GOOD, alpha=0.12, linewidth=0, zorder=0.4)
        handles.append((axis.add_patch(corner), "as good as both", []))
    return handles


def _draw_point(axis: Axes, look: Look, found: tuple[Spread, Spread], limits: Sequence[tuple[float, float]]) -> Line2D:
    """A marker with its bars; one that is out of view stands near the edge, hollow, with an arrow to where it is."""
    outside = [of.mean < low for of, (low, _) in zip(found, limits, strict=True)]
    x, y = (low + _EDGE * (high - low) if out else of.mean for of, out, (low, high) in zip(found, outside, limits, strict=True))
    xerr, yerr = (None if out else of.sd for of, out in zip(found, outside, strict=True))
    bars = axis.errorbar(
        x, y, xerr=xerr, yerr=yerr, fmt="none", zorder=2, ecolor=look.colour, elinewidth=0.8, capsize=1.8, capthick=0.8,
        alpha=0.75, clip_on=False,
    )  # fmt: skip
    bars.set_label("")  # the marker stands for them in the legend
    filled = not any(outside)
    (marker,) = axis.plot(
        x, y, marker=look.marker, markersize=6.5, linestyle="none", color=look.colour, clip_on=False, zorder=3,
        markerfacecolor=look.colour if filled else "white", markeredgecolor="white" if filled else look.colour,
        markeredgewidth=0.6 if filled else 1.2,
    )  # fmt: skip
    arrow = {"arrowstyle": "<|-", "color": look.colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 4, "mutation_scale": 7}
    for out, shift in zip(outside, ((-14, 0), (0, -14)), strict=True):
        if out:
            axis.annotate("", xy=(x, y), xytext=shift, textcoords="offset points", arrowprops=arrow)
    return marker


def _draw_costs(
    figure: SubFigure, outcome: Outcome, latency: Latency | None, look: dict[str, Look], letters: Iterator[str]
) -> None:
    """A panel per known cost: for each method a dot, its value, and the ratio to detection only (the dotted line)."""
    panels = [(panel, found) for panel in _COSTS if (found := _costs(outcome, latency, *panel[::2]))]
    if not panels:
        return
    methods = outcome.methods[::-1]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, ((_, title, _, unit), found) in zip(axes, panels, strict=True):
        head(axis, next(letters), title)
        highest = max(value for value, _ in found.values())
        for row, method in enumerate(methods):
            if method.name not in found:
                continue
            (value, ratio), (marker, colour) = found[method.name], look[method.name]
            axis.plot([0, value], [row, row], color=colour, linewidth=1, alpha=0.45, zorder=1.5)
            axis.plot(value, row, marker=marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5,
                      linestyle="none", zorder=3)  # fmt: skip
            words = _three_digits(value) + ("" if ratio is None else f" ({ratio:.2f}\N{MULTIPLICATION SIGN})")
            axis.text(1.22 * highest, row, words, va="center", fontsize=6.8, color=OTHER)
        base, _ = found.get(baseline(DETECTION), (0, None))
        if base:
            axis.axvline(base, color=OTHER, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1)
        axis.set(xlim=(0, 2.5 * highest), ylim=(-0.6, len(methods) - 0.4), xlabel=unit)
        axis.set_yticks(range(len(methods)), [method.label for method in methods])
        axis.set_xticks([])
        axis.grid(False)
        axis.tick_params(axis="y", length=0)
        axis.spines["bottom"].set_visible(False)


def _costs(outcome: Outcome, latency: Latency | None, name: str, factor: float) -> dict[str, tuple[float, float | None]]:
    """By method: the mean of a cost and its ratio to that of detection only; of the latency as the networks took turns."""
    if name == "latency":
        times = {method.name: latency.of(method.name) for method in outcome.methods} if latency else {}
        return {method: (of.milliseconds, of.ratio) for method, of in times.items() if of}
    spreads = {method.name: outcome.spread(method.name, name) for method in outcome.methods}
    base = spreads.get(baseline(DETECTION))
    return {m: (factor * of.mean, of.mean / base.mean if base and base.mean else None) for m, of in spreads.items() if of}


def _three_digits(value: float) -> str:
    """Without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
