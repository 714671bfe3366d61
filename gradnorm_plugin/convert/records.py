"""What the three formats have in common: an annotation's objects, and all that was found in a source.

Coordinates are x to the right and y down from the upper left corner, in pixels unless `Annotation.shares` says that
they are shares of the image's width and height.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class ConversionError(ValueError):
    """Nothing can be converted; the message says why, where and what to do."""


class Object(NamedTuple):
    """A box (x1, y1, x2, y2) of the class `name`, its outline if there is one, and the line that it stands in."""

    name: str
    corners: tuple[float, float, float, float]
    where: str
    points: tuple[tuple[float, float], ...] | None = None
    class_index: int | None = None  # set where a format counts classes instead of naming them
    centred: tuple[float, float, float, float] | None = None  # cx, cy, w, h as they were written


@dataclass
class Annotation:
    """The objects of one image, the size (width, height) that the annotation gives the image, and its file."""

    objects: list[Object]
    where: str
    size: tuple[float, float] | None = None
    shares: bool = False


@dataclass
class Source:
    """All that one source says. Keys are image files; an image in `faulty` has an annotation that cannot be read.

    `names` are the box classes in the order of the source; `image_classes` the names that an image's own entry gives;
    `image_class_order` the order in which the source numbers them, if it does; `splits` the images of train, val, test.
    `complete`: whether an image that is not in `annotations` is a background (else it is no part of the data set).
    """

    annotations: dict[Path, Annotation] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    image_classes: dict[Path, list[str]] | None = None
    image_class_order: list[str] = field(default_factory=list)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    complete: bool = True


def number(value: object) -> float | None:
    """`value`, a number or the text of one, as a finite float; None if it is neither."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def clean_name(value: object) -> str | None:
    """A class name without blanks around it; None if it is no text that can be printed."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    return name if name and name.isprintable() else None


def split_names(text: str, chosen: Sequence[str] = ()) -> list[str]:
    """The class names in a text, as often as they are in it, between commas, semicolons or bars.

    A name of `chosen` may have such signs itself, if it is the whole text.
    """
    whole = clean_name(text)
    parts = [whole] if whole in chosen else [clean_name(part) for part in re.split(r"[,;|]", text)]
    return [part for part in parts if part]


def shown(path: Path) -> str:
    """`path` as messages have it: relative to the working folder if it lies in it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
