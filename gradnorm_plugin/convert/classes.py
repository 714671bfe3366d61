"""The class of each image: where it comes from (a CSV file, folders' names, the source's own entries), and what is usable."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import Source, clean_name, split_names
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.convert.split import split_of_name

IMAGE_COLUMNS = ("image", "images", "filename", "file", "image_name", "path", "image_path", "image_id", "name", "id")
CLASS_COLUMNS = ("class", "category", "label", "image_class", "classes", "categories", "labels", "class_name", "target")
# Taken if a table has none of the above, and only one of these
OTHER_CLASS_COLUMNS = (
    "label_name", "category_name", "view", "plane", "diagnosis", "dx", "disease", "finding", "type", "kind", "group",
    "grade", "stage", "species", "ground_truth",
)  # fmt: skip
_NO_CLASS_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "jpgimages", "pictures", "pics", "photos", "frames"}
_SEPARATOR_LINE = re.compile(r"\ufeff?sep=(.)\r?")  # as spreadsheets write it above the header
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")


def from_csv(
    file: Path,
    columns: Sequence[str] | None,
    index: ImageIndex,
    chosen: Sequence[str],
    oddities: Oddities,
    encoding: str | None = None,
) -> dict[Path, list[str]]:
    """The class names of each image that the file has a row for; `columns` are those of image and class.

    Raises:
        ConversionError: with file and line, if it cannot be read, has no such columns, or contradicts itself.
    """
    text = _decoded(file, encoding)
    named: dict[Path, list[str]] = {}
    rows_of: dict[Path, int] = {}
    contradictions = []
    image_column = class_column = width = line = 0
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, columns), skipinitialspace=True)
        for row in reader:
            line = reader.line_num
            where = f"{shown(file)}:{line}"
            if not row or (line == 1 and _SEPARATOR_LINE.fullmatch(text.partition("\n")[0])):
                continue
            if not width:
                width, (image_column, class_column) = len(row), _columns(row, columns, where)
                continue
            if any(cell.strip() for cell in row[width:]):
                raise ConversionError(f"{where}: more values than columns: put a value that holds commas in quotes")
            row += [""] * (width - len(row))
            key = row[image_column].strip()
            images = index.find(key, numbers=True) if key else []
            if len(images) != 1:
                kind = Kind.ROW_AMBIGUOUS if images else Kind.ROW_WITHOUT_IMAGE
                oddities.add(kind, where, ", ".join([key or "no image", *(index.key(image) for image in images)]))
                continue
            names, before = split_names(row[class_column], chosen), named.get(images[0])
            if before is not None:
                oddities.add(Kind.REPEATED_ROW, where, index.key(images[0]))
            if names and before and set(names) != set(before):
                contradictions.append(
                    f"{shown(file)}:{rows_of[images[0]]} and {line}: {index.key(images[0])} is {', '.join(before)} in one row "
                    f"and {', '.join(names)} in the other"
                )
            named.setdefault(images[0], []).extend(names)
            if names:
                rows_of[images[0]] = line
    except csv.Error as error:
        raise ConversionError(f"{shown(file)}:{line + 1}: not CSV: {error}") from None
    if not width:
        raise ConversionError(f"{shown(file)}:1: no column for the image among none: write a line of column names")
    if contradictions:
        more = f" ({len(contradictions) - 1} more of this kind)" if len(contradictions) > 1 else ""
        raise ConversionError(f"{contradictions[0]}: remove the wrong row{more}")
    return named


def _decoded(file: Path, encoding: str | None) -> str:
    """The text of a CSV file: in the encoding given, else as its byte order mark says, else UTF-8 (UTF-16 with its zeros)."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConversionError(f"{shown(file)}: cannot be opened: {error.strerror}") from None
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    guess = "utf-8" if b"\0" not in content[:2] else "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    told = encoding or marked or guess
    try:
        return content.decode(told).removeprefix("\ufeff")
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        advice = "" if encoding else ", or name its encoding by --csv-encoding (cp1252, big5, gbk, shift_jis, ...)"
        raise ConversionError(f"{shown(file)}:{line}: not {told.upper()} text: save it as CSV in UTF-8{advice}") from None


