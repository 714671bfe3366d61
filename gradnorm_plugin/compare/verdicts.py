"""What the figures of a comparison decide: which joint methods keep up with the single tasks, which is best, which cheapest;
and whether the predictions of the report that this project started from hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from gradnorm_plugin.compare.methods import GRID_METHODS, Method, baseline
from gradnorm_plugin.compare.results import Outcome
from gradnorm_plugin.compare.spread import Ratio, paired_ratio

_LEAST = 0.01
"""The least that a headline figure of an image output counts as in a product: explained variance can be negative."""


def floor(outcome: Outcome, task: str) -> float | None:
    """What a joint method must reach: the mean of the task alone minus its standard deviation; None without that baseline."""
    found = outcome.spread(baseline(task), outcome.headlines[task])
    return None if found is None else found.mean - (found.sd or 0)


def falls_behind(outcome: Outcome, method: Method, task: str) -> bool:
    """Whether a joint method's mean is below that floor; False where there is nothing to compare."""
    least, found = floor(outcome, task), outcome.spread(method.name, outcome.headlines[task])
    return least is not None and found is not None and found.mean < least


def keep_up(outcome: Outcome) -> list[Method] | None:
    """Joint methods that fall behind in no task; None while a baseline is missing."""
    if any(floor(outcome, task) is None for task in outcome.headlines):
        return None
    complete = [method for method in outcome.joint_methods if outcome.headline(method.name)]
    return [method for method in complete if not any(falls_behind(outcome, method, task) for task in outcome.headlines)]


def best_joint(outcome: Outcome) -> Method | None:
    """The joint method with the highest product of all headline figures: a collapsed task makes it small.

    A product ranks the methods as their ratios to any baselines would: no task's scale counts.
    """
    return _best(outcome, outcome.joint_methods)


def best_ratio(outcome: Outcome) -> Method | None:
    """The best method of the grid of fixed ratios in the same sense; None until all of the grid have a finished run."""
    grid = [method for method in outcome.joint_methods if method.name in GRID_METHODS]
    return _best(outcome, grid) if len(grid) == len(GRID_METHODS) else None


def _best(outcome: Outcome, methods: list[Method]) -> Method | None:
    found = [(method, outcome.headline(method.name)) for method in methods]
    products = [(of[0].mean * math.prod(max(spread.mean, _LEAST) for spread in of[1:]), method) for method, of in found if of]
    return max(products, key=lambda scored: scored[0])[1] if products else None


def cheapest(outcome: Outcome, methods: list[Method], cost: str) -> tuple[list[Method], float] | None:
    """All methods that share the lowest mean cost, and that cost; None if it is not known of any."""
    means = {method.name: spread.mean for method in methods if (spread := outcome.spread(method.name, cost))}
    if not means:
        return None
    least = min(means.values())
    return [method for method in methods if means.get(method.name) == least], least


class Prediction(NamedTuple):
    """What the report said that GradNorm would reach."""

    figure: str
    low: float
    high: float
    times: bool = True
    """As multiples of the figure at the fixed weights 1.0 and 0.01; else the figure itself."""


PREDICTIONS = (
    Prediction("mAP50-95", 3, 5),
    Prediction("mAP50", 3, 5),
    Prediction("precision", 4, 6),
    Prediction("recall", 2, 3),
    Prediction("F1", 3, 4),
    Prediction("accuracy", 0.85, 0.90, times=False),
)
"""The report says "mAP" without saying which, so both are judged."""
PREDICTED, REFERENCE = "gradnorm", "fixed-1-0.01"
"""The method that the predictions are about, and the one that they are multiples of."""


@dataclass(frozen=True)
class Verdict:
    """A prediction and what was measured; `found` is None if nothing was."""

    prediction: Prediction
    found: Ratio | None
    """The ratio of the means over the seeds that both methods have; for a figure itself, its mean, lowest and highest."""

    @property
    def word(self) -> str:
        """`holds`, `below` or `above` the predicted range, or `unmeasured`."""
        if self.found is None:
            return "unmeasured"
        if self.found.value < self.prediction.low:
            return "below"
        return "above" if self.found.value > self.prediction.high else "holds"


def judge(outcome: Outcome) -> list[Verdict]:
    """Every prediction beside what the finished runs measured."""
    verdicts = []
    for prediction in PREDICTIONS:
        if prediction.times:
            values = (outcome.values(method, prediction.figure) for method in (PREDICTED, REFERENCE))
            found = paired_ratio(*values)
        else:
            spread = outcome.spread(PREDICTED, prediction.figure)
            found = Ratio(spread.mean, spread.low, spread.high, spread.count) if spread else None
        verdicts.append(Verdict(prediction, found))
    return verdicts
