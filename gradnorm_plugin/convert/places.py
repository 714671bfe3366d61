"""Where a source has its images and annotations, and in which format they are, where the user does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gradnorm_plugin.convert.coco_json import is_coco, load_json
from gradnorm_plugin.convert.description import Description, read_description
from gradnorm_plugin.convert.images import SUFFIXES, ImageIndex, files_under
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.records import ConversionError, shown
from gradnorm_plugin.convert.split import split_of_path

FORMATS = ("voc", "coco", "yolo")
_YAML = ("yaml", "yml")


def detect_format(place: Path) -> str:
    """The format of the annotations at `place`, by the suffixes of its files: .xml, .json, or .txt in a folder `labels`.

    Raises:
        ConversionError: if they are of none or several formats.
    """
    if place.is_file():
        suffix = place.suffix[1:].lower()
        known = {"xml": "voc", "json": "coco", "txt": "yolo", **dict.fromkeys(_YAML, "yolo")}
        if suffix not in known:
            raise ConversionError(f"{shown(place)} is no .json and no data yaml: name a folder, or say --format")
        return known[suffix]
    files = files_under(place, ["xml", "json", "txt", *_YAML])
    found = {"xml": "voc", "json": "coco"}
    formats = {found[file.suffix[1:].lower()] for file in files if file.suffix[1:].lower() in found}
    yolo = (file.suffix[1:] in _YAML or file.name == "classes.txt" or "labels" in file.parent.parts for file in files)
    formats |= {"yolo"} if any(yolo) else set()
    if len(formats) != 1:
        what = f"annotations of several formats ({', '.join(sorted(formats))})" if formats else "no .xml, .json or labels/*.txt"
        raise ConversionError(f"{shown(place)} has {what}: say --format voc, coco or yolo, and where they are by --annotations")
    return formats.pop()


def find_images(source: Path, given: Path | None) -> ImageIndex:
    """The images below the folder given, else below the source's JPEGImages, else below the source.

    Raises:
        ConversionError: if there are none.
    """
    root = given or (source if source.is_dir() else source.parent)
    if not given and (root / "JPEGImages").is_dir():
        root = root / "JPEGImages"
    files = files_under(root, SUFFIXES) if root.is_dir() else []
    if not files:
        raise ConversionError(f"{shown(root)} has no images ({', '.join(sorted(SUFFIXES))}): name their folder by --images")
    return ImageIndex(root, files)


def find_xml(source: Path, given: Path | None) -> list[Path]:
    """The XML files given (a file or a folder), else those below the source's Annotations, else those below the source.

    Raises:
        ConversionError: if there are none.
    """
    place = given or (source / "Annotations" if (source / "Annotations").is_dir() else source)
    files = [place] if place.is_file() else files_under(place, ["xml"])
    if not files:
        raise ConversionError(f"{shown(place)} has no .xml file: name the folder of the annotations by --annotations")
    return files


def find_json(source: Path, given: Path | None, oddities: Oddities) -> tuple[dict[Path, Any], dict[Path, str]]:
    """The content of each COCO file and, if all are of a split, the split of each.

    In a folder, those called `instances*` if there are any, else all that are COCO's.

    Raises:
        ConversionError: if there are none, or one cannot be read.
    """
    place = given or source
    files = [place] if place.is_file() else files_under(place, ["json"])
    files = [file for file in files if file.name.startswith("instances")] or files
    contents = {}
    for file in files:
        content = load_json(file)
        if is_coco(content):
            contents[file] = content
        elif len(files) > 1:
            oddities.add(Kind.OTHER_JSON, shown(file))
    if not contents:
        raise ConversionError(
            f"{shown(place)} {'is' if place.is_file() else 'has'} no COCO file (JSON with the lists images, annotations, "
            "categories): name it by --annotations"
        )
    base = place.parent if place.is_file() else place
    splits = {file: split_of_path(PurePosixPath(file.relative_to(base).as_posix())) for file in contents}
    return contents, {file: split for file, split in splits.items() if split} if all(splits.values()) else {}


def find_description(source: Path) -> Description | None:
    """The data yaml that `source` is or holds: directly in it, one that has `names`.

    Raises:
        ConversionError: if there are several, or it cannot be used.
    """
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.suffix[1:].lower() in _YAML)
    if len(files) > 1:
        raise ConversionError(
            f"{shown(source)} has several yaml files ({_names(files)}): name the data yaml as SOURCE, with --images"
        )
    return read_description(files[0]) if files else None


def listed_classes(*folders: Path) -> list[str]:
    """The lines of the first `classes.txt` in one of the folders, as labelling programs write it; none without one."""
    for folder in folders:
        file = folder / "classes.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return []


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
