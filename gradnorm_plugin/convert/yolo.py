"""YOLO: a text file per image, in fractions of its size, which may already end with a one-hot line, and a data yaml.

A file that our own reader accepts is used as it is. Otherwise boxes are read even if they have no area or reach outside the image
(`to_record` drops or clips them, and notes it); any other fault excludes the image.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.convert.boxes import Annotation, Object, around, clean_name, corners_of, number
from gradnorm_plugin.convert.coco import load_json
from gradnorm_plugin.convert.image_files import ImageIndex, files_under, nearest
from gradnorm_plugin.convert.oddities import ConversionError, Kind, first_line, shown
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.split import SPLITS, listed
from gradnorm_plugin.files import read_bytes
from gradnorm_plugin.labels import LabelError, LabelRecord, LabelRules, parse_label_text
from gradnorm_plugin.outputs import CLASS, Outputs, class_output, label_rules, read_outputs

YAML_SUFFIXES = ("yaml", "yml")
CLASS_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "notes.json")  # as labelling programs name them
_NO_LABELS = {*CLASS_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}  # found beside labels
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class _Description:
    """The content of a data yaml: class names of boxes and images, image outputs, and the entries of each split."""

    names: list[str]
    image_classes: list[str]
    outputs: Outputs
    entries: dict[str, list[str]]
    bases: tuple[Path, ...]  # that entries may be relative to


def read_yolo(options: argparse.Namespace, source: Source) -> None:
    """Read the label files of the images, below the given folder, else in `labels` beside `images`, or anywhere."""
    labels, index = options.annotations, source.index
    described = _find_description(options.source) or _Description([], [], (), {}, ())
    source.names = described.names or _listed_classes(options.source, options.source / "labels", labels) or options.names
    if not source.names:
        raise ConversionError(f"{shown(options.source)} has no data yaml and no classes.txt: name the box classes by --names")
    source.image_class_order = described.image_classes or options.image_class
    source.image_classes, source.outputs = {}, described.outputs
    roots = [labels] if labels else [index.root, *(place for place in index.root.parent.glob("[Ll]abels") if place.is_dir())]
    found = sorted({file for root in roots for file in files_under(root, ["txt"])})
    files = [file for file in found if file.name.lower() not in _NO_LABELS]
    outputs = (*([class_output(source.image_class_order)] if source.image_class_order else []), *source.outputs)
    rules = label_rules(outputs, len(source.names))
    label_files = _label_files(index, labels, files)
    for image, file in label_files.items():
        _read_labels(image, file, rules, source)
    used = set(label_files.values())
    folders = {file.parent for file in used}
    for file in files:
        if file not in used and (labels or file.parent in folders or _is_labels(file.parent)):
            source.note(Kind.NO_IMAGE, shown(file))
    source.splits = _splits(described, source)


def _label_files(index: ImageIndex, labels: Path | None, files: Iterable[Path]) -> dict[Path, Path]:
    """The label file of each image that has one: where YOLOv5 looks, else beside the image, else the nearest with its stem."""
    there, by_stem = set(files), defaultdict(list)
    for file in there:
        by_stem[file.stem].append(file)
    found = {}
    for image in index.files:
        first = (labels / index.key(image) if labels else _beside(image)).with_suffix(".txt")
        places = [first] if labels else [first, image.with_suffix(".txt")]
        place = next((place for place in places if place in there or place.is_file()), None)
        if place is None and by_stem[image.stem]:
            near = nearest(by_stem[image.stem], first)
            place = near[0] if len(near) == 1 else None
        if place is not None:
            found[image] = place
    return found


def _beside(image: Path) -> Path:
    """Where YOLOv5 looks for labels: the last folder called `images`, if any, becomes `labels`."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, image.name)


def _is_labels(folder: Path) -> bool:
    return any(part.lower() == "labels" for part in folder.parts)


