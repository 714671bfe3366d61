"""Uncertainty weighting: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
Semantics", CVPR 2018 (arXiv:1705.07115).

Each task has a learned log variance s_i = log(sigma_i ** 2). What is minimised is

    sum_i  L_i / (2 * sigma_i ** 2) + log(sigma_i)   =   sum_i  exp(-s_i) * L_i / 2 + s_i / 2

so the weights are w_i = exp(-s_i) / 2, and the derivative by s_i is (1 - 2 * w_i * L_i) / 2. At rest w_i = 1 / (2 * L_i): every
weighted loss is one half. Losses are those of an image, so that this does not depend on the batch size.

Deviations from the paper:

* One form for both tasks; the paper leaves out the factor 1 / 2 for a classification, a difference of log(2) in its s_i.
* The s_i are no parameters of the network's optimiser, whose momentum and weight decay would act on them: they take plain
  gradient steps of size `lr`, one a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, loss_values, positive_weights


class UncertaintyWeights(WatchedBalancer):
    """Weights `exp(-s) / 2` of log variances that descend the likelihood of the losses, a step each batch.

    Args:
        num_tasks: T.
        initial_weights: T positive weights; default 1 each.
        lr: step size on the log variances.
        interval: batches between two measurements of the gradients; 0 for none.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    name = "uncertainty"
    label = "Uncertainty"
    note = "a learned noise for each task (Kendall 2018)"

    def __init__(
        self, num_tasks: int = 2, initial_weights: Sequence[float] | None = None, lr: float = 0.025, interval: int = 0
    ) -> None:
        super().__init__(positive_weights("initial_weights", initial_weights, num_tasks), interval)
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be finite and positive, found {lr}")
        self.lr = lr

    @property
    def log_variances(self) -> Tensor:
        """(T,) float64, s_i."""
        return -(2 * self.weights).log()

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """One gradient step on the log variances; a batch whose losses are not finite is left out."""
        found = loss_values(losses)
        if torch.isfinite(found).all():
            gradient = (1 - 2 * self.weights * found) / 2
            self.weights = torch.exp(-(self.log_variances - self.lr * gradient)) / 2
        return super().begin_step(losses)
