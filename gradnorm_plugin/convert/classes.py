"""The class of each image: from a CSV file, names of files or folders, or the source's own entries; and what is usable."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import Source, clean_name, split_names
from gradnorm_plugin.convert.image_files import ImageIndex, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.files import read_bytes
from gradnorm_plugin.outputs import CLASS


def from_pattern(pattern: re.Pattern[str], index: ImageIndex) -> dict[Path, str]:
    """What the pattern finds for each image that it fits.

    It is looked for in the file name; a pattern with a `/` in the path below the images' folder.
    """
    group = next(iter(pattern.groupindex), min(pattern.groups, 1))
    found = {}
    for image in index.files:
        match = pattern.search(index.key(image) if "/" in pattern.pattern else image.name)
        if match and (name := clean_name(match.group(group))):
            found[image] = name
    return found


IMAGE_COLUMNS = ("image", "images", "filename", "file", "image_name", "path", "image_path", "image_id", "name", "id")
CLASS_COLUMNS = ("class", "category", "label", "image_class", "classes", "categories", "labels", "class_name", "target")
# Taken if a table has none of the above, and only one of these
OTHER_CLASS_COLUMNS = (
    "label_name", "category_name", "view", "plane", "diagnosis", "dx", "disease", "finding", "type", "kind", "group",
    "grade", "stage", "species", "ground_truth",
)  # fmt: skip
_NO_CLASS_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "jpgimages", "pictures", "pics", "photos", "frames"}
_OF_OUTPUT = {  # what a case is where the classes are not those of `classification_names`
    Kind.NO_CLASS: Kind.NO_LINE,
    Kind.SEVERAL_CLASSES: Kind.SEVERAL_IN_ONE,
    Kind.NOT_CHOSEN: Kind.NOT_LISTED,
    Kind.RARE: Kind.RARE_NAME,
    Kind.EMPTY_CLASS: Kind.UNUSED_NAME,
}
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
    named: dict[Path, list[str]] = {}
    rows_of: dict[Path, int] = {}
    contradictions = []

    def fitness(header: Sequence[str]) -> int:
        return sum(map(bool, _image_and_class(header, columns)))

    def places(header: Sequence[str], where: str) -> Sequence[int]:
        return _columns(header, columns, where)

    for image, line, (cell,) in csv_rows(file, fitness, places, index, oddities, encoding):
        names, before = split_names(cell, chosen), named.get(image)
        if before is not None:
            oddities.add(Kind.REPEATED_ROW, f"{shown(file)}:{line}", index.key(image))
        if names and before and set(names) != set(before):
            contradictions.append(
                f"{shown(file)}:{rows_of[image]} and {line}: {index.key(image)} is {', '.join(before)} in one row "
                f"and {', '.join(names)} in the other"
            )
        named.setdefault(image, []).extend(names)
        if names:
            rows_of[image] = line
    refuse_contradictions(contradictions)
    return named


def refuse_contradictions(found: Sequence[str]) -> None:
    """End the conversion if there are rows that contradict each other.

    Raises:
        ConversionError: with the first of them.
    """
    if found:
        more = f" ({len(found) - 1} more of this kind)" if len(found) > 1 else ""
        raise ConversionError(f"{found[0]}: remove the wrong row{more}")


def csv_rows(
    file: Path,
    fitness: Callable[[Sequence[str]], int],
    columns_of: Callable[[Sequence[str], str], Sequence[int]],
    index: ImageIndex,
    oddities: Oddities,
    encoding: str | None = None,
) -> Iterator[tuple[Path, int, list[str]]]:
    """The image, line and cells of each row that fits exactly one image; the others are noted.

    Args:
        fitness: how many of the columns looked for a header has.
        columns_of: given the header and where it is, the places of the image's column and then of the cells wanted.

    Raises:
        ConversionError: with file and line, if it cannot be read.
    """
    text = _decoded(file, encoding)
    columns: Sequence[int] = ()
    width = line = 0
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, fitness), skipinitialspace=True)
        for row in reader:
            line = reader.line_num
            where = f"{shown(file)}:{line}"
            if not row or (line == 1 and _SEPARATOR_LINE.fullmatch(text.partition("\n")[0])):
                continue
            if not width:
                width, columns = len(row), columns_of(row, where)
                continue
            if any(cell.strip() for cell in row[width:]):
                raise ConversionError(f"{where}: more values than columns: put a value that holds commas in quotes")
            row += [""] * (width - len(row))
            key = row[columns[0]].strip()
            images = index.find(key, numbers=True) if key else []
            if len(images) != 1:
                kind = Kind.ROW_AMBIGUOUS if images else Kind.ROW_WITHOUT_IMAGE
                oddities.add(kind, where, ", ".join([key or "no image", *(index.key(image) for image in images)]))
                continue
            yield images[0], line, [row[column] for column in columns[1:]]
    except csv.Error as error:
        raise ConversionError(f"{shown(file)}:{line + 1}: not CSV: {error}") from None
    if not width:
        raise ConversionError(f"{shown(file)}:1: no column for the image among none: write a line of column names")


def _decoded(file: Path, encoding: str | None) -> str:
    """The text of a CSV file: in the encoding given, else as its byte order mark says, else UTF-8 (UTF-16 with its zeros)."""
    try:
        content = read_bytes(file)
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


def _separator(text: str, fitness: Callable[[Sequence[str]], int]) -> str:
    """The sign between the values: the one that the file names, else the one by which the header has the columns looked for."""
    if declared := _SEPARATOR_LINE.fullmatch(text.partition("\n")[0]):
        return declared.group(1)

    def fits(sign: str) -> tuple[int, int]:
        header = next(
            (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True) if row), []
        )
        return fitness(header), len(header)

    return max(",;\t|", key=fits)


def _image_and_class(header: Sequence[str], columns: Sequence[str] | None) -> list[list[int]]:
    """Where the columns of image and class may be."""
    return [places_of(header, (name,)) for name in columns] if columns else [image_places(header), class_places(header)]


def _columns(header: Sequence[str], columns: Sequence[str] | None, where: str) -> tuple[int, int]:
    """The places of the columns of image and class in the header."""
    advice = "correct --csv-columns" if columns else "name both by --csv-columns IMAGE CLASS"
    image, of_class = _image_and_class(header, columns)
    return the_column(header, "the image", image, where, advice), the_column(header, "the class", of_class, where, advice)


def the_column(header: Sequence[str], what: str, found: Sequence[int], where: str, advice: str) -> int:
    """The one place in `found`.

    Raises:
        ConversionError: if there are none or several.
    """
    if len(found) == 1:
        return found[0]
    listed = ", ".join(name.strip() or "''" for name in (map(header.__getitem__, found) if found else header)) or "none"
    trouble = f"{len(found)} columns may be {what}, {listed}" if found else f"no column for {what} among {listed}"
    raise ConversionError(f"{where}: {trouble}: {advice}")


def image_places(header: Sequence[str]) -> list[int]:
    """Where the image's column may be, by its name."""
    return places_of(header, IMAGE_COLUMNS)


