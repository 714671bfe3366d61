"""XML annotations: Pascal VOC, with a file per image, and `CVAT for images 1.1`, one file of <image> elements.

Coordinates are a box's edges in pixels from 0; if (nearly) all of VOC's are at most 1, they are fractions of the picture. CVAT's
entries about an image are the labels of its tags, under `tags`, and the tags' attributes by name.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from gradnorm_plugin.convert.boxes import (
    Annotation,
    Four,
    Object,
    are_shares,
    around,
    around_turned,
    clean_name,
    corners_of,
    four_numbers,
    number,
    points_of,
    size_of,
)
from gradnorm_plugin.convert.image_files import files_under, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import CLASS_KEYS, Source

TAGS = "tags"
_CVAT_HEAD = re.compile(rb"<annotations[\s>]")
_NUMBERS = {
    "box": (("xtl", "ytl", "xbr", "ybr"), "xyxy"),
    "mask": (("left", "top", "width", "height"), "xywh"),
    "ellipse": (("cx", "cy", "rx", "ry"), "ellipse"),
}
_NO_BOX = {"polyline", "points", "skeleton", "cuboid"}
_DEEPEST = 100
_DECLARED = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_READ_BY_EXPAT = re.compile(rb"(?i)utf-?8|utf-?16|us-ascii|iso-8859-1")


class XmlError(ValueError):
    """What is wrong with an XML file, and in which line (from 1; 0: the file as a whole)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line

    def where(self, file: Path) -> str:
        """The place for a message."""
        return f"{shown(file)}:{self.line}" if self.line else shown(file)


@dataclass
class Element:
    """An element: its tag, the line where it begins, its own text, its child elements and attributes."""

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def all(self, tag: str) -> Iterator[Element]:
        """The child elements with that tag."""
        return (child for child in self.children if child.tag == tag)

    def below(self, tag: str) -> Iterator[Element]:
        """The descendants with that tag."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.below(tag)

    def get(self, tag: str) -> str | None:
        """The stripped text of the first child with that tag, or None."""
        return next((child.text.strip() for child in self.all(tag)), None)


def _read_xml(file: Path, outermost: str, program: str) -> Element:
    """The root element of a file of `program`. Raises XmlError if the file cannot be read, or has another root."""
    try:
        root = parse_xml(file.read_bytes())
    except OSError as error:
        raise XmlError(0, f"cannot be opened: {error.strerror}") from None
    if root.tag != outermost:
        raise XmlError(root.line, f"<{root.tag}> where {program} has <{outermost}>")
    return root


def parse_xml(content: bytes) -> Element:
    """The root element of an XML text, with tags in lower case.

    Raises:
        XmlError: if it is not well-formed, declares entities (annotations need none) or nests deeper than 100.
    """
    encoding = None
    if (declared := _DECLARED.match(content)) and not _READ_BY_EXPAT.fullmatch(declared.group(1)):
        try:
            content, encoding = content.decode(declared.group(1).decode()).encode(), "utf-8"
        except (UnicodeError, LookupError) as error:
            raise XmlError(1, f"not readable in the encoding that it declares: {error}") from None
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    stack = [top := Element("", 0)]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise XmlError(parser.CurrentLineNumber, f"more than {_DEEPEST} elements within each other")
        element = Element(tag.lower(), parser.CurrentLineNumber, attributes=attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def text(letters: str) -> None:
        stack[-1].text += letters

    def entity(*_: object) -> None:
        raise XmlError(parser.CurrentLineNumber, "declares an entity, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, lambda tag: stack.pop()
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise XmlError(error.lineno, f"not well-formed XML: {expat.ErrorString(error.code)}") from None
    except XmlError:
        raise
    except (ValueError, LookupError, UnicodeError) as error:  # an encoding that Python does not know or cannot use
        raise XmlError(parser.CurrentLineNumber, f"not readable as XML: {error}") from None
    return top.children[0]


def is_cvat(file: Path) -> bool:
    """Whether an XML file begins like CVAT's."""
    try:
        with file.open("rb") as stream:
            return _CVAT_HEAD.search(stream.read(1000)) is not None
    except OSError:
        return False


