"""The data yaml of a YOLO source: its names, and the images of its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.convert.images import ImageIndex
from gradnorm_plugin.convert.records import ConversionError, clean_name, first_line, shown
from gradnorm_plugin.convert.split import SPLITS


@dataclass(frozen=True)
class Description:
    """What a data yaml says: names of boxes and images by index, the entries of its splits, and what they are relative to."""

    file: Path
    names: list[str]
    image_classes: list[str]
    entries: dict[str, list[str]]
    path: str

    def splits(self, index: ImageIndex) -> dict[str, list[Path]]:
        """The images of each entry (a folder, a text file of paths, or several of them) that is there.

        Entries are relative to `path`, or to the yaml; a leading `../` may be one too many, as YOLOv5 has it.
        """
        found: dict[str, list[Path]] = {}
        here = Path(os.path.abspath(self.file)).parent
        for split, entries in self.entries.items():
            for entry in entries:
                tried = [base / part for base in (here / self.path, here) for part in (entry, entry.removeprefix("../"))]
                place = next(
                    (Path(os.path.abspath(place)) for place in tried if os.path.isdir(place) or os.path.isfile(place)), None
                )
                if place is not None:
                    found.setdefault(split, []).extend(_images_of(place, index))
        return {split: images for split, images in found.items() if images}


def _images_of(place: Path, index: ImageIndex) -> list[Path]:
    if place.is_dir():
        return [image for image in index.files if place in Path(os.path.abspath(image)).parents]
    lines = place.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [index.find(line, near=place) for line in lines if line.strip()]
    return [match[0] for match in matches if len(match) == 1]


def read_description(file: Path) -> Description:
    """The content of a data yaml.

    Raises:
        ConversionError: if it cannot be read, or its names cannot be used.
    """
    try:
        content = yaml.safe_load(file.read_bytes())
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConversionError(f"{shown(file)}{line}: not YAML ({error.problem}): correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConversionError(f"{shown(file)}: not readable as YAML: {first_line(error)}: correct it") from None
    if not isinstance(content, Mapping):
        raise ConversionError(f"{shown(file)}: no data yaml: write its `names`")
    entries = {}
    for split in SPLITS:
        entry = content.get(split) or []
        entries[split] = [str(part) for part in (entry if isinstance(entry, list) else [entry])]
    path = content.get("path")
    image_classes = _names(content, "classification_names", file) if content.get("classification_names") else []
    return Description(file, _names(content, "names", file), image_classes, entries, path if isinstance(path, str) else "")


def _names(content: Mapping[Any, Any], key: str, file: Path) -> list[str]:
    found = content.get(key)
    if isinstance(found, Mapping) and all(type(index) is int for index in found):
        if sorted(found) != list(range(len(found))):
            raise ConversionError(f"{shown(file)}: `{key}` is not numbered 0, 1, 2, ...: number its classes so")
        found = [found[index] for index in sorted(found)]
    names = [clean_name(str(name)) for name in found] if isinstance(found, list) else []
    if not names or None in names or len(set(names)) < len(names):
        raise ConversionError(f"{shown(file)}: `{key}` is not a list of different names: write {key}: [first, second, ...]")
    return names
