"""COCO: JSON files of images, annotations and categories. A bbox is x, y of the upper left corner, width, height, in pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gradnorm_plugin.convert.annotations import Annotation, Object, Source, clean_name, number, split_names
from gradnorm_plugin.convert.image_files import ImageIndex, files_under
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, first_line, shown
from gradnorm_plugin.convert.split import split_of_path

CLASS_KEYS = ("image_class", "class", "category", "label")

Id = int | str


@dataclass
class CocoReader:
    """Gathers what COCO files say of the images of `index`; `add` each file, then `finish`.

    The class of an image is a text, or a list of texts, under `class_key` of its entry (default: the first of
    `CLASS_KEYS`); `chosen` are class names that may have commas. With `polygons`, outlines of one part are kept beside
    the boxes.
    """

    index: ImageIndex
    oddities: Oddities
    class_key: str | None = None
    chosen: Sequence[str] = ()
    polygons: bool = False
    source: Source = field(default_factory=lambda: Source(complete=False))
    _names: dict[str, Id] = field(default_factory=dict)

    def add(self, file: Path, content: Mapping[str, Any], split: str | None) -> None:
        """Take in the content of one file, whose images are of `split` (None: the file does not say)."""
        categories = self._categories(content["categories"], file)
        images = self._images(content["images"], file, split)
        if split:
            self.source.splits.setdefault(split, []).extend(image for image in images.values() if image)
        for place, entry in enumerate(content["annotations"]):
            self._annotation(entry, f"{shown(file)}: annotations[{place}]", images, categories)

    def finish(self) -> Source:
        """All that was said; box classes are in the order of their ids."""
        self.source.names = sorted(self._names, key=lambda name: (isinstance(self._names[name], str), self._names[name], name))
        for image in self.index.files:
            if image not in self.source.annotations and image not in self.source.faulty:
                self.oddities.add(Kind.UNLISTED, self.index.key(image))
        return self.source

    def _categories(self, entries: list[Any], file: Path) -> dict[Id, str]:
        """Name by id; of two that share an id the first counts."""
        found: dict[Id, str] = {}
        for place, entry in enumerate(entries):
            where, category = f"{shown(file)}: categories[{place}]", _id(entry)
            name = clean_name(entry.get("name")) if isinstance(entry, dict) else None
            if category is None or name is None:
                self.oddities.add(Kind.UNREADABLE_OBJECT, where, "a category without id or name")
            elif category in found:
                self.oddities.add(Kind.REPEATED_ID, where, f"category {category}: {found[category]}, {name}")
            else:
                found[category] = name
                self._names.setdefault(name, category)
        return found

    def _images(self, entries: list[Any], file: Path, split: str | None) -> dict[Id, Path | None]:
        """The image file of each id (None: there is none); their annotations are begun, and their classes noted."""
        found: dict[Id, Path | None] = {}
        for place, entry in enumerate(entries):
            where = f"{shown(file)}: images[{place}]"
            key, name = _id(entry), entry.get("file_name") if isinstance(entry, dict) else None
            if key is None or not isinstance(name, str):
                self.oddities.add(Kind.NO_IMAGE, where, "an entry without id or file_name")
            elif key in found:
                self.oddities.add(Kind.REPEATED_ID, where, f"image {key}: {name}")
            else:
                found[key] = self._image(entry, name, where, file, split)
        return found

    def _image(self, entry: dict[str, Any], name: str, where: str, file: Path, split: str | None) -> Path | None:
        matches = self.index.find(name, near=file)
        if len(matches) > 1 and split:
            of_split = [image for image in matches if split_of_path(PurePosixPath(self.index.key(image)).parent) == split]
            matches = of_split or matches
        if len(matches) != 1:
            fits = ", ".join(self.index.key(image) for image in matches)
            self.oddities.add(Kind.AMBIGUOUS if matches else Kind.NO_IMAGE, where, fits or f"no image {name}")
            self.source.faulty.update(matches)
            return None
        image = matches[0]
        if image in self.source.annotations:
            self.oddities.add(Kind.REPEATED_ID, where, f"{name} has {self.source.annotations[image].where} already")
            return None
        width, height = number(entry.get("width")), number(entry.get("height"))
        size = (width, height) if width and height and width > 0 and height > 0 else None
        self.source.annotations[image] = Annotation([], where, size)
        self._note_class(entry, image)
        return image

    def _note_class(self, entry: dict[str, Any], image: Path) -> None:
        keys = (self.class_key,) if self.class_key else CLASS_KEYS
        given = next((entry[key] for key in keys if entry.get(key) is not None), None)
        if given is None:
            return
        texts = [str(value) for value in (given if isinstance(given, list) else [given]) if isinstance(value, (int, str))]
        self.source.image_classes = self.source.image_classes or {}
        self.source.image_classes[image] = [name for text in texts for name in split_names(text, self.chosen)]

    def _annotation(self, entry: Any, where: str, images: Mapping[Id, Path | None], categories: Mapping[Id, str]) -> None:
        image_key = _id(entry, "image_id")
        if image_key is None or image_key not in images:
            reason = "no image_id" if image_key is None else f"image_id {image_key} is no image's id"
            self.oddities.add(Kind.NO_IMAGE, where, reason)
            return
        image = images[image_key]
        if image is None:
            return  # its image is noted already
        if entry.get("iscrowd") in (1, True):
            self.oddities.add(Kind.CROWD, where, self.index.key(image))
            return
        box, category = entry.get("bbox"), _id(entry, "category_id")
        values = [number(value) for value in box] if isinstance(box, list) else []
        if len(values) != 4 or None in values:
            self.oddities.add(Kind.UNREADABLE_OBJECT, where, "no bbox of four numbers")
        elif category is None or category not in categories:
            self.oddities.add(Kind.UNKNOWN_CLASS, where, f"category_id {category} is in no entry of categories")
        elif min(values[2:]) <= 0:
            self.oddities.add(Kind.NO_AREA, where, f"{categories[category]} {values[2]:g} x {values[3]:g}")
        else:
            x, y, width, height = values
            points = _outline(entry.get("segmentation")) if self.polygons else None
            thing = Object(categories[category], (x, y, x + width, y + height), where, points)
            self.source.annotations[image].objects.append(thing)


def _id(entry: Any, key: str = "id") -> Id | None:
    found = entry.get(key) if isinstance(entry, dict) else None
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def _outline(segmentation: Any) -> tuple[tuple[float, float], ...] | None:
    """The points of an outline of one part; None for several parts, a mask, or nothing usable."""
    if not isinstance(segmentation, list) or len(segmentation) != 1 or not isinstance(segmentation[0], list):
        return None
    values = [number(value) for value in segmentation[0]]
    if len(values) < 6 or len(values) % 2 or None in values:
        return None
    return tuple(zip(values[::2], values[1::2], strict=True))


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


_LISTS = ("images", "annotations", "categories")


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
