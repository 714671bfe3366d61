"""What is found in one image: boxes and the image's class, as numbers and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gradnorm_plugin.names import one_line
from gradnorm_plugin.upstream.gateway import upstream

_fonts = upstream("utils.fonts")
_plots = upstream("utils.plots")

_PLAIN_FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")

TAG_COLOUR, TEXT_COLOUR = (24, 24, 24), (255, 255, 255)
SMALLEST_TEXT = 9
"""Pixels of the smallest letters that can be read; a name that is too long even so is cut."""


class DetectedBox(NamedTuple):
    """An object: its class, the detector's confidence (0..1), and its corners in pixels of the image."""

    class_index: int
    name: str
    confidence: float
    x1: float
    y1: float
    x2: float
    y2: float


class ImageClass(NamedTuple):
    """The class of the whole image: the most probable one, and the probability of each class by name, in their order (sum 1)."""

    index: int  # type: ignore[assignment]  # takes the place of `tuple.index`
    name: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Style:
    """How predictions are drawn."""

    line_width: int | None = None
    """Pixels; None: by the size of the image, as upstream's `Annotator` does."""
    labels: bool = True
    """Whether names are written at all."""
    confidences: bool = True
    """Whether numbers are written after the names."""


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
    """By falling confidence."""
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


def draw(image: np.ndarray, boxes: Sequence[DetectedBox], image_class: ImageClass | None, style: Style) -> np.ndarray:
    """A copy of the image, (H, W, 3) uint8, BGR: boxes (by falling confidence) in upstream's colours and line width, and the
    class on a dark tag in the upper left corner."""
    names = "".join(box.name for box in boxes)
    annotator = _plots.Annotator(np.array(image, order="C"), line_width=style.line_width, example=names)
    font = annotator.font if annotator.pil else None
    for box in reversed(boxes):  # the most confident one on top
        name = one_line(box.name)
        label = (f"{name} {box.confidence:.2f}" if style.confidences else name) if style.labels else None
        if font and label:
            annotator.font = _fonts.with_letters(font, label)
        corners = [round(value) for value in box[3:]]
        annotator.box_label(corners, label, color=_plots.colors(box.class_index, True))
    picture = np.array(annotator.im)
    if image_class and style.labels:
        tag = _tag(image_class, picture.shape, style)[: picture.shape[0], : picture.shape[1]]
        picture[: tag.shape[0], : tag.shape[1]] = tag
    return picture


def _tag(image_class: ImageClass, shape: tuple[int, ...], style: Style) -> np.ndarray:
    """The class's name and probability, white on dark; letters shrink, and then the name is cut, to the width of the image."""
    number = f" {image_class.probability:.2f}" if style.confidences else ""
    name, size = one_line(image_class.name), max(round(sum(shape[:2]) / 2 * 0.035), 12)  # the size of upstream's own labels
    letters = "" if name.isascii() else name
    room = shape[1]
    while _width(name + number, size, letters) > room and size > SMALLEST_TEXT:
        size -= 1
    kept = name
    while _width(name + number, size, letters) > room and kept:
        kept = kept[:-1]
        name = f"{kept.rstrip()}..."
    font = _font(size, letters)
    ascent, descent = font.getmetrics()
    tag = Image.new("RGB", (_width(name + number, size, letters), ascent + descent + 2 * _padding(size)), TAG_COLOUR)
    ImageDraw.Draw(tag).text((2 * _padding(size), _padding(size)), name + number, fill=TEXT_COLOUR, font=font)
    return np.asarray(tag)


def _padding(size: int) -> int:
    return max(1, size // 8)


def _width(text: str, size: int, letters: str) -> int:
    return round(_font(size, letters).getlength(text)) + 4 * _padding(size)


@lru_cache(maxsize=32)
def _font(size: int, letters: str) -> ImageFont.FreeTypeFont:
    # Matplotlib's own font for what it can write: upstream fetches its fonts from the network when they are first used.
    if not letters:
        return ImageFont.truetype(_PLAIN_FONT, size)
    return _fonts.with_letters(_plots.check_pil_font("Arial.Unicode.ttf", size), letters)
