"""Boxes and outlines: from what people write into annotations to what a label file says of them.

Coordinates are x to the right and y down from the upper left corner, in pixels of the annotated picture or in shares of it; from
`to_record` on they are shares of the picture that training sees, in it, with area, and each once. Sizes are (width, height).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Any, NamedTuple

from gradnorm_plugin.convert.image_files import TURNS_BY_90, Picture
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.labels import Box, LabelRecord, Polygon

Point = tuple[float, float]
Four = tuple[float, float, float, float]

READINGS = ("xywh", "xyxy", "cxcywh")
"""What the four numbers of a box may be: corner and size, two corners, centre and size."""
MOST = 0.7
"""Of the boxes of a file that must agree before all are read so: some may be wrong."""
_ROUNDING = 1e-3  # share of the picture's side
_ROUNDING_PIXELS = 0.5  # by which a box may reach out without mention
_THINNEST = 1e-6  # share of the picture's side: the last digit of common label files


class Object(NamedTuple):
    """A box (x1, y1, x2, y2) of the class `name`, the place where it stands, and its outline if there is one.

    `shares`: all are shares of the image's width and height, not pixels.
    """

    name: str
    corners: Four
    where: str
    points: tuple[Point, ...] | None = None
    shares: bool = False
    centred: Four | None = None  # cx, cy, w, h as they were written


@dataclass
class Annotation:
    """The objects of one image, the file that has them, and the size (width, height) that it gives the image."""

    objects: list[Object]
    where: str
    size: tuple[float, float] | None = None


def number(value: object) -> float | None:
    """`value`, a number or the text of one, as a finite float; None if it is neither."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def four_numbers(values: Iterable[object]) -> Four | None:
    """The values as numbers; None if they are not four numbers."""
    a, b, c, d, *more = [*map(number, values), None, None, None, None]
    return None if a is None or b is None or c is None or d is None or len(more) != 4 else (a, b, c, d)


def size_of(width: object, height: object) -> tuple[float, float] | None:
    """Width and height; None if they are not two numbers above 0."""
    sides = number(width) or 0, number(height) or 0
    return sides if min(sides) > 0 else None


