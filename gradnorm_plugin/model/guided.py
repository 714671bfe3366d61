"""The classification head that looks where the detector has found something.

In many pictures a small part of the image tells its class, and the detector already knows where it is. On the features of a
detector of blood cells a linear classifier of the white cell's type was right in 83 % of the images where they were averaged over
the detected white cell, in 58 % at best where they were averaged over the whole image.

B images, nl detection layers, na anchors, no = 5 + nc outputs an anchor (x, y, w, h, objectness, nc box classes), n predictions
an image, K of them kept for each box class, R = K * nc regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.detector import Detect
from gradnorm_plugin.model.head import Head
from gradnorm_plugin.model.pooled_linear import PooledLinear, PooledNorm, average_and_maximum, projection


class Regions(NamedTuple):
    """What a guided head looks into: R boxes in each of B images, ordered as in `find_regions`; several may be of one object."""

    boxes: Tensor
    """(B, R, 4) centres and sides in pixels."""
    scores: Tensor
    """(B, R) the detector's confidence."""
    attention: Tensor
    """(B, R) how much each counts; they sum to 1."""
    inside: Tensor
    """(B, R, hidden) normalised means of the features in them."""
    kinds: int
    """Classes of boxes: region r is of class r modulo this number."""


class GuidedHead(Head):
    """Feature map and detections to logits: the whole image, and an attended mean of what is inside the most confident boxes.

    * A 1 x 1 convolution makes `hidden` features of each cell. The whole image is their average and maximum, side by side.
    * The features are averaged over each of the `top` best boxes of every box class. How much each of these regions counts is
      told by an attention (Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018) from what is
      in it and from its box class, times the detector's confidence: a box that is not there has no say.
    * Both are normalised and scaled as `PooledLinear` says.
    * With `deep_channels` the whole image is seen in the features of a deeper layer instead, as by the pooled head: what a place
      shows is told by fine cells, what the picture is by features that have seen all of it.

    Boxes and confidences come without gradient: the classification never moves them.

    Shapes: (B, in_channels, H, W) and (B, n, 5 + nc) to (B, num_classes), any H and W.
    """

    reads_deep = False
    """Whether the whole image is seen in a deeper layer's features; False in a head that was pickled before there were such."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_boxes: int,
        cell: float,
        hidden: int = 128,
        dropout: float = 0.2,
        top: int = 4,
        deep_channels: int | None = None,
    ) -> None:
        """Args:
        in_channels: of the feature map.
        num_classes: classes of the image.
        num_boxes: nc, classes of the boxes.
        cell: side of a cell of the feature map in pixels of the image.
        hidden: features of a cell.
        dropout: share of the pooled features that is left out in training.
        top: boxes of each class that are looked at.
        deep_channels: of the deeper layer; None for none.
        """
        super().__init__()
        self.cell, self.num_boxes, self.top = cell, num_boxes, top
        self.project = projection(in_channels, hidden)
        self.attention = nn.Sequential(nn.Linear(hidden + num_boxes, 32), nn.Tanh(), nn.Linear(32, 1))
        self.normalise_regions = PooledNorm(hidden)
        self.reads_deep, whole = deep_channels is not None, hidden
        if deep_channels is not None:
            whole *= 2
            self.project_deep = projection(deep_channels, whole)
        self.linear = PooledLinear(2 * whole, num_classes, dropout)
        self.linear_of_regions = PooledLinear(hidden, num_classes, dropout)

    def class_layers(self) -> list[nn.Linear]:
        """The layers whose rows are the classes of the image."""
        return [self.linear.linear, self.linear_of_regions.linear]

    def forward(self, features: Tensor, predictions: Tensor, deep: Tensor | None = None) -> Tensor:
        """Logits, (B, num_classes).

        Args:
            features: (B, in_channels, H, W).
            predictions: (B, n, 5 + nc) of the detector for the same images, in pixels and probabilities.
            deep: (B, deep_channels, h, w), for a head that reads a deeper layer.
        """
        x = self.project(features)
        whole = self.project_deep(deep) if self.reads_deep else x
        return self.linear(average_and_maximum(whole)) + self.linear_of_regions(self._regions(x, predictions.detach()))

    def attend(self, features: Tensor, predictions: Tensor) -> Regions:
        """The boxes that `forward` looks into for the same arguments, and how much each counts."""
        return self._attend(self.project(features), predictions.detach())

    def _regions(self, x: Tensor, predictions: Tensor) -> Tensor:
        """(B, hidden), the attended mean over the regions of (B, hidden, H, W) features."""
        regions = self._attend(x, predictions)
        return (regions.attention.unsqueeze(1) @ regions.inside).squeeze(1)

    def _attend(self, x: Tensor, predictions: Tensor) -> Regions:
        boxes, scores = find_regions(predictions.float(), self.top)
        weights = region_weights(boxes, x.shape[2], x.shape[3], self.cell).to(x.dtype)
        inside = self.normalise_regions(weights @ x.flatten(2).transpose(1, 2))
        kinds = torch.eye(self.num_boxes, dtype=x.dtype, device=x.device).repeat(self.top, 1)
        seen = torch.cat([inside, kinds.expand(x.shape[0], -1, -1)], 2)
        attention = self.attention(seen).squeeze(2) + scores.clamp(min=1e-6).log().to(x.dtype)
        return Regions(boxes, scores, attention.softmax(1), inside, self.num_boxes)


@torch.no_grad()
def decode(detect: Detect, outputs: Sequence[Tensor]) -> Tensor:
    """(B, n, no) predictions in pixels and probabilities, as upstream's `Detect` gives them in inference, of its raw outputs.

    No gradient flows back. YOLOv5's own formulas: centres are `2 * sigmoid - 0.5` cells from their cell, sides `(2 * sigmoid)^2`
    anchors.

    Args:
        detect: upstream's `Detect`.
        outputs: what it returns in training: nl tensors (B, na, H, W, no).
    """
    rows = []
    for layer, raw in enumerate(outputs):
        height, width = raw.shape[2:4]
        grid, anchor_grid = detect._make_grid(width, height, layer)
        values = raw.float().sigmoid()
        centres = (values[..., :2] * 2 + grid) * detect.stride[layer]
        sides = (values[..., 2:4] * 2) ** 2 * anchor_grid
        rows.append(torch.cat([centres, sides, values[..., 4:]], 4).flatten(1, 3))
    return torch.cat(rows, 1)


@torch.no_grad()
def find_regions(predictions: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` most confident predictions of each box class, without suppression: several may be of one object.

    Args:
        predictions: (B, n, no), in pixels and probabilities.
        top: K.

    Returns:
        (B, R, 4) centres and sides in pixels, and (B, R) confidences, objectness times class; all box classes of the first of
        the K, then of the second, and so on.
    """
    scores, index = (predictions[..., 4:5] * predictions[..., 5:]).topk(top, 1)
    # All columns are gathered: OpenVINO refuses an index that has fewer than what it looks up in.
    index = index.flatten(1).unsqueeze(2).expand(-1, -1, predictions.shape[2])
    return predictions.gather(1, index)[..., :4], scores.flatten(1)


def region_weights(boxes: Tensor, height: int, width: int, cell: float) -> Tensor:
    """(B, R, height * width) weights that average a feature map over each box: the cells whose middle it covers, one at least.

    Args:
        boxes: (B, R, 4) centres and sides in pixels.
        height: of the feature map, in cells.
        width: of the feature map, in cells.
        cell: side of a cell in pixels.
    """
    rows = _covered(boxes[..., 1], boxes[..., 3], height, cell)
    columns = _covered(boxes[..., 0], boxes[..., 2], width, cell)
    return (rows.unsqueeze(3) * columns.unsqueeze(2)).flatten(2)


def _covered(centre: Tensor, side: Tensor, cells: int, cell: float) -> Tensor:
    """(B, R, cells) shares along one axis; they sum to 1 where the box covers any cell of the map, else to 0."""
    middles = torch.arange(cells, device=centre.device, dtype=centre.dtype) + 0.5
    reach = (side / cell / 2).clamp(min=0.5)
    inside = ((middles - (centre / cell).unsqueeze(2)).abs() <= reach.unsqueeze(2)).to(centre.dtype)
    return inside / inside.sum(2, keepdim=True).clamp(min=1)
