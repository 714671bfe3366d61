"""Balancers that look at the direction of the two tasks' gradients as well as at their size.

They replace the sum g_1 + g_2 of the (weighted) tasks' gradients by a_1 * g_1 + a_2 * g_2, where both factors follow from the
gradients' inner products alone. Where that happens is the business of `Meeting`: at the output of the last layer that both tasks
share, in the one backward pass there is. The layers that serve one task alone keep their gradients.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnorm_plugin.balancing.balancer import WatchedBalancer, positive_weights


class GradientSurgery(WatchedBalancer):
    """Fixed task weights, and factors for the two weighted gradients.

    Args:
        initial_weights: 2 positive weights of the losses; default 1 each. They stay.
        interval: batches between two measurements of the gradients; 0 for none.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    needs_shared_layer = True

    def __init__(self, initial_weights: Sequence[float] | None = None, interval: int = 0) -> None:
        super().__init__(positive_weights("initial_weights", initial_weights, 2), interval)

    @abstractmethod
    def factors(self, gram: Tensor) -> Tensor:
        """(2,) factors of the two gradients in their sum, 1 and 1 where there is nothing to change.

        Args:
            gram: (2, 2) inner products of the two gradients, float32 or wider, on any device; nothing waits for it.
        """


class PCGrad(GradientSurgery):
    """Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020 (arXiv:2001.06782).

    Where the gradients conflict (negative inner product), each loses its part along the other:
    g_1 - (g_1.g_2 / |g_2|^2) g_2 and g_2 - (g_1.g_2 / |g_1|^2) g_1. With two tasks the paper's random order changes nothing.
    """

    name = "pcgrad"
    label = "PCGrad"
    note = "conflicting gradients are projected apart (Yu 2020)"

    def factors(self, gram: Tensor) -> Tensor:
        """1 - g_1.g_2 / |g_i|^2 for both where g_1.g_2 < 0, else 1."""
        squares = gram.diagonal()
        conflict = gram[0, 1].clamp(max=0)
        return torch.where(conflict < 0, 1 - conflict / squares, torch.ones_like(squares))


class CAGrad(GradientSurgery):
    """Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021 (arXiv:2110.14048).

    Of all d within c * |g_0| of the mean gradient g_0, the one whose smallest inner product with g_1 and g_2 is largest:

        d = g_0 + c * |g_0| / |g_w| * g_w,    g_w = x * g_1 + (1 - x) * g_2,
        x = argmin over 0 <= x <= 1 of  g_w.g_0 + c * |g_0| * |g_w|

    For two tasks that is a convex function of one number, and its minimum has a closed form; the published code searches for it.
    What is handed on is 2 * d, which is g_1 + g_2 for c = 0, so that the learning rate means what it means without it. The
    published code also offers to divide by 1 + c^2; this does not.

    Args:
        c: radius of the search as a share of the mean gradient's length; 0 leaves the sum as it is.
    """

    name = "cagrad"
    label = "CAGrad"
    note = "the step that is best for the worse task (Liu 2021)"
    settings = {"c": "how far from the mean gradient, as a share of it"}

    def __init__(self, initial_weights: Sequence[float] | None = None, c: float = 0.4, interval: int = 0) -> None:
        super().__init__(initial_weights, interval)
        if not (math.isfinite(c) and c >= 0):
            raise ValueError(f"c must be finite and not negative, found {c}")
        self.c = c

    def factors(self, gram: Tensor) -> Tensor:
        """1 + 2 * c * |g_0| / |g_w| * (x, 1 - x)."""
        first, second, inner = gram[0, 0], gram[1, 1], gram[0, 1]
        radius = self.c * ((first + second + 2 * inner) / 4).clamp(min=0).sqrt()
        share = self._share(first, second, inner, radius)
        length = (share**2 * first + (1 - share) ** 2 * second + 2 * share * (1 - share) * inner).clamp(min=0).sqrt()
        shares = torch.stack([share, 1 - share])
        changed = 1 + 2 * radius / length * shares
        # Without one of the gradients, or where they cancel, there is no direction to choose.
        return torch.where(torch.isfinite(changed) & (gram.diagonal() > 0).all(), changed, torch.ones_like(changed))

    @staticmethod
    def _share(first: Tensor, second: Tensor, inner: Tensor, radius: Tensor) -> Tensor:
        """x. With D = g_1 - g_2 the function is slope * x + radius * |g_2 + x * D| and a constant.

        Its derivative is zero where (x - x_0) / sqrt((x - x_0)^2 + h^2) = -slope / (radius * |D|), with x_0 the point of the line
        through g_1 and g_2 that is nearest to 0, and h its distance over |D|. If the right side is beyond -1..1, an end is best.
        """
        tiny = torch.finfo(first.dtype).tiny
        square = (first + second - 2 * inner).clamp(min=tiny)
        slope = (first - second) / 2
        nearest = (second - inner) / square
        height = ((first * second - inner**2).clamp(min=0)).sqrt() / square
        sine = -slope / (radius * square.sqrt()).clamp(min=tiny)
        offset = sine * height / (1 - sine**2).clamp(min=tiny).sqrt()
        inside = (nearest + offset).clamp(0, 1)
        end = (sine > 0).to(sine.dtype)
        return torch.where(sine.abs() < 1, inside, end)
