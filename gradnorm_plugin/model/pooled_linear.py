"""From a feature map to logits: projection, pooling, and what a linear layer needs to learn from means within a few epochs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def projection(in_channels: int, hidden: int) -> nn.Sequential:
    """A 1 x 1 convolution with normalisation and activation: (B, in_channels, H, W) to (B, hidden, H, W)."""
    return nn.Sequential(nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.SiLU())


def average_and_maximum(x: Tensor) -> Tensor:
    """Both over the whole map, side by side: (B, C, H, W) to (B, 2 C)."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


class PooledNorm(nn.Module):
    """Batch normalisation of (..., features), over all rows of a batch.

    A mean over many cells hardly differs from image to image, and a maximum is far from 0: as they are, a linear layer sees
    little but a constant. A single row in training is normalised by the running statistics, since it has none of its own.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, each feature with mean 0 and variance 1 before scale and shift."""
        rows, norm = x.flatten(0, -2), self.norm
        if self.training and len(rows) == 1:
            return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps).reshape(x.shape)
        return norm(rows).reshape(x.shape)  # not view_as, which CoreML does not know


class PooledLinear(nn.Module):
    """Normalisation, dropout and a linear layer on pooled features; (B, features) to (B, num_classes).

    * The features are divided by the root of their number. The gradient of a linear layer grows with its input's length; under
      YOLOv5's SGD, which sums the gradients of many images and uses one learning rate for all layers, hundreds of features of
      size 1 put the last layer above its stable step: its loss rises above that of guessing first.
    * The weights start small, so that the first loss is that of guessing, and the first gradients are the head's alone.
    """

    def __init__(self, features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = PooledNorm(features)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, num_classes)
        nn.init.normal_(self.linear.weight, std=0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        return self.linear(self.dropout(self.norm(pooled)) / self.linear.in_features**0.5)
