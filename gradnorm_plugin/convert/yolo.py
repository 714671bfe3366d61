"""YOLO: a text file of shares for each image, which may already end with a one-hot line, and a data yaml.

A file that our own reader accepts is taken as it is. In another, boxes are taken even where they have no area or reach
outside the image (`to_record` drops or clips them, and says so); any other fault leaves the image out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.convert.annotations import Annotation, Object, Source, clean_name, number
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, first_line, shown
from gradnorm_plugin.convert.split import SPLITS
from gradnorm_plugin.labels import LabelError, parse_label_text

YAML_SUFFIXES = ("yaml", "yml")
_NO_LABELS = {"classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt"}  # text files that lie beside labels
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def read_yolo(
    index: ImageIndex,
    labels: Path | None,
    names: Sequence[str],
    image_classes: Sequence[str],
    description: Description | None,
    oddities: Oddities,
) -> Source:
    """What the label files of the images of `index` say; `labels` is their folder if it is not `labels` beside `images`."""
    source = Source(names=list(names), image_classes={}, image_class_order=list(image_classes))
    used = set()
    for image in index.files:
        file = (labels / index.key(image) if labels else _beside(image)).with_suffix(".txt")
        if not labels and not file.exists() and image.with_suffix(".txt").exists():
            file = image.with_suffix(".txt")
        used.add(file)
        if not file.exists():
            continue
        try:
            text = file.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")  # see labels.read_label_file
            objects, image_class = _read_text(text, file, len(names), len(image_classes), oddities)
        except LabelError as error:
            oddities.add(Kind.UNREADABLE_ANNOTATION, f"{shown(file)}:{error.line}", error.reason)
            source.faulty.add(image)
            continue
        except OSError as error:
            oddities.add(Kind.UNREADABLE_ANNOTATION, shown(file), f"cannot be opened: {error.strerror}")
            source.faulty.add(image)
            continue
        named = [thing._replace(name=names[thing.class_index]) for thing in _known(objects, names, oddities)]
        source.annotations[image] = Annotation(named, shown(file), shares=True)
        if image_class is not None:
            source.image_classes[image] = [image_classes[image_class]]
    folders = {labels} if labels else {file.parent for file in used}
    for file in sorted({file for folder in folders for file in files_under(folder, ["txt"])} - used):
        if file.name.lower() not in _NO_LABELS:
            oddities.add(Kind.NO_IMAGE, shown(file))
    if description:
        source.splits = description.splits(index)
    return source


def _beside(image: Path) -> Path:
    """Where YOLOv5 looks for the labels: the last folder called `images` becomes `labels`, if there is one."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _known(objects: list[Object], names: Sequence[str], oddities: Oddities) -> list[Object]:
    known = []
    for thing in objects:
        if 0 <= thing.class_index < len(names):
            known.append(thing)
        else:
            oddities.add(Kind.UNKNOWN_CLASS, thing.where, f"class {thing.class_index}, names has {len(names)}")
    return known


def _read_text(
    text: str, file: Path, num_names: int, num_image_classes: int, oddities: Oddities
) -> tuple[list[Object], int | None]:
    """The objects and the image's class. Raises LabelError for what cannot be mended."""
    rows = [(line, row) for line, row in enumerate(_LINE_BREAK.split(text), start=1) if row.strip()]
    try:
        image_class = parse_label_text(text, num_names, num_image_classes, str(file)).image_class
        rows = rows if image_class is None else rows[:-1]
    except LabelError as error:
        if error.line is None or re.search(r"[^ -~\t\r\n]", text):
            raise
        image_class = None
        if rows and set(rows[-1][1].split()) <= {"0", "1"}:
            line, row = rows[-1]
            try:
                image_class = parse_label_text(row, num_names, num_image_classes).image_class
            except LabelError as last:
                raise LabelError(str(file), line, last.reason) from None
            rows = rows if image_class is None else rows[:-1]
    return [_object(row, f"{shown(file)}:{line}", file, line, num_names) for line, row in rows], image_class


def _object(row: str, where: str, file: Path, line: int, num_names: int) -> Object:
    fields = row.split()
    values = [number(field) for field in fields]
    if None in values or not values[0].is_integer() or not (len(values) == 5 or (len(values) >= 7 and len(values) % 2)):
        try:
            parse_label_text(f"{row}\n0 0.5 0.5 0.5 0.5", None, 0)
        except LabelError as error:
            raise LabelError(str(file), line, error.reason) from None
        raise LabelError(str(file), line, "not a box or polygon")
    index, numbers = int(values[0]), values[1:]
    if len(numbers) == 4:
        x, y, w, h = numbers
        return Object("", (x - w / 2, y - h / 2, x + w / 2, y + h / 2), where, class_index=index, centred=(x, y, w, h))
    xs, ys = numbers[::2], numbers[1::2]
    points = tuple(zip(xs, ys, strict=True))
    return Object("", (min(xs), min(ys), max(xs), max(ys)), where, points, class_index=index)


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


def find_description(source: Path) -> Description | None:
    """The data yaml that `source` is or holds: directly in it, one that has `names`.

    Raises:
        ConversionError: if there are several, or it cannot be used.
    """
    files = (
        [source] if source.is_file() else sorted(path for path in source.iterdir() if path.suffix[1:].lower() in YAML_SUFFIXES)
    )
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        raise ConversionError(f"{shown(source)} has several yaml files ({listed}): name the data yaml as SOURCE, with --images")
    return read_description(files[0]) if files else None


def listed_classes(*folders: Path) -> list[str]:
    """The lines of the first `classes.txt` in one of the folders, as labelling programs write it; none without one."""
    for folder in folders:
        file = folder / "classes.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return []
