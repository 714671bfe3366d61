"""The formats of annotations: telling which one a source has, and reading it."""

from __future__ import annotations

import argparse
from pathlib import Path

from gradnorm_plugin.convert.annotations import Source
from gradnorm_plugin.convert.coco import CocoReader, find_json, is_coco, load_json
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.oddities import ConversionError, Oddities, shown
from gradnorm_plugin.convert.voc import find_xml, read_voc
from gradnorm_plugin.convert.yolo import CLASS_FILES, YAML_SUFFIXES, find_description, is_label_file, listed_classes, read_yolo

FORMATS = ("voc", "coco", "yolo")


def read_source(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    """What the annotations of the images of `index` say.

    Raises:
        ConversionError: if they are not where and what the options say.
    """
    form = options.format or detect_format(options.annotations or options.source, index)
    if form == "voc":
        return read_voc(find_xml(options.source, options.annotations), index, oddities, options.drop_difficult)
    if form == "coco":
        contents, splits = find_json(options.source, options.annotations, oddities)
        reader = CocoReader(index, oddities, options.json_key, options.image_class, options.polygons, options.boxes)
        for file, content in contents.items():
            reader.add(file, content, splits.get(file))
        return reader.finish()
    labels = options.annotations
    description = find_description(options.source)
    listed = listed_classes(options.source, options.source / "labels", *([labels] if labels else []))
    names = (description.names if description else listed) or options.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no data yaml and no classes.txt: name the box classes by --names")
    image_classes = (description.image_classes if description else []) or options.image_class
    return read_yolo(index, labels, names, image_classes, description, oddities)


def detect_format(place: Path, index: ImageIndex) -> str:
    """The format of the annotations at `place`: .xml, .json, or .txt in a folder `labels` or beside the images.

    Raises:
        ConversionError: if they are of none or several formats.
    """
    if place.is_file():
        suffix = place.suffix[1:].lower()
        known = {"xml": "voc", "json": "coco", "txt": "yolo", **dict.fromkeys(YAML_SUFFIXES, "yolo")}
        if suffix not in known:
            raise ConversionError(f"{shown(place)} is no .json and no data yaml: name a folder, or say --format")
        return known[suffix]
    files = files_under(place, ["xml", "json", "txt", "names", *YAML_SUFFIXES])
    images = {image.with_suffix("") for image in index.files}
    jsons = [file for file in files if file.suffix.lower() == ".json"]
    marks = {
        "voc": any(file.suffix.lower() == ".xml" for file in files),
        "coco": bool(jsons),
        "yolo": any(
            file.suffix[1:].lower() in YAML_SUFFIXES or file.name in CLASS_FILES or is_label_file(file, images) for file in files
        ),
    }
    if jsons and (marks["voc"] or marks["yolo"]):  # other programs' notes and settings are JSON, too
        marks["coco"] = any(is_coco(load_json(file)) for file in jsons)
    formats = [name for name, there in marks.items() if there]
    if len(formats) != 1:
        what = f"annotations of several formats ({', '.join(sorted(formats))})" if formats else "no .xml, .json or labels/*.txt"
        raise ConversionError(f"{shown(place)} has {what}: say --format voc, coco or yolo, and where they are by --annotations")
    return formats[0]