def _separator(text: str, columns: Sequence[str] | None) -> str:
    """The sign between the values: the one that the file names, else the one by which the header has the columns looked for."""
    if declared := _SEPARATOR_LINE.fullmatch(text.partition("\n")[0]):
        return declared.group(1)

    def fitness(sign: str) -> tuple[int, int]:
        header = next(
            (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True) if row), []
        )
        found = [_places(header, (name,)) for name in columns] if columns else [_places(header, IMAGE_COLUMNS), _class(header)]
        return sum(map(bool, found)), len(header)

    return max(",;\t|", key=fitness)


def _columns(header: Sequence[str], columns: Sequence[str] | None, where: str) -> tuple[int, int]:
    """The places of the columns of image and class in the header."""
    places = [_places(header, (name,)) for name in columns] if columns else [_places(header, IMAGE_COLUMNS), _class(header)]
    for what, found in zip(("image", "class"), places, strict=True):
        if len(found) != 1:
            advice = "correct --csv-columns" if columns else "name both by --csv-columns IMAGE CLASS"
            listed = ", ".join(name.strip() or "''" for name in (map(header.__getitem__, found) if found else header)) or "none"
            trouble = f"{len(found)} columns may be the {what}, {listed}" if found else f"no column for the {what} among {listed}"
            raise ConversionError(f"{where}: {trouble}: {advice}")
    return places[0][0], places[1][0]


def _places(header: Sequence[str], known: Iterable[str]) -> list[int]:
    """Where in the header the first of the `known` names is that it has; upper case, blanks and signs do not matter."""
    plain = [_squeezed(name) for name in header]
    found = ([place for place, name in enumerate(plain) if name == _squeezed(wanted)] for wanted in known)
    return next((places for places in found if places), [])


def _class(header: Sequence[str]) -> list[int]:
    others = {_squeezed(name) for name in OTHER_CLASS_COLUMNS}
    return _places(header, CLASS_COLUMNS) or [place for place, name in enumerate(header) if _squeezed(name) in others]


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def from_folders(index: ImageIndex) -> dict[Path, list[str]]:
    """The name of the nearest folder around each image that is not one of a split, nor called images or alike."""
    named = {}
    for image in index.files:
        folders = (clean_name(folder) for folder in reversed(Path(index.key(image)).parent.parts))
        candidates = (name for name in folders if name and not split_of_name(name) and name.lower() not in _NO_CLASS_FOLDERS)
        named[image] = list(itertools.islice(candidates, 1))
    return named


def other_sources(options: argparse.Namespace) -> str:
    """The flags that are not in use and name a source of the classes, for a message."""
    found = [] if options.classes_csv else ["--classes-csv FILE"]
    found += [] if options.classes_from == "folder" else ["--classes-from folder"]
    found += [] if options.json_key else ["COCO's images entries with --json-key KEY"]
    return f"name {'another' if len(found) < 3 else 'a'} source of the classes: {', '.join(found)}"


def settle(
    images: Iterable[Path],
    named: Mapping[Path, Sequence[str]],
    chosen: Sequence[str],
    order: Sequence[str],
    min_images: int,
    index: ImageIndex,
    oddities: Oddities,
    advice: str = "correct it",
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
            f"no image class is left; images that have just one class: {found}; a class needs {min_images} (--min-images): "
            f"{'. '.join(filter(None, [advice, oddities.first()]))}"
        )
    if len(kept) == 1:
        oddities.add(Kind.ONE_CLASS, kept[0], f"{counts[kept[0]]} images")
    alike: dict[str, list[str]] = defaultdict(list)
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
    advice = other_sources(options)
    if options.classes_csv:
        named = from_csv(options.classes_csv, options.csv_columns, index, options.image_class, oddities, options.csv_encoding)
    elif options.classes_from == "folder":
        named = from_folders(index)
    elif source.image_classes is None:
        under = f" under `{options.json_key}`" if options.json_key else ""
        raise ConversionError(f"the annotations name no class of any image{under}: {advice}")
    else:
        named = source.image_classes
    order = source.image_class_order
    return settle(images, named, options.image_class, order, options.min_images, index, oddities, advice)