def is_label_file(file: Path, images: Container[Path]) -> bool:
    """Whether a file looks like a YOLO label: in a folder `labels`, or beside one of `images` (paths without suffix)."""
    return file.suffix.lower() == ".txt" and (_is_labels(file.parent) or file.with_suffix("") in images)


def _read_labels(image: Path, file: Path, rules: LabelRules, source: Source) -> None:
    """Read the label file of an image."""
    try:
        text = read_bytes(file).removeprefix(b"\xef\xbb\xbf").decode("latin-1")  # see labels.read_label_file
        objects, record = _read_text(text, file, rules, source)
    except (LabelError, OSError) as error:
        if isinstance(error, LabelError):
            source.note(Kind.UNREADABLE_ANNOTATION, f"{shown(file)}:{error.line}", error.reason)
        else:
            source.note(Kind.UNREADABLE_ANNOTATION, shown(file), f"cannot be opened: {error.strerror}")
        source.faulty.add(image)
        return
    source.annotations[image] = Annotation(objects, shown(file))
    for output in rules.outputs:
        target = record.target(output.name, rules)
        if target is not None and output.name == CLASS and source.image_classes is not None:
            source.image_classes[image] = [source.image_class_order[int(target[0])]]
        elif target is not None:
            source.said.setdefault(output.name, {})[image] = target


def _read_text(text: str, file: Path, rules: LabelRules, source: Source) -> tuple[list[Object], LabelRecord]:
    """The objects, and a record of what is said about the image. Raises LabelError for faults beyond repair."""
    rows = [(line, row) for line, row in enumerate(_LINE_BREAK.split(text), start=1) if row.strip()]
    bare = [(line, row) for line, row in rows if ":" not in row]
    try:
        record = parse_label_text(text, None, 0, str(file), rules)
    except LabelError as error:
        if error.line is None or re.search(r"[^ -~\t\r\n]", text):
            raise
        of_image = [(line, row) for line, row in rows if ":" in row]
        of_image += [(line, row) for line, row in bare[-1:] if set(row.split()) <= {"0", "1"}]
        try:
            record = parse_label_text("\n".join(row for _, row in of_image), None, 0, rules=rules)
        except LabelError as first:
            raise LabelError(str(file), of_image[(first.line or 1) - 1][0], first.reason) from None
    by_name = any(row.partition(":")[0].strip() == rules.unnamed for _, row in rows if ":" in row)
    if record.image_class is not None and not by_name:
        bare.pop()
    objects = []
    for line, row in bare:
        class_index, values = _values(row, file, line)
        where = f"{shown(file)}:{line}"
        if not 0 <= class_index < len(source.names):
            source.note(Kind.UNKNOWN_CLASS, where, f"class {class_index}, names has {len(source.names)}")
        elif len(values) == 4:
            x, y, w, h = values
            box = corners_of((x, y, w, h), "cxcywh")
            objects.append(Object(source.names[class_index], box, where, shares=True, centred=(x, y, w, h)))
        else:
            points = tuple(zip(values[::2], values[1::2], strict=True))
            objects.append(Object(source.names[class_index], around(points), where, points, shares=True))
    return objects, record


def _values(row: str, file: Path, line: int) -> tuple[int, list[float]]:
    """Class and coordinates of a line."""
    fields = row.split()
    values = [value for value in map(number, fields) if value is not None]
    count = len(values)
    if count < len(fields) or not values[0].is_integer() or not (count == 5 or (count >= 7 and count % 2)):
        try:
            parse_label_text(f"{row}\n0 0.5 0.5 0.5 0.5", None, 0)
        except LabelError as error:
            raise LabelError(str(file), line, error.reason) from None
        raise LabelError(str(file), line, "not a box or polygon")
    return int(values[0]), values[1:]


