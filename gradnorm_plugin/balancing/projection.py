"""Bring task weights back to their sum, or to ratios to one of them, and into their ranges, both at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_ranges(weight_sum: float, ranges: Sequence[tuple[float, float]]) -> None:
    """Refuse ranges that no weights of the given sum can meet.

    Raises:
        ValueError: naming the range or the sum that is wrong.
    """
    _check_pairs(ranges)
    lowest, highest = sum(low for low, _ in ranges), sum(high for _, high in ranges)
    if not lowest <= weight_sum <= highest:
        raise ValueError(
            f"weight_sum is {weight_sum}, but weights in the ranges {list(ranges)} sum to {lowest:g}..{highest:g}: "
            f"change weight_sum or the ranges"
        )


def check_ratio_ranges(reference: int, ranges: Sequence[tuple[float, float]]) -> None:
    """Refuse a reference task that there is not, and ranges that do not let its weight be 1.

    Raises:
        ValueError: naming what is wrong.
    """
    if reference not in range(len(ranges)):
        raise ValueError(f"reference is {reference}, expected a task from 0 to {len(ranges) - 1}")
    _check_pairs(ranges)
    low, high = ranges[reference]
    if not low <= 1 <= high:
        raise ValueError(f"weight_ranges[{reference}] is ({low}, {high}), expected a range that holds 1, this task's weight")


def _check_pairs(ranges: Sequence[tuple[float, float]]) -> None:
    for task, (low, high) in enumerate(ranges):
        if not 0 <= low <= high or high <= 0:
            raise ValueError(f"weight_ranges[{task}] is ({low}, {high}), expected 0 <= low <= high and high > 0")


def ratio_weights(weights: Tensor, reference: int, ranges: Sequence[tuple[float, float]]) -> Tensor:
    """The weights divided by that of `reference`, which is exactly 1 then, the others cut to their ranges.

    Args:
        weights: (T,) float64, positive.
        reference: the task whose weight becomes 1.
        ranges: T pairs (low, high), which `check_ratio_ranges` has accepted; high may be infinite.

    Returns:
        (T,) float64.
    """
    bounds = torch.tensor([list(pair) for pair in ranges], dtype=torch.float64)
    return torch.minimum(torch.maximum(weights / weights[reference], bounds[:, 0]), bounds[:, 1])


def project_weights(weights: Tensor, weight_sum: float, ranges: Sequence[tuple[float, float]]) -> Tensor:
    """The weights `clip(s * weights, low, high)` whose sum is `weight_sum`: one common factor s, then the ranges.

    The sum grows with s piecewise linearly, with its corners where a weight meets an end of its range, so s is found by
    looking the sum up among the corners. Rescaling first and clipping afterwards would break the sum.

    Args:
        weights: (T,) float64, positive.
        weight_sum: the sum to reach.
        ranges: T pairs (low, high), which `check_ranges` has accepted; high may be infinite.

    Returns:
        (T,) float64.
    """
    bounds = torch.tensor([list(pair) for pair in ranges], dtype=torch.float64)
    low, high = bounds[:, 0], bounds[:, 1]

    def at(scale: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(scale * weights, low), high)

    largest = weight_sum / weights.min()
    corners = torch.cat([low / weights, high / weights, largest.reshape(1), torch.zeros(1, dtype=torch.float64)])
    corners = corners[torch.isfinite(corners)].unique()
    sums = torch.stack([at(corner).sum() for corner in corners])
    above = int(torch.searchsorted(sums, torch.tensor(weight_sum, dtype=torch.float64)).clamp(1, len(sums) - 1))
    span = sums[above] - sums[above - 1]
    share = ((weight_sum - sums[above - 1]) / span).clamp(0, 1) if span > 0 else torch.ones((), dtype=torch.float64)
    projected = at(corners[above - 1] + share * (corners[above] - corners[above - 1]))

    # What rounding left goes to the weight with the most room, so that the sum is exact to the last digits.
    room = torch.minimum(projected - low, high - projected)
    projected[room.argmax()] += weight_sum - projected.sum()
    return torch.minimum(torch.maximum(projected, low), high)
