"""Pascal VOC: one XML file for each image. A box's xmin, ymin, xmax, ymax are taken as its edges in pixels from 0."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gradnorm_plugin.convert.images import ImageIndex
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.records import Annotation, Object, Source, clean_name, number, shown
from gradnorm_plugin.convert.xmltree import Element, XmlError, parse_xml

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(files: Iterable[Path], index: ImageIndex, oddities: Oddities, drop_difficult: bool = False) -> Source:
    """What the XML files say of the images of `index`; box classes in alphabetical order."""
    source = Source()
    for file in files:
        _read_file(file, index, source, oddities, drop_difficult)
    source.names = sorted({thing.name for annotation in source.annotations.values() for thing in annotation.objects})
    return source


def _read_file(file: Path, index: ImageIndex, source: Source, oddities: Oddities, drop_difficult: bool) -> None:
    try:
        root = parse_xml(file.read_bytes())
        if root.tag != "annotation":
            raise XmlError(root.line, f"<{root.tag}> where Pascal VOC has <annotation>")
    except XmlError as error:
        oddities.add(Kind.UNREADABLE_ANNOTATION, f"{shown(file)}:{error.line}", str(error))
        source.faulty.update(index.find(file.stem, near=file))
        return
    except OSError as error:
        oddities.add(Kind.UNREADABLE_ANNOTATION, shown(file), f"cannot be opened: {error.strerror}")
        source.faulty.update(index.find(file.stem, near=file))
        return
    # The file's own name first: <filename> is often that of a copy made elsewhere.
    named = root.get("filename") or ""
    images = index.find(file.stem, near=file) or index.find(named, near=file)
    if len(images) > 1:
        images = [image for image in images if image.name == named] or images
    if not images:
        oddities.add(Kind.NO_IMAGE, shown(file), f"no image {file.stem}.*" + (f", no {named}" if named else ""))
    elif len(images) > 1:
        oddities.add(Kind.AMBIGUOUS, shown(file), ", ".join(index.key(image) for image in images))
        source.faulty.update(images)
    elif images[0] in source.annotations:
        oddities.add(Kind.REPEATED_ID, shown(file), f"{index.key(images[0])} has {source.annotations[images[0]].where} already")
    else:
        objects = [_object(element, file, oddities, drop_difficult) for element in root.all("object")]
        kept = [thing for thing in objects if thing is not None]
        source.annotations[images[0]] = Annotation(kept, shown(file), _size(root))


def _size(root: Element) -> tuple[float, float] | None:
    """Width and height as the XML gives them; None if it gives none that are numbers above 0."""
    for size in root.all("size"):
        width, height = number(size.get("width")), number(size.get("height"))
        if width and height and width > 0 and height > 0:
            return width, height
    return None


def _object(element: Element, file: Path, oddities: Oddities, drop_difficult: bool) -> Object | None:
    where = f"{shown(file)}:{element.line}"
    name = clean_name(element.get("name"))
    box = next(element.all("bndbox"), None)
    edges = [number(box.get(edge)) for edge in _EDGES] if box else []
    if name is None or not edges or None in edges:
        missing = "no <name>" if name is None else "no <bndbox>" if not box else "a <bndbox> without four numbers"
        oddities.add(Kind.UNREADABLE_OBJECT, where, missing)
        return None
    if element.get("difficult") == "1":
        oddities.add(Kind.DIFFICULT_DROPPED if drop_difficult else Kind.DIFFICULT, where, name)
        if drop_difficult:
            return None
    return Object(name, tuple(edges), where)
