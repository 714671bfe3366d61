"""The sum of the losses' logarithms, so that the units of a loss play no part.

Minimised is sum_i log(L_i), whose gradient is sum_i g_i / L_i: weights 1 / L_i of the batch's own losses. Several methods come to
these weights, up to a common factor:

* the geometric loss strategy, (L_1 * ... * L_T) ** (1 / T) (Chennupati, Sistu, Yogamani, Rawashdeh, "MultiNet++: Multi-Stream
  Feature Aggregation and Geometric Loss Strategy for Multi-Task Learning", CVPR Workshops 2019, arXiv:1904.08492);
* IMTL-L, exp(s_i) * L_i - s_i with a learned s_i, once s_i has come to rest (Liu et al., "Towards Impartial Multi-task Learning",
  ICLR 2021);
* uncertainty weighting with its variances at their optimum (UW-O in Kirchdorfer et al., arXiv:2408.07985).

Deviation from them: the weights are divided by the first task's, so that its weight is 1 and its step the one that it takes
alone: w_i = L_1 / L_i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, loss_values

SMALLEST_LOSS = 1e-6
"""A loss below it counts as this: a saturated softmax has a loss of exactly 0."""


class LogLosses(WatchedBalancer):
    """Each batch's weights are `L_1 / L_i` of its own losses.

    Args:
        num_tasks: T.
        interval: batches between two measurements of the gradients; 0 for none.
    """

    name = "log"
    label = "Log losses"
    note = "the sum of the losses' logarithms (Chennupati 2019)"

    def __init__(self, num_tasks: int = 2, interval: int = 0) -> None:
        super().__init__(torch.ones(num_tasks, dtype=torch.float64), interval)

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """`L_1 / L_i`; losses that are not finite leave the weights as they are."""
        found = loss_values(losses)
        if torch.isfinite(found).all():
            found = found.clamp(min=SMALLEST_LOSS)
            self.weights = found[0] / found
        return self.weights
