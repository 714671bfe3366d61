"""Pictures with what was found in them: boxes in upstream's colours, texts on a dark tag, heat maps with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gradnorm_plugin.names import one_line
from gradnorm_plugin.upstream.gateway import drawing, upstream

_fonts = upstream("utils.fonts")
_Annotator, _colors = drawing("Annotator"), drawing("colors")

_PLAIN_FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")

COLOUR_MAP = cv2.COLORMAP_TURBO
"""Of heat maps: blue where nothing speaks for it, red where most does."""
SMALLEST_SHARE = 0.05
"""A region with a smaller part of the attention is not drawn."""
_COLUMNS = 3
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


class Region(NamedTuple):
    """An object that a guided head has looked into."""

    box: DetectedBox
    share: float
    """Its part of the head's attention, 0..1; those of all regions sum to 1."""


@dataclass(frozen=True)
class Style:
    """How predictions are drawn."""

    line_width: int | None = None
    """Pixels; None: by the size of the image, as upstream's `Annotator` does."""
    labels: bool = True
    """Whether names are written at all."""
    confidences: bool = True
    """Whether numbers are written after the names."""


def draw(
    image: np.ndarray,
    boxes: Sequence[DetectedBox],
    image_class: ImageClass | None,
    style: Style,
    lines: Sequence[tuple[str, str]] = (),
) -> np.ndarray:
    """A copy of the image, (H, W, 3) uint8, BGR: boxes (by falling confidence) in upstream's colours and line width, and the
    class and `lines` (a text and the number that closes it) on a dark tag in the upper left corner."""
    names = "".join(box.name for box in boxes)
    annotator = _Annotator(np.array(image, order="C"), line_width=style.line_width, example=names)
    font = annotator.font if annotator.pil else None
    for box in reversed(boxes):  # the most confident one on top
        name = one_line(box.name)
        label = (f"{name} {box.confidence:.2f}" if style.confidences else name) if style.labels else None
        if font and label:
            annotator.font = _fonts.with_letters(font, label)
        corners = [round(value) for value in box[3:]]
        annotator.box_label(corners, label, color=_colors(box.class_index, True))
    picture = np.array(annotator.im)
    if image_class:
        lines = [(image_class.name, f" {image_class.probability:.2f}" if style.confidences else ""), *lines]
    if lines and style.labels:
        tag = _tag([(one_line(text), number) for text, number in lines], picture.shape)[: picture.shape[0], : picture.shape[1]]
        picture[: tag.shape[0], : tag.shape[1]] = tag
    return picture


def draw_heat(image: np.ndarray, heat: np.ndarray, regions: Sequence[Region], text: str, style: Style) -> np.ndarray:
    """A copy of the image in grey, (H, W, 3) uint8, BGR, coloured by `heat`, (H, W) 0..1; with the regions that counted, their
    shares, and `text` on a dark tag."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    colours = cv2.applyColorMap((heat * 255).round().astype(np.uint8), COLOUR_MAP)
    picture = cv2.addWeighted(grey, 0.5, colours, 0.5, 0)
    shown = [region for region in regions if region.share >= SMALLEST_SHARE]
    boxes = [region.box._replace(name=f"{region.box.name} {region.share:.0%}") for region in shown]
    return draw(picture, boxes, None, replace(style, confidences=False), [(text, "")])


def side_by_side(panels: Sequence[np.ndarray], note: str = "") -> np.ndarray:
    """Pictures of one size in rows, and below them the colours of `draw_heat` from little to much, then `note`."""
    height, width = panels[0].shape[:2]
    columns = min(_COLUMNS, len(panels))
    gap = 2 * max(1, width // 320)  # even, as the sides of videos have to be
    size = _text_size(panels[0].shape)
    rows = -(-len(panels) // columns)
    sheet = np.full((rows * (height + gap), columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, panel in enumerate(panels):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = panel
    return np.vstack([sheet, _legend(sheet.shape[1], size, note)])


def _legend(width: int, size: int, note: str) -> np.ndarray:
    """A white strip: the colours, what they mean, and the note."""
    height, bar = 2 * size, 6 * size
    strip = np.full((height, width, 3), 255, np.uint8)
    ramp = np.tile(np.linspace(0, 255, bar).round().astype(np.uint8), (size, 1))
    colours = cv2.applyColorMap(ramp, COLOUR_MAP)[:, : max(0, width - 2 * size)]
    strip[size // 2 : size // 2 + size, 2 * size : 2 * size + bar] = colours
    picture = Image.fromarray(strip)
    pen, line = ImageDraw.Draw(picture), one_line(f"1: speaks most for it{'; ' * bool(note)}{note}")
    letters = "" if line.isascii() else line
    for left, text in ((size, "0"), (2 * size + bar + size // 2, line)):
        pen.text((left, height // 2), text, fill=TAG_COLOUR, font=_font(size, letters), anchor="lm")
    return np.asarray(picture)


def _tag(lines: Sequence[tuple[str, str]], shape: tuple[int, ...]) -> np.ndarray:
    """Texts, each with its number, white on dark; letters shrink to the image, and then what is wider than the image is cut."""
    size, room = _text_size(shape), shape[1]
    letters = "".join(text for text, _ in lines if not text.isascii())
    while size > SMALLEST_TEXT and (
        max(_width(text + number, size, letters) for text, number in lines) > room
        or (len(lines) > 1 and len(lines) * _height(size, letters) > shape[0])
    ):
        size -= 1
    cut = [_cut(text, number, size, letters, room) for text, number in lines]
    height, width = _height(size, letters), max(_width(line, size, letters) for line in cut)
    tag = Image.new("RGB", (width, len(cut) * height), TAG_COLOUR)
    for index, line in enumerate(cut):
        place = 2 * _padding(size), _padding(size) + index * height
        ImageDraw.Draw(tag).text(place, line, fill=TEXT_COLOUR, font=_font(size, letters))
    return np.asarray(tag)


def _text_size(shape: tuple[int, ...]) -> int:
    return max(round(sum(shape[:2]) / 2 * 0.035), 12)  # the size of upstream's own labels


def _cut(text: str, number: str, size: int, letters: str, room: int) -> str:
    """Both in one line, the text without its end where they are too wide."""
    kept = text
    while _width(text + number, size, letters) > room and kept:
        kept = kept[:-1]
        text = f"{kept.rstrip()}..."
    return text + number


def _height(size: int, letters: str) -> int:
    return sum(_font(size, letters).getmetrics()) + 2 * _padding(size)


def _padding(size: int) -> int:
    return max(1, size // 8)


def _width(text: str, size: int, letters: str) -> int:
    return round(_font(size, letters).getlength(text)) + 4 * _padding(size)


@lru_cache(maxsize=32)
def _font(size: int, letters: str) -> ImageFont.FreeTypeFont:
    # Matplotlib's own font for what it can write: upstream fetches its fonts from the network when they are first used.
    if not letters:
        return ImageFont.truetype(_PLAIN_FONT, size)
    return _fonts.with_letters(ImageFont.truetype(str(upstream("utils.general").check_font("Arial.Unicode.ttf")), size), letters)
