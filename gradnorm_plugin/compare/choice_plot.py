"""`comparison.png`: which method to choose, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradnorm_plugin.compare.choice_labels import WORDS, Labelled, draw_labels
from gradnorm_plugin.compare.collect import CURVES
from gradnorm_plugin.compare.cost_plot import draw_costs
from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.look import Look, looks
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.compare.statistics import Spread
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION, OTHER, draw, head

FILE = "comparison.png"
_COLLAPSED = 0.6
"""Below this share of the methods' median a figure is shown at the panel's edge, so that the others can be told apart."""
_EDGE = 0.05
"""Share of the panel that such a marker stands from its edge."""
_GOOD = "#2E7D32"
_DARK = "#A84A00"  # the colour of classification, dark enough for small words
_DASHED = {"linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 1}


def plot_choice(outcome: Outcome, latency: Latency | None) -> list[Path]:
    """Draw it; returns the pictures written, none as long as no run is finished.

    Raises:
        WriteError: if one cannot be written.
    """
    return draw(lambda: choice_figure(outcome, latency), outcome.root / FILE) if outcome.methods else []


def choice_figure(outcome: Outcome, latency: Latency | None) -> Figure:
    """Left: both tasks' headline figures, a marker a method, beside the two tasks alone. Right: costs."""
    figure = Figure(figsize=(10.4, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.06), wspace=0.03)
    axis = left.add_subplot()
    look = looks(outcome.plan.methods)
    several = len(outcome.plan.seeds) > 1
    head(axis, "a", "Both tasks, mean of the seeds; bars: standard deviation" if several else "Both tasks, one seed", pad=16)
    shown = _draw_choice(axis, outcome, look)
    draw_costs(right, outcome, latency, look)
    figure.draw_without_rendering()  # settles the layout, which the labels must not move again
    figure.set_layout_engine("none")
    draw_labels(axis, shown)
    return figure


def _draw_choice(axis: Axes, outcome: Outcome, look: dict[str, Look]) -> list[Labelled]:
    """Markers, bars and baselines; returns what is still without its label."""
    axis.set(xlabel="detection: mAP50-95", ylabel="classification: balanced accuracy")
    points = [(method, outcome.headline(method.name)) for method in outcome.joint_methods]
    points = [(method, found) for method, found in points if None not in found]
    alone = [outcome.spread(BASELINES[task], name) for task, name in CURVES.items()]
    limits = [_limits([found[which] for _, found in points], alone[which]) for which in (0, 1)]
    axis.set(xlim=limits[0], ylim=limits[1])
    _draw_alone(axis, alone)
    shown = []
    for method, found in points:
        outside = [of.mean < low for of, (low, _) in zip(found, limits, strict=True)]
        edges = [low + _EDGE * (high - low) for low, high in limits]
        place = tuple(edge if out else of.mean for of, out, edge in zip(found, outside, edges, strict=True))
        _draw_point(axis, look[method.name], place, found, outside)
        hidden = [f"{of.mean:.3f}" for of, out in zip(found, outside, strict=True) if out]
        label = f"{method.label} ({', '.join(hidden)})" if hidden else method.label
        bars = tuple(0.0 if out else of.sd or 0.0 for of, out in zip(found, outside, strict=True))
        shown.append(Labelled(label, look[method.name].colour, place, bars))
    if not points:
        axis.text(0.5, 0.5, "no joint method is finished", transform=axis.transAxes, ha="center", color=OTHER)
    return shown


def _limits(spreads: Sequence[Spread], alone: Spread | None) -> tuple[float, float]:
    """From the lowest to the highest of what is near the median, bars among it, with a margin; collapsed figures stay out."""
    every = [*spreads, *([alone] if alone else [])]
    if not every:
        return 0.0, 1.0
    usual = [of for of in every if of.mean >= _COLLAPSED * median(other.mean for other in every)]
    low, high = min(of.mean - (of.sd or 0) for of in usual), max(of.mean + (of.sd or 0) for of in usual)
    margin = max(0.16 * (high - low), 0.01)
    return low - margin, high + margin


def _draw_alone(axis: Axes, alone: Sequence[Spread | None]) -> None:
    """Dashed lines at the tasks alone with a band of their standard deviation, and the corner that is as good as both."""
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    detection, classification = alone
    if detection and classification:
        corner = (detection.mean, classification.mean)
        size = (x_high - corner[0], y_high - corner[1])
        axis.add_patch(Rectangle(corner, *size, color=_GOOD, alpha=0.09, linewidth=0, zorder=0.4))
        axis.text(x_high, y_high, "as good as both ", ha="right", va="top", fontsize=7, color=_GOOD, gid=WORDS)
    words = {"fontsize": 7, "gid": WORDS, "annotation_clip": False, "textcoords": "offset points"}
    if detection:
        low, high = detection.mean - (detection.sd or 0), detection.mean + (detection.sd or 0)
        axis.axvspan(low, high, color=DETECTION, alpha=0.1, linewidth=0, zorder=0.5)
        axis.axvline(detection.mean, color=DETECTION, **_DASHED)
        outside = detection.mean < x_low  # a label out there would shrink the panel
        label, place = (f"detection only ({detection.mean:.3f})", x_low) if outside else ("detection only", detection.mean)
        align = "left" if outside else "center"
        axis.annotate(label, (place, y_high), (0, 2), ha=align, va="bottom", color=DETECTION, **words)
    if classification:
        low, high = classification.mean - (classification.sd or 0), classification.mean + (classification.sd or 0)
        axis.axhspan(low, high, color=CLASSIFICATION, alpha=0.12, linewidth=0, zorder=0.5)
        axis.axhline(classification.mean, color=CLASSIFICATION, **_DASHED)
        outside = classification.mean < y_low
        label = f"classification only ({classification.mean:.3f})" if outside else "classification only"
        place, align = (y_low, "bottom") if outside else (classification.mean, "center")
        axis.annotate(label, (x_high, place), (3, 0), rotation=90, va=align, color=_DARK, **words)


def _draw_point(axis: Axes, look: Look, place: tuple[float, float], found: Sequence[Spread], outside: Sequence[bool]) -> None:
    """A marker with its bars; one that is out of view stands near the edge, hollow, with an arrow to where it is."""
    xerr, yerr = (None if out else of.sd for of, out in zip(found, outside, strict=True))
    bars = {"ecolor": look.colour, "elinewidth": 0.8, "capsize": 1.8, "capthick": 0.8, "alpha": 0.75, "clip_on": False}
    axis.errorbar(*place, xerr=xerr, yerr=yerr, fmt="none", zorder=2, **bars)
    filled = not any(outside)
    axis.plot(
        *place, marker=look.marker, markersize=6.5, linestyle="none", color=look.colour, clip_on=False, zorder=3,
        markerfacecolor=look.colour if filled else "white", markeredgecolor="white" if filled else look.colour,
        markeredgewidth=0.6 if filled else 1.2,
    )  # fmt: skip
    arrow = {"arrowstyle": "<|-", "color": look.colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 4, "mutation_scale": 7}
    for out, shift in zip(outside, ((-14, 0), (0, -14)), strict=True):
        if out:
            axis.annotate("", xy=place, xytext=shift, textcoords="offset points", arrowprops=arrow)
