"""GradNorm: Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm", ICML 2018 (arXiv:1711.02257), equations 1 and 2.

For T tasks with losses L_i, weights w_i and the weights W of the last shared layer:

    G_i      = w_i * || grad_W L_i ||             the gradient norm of the weighted task
    r_i      = (L_i / L_i(0)) / mean_j(L_j / L_j(0))    its relative inverse training rate: 1 is average, more is slower
    target_i = mean_j(G_j) * r_i ** alpha         held constant
    L_grad   = sum_i | G_i - target_i |

G_i is linear in w_i, so dL_grad/dw_i = sign(G_i - target_i) * ||grad_W L_i||: no second differentiation is needed.

Deviations from the paper, always:

* The step is relative. In practice norms differ by two orders of magnitude, so one additive step size is far too coarse for one
  task and has no effect on the other. We minimise L_grad / mean(G) over log(w); since dL_grad/dlog(w_i) = w_i * dL_grad/dw_i:
      w_i <- w_i * exp(-lr * sign(G_i - target_i) * G_i / mean(G))
  Each weight moves in the paper's direction, stays positive, and is independent of the units of the losses.
* The sum of the weights is maintained together with a range per weight (`project_weights`); without ranges this is the paper's
  renormalisation.

Deviations with a `reference` task, as in the preset `ratio`:

* Instead of a fixed sum, the reference task's weight is always 1; the rule controls only the ratios of the other weights to it.
  A sum S multiplies the reference task's loss by up to S, which acts like a learning rate S times as large and makes that rate
  change with the ratio. At weight 1 the reference task takes the step of training it alone.
* The targets are normalised: target_i = mean_j(G_j) * r_i ** alpha / mean_j(r_j ** alpha), which sum to sum_j(G_j). The paper's
  sum to more than that for alpha > 1 (Jensen), so they cannot all be met. For two tasks, if one has r_i ** alpha >= 2, it stays
  below its target even with all the gradient there is, and the other's weight falls until its range stops it. With normalised
  targets, every set of losses has exactly one ratio at which all G_i are at their targets.

Deviation with `start="measured"`, as in the preset `ratio`:

* Gradient norms are measured during the warm-up too, and after each of its batches the weights are set, not stepped, so that the
  geometric means of the norms so far give equal G_i (training rates are 1 then, so equality is the target). An initial ratio
  that is off by a factor of 100 thus affects only the first batch; steps of 0.1 would need dozens of updates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import Balancer, as_task_vector, positive_weights
from gradnorm_plugin.balancing.projection import check_ranges, check_ratio_ranges, project_weights, ratio_weights
from gradnorm_plugin.presets import PRESETS, STARTS


def preset(name: str, num_tasks: int = 2) -> dict[str, Any]:
    """The settings of a preset for T tasks: further tasks are treated like the second, and the paper's sum is T."""
    found = dict(PRESETS[name])
    for setting in ("initial_weights", "weight_ranges"):
        if found[setting] is not None:
            found[setting] = (*found[setting], *[found[setting][-1]] * (num_tasks - 2))
    return {**found, "weight_sum": float(num_tasks)} if name == "paper" else found


