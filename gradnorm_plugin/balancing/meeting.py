"""Where the gradients of the tasks meet: the output of the last layer they share, in the one backward pass that runs anyway.

The layer's output goes T ways, to the layers of each task. Autograd would add what comes back; here all arrive apart, and their
sum is taken with factors (`GradientSurgery`). Nothing is computed twice.

In YOLOv5 the detector's neck also reads earlier layers of the backbone; what it sends back there goes past this place.

T tasks. A gradient here is one vector over the whole batch: (B, C, H, W), B images, each with rows of its own. With several
processes each has the rows of its own images, and applies the factors that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradnorm_plugin.balancing.probe import TaskGradients, pairs, symmetric
from gradnorm_plugin.balancing.ranks import sum_over_ranks

Combine = Callable[..., Tensor]


class _Fork(torch.autograd.Function):
    """The same tensor T times; backward hands all gradients to `combine`."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, combine: Combine, num_tasks: int) -> tuple[Tensor, ...]:
        ctx.combine = combine
        return tuple(shared.view_as(shared) for _ in range(num_tasks))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.combine(*gradients), None, None


class Meeting:
    """Lets `factors` decide how much of each task's gradient goes into the shared layers; measures what it sees on request.

    Args:
        factors: (T, T) inner products of the gradients to their (T,) factors.
        num_tasks: T.
    """

    def __init__(self, factors: Callable[[Tensor], Tensor], num_tasks: int = 2) -> None:
        self.factors, self.num_tasks = factors, num_tasks
        self._losses: tuple[Tensor, ...] | None = None
        self._weights: Sequence[float] = (1.0,) * num_tasks
        self._factor_seen: Tensor | None = None
        self._gram: Tensor | None = None
        self._handle: RemovableHandle | None = None

    def fork(self, shared: Tensor) -> tuple[Tensor, ...]:
        """The output of the last shared layer for the layers of each task."""
        return _Fork.apply(shared, self._combine, self.num_tasks)

    def _combine(self, *gradients: Tensor) -> Tensor:
        rows = torch.stack([gradient.flatten() for gradient in gradients]).float()
        gram = rows @ rows.T
        if self._handle is not None:
            self._gram = gram.double()
        factors = self.factors(gram)
        combined = factors[0] * gradients[0]
        for factor, gradient in zip(factors[1:], gradients[1:], strict=True):
            combined = combined + factor * gradient
        return combined.to(gradients[0].dtype)

    def arm(
        self,
        losses: Sequence[Tensor],
        weights: Sequence[float],
        handed_out: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Watch the next backward pass of the sum of `weights[i] * losses[i]`; as `GradientProbe.arm`.

        `handed_out` is not needed here: no gradient is taken ahead of the trainer's backward pass.
        """
        self.disarm()
        self._losses, self._weights = tuple(loss.detach() for loss in losses), weights

        def read_factor(gradient: Tensor) -> None:
            self._factor_seen = gradient.detach() / weights[0]

        self._handle = losses[0].register_hook(read_factor)

    def take(self) -> TaskGradients | None:
        """Norms and cosines at the layer's output since `arm`, for the unweighted losses, once; None if there was no such pass.

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
        first, second = pairs(self.num_tasks)
        cosines = gram[first, second] / (weighted[first] * weighted[second])
        norms = (weighted / (gram.new_tensor(self._weights) * self._factor_seen.double())).float()
        return TaskGradients(tuple(losses.unbind()), tuple(norms.unbind()), symmetric(cosines.float(), self.num_tasks))

    def disarm(self) -> None:
        """Remove the hook of a measurement that is over or was never finished."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