def places_of(header: Sequence[str], known: Iterable[str]) -> list[int]:
    """Where in the header the first of the `known` names is that it has; upper case, blanks and signs do not matter."""
    plain = [_squeezed(name) for name in header]
    found = ([place for place, name in enumerate(plain) if name == _squeezed(wanted)] for wanted in known)
    return next((places for places in found if places), [])


def class_places(header: Sequence[str]) -> list[int]:
    """Where the class's column may be, by its name."""
    others = {_squeezed(name) for name in OTHER_CLASS_COLUMNS}
    return places_of(header, CLASS_COLUMNS) or [place for place, name in enumerate(header) if _squeezed(name) in others]


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
    found += [] if options.class_pattern else ["--class-pattern REGEX"]
    found += [] if options.class_key else ["the annotations' own entries with --class-key KEY"]
    return f"name {'another' if len(found) < 4 else 'a'} source of the classes: {', '.join(found)}"


def settle(
    images: Iterable[Path],
    named: Mapping[Path, Sequence[str]],
    chosen: Sequence[str],
    order: Sequence[str],
    min_images: int,
    index: ImageIndex,
    oddities: Oddities,
    advice: str = "correct it",
    output: str = CLASS,
) -> tuple[list[str], dict[Path, int]]:
    """The names of the classes that are kept, and which of them each image has; images without one are not in it.

    `output` is the image output whose classes they are. The order is that of `chosen`, else of `order`, else the alphabet's.

    Raises:
        ConversionError: if no class is left.
    """

    def note(kind: Kind, where: str, detail: str = "") -> None:
        if output == CLASS:
            oddities.add(kind, where, detail)
        else:
            oddities.add(_OF_OUTPUT.get(kind, kind), where, f"{output}: {detail}" if detail else output)

    single: dict[Path, str] = {}
    for image in images:
        names, key = named.get(image, ()), index.key(image)
        if len(set(names)) < len(names):
            note(Kind.REPEATED_CLASS, key, ", ".join(names))
        names = list(dict.fromkeys(names))
        if not names:
            note(Kind.NO_CLASS, key)
        elif len(names) > 1:
            note(Kind.SEVERAL_CLASSES, key, ", ".join(names))
        elif chosen and names[0] not in chosen:
            note(Kind.NOT_CHOSEN, key, names[0])
        else:
            single[image] = names[0]
    counts = Counter(single.values())
    for image, name in single.items():
        if counts[name] < min_images:
            few = f"{name}, {counts[name]} of at least {min_images} images"
            note(Kind.RARE, index.key(image), few)
    for name in chosen or order:
        if not counts[name]:
            note(Kind.EMPTY_CLASS, name)
    ranked = list(chosen) or [name for name in order if name in counts] + sorted(counts.keys() - set(order))
    kept = [name for name in ranked if counts[name] >= min_images]
    if not kept:
        found = ", ".join(f"{name} {count}" for name, count in counts.most_common(10)) or "none"
        raise ConversionError(
            f"{'' if output == CLASS else f'`{output}`: '}no image class is left; images that have just one class: {found}; "
            f"a class needs {min_images} (--min-images): {'. '.join(filter(None, [advice, oddities.first()]))}"
        )
    if len(kept) == 1:
        note(Kind.ONE_CLASS, kept[0], f"{counts[kept[0]]} images")
    for group in alike(kept, counts):
        note(Kind.ALIKE, group)
    return kept, {image: kept.index(name) for image, name in single.items() if name in kept}