def read_voc(options: argparse.Namespace, source: Source) -> None:
    """Read the given XML file or folder, else the files below `Annotations`, else those below the source."""
    given, beside = options.annotations, options.source / "Annotations"
    place = given or (beside if beside.is_dir() else options.source)
    files = [place] if place.is_file() else files_under(place, ["xml"])
    if not files:
        advice = "name another folder" if given else "name the folder of the annotations by --annotations"
        raise ConversionError(f"{shown(place)} has no .xml file: {advice}")
    for file in files:
        if file == given or not is_cvat(file):
            _read_voc_file(file, source, options.drop_difficult)
    things = [thing for annotation in source.annotations.values() for thing in annotation.objects]
    if are_shares([thing.corners for thing in things]):
        first = things[0].where.rpartition(":")[0]
        source.note(Kind.READING, first, f"{len(things)} boxes, here and in other files, read as shares of the picture")
        for annotation in source.annotations.values():
            annotation.objects = [thing._replace(shares=True) for thing in annotation.objects]
    source.take_names()


def _read_voc_file(file: Path, source: Source, drop_difficult: bool) -> None:
    try:
        root = _read_xml(file, "annotation", "Pascal VOC")
    except XmlError as error:
        source.note(Kind.UNREADABLE_ANNOTATION, error.where(file), str(error))
        source.faulty.update(source.index.find(file.stem, near=file))
        return
    # The XML's own name first: <filename> is often outdated.
    named = root.get("filename") or ""
    images = source.index.find(file.stem, near=file) or source.index.find(named, near=file)
    if len(images) > 1:
        images = [image for image in images if image.name == named] or images
    image = source.the_one(images, shown(file), f"no image {file.stem}.*" + (f", no {named}" if named else ""))
    if image in source.annotations:
        before = source.annotations[image].where
        source.note(Kind.REPEATED_ID, shown(file), f"{source.index.key(image)} has {before} already")
    elif image:
        sizes = (size_of(size.get("width"), size.get("height")) for size in root.all("size"))
        things = (_voc_object(element, file, source, drop_difficult) for element in root.all("object"))
        source.annotations[image] = Annotation(list(filter(None, things)), shown(file), next(filter(None, sizes), None))


def _voc_object(element: Element, file: Path, source: Source, drop_difficult: bool) -> Object | None:
    where = f"{shown(file)}:{element.line}"
    name, names = clean_name(element.get("name")), {child.text.strip() for child in element.all("name")}
    boxes = list(element.all("bndbox"))
    edges = four_numbers(boxes[0].get(edge) for edge in ("xmin", "ymin", "xmax", "ymax")) if boxes else None
    wrong = (
        "no <name>" if name is None
        else "no <bndbox>" if not boxes
        else "a <bndbox> without four numbers" if edges is None
        else f"several names: {', '.join(sorted(names))}" if len(names) > 1
        else f"{len(boxes)} times <bndbox>" if len(boxes) > 1
        else ""
    )  # fmt: skip
    if name is None or edges is None or wrong:
        source.note(Kind.UNREADABLE_OBJECT, where, wrong)
        return None
    if element.get("difficult") == "1":
        source.note(Kind.DIFFICULT_DROPPED if drop_difficult else Kind.DIFFICULT, where, name)
        if drop_difficult:
            return None
    return Object(name, edges, where)


