"""Balancers that use the directions of the tasks' gradients as well as their norms.

They replace the sum of the (weighted) gradients g_i by sum_i a_i * g_i, with factors that depend only on the gradients' inner
products. `Meeting` applies them at the output of the last shared layer, in the single backward pass. Task-specific layers keep
their gradients.

T tasks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, positive_weights


class GradientSurgery(WatchedBalancer):
    """Fixed task weights, and factors for the weighted gradients.

    Args:
        initial_weights: T positive, constant loss weights; default 1 each.
        interval: batches between two measurements of the gradients; 0 for none.
        num_tasks: T.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    needs_shared_layer = True

    def __init__(self, initial_weights: Sequence[float] | None = None, interval: int = 0, num_tasks: int = 2) -> None:
        super().__init__(positive_weights("initial_weights", initial_weights, num_tasks), interval)

    @abstractmethod
    def factors(self, gram: Tensor) -> Tensor:
        """(T,) factors of the gradients in their sum; 1 each if nothing changes.

        Args:
            gram: (T, T) inner products of the gradients, float32 or wider, on any device; computed without synchronising.
        """


class PCGrad(GradientSurgery):
    """Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020 (arXiv:2001.06782).

    Each gradient is projected, in turn, onto the normal plane of every gradient it conflicts with (negative inner product). For
    two tasks: g_1 - (g_1.g_2 / |g_2|^2) g_2 and g_2 - (g_1.g_2 / |g_1|^2) g_1.

    Deviation from the paper, for more than two tasks: the others are visited in task order rather than at random, so that all
    processes and a resumed run agree.
    """

    name = "pcgrad"
    label = "PCGrad"
    note = "conflicting gradients are projected apart (Yu 2020)"

    def factors(self, gram: Tensor) -> Tensor:
        """The coefficient of each g_i, summed over the projected gradients."""
        parts = list(torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        for task in range(len(gram)):
            for other in range(len(gram)):
                if other == task:
                    continue
                conflict = (parts[task] @ gram[:, other]).clamp(max=0)
                lost = torch.where(conflict < 0, conflict / gram[other, other], torch.zeros_like(conflict))
                parts[task] = parts[task] - lost * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)[other]
        return torch.stack(parts).sum(0)


class CAGrad(GradientSurgery):
    """Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021 (arXiv:2110.14048).

    Of all d within c * |g_0| of the mean gradient g_0, the one that maximises the smallest inner product with any g_i:

        d = g_0 + c * |g_0| / |g_w| * g_w,    g_w = sum_i w_i * g_i,
        w = argmin over w_i >= 0 that sum to 1 of  g_w.g_0 + c * |g_0| * |g_w|

    For two tasks this is a convex function of one variable whose minimum has a closed form; the published code searches for it.
    For more, the closed form is applied along the line from w to each task in turn (Frank-Wolfe with exact line search).
    The result is T * d, which equals the sum of the g_i for c = 0, so the learning rate keeps its meaning. The published code
    can also divide by 1 + c^2; this does not.

    Args:
        c: search radius as a share of the mean gradient's norm; 0 leaves the sum unchanged.
    """

    name = "cagrad"
    label = "CAGrad"
    note = "the step that is best for the worst task (Liu 2021)"

    def __init__(
        self, initial_weights: Sequence[float] | None = None, c: float = 0.4, interval: int = 0, num_tasks: int = 2
    ) -> None:
        super().__init__(initial_weights, interval, num_tasks)
        if not (math.isfinite(c) and c >= 0):
            raise ValueError(f"c must be finite and not negative, found {c}")
        self.c = c

    def factors(self, gram: Tensor) -> Tensor:
        """1 + T * c * |g_0| / |g_w| * w."""
        tasks = len(gram)
        of_mean = gram.mean(1)
        radius = self.c * ((gram.diagonal().sum() + 2 * gram.triu(1).sum()) / tasks**2).clamp(min=0).sqrt()
        units = torch.eye(tasks, dtype=gram.dtype, device=gram.device)
        shares, square = units[-1], gram[-1, -1]
        for step in range(1 if tasks == 2 else _STEPS * tasks):
            task = step % tasks
            inner = gram[task] @ shares
            slope = (gram[0, 0] - gram[1, 1]) / 2 if tasks == 2 else of_mean[task] - of_mean @ shares
            share = self._share(gram[task, task], square, inner, radius, slope)
            square = share**2 * gram[task, task] + (1 - share) ** 2 * square + 2 * share * (1 - share) * inner
            shares = share * units[task] + (1 - share) * shares
        changed = 1 + tasks * radius / square.clamp(min=0).sqrt() * shares
        # If a gradient is zero, or they cancel, there is no direction to choose.
        return torch.where(torch.isfinite(changed) & (gram.diagonal() > 0).all(), changed, torch.ones_like(changed))

    @staticmethod
    def _share(first: Tensor, second: Tensor, inner: Tensor, radius: Tensor, slope: Tensor) -> Tensor:
        """The best x in x * a + (1 - x) * b, given |a|^2, |b|^2 and a.b.

        With D = a - b and slope = D.g_0 the function is slope * x + radius * |b + x * D| and a constant. Its derivative is zero
        where (x - x_0) / sqrt((x - x_0)^2 + h^2) = -slope / (radius * |D|), with x_0 the point of the line through a and b that
        is nearest to 0, and h its distance over |D|. If the right side is beyond -1..1, an end is best.
        """
        tiny = torch.finfo(first.dtype).tiny
        square = (first + second - 2 * inner).clamp(min=tiny)
        nearest = (second - inner) / square
        height = ((first * second - inner**2).clamp(min=0)).sqrt() / square
        sine = -slope / (radius * square.sqrt()).clamp(min=tiny)
        offset = sine * height / (1 - sine**2).clamp(min=tiny).sqrt()
        inside = (nearest + offset).clamp(0, 1)
        end = (sine > 0).to(sine.dtype)
        return torch.where(sine.abs() < 1, inside, end)


_STEPS = 12
"""CAGrad's line searches per task: enough to come within a hundredth of the minimum."""
