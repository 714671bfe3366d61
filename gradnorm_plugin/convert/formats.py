"""The annotation formats: detecting the one a source has, and reading it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gradnorm_plugin.convert.coco import is_coco, load_json, read_coco
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.labelstudio import is_label_studio, read_label_studio
from gradnorm_plugin.convert.masks import find_masks, read_masks
from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.xml_formats import is_cvat, read_cvat, read_voc
from gradnorm_plugin.convert.yolo import CLASS_FILES, YAML_SUFFIXES, is_label_file, read_yolo

FORMATS: dict[str, Callable[[argparse.Namespace, Source], None]] = {
    "voc": read_voc,
    "coco": read_coco,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "labelstudio": read_label_studio,
    "masks": read_masks,
}
"""The function that reads each format into a source."""


def read_source(options: argparse.Namespace, index: ImageIndex) -> Source:
    """What the annotations of the images of `index` say."""
    source = Source(index)
    FORMATS[options.format or detect_format(options.annotations or options.source, index)](options, source)
    if not source.complete:
        for image in index.files:
            if image not in source.annotations and image not in source.faulty:
                source.note(Kind.UNLISTED, image)
    return source


def detect_format(place: Path, index: ImageIndex) -> str:
    """Detect the format of the annotations at `place`: .xml, .json, or .txt in a folder `labels` or beside the images."""
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
    if jsons and sum(marks.values()) > 1:  # other programs keep notes and settings as JSON, too
        marks["coco"] = any(is_coco(load_json(file)) for file in jsons if file not in lists)
        marks["labelstudio"] = any(is_label_studio(load_json(file)) for file in lists)
    formats = [name for name, there in marks.items() if there] or (["masks"] if find_masks(place, None) else [])
    if len(formats) != 1:
        what = f"annotations of several formats ({', '.join(sorted(formats))})" if formats else "no .xml, .json or labels/*.txt"
        *others, last = FORMATS
        raise ConversionError(
            f"{shown(place)} has {what}: say --format {', '.join(others)} or {last}, and where they are by --annotations"
        )
    return formats[0]


def _is_list(file: Path) -> bool:
    """Whether a JSON file is a list: Label Studio's are, COCO's are not."""
    try:
        with file.open("rb") as stream:
            return stream.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError:
        return False
