"""The classification head that looks at the whole image as the pooled one does, and at what the detector has found."""

from __future__ import annotations

from torch import Tensor

from gradnorm_plugin.model.guided import GuidedHead
from gradnorm_plugin.model.pooled_linear import PooledLinear, average_and_maximum, projection


class CombinedHead(GuidedHead):
    """The guided head, with its view of the whole image taken from a deeper layer than the details inside the boxes.

    A fine layer knows the granules of a cell, a deep one what the picture shows. The logits of both are added.

    The details come without gradient, as the boxes do: they are read from what detection has learned. So the classification
    reaches the shared layers in one place, the deep layer, where a balancer sees all of it.

    Shapes: (B, in_channels, H, W), (B, detail_channels, h, w) and (B, n, 5 + nc) to (B, num_classes), any sizes.
    """

    def __init__(
        self,
        in_channels: int,
        detail_channels: int,
        num_classes: int,
        num_boxes: int,
        cell: float,
        hidden: int = 256,
        dropout: float = 0.2,
    ) -> None:
        """Args:
        in_channels: of the deep feature map.
        detail_channels: of the fine one.
        num_classes: classes of the image.
        num_boxes: nc, classes of the boxes.
        cell: side of a cell of the fine map in pixels of the image.
        hidden: features of a cell of the deep map.
        dropout: share of the pooled features that is left out in training.
        """
        super().__init__(detail_channels, num_classes, num_boxes, cell, dropout=dropout)
        # In place of the guided head's own view of the image, which is the fine layer's.
        self.project_image = projection(in_channels, hidden)
        self.linear = PooledLinear(2 * hidden, num_classes, dropout)

    def forward(self, features: Tensor, details: Tensor, predictions: Tensor) -> Tensor:
        """Logits, (B, num_classes).

        Args:
            features: (B, in_channels, H, W), deep.
            details: (B, detail_channels, h, w), fine.
            predictions: (B, n, 5 + nc) of the detector for the same images, in pixels and probabilities.
        """
        image = average_and_maximum(self.project_image(features))
        regions = self._regions(self.project(details.detach()), predictions.detach())
        return self.linear(image) + self.linear_of_regions(regions)
