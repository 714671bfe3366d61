"""Where the detector has found something: its predictions as pixels, and the cells of a feature map that they cover.

B images, nl detection layers, na anchors, no = 5 + nc outputs an anchor (x, y, w, h, objectness, nc box classes), n predictions
an image, K of them kept for each box class, R = K * nc regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def decode(detect: nn.Module, outputs: Sequence[Tensor]) -> Tensor:
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
