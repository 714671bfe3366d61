"""The formats of annotations: telling which one a source has, and reading it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gradnorm_plugin.convert.annotations import Source
from gradnorm_plugin.convert.coco import CocoReader, find_json, is_coco, load_json
from gradnorm_plugin.convert.cvat import is_cvat, read_cvat
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.labelstudio import LabelStudioReader, is_label_studio
from gradnorm_plugin.convert.masks import find_masks, read_masks
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.convert.voc import find_xml, read_voc
from gradnorm_plugin.convert.yolo import CLASS_FILES, YAML_SUFFIXES, find_description, is_label_file, listed_classes, read_yolo


def _voc(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    files = [file for file in find_xml(options.source, options.annotations) if not is_cvat(file) or options.annotations == file]
    return read_voc(files, index, oddities, options.drop_difficult)


def _coco(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    contents, splits = find_json(options.source, options.annotations, oddities)
    reader = CocoReader(index, oddities, options.class_key, options.image_class, options.polygons, options.boxes)
    for file, content in contents.items():
        reader.add(file, content, splits.get(file))
    return reader.finish()


def _yolo(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    labels = options.annotations
    description = find_description(options.source)
    listed = listed_classes(options.source, options.source / "labels", *([labels] if labels else []))
    names = (description.names if description else listed) or options.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no data yaml and no classes.txt: name the box classes by --names")
    image_classes = (description.image_classes if description else []) or options.image_class
    return read_yolo(index, labels, names, image_classes, description, oddities)


def _cvat(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    place = options.annotations or options.source
    files = [place] if place.is_file() else [file for file in files_under(place, ["xml"]) if is_cvat(file)]
    if not files:
        raise ConversionError(f"{shown(place)} has no CVAT file (XML within <annotations>): name it by --annotations")
    return read_cvat(files, index, oddities, options.class_key, options.image_class, options.polygons)


def _label_studio(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    place = options.annotations or options.source
    reader = LabelStudioReader(index, oddities, options.class_key, options.image_class, options.polygons)
    found = False
    for file in [place] if place.is_file() else files_under(place, ["json"]):
        content = load_json(file)
        if is_label_studio(content):
            reader.add(file, content)
            found = True
        else:
            oddities.add(Kind.OTHER_JSON, shown(file))
    if not found:
        raise ConversionError(f"{shown(place)} has no Label Studio file (JSON, a list of tasks): name it by --annotations")
    return reader.finish()


def _masks(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    files = find_masks(options.source, options.annotations)
    if not files:
        raise ConversionError(f"{shown(options.source)} has no masks (PNG files in a folder `masks`): name it by --annotations")
    return read_masks(files, index, oddities, dict(options.mask_classes), options.names)


_Read = Callable[[argparse.Namespace, ImageIndex, Oddities], Source]
FORMATS: dict[str, _Read] = {
    "voc": _voc,
    "coco": _coco,
    "yolo": _yolo,
    "cvat": _cvat,
    "labelstudio": _label_studio,
    "masks": _masks,
}
"""By name, the function that reads it."""


def read_source(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    """What the annotations of the images of `index` say.

    Raises:
        ConversionError: if they are not where and what the options say.
    """
    form = options.format or detect_format(options.annotations or options.source, index)
    return FORMATS[form](options, index, oddities)


def detect_format(place: Path, index: ImageIndex) -> str:
    """The format of the annotations at `place`: .xml, .json, or .txt in a folder `labels` or beside the images.

    Raises:
        ConversionError: if they are of none or several formats.
    """
    if place.is_file():
        suffix = place.suffix[1:].lower()
        if suffix == "xml":
            return "cvat" if is_cvat(place) else "voc"
        if suffix == "json":
            return "labelstudio" if _is_list(place) else "coco"
        if suffix not in ("txt", *YAML_SUFFIXES):
            advice = "unpack it, and name its folder" if suffix == "zip" else "name a folder, or say --format"
            raise ConversionError(f"{shown(place)} is no .json, no .xml and no data yaml: {advice}")
        return "yolo"
    files = files_under(place, ["xml", "json", "txt", "names", *YAML_SUFFIXES])
    images = {image.with_suffix("") for image in index.files}
    xmls = [file for file in files if file.suffix.lower() == ".xml"]
    jsons = [file for file in files if file.suffix.lower() == ".json"]
    lists = [file for file in jsons if _is_list(file)]
    marks = {
        "voc": not all(map(is_cvat, xmls)),
        "cvat": any(map(is_cvat, xmls)),
        "coco": len(lists) < len(jsons),
        "labelstudio": bool(lists),
        "yolo": any(
            file.suffix[1:].lower() in YAML_SUFFIXES or file.name in CLASS_FILES or is_label_file(file, images) for file in files
        ),
    }
    if jsons and sum(marks.values()) > 1:  # other programs' notes and settings are JSON, too
        marks["coco"] = any(is_coco(load_json(file)) for file in jsons if file not in lists)
        marks["labelstudio"] = any(is_label_studio(load_json(file)) for file in lists)
    formats = [name for name, there in marks.items() if there] or (["masks"] if find_masks(place, None) else [])
    if len(formats) != 1:
        what = f"annotations of several formats ({', '.join(sorted(formats))})" if formats else "no .xml, .json or labels/*.txt"
        known = f"{', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}"
        raise ConversionError(f"{shown(place)} has {what}: say --format {known}, and where they are by --annotations")
    return formats[0]


def _is_list(file: Path) -> bool:
    """Whether a JSON file begins as a list: Label Studio's are one, COCO's are not."""
    try:
        with file.open("rb") as stream:
            return stream.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError:
        return False