class GradNorm(Balancer):
    """GradNorm for `num_tasks` tasks, from losses and gradient norms only.

    L(0) is the mean loss of the first `warmup` batches. These use `initial_weights` as given or, with `start="measured"`, only
    the first of them does. From the first update on the weights stay in `weight_ranges`, and either sum to `weight_sum` or have
    the `reference` task at weight 1.

    Args:
        num_tasks: T.
        alpha: strength of the pull towards equal training rates; 0 only equalises the gradient norms.
        initial_weights: T positive weights; default 1 each.
        weight_sum: S; default T. Excludes `reference`.
        weight_ranges: T pairs (low, high), or None for no ranges. With `reference` they bound the ratios to its weight, and
            its own must contain 1.
        interval: batches between updates.
        warmup: batches before the first update.
        lr: relative step size.
        reference: the task whose weight is always 1; None fixes the sum of the weights instead.
        start: "given", the warm-up uses `initial_weights`; "measured", the weights that equalise the gradient norms measured so
            far.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    name = "gradnorm"
    label = "GradNorm"
    note = "gradient norms by training rate (Chen 2018)"
    needs_shared_layer = True

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
        reference: int | None = None,
        start: str = "given",
    ) -> None:
        self.num_tasks = num_tasks
        self.alpha = alpha
        self.reference = reference
        if reference is not None and weight_sum is not None:
            raise ValueError(f"weight_sum is {weight_sum}, but with a reference task, whose weight is always 1, no sum is kept")
        self.weight_sum = float(num_tasks if weight_sum is None else weight_sum) if reference is None else None
        self.weight_ranges = (
            [(0.0, math.inf)] * num_tasks if weight_ranges is None else [(low, high) for low, high in weight_ranges]
        )
        self.interval = interval
        self.warmup = warmup
        self.lr = lr
        self.start = start
        self._check_arguments()
        self.weights = positive_weights("initial_weights", initial_weights, num_tasks)
        if reference is not None:
            self.weights = self.weights / self.weights[reference].clone()
        self.batches = 0
        self.updates = 0
        self.initial_losses: Tensor | None = None
        self._warmup_losses: list[Tensor] = []
        self._warmup_norms: list[Tensor] = []

    def _check_arguments(self) -> None:
        for name, number, lowest in (
            ("num_tasks", self.num_tasks, 2),
            ("interval", self.interval, 1),
            ("warmup", self.warmup, 0),
        ):
            if number != int(number) or number < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, found {number}")
        for name, value in (("alpha", self.alpha), ("lr", self.lr)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, found {value}")
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, found {self.start!r}")
        if self.start == "measured" and not self.warmup:
            raise ValueError("start is 'measured', which needs a warmup of at least 1 batch, found 0")
        if self.weight_sum is not None and not (math.isfinite(self.weight_sum) and self.weight_sum > 0):
            raise ValueError(f"weight_sum must be positive, found {self.weight_sum}")
        if len(self.weight_ranges) != self.num_tasks:
            raise ValueError(f"weight_ranges has {len(self.weight_ranges)} pairs, expected {self.num_tasks}")
        if self.weight_sum is not None:
            check_ranges(self.weight_sum, self.weight_ranges)
        if self.reference is not None:
            check_ratio_ranges(self.reference, self.weight_ranges)

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Count one batch; True every `interval` batches after the `warmup` batches, whose losses give L(0).

        With `start="measured"` also for each warm-up batch.
        """
        self.batches += 1
        if self.batches <= self.warmup:
            self._warmup_losses.append(torch.stack([loss.detach().float().reshape(()) for loss in losses]))
            return self.start == "measured"
        return (self.batches - self.warmup - 1) % self.interval == 0

    def training_rates(self, losses: Tensor) -> Tensor:
        """r_i of the paper, (T,): each task's loss relative to its L(0), divided by the mean over the tasks.

        A task with non-positive L(0) gets rate 1 and is excluded from the mean; without L(0), all rates are 1.
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
        """One GradNorm step on the weights; in a warm-up with `start="measured"`, the weights that equalise the norms.

        Non-finite values (an overflow under AMP) and a task without gradient leave everything unchanged.

        Args:
            losses: (T,) unweighted losses of the batch.
            gradient_norms: (T,) norms || grad_W L_i || of the unweighted losses.

        Returns:
            (T,) float64, the new weights.

        Raises:
            ValueError: if there is not one loss and one norm per task.
        """
        losses = as_task_vector("losses", losses, self.num_tasks)
        norms = as_task_vector("gradient_norms", gradient_norms, self.num_tasks)
        measurable = torch.isfinite(losses).all() and torch.isfinite(norms).all() and (norms > 0).all()
        if not measurable:
            return self.weights
        if self.start == "measured" and self.batches <= self.warmup:
            self._warmup_norms.append(norms.log())
            self.weights = self._allowed(torch.exp(-torch.stack(self._warmup_norms).mean(0)))
            return self.weights
        if self.initial_losses is None:
            self.initial_losses = self._mean_of_warmup() if self._warmup_losses else losses.clone()
            self._warmup_losses.clear()
            self._warmup_norms.clear()
        weighted = self.weights * norms
        pull = self.training_rates(losses) ** self.alpha
        target = weighted.mean() * (pull if self.reference is None else pull / pull.mean())
        excess = weighted - target
        # Equal tasks differ by rounding; the sign must not turn that into a full step.
        excess[excess.abs() <= 1e-9 * weighted.mean()] = 0
        step = self.lr * torch.sign(excess) * weighted / weighted.mean()
        self.weights = self._allowed(self.weights * torch.exp(-step))
        self.updates += 1
        return self.weights

    def _allowed(self, weights: Tensor) -> Tensor:
        """The positive (T,) `weights`, projected onto their ranges and the fixed sum or reference weight."""
        if self.weight_sum is not None:
            return project_weights(weights, self.weight_sum, self.weight_ranges)
        return ratio_weights(weights, self.reference or 0, self.weight_ranges)  # the one or the other is kept

    def state_dict(self) -> dict[str, Any]:
        """Weights, L(0) and counters; plain tensors and numbers."""
        return {
            **super().state_dict(),
            "batches": self.batches,
            "updates": self.updates,
            "initial_losses": self.initial_losses,
            "warmup_losses": [loss.cpu() for loss in self._warmup_losses],
            "warmup_norms": list(self._warmup_norms),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        super().load_state_dict(state)
        self.batches, self.updates = state["batches"], state["updates"]
        self.initial_losses = state["initial_losses"]
        self._warmup_losses = list(state["warmup_losses"])
        self._warmup_norms = list(state.get("warmup_norms", ()))  # versions before `start` wrote none
