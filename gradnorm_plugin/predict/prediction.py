"""What was found in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradnorm_plugin.predict.drawing import Style, draw
from gradnorm_plugin.predict.findings import DetectedBox, ImageClass


@dataclass(frozen=True)
class Prediction:
    """What was found in one image."""

    path: str | None
    """The file, stream or screen the image came from; None for an array."""
    frame: int | None
    """Number of the frame in a video or stream, from 1; None for a picture."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    boxes: tuple[DetectedBox, ...]
    """The surest first."""
    image_class: ImageClass | None
    """None if the weights know no classes of images."""
    image: np.ndarray = field(repr=False, compare=False)
    """The image itself, (H, W, 3) uint8, BGR."""

    def draw(self, style: Style | None = None) -> np.ndarray:
        """The image with boxes and class on it, (H, W, 3) uint8, BGR; the image itself stays as it is."""
        return draw(self.image, self.boxes, self.image_class, style or Style())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the image, in types that JSON knows."""
        return {
            "path": self.path,
            "frame": self.frame,
            "height": self.shape[0],
            "width": self.shape[1],
            "image_class": self.image_class and self.image_class._asdict(),
            "boxes": [box._asdict() for box in self.boxes],
        }
