"""YOLO: a text file of shares for each image, which may already end with a one-hot line.

A file that our own reader accepts is taken as it is. In another, boxes are taken even where they have no area or reach
outside the image (geometry drops or clips them, and says so); any other fault leaves the image out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.convert.description import Description
from gradnorm_plugin.convert.images import ImageIndex, files_under
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.records import Annotation, Object, Source, number, shown
from gradnorm_plugin.labels import LabelError, parse_label_text

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
