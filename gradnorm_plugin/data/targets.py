"""The targets of one batch for all tasks, as the collate function returns them.

Shapes: B images in the batch, n boxes in all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gradnorm_plugin.outputs import CLASS, NO_CLASS


class JointTargets:
    """Boxes and image targets of one batch, carried together through workers, pinning and `.to(device)`.

    boxes: (n, 6) floating point: image's index in the batch, class, centre x, centre y, width, height (normalised).
    outputs: by image output, (B, ...) as `ImageOutput.targets` makes them; int64 (B,) for a class, -1 where there is none.
    """

    __slots__ = ("boxes", "outputs")

    def __init__(self, boxes: Tensor, classes: Tensor | Mapping[str, Tensor]) -> None:
        """`classes`: the targets of the image outputs by name, or just those of the one called `class`.

        Raises TypeError or ValueError if a shape, type, device or index does not fit the description above.
        """
        outputs = dict(classes) if isinstance(classes, Mapping) else {CLASS: classes}
        for name, value in (("boxes", boxes), *outputs.items()):
            if not isinstance(value, Tensor):
                raise TypeError(f"`{_shown(name)}` of JointTargets must be a tensor, found {type(value).__name__}")
        if boxes.ndim != 2 or boxes.shape[1] != 6 or not boxes.is_floating_point():
            raise ValueError(
                f"`boxes` of JointTargets must be floating point of shape (n, 6): image, class, x, y, w, h; "
                f"found {boxes.dtype} of shape {tuple(boxes.shape)}"
            )
        if not outputs:
            raise ValueError("JointTargets need the targets of an image output at least")
        for name, value in outputs.items():
            _check_output(name, value, boxes)
        if len({len(value) for value in outputs.values()}) > 1:
            raise ValueError(f"the image outputs of JointTargets have different numbers of images: {_lengths(outputs)}")
        self.boxes, self.outputs = boxes, outputs
        if boxes.device.type == "cpu":  # on an accelerator, reading values would stall the host
            self._check_values()

    @property
    def classes(self) -> Tensor:
        """(B,) int64, the targets of the output `class`."""
        return self.outputs[CLASS]

    @property
    def images(self) -> int:
        """B."""
        return len(next(iter(self.outputs.values())))

    @property
    def shape(self) -> torch.Size:
        """The shape of the boxes, (n, 6): upstream's progress bar prints the first as the number of instances."""
        return self.boxes.shape

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.boxes.device

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> JointTargets:
        """The same targets on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> JointTargets:
        """The same targets in page-locked memory; PyTorch's DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> JointTargets:
        return JointTargets(change(self.boxes), {name: change(values) for name, values in self.outputs.items()})

    def __repr__(self) -> str:
        return f"JointTargets(boxes={tuple(self.boxes.shape)}, {_lengths(self.outputs)}, device={self.device})"

    def _check_values(self) -> None:
        boxes, images = self.boxes, self.images
        if len(boxes) and not 0 <= boxes[:, 0].min() <= boxes[:, 0].max() < images:
            raise ValueError(
                f"`boxes` of JointTargets name images {boxes[:, 0].min():g} to {boxes[:, 0].max():g}, "
                f"but {_names(self.outputs)} has {images} images"
            )
        for name, values in self.outputs.items():
            if values.dtype == torch.int64 and len(values) and values.min() < NO_CLASS:
                raise ValueError(
                    f"`{_shown(name)}` of JointTargets has {values.min()}: use {NO_CLASS} for an image without a class"
                )


def _check_output(name: str, values: Tensor, boxes: Tensor) -> None:
    fits = values.ndim == 1 and values.dtype == torch.int64 if name == CLASS else values.ndim in (1, 2)
    if not fits:
        kind = "int64 of shape (B,)" if name == CLASS else "of shape (B,) or (B, L)"
        raise ValueError(
            f"`{_shown(name)}` of JointTargets must be {kind}, one for each image; "
            f"found {values.dtype} of shape {tuple(values.shape)}"
        )
    if boxes.device != values.device:
        raise ValueError(
            f"`boxes` and `{_shown(name)}` of JointTargets are on different devices ({boxes.device}, "
            f"{values.device}): move them to one"
        )


def _lengths(outputs: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{_shown(name)}={tuple(values.shape)}" for name, values in outputs.items())


def _names(outputs: Mapping[str, Tensor]) -> str:
    return " and ".join(f"`{_shown(name)}`" for name in outputs)


def _shown(name: str) -> str:
    """An output's name in messages: `class` was an argument of its own before there were others."""
    return "classes" if name == CLASS else name
