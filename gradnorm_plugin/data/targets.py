"""The targets of one batch for both tasks, as the collate function returns them.

Shapes: B images in the batch, n boxes in all of them together.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_CLASS = -1


class JointTargets:
    """Boxes and image classes of one batch, carried together through workers, pinning and `.to(device)`.

    boxes: (n, 6) floating point: image's index in the batch, class, centre x, centre y, width, height (normalised).
    classes: (B,) int64: the class of each image, -1 where it has none.
    """

    __slots__ = ("boxes", "classes")

    def __init__(self, boxes: Tensor, classes: Tensor) -> None:
        """Raises TypeError or ValueError if a shape, type, device or index does not fit the description above."""
        for name, value in (("boxes", boxes), ("classes", classes)):
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` of JointTargets must be a tensor, found {type(value).__name__}")
        if boxes.ndim != 2 or boxes.shape[1] != 6 or not boxes.is_floating_point():
            raise ValueError(
                f"`boxes` of JointTargets must be floating point of shape (n, 6): image, class, x, y, w, h; "
                f"found {boxes.dtype} of shape {tuple(boxes.shape)}"
            )
        if classes.ndim != 1 or classes.dtype != torch.int64:
            raise ValueError(
                f"`classes` of JointTargets must be int64 of shape (B,), one for each image; "
                f"found {classes.dtype} of shape {tuple(classes.shape)}"
            )
        if boxes.device != classes.device:
            raise ValueError(
                f"`boxes` and `classes` of JointTargets are on different devices ({boxes.device}, {classes.device}): "
                f"move them to one"
            )
        if boxes.device.type == "cpu":  # reading values on an accelerator would make the host wait for it
            _check_values(boxes, classes)
        self.boxes, self.classes = boxes, classes

    @property
    def shape(self) -> torch.Size:
        """The shape of the boxes, (n, 6): upstream's progress bar prints the first as the number of instances."""
        return self.boxes.shape

    @property
    def device(self) -> torch.device:
        """Where both tensors are."""
        return self.boxes.device

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> JointTargets:
        """The same targets on `device`."""
        return JointTargets(self.boxes.to(device, non_blocking=non_blocking), self.classes.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> JointTargets:
        """The same targets in page-locked memory; PyTorch's DataLoader calls this."""
        return JointTargets(self.boxes.pin_memory(), self.classes.pin_memory())

    def __repr__(self) -> str:
        count = len(self.classes)
        return f"JointTargets(boxes={tuple(self.boxes.shape)}, classes=({count},), device={self.device})"


def _check_values(boxes: Tensor, classes: Tensor) -> None:
    if len(boxes) and not 0 <= boxes[:, 0].min() <= boxes[:, 0].max() < len(classes):
        raise ValueError(
            f"`boxes` of JointTargets name images {boxes[:, 0].min():g} to {boxes[:, 0].max():g}, "
            f"but `classes` has {len(classes)} images"
        )
    if len(classes) and classes.min() < NO_CLASS:
        raise ValueError(f"`classes` of JointTargets has {classes.min()}: use {NO_CLASS} for an image without a class")
