"""What several seeds say together: mean and spread, paired differences with their intervals, ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

from gradnorm_plugin.report.run_files import finite

LEVEL = 0.95
"""Confidence level of the intervals of differences."""


@dataclass(frozen=True)
class Spread:
    """Mean of a figure over the seeds, and how much it varied."""

    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single seed."""
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Difference:
    """Mean difference of runs with the same seed, and its t-interval."""

    mean: float
    interval: tuple[float, float] | None
    """None for a single pair, which says nothing about the variation."""
    count: int

    @property
    def side(self) -> str | None:
        """`above` or `below` if the whole interval is on that side of 0, else `includes`; None without an interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "includes"


@dataclass(frozen=True)
class Ratio:
    """Ratio of two means over the seeds that both have, and the lowest and highest ratio of a single seed."""

    value: float
    low: float
    high: float
    count: int


def spread_of(values: Iterable[float]) -> Spread | None:
    """Mean and spread of the finite values; None if there is none."""
    found = finite(values)
    if not found:
        return None
    sd = stdev(found) if len(found) > 1 else None  # exact: 0 for equal values, where pandas and NumPy leave 1e-15
    return Spread(fmean(found), sd, min(found), max(found), len(found))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """`values` - `baseline`, both by seed, over the seeds of both; None if they share none.

    The interval is Student's t for the mean difference: a seed's effect that both runs share does not widen it.
    """
    found = spread_of(values[seed] - baseline[seed] for seed in values if seed in baseline)
    if found is None:
        return None
    if found.sd is None:
        return Difference(found.mean, None, found.count)
    half = float(student.ppf((1 + LEVEL) / 2, found.count - 1)) * found.sd / math.sqrt(found.count)
    return Difference(found.mean, (found.mean - half, found.mean + half), found.count)


def paired_ratio(values: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """`values` / `baseline`, both by seed; None if they share no seed, or the baseline is 0 there."""
    seeds = [seed for seed in values if seed in baseline]
    below = math.fsum(baseline[seed] for seed in seeds)
    if not below:
        return None
    ratios = [values[seed] / baseline[seed] for seed in seeds if baseline[seed]]
    return Ratio(math.fsum(values[seed] for seed in seeds) / below, min(ratios), max(ratios), len(seeds))
