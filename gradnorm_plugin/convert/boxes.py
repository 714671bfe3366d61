"""Boxes and outlines: from the numbers in an annotation to the lines of a label file.

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
"""Possible meanings of a box's four numbers: corner and size, two corners, centre and size."""
MOST = 0.7
"""Share of a file's boxes that must agree before all are read that way: a few may be wrong."""
_ROUNDING = 1e-3  # share of the picture's side
_ROUNDING_PIXELS = 0.5  # by which a box may reach out without mention
_THINNEST = 1e-6  # share of the picture's side: the last digit of common label files


class Object(NamedTuple):
    """A box (x1, y1, x2, y2) of class `name`, the place in the source that defines it, and its outline if it has one.

    `shares`: coordinates are fractions of the image's width and height, not pixels.
    """

    name: str
    corners: Four
    where: str
    points: tuple[Point, ...] | None = None
    shares: bool = False
    centred: Four | None = None  # cx, cy, w, h exactly as written in the source


@dataclass
class Annotation:
    """The objects of one image, the file they come from, and the image size (width, height) which that file states."""

    objects: list[Object]
    where: str
    size: tuple[float, float] | None = None


def number(value: object) -> float | None:
    """A number, or the text of one, as a finite float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def four_numbers(values: Iterable[object]) -> Four | None:
    """Exactly four values as numbers, else None."""
    found = [number(value) for value in values]
    known = [value for value in found if value is not None]
    return (known[0], known[1], known[2], known[3]) if len(found) == len(known) == 4 else None


def size_of(width: object, height: object) -> tuple[float, float] | None:
    """Width and height if both are positive numbers, else None."""
    sides = number(width) or 0, number(height) or 0
    return sides if min(sides) > 0 else None


def points_of(pairs: Iterable[object]) -> tuple[Point, ...] | None:
    """The points of an outline; None if there are fewer than three or one is not a pair of numbers."""
    found = []
    for pair in pairs:
        x, y = map(number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if x is None or y is None:
            return None
        found.append((x, y))
    return tuple(found) if len(found) > 2 else None


def corners_of(values: Four, reading: str) -> Four:
    """Corners x1, y1, x2, y2 of a box given in one of the `READINGS`, or around an `ellipse` (centre and radii)."""
    a, b, c, d = values
    if reading == "xyxy":
        return values
    if reading == "xywh":
        return a, b, a + c, b + d
    right, down = (c, d) if reading == "ellipse" else (c / 2, d / 2)
    return a - right, b - down, a + right, b + down


def around(points: Iterable[Point]) -> Four:
    """The bounding box of points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def around_turned(corners: Four, pivot: Point, degrees: float) -> Four:
    """The bounding box of a box that is rotated clockwise (as the picture is seen) about a pivot."""
    cos, sin, (a, b) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), pivot
    x1, y1, x2, y2 = corners
    outline = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    return around((a + (x - a) * cos - (y - b) * sin, b + (x - a) * sin + (y - b) * cos) for x, y in outline)


def are_shares(boxes: Sequence[Four]) -> bool:
    """Whether boxes are fractions of the picture although the format has pixels: (nearly) none of them exceeds 1."""
    within = sum(all(-_ROUNDING <= value <= 1 + _ROUNDING for value in box) for box in boxes)
    return bool(boxes) and within >= MOST * len(boxes)


def clean_name(value: object) -> str | None:
    """A class name with its whitespace normalised; None if it is not printable text."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    return name if name and name.isprintable() else None


def as_text(value: Any) -> str | None:
    """Text as it is, a number as JSON writes it; None for anything else."""
    return value if isinstance(value, str) else dumps(value) if isinstance(value, (int, float)) else None


def split_names(text: str, chosen: Sequence[str] = ()) -> list[str]:
    """The class names in a text, separated by commas, semicolons or bars; repeated names stay.

    A name in `chosen` may contain a separator if it is the whole text.
    """
    whole = clean_name(text)
    parts = [whole] if whole in chosen else [clean_name(part) for part in re.split(r"[,;|]", text)]
    return [part for part in parts if part]


def to_record(annotation: Annotation, picture: Picture, names: Sequence[str], oddities: Oddities) -> LabelRecord:
    """The objects of one image as a label record; all become polygons if any has an outline, as a file holds one kind."""
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
    """Whether the coordinates refer to the picture as stored, before EXIF turns it by 90 degrees; judged by its size."""
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
    """The object in fractions of the upright picture."""
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
    """The box or polygon clipped to the picture; None if nothing is left of it."""
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
