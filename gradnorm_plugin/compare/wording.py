"""Numbers of a comparison as its pages write them."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradnorm_plugin.compare.statistics import Difference, Spread
from gradnorm_plugin.report.wording import NONE, Wording, figure, score


def plus_minus(spread: Spread | None, say: Wording, number: Callable[[float | None], str] = score) -> str:
    """0.512 ± 0.010, without the latter for a single seed."""
    if spread is None:
        return NONE
    return (
        number(spread.mean) if spread.sd is None else say.plain("compare.spread", mean=number(spread.mean), sd=number(spread.sd))
    )


def with_interval(difference: Difference | None, say: Wording) -> str:
    """+0.008 (-0.004 to +0.020), without the latter for a single pair."""
    if difference is None:
        return NONE
    if difference.interval is None:
        return signed(difference.mean)
    low, high = map(signed, difference.interval)
    return say.plain("compare_differences.interval", mean=signed(difference.mean), low=low, high=high)


def signed(value: float | None) -> str:
    """A difference to three places, with its sign."""
    return NONE if value is None or math.isnan(value) else f"{value:+.3f}"


def short(value: float | None) -> str:
    """A time or GFLOPs to three significant digits, larger numbers whole."""
    return figure(value) if value is None or math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
