"""Soft optimal uncertainty weighting: Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott, Koehler, "Analytical Uncertainty-Based
Loss Weighting in Multi-Task Learning", GCPR 2024 (arXiv:2408.07985).

Uncertainty weighting learns a variance for each task. At its optimum the weights are inverse to the losses; the paper tempers
these with a softmax:

    w_i = exp(1 / (T_s * L_i)) / sum_j exp(1 / (T_s * L_j))

with the losses of the batch itself, held constant. No state is learned, so nothing lags behind.

Deviations from the paper: none in the weights. Losses are those of an image, so that the weights do not depend on the batch size.
The paper tunes T_s for each data set; the default here is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, loss_values


class SoftOptimalUncertainty(WatchedBalancer):
    """Each batch's weights are a softmax of its inverse losses; they sum to 1.

    Args:
        num_tasks: T.
        temperature: T_s; larger makes the weights more equal.
        interval: batches between two measurements of the gradients; 0 for none.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    name = "uw-so"
    label = "UW-SO"
    note = "a softmax of the inverse losses (Kirchdorfer 2024)"

    def __init__(self, num_tasks: int = 2, temperature: float = 1.0, interval: int = 0) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be finite and positive, found {temperature}")
        super().__init__(torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64), interval)
        self.temperature = temperature

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """The softmax; losses that are not finite leave the weights as they are."""
        found = loss_values(losses)
        if torch.isfinite(found).all():
            # A loss of 0 would be infinitely certain, and two of them NaN: the weights are those of one that is nearly 0.
            found = found.clamp(min=torch.finfo(torch.float32).tiny)
            self.weights = torch.softmax(1 / (self.temperature * found), 0)
        return self.weights
