"""Boxes in upstream's colours and line width, and the image's class on a dark tag in the upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gradnorm_plugin.names import one_line
from gradnorm_plugin.predict.findings import DetectedBox, ImageClass
from gradnorm_plugin.upstream.gateway import upstream

_fonts = upstream("utils.fonts")
_plots = upstream("utils.plots")

_PLAIN_FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")

TAG_COLOUR, TEXT_COLOUR = (24, 24, 24), (255, 255, 255)
SMALLEST_TEXT = 9
"""Pixels of the smallest letters that can be read; a name that is too long even so is cut."""


@dataclass(frozen=True)
class Style:
    """How predictions are drawn."""

    line_width: int | None = None
    """Pixels; None: by the size of the image, as upstream's `Annotator` does."""
    labels: bool = True
    """Whether names are written at all."""
    confidences: bool = True
    """Whether numbers are written after the names."""


def draw(image: np.ndarray, boxes: Sequence[DetectedBox], image_class: ImageClass | None, style: Style) -> np.ndarray:
    """A copy of the image, (H, W, 3) uint8, BGR, with boxes (the surest first) and class on it."""
    names = "".join(box.name for box in boxes)
    annotator = _plots.Annotator(np.array(image, order="C"), line_width=style.line_width, example=names)
    font = annotator.font if annotator.pil else None
    for box in reversed(boxes):  # the surest on top
        name = one_line(box.name)
        label = (f"{name} {box.confidence:.2f}" if style.confidences else name) if style.labels else None
        if font and label:
            annotator.font = _fonts.with_letters(font, label)
        corners = [round(value) for value in box[3:]]
        annotator.box_label(corners, label, color=_plots.colors(box.class_index, True))
    picture = np.array(annotator.im)
    if image_class and style.labels:
        _paste(picture, _tag(image_class, picture.shape, style))
    return picture


def _paste(picture: np.ndarray, tag: np.ndarray) -> None:
    height, width = min(tag.shape[0], picture.shape[0]), min(tag.shape[1], picture.shape[1])
    picture[:height, :width] = tag[:height, :width]


def _tag(image_class: ImageClass, shape: tuple[int, ...], style: Style) -> np.ndarray:
    """The class's name and probability, white on dark; never wider than the image."""
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
def _font(size: int, letters: str) -> Any:
    # Matplotlib's own font for what it can write: upstream fetches its fonts from the network when they are first used.
    if not letters:
        return ImageFont.truetype(_PLAIN_FONT, size)
    return _fonts.with_letters(_plots.check_pil_font("Arial.Unicode.ttf", size), letters)
