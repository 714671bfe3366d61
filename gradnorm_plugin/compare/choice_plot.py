"""`comparison.png`: which method to choose, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradnorm_plugin.compare.cost_plot import draw_costs
from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.look import Look, looks
from gradnorm_plugin.compare.outcome import Outcome
from gradnorm_plugin.compare.placing import Box, nearest, place
from gradnorm_plugin.compare.statistics import Spread
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION, OTHER, draw, head

FILE = "comparison.png"
_COLLAPSED = 0.6
"""Below this share of the methods' median a figure is shown at the panel's edge, so that the others can be told apart."""
_EDGE = 0.05
"""Share of the panel that such a marker stands from its edge."""
_GOOD, _WORDS = "#2E7D32", "#A84A00"
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
    head(axis, "a", "Both tasks, mean of the seeds; bars: standard deviation", pad=16)
    shown = _draw_choice(axis, outcome, look)
    draw_costs(right, outcome, latency, look)
    figure.draw_without_rendering()  # settles the layout, which the labels must not move again
    figure.set_layout_engine("none")
    _draw_labels(axis, shown)
    return figure


def _draw_choice(axis: Axes, outcome: Outcome, look: dict[str, Look]) -> list[tuple[str, str, float, float, Spread, Spread]]:
    """Markers, bars and baselines; returns for each joint method label, colour, place of the marker and both figures."""
    points = [(method, *outcome.headline(method.name)) for method in outcome.joint_methods]
    points = [point for point in points if None not in point]
    alone = [_alone(outcome, task) for task in ("detection", "classification")]
    axis.set(xlabel="detection: mAP50-95", ylabel="classification: balanced accuracy")
    limits = [_limits([point[1 + which] for point in points], alone[which]) for which in (0, 1)]
    axis.set_xlim(*limits[0])
    axis.set_ylim(*limits[1])
    _draw_alone(axis, alone)
    shown = []
    for method, detection, classification in points:
        outside = [of.mean < low for of, (low, _) in zip((detection, classification), limits, strict=True)]
        edges = [low + _EDGE * (high - low) for low, high in limits]
        x, y = (edge if out else of.mean for of, out, edge in zip((detection, classification), outside, edges, strict=True))
        _draw_point(axis, look[method.name], (x, y), detection, classification, outside)
        label = method.label
        if any(outside):
            label += (
                " ("
                + ", ".join(f"{of.mean:.3f}" for of, out in zip((detection, classification), outside, strict=True) if out)
                + ")"
            )
        shown.append((label, look[method.name].colour, x, y, detection, classification))
    if not points:
        axis.text(0.5, 0.5, "no joint method is finished", transform=axis.transAxes, ha="center", color=OTHER)
    return shown


def _alone(outcome: Outcome, task: str) -> Spread | None:
    baseline = outcome.baseline(task)
    return outcome.headline(baseline.name)[0 if task == "detection" else 1] if baseline else None


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
    x_high, y_high = axis.get_xlim()[1], axis.get_ylim()[1]
    detection, classification = alone
    if detection and classification:
        corner = (detection.mean, classification.mean)
        size = (x_high - corner[0], y_high - corner[1])
        axis.add_patch(Rectangle(corner, *size, color=_GOOD, alpha=0.09, linewidth=0, zorder=0.4))
        axis.text(x_high, y_high, "as good as both alone ", ha="right", va="top", fontsize=7, color=_GOOD, gid="words")
    words = {"fontsize": 7, "gid": "words", "annotation_clip": False, "textcoords": "offset points"}
    if detection:
        low, high = detection.mean - (detection.sd or 0), detection.mean + (detection.sd or 0)
        axis.axvspan(low, high, color=DETECTION, alpha=0.1, linewidth=0, zorder=0.5)
        axis.axvline(detection.mean, color=DETECTION, **_DASHED)
        axis.annotate("detection only", (detection.mean, y_high), (0, 2), ha="center", va="bottom", color=DETECTION, **words)
    if classification:
        low, high = classification.mean - (classification.sd or 0), classification.mean + (classification.sd or 0)
        axis.axhspan(low, high, color=CLASSIFICATION, alpha=0.12, linewidth=0, zorder=0.5)
        axis.axhline(classification.mean, color=CLASSIFICATION, **_DASHED)
        axis.annotate(
            "classification only", (x_high, classification.mean), (3, 0), rotation=90, va="center", color=_WORDS, **words
        )


def _draw_point(
    axis: Axes, look: Look, place_: tuple[float, float], detection: Spread, classification: Spread, outside: Sequence[bool]
) -> None:
    """A marker with its bars; one that is out of view stands at the edge, hollow, with an arrow to where it is."""
    x, y = place_
    bars = {"ecolor": look.colour, "elinewidth": 0.8, "capsize": 1.8, "capthick": 0.8, "alpha": 0.75}
    axis.errorbar(
        x, y, xerr=None if outside[0] else detection.sd, yerr=None if outside[1] else classification.sd,
        fmt="none", zorder=2, clip_on=False, **bars,
    )  # fmt: skip
    filled = not any(outside)
    axis.plot(
        x, y, marker=look.marker, markersize=6.5, linestyle="none", color=look.colour, clip_on=False, zorder=3,
        markerfacecolor=look.colour if filled else "white", markeredgecolor="white" if filled else look.colour,
        markeredgewidth=0.6 if filled else 1.2,
    )  # fmt: skip
    arrow = {"arrowstyle": "<|-", "color": look.colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 4, "mutation_scale": 7}
    for out, shift in zip(outside, ((-14, 0), (0, -14)), strict=True):
        if out:
            axis.annotate("", xy=(x, y), xytext=shift, textcoords="offset points", arrowprops=arrow)


def _draw_labels(axis: Axes, shown: Sequence[tuple[str, str, float, float, Spread, Spread]]) -> None:
    """Each method's name beside its marker, with a line to it where it had to move away."""
    figure = axis.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    anchors = [tuple(axis.transData.transform((x, y))) for _, _, x, y, *_ in shown]
    texts = [axis.text(x, y, label, fontsize=8, color=colour, zorder=4, gid="label") for label, colour, x, y, *_ in shown]
    sizes = [(box.width + 2, box.height + 1) for box in (text.get_window_extent(renderer) for text in texts)]
    panel = axis.get_window_extent(renderer)
    obstacles = [box for _, _, x, y, *spreads in shown for box in _bars(axis, (x, y), spreads)]
    obstacles += [
        tuple(line.get_window_extent(renderer).padded(1).extents) for line in axis.lines if line.get_linestyle() == "--"
    ]
    words = [text for text in axis.texts if text.get_gid() == "words"]
    obstacles += 3 * [tuple(text.get_window_extent(renderer).extents) for text in words]
    boxes = place(anchors, sizes, 4.5 * scale, obstacles, tuple(panel.extents))
    for text, box, anchor in zip(texts, boxes, anchors, strict=True):
        to_data = axis.transData.inverted().transform
        text.set(position=to_data(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)), ha="center", va="center")
        end = nearest(box, anchor)
        if ((end[0] - anchor[0]) ** 2 + (end[1] - anchor[1]) ** 2) ** 0.5 > 10 * scale:
            xs, ys = zip(to_data(anchor), to_data(end), strict=True)
            axis.plot(xs, ys, color=text.get_color(), linewidth=0.6, alpha=0.6, zorder=1.5, clip_on=False)


def _bars(axis: Axes, place_: tuple[float, float], spreads: Sequence[Spread]) -> list[Box]:
    """Where a marker's error bars are, in pixels."""
    boxes = []
    for which, of in enumerate(spreads):
        ends = [list(place_), list(place_)]
        ends[0][which] -= of.sd or 0
        ends[1][which] += of.sd or 0
        (x0, y0), (x1, y1) = axis.transData.transform(ends)
        boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    return boxes
