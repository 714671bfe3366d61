"""The head of an image output: from the shared feature map to logits for the whole image; and several of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.pooled_linear import average_and_maximum, projection


class Head(nn.Module):
    """From features, and whatever else it looks at, to the logits of the whole image."""

    def class_layers(self) -> list[nn.Linear]:
        """The layers whose rows are the logits."""
        raise NotImplementedError


class ClassificationHead(Head):
    """Feature map to logits: a 1 x 1 convolution, average and maximum pooling side by side, dropout, a linear layer.

    * Average pooling alone drowns a small object in the rest of the image: a cell of 2 x 2 positions on a 10 x 10 map makes
      4 % of the mean. The maximum of each channel keeps it.
    * The pooled features are divided by the root of their number. The gradient of a linear layer grows with its input's length;
      under YOLOv5's SGD, which sums the gradients of 64 images and uses one learning rate for all layers, hundreds of features
      of size 1 put the last layer above its stable step: its loss rises above that of guessing first.

    Shapes: (B, in_channels, H, W) to (B, num_classes), any H and W.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        self.project = projection(in_channels, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * hidden, num_classes)
        # The scale that the division takes away; the logits start as those of an ordinary linear layer would.
        nn.init.normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def class_layers(self) -> list[nn.Linear]:
        """The layers whose rows are the classes of the image."""
        return [self.linear]

    def forward(self, features: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        pooled = average_and_maximum(self.project(features))
        return self.linear(self.dropout(pooled) / self.linear.in_features**0.5)


class OutputHeads(Head):
    """A head for each image output, by its name; their logits stand side by side, (B, W)."""

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def by_name(self) -> dict[str, Head]:
        """The head of each image output."""
        return cast("dict[str, Head]", dict(self.heads.items()))

    def class_layers(self) -> list[nn.Linear]:
        """The layers whose rows are the logits, head by head."""
        return [layer for head in self.by_name().values() for layer in head.class_layers()]

    def forward(self, features: Tensor | Sequence[Tensor], *rest: Tensor) -> Tensor:
        """Logits of the features, the same for all heads or one for each; `rest` goes to all."""
        each = [features] * len(self.heads) if isinstance(features, Tensor) else features
        return torch.cat([head(part, *rest) for head, part in zip(self.heads.values(), each, strict=True)], 1)
