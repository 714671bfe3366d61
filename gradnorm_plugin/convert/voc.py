"""Pascal VOC: one XML file for each image. A box's xmin, ymin, xmax, ymax are taken as its edges in pixels from 0.

If (nearly) all boxes of a source are at most 1, they are shares of the picture, and are read so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from gradnorm_plugin.convert.annotations import Annotation, Object, Source, are_shares, clean_name, four_numbers, size_of
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(files: Iterable[Path], index: ImageIndex, oddities: Oddities, drop_difficult: bool = False) -> Source:
    """What the XML files say of the images of `index`; box classes in alphabetical order."""
    source = Source()
    for file in files:
        _read_file(file, index, source, oddities, drop_difficult)
    things = [thing for annotation in source.annotations.values() for thing in annotation.objects]
    if are_shares([thing.corners for thing in things]):
        first = things[0].where.rpartition(":")[0]
        oddities.add(Kind.READING, first, f"{len(things)} boxes, here and in other files, read as shares of the picture")
        for annotation in source.annotations.values():
            annotation.objects = [thing._replace(shares=True) for thing in annotation.objects]
    source.names = sorted({thing.name for thing in things})
    return source


def _read_file(file: Path, index: ImageIndex, source: Source, oddities: Oddities, drop_difficult: bool) -> None:
    try:
        root = parse_xml(file.read_bytes())
        if root.tag != "annotation":
            raise XmlError(root.line, f"<{root.tag}> where Pascal VOC has <annotation>")
    except (XmlError, OSError) as error:
        where = f"{shown(file)}:{error.line}" if isinstance(error, XmlError) else shown(file)
        reason = str(error) if isinstance(error, XmlError) else f"cannot be opened: {error.strerror}"
        oddities.add(Kind.UNREADABLE_ANNOTATION, where, reason)
        source.faulty.update(index.find(file.stem, near=file))
        return
    # The file's own name first: <filename> is often that of a copy made elsewhere.
    named = root.get("filename") or ""
    images = index.find(file.stem, near=file) or index.find(named, near=file)
    if len(images) > 1:
        images = [image for image in images if image.name == named] or images
    absent = f"no image {file.stem}.*" + (f", no {named}" if named else "")
    image = source.the_one(images, shown(file), index, oddities, absent)
    if image in source.annotations:
        oddities.add(Kind.REPEATED_ID, shown(file), f"{index.key(image)} has {source.annotations[image].where} already")
    elif image:
        objects = [_object(element, file, oddities, drop_difficult) for element in root.all("object")]
        kept = [thing for thing in objects if thing is not None]
        source.annotations[image] = Annotation(kept, shown(file), _size(root))


def _size(root: Element) -> tuple[float, float] | None:
    """Width and height as the XML gives them; None if it gives none that are numbers above 0."""
    found = (size_of(size.get("width"), size.get("height")) for size in root.all("size"))
    return next(filter(None, found), None)


def _object(element: Element, file: Path, oddities: Oddities, drop_difficult: bool) -> Object | None:
    where = f"{shown(file)}:{element.line}"
    name = clean_name(element.get("name"))
    names = {child.text.strip() for child in element.all("name")}
    boxes = list(element.all("bndbox"))
    edges = four_numbers(boxes[0].get(edge) for edge in _EDGES) if boxes else None
    if name is None or edges is None or len(names) > 1 or len(boxes) > 1:
        missing = "no <name>" if name is None else "no <bndbox>" if not boxes else "a <bndbox> without four numbers"
        several = f"several names: {', '.join(sorted(names))}" if len(names) > 1 else f"{len(boxes)} times <bndbox>"
        oddities.add(Kind.UNREADABLE_OBJECT, where, missing if name is None or edges is None else several)
        return None
    if element.get("difficult") == "1":
        oddities.add(Kind.DIFFICULT_DROPPED if drop_difficult else Kind.DIFFICULT, where, name)
        if drop_difficult:
            return None
    return Object(name, edges, where)


def find_xml(source: Path, given: Path | None) -> list[Path]:
    """The XML files given (a file or a folder), else those below the source's Annotations, else those below the source.

    Raises:
        ConversionError: if there are none.
    """
    place = given or (source / "Annotations" if (source / "Annotations").is_dir() else source)
    files = [place] if place.is_file() else files_under(place, ["xml"])
    if not files:
        advice = "name another folder" if given else "name the folder of the annotations by --annotations"
        raise ConversionError(f"{shown(place)} has no .xml file: {advice}")
    return files


_DEEPEST = 100
_DECLARED = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_READ_BY_EXPAT = re.compile(rb"(?i)utf-?8|utf-?16|us-ascii|iso-8859-1")


class XmlError(ValueError):
    """What is wrong with an XML text, and in which line (from 1)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class Element:
    """One element: its tag, the line it begins in, its own text, the elements in it, and its attributes."""

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def all(self, tag: str) -> Iterator[Element]:
        """The elements of that tag directly in this one."""
        return (child for child in self.children if child.tag == tag)

    def below(self, tag: str) -> Iterator[Element]:
        """The elements of that tag anywhere in this one."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.below(tag)

    def get(self, tag: str) -> str | None:
        """The text of the first element of that tag directly in this one, without blanks around it; None without one."""
        return next((child.text.strip() for child in self.all(tag)), None)


def parse_xml(content: bytes) -> Element:
    """The outermost element of an XML text; tags in lower case.

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
    top = Element("", 0)
    stack = [top]

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
    except (ValueError, LookupError, UnicodeError) as error:  # an encoding that Python does not know, or cannot use
        if isinstance(error, XmlError):
            raise
        raise XmlError(parser.CurrentLineNumber, f"not readable as XML: {error}") from None
    return top.children[0]
