"""Constant weights: the baseline that every balancer has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradnorm_plugin.balancing.balancer import WatchedBalancer


class FixedWeights(WatchedBalancer):
    """The weights never change. (1, 0) trains the first task alone, exactly as if the second were not there.

    Raises:
        ValueError: if a weight is negative or not finite, or none is positive.
    """

    name = "fixed"
    label = "Fixed"
    note = "weights that never change"

    def __init__(self, weights: Sequence[float], interval: int = 0) -> None:
        super().__init__(torch.tensor(list(weights), dtype=torch.float64), interval)
        usable = torch.isfinite(self.weights).all() and (self.weights >= 0).all() and (self.weights > 0).any()
        if not usable:
            raise ValueError(f"weights must be finite, not negative and not all zero, found {list(weights)}")
