"""COCO: JSON files of images, annotations and categories, with their ids as numbers or text.

A bbox is x, y of the upper left corner, width, height (xywh), in pixels. What else people write and plainly mean is read: numbers
as text, outlines without a bbox, boxes as two corners (xyxy) or by their centre (cxcywh), boxes in shares of the picture.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

from gradnorm_plugin.convert.annotations import (
    CLASS_KEYS,
    MOST,
    Four,
    Object,
    Point,
    Source,
    are_shares,
    as_text,
    clean_name,
    four_numbers,
    note_class,
    number,
    size_of,
)
from gradnorm_plugin.convert.image_files import ImageIndex, files_under, split_of_path
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, first_line, shown

READINGS = ("xywh", "xyxy", "cxcywh")
_BEYOND = 0.1  # share of the picture's side by which a box must reach out before its terms are doubted
_FEW = 4  # boxes that may fit in other terms by chance

Size = tuple[float, float]


class Shape(NamedTuple):
    """The four numbers of a bbox, the box around the outline, the outline's points if it has one part, and the area given."""

    values: Four | None
    around: Four | None
    points: tuple[Point, ...] | None
    area: float | None


class Terms(NamedTuple):
    """What the bboxes of a file are: how many, in what reading, in shares or pixels; `doubtful` if corners fit as well."""

    boxes: int
    reading: str
    shares: bool
    doubtful: bool


def read_shape(entry: Mapping[str, Any]) -> Shape | None:
    """The bbox and the outline of an entry of `annotations`; None if it has neither."""
    values, (around, points) = _bbox(entry.get("bbox")), _outline(entry.get("segmentation"))
    return Shape(values, around, points, number(entry.get("area"))) if values or around else None


def tell_terms(shapes: Sequence[tuple[Shape, Size | None]]) -> Terms:
    """The terms of a file's bboxes, from their shapes and the sizes of their pictures.

    The reading is that with which the outlines agree; else the one that keeps the boxes in the picture; else the areas'.
    """
    boxes = [(shape.values, shape, size) for shape, size in shapes if shape.values and min(shape.values[2:]) > 0]
    shares = are_shares([values for values, _, _ in boxes])
    by_outline: Counter[str] = Counter()
    by_area: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    sized = beyond = 0
    for values, shape, size in boxes:
        read = {reading: corners_of(values, reading) for reading in READINGS}
        if around := shape.around:
            if shares and size and not are_shares([around]):  # the outline is in pixels
                around = (around[0] / size[0], around[1] / size[1], around[2] / size[0], around[3] / size[1])
            near = [reading for reading, corners in read.items() if _near(corners, around)]
            by_outline.update(near if len(near) == 1 else [])
        if shape.area:
            near = [reading for reading in ("xywh", "xyxy") if abs(area_of(read[reading]) - shape.area) <= 0.01 * shape.area]
            by_area.update(near if len(near) == 1 else [])
        picture = (1.0, 1.0) if shares else size
        if picture:
            sized += 1
            reach = {reading: _reach(corners, picture) for reading, corners in read.items()}
            inside.update(reading for reading in READINGS if reach[reading] <= 0.01)
            beyond += reach["xywh"] > _BEYOND
    corners_fit = inside["xyxy"] >= MOST * max(sized, 1)
    if by_outline:
        reading = by_outline.most_common(1)[0][0]
    elif sized and shares and inside["xywh"] < MOST * sized:
        reading = max(READINGS, key=inside.__getitem__)
    elif corners_fit and (beyond >= sized / 2 or by_area["xyxy"] >= MOST * len(boxes)):
        reading = "xyxy"
    else:
        reading = "xywh"
    return Terms(len(boxes), reading, shares, corners_fit and not by_outline and not by_area and sized >= _FEW)


def _bbox(value: Any) -> Four | None:
    """Four numbers in a list, a list within a list, or a text."""
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip(" []()"))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return four_numbers(value) if isinstance(value, list) else None


def corners_of(values: Four, reading: str) -> Four:
    """The corners x1, y1, x2, y2 that a bbox has in a reading."""
    a, b, c, d = values
    if reading == "xyxy":
        return values
    return (a, b, a + c, b + d) if reading == "xywh" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


