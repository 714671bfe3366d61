"""The right half of `comparison.png`: what each method costs, beside training detection alone."""

from __future__ import annotations

from matplotlib.figure import SubFigure

from gradnorm_plugin.compare.latency import Latency, Time
from gradnorm_plugin.compare.look import Look
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.training.figures import OTHER, head

_PANELS = (
    ("parameters", "Parameters", 1e-6, "million"),
    ("gflops", "GFLOPs", 1, ""),
    ("seconds_per_epoch", "Training", 1, "s an epoch"),
    ("latency", "Prediction", 1, "ms, batch 1"),
)
"""Cost, title, factor to the unit shown, unit."""


def _times(outcome: Outcome, latency: Latency | None) -> dict[str, Time]:
    times = {method.name: latency.of(method.name) for method in outcome.methods} if latency else {}
    return {method: time for method, time in times.items() if time}


def costs_of(outcome: Outcome, latency: Latency | None, name: str) -> dict[str, float]:
    """Mean of a cost, or the latency, of each method that has it."""
    if name == "latency":
        return {method: time.milliseconds for method, time in _times(outcome, latency).items()}
    spreads = {method.name: outcome.spread(method.name, name) for method in outcome.methods}
    return {method: spread.mean for method, spread in spreads.items() if spread}


def ratios_of(outcome: Outcome, latency: Latency | None, name: str) -> dict[str, float]:
    """Ratio of a cost to that of detection only, of each method that has both; of the latency as it was timed, in turn."""
    if name == "latency":
        return {method: time.ratio for method, time in _times(outcome, latency).items()}
    costs = costs_of(outcome, latency, name)
    base = costs.get(BASELINES["detection"])
    return {method: cost / base for method, cost in costs.items()} if base else {}


def draw_costs(figure: SubFigure, outcome: Outcome, latency: Latency | None, look: dict[str, Look]) -> None:
    """A panel a cost that is known: a dot a method from the line of detection only, and its ratio to it in words."""
    panels = [(costs_of(outcome, latency, name), ratios_of(outcome, latency, name), *rest) for name, *rest in _PANELS]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return
    names = [method.name for method in outcome.methods][::-1]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, letter, (costs, ratios, title, factor, unit) in zip(axes, "bcde", panels, strict=False):
        head(axis, letter, title)
        base = costs.get(BASELINES["detection"])
        highest = factor * max(costs.values())
        for row, name in enumerate(names):
            if name not in costs:
                continue
            value = factor * costs[name]
            axis.plot([0, value], [row, row], color=look[name].colour, linewidth=1, alpha=0.45, zorder=1.5)
            axis.plot(value, row, marker=look[name].marker, color=look[name].colour, markersize=5.5, markeredgecolor="white",
                      markeredgewidth=0.5, linestyle="none", zorder=3)  # fmt: skip
            words = _number(value) + (f" ({ratios[name]:.2f}\N{MULTIPLICATION SIGN})" if name in ratios else "")
            axis.text(1.22 * highest, row, words, va="center", fontsize=6.8, color=OTHER)
        if base:
            axis.axvline(factor * base, color=OTHER, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1)
        axis.set(xlim=(0, 2.5 * highest), ylim=(-0.6, len(names) - 0.4), xlabel=unit)
        axis.set_yticks(range(len(names)), [_label(outcome, name) for name in names])
        axis.set_xticks([])
        axis.grid(False)
        axis.tick_params(axis="y", length=0)
        axis.spines["bottom"].set_visible(False)


def _label(outcome: Outcome, name: str) -> str:
    return next(method.label for method in outcome.methods if method.name == name)


def _number(value: float) -> str:
    """To three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
