"""GradNorm: Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm", ICML 2018 (arXiv:1711.02257), equations 1 and 2.

For T tasks with losses L_i, weights w_i and the weights W of the last shared layer:

    G_i      = w_i * || grad_W L_i ||             the gradient norm of the weighted task
    r_i      = (L_i / L_i(0)) / mean_j(L_j / L_j(0))    its relative inverse training rate: 1 is average, more is slower
    target_i = mean_j(G_j) * r_i ** alpha         held constant
    L_grad   = sum_i | G_i - target_i |

G_i is linear in w_i, so dL_grad/dw_i = sign(G_i - target_i) * ||grad_W L_i||: no second differentiation is needed.

Two deviations from the paper:

* The step is relative. Real norms differ by two orders of magnitude, so one additive step size is far too coarse for one task
  and without effect on the other. We descend L_grad / mean(G) on log(w), that is, since dL_grad/dlog(w_i) = w_i * dL_grad/dw_i:
      w_i <- w_i * exp(-lr * sign(G_i - target_i) * G_i / mean(G))
  Each weight moves in the direction the paper gives, stays positive, and does not depend on the units of the losses.
* The sum of the weights is kept together with a range for each weight (`project_weights`); without ranges it is the paper's
  renormalisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import Balancer, as_task_vector, positive_weights
from gradnorm_plugin.balancing.projection import check_ranges, project_weights

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "report": {
        "alpha": 1.5,
        "initial_weights": (1.0, 0.01),
        "weight_sum": 4.0,
        "weight_ranges": ((1.0, 4.0), (0.01, 0.4)),
        "interval": 10,
        "warmup": 10,
        "lr": 0.1,
    },
    "paper": {
        "alpha": 1.5,
        "initial_weights": (1.0, 1.0),
        "weight_sum": 2.0,
        "weight_ranges": None,
        "interval": 1,
        "warmup": 1,
        "lr": 0.025,
    },
}
"""Settings for two tasks, detection first: those of the report that this project started from, and the paper's."""


class GradNorm(Balancer):
    """GradNorm for `num_tasks` tasks, from losses and gradient norms alone.

    The first `warmup` batches run at `initial_weights` as they are given; the mean of their losses is L(0). From the first
    update on the weights sum to `weight_sum` and stay in `weight_ranges`.

    Args:
        num_tasks: T.
        alpha: strength of the pull towards equal training rates; 0 only equalises the gradient norms.
        initial_weights: T positive weights; default 1 each.
        weight_sum: S; default T.
        weight_ranges: T pairs (low, high), or None for no ranges.
        interval: batches from one update to the next.
        warmup: batches before the first update.
        lr: size of a relative step.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    name = "gradnorm"

    def __init__(
        self,
        num_tasks: int = 2,
        alpha: float = 1.5,
        initial_weights: Sequence[float] | None = None,
        weight_sum: float | None = None,
        weight_ranges: Sequence[tuple[float, float]] | None = None,
        interval: int = 1,
        warmup: int = 0,
        lr: float = 0.1,
    ) -> None:
        self.num_tasks = num_tasks
        self.alpha = alpha
        self.weight_sum = float(num_tasks if weight_sum is None else weight_sum)
        self.weight_ranges = [(0.0, math.inf)] * num_tasks if weight_ranges is None else [tuple(r) for r in weight_ranges]
        self.interval = interval
        self.warmup = warmup
        self.lr = lr
        self._check_arguments()
        self.weights = positive_weights("initial_weights", initial_weights, num_tasks)
        self.batches = 0
        self.updates = 0
        self.initial_losses: Tensor | None = None
        self._warmup_losses: list[Tensor] = []

    def _check_arguments(self) -> None:
        for name, value, lowest in (
            ("num_tasks", self.num_tasks, 2),
            ("interval", self.interval, 1),
            ("warmup", self.warmup, 0),
        ):
            if value != int(value) or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, found {value}")
        for name, value in (("alpha", self.alpha), ("lr", self.lr)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, found {value}")
        if not (math.isfinite(self.weight_sum) and self.weight_sum > 0):
            raise ValueError(f"weight_sum must be positive, found {self.weight_sum}")
        if len(self.weight_ranges) != self.num_tasks:
            raise ValueError(f"weight_ranges has {len(self.weight_ranges)} pairs, expected {self.num_tasks}")
        check_ranges(self.weight_sum, self.weight_ranges)

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Count one batch; True every `interval` batches once the `warmup` batches, whose losses make L(0), are over."""
        self.batches += 1
        if self.batches <= self.warmup:
            self._warmup_losses.append(torch.stack([loss.detach().float().reshape(()) for loss in losses]))
            return False
        return (self.batches - self.warmup - 1) % self.interval == 0

    def training_rates(self, losses: Tensor) -> Tensor:
        """r_i of the paper, (T,): each task's loss relative to its L(0), divided by the mean over the tasks.

        A task whose L(0) is not positive has no rate and is left out of the mean, at 1; without L(0) all are.
        """
        if self.initial_losses is None:
            return torch.ones_like(losses)
        usable = self.initial_losses > 0
        ratios = torch.where(usable, losses / torch.where(usable, self.initial_losses, 1.0), torch.nan)
        mean = ratios.nanmean()
        return torch.where(usable, ratios / mean, 1.0) if mean > 0 else torch.ones_like(losses)

    def _mean_of_warmup(self) -> Tensor:
        # A resumed run's are on the CPU, later ones may not be.
        return torch.stack([losses.cpu().double() for losses in self._warmup_losses]).mean(0)

    def update(self, losses: Sequence[float] | Tensor, gradient_norms: Sequence[float] | Tensor) -> Tensor:
        """One step of GradNorm on the weights.

        Values that are not finite (an overflow under AMP) and a task without gradient leave everything as it is.

        Args:
            losses: (T,) unweighted losses of the batch.
            gradient_norms: (T,) norms || grad_W L_i || of the unweighted losses.

        Returns:
            (T,) float64, the new weights.

        Raises:
            ValueError: if there is not one loss and one norm a task.
        """
        losses = as_task_vector("losses", losses, self.num_tasks)
        norms = as_task_vector("gradient_norms", gradient_norms, self.num_tasks)
        measurable = torch.isfinite(losses).all() and torch.isfinite(norms).all() and (norms > 0).all()
        if not measurable:
            return self.weights
        if self.initial_losses is None:
            self.initial_losses = self._mean_of_warmup() if self._warmup_losses else losses.clone()
            self._warmup_losses.clear()
        weighted = self.weights * norms
        target = weighted.mean() * self.training_rates(losses) ** self.alpha
        excess = weighted - target
        # Two equal tasks differ in their last digits; the sign must not make a full step of that.
        excess[excess.abs() <= 1e-9 * weighted.mean()] = 0
        step = self.lr * torch.sign(excess) * weighted / weighted.mean()
        self.weights = project_weights(self.weights * torch.exp(-step), self.weight_sum, self.weight_ranges)
        self.updates += 1
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Weights, L(0) and counters; plain tensors and numbers."""
        return {
            **super().state_dict(),
            "batches": self.batches,
            "updates": self.updates,
            "initial_losses": self.initial_losses,
            "warmup_losses": [loss.cpu() for loss in self._warmup_losses],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        super().load_state_dict(state)
        self.batches, self.updates = state["batches"], state["updates"]
        self.initial_losses = state["initial_losses"]
        self._warmup_losses = list(state["warmup_losses"])
