"""What a source of labels says, whatever its format: the reader of each format fills one `Source`.

Coordinates are x to the right and y down from the upper left corner, in pixels of the annotated picture or in shares of it.
Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.outputs import Outputs, Target

Point = tuple[float, float]
Four = tuple[float, float, float, float]

CLASS_KEYS = ("image_class", "class", "category", "label")
"""Under which the entry of an image has its class, as people call it."""
READINGS = ("xywh", "xyxy", "cxcywh")
"""What the four numbers of a box may be: corner and size, two corners, centre and size."""
MOST = 0.7
"""Of the boxes of a file that must agree before all are read so: some may be wrong."""
_ROUNDING = 1e-3  # share of the picture's side


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


@dataclass
class Source:
    """All that one source says of the images of `index`, by image file, and what was odd about it.

    `names` are the box classes in the order of the source; `splits` the images of train, val, test; an image in `faulty` has an
    annotation that cannot be read. `complete`: an image that is not in `annotations` is a background (else it is left out).

    What is said of an image as a whole stands in its `entries`, each with its place; the class under the first of `class_keys`
    that an entry has (several `rival_keys` are no answer). YOLO has `image_classes` instead, numbered in the order of
    `image_class_order`, and `said` for each of its image `outputs`.
    """

    index: ImageIndex
    oddities: Oddities = field(default_factory=Oddities)
    annotations: dict[Path, Annotation] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    complete: bool = True
    entries: dict[Path, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    class_keys: Sequence[str] = CLASS_KEYS
    rival_keys: Sequence[str] = ()
    image_classes: dict[Path, list[str]] | None = None
    image_class_order: Sequence[str] = ()
    outputs: Outputs = ()
    said: dict[str, dict[Path, Target]] = field(default_factory=dict)

    def note(self, kind: Kind, where: str | Path, detail: str = "") -> None:
        """Note something odd, about an image or at a place."""
        self.oddities.add(kind, self.index.key(where) if isinstance(where, Path) else where, detail)

    def the_one(self, images: Sequence[Path], where: str, absent: str = "no such image") -> Path | None:
        """The image that an annotation belongs to, if only one fits; else that is noted, and those that fit are left out."""
        if len(images) == 1:
            return images[0]
        self.note(Kind.AMBIGUOUS if images else Kind.NO_IMAGE, where, ", ".join(map(self.index.key, images)) or absent)
        self.faulty.update(images)
        return None

    def begin(self, image: Path, where: str, size: tuple[float, float] | None = None) -> Annotation:
        """The annotation of an image, a new one if it has none; an image that has one already is noted."""
        if image in self.annotations:
            self.note(Kind.LISTED_TWICE, where, f"{self.annotations[image].where} is the same image")
        annotation = self.annotations.setdefault(image, Annotation([], where, size))
        annotation.size = annotation.size or size
        return annotation

    def take_names(self, order: Sequence[str] = ()) -> None:
        """Take the box classes from the objects: in this order, the others by the alphabet."""
        found = {thing.name for annotation in self.annotations.values() for thing in annotation.objects}
        self.names = [name for name in dict.fromkeys(order) if name in found] + sorted(found - set(order))

    def entry_keys(self) -> list[str]:
        """All keys of the entries."""
        return list(dict.fromkeys(str(key) for rows in self.entries.values() for _, entry in rows for key in entry))


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
