"""Which joint methods keep up with the single tasks, which do best, and which of them cost least: from the figures alone."""

from __future__ import annotations

import math

from gradnorm_plugin.compare.collect import CURVES, FIGURES
from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.compare.outcome import Outcome


def floor(outcome: Outcome, task: str) -> float | None:
    """What a joint method must reach: the mean of the task alone less its standard deviation; None without that baseline."""
    baseline = outcome.baseline(task)
    found = outcome.spread(baseline.name, CURVES[task]) if baseline else None
    return None if found is None else found.mean - (found.sd or 0)


def falls_behind(outcome: Outcome, method: Method, task: str) -> bool:
    """Whether a joint method's mean is below that floor; False where there is nothing to compare."""
    least, found = floor(outcome, task), outcome.spread(method.name, CURVES[task])
    return least is not None and found is not None and found.mean < least


def keep_up(outcome: Outcome) -> list[Method] | None:
    """Joint methods that fall behind in neither task; None while a baseline is missing."""
    if any(floor(outcome, task) is None for task in FIGURES):
        return None
    return [method for method in _complete(outcome) if not any(falls_behind(outcome, method, task) for task in FIGURES)]


def best_joint(outcome: Outcome) -> Method | None:
    """The joint method with the highest product of both headline figures, to which a task that collapsed adds nothing.

    A product ranks as the product of the ratios to any two baselines does: neither task's scale counts.
    """
    return max(_complete(outcome), key=lambda method: math.prod(of.mean for of in outcome.headline(method.name)), default=None)


def cheapest(outcome: Outcome, methods: list[Method], cost: str) -> tuple[list[Method], float] | None:
    """Those of the methods whose mean cost is lowest, all that share it, and that cost; None if it is not known of any."""
    found = {method.name: outcome.spread(method.name, cost) for method in methods}
    means = {name: spread.mean for name, spread in found.items() if spread is not None}
    if not means:
        return None
    least = min(means.values())
    return [method for method in methods if means.get(method.name) == least], least


def _complete(outcome: Outcome) -> list[Method]:
    """Joint methods that have both headline figures."""
    return [method for method in outcome.joint_methods if None not in outcome.headline(method.name)]
