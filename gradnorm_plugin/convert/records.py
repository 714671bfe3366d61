"""From what an annotation says to the label record that training reads: boxes in the upright picture, with area, each once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches

from gradnorm_plugin.convert.image_files import TURNS_BY_90, Picture
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities
from gradnorm_plugin.convert.source import Annotation, Object, Point, Source, clean_name
from gradnorm_plugin.labels import Box, LabelRecord, Polygon

_ROUNDING = 0.5  # pixels by which a box may reach out without mention
_THINNEST = 1e-6  # share of the picture's side: the last digit of common label files


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
    if outside > _ROUNDING:
        oddities.add(Kind.OUTSIDE, thing.where, f"{thing.name}, by {outside:.3g} pixels")
    if thing.points:
        points = tuple((_clip(x), _clip(y)) for x, y in thing.points)
        xs, ys = zip(*points, strict=True)
        if max(xs) - min(xs) >= _THINNEST and max(ys) - min(ys) >= _THINNEST:
            return Polygon(class_index, points)
    elif thing.centred and outside <= _ROUNDING and all(0 <= value <= 1 for value in thing.centred):
        return Box(class_index, *thing.centred)  # to the last digit as it was
    return Box(class_index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _rectangle(box: Box) -> Polygon:
    left, right = _clip(box.cx - box.w / 2), _clip(box.cx + box.w / 2)
    top, bottom = _clip(box.cy - box.h / 2), _clip(box.cy + box.h / 2)
    return Polygon(box.class_index, ((left, top), (right, top), (right, bottom), (left, bottom)))


def read_renaming(text: str) -> tuple[str, str]:
    """The old and the new name of one `--rename`.

    Raises:
        argparse.ArgumentTypeError: if they are not two names.
    """
    old, _, new = text.rpartition("=")
    names = clean_name(old), clean_name(new)
    if names[0] is None or names[1] is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write OLD=NEW, such as rbc=RBC")
    return names[0], names[1]


def rename(source: Source, wishes: Sequence[tuple[str, str]]) -> None:
    """Rename the box classes of the source, all at once; where several become one, the first gives the place.

    Raises:
        ConversionError: if the source has no class of an old name.
    """
    new = dict(wishes)
    for old in new:
        if old not in source.names:
            close = get_close_matches(old, source.names, 1, 0.5)
            close += [name for name in source.names if name.casefold() == old.casefold()]
            raise ConversionError(
                f"--rename {old}={new[old]}: there is no box class {old} (there are {', '.join(source.names) or 'none'})"
                f"{f'; did you mean {close[0]}?' if close else ''}"
            )
    source.names = list(dict.fromkeys(new.get(name, name) for name in source.names))
    for annotation in source.annotations.values():
        annotation.objects = [thing._replace(name=new.get(thing.name, thing.name)) for thing in annotation.objects]
