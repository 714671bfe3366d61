"""What an annotation says, whatever its format, and the label record that it becomes.

Coordinates are x to the right and y down from the upper left corner, in pixels of the annotated picture; from
`to_record` on they are shares of the picture that training sees, in it, with area, and each once.
Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradnorm_plugin.convert.image_files import TURNS_BY_90, ImageIndex, Picture
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities
from gradnorm_plugin.labels import Box, LabelRecord, Polygon
from gradnorm_plugin.outputs import CLASS, Classes, LabelSet, Outputs, Target, Value, label_rules

Point = tuple[float, float]
Four = tuple[float, float, float, float]

CLASS_KEYS = ("image_class", "class", "category", "label")
"""Under which the entry of an image has its class, as people call it."""


class Object(NamedTuple):
    """A box (x1, y1, x2, y2) of the class `name`, its outline if there is one, and the line that it stands in.

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
    """The objects of one image, the size (width, height) that the annotation gives the image, and its file."""

    objects: list[Object]
    where: str
    size: tuple[float, float] | None = None


@dataclass
class Source:
    """All that one source says. Keys are image files; an image in `faulty` has an annotation that cannot be read.

    `names` are the box classes in the order of the source; `image_classes` the names that an image's own entry gives;
    `image_class_order` the order in which the source numbers them, if it does; `splits` the images of train, val, test.
    `entries` are what is said of each image by key (COCO's of `images`, tags, choices), each with the place where it stands;
    `class_keys` several of these keys that may be the class; `outputs` the image outputs that the source has already, and `said`
    what it says for each.
    `complete`: whether an image that is not in `annotations` is a background (else it is no part of the data set).
    """

    annotations: dict[Path, Annotation] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    image_classes: dict[Path, list[str]] | None = None
    image_class_order: list[str] = field(default_factory=list)
    entries: dict[Path, list[tuple[str, Mapping[str, Any]]]] | None = None
    class_keys: tuple[str, ...] = ()
    outputs: Outputs = ()
    said: dict[str, dict[Path, Target]] = field(default_factory=dict)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    complete: bool = True

    def the_one(
        self, images: Sequence[Path], where: str, index: ImageIndex, oddities: Oddities, absent: str = "no such image"
    ) -> Path | None:
        """The image that an annotation belongs to, if only one fits; else that is noted, and those that fit are left out."""
        if len(images) == 1:
            return images[0]
        fits = ", ".join(map(index.key, images))
        oddities.add(Kind.AMBIGUOUS if images else Kind.NO_IMAGE, where, fits or absent)
        self.faulty.update(images)
        return None

    def begin(self, image: Path, where: str, size: tuple[float, float] | None, oddities: Oddities) -> Annotation:
        """The annotation of an image, a new one if it has none; an image that has one already is noted."""
        if image in self.annotations:
            oddities.add(Kind.LISTED_TWICE, where, f"{self.annotations[image].where} is the same image")
        return self.annotations.setdefault(image, Annotation([], where, size))

    def note_unlisted(self, index: ImageIndex, oddities: Oddities) -> None:
        """Note the images that the source says nothing of."""
        for image in index.files:
            if image not in self.annotations and image not in self.faulty:
                oddities.add(Kind.UNLISTED, index.key(image))


@dataclass(frozen=True)
class ImageLabels:
    """What is known of the images as a whole: the image outputs, and by the name of each the targets of those that have one."""

    outputs: Outputs
    targets: Mapping[str, Mapping[Path, Target]]

    def added_to(self, record: LabelRecord, image: Path) -> LabelRecord:
        """The record with the lines of the image outputs; that of `class` without a name wherever this is allowed."""
        named = {name: targets[image] for name, targets in self.targets.items() if image in targets}
        bare = label_rules(self.outputs).unnamed == CLASS and CLASS in named
        return replace(record, image_class=int(named.pop(CLASS)[0]) if bare else None, named=named)

    def contradict(self, image: Path, other: Path) -> bool:
        """Whether the two have different targets for one output."""
        return any(
            image in targets and other in targets and targets[image] != targets[other] for targets in self.targets.values()
        )

    def strata(self) -> dict[Path, int]:
        """The group of each image that a drawn split takes its share of.

        Groups are the classes of the first output that has classes, else the rarest of an image's labels, else quarters of
        the values.
        """
        first = next((output for kind in (Classes, LabelSet, Value) for output in self.outputs if isinstance(output, kind)), None)
        if first is None:
            return {}
        targets = self.targets[first.name]
        if isinstance(first, Classes):
            return {image: int(target[0]) for image, target in targets.items()}
        if isinstance(first, Value):
            quarters = np.quantile([target[0] for target in targets.values()], (0.25, 0.5, 0.75))
            return {image: int(np.searchsorted(quarters, target[0])) for image, target in targets.items()}
        present = {image: [label for label, there in enumerate(target) if there] for image, target in targets.items()}
        counts = Counter(label for labels in present.values() for label in labels)
        return {image: min(labels, key=lambda label: counts[label], default=first.width) for image, labels in present.items()}


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
    found = [number(value) for value in values]
    if len(found) != 4:
        return None
    a, b, c, d = found
    return None if a is None or b is None or c is None or d is None else (a, b, c, d)


