"""The predictions of the report that this project started from, each beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from gradnorm_plugin.compare.outcome import Outcome
from gradnorm_plugin.compare.statistics import Ratio, paired_ratio, spread_of

METHOD, AGAINST = "gradnorm", "fixed-1-0.01"


@dataclass(frozen=True)
class Prediction:
    """What GradNorm was said to reach."""

    figure: str
    low: float
    high: float
    times: bool = True
    """Times the figure of the fixed weights 1.0 and 0.01; else the figure itself."""


PREDICTIONS = (
    Prediction("mAP50-95", 3, 5),
    Prediction("mAP50", 3, 5),
    Prediction("precision", 4, 6),
    Prediction("recall", 2, 3),
    Prediction("F1", 3, 4),
    Prediction("accuracy", 0.85, 0.90, times=False),
)
"""The report says "mAP" without saying which, so both are looked at."""


@dataclass(frozen=True)
class Verdict:
    """A prediction and what was measured; `found` is None if that is not there."""

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
    """Every prediction beside the finished runs."""
    return [Verdict(prediction, _measured(outcome, prediction)) for prediction in PREDICTIONS]


def _measured(outcome: Outcome, prediction: Prediction) -> Ratio | None:
    values = outcome.values(METHOD, prediction.figure)
    if prediction.times:
        return paired_ratio(values, outcome.values(AGAINST, prediction.figure))
    found = spread_of(values.values())
    return None if found is None else Ratio(found.mean, found.low, found.high, found.count)
