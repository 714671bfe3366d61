"""Masks: pictures whose grey value, palette index or colour is a class, or one picture for each object.

A mask belongs to the image with its stem (`7.png`, `7_mask.png`); `7_RBC.png` is of one class, `7_RBC_02.png` of one object.
Connected pixels of a class are an object. 0 (black) is no class, nor is 255 beside others: Pascal VOC draws borders with it.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from gradnorm_plugin.convert.boxes import Annotation, Four, Object, clean_name
from gradnorm_plugin.convert.image_files import files_under, nearest
from gradnorm_plugin.convert.oddities import ConversionError, Kind, first_line, shown
from gradnorm_plugin.convert.source import Source

SMALLEST = 4
_FOLDERS = {"masks", "mask", "segmentationclass"}
_SUFFIXES = ("png", "bmp", "tif", "tiff")  # lossless: JPEG would blur the classes
_OF_MASK = re.compile(r"[_\-. ](masks?|seg|segmentation|labels?|labelids|gt|annotations?)$", re.IGNORECASE)
_NO_NAME = {"", "mask", "masks", "object", "instance", "obj"}
_MOST_VALUES = 64
_VOID = 255

Value = int | str
"""A class in a mask: a grey value or palette index, or a colour or name."""


class _Part(NamedTuple):
    """An object in a mask: its image, class, box in shares of the picture, and place."""

    image: Path
    value: Value
    box: Four
    where: str


def read_mask_class(text: str) -> tuple[Value, str]:
    """Value or colour, and class name, of one `--mask-classes`."""
    value, _, name = text.partition("=")
    value, known = value.strip(), clean_name(name)
    if known and re.fullmatch("[0-9]{1,5}", value):
        return int(value), known
    if known and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower(), known
    raise argparse.ArgumentTypeError(f"{text!r}: write VALUE=NAME or #RRGGBB=NAME, such as 1=RBC or '#ff0000=RBC'")


def find_masks(source: Path, given: Path | None) -> list[Path]:
    """The masks below the given folder, else those below the source in a folder called `masks` or the like."""
    if given is not None:
        return [given] if given.is_file() else files_under(given, _SUFFIXES)
    folder = source if source.is_dir() else source.parent
    files = files_under(folder, _SUFFIXES)
    return [file for file in files if _FOLDERS & {part.lower() for part in file.relative_to(folder).parent.parts}]


def read_masks(options: argparse.Namespace, source: Source) -> None:
    """Read the masks of the source's images; the masks themselves are removed from the images."""
    files, index = find_masks(options.source, options.annotations), source.index
    if not files:
        raise ConversionError(f"{shown(options.source)} has no masks (PNG files in a folder `masks`): name it by --annotations")
    index.keep([file for file in index.files if file not in set(files)])
    stems: dict[str, list[Path]] = defaultdict(list)
    folders: dict[Path, list[Path]] = defaultdict(list)
    for image in index.files:
        stems[image.stem.casefold()].append(image)
        folders[image.parent.parent].append(image)
    parts: list[_Part] = []
    for file in files:
        images, rest = _images_of(file, stems, folders)
        if (owner := source.the_one(images, shown(file), "no image of its stem")) is None:
            continue
        try:
            with Image.open(file) as picture:
                picture.load()
                values = np.asarray(picture if picture.mode in {"1", "L", "P", "I;16", "I"} else picture.convert("RGB"))
        except Exception as error:  # Pillow's readers raise whatever their parsing met
            source.note(Kind.UNREADABLE_ANNOTATION, shown(file), f"not a whole picture: {first_line(error)}")
            source.faulty.add(owner)
            continue
        source.annotations.setdefault(owner, Annotation([], shown(file)))
        parts += _parts(values.astype(np.uint8) if values.dtype == bool else values, owner, rest, file, source)
    wanted = _names({part.value for part in parts}, dict(options.mask_classes), options.names)
    for part in parts:
        if part.value != _VOID or _VOID in wanted:
            name = wanted.get(part.value, str(part.value))
            source.annotations[part.image].objects.append(Object(name, part.box, part.where, shares=True))
    source.names = list(dict.fromkeys(wanted[value] for value in sorted(wanted, key=lambda value: str(value).zfill(9))))