def area_of(corners: Four) -> float:
    """The area within corners; 0 if they are exchanged."""
    x1, y1, x2, y2 = corners
    return (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0


def _near(corners: Four, around: Four) -> bool:
    slack = 0.02 * (around[2] - around[0] + around[3] - around[1])
    return all(abs(one - other) <= slack for one, other in zip(corners, around, strict=True))


def _reach(corners: Four, size: tuple[float, float]) -> float:
    """By how much of the picture's side a box reaches out; without end for one without area."""
    x1, y1, x2, y2 = corners
    return max(-x1 / size[0], x2 / size[0] - 1, -y1 / size[1], y2 / size[1] - 1) if area_of(corners) else float("inf")


def _outline(segmentation: Any) -> tuple[Four | None, tuple[Point, ...] | None]:
    """The box around an outline (polygons or a mask's run lengths), and its points if it has one part."""
    if isinstance(segmentation, dict):
        return _around_mask(segmentation), None
    parts = segmentation if isinstance(segmentation, list) else []
    if parts and not any(isinstance(part, (list, dict)) for part in parts):
        parts = [parts]
    polygons = []
    for part in parts:
        values = [number(value) for value in part] if isinstance(part, list) else []
        known = [value for value in values if value is not None]
        if len(values) < 6 or len(values) % 2 or len(known) < len(values):
            return None, None
        polygons.append(tuple(zip(known[::2], known[1::2], strict=True)))
    if not polygons:
        return None, None
    xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
    around = (min(xs), min(ys), max(xs), max(ys))
    return around if area_of(around) else None, polygons[0] if len(polygons) == 1 else None


def _around_mask(mask: Mapping[str, Any]) -> Four | None:
    """The box around a mask: `counts` are lengths of runs of 0 and 1 in turn, down the columns of `size` (height, width)."""
    counts, size = mask.get("counts"), mask.get("size")
    height, width = (number(side) or 0 for side in size) if isinstance(size, list) and len(size) == 2 else (0, 0)
    runs = _run_lengths(counts) if isinstance(counts, str) else counts
    if height < 1 or not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return None
    rows, place, edges = int(height), 0, []
    for turn, run in enumerate(runs):
        if turn % 2 and run:
            (left, top), (right, bottom) = divmod(place, rows), divmod(place + run - 1, rows)
            edges.append((left, top, right, bottom) if left == right else (left, 0, right, rows - 1))
        place += run
    if not edges or place > rows * width:
        return None
    lefts, tops, rights, bottoms = zip(*edges, strict=True)
    return min(lefts), min(tops), max(rights) + 1, max(bottoms) + 1


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths: five bits a letter, the lowest first, from the third on relative to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


_LISTS = ("images", "annotations", "categories")
_NAME_KEYS = ("file_name", "filename", "path", "coco_url")

Id = int | str
T = TypeVar("T")


class _ById(Generic[T]):
    """Things by id, where a file may write one id as a number here and as text there, or name the thing instead."""

    def __init__(self) -> None:
        self.values: dict[Id, T] = {}
        self._alike: dict[Id, set[Id]] = defaultdict(set)

    def add(self, key: Id, value: T, name: str) -> None:
        self.values[key] = value
        self._alike[_as_number(key)].add(key)
        self._alike[name].add(key)

    def find(self, key: Id) -> T | None:
        """The thing of that id; else the only one whose id is the same number, or whose name it is."""
        if key in self.values:
            return self.values[key]
        alike = self._alike.get(_as_number(key), set())
        return self.values[next(iter(alike))] if len(alike) == 1 else None


@dataclass
class _Listed:
    """An entry of `images`: its file name, and the image that it means (None: none that can be used)."""

    name: str
    image: Path | None


class _Entry(NamedTuple):
    """An entry of `annotations` whose image and class are known."""

    where: str
    image: Path
    name: str
    shape: Shape


@dataclass
class CocoReader:
    """Gathers what COCO files say of the images of `index`; `add` each file, then `finish`.

    The class of an image is a text, or a list of texts, under `class_key` of its entry (default: the first of
    `CLASS_KEYS`); `chosen` are class names that may have commas. With `polygons`, outlines of one part are kept beside
    the boxes. `reading` is what the four numbers of a bbox are (default: told by the boxes of each file).
    """

    index: ImageIndex
    oddities: Oddities
    class_key: str | None = None
    chosen: Sequence[str] = ()
    polygons: bool = False
    reading: str | None = None
    source: Source = field(default_factory=lambda: Source(complete=False))
    _names: dict[str, Id] = field(default_factory=dict)
    _entries: dict[Path, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)

    def add(self, file: Path, content: Mapping[str, Any], split: str | None) -> None:
        """Take in the content of one file, whose images are of `split` (None: the file does not say)."""
        categories = self._categories(content["categories"], file)
        images = self._images(content["images"], file, split)
        if split:
            found = [listed.image for listed in images.values.values() if listed.image]
            self.source.splits.setdefault(split, []).extend(found)
        entries = [
            known
            for place, entry in enumerate(content["annotations"])
            if (known := self._entry(entry, f"annotations[{place}]", file, images, categories))
        ]
        reading, shares = self._terms(entries, file)
        for known in entries:
            self._add_object(known, reading, shares)

    def finish(self) -> Source:
        """All that was said; box classes are in the order of their ids."""
        self.source.names = sorted(self._names, key=lambda name: (isinstance(self._names[name], str), self._names[name], name))
        self.source.entries = self._entries
        self.source.note_unlisted(self.index, self.oddities)
        return self.source

    def _categories(self, entries: list[Any], file: Path) -> _ById[str]:
        """Name by id; of two that share an id the first counts."""
        found: _ById[str] = _ById()
        for place, entry in enumerate(entries):
            where, category = f"{shown(file)}: categories[{place}]", _id(entry)
            name = clean_name(as_text(entry.get("name"))) if isinstance(entry, dict) else None
            if category is None or name is None:
                self.oddities.add(Kind.UNREADABLE_OBJECT, where, "a category without id or name")
            elif category in found.values:
                self.oddities.add(Kind.REPEATED_ID, where, f"category {category}: {found.values[category]}, {name}")
            else:
                found.add(category, name, name)
                self._names.setdefault(name, _as_number(category))
        return found

    def _images(self, entries: list[Any], file: Path, split: str | None) -> _ById[_Listed]:
        """The image that each id means; their annotations are begun, and their classes noted."""
        found: _ById[_Listed] = _ById()
        for place, entry in enumerate(entries):
            key = _id(entry)
            name = next((name for name in (as_text(entry.get(k)) for k in _NAME_KEYS) if name), None) if key is not None else None
            where = f"{shown(file)}: {name or f'images[{place}]'}"
            if key is None or name is None:
                self.oddities.add(Kind.NO_IMAGE, where, "an entry without id or file_name")
                continue
            image = self._image(entry, name, where, file, split)
            if image is not None:
                self._entries.setdefault(image, []).append((shown(file), entry))
            before = found.values.get(key)
            if before is None:
                found.add(key, _Listed(name, image), name)
            elif before.image != image or image is None:  # whose boxes are those of this id?
                self.oddities.add(Kind.AMBIGUOUS, where, f"image {key}: {before.name}, {name}")
                self.source.faulty.update(one for one in (before.image, image) if one)
                before.image = None
        return found

    def _image(self, entry: dict[str, Any], name: str, where: str, file: Path, split: str | None) -> Path | None:
        matches = self.index.find(name, near=file)
        if len(matches) > 1 and split:
            of_split = [image for image in matches if split_of_path(PurePosixPath(self.index.key(image)).parent) == split]
            matches = of_split or matches
        image = self.source.the_one(matches, where, self.index, self.oddities)
        if image is None:
            return None
        size = size_of(entry.get("width"), entry.get("height"))
        annotation = self.source.begin(image, where, size, self.oddities)
        annotation.size = annotation.size or size
        note_class(self.source, image, entry, (self.class_key,) if self.class_key else CLASS_KEYS, self.chosen)
        return image

    def _entry(self, entry: Any, place: str, file: Path, images: _ById[_Listed], categories: _ById[str]) -> _Entry | None:
        image_key, category = _id(entry, "image_id"), _id(entry, "category_id")
        listed = None if image_key is None else images.find(image_key)
        if listed is None or listed.image is None:
            reason = "no image_id" if image_key is None else f"image_id {image_key} is no image's id"
            where = f"{shown(file)}: {listed.name + ': ' if listed else ''}{place}"
            self.oddities.add(Kind.NO_IMAGE, where, "its image cannot be used" if listed else reason)
            return None
        where = f"{shown(file)}: {listed.name}: {place}"
        name = None if category is None else categories.find(category)
        shape = read_shape(entry)
        if entry.get("iscrowd") is True or number(entry.get("iscrowd")) == 1:
            self.oddities.add(Kind.CROWD, where)
        elif shape is None:
            self.oddities.add(Kind.UNREADABLE_OBJECT, where, "no bbox of four numbers, and no outline")
        elif name is None:
            self.oddities.add(Kind.UNKNOWN_CLASS, where, f"category_id {category} is in no entry of categories")
        else:
            return _Entry(where, listed.image, name, shape)
        return None

    def _terms(self, entries: Sequence[_Entry], file: Path) -> tuple[str, bool]:
        """What the four numbers of a file's boxes are, and whether they are shares of the picture."""
        shapes = [(entry.shape, self.source.annotations[entry.image].size) for entry in entries]
        terms = tell_terms(shapes)
        reading = self.reading or terms.reading
        if terms.shares or (reading != "xywh" and terms.boxes):
            unit = "shares of the picture" if terms.shares else "pixels"
            others = " or ".join(other for other in READINGS if other != reading)
            advice = "" if self.reading else f" (if they are not: --boxes {others})"
            self.oddities.add(Kind.READING, shown(file), f"{terms.boxes} boxes read as {reading} in {unit}{advice}")
        elif terms.doubtful and not self.reading:
            self.oddities.add(Kind.DOUBTFUL, shown(file), f"{terms.boxes} boxes; --boxes xywh or --boxes xyxy decides")
        return reading, terms.shares

    def _add_object(self, entry: _Entry, reading: str, shares: bool) -> None:
        shape = entry.shape
        corners = corners_of(shape.values, reading) if shape.values else None
        if corners is None or area_of(corners) <= 0:
            if shape.around is None:
                size = f"{corners[2] - corners[0]:g} x {corners[3] - corners[1]:g}" if corners else ""
                self.oddities.add(Kind.NO_AREA, entry.where, f"{entry.name} {size}")
                return
            self.oddities.add(Kind.FROM_OUTLINE, entry.where, entry.name)
            corners, shares = shape.around, are_shares([shape.around])
        points = shape.points if self.polygons else None
        if points and shape.around and shares != are_shares([shape.around]):
            points = None  # the outline is in other terms than the box
        thing = Object(entry.name, corners, entry.where, points, shares)
        self.source.annotations[entry.image].objects.append(thing)


def _id(entry: Any, key: str = "id") -> Id | None:
    found = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def _as_number(key: Id) -> Id:
    """An id as a number if it is the text of one."""
    text = re.fullmatch(r"\s*([0-9]{1,18})(\.0*)?\s*", key) if isinstance(key, str) else None
    return int(text.group(1)) if text else key


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
            f"categories): name {'another' if given else 'it by --annotations'}"
        )
    base = place.parent if place.is_file() else place
    splits = {file: split_of_path(PurePosixPath(file.relative_to(base).as_posix())) for file in contents}
    known = {file: split for file, split in splits.items() if split}
    return contents, known if len(known) == len(contents) else {}


def load_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ConversionError: with file and line, if it is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ConversionError(f"{shown(file)}:{error.lineno}: not JSON ({error.msg}): correct it, or export it anew") from None
    except RecursionError:
        raise ConversionError(f"{shown(file)}: not COCO's JSON: lists within lists without end") from None
    except ValueError as error:  # no text in any encoding of JSON, or a number of thousands of digits
        raise ConversionError(f"{shown(file)}: not readable as JSON: {first_line(error)}: export it anew as UTF-8") from None


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content has the three lists of COCO's: images, annotations, categories."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)