def points_of(pairs: Iterable[object]) -> tuple[Point, ...] | None:
    """The points of an outline, three at least; None if one is no pair of numbers."""
    found = []
    for pair in pairs:
        x, y = map(number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if x is None or y is None:
            return None
        found.append((x, y))
    return tuple(found) if len(found) > 2 else None


def corners_of(values: Four, reading: str) -> Four:
    """The corners x1, y1, x2, y2 of the box that four numbers are in one of the `READINGS`, or as an ellipse with its radii."""
    a, b, c, d = values
    if reading == "xyxy":
        return values
    if reading == "xywh":
        return a, b, a + c, b + d
    right, down = (c, d) if reading == "ellipse" else (c / 2, d / 2)
    return a - right, b - down, a + right, b + down


def around(points: Iterable[Point]) -> Four:
    """The box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def around_turned(corners: Four, pivot: Point, degrees: float) -> Four:
    """The box around a box that was turned clockwise (as the picture is seen) about a pivot."""
    cos, sin, (a, b) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), pivot
    x1, y1, x2, y2 = corners
    outline = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    return around((a + (x - a) * cos - (y - b) * sin, b + (x - a) * sin + (y - b) * cos) for x, y in outline)


def are_shares(boxes: Sequence[Four]) -> bool:
    """Whether a source's boxes are shares of the picture where pixels are usual: (nearly) none of them reaches beyond 1."""
    within = sum(all(-_ROUNDING <= value <= 1 + _ROUNDING for value in box) for box in boxes)
    return bool(boxes) and within >= MOST * len(boxes)


def clean_name(value: object) -> str | None:
    """A class name without blanks around it; None if it is no text that can be printed."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    return name if name and name.isprintable() else None


def as_text(value: Any) -> str | None:
    """A text, or a number as JSON has it; None for anything else."""
    return value if isinstance(value, str) else dumps(value) if isinstance(value, (int, float)) else None


def split_names(text: str, chosen: Sequence[str] = ()) -> list[str]:
    """The class names in a text, as often as they are in it, between commas, semicolons or bars.

    A name of `chosen` may have such signs itself, if it is the whole text.
    """
    whole = clean_name(text)
    parts = [whole] if whole in chosen else [clean_name(part) for part in re.split(r"[,;|]", text)]
    return [part for part in parts if part]


def to_record(annotation: Annotation, picture: Picture, names: Sequence[str], oddities: Oddities) -> LabelRecord:
    """The objects of one image as a label record; all as polygons if any has an outline, for a file holds one kind."""
    turn = _is_turned(annotation, picture, oddities)
    fitted: dict[Box | Polygon, Object] = {}
    for thing in annotation.objects:
        thing = _as_shares(thing, picture, turn)
        if thing.name not in names:
            oddities.add(Kind.UNKNOWN_CLASS, thing.where, thing.name)
            continue
        shape = _fit(thing, names.index(thing.name), picture, oddities)
        if shape in fitted:
            oddities.add(Kind.REPEATED_BOX, thing.where, thing.name)
        elif shape:
            fitted[shape] = thing
    boxes = tuple(shape for shape in fitted if isinstance(shape, Box))
    if len(boxes) == len(fitted):
        return LabelRecord(boxes=boxes)
    for box in boxes:
        oddities.add(Kind.NO_OUTLINE, fitted[box].where, fitted[box].name)
    return LabelRecord(polygons=tuple(shape if isinstance(shape, Polygon) else _rectangle(shape) for shape in fitted))


def _is_turned(annotation: Annotation, picture: Picture, oddities: Oddities) -> bool:
    """Whether the coordinates are those of the picture as stored, which EXIF turns by 90 degrees; the size tells."""
    orientation = f"EXIF orientation {picture.orientation}"
    if annotation.size is None or annotation.size == picture.size:
        if picture.orientation != 1:
            oddities.add(Kind.ROTATED, annotation.where, orientation)
        return False
    if picture.orientation in TURNS_BY_90 and annotation.size == picture.stored:
        oddities.add(Kind.TURNED, annotation.where, orientation)
        return True
    (width, height), (real_width, real_height) = annotation.size, picture.size
    oddities.add(Kind.SIZE, annotation.where, f"{width:g} x {height:g}, the image has {real_width} x {real_height}")
    return False


def _as_shares(thing: Object, picture: Picture, turn: bool) -> Object:
    """The object in shares of the upright picture."""
    if thing.shares and not turn:
        return thing
    width, height = (1, 1) if thing.shares else picture.stored if turn else picture.size

    def share(x: float, y: float) -> Point:
        x, y = x / width, y / height
        if turn:
            x, y = {5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x)}[picture.orientation]
        return x, y

    x1, y1, x2, y2 = thing.corners
    (left, top), (right, bottom) = share(x1, y1), share(x2, y2)
    if turn and x1 <= x2 and y1 <= y2:  # turning exchanges corners
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    points = tuple(share(x, y) for x, y in thing.points) if thing.points else None
    return thing._replace(corners=(left, top, right, bottom), points=points)


def _fit(thing: Object, class_index: int, picture: Picture, oddities: Oddities) -> Box | Polygon | None:
    """The box or polygon within the picture; None if nothing is left of it."""
    (x1, y1, x2, y2), (width, height) = thing.corners, picture.size
    pixels = f"{thing.name} from ({x1 * width:.4g}, {y1 * height:.4g}) to ({x2 * width:.4g}, {y2 * height:.4g})"
    if abs(x2 - x1) < _THINNEST or abs(y2 - y1) < _THINNEST:
        oddities.add(Kind.NO_AREA, thing.where, pixels)
        return None
    if x2 < x1 or y2 < y1:
        oddities.add(Kind.REVERSED, thing.where, pixels)
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    left, top, right, bottom = map(_clip, (x1, y1, x2, y2))
    if right - left < _THINNEST or bottom - top < _THINNEST:
        oddities.add(Kind.BEYOND, thing.where, pixels)
        return None
    outside = max(-x1 * width, (x2 - 1) * width, -y1 * height, (y2 - 1) * height)
    if outside > _ROUNDING_PIXELS:
        oddities.add(Kind.OUTSIDE, thing.where, f"{thing.name}, by {outside:.3g} pixels")
    if thing.points:
        points = tuple((_clip(x), _clip(y)) for x, y in thing.points)
        xs, ys = zip(*points, strict=True)
        if max(xs) - min(xs) >= _THINNEST and max(ys) - min(ys) >= _THINNEST:
            return Polygon(class_index, points)
    elif thing.centred and outside <= _ROUNDING_PIXELS and all(0 <= value <= 1 for value in thing.centred):
        return Box(class_index, *thing.centred)  # to the last digit as it was
    return Box(class_index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _rectangle(box: Box) -> Polygon:
    left, right = _clip(box.cx - box.w / 2), _clip(box.cx + box.w / 2)
    top, bottom = _clip(box.cy - box.h / 2), _clip(box.cy + box.h / 2)
    return Polygon(box.class_index, ((left, top), (right, top), (right, bottom), (left, bottom)))