def _images_of(file: Path, stems: Mapping[str, list[Path]], folders: Mapping[Path, list[Path]]) -> tuple[list[Path], str | None]:
    """The images that a mask may belong to, and what its name adds to theirs (None: it covers the whole image)."""
    stem = file.stem.casefold()
    for whole in (stem, _OF_MASK.sub("", stem)):
        if whole in stems:
            return nearest(stems[whole], file), None
    for end in range(len(stem) - 1, 0, -1):
        if stem[end] in "_-. " and stem[:end] in stems:
            return nearest(stems[stem[:end]], file), file.stem[end + 1 :]
    beside = folders.get(file.parent.parent, [])  # one folder per image, with its masks in `masks`
    return (beside, "1") if len(beside) == 1 else ([], None)


def _parts(values: np.ndarray, image: Path, rest: str | None, file: Path, source: Source) -> list[_Part]:
    """The objects of one mask."""
    if rest is not None:
        named = re.sub(r"[\d_\-. ]+$|^[\d_\-. ]+", "", rest)
        values = (values.reshape(*values.shape[:2], -1).max(2) > 0).astype(np.uint8)
        shown_as: dict[int, Value] = {1: "object" if named.lower() in _NO_NAME else named}
    elif values.ndim == 3:
        values = values.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        shown_as = {value: f"#{value:06x}" for value in np.unique(values).tolist()}
    else:
        shown_as = {value: value for value in np.unique(values).tolist()}
    if len(shown_as) > _MOST_VALUES:
        raise ConversionError(
            f"{shown(file)}: {len(shown_as)} different values are no classes: save the mask as PNG without smoothing its edges"
        )
    shown_as.pop(0, None)
    height, width = values.shape
    found = []
    for value, name in shown_as.items():
        there = (values == value).astype(np.uint8)
        if rest is not None and re.search(r"\d", rest):  # one file per object, which may be in pieces
            boxes = [(*cv2.boundingRect(there), int(there.sum()))]
        else:
            boxes = cv2.connectedComponentsWithStats(there, connectivity=8)[2][1:].tolist()
        for x, y, w, h, area in boxes:
            where = f"{shown(file)}: from ({x}, {y}) to ({x + w}, {y + h})"
            if area >= SMALLEST:
                found.append(_Part(image, name, (x / width, y / height, (x + w) / width, (y + h) / height), where))
            elif area:
                source.note(Kind.SPECK, where, str(name))
    return found


def _names(values: set[Value], called: Mapping[Value, str], names: Sequence[str]) -> Mapping[Value, str]:
    """The name of each value that is a class: those `called` by --mask-classes, else --names in order, else the values."""
    if called:
        if missing := [str(value) for value in called if value not in values]:
            there = ", ".join(sorted(map(str, values)))
            raise ConversionError(f"--mask-classes: no mask has {', '.join(missing)}; there are {there or 'none'}: correct it")
        return called
    numbers = sorted(value for value in values if isinstance(value, int) and (value != _VOID or len(values) == 1))
    others = sorted(value for value in values if isinstance(value, str))
    if not names or (others and not numbers and not any(name.startswith("#") for name in others)):
        return {**{value: value for value in others}, **{value: str(value) for value in numbers}}
    if len(numbers) == len(names) == 1 or (numbers and not others and numbers[-1] <= len(names)):
        return {value: names[0 if len(names) == 1 else value - 1] for value in numbers}
    known = [*map(str, numbers), *others]
    raise ConversionError(
        f"the masks have the classes {', '.join(known) or 'none'}: say which is what by --mask-classes "
        f"{(known or ['1'])[0]}={names[0]} ..."
    )
