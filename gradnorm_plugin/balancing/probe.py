"""The gradients of two losses at the last shared weights, read from the one backward pass that runs anyway.

The usual ways cost a pass each: `autograd.grad` for every task, or `create_graph` and a second backward. Here only the second
task's gradient is computed, which runs through its small head alone; the total arrives at the shared weights in the trainer's
backward pass, and the first task's gradient is the difference.

Whatever factor the trainer puts on the loss (the AMP scale, the world size) reaches the first loss as its own gradient, and is
read there.

With several processes each sees the gradients of its own batch before they are averaged. `take` adds them up, after the backward
pass: the norms and the cosine are those of the whole batch, the same on every rank to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradnorm_plugin.balancing.ranks import of_first_rank, sum_over_ranks


@dataclass(frozen=True)
class TaskGradients:
    """What one batch showed at the shared weights, for the unweighted losses; 0-dim tensors on the losses' device."""

    losses: tuple[Tensor, Tensor]
    norms: tuple[Tensor, Tensor]
    cosine: Tensor
    """Of the angle between the two gradients: below 0 the tasks pull in opposite directions."""


class GradientProbe:
    """Measures one batch at a time: `arm` before the backward pass, `take` after it."""

    def __init__(self, shared: Tensor) -> None:
        """Args: shared, the weights at which the tasks' gradients meet; a leaf that requires a gradient."""
        self.shared = shared
        self._factor = 1024.0  # until a backward pass has shown the trainer's; a power of two changes no digit
        self._handles: list[RemovableHandle] = []
        self._losses: tuple[Tensor, Tensor] | None = None
        self._factor_seen: Tensor | None = None
        self._found: Tensor | None = None

    def arm(
        self,
        first: Tensor,
        second: Tensor,
        weights: tuple[float, float],
        handed_out: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Watch the next backward pass of `weights[0] * first + weights[1] * second`. With several processes, all arm together.

        Args:
            first: scalar loss; its weight must not be 0.
            second: scalar loss whose path to the shared weights is short; it is differentiated here.
            weights: the factors of the two losses in the total that the trainer will differentiate.
            handed_out: a tensor on the second loss's path as a wrapper of the network handed it out, and as it was inside. The
                gradient goes from one to the other past the wrapper: in DistributedDataParallel's first pass a node stands
                there that takes any gradient for the trainer's, and would stop all averaging from then on.
        """
        self.disarm()
        # Under AMP gradients are in half precision: scaled as in the last backward pass they neither underflow nor overflow
        # where the trainer's own do not.
        scale = self._factor * (weights[1] or 1.0)
        loss, gradient = second, torch.full_like(second, scale)
        if handed_out is not None and handed_out[0] is not handed_out[1]:
            outside, inside = handed_out
            (gradient,) = torch.autograd.grad(loss, outside, gradient, retain_graph=True)
            loss = inside
        (of_second,) = torch.autograd.grad(loss, self.shared, gradient, retain_graph=True, allow_unused=True)
        if of_second is None:
            return
        of_second = of_second.float() / scale
        self._losses = first.detach(), second.detach()

        def read_factor(gradient: Tensor) -> None:
            self._factor_seen = gradient.detach() / weights[0]

        def read_total(gradient: Tensor) -> None:
            if self._factor_seen is not None:  # it comes first: the loss is above all weights
                total = gradient.detach().float() / self._factor_seen
                self._found = torch.stack([(total - weights[1] * of_second) / weights[0], of_second])

        self._handles = [first.register_hook(read_factor), self.shared.register_hook(read_total)]

    def take(self) -> TaskGradients | None:
        """What the backward pass since `arm` showed, once; None if nothing was armed or no backward pass came.

        With several processes a collective: all take together.
        """
        found, self._found = self._found, None
        self.disarm()
        if found is None or self._factor_seen is None or self._losses is None:
            return None
        factor = float(self._factor_seen)
        self._factor = factor if 0 < factor < float("inf") else self._factor
        losses = sum_over_ranks(torch.stack([loss.float().reshape(()) for loss in self._losses]))
        of_first, of_second = sum_over_ranks(found)
        norms = of_first.norm(), of_second.norm()
        cosine = (of_first * of_second).sum() / (norms[0] * norms[1])
        first_loss, second_loss, first_norm, second_norm, cosine = of_first_rank(torch.stack([*losses, *norms, cosine])).unbind()
        return TaskGradients(losses=(first_loss, second_loss), norms=(first_norm, second_norm), cosine=cosine)

    def disarm(self) -> None:
        """Remove the hooks of a measurement that is over or was never finished."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
