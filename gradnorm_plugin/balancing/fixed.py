"""Constant weights: the baseline that every balancer has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import Balancer


class FixedWeights(Balancer):
    """The weights never change. (1, 0) trains the first task alone, exactly as if the second were not there.

    Raises:
        ValueError: if a weight is negative or not finite, or none is positive.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = torch.tensor(list(weights), dtype=torch.float64)
        usable = torch.isfinite(self.weights).all() and (self.weights >= 0).all() and (self.weights > 0).any()
        if not usable:
            raise ValueError(f"weights must be finite, not negative and not all zero, found {list(weights)}")

    def update(self, losses: Sequence[float] | Tensor, gradient_norms: Sequence[float] | Tensor) -> Tensor:
        """Return the weights as they are."""
        return self.weights