def read_cvat(options: argparse.Namespace, source: Source) -> None:
    """Read the given file, or all CVAT files below the source; box classes are ordered as in the file's list of labels."""
    place = options.annotations or options.source
    files = [place] if place.is_file() else [file for file in files_under(place, ["xml"]) if is_cvat(file)]
    if not files:
        raise ConversionError(f"{shown(place)} has no CVAT file (XML within <annotations>): name it by --annotations")
    source.complete, source.class_keys = False, (*CLASS_KEYS, TAGS)
    order: list[str] = []
    for file in files:
        try:
            root = _read_xml(file, "annotations", "CVAT")
        except XmlError as error:
            raise ConversionError(f"{error.where(file)}: {error}: export it anew") from None
        if track := next(root.all("track"), None):
            raise ConversionError(f"{shown(file)}:{track.line}: CVAT for video: export it as `CVAT for images 1.1`")
        # <labels> is in the task, job or project of <meta>
        names = [label.get("name") for element in root.below("labels") for label in element.all("label")]
        order += filter(None, map(clean_name, names))
        for element in root.all("image"):
            _read_cvat_image(element, file, source, options.polygons)
    if sum(map(len, source.splits.values())) < len(source.annotations):
        source.splits = {}  # some images are in no subset, or in one with another name
    source.take_names(order)


def _read_cvat_image(element: Element, file: Path, source: Source, polygons: bool) -> None:
    name = element.attributes.get("name", "")
    where = f"{shown(file)}:{element.line}: {name or 'an image without a name'}"
    image = source.the_one(source.index.find(name, near=file) if name else [], where)
    if image is None:
        return
    annotation = source.begin(image, where, size_of(element.attributes.get("width"), element.attributes.get("height")))
    labels = [clean_name(tag.attributes.get("label")) for tag in element.all("tag")]
    entry: dict[str, object] = {TAGS: [label for label in labels if label]}
    for attribute in (attribute for tag in element.all("tag") for attribute in tag.all("attribute")):
        if attribute.text.strip() and (key := attribute.attributes.get("name")):
            entry[key] = attribute.text.strip()
    source.entries.setdefault(image, []).append((f"{shown(file)}:{element.line}", entry))
    for child in element.children:
        at = f"{shown(file)}:{child.line}"
        if child.tag == "polygon" or child.tag in _NUMBERS:
            thing = _cvat_object(child, at, source, polygons)
            annotation.objects += [thing] if thing else []
        elif child.tag in _NO_BOX:
            source.note(Kind.UNREADABLE_OBJECT, at, f"{child.attributes.get('label', '')}: a {child.tag} is no box")
    if split := split_of_name(element.attributes.get("subset", "")):
        source.splits.setdefault(split, []).append(image)


def _cvat_object(element: Element, where: str, source: Source, polygons: bool) -> Object | None:
    name, given, points = clean_name(element.attributes.get("label")), element.attributes, None
    if element.tag == "polygon":
        points = points_of(pair.split(",") for pair in given.get("points", "").split(";"))
        corners = around(points) if points else None
    else:
        keys, reading = _NUMBERS[element.tag]
        values = four_numbers(given.get(key) for key in keys)
        corners = corners_of(values, reading) if values else None
    angle = number(given.get("rotation"))
    if corners and angle:
        corners = _turned(corners, angle, element.tag)
    if name is None or corners is None or not all(map(math.isfinite, corners)):
        missing = "no label" if name is None else "its numbers cannot be read"
        source.note(Kind.UNREADABLE_OBJECT, where, f"a {element.tag}: {missing}")
        return None
    if angle:
        source.note(Kind.AROUND_TURNED, where, f"{name}, by {angle:g} degrees")
    return Object(name, corners, where, points if polygons else None)


def _turned(corners: Four, degrees: float, tag: str) -> Four:
    """The box around a box or an ellipse that is turned clockwise about its middle."""
    x1, y1, x2, y2 = corners
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if tag != "ellipse":
        return around_turned(corners, (x, y), degrees)
    a, b, turn = (x2 - x1) / 2, (y2 - y1) / 2, math.radians(degrees)
    half = math.hypot(a * math.cos(turn), b * math.sin(turn)), math.hypot(a * math.sin(turn), b * math.cos(turn))
    return x - half[0], y - half[1], x + half[0], y + half[1]
