"""The tasks' gradients, obtained from the backward pass that runs anyway.

`GradientProbe` measures them at the last shared weights; `Meeting` rescales them where they meet. Any factor the trainer applies
to the loss (AMP scale, world size) arrives at the first loss as its gradient and is read there.

T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradnorm_plugin.balancing.balancer import of_first_rank, sum_over_ranks

Combine = Callable[..., Tensor]


@dataclass(frozen=True)
class TaskGradients:
    """The measurement of one batch at the shared weights, for the unweighted losses; on the losses' device."""

    losses: tuple[Tensor, ...]
    norms: tuple[Tensor, ...]
    """T 0-dim tensors each."""
    cosines: Tensor
    """(T, T) cosines between the gradients; negative where two tasks conflict."""

    @property
    def cosine(self) -> Tensor:
        """The lowest over all pairs of tasks; NaN if none is defined, as a zero gradient has no direction."""
        first, second = pairs(len(self.cosines))
        each = self.cosines[first, second]
        known = each[~each.isnan()]
        return known.min() if len(known) else each[0]


def pairs(num_tasks: int) -> tuple[list[int], list[int]]:
    """All pairs of tasks, lower index first: (0, 1), (0, 2), ... (1, 2), ..."""
    found = [(first, second) for first in range(num_tasks) for second in range(first + 1, num_tasks)]
    return [first for first, _ in found], [second for _, second in found]


def symmetric(values: Tensor, num_tasks: int) -> Tensor:
    """(T, T) with 1 on the diagonal and a value for every two tasks, in the order of `pairs`."""
    first, second = pairs(num_tasks)
    matrix = torch.eye(num_tasks, dtype=values.dtype, device=values.device)
    matrix[first, second] = matrix[second, first] = values
    return matrix


class GradientProbe:
    """Measures gradients at the last shared weights, one batch at a time: `arm` before the backward pass, `take` after it.

    The usual approaches cost an extra pass: `autograd.grad` per task, or `create_graph` and a second backward. Here the gradients
    of all but the first task only run through their small heads, the total arrives at the shared weights in the trainer's own
    backward pass, and the first task's gradient is the difference.

    With several processes each sees the gradients of its own batch before averaging. `take` sums them after the backward pass,
    so norms and cosines are those of the whole batch, bit-identical on every rank.
    """

    def __init__(self, shared: Tensor) -> None:
        """Args: shared, the weights at which the tasks' gradients meet; a leaf that requires a gradient."""
        self.shared = shared
        self._factor = 1024.0  # until a backward pass has shown the trainer's; a power of two changes no digit
        self._handles: list[RemovableHandle] = []
        self._losses: tuple[Tensor, ...] | None = None
        self._factor_seen: Tensor | None = None
        self._found: Tensor | None = None

    def arm(
        self,
        losses: Sequence[Tensor],
        weights: Sequence[float],
        handed_out: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Measure in the next backward pass of the sum of `weights[i] * losses[i]`. With several processes, all arm together.

        Args:
            losses: T scalars. All but the first have a short path to the shared weights and are differentiated here.
            weights: the factors of the losses in the total that the trainer will differentiate; the first must not be 0.
            handed_out: a tensor on the path of all losses but the first, as returned by a wrapper of the network and as it was
                inside. The gradient bypasses the wrapper: in DistributedDataParallel's first pass a node there would mistake it
                for the trainer's and stop all averaging from then on.
        """
        self.disarm()
        of_others: list[Tensor] = []
        for loss, weight in zip(losses[1:], weights[1:], strict=True):
            # Under AMP gradients are in half precision: with the scale of the last backward pass they underflow or overflow no
            # sooner than the trainer's own.
            scale = self._factor * (weight or 1.0)
            gradient = torch.full_like(loss, scale)
            if handed_out is not None and handed_out[0] is not handed_out[1]:
                outside, inside = handed_out
                (gradient,) = torch.autograd.grad(loss, outside, gradient, retain_graph=True)
                loss = inside
            (found,) = torch.autograd.grad(loss, self.shared, gradient, retain_graph=True, allow_unused=True)
            if found is None:
                return
            of_others.append(found.float() / scale)
        self._losses = tuple(loss.detach() for loss in losses)

        def read_factor(gradient: Tensor) -> None:
            self._factor_seen = gradient.detach() / weights[0]

        def read_total(gradient: Tensor) -> None:
            if self._factor_seen is not None:  # set first: backward reaches the loss before any weight
                of_first = gradient.detach().float() / self._factor_seen
                for weight, of_other in zip(weights[1:], of_others, strict=True):
                    of_first = of_first - weight * of_other
                self._found = torch.stack([of_first / weights[0], *of_others])

        self._handles = [losses[0].register_hook(read_factor), self.shared.register_hook(read_total)]

    def take(self) -> TaskGradients | None:
        """The measurement since `arm`, once; None if nothing was armed or no backward pass ran.

        With several processes this is a collective.
        """
        found, self._found = self._found, None
        self.disarm()
        if found is None or self._factor_seen is None or self._losses is None:
            return None
        factor = float(self._factor_seen)
        self._factor = factor if 0 < factor < float("inf") else self._factor
        losses = sum_over_ranks(torch.stack([loss.float().reshape(()) for loss in self._losses]))
        gradients = sum_over_ranks(found).unbind()
        norms = [gradient.norm() for gradient in gradients]
        cosines = [
            (gradients[first] * gradients[second]).sum() / (norms[first] * norms[second])
            for first, second in zip(*pairs(len(norms)), strict=True)
        ]
        agreed = of_first_rank(torch.stack([*losses, *norms, *cosines])).split([len(norms), len(norms), len(cosines)])
        return TaskGradients(tuple(agreed[0].unbind()), tuple(agreed[1].unbind()), symmetric(agreed[2], len(norms)))

    def disarm(self) -> None:
        """Remove the hooks of a finished or abandoned measurement."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Fork(torch.autograd.Function):
    """The same tensor T times; backward passes all gradients to `combine`."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, combine: Combine, num_tasks: int) -> tuple[Tensor, ...]:
        ctx.combine = combine
        return tuple(shared.view_as(shared) for _ in range(num_tasks))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.combine(*gradients), None, None


class Meeting:
    """Scales each task's gradient into the shared layers by `factors`, and measures the gradients on request.

    The output of the last shared layer is forked T ways, one per task. Autograd would add up the gradients; here they arrive
    separately and are summed with factors (`GradientSurgery`), without computing anything twice. YOLOv5's neck also reads
    earlier backbone layers; detection gradients along those paths bypass this point.

    A gradient here is one vector over the whole batch, (B, C, H, W). With several processes, each has the gradients of its own
    images and applies the factors that follow from them.

    Args:
        factors: maps the (T, T) inner products of the gradients to their (T,) factors.
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
        """The output of the last shared layer, once per task."""
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
        """As `GradientProbe.arm`; `handed_out` is unused, as no gradient is taken before the trainer's backward pass."""
        self.disarm()
        self._losses, self._weights = tuple(loss.detach() for loss in losses), weights

        def read_factor(gradient: Tensor) -> None:
            self._factor_seen = gradient.detach() / weights[0]

        self._handle = losses[0].register_hook(read_factor)

    def take(self) -> TaskGradients | None:
        """Norms and cosines at the layer's output since `arm`, for the unweighted losses, once; None without a backward pass.

        With several processes a collective if there is a measurement: their images are different parts of one gradient, so the
        inner products add up.
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
        """Remove the hook of a finished or abandoned measurement."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
