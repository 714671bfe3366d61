"""The gradients of two losses at the last shared weights, read from the one backward pass that runs anyway.

The usual ways cost a pass each: `autograd.grad` for every task, or `create_graph` and a second backward. Here only the second
task's gradient is computed, which runs through its small head alone; the total arrives at the shared weights in the trainer's
backward pass, and the first task's gradient is the difference.

Whatever factor the trainer puts on the loss (the AMP scale, the world size) reaches the first loss as its own gradient, and is
read there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle


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
        self._found: TaskGradients | None = None

    def arm(self, first: Tensor, second: Tensor, weights: tuple[float, float]) -> None:
        """Watch the next backward pass of `weights[0] * first + weights[1] * second`.

        Args:
            first: scalar loss; its weight must not be 0.
            second: scalar loss whose path to the shared weights is short; it is differentiated here.
            weights: the factors of the two losses in the total that the trainer will differentiate.
        """
        self.disarm()
        # Under AMP gradients are in half precision: scaled as in the last backward pass they neither underflow nor overflow
        # where the trainer's own do not.
        scale = self._factor * (weights[1] or 1.0)
        (of_second,) = torch.autograd.grad(
            second, self.shared, torch.full_like(second, scale), retain_graph=True, allow_unused=True
        )
        if of_second is None:
            return
        of_second = of_second.float() / scale
        factor_seen: list[Tensor] = []

        def read_factor(gradient: Tensor) -> None:
            factor_seen.append(gradient.detach() / weights[0])

        def read_total(gradient: Tensor) -> None:
            total = gradient.detach().float() / factor_seen[0]
            of_first = (total - weights[1] * of_second) / weights[0]
            norms = of_first.norm(), of_second.norm()
            cosine = (of_first * of_second).sum() / (norms[0] * norms[1])
            self._found = TaskGradients((first.detach(), second.detach()), norms, cosine)
            self._factor_tensor = factor_seen[0]

        self._handles = [first.register_hook(read_factor), self.shared.register_hook(read_total)]

    def take(self) -> TaskGradients | None:
        """What the backward pass since `arm` showed, once; None if nothing was armed or no backward pass came."""
        found, self._found = self._found, None
        self.disarm()
        if found is not None:
            factor = float(self._factor_tensor)
            self._factor = factor if 0 < factor < float("inf") else self._factor
        return found

    def disarm(self) -> None:
        """Remove the hooks of a measurement that is over or was never finished."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
