"""The classification head on the whole image: from the shared feature map to one class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.pooled_linear import PooledLinear


class PooledHead(nn.Module):
    """Feature map to logits: a 1 x 1 convolution, average and maximum pooling side by side, `PooledLinear`.

    Average pooling alone drowns a small object in the rest of the image: a cell of 2 x 2 positions on a 10 x 10 map makes 4 % of
    the mean. The maximum of each channel keeps it.

    Shapes: (B, in_channels, H, W) to (B, num_classes), any H and W.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.SiLU())
        self.linear = PooledLinear(2 * hidden, num_classes, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.project(features)
        return self.linear(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
