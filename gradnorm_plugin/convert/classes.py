"""The class of each image: where it comes from (a CSV file, folders' names, the source's own entries), and what is usable."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import Source, clean_name, split_names
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.convert.split import split_of_name

IMAGE_COLUMNS = ("image", "images", "image_id", "imageid", "id", "filename", "file_name", "file", "image_name", "name", "path")
SOURCES = "--classes-csv FILE, --classes-from folder, or COCO's images entries with --json-key KEY"
CLASS_COLUMNS = ("class", "category", "label", "image_class", "classes", "categories", "labels", "class_name", "target")


def from_csv(
    file: Path, columns: Sequence[str] | None, index: ImageIndex, chosen: Sequence[str], oddities: Oddities
) -> dict[Path, list[str]]:
    """The class names of each image that the file has a row for; `columns` are those of image and class.

    Raises:
        ConversionError: with file and line, if it cannot be read or has no such columns.
    """
    try:
        content = file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConversionError(f"{shown(file)}: cannot be opened: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConversionError(f"{shown(file)}:{line}: not UTF-8 text: save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    named: dict[Path, list[str]] = {}
    try:
        image_column, class_column = _columns(rows.fieldnames or [], columns, file)
        for row in rows:
            where = f"{shown(file)}:{rows.line_num}"
            if None in row:
                raise ConversionError(f"{where}: more values than columns: put a value that holds commas in quotes")
            key = (row[image_column] or "").strip()
            images = index.find(key, numbers=True) if key else []
            if len(images) != 1:
                kind = Kind.ROW_AMBIGUOUS if images else Kind.ROW_WITHOUT_IMAGE
                oddities.add(kind, where, ", ".join([key or "no image", *(index.key(image) for image in images)]))
                continue
            if images[0] in named:
                oddities.add(Kind.REPEATED_ROW, where, index.key(images[0]))
            named.setdefault(images[0], []).extend(split_names(row[class_column] or "", chosen))
    except csv.Error as error:
        raise ConversionError(f"{shown(file)}:{rows.line_num}: not CSV: {error}") from None
    return named


def _columns(header: Sequence[str], columns: Sequence[str] | None, file: Path) -> tuple[str, str]:
    plain = {(name or "").strip().lower(): name for name in reversed(header)}
    found = []
    for what, known in zip(("image", "class"), columns or (IMAGE_COLUMNS, CLASS_COLUMNS), strict=True):
        known = (known.strip().lower(),) if columns else known
        match = next((plain[name] for name in known if name in plain), None)
        if match is None:
            there = ", ".join(name or "''" for name in header) or "none"
            raise ConversionError(
                f"{shown(file)}:1: no column for the {what} among {there}: name both by --csv-columns IMAGE CLASS"
            )
        found.append(match)
    return found[0], found[1]


def from_folders(index: ImageIndex) -> dict[Path, list[str]]:
    """The name of the folder that each image is in, unless that is the images' own folder or one of a split."""
    named = {}
    for image in index.files:
        folders = Path(index.key(image)).parent.parts
        name = clean_name(folders[-1]) if folders and not split_of_name(folders[-1]) else None
        named[image] = [name] if name else []
    return named


def settle(
    images: Iterable[Path],
    named: Mapping[Path, Sequence[str]],
    chosen: Sequence[str],
    order: Sequence[str],
    min_images: int,
    index: ImageIndex,
    oddities: Oddities,
) -> tuple[list[str], dict[Path, int]]:
    """The names of the classes that are kept, and which of them each image has; images without one are not in it.

    The order is that of `chosen`, else of `order`, else the alphabet's.

    Raises:
        ConversionError: if no class is left.
    """
    single: dict[Path, str] = {}
    for image in images:
        names, key = named.get(image, ()), index.key(image)
        if len(set(names)) < len(names):
            oddities.add(Kind.REPEATED_CLASS, key, ", ".join(names))
        names = list(dict.fromkeys(names))
        if not names:
            oddities.add(Kind.NO_CLASS, key)
        elif len(names) > 1:
            oddities.add(Kind.SEVERAL_CLASSES, key, ", ".join(names))
        elif chosen and names[0] not in chosen:
            oddities.add(Kind.NOT_CHOSEN, key, names[0])
        else:
            single[image] = names[0]
    counts = Counter(single.values())
    for image, name in single.items():
        if counts[name] < min_images:
            few = f"{name}, {counts[name]} of at least {min_images} images"
            oddities.add(Kind.RARE, index.key(image), few)
    for name in chosen or order:
        if not counts[name]:
            oddities.add(Kind.EMPTY_CLASS, name)
    ranked = list(chosen) or [name for name in order if name in counts] + sorted(counts.keys() - set(order))
    kept = [name for name in ranked if counts[name] >= min_images]
    if not kept:
        found = ", ".join(f"{name} {count}" for name, count in counts.most_common(10)) or "none"
        raise ConversionError(
            f"no image class is left; images that have just one class: {found}; a class needs {min_images} (--min-images). "
            f"Name another source of the classes: {SOURCES}"
        )
    alike = defaultdict(list)
    for name in kept:
        alike[name.casefold()].append(name)
    for group in alike.values():
        if len(group) > 1:
            oddities.add(Kind.ALIKE, ", ".join(f"{name} ({counts[name]})" for name in group))
    return kept, {image: kept.index(name) for image, name in single.items() if name in kept}


def image_classes(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> tuple[list[str], dict[Path, int]]:
    """The names of the image classes, and which of them each of `images` has.

    Raises:
        ConversionError: if nothing names the classes, or none is left.
    """
    if options.classes_csv:
        named = from_csv(options.classes_csv, options.csv_columns, index, options.image_class, oddities)
    elif options.classes_from == "folder":
        named = from_folders(index)
    elif source.image_classes is None:
        raise ConversionError(f"the annotations name no class of any image: name a source of the classes: {SOURCES}")
    else:
        named = source.image_classes
    order = source.image_class_order
    return settle(images, named, options.image_class, order, options.min_images, index, oddities)
