"""Where the gradients of two tasks meet: the output of the last layer they share, in the one backward pass that runs anyway.

The layer's output goes two ways, to the first task's layers and to the second's. Autograd would add what comes back; here both
arrive apart, and their sum is taken with factors (`GradientSurgery`). Nothing is computed twice.

In YOLOv5 the detector's neck also reads earlier layers of the backbone; what it sends back there goes past this place.

A gradient here is one vector over the whole batch: (B, C, H, W), B images, each with rows of its own. With several processes
each has the rows of its own images, and applies the factors that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradnorm_plugin.balancing.probe import TaskGradients
from gradnorm_plugin.balancing.ranks import sum_over_ranks

Combine = Callable[[Tensor, Tensor], Tensor]


class _Fork(torch.autograd.Function):
    """The same tensor twice; backward hands both gradients to `combine`."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, combine: Combine) -> tuple[Tensor, Tensor]:
        ctx.combine = combine
        return shared.view_as(shared), shared.view_as(shared)

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
        return ctx.combine(first, second), None


class Meeting:
    """Lets `factors` decide how much of each task's gradient goes into the shared layers; measures what it sees on request.

    Args:
        factors: (2, 2) inner products of the two gradients to their (2,) factors.
    """

    def __init__(self, factors: Callable[[Tensor], Tensor]) -> None:
        self.factors = factors
        self._losses: tuple[Tensor, Tensor] | None = None
        self._weights = (1.0, 1.0)
        self._factor_seen: Tensor | None = None
        self._gram: Tensor | None = None
        self._handle: RemovableHandle | None = None

    def fork(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the last shared layer for the first task's layers, and for the second's."""
        return _Fork.apply(shared, self._combine)

    def _combine(self, first: Tensor, second: Tensor) -> Tensor:
        pair = torch.stack([first.flatten(), second.flatten()]).float()
        gram = pair @ pair.T
        if self._handle is not None:
            self._gram = gram.double()
        factors = self.factors(gram)
        return (factors[0] * first + factors[1] * second).to(first.dtype)

    def arm(
        self,
        first: Tensor,
        second: Tensor,
        weights: tuple[float, float],
        handed_out: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Watch the next backward pass of `weights[0] * first + weights[1] * second`; as `GradientProbe.arm`.

        `handed_out` is not needed here: no gradient is taken ahead of the trainer's backward pass.
        """
        self.disarm()
        self._losses, self._weights = (first.detach(), second.detach()), weights

        def read_factor(gradient: Tensor) -> None:
            self._factor_seen = gradient.detach() / weights[0]

        self._handle = first.register_hook(read_factor)

    def take(self) -> TaskGradients | None:
        """Norms and cosine at the layer's output since `arm`, for the unweighted losses, once; None if there was no such pass.

        With several processes a collective where there is a measurement: their images are different rows of one gradient, so
        the inner products add up.
        """
        gram, self._gram = self._gram, None
        armed = self._handle is not None
        self.disarm()
        if gram is None or not armed or self._losses is None or self._factor_seen is None:
            return None
        gram = sum_over_ranks(gram)
        losses = sum_over_ranks(torch.stack([loss.float().reshape(()) for loss in self._losses]))
        weighted = gram.diagonal().sqrt()
        cosine = gram[0, 1] / (weighted[0] * weighted[1])
        norms = (weighted / (gram.new_tensor(self._weights) * self._factor_seen.double())).float()
        return TaskGradients(losses=(losses[0], losses[1]), norms=(norms[0], norms[1]), cosine=cosine.float())

    def disarm(self) -> None:
        """Remove the hook of a measurement that is over or was never finished."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
