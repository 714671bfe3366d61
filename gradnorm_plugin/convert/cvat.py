"""CVAT for images 1.1: one XML file of <image> elements with boxes, outlines and tags, whose attributes are pixels from 0.

What is said of the image: the labels of its <tag> elements, under `tags`, and the tags' attributes by their names. A CVAT
project has several tasks in one file; a file `for video` has tracks in the place of images, and is not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import (
    CLASS_KEYS,
    Object,
    Point,
    Source,
    around,
    clean_name,
    four_numbers,
    note_class,
    number,
    points_of,
    size_of,
    turned,
)
from gradnorm_plugin.convert.image_files import ImageIndex, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.convert.voc import Element, XmlError, parse_xml

TAGS = "tags"
_HEAD = re.compile(rb"<annotations[\s>]")
_NO_BOX = {"polyline", "points", "skeleton", "cuboid"}


def is_cvat(file: Path) -> bool:
    """Whether an XML file begins as CVAT's do."""
    try:
        with file.open("rb") as stream:
            return _HEAD.search(stream.read(1000)) is not None
    except OSError:
        return False


def read_cvat(
    files: Iterable[Path], index: ImageIndex, oddities: Oddities, class_key: str | None, chosen: Sequence[str], polygons: bool
) -> Source:
    """What the files say of the images of `index`; box classes in the order of the file's labels, then of the alphabet.

    Raises:
        ConversionError: if a file is not CVAT's, or is one for video.
    """
    source = Source(complete=False, entries={})
    order: list[str] = []
    keys = (class_key,) if class_key else (*CLASS_KEYS, TAGS)
    for file in files:
        try:
            root = parse_xml(file.read_bytes())
            if root.tag != "annotations":
                raise XmlError(root.line, f"<{root.tag}> where CVAT has <annotations>")
        except XmlError as error:
            raise ConversionError(f"{shown(file)}:{error.line}: {error}: export it anew") from None
        if track := next(root.all("track"), None):
            raise ConversionError(f"{shown(file)}:{track.line}: CVAT for video: export it as `CVAT for images 1.1`")
        order += [name for name in map(clean_name, _label_names(root)) if name]
        for element in root.all("image"):
            _read_image(element, file, index, source, oddities, keys, chosen, polygons)
    if sum(map(len, source.splits.values())) < len(source.annotations):
        source.splits = {}  # some images are of no subset, or of one called otherwise
    found = {thing.name for annotation in source.annotations.values() for thing in annotation.objects}
    source.names = [name for name in dict.fromkeys(order) if name in found] + sorted(found - set(order))
    source.note_unlisted(index, oddities)
    return source


def _label_names(root: Element) -> list[str | None]:
    """The labels under <meta>, which stand below the task, job or project."""
    return [label.get("name") for element in root.below("labels") for label in element.all("label")]


def _read_image(
    element: Element,
    file: Path,
    index: ImageIndex,
    source: Source,
    oddities: Oddities,
    keys: Sequence[str],
    chosen: Sequence[str],
    polygons: bool,
) -> None:
    name = element.attributes.get("name", "")
    where = f"{shown(file)}:{element.line}: {name or 'an image without a name'}"
    image = source.the_one(index.find(name, near=file) if name else [], where, index, oddities)
    if image is None:
        return
    size = size_of(element.attributes.get("width"), element.attributes.get("height"))
    annotation = source.begin(image, where, size, oddities)
    tags = list(element.all("tag"))
    entry: dict[str, object] = {TAGS: [label for label in (clean_name(tag.attributes.get("label")) for tag in tags) if label]}
    for tag in tags:
        for attribute in tag.all("attribute"):
            if attribute.text.strip() and (key := attribute.attributes.get("name")):
                entry[key] = attribute.text.strip()
    if source.entries is not None:
        source.entries.setdefault(image, []).append((f"{shown(file)}:{element.line}", entry))
    note_class(source, image, entry, keys, chosen)
    for child in element.children:
        if child.tag in {"box", "polygon", "ellipse", "mask"}:
            thing = _object(child, f"{shown(file)}:{child.line}", oddities, polygons)
            annotation.objects += [thing] if thing else []
        elif child.tag in _NO_BOX:
            label = child.attributes.get("label", "")
            oddities.add(Kind.UNREADABLE_OBJECT, f"{shown(file)}:{child.line}", f"{label}: a {child.tag} is no box")
    split = split_of_name(element.attributes.get("subset", ""))
    if split:
        source.splits.setdefault(split, []).append(image)


def _object(element: Element, where: str, oddities: Oddities, polygons: bool) -> Object | None:
    name, given = clean_name(element.attributes.get("label")), element.attributes
    points: list[Point] | None = None
    if element.tag == "box":
        corners = four_numbers(given.get(edge) for edge in ("xtl", "ytl", "xbr", "ybr"))
    elif element.tag == "mask":
        sides = four_numbers(given.get(edge) for edge in ("left", "top", "width", "height"))
        corners = (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3]) if sides else None
    elif element.tag == "ellipse":
        sides = four_numbers(given.get(edge) for edge in ("cx", "cy", "rx", "ry"))
        corners = (sides[0] - sides[2], sides[1] - sides[3], sides[0] + sides[2], sides[1] + sides[3]) if sides else None
    else:
        points = points_of(pair.split(",") for pair in given.get("points", "").split(";"))
        corners = around(points) if points else None
    if name is None or corners is None:
        missing = "no label" if name is None else "its numbers cannot be read"
        oddities.add(Kind.UNREADABLE_OBJECT, where, f"a {element.tag}: {missing}")
        return None
    if angle := number(given.get("rotation")):  # about the middle, clockwise
        x1, y1, x2, y2 = corners
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        if element.tag == "ellipse":
            a, b, turn = (x2 - x1) / 2, (y2 - y1) / 2, math.radians(angle)
            half = math.hypot(a * math.cos(turn), b * math.sin(turn)), math.hypot(a * math.sin(turn), b * math.cos(turn))
            corners = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
        else:
            corners = around(turned([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], middle, angle))
        if not all(map(math.isfinite, corners)):
            oddities.add(Kind.UNREADABLE_OBJECT, where, f"a {element.tag}: its numbers cannot be read")
            return None
        oddities.add(Kind.AROUND_TURNED, where, f"{name}, by {angle:g} degrees")
    return Object(name, corners, where, tuple(points) if points and polygons else None)
