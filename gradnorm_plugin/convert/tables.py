"""Tables with a row per image: reading CSV files as people save them, and finding images and columns in them."""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.files import read_bytes

IMAGE_COLUMNS = ("image", "images", "filename", "file", "image_name", "path", "image_path", "image_id", "name", "id")
CLASS_COLUMNS = ("class", "category", "label", "image_class", "classes", "categories", "labels", "class_name", "target")
# Used if a table has none of the above and only one of these
OTHER_CLASS_COLUMNS = (
    "label_name", "category_name", "view", "plane", "diagnosis", "dx", "disease", "finding", "type", "kind", "group",
    "grade", "stage", "species", "ground_truth",
)  # fmt: skip
_SEPARATOR_LINE = re.compile(r"\ufeff?sep=(.)\r?")  # spreadsheets write it above the header
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")

Header = Sequence[str]
T = TypeVar("T")


class Column(NamedTuple):
    """A column to look for: its name in messages, where it may be in a header, and advice if that is not exactly one place."""

    what: str
    places: Callable[[Header], list[int]]
    advice: str

    def place(self, header: Header, where: str) -> int:
        """The index of the column; an error if there is none or several."""
        found = self.places(header)
        if len(found) == 1:
            return found[0]
        listed = ", ".join(name.strip() or "''" for name in (map(header.__getitem__, found) if found else header)) or "none"
        trouble = f"{len(found)} columns may be {self.what}, {listed}" if found else f"no column for {self.what} among {listed}"
        raise ConversionError(f"{where}: {trouble}: {self.advice}")


class Row(NamedTuple):
    """A row about one image: its place in the source, and the text under each title of the header."""

    image: Path
    where: str
    cells: list[str]


class Table(NamedTuple):
    """A table: its header and the header's place in the source, and the rows that match one image."""

    header: Header
    where: str
    rows: list[Row]

    def place(self, column: Column) -> int:
        """The index of the column."""
        return column.place(self.header, self.where)


def named_column(name: str, advice: str, what: str = "") -> Column:
    """The column of that name, exactly so, else regardless of case, blanks and signs."""

    def places(header: Header) -> list[int]:
        exact = [place for place, title in enumerate(header) if title.strip() == name.strip()]
        return exact or (_first_of((name,), header) if re.search(r"[^\W_]", name) else [])

    return Column(what or f"`{name.strip()}`", places, advice)


def image_column(options: argparse.Namespace, advice: str) -> Column:
    """The image's column: named by a flag, else recognised by its name; `advice` is for the latter."""
    name = options.csv_image or (options.csv_columns[0] if options.csv_columns else None)
    if name:
        return named_column(name, f"correct {'--csv-columns' if options.csv_columns else '--csv-image'}", "the image")
    return Column("the image", lambda header: _first_of(IMAGE_COLUMNS, header), advice)


def class_column(advice: str) -> Column:
    """The column of the class, recognised by its name."""
    others = {_squeezed(name) for name in OTHER_CLASS_COLUMNS}

    def places(header: Header) -> list[int]:
        return _first_of(CLASS_COLUMNS, header) or [place for place, name in enumerate(header) if _squeezed(name) in others]

    return Column("the class", places, advice)


def _first_of(known: Sequence[str], header: Header) -> list[int]:
    """Where the header has the first of the `known` names that occurs in it."""
    plain = [_squeezed(name) for name in header]
    found = ([place for place, name in enumerate(plain) if name == _squeezed(wanted)] for wanted in known)
    return next((places for places in found if places), [])


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def read_table(options: argparse.Namespace, source: Source, image: Column, wanted: Callable[[Header], Sequence[Column]]) -> Table:
    """Read `--classes-csv`; rows whose `image` column does not match exactly one image are noted and skipped.

    Args:
        wanted: the columns that will be used, given a header; the separator that yields most of them is chosen.
    """
    file = options.classes_csv
    text = _decoded(file, options.csv_encoding)
    declared = _SEPARATOR_LINE.fullmatch(text.partition("\n")[0])
    first = 2 if declared else 1

    def lines(sign: str) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True)
        return ((reader.line_num, row) for row in reader if row and reader.line_num >= first)

    def fitness(sign: str) -> tuple[int, int]:
        _, header = next(lines(sign), (0, []))
        return sum(bool(column.places(header)) for column in (image, *wanted(header))), len(header)

    line = 0
    rows: list[Row] = []
    seen = set()
    try:
        found = lines(declared.group(1) if declared else max(",;\t|", key=fitness))
        line, header = next(found, (1, []))
        if not header:
            raise ConversionError(f"{shown(file)}:1: no column for the image among none: write a line of column names")
        table = Table(header, f"{shown(file)}:{line}", rows)
        place = table.place(image)
        for line, row in found:
            where = f"{shown(file)}:{line}"
            if any(cell.strip() for cell in row[len(header) :]):
                raise ConversionError(f"{where}: more values than columns: put a value that holds commas in quotes")
            row += [""] * (len(header) - len(row))
            key = row[place].strip()
            images = source.index.find(key, numbers=True) if key else []
            if len(images) != 1:
                kind = Kind.ROW_AMBIGUOUS if images else Kind.ROW_WITHOUT_IMAGE
                source.note(kind, where, ", ".join([key or "no image", *map(source.index.key, images)]))
                continue
            if images[0] in seen:
                source.note(Kind.REPEATED_ROW, where, source.index.key(images[0]))
            seen.add(images[0])
            rows.append(Row(images[0], where, row))
    except csv.Error as error:
        raise ConversionError(f"{shown(file)}:{line + 1}: not CSV: {error}") from None
    return table


def _decoded(file: Path, encoding: str | None) -> str:
    """The text of a CSV file, in the given encoding, else that of its byte order mark, else UTF-8 (or UTF-16 if it has zeros)."""
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


def agreed(found: Mapping[Path, Sequence[tuple[str, T]]], source: Source, contrast: Callable[[T, T], str]) -> dict[Path, T]:
    """The value on which all rows of an image agree, from (where, value) of each row; `contrast` words a contradiction."""
    wrong = [
        f"{first} and {where.rpartition(':')[2].strip()}: {source.index.key(image)} {contrast(one, other)}"
        for image, ((first, one), *others) in found.items()
        for where, other in others
        if other != one
    ]
    if wrong:
        more = f" ({len(wrong) - 1} more of this kind)" if len(wrong) > 1 else ""
        raise ConversionError(f"{wrong[0]}: remove the wrong row{more}")
    return {image: rows[0][1] for image, rows in found.items()}
