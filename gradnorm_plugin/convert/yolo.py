"""YOLO: a text file of shares for each image, which may already end with a one-hot line, and a data yaml.

A file that our own reader accepts is taken as it is. In another, boxes are taken even where they have no area or reach
outside the image (`to_record` drops or clips them, and says so); any other fault leaves the image out.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.convert.annotations import Annotation, Object, Source, clean_name, number
from gradnorm_plugin.convert.coco import load_json
from gradnorm_plugin.convert.image_files import ImageIndex, files_under, nearest
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, first_line, shown
from gradnorm_plugin.convert.split import SPLITS, listed
from gradnorm_plugin.files import read_bytes
from gradnorm_plugin.labels import LabelError, LabelRecord, LabelRules, parse_label_text
from gradnorm_plugin.outputs import CLASS, Outputs, class_output, label_rules, read_outputs

YAML_SUFFIXES = ("yaml", "yml")
CLASS_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "notes.json")  # as labelling programs call them
_NO_LABELS = {*CLASS_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}  # that lie beside labels
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def read_yolo(
    index: ImageIndex,
    labels: Path | None,
    names: Sequence[str],
    image_classes: Sequence[str],
    description: Description | None,
    oddities: Oddities,
) -> Source:
    """What the label files of the images of `index` say; `labels` is their folder if it is not `labels` beside `images`.

    An image whose label file is not where YOLOv5 looks for it has the one of its stem that lies nearest, if there is one.
    """
    classes: dict[Path, list[str]] = {}
    named = description.outputs if description else ()
    source = Source(names=list(names), image_classes=classes, image_class_order=list(image_classes), outputs=named)
    outputs = (*([class_output(image_classes)] if image_classes else []), *named)
    rules = label_rules(outputs, len(names))
    roots = [labels] if labels else [index.root, *(place for place in index.root.parent.glob("[Ll]abels") if place.is_dir())]
    found = sorted({file for root in roots for file in files_under(root, ["txt"])})
    files = [file for file in found if file.name.lower() not in _NO_LABELS]
    used = set()
    for image, file in _label_files(index, labels, files).items():
        used.add(file)
        try:
            text = read_bytes(file).removeprefix(b"\xef\xbb\xbf").decode("latin-1")  # see labels.read_label_file
            objects, record = _read_text(text, file, names, rules, oddities)
        except LabelError as error:
            oddities.add(Kind.UNREADABLE_ANNOTATION, f"{shown(file)}:{error.line}", error.reason)
            source.faulty.add(image)
            continue
        except OSError as error:
            oddities.add(Kind.UNREADABLE_ANNOTATION, shown(file), f"cannot be opened: {error.strerror}")
            source.faulty.add(image)
            continue
        source.annotations[image] = Annotation(objects, shown(file))
        for output in outputs:
            target = record.target(output.name, rules)
            if target is not None and output.name == CLASS:
                classes[image] = [image_classes[int(target[0])]]
            elif target is not None:
                source.said.setdefault(output.name, {})[image] = target
    folders = {file.parent for file in used}
    for file in files:
        if file not in used and (labels or file.parent in folders or _is_labels(file.parent)):
            oddities.add(Kind.NO_IMAGE, shown(file))
    if description:
        source.splits = description.splits(index, oddities)
    return source


def _label_files(index: ImageIndex, labels: Path | None, files: Iterable[Path]) -> dict[Path, Path]:
    """The label file of each image that has one: where YOLOv5 looks, else beside the image, else the nearest of its stem."""
    there, by_stem = set(files), defaultdict(list)
    for file in there:
        by_stem[file.stem].append(file)
    found = {}
    for image in index.files:
        first = (labels / index.key(image) if labels else _beside(image)).with_suffix(".txt")
        places = [first] if labels else [first, image.with_suffix(".txt")]
        place = next((place for place in places if place in there or place.is_file()), None)
        if place is None and len(by_stem[image.stem]) > 0:
            near = nearest(by_stem[image.stem], first)
            place = near[0] if len(near) == 1 else None
        if place is not None:
            found[image] = place
    return found


def _is_labels(folder: Path) -> bool:
    return any(part.lower() == "labels" for part in folder.parts)


def is_label_file(file: Path, images: Container[Path]) -> bool:
    """Whether a file is likely one of YOLO's: in a folder `labels`, or beside one of `images` (paths without suffix)."""
    return file.suffix.lower() == ".txt" and (_is_labels(file.parent) or file.with_suffix("") in images)