def size_of(width: object, height: object) -> tuple[float, float] | None:
    """Width and height; None if they are not two numbers above 0."""
    sides = number(width) or 0, number(height) or 0
    return sides if min(sides) > 0 else None


def points_of(pairs: Iterable[object]) -> list[Point] | None:
    """The points of an outline, three at least; None if one is no pair of numbers."""
    found = []
    for pair in pairs:
        x, y = map(number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if x is None or y is None:
            return None
        found.append((x, y))
    return found if len(found) > 2 else None


def around(points: Sequence[Point]) -> Four:
    """The box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(points: Iterable[Point], pivot: Point, degrees: float) -> list[Point]:
    """Points turned clockwise (as the picture is seen) about a pivot."""
    cos, sin, (a, b) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), pivot
    return [(a + (x - a) * cos - (y - b) * sin, b + (x - a) * sin + (y - b) * cos) for x, y in points]


def are_shares(boxes: Sequence[Four]) -> bool:
    """Whether a source's boxes are shares of the picture where pixels are usual: (nearly) none of them reaches beyond 1."""
    within = sum(all(-_ROUNDING_SHARE <= value <= 1 + _ROUNDING_SHARE for value in box) for box in boxes)
    return bool(boxes) and within >= MOST * len(boxes)


def clean_name(value: object) -> str | None:
    """A class name without blanks around it; None if it is no text that can be printed."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    return name if name and name.isprintable() else None


def as_text(value: Any) -> str | None:
    """A text, or a number as JSON has it; None for anything else."""
    return value if isinstance(value, str) else dumps(value) if isinstance(value, (int, float)) else None


def note_class(source: Source, image: Path, entry: Mapping[str, Any], keys: Sequence[str], chosen: Sequence[str]) -> None:
    """Note the class of an image: a text, or a list of texts, under the first of `keys` that its entry has."""
    given = next((entry[key] for key in keys if entry.get(key) is not None), None)
    if given is None:
        return
    texts = [text for text in map(as_text, given if isinstance(given, list) else [given]) if text]
    source.image_classes = source.image_classes or {}
    named = [name for text in texts for name in split_names(text, chosen)]
    before = source.image_classes.setdefault(image, [])
    before += [name for name in named if not before or name not in before] if before else named


def split_names(text: str, chosen: Sequence[str] = ()) -> list[str]:
    """The class names in a text, as often as they are in it, between commas, semicolons or bars.

    A name of `chosen` may have such signs itself, if it is the whole text.
    """
    whole = clean_name(text)
    parts = [whole] if whole in chosen else [clean_name(part) for part in re.split(r"[,;|]", text)]
    return [part for part in parts if part]


_ROUNDING = 0.5  # pixels by which a box may reach out without mention
_ROUNDING_SHARE = 1e-3
_THINNEST = 1e-6  # share of the picture's side: the last digit of common label files
MOST = 0.7  # of the boxes of a file that must agree before all are read so: some may be wrong


def to_record(
    annotation: Annotation,
    picture: Picture,
    names: Sequence[str],
    oddities: Oddities,
) -> LabelRecord:
    """The objects of one image as a label record; all as polygons if any has an outline, for a file holds one kind."""
    turn = _is_turned(annotation, picture, oddities)
    fitted: list[tuple[Object, Box | Polygon]] = []
    seen = set()
    for thing in annotation.objects:
        thing = _as_shares(thing, picture, turn)
        if thing.name not in names:
            oddities.add(Kind.UNKNOWN_CLASS, thing.where, thing.name)
            continue
        shape = _fit(thing, names.index(thing.name), picture, oddities)
        if shape in seen:
            oddities.add(Kind.REPEATED_BOX, thing.where, thing.name)
        elif shape:
            seen.add(shape)
            fitted.append((thing, shape))
    boxes = tuple(shape for _, shape in fitted if isinstance(shape, Box))
    if len(boxes) == len(fitted):
        return LabelRecord(boxes=boxes)
    polygons = []
    for thing, shape in fitted:
        if isinstance(shape, Box):
            oddities.add(Kind.NO_OUTLINE, thing.where, thing.name)
            shape = _rectangle(shape)
        polygons.append(shape)
    return LabelRecord(polygons=tuple(polygons))


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
    if thing.shares and not turn:
        return thing
    width, height = (1, 1) if thing.shares else picture.stored if turn else picture.size

    def share(x: float, y: float) -> Point:
        x, y = x / width, y / height
        return _upright(x, y, picture.orientation) if turn else (x, y)

    x1, y1, x2, y2 = thing.corners
    (left, top), (right, bottom) = share(x1, y1), share(x2, y2)
    if turn and x1 <= x2 and y1 <= y2:  # turning exchanges corners
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    points = tuple(share(x, y) for x, y in thing.points) if thing.points else None
    return thing._replace(corners=(left, top, right, bottom), points=points)


def _upright(x: float, y: float, orientation: int) -> Point:
    """Where a point of the stored picture is in the upright one, in shares; EXIF orientations 5 to 8."""
    return {5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x)}[orientation]


def _fit(thing: Object, class_index: int, picture: Picture, oddities: Oddities) -> Box | Polygon | None:
    """The box or polygon within the picture; None if nothing is left of it."""
    x1, y1, x2, y2 = thing.corners
    width, height = picture.size
    if abs(x2 - x1) < _THINNEST or abs(y2 - y1) < _THINNEST:
        oddities.add(Kind.NO_AREA, thing.where, f"{thing.name} {_pixels(thing, picture)}")
        return None
    if x2 < x1 or y2 < y1:
        oddities.add(Kind.REVERSED, thing.where, f"{thing.name} {_pixels(thing, picture)}")
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    left, top, right, bottom = _clip(x1), _clip(y1), _clip(x2), _clip(y2)
    if right - left < _THINNEST or bottom - top < _THINNEST:
        oddities.add(Kind.BEYOND, thing.where, f"{thing.name} {_pixels(thing, picture)}")
        return None
    outside = max(-x1 * width, (x2 - 1) * width, -y1 * height, (y2 - 1) * height)
    if outside > _ROUNDING:
        oddities.add(Kind.OUTSIDE, thing.where, f"{thing.name}, by {outside:.3g} pixels")
    if thing.points:
        points = tuple((_clip(x), _clip(y)) for x, y in thing.points)
        xs, ys = zip(*points, strict=True)
        if max(xs) - min(xs) >= _THINNEST and max(ys) - min(ys) >= _THINNEST:
            return Polygon(class_index, points)
    elif thing.centred and outside <= _ROUNDING and all(0 <= value <= 1 for value in thing.centred):
        return Box(class_index, *thing.centred)
    return Box(class_index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _pixels(thing: Object, picture: Picture) -> str:
    width, height = picture.size
    x1, y1, x2, y2 = thing.corners
    return f"from ({x1 * width:.4g}, {y1 * height:.4g}) to ({x2 * width:.4g}, {y2 * height:.4g})"


def _rectangle(box: Box) -> Polygon:
    left, right = _clip(box.cx - box.w / 2), _clip(box.cx + box.w / 2)
    top, bottom = _clip(box.cy - box.h / 2), _clip(box.cy + box.h / 2)
    return Polygon(box.class_index, ((left, top), (right, top), (right, bottom), (left, bottom)))


def read_renaming(text: str) -> tuple[str, str]:
    """The old and the new name that one `--rename` is followed by.

    Raises:
        argparse.ArgumentTypeError: if they are not two names.
    """
    old, _, new = text.rpartition("=")
    names = clean_name(old), clean_name(new)
    if names[0] is None or names[1] is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write OLD=NEW, such as rbc=RBC")
    return names[0], names[1]


def rename(source: Source, wishes: Sequence[tuple[str, str]]) -> None:
    """Give the box classes of the source their new names, all at once; the first of those that become one gives the place.

    Raises:
        ConversionError: if the source has no class of an old name.
    """
    new = dict(wishes)
    for old in new:
        if old not in source.names:
            close = get_close_matches(old, source.names, 1, 0.5) or [
                name for name in source.names if name.casefold() == old.casefold()
            ]
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConversionError(
                f"--rename {old}={new[old]}: there is no box class {old} (there are {', '.join(source.names) or 'none'}){hint}"
            )
    source.names = list(dict.fromkeys(new.get(name, name) for name in source.names))
    for annotation in source.annotations.values():
        annotation.objects = [thing._replace(name=new.get(thing.name, thing.name)) for thing in annotation.objects]
