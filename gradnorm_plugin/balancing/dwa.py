"""Dynamic weight averaging: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019 (arXiv:1803.10704).

With L_i(t) the mean loss of epoch t and T_s the softmax's temperature:

    r_i(t) = L_i(t - 1) / L_i(t - 2)
    w_i(t) = T * exp(r_i(t) / T_s) / sum_j exp(r_j(t) / T_s)

for T tasks. The first two epochs have r_i = 1, that is, equal weights. A task whose loss falls more slowly than the others' gains
weight; the sizes of the losses and of their gradients play no part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, loss_values


class DynamicWeightAverage(WatchedBalancer):
    """Weights from how fast the losses of the last two epochs fell; they sum to the number of tasks.

    Args:
        num_tasks: T.
        temperature: T_s; larger makes the weights more equal.
        interval: batches between two measurements of the gradients; 0 for none.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    name = "dwa"
    label = "DWA"
    note = "weights from how fast each loss falls (Liu 2019)"

    def __init__(self, num_tasks: int = 2, temperature: float = 2.0, interval: int = 0) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be finite and positive, found {temperature}")
        super().__init__(torch.ones(num_tasks, dtype=torch.float64), interval)
        self.temperature = temperature
        self._sums, self._counted = torch.zeros(num_tasks, dtype=torch.float64), 0
        self._last_means: Tensor | None = None

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Add the batch's losses to the epoch's; a batch whose losses are not finite is left out."""
        found = loss_values(losses)
        if torch.isfinite(found).all():
            self._sums, self._counted = self._sums + found, self._counted + 1
        return super().begin_step(losses)

    def end_epoch(self) -> None:
        """Set the next epoch's weights; an epoch without any batch that counts changes nothing."""
        if not self._counted:
            return
        means, before = self._sums / self._counted, self._last_means
        self._sums, self._counted, self._last_means = torch.zeros_like(means), 0, means
        if before is None or not (before > 0).all():
            return
        self.weights = len(means) * torch.softmax(means / before / self.temperature, 0)

    def state_dict(self) -> dict[str, Any]:
        """Weights, the last epoch's means and the running epoch's sums."""
        return {**super().state_dict(), "sums": self._sums, "counted": self._counted, "last_means": self._last_means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        super().load_state_dict(state)
        self._sums, self._counted, self._last_means = state["sums"], state["counted"], state["last_means"]
