"""What is found in one image: boxes and what is said of the whole image, as numbers and as a drawing."""

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
from gradnorm_plugin.outputs import CLASS, ImageOutput, Target
from gradnorm_plugin.upstream.gateway import drawing, upstream

_fonts = upstream("utils.fonts")
_Annotator, _colors = drawing("Annotator"), drawing("colors")

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


class Answer(NamedTuple):
    """What one image output says of the image."""

    output: ImageOutput
    values: tuple[float, ...]
    """The output's probabilities or value, as its kind activates its logits."""
    unsure: bool = False
    """Whether the class is left open: its probability is below what was asked for."""

    @property
    def array(self) -> np.ndarray:
        """The values as the output's kind takes them."""
        return np.array(self.values)

    @property
    def target(self) -> Target | None:
        """What a label file would say; None where that is left open."""
        return None if self.unsure else self.output.decide(self.array)

    @property
    def data(self) -> dict[str, Any]:
        """The answer as plain data; a class that is left open is None, its probabilities are there."""
        return self.output.as_data(self.array) | ({"class": None} if self.unsure else {})

    @property
    def cells(self) -> dict[str, Any]:
        """The answer as the cells of a table, by column; a class that is left open is empty."""
        return self.output.cells(self.array) | ({self.output.name: ""} if self.unsure else {})

    def say(self, confidences: bool = True) -> tuple[str, str]:
        """The answer in words, and the number that closes them, if there is one."""
        plain, full = self.output.say_target(self.output.decide(self.array)), self.output.say(self.array)
        if self.unsure:
            return self.output.titled("unsure"), full[len(plain) :] if confidences else ""
        if not confidences:
            return plain, ""
        return (plain, full[len(plain) :]) if full.startswith(plain) else (full, "")


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
    """Of the one image output that tells a class; None if there is none, or more than one, or if it is left open."""
    image: np.ndarray = field(repr=False, compare=False)
    """The image itself, (H, W, 3) uint8, BGR."""
    answers: tuple[Answer, ...] = ()
    """What each image output says; none for weights that only detect."""

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What each image output says as plain data, by its name."""
        return {answer.output.name: answer.data for answer in self.answers}

    @property
    def named(self) -> tuple[Answer, ...]:
        """The answers, where there is something else to say than the class of `classification_names`; else none."""
        classic = [(answer.output.name, answer.unsure) for answer in self.answers] == [(CLASS, False)]
        return () if classic else self.answers

    def draw(self, style: Style | None = None) -> np.ndarray:
        """The image with boxes and what is said of it, (H, W, 3) uint8, BGR; the image itself stays as it is."""
        style = style or Style()
        if not self.named:
            return draw(self.image, self.boxes, self.image_class, style)
        return draw(self.image, self.boxes, None, style, [answer.say(style.confidences) for answer in self.named])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the image, in types that JSON knows; `outputs` only where `named` has something."""
        return {
            "path": self.path,
            "frame": self.frame,
            "height": self.shape[0],
            "width": self.shape[1],
            "image_class": self.image_class and self.image_class._asdict(),
            **({"outputs": self.outputs} if self.named else {}),
            "boxes": [box._asdict() for box in self.boxes],
        }


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


def _tag(lines: Sequence[tuple[str, str]], shape: tuple[int, ...]) -> np.ndarray:
    """Texts, each with its number, white on dark; letters shrink to the image, and then what is wider than the image is cut."""
    size, room = max(round(sum(shape[:2]) / 2 * 0.035), 12), shape[1]  # the size of upstream's own labels
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