def alike(names: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """The names that differ only in upper and lower case, with their counts: a text for each such group."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    return [", ".join(f"{name} ({counts[name]})" for name in group) for group in groups.values() if len(group) > 1]


def image_classes(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> tuple[list[str], dict[Path, int]]:
    """The names of the image classes, and which of them each of `images` has.

    Raises:
        ConversionError: if nothing names the classes, or none is left.
    """
    advice = other_sources(options)
    if options.class_pattern:
        named = {image: [name] for image, name in from_pattern(options.class_pattern, index).items()}
    elif options.classes_csv and options.classes_from in (None, "csv") and not options.output:
        named = from_csv(options.classes_csv, options.csv_columns, index, options.image_class, oddities, options.csv_encoding)
    elif options.classes_from == "folder":
        named = from_folders(index)
    elif source.image_classes is None:
        if source.class_keys:
            raise ConversionError(f"{', '.join(source.class_keys)} may be the image's class: say which by --class-key KEY")
        keys = dict.fromkeys(str(key) for rows in (source.entries or {}).values() for _, entry in rows for key in entry)
        under = f" under `{options.class_key}` (there are {', '.join(keys) or 'none'})" if options.class_key else ""
        raise ConversionError(f"the annotations name no class of any image{under}: {advice}")
    else:
        named = source.image_classes
    order = source.image_class_order
    return settle(images, named, options.image_class, order, options.min_images, index, oddities, advice)