def _splits(described: _Description, source: Source) -> dict[str, list[Path]]:
    """The images of each split in a data yaml, whose entries are folders or text files of paths; missing ones are skipped.

    As in YOLOv5, a leading `../` is dropped if needed.
    """
    found: dict[str, list[Path]] = {}
    for split, entries in described.entries.items():
        for entry in entries:
            tried = [os.path.abspath(base / part) for base in described.bases for part in (entry, entry.removeprefix("../"))]
            place = next((Path(place) for place in tried if os.path.isdir(place) or os.path.isfile(place)), None)
            if place is not None and place.is_dir():
                images = [image for image in source.index.files if place in Path(os.path.abspath(image)).parents]
            else:
                images = listed(place, source, near=place) if place else []
            found.setdefault(split, []).extend(images)
    return {split: images for split, images in found.items() if images}


def _find_description(source: Path) -> _Description | None:
    """The data yaml that `source` is, or directly contains."""
    if source.is_file():
        return _read_description(source)
    files = sorted(path for path in source.iterdir() if path.suffix[1:].lower() in YAML_SUFFIXES)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ConversionError(f"{shown(source)} has several yaml files ({names}): name the data yaml as SOURCE, with --images")
    return _read_description(files[0]) if files else None


def _read_description(file: Path) -> _Description:
    """Read a data yaml. All values are taken as text, so that a class may be called 007, no or null."""
    try:
        content = yaml.load(read_bytes(file), Loader=yaml.BaseLoader)  # builds text, lists and mappings only
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
    image_classes = content.get("classification_names")
    named = _names(content, "classification_names", file) if image_classes not in (None, "", "~", "null", [], {}) else []
    outputs = _image_outputs(file) if "image_outputs" in content else ()
    path, here = content.get("path"), Path(os.path.abspath(file)).parent
    bases = (here / path if isinstance(path, str) else here, here)
    return _Description(_names(content, "names", file), named, outputs, entries, bases)


def _image_outputs(file: Path) -> Outputs:
    """The entries of `image_outputs`, whose ranges are numbers, unlike everything else here."""
    try:
        outputs = read_outputs(yaml.safe_load(read_bytes(file))["image_outputs"])
    except (yaml.YAMLError, ValueError) as error:  # OutputError among them
        raise ConversionError(f"{shown(file)}: {first_line(error)}") from None
    if any(output.name == CLASS for output in outputs):
        raise ConversionError(f"{shown(file)}: image output `{CLASS}`: write its classes as `classification_names`, or rename it")
    return outputs


def _names(content: Mapping[Any, Any], key: str, file: Path) -> list[str]:
    found = content.get(key)
    if isinstance(found, Mapping):
        numbers = {int(index): name for index, name in found.items() if re.fullmatch(r"[0-9]{1,9}", str(index))}
        if sorted(numbers) != list(range(len(found))):
            raise ConversionError(f"{shown(file)}: `{key}` is not numbered 0, 1, 2, ...: number its classes so")
        found = [numbers[index] for index in sorted(numbers)]
    names = _different(found if isinstance(found, list) else [])
    if not names:
        raise ConversionError(f"{shown(file)}: `{key}` is not a list of different names: write {key}: [first, second, ...]")
    return names


def _listed_classes(*folders: Path | None) -> list[str]:
    """The box classes in the first of the `CLASS_FILES` found in the folders; empty if there is none."""
    for file in (folder / name for folder in folders if folder for name in CLASS_FILES if (folder / name).is_file()):
        if file.suffix == ".json":  # Label Studio's
            content = load_json(file)
            entries = content.get("categories") if isinstance(content, dict) else None
            entries = entries if isinstance(entries, list) else []
            found = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
        else:
            try:
                found = list(file.read_text(encoding="utf-8-sig").rstrip().splitlines())
            except UnicodeDecodeError:
                raise ConversionError(f"{shown(file)}: not UTF-8 text: save it as UTF-8") from None
        names = _different(found)
        if found and not names:
            raise ConversionError(f"{shown(file)}: not a list of different names: write one for each class, none twice")
        if names:
            return names
    return []


def _different(found: Sequence[object]) -> list[str]:
    """The names if all are valid and different, else an empty list."""
    names = [name for name in map(clean_name, found) if name]
    return names if len(set(names)) == len(found) else []
