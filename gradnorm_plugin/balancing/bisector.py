"""The bisector of the two gradients: the one direction that improves both tasks at the same rate for their gradients' sizes.

With u_i = g_i / |g_i| the direction u_1 + u_2 has the same inner product with both. For two tasks three methods take it, and
differ in its length only:

    IMTL-G     g_1 * c / |g_1| + g_2 * c / |g_2|, with c such that the two factors sum to 1
               (Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, "Towards Impartial Multi-task Learning", ICLR 2021)
    Nash-MTL   (u_1 + u_2) / sqrt(1 + cos)
               (Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, arXiv:2202.01017)
    ConFIG     the unit vector along u_1 + u_2, times the sum of the gradients' parts along it
               (Liu, Chu, Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
               arXiv:2408.11104)

The length here is none of these:

    d = |g_1| * (u_1 + u_2) = g_1 + (|g_1| / |g_2|) * g_2

With more tasks the three methods part, and every further gradient is brought to the first one's length just so.

The first task's gradient goes in as it is, so its step is the one that it takes alone, and the learning rate means what it means
there; the second's is brought to the same length. It is GradNorm with alpha = 0 met exactly in every batch, with the first task's
weight at 1. A length that follows the larger gradient (the plain sum's, or ConFIG's) would hand the size of the second loss on as
a learning rate of the first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradnorm_plugin.balancing.directions import GradientSurgery


class Bisector(GradientSurgery):
    """The first task's gradient, and every other at the same length."""

    name = "bisector"
    label = "Bisector"
    note = "all gradients at detection's length (IMTL-G, Nash-MTL, ConFIG)"

    def factors(self, gram: Tensor) -> Tensor:
        """|g_1| / |g_i|; 1 each without one of the gradients."""
        squares = gram.diagonal()
        factors = (squares[0] / squares).sqrt()
        return torch.where((squares > 0).all() & torch.isfinite(factors).all(), factors, torch.ones_like(factors))
