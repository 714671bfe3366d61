"""COCO: JSON files of images, annotations and categories. `coco_boxes` works out how a file writes its boxes."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

from gradnorm_plugin.convert.boxes import READINGS, Object, are_shares, as_text, clean_name, corners_of, number, size_of
from gradnorm_plugin.convert.coco_boxes import Shape, read_shape, tell_terms
from gradnorm_plugin.convert.image_files import files_under, split_of_path
from gradnorm_plugin.convert.oddities import ConversionError, Kind, first_line, shown
from gradnorm_plugin.convert.source import Source

_LISTS = ("images", "annotations", "categories")
_NAME_KEYS = ("file_name", "filename", "path", "coco_url")

Id = int | str
T = TypeVar("T")


def load_json(file: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ConversionError(f"{shown(file)}:{error.lineno}: not JSON ({error.msg}): correct it, or export it anew") from None
    except RecursionError:
        raise ConversionError(f"{shown(file)}: not COCO's JSON: lists within lists without end") from None
    except ValueError as error:  # no text in any encoding of JSON, or a number of thousands of digits
        raise ConversionError(f"{shown(file)}: not readable as JSON: {first_line(error)}: export it anew as UTF-8") from None


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content has COCO's three lists: images, annotations, categories."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)


def read_coco(options: argparse.Namespace, source: Source) -> None:
    """Read the given file, or those in a folder: the ones called `instances*` if any, else all COCO files.

    If every file names a split (train2017, ...), its images belong to that split. Box classes are ordered by id.
    """
    place = options.annotations or options.source
    files = [place] if place.is_file() else files_under(place, ["json"])
    files = [file for file in files if file.name.startswith("instances")] or files
    contents: dict[Path, Any] = {}
    for file in files:
        content = load_json(file)
        if is_coco(content):
            contents[file] = content
        elif len(files) > 1:
            source.note(Kind.OTHER_JSON, shown(file))
    if not contents:
        raise ConversionError(
            f"{shown(place)} {'is' if place.is_file() else 'has'} no COCO file (JSON with the lists images, annotations, "
            f"categories): name {'another' if options.annotations else 'it by --annotations'}"
        )
    base = place.parent if place.is_file() else place
    splits = {file: split_of_path(PurePosixPath(file.relative_to(base).as_posix())) for file in contents}
    source.complete = False
    ids: dict[str, Id] = {}
    for file, content in contents.items():
        _File(options, source, file, splits[file] if all(splits.values()) else None, ids).read(content)
    source.names = sorted(ids, key=lambda name: (isinstance(ids[name], str), ids[name], name))


class _ById(Generic[T]):
    """Lookup by id, for files that write an id as a number here and as text there, or use a name instead."""

    def __init__(self) -> None:
        self.values: dict[Id, T] = {}
        self._alike: dict[Id, set[Id]] = defaultdict(set)

    def add(self, key: Id, value: T, name: str) -> None:
        self.values[key] = value
        self._alike[_as_number(key)].add(key)
        self._alike[name].add(key)

    def find(self, key: Id | None) -> T | None:
        """The entry with that id, else the only one with the same number as id or with that name."""
        if key is None or key in self.values:
            return None if key is None else self.values[key]
        alike = self._alike.get(_as_number(key), set())
        return self.values[next(iter(alike))] if len(alike) == 1 else None


@dataclass
class _Listed:
    """An entry of `images`: its file name, and the image file it refers to (None: none that can be used)."""

    name: str
    image: Path | None


class _Entry(NamedTuple):
    """An entry of `annotations` whose image and class are known."""

    where: str
    image: Path
    name: str
    shape: Shape


@dataclass
class _File:
    """One file, whose images belong to `split` (None: unknown); `ids` holds the id of each box class over all files."""

    options: argparse.Namespace
    source: Source
    file: Path
    split: str | None
    ids: dict[str, Id]
    categories: _ById[str] = field(default_factory=_ById)
    images: _ById[_Listed] = field(default_factory=_ById)

    def read(self, content: Mapping[str, list[Any]]) -> None:
        for place, entry in enumerate(content["categories"]):
            self._add_category(entry, f"{shown(self.file)}: categories[{place}]")
        for place, entry in enumerate(content["images"]):
            self._add_image(entry, f"images[{place}]")
        if self.split:
            found = [listed.image for listed in self.images.values.values() if listed.image]
            self.source.splits.setdefault(self.split, []).extend(found)
        known = [self._known(entry, f"annotations[{place}]") for place, entry in enumerate(content["annotations"])]
        entries = [entry for entry in known if entry]
        reading, shares = self._terms(entries)
        for entry in entries:
            self._add_object(entry, reading, shares)

    def _add_category(self, entry: Any, where: str) -> None:
        """If two categories share an id, the first one counts."""
        category = _id(entry)
        name = clean_name(as_text(entry.get("name"))) if isinstance(entry, dict) else None
        if category is None or name is None:
            self.source.note(Kind.UNREADABLE_OBJECT, where, "a category without id or name")
        elif category in self.categories.values:
            self.source.note(Kind.REPEATED_ID, where, f"category {category}: {self.categories.values[category]}, {name}")
        else:
            self.categories.add(category, name, name)
            self.ids.setdefault(name, _as_number(category))

    def _add_image(self, entry: Any, place: str) -> None:
        key = _id(entry)
        texts = (as_text(entry.get(name_key)) for name_key in _NAME_KEYS) if key is not None else ()
        name = next(filter(None, texts), None)
        where = f"{shown(self.file)}: {name or place}"
        if key is None or name is None:
            self.source.note(Kind.NO_IMAGE, where, "an entry without id or file_name")
            return
        matches = self.source.index.find(name, near=self.file)
        if len(matches) > 1 and self.split:
            folders = {image: PurePosixPath(self.source.index.key(image)).parent for image in matches}
            matches = [image for image in matches if split_of_path(folders[image]) == self.split] or matches
        image = self.source.the_one(matches, where)
        if image is not None:
            self.source.begin(image, where, size_of(entry.get("width"), entry.get("height")))
            self.source.entries.setdefault(image, []).append((shown(self.file), entry))
        before = self.images.values.get(key)
        if before is None:
            self.images.add(key, _Listed(name, image), name)
        elif before.image != image or image is None:  # it is unclear which image the boxes of this id belong to
            self.source.note(Kind.AMBIGUOUS, where, f"image {key}: {before.name}, {name}")
            self.source.faulty.update(one for one in (before.image, image) if one)
            before.image = None

    def _known(self, entry: Any, place: str) -> _Entry | None:
        """An entry of `annotations` if its image, class and shape are known, else None."""
        image_key, category = _id(entry, "image_id"), _id(entry, "category_id")
        listed = self.images.find(image_key)
        where = f"{shown(self.file)}: {listed.name + ': ' if listed else ''}{place}"
        if listed is None or listed.image is None:
            reason = "no image_id" if image_key is None else f"image_id {image_key} is no image's id"
            self.source.note(Kind.NO_IMAGE, where, "its image cannot be used" if listed else reason)
            return None
        name, shape = self.categories.find(category), read_shape(entry)
        if entry.get("iscrowd") is True or number(entry.get("iscrowd")) == 1:
            self.source.note(Kind.CROWD, where)
        elif shape is None:
            self.source.note(Kind.UNREADABLE_OBJECT, where, "no bbox of four numbers, and no outline")
        elif name is None:
            self.source.note(Kind.UNKNOWN_CLASS, where, f"category_id {category} is in no entry of categories")
        else:
            return _Entry(where, listed.image, name, shape)
        return None

    def _terms(self, entries: list[_Entry]) -> tuple[str, bool]:
        """How the boxes are to be read, and whether they are fractions of the picture."""
        terms = tell_terms([(entry.shape, self.source.annotations[entry.image].size) for entry in entries])
        asked = self.options.boxes
        reading = asked or terms.reading
        if terms.shares or (reading != "xywh" and terms.boxes):
            unit = "shares of the picture" if terms.shares else "pixels"
            others = " or ".join(other for other in READINGS if other != reading)
            advice = "" if asked else f" (if they are not: --boxes {others})"
            self.source.note(Kind.READING, shown(self.file), f"{terms.boxes} boxes read as {reading} in {unit}{advice}")
        elif terms.doubtful and not asked:
            self.source.note(Kind.DOUBTFUL, shown(self.file), f"{terms.boxes} boxes; --boxes xywh or --boxes xyxy decides")
        return reading, terms.shares

    def _add_object(self, entry: _Entry, reading: str, shares: bool) -> None:
        shape = entry.shape
        corners = corners_of(shape.values, reading) if shape.values else None
        if corners is None or corners[0] >= corners[2] or corners[1] >= corners[3]:
            if shape.around is None:
                size = f"{corners[2] - corners[0]:g} x {corners[3] - corners[1]:g}" if corners else ""
                self.source.note(Kind.NO_AREA, entry.where, f"{entry.name} {size}")
                return
            self.source.note(Kind.FROM_OUTLINE, entry.where, entry.name)
            corners, shares = shape.around, are_shares([shape.around])
        points = shape.points if self.options.polygons else None
        if points and shape.around and shares != are_shares([shape.around]):
            points = None  # the outline uses other units than the box
        self.source.annotations[entry.image].objects.append(Object(entry.name, corners, entry.where, points, shares))


def _id(entry: Any, key: str = "id") -> Id | None:
    found = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def _as_number(key: Id) -> Id:
    """The id as a number if its text is one."""
    text = re.fullmatch(r"\s*([0-9]{1,18})(\.0*)?\s*", key) if isinstance(key, str) else None
    return int(text.group(1)) if text else key