def _beside(image: Path) -> Path:
    """Where YOLOv5 looks for the labels: the last folder called `images` becomes `labels`, if there is one."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _read_text(
    text: str, file: Path, names: Sequence[str], rules: LabelRules, oddities: Oddities
) -> tuple[list[Object], LabelRecord]:
    """The objects, and a record of what is said about the image. Raises LabelError for what cannot be mended."""
    rows = [(line, row) for line, row in enumerate(_LINE_BREAK.split(text), start=1) if row.strip()]
    try:
        record = parse_label_text(text, None, 0, str(file), rules)
    except LabelError as error:
        if error.line is None or re.search(r"[^ -~\t\r\n]", text):
            raise
        unnamed = [(line, row) for line, row in rows if ":" not in row]
        of_image = [(line, row) for line, row in rows if ":" in row]
        if unnamed and set(unnamed[-1][1].split()) <= {"0", "1"}:
            of_image.append(unnamed[-1])
        try:
            record = parse_label_text("\n".join(row for _, row in of_image), None, 0, rules=rules)
        except LabelError as first:
            line = of_image[(first.line or 1) - 1][0]
            raise LabelError(str(file), line, first.reason) from None
    by_name = any(row.partition(":")[0].strip() == rules.unnamed for _, row in rows if ":" in row)
    rows = [(line, row) for line, row in rows if ":" not in row]
    if record.image_class is not None and not by_name:
        rows.pop()
    objects = []
    for line, row in rows:
        class_index, values = _values(row, file, line)
        where = f"{shown(file)}:{line}"
        if 0 <= class_index < len(names):
            objects.append(_object(names[class_index], values, where))
        else:
            oddities.add(Kind.UNKNOWN_CLASS, where, f"class {class_index}, names has {len(names)}")
    return objects, record


def _values(row: str, file: Path, line: int) -> tuple[int, list[float]]:
    """The class and the coordinates of a line."""
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


def _object(name: str, values: Sequence[float], where: str) -> Object:
    if len(values) == 4:
        x, y, w, h = values
        return Object(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), where, shares=True, centred=(x, y, w, h))
    xs, ys = values[::2], values[1::2]
    return Object(name, (min(xs), min(ys), max(xs), max(ys)), where, tuple(zip(xs, ys, strict=True)), shares=True)


@dataclass(frozen=True)
class Description:
    """What a data yaml says: names of boxes and images by index, the entries of its splits, and what they are relative to."""

    file: Path
    names: list[str]
    image_classes: list[str]
    outputs: Outputs
    entries: dict[str, list[str]]
    path: str

    def splits(self, index: ImageIndex, oddities: Oddities) -> dict[str, list[Path]]:
        """The images of each entry (a folder, a text file of paths, or several of them) that is there.

        Entries are relative to `path`, or to the yaml; a leading `../` may be one too many, as YOLOv5 has it.

        Raises:
            ConversionError: if a text file cannot be read.
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
                    found.setdefault(split, []).extend(_images_of(place, index, oddities))
        return {split: images for split, images in found.items() if images}


def _images_of(place: Path, index: ImageIndex, oddities: Oddities) -> list[Path]:
    if place.is_dir():
        return [image for image in index.files if place in Path(os.path.abspath(image)).parents]
    return listed(place, index, oddities, near=place)


def read_description(file: Path) -> Description:
    """The content of a data yaml. Every value is text as it is written there: a class may be called 007, no or null.

    Raises:
        ConversionError: if it cannot be read, or its names cannot be used.
    """
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
    path = content.get("path")
    image_classes = content.get("classification_names")
    named = _names(content, "classification_names", file) if image_classes not in (None, "", "~", "null", [], {}) else []
    outputs = _image_outputs(file) if "image_outputs" in content else ()
    return Description(file, _names(content, "names", file), named, outputs, entries, path if isinstance(path, str) else "")


def _image_outputs(file: Path) -> Outputs:
    """Those under `image_outputs`, whose ranges are numbers where all else in a data yaml is read as text."""
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
    listed = found if isinstance(found, list) else []
    names = [name for name in map(clean_name, listed) if name]
    if not names or len(names) < len(listed) or len(set(names)) < len(names):
        raise ConversionError(f"{shown(file)}: `{key}` is not a list of different names: write {key}: [first, second, ...]")
    return names


def find_description(source: Path) -> Description | None:
    """The data yaml that `source` is or holds: directly in it, one that has `names`.

    Raises:
        ConversionError: if there are several, or it cannot be used.
    """
    if source.is_file():
        return read_description(source)
    files = sorted(path for path in source.iterdir() if path.suffix[1:].lower() in YAML_SUFFIXES)
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        raise ConversionError(f"{shown(source)} has several yaml files ({listed}): name the data yaml as SOURCE, with --images")
    return read_description(files[0]) if files else None


def listed_classes(*folders: Path) -> list[str]:
    """The box classes in the first file of them in one of the folders, as labelling programs write it; none without one.

    Raises:
        ConversionError: if that file cannot be read, or its names cannot be used.
    """
    for folder in folders:
        for file in (folder / name for name in CLASS_FILES if (folder / name).is_file()):
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
            names = [name for name in map(clean_name, found) if name]
            if len(set(names)) < len(found):
                raise ConversionError(f"{shown(file)}: not a list of different names: write one for each class, none twice")
            if names:
                return names
    return []
