"""Image outputs requested by `--output`: reading them from columns of a table, or keys of the images' own entries."""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from gradnorm_plugin.convert.boxes import clean_name, split_names
from gradnorm_plugin.convert.classes import alike, most_common, nothing_left, settle
from gradnorm_plugin.convert.oddities import ConversionError, Kind
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.tables import (
    Column,
    Header,
    Table,
    agreed,
    class_column,
    named_column,
)
from gradnorm_plugin.outputs import (
    CLASS,
    OUTPUT_KINDS,
    Classes,
    ImageOutput,
    LabelSet,
    OutputError,
    Target,
    Value,
    check_output_name,
)

FORM = "NAME=COLUMN[:KIND]"
_YES, _NO = {"1", "1.0", "true", "t", "yes", "y"}, {"0", "0.0", "false", "f", "no", "n"}
_NOTHING = {"", "nan", "<na>"}  # pandas may write an empty cell so
_NO_NUMBER = {*_NOTHING, "na", "n/a", "null", "none", "-"}
_NO_LABELS = "none"
_EXPONENT = r"([eE][+-]?\d+)?"
_POINT = re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}(,\d{{3}})+)?(\.\d*)?{_EXPONENT}", re.ASCII)
_COMMA = re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}(\.\d{{3}})+)?(,\d*)?{_EXPONENT}", re.ASCII)
_GROUPS = re.compile(r"(?<=\d)[ '\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")

T = TypeVar("T")


@dataclass(frozen=True)
class Wish:
    """One `--output`: name, column or columns, kind, and the names it lists or its unit and range."""

    name: str
    column: str
    kind: str = Classes.kind
    names: tuple[str, ...] = ()
    value: Value | None = None

    def columns(self, header: Header) -> list[Column]:
        """The columns it names: one, or for labels several, separated by commas."""
        if not self.column:
            return [class_column(f"name it by --output {CLASS}=COLUMN, in the place of other flags for the class")]
        advice = f"correct --output {self.name}"
        kinds = f" (the kinds are {', '.join(OUTPUT_KINDS)})"
        column = named_column(self.column, advice)
        several = "," in self.column and self.kind == LabelSet.kind and not column.places(header)
        names = self.column.split(",") if several else [self.column]
        return [named_column(name, advice + kinds if ":" in name else advice) for name in names]


def read_wish(text: str) -> Wish:
    """One `--output`: NAME=COLUMN, then :KIND, then the names of classes or labels, or unit and range."""
    name, equals, rest = (part.strip() for part in text.partition("="))
    parts = [part.strip() for part in rest.split(":")]
    place = next((place for place in range(1, len(parts)) if parts[place].lower() in OUTPUT_KINDS), len(parts))
    column, kind, more = ":".join(parts[:place]), parts[place].lower() if parts[place:] else Classes.kind, parts[place + 1 :]
    if not equals or not column:
        raise argparse.ArgumentTypeError(f"{text!r}: write {FORM}, such as view=View or finding=Findings:labels")
    try:
        check_output_name(name)
        if name.lower() == CLASS and (name != CLASS or kind != Classes.kind):
            raise OutputError(f"`{CLASS}` is the output of classification_names: write {CLASS}=COLUMN, or take another name")
        if kind == Value.kind:
            try:
                low, high = (float(end) for end in more[-2:])
            except ValueError:
                low = high = 0
            unit = ":".join(more[:-2])
            if not unit or not unit.isprintable() or not low < high:
                raise OutputError(
                    f"a value needs its unit, its lowest and its highest number: {name}={column}:value:percent:0:100"
                )
            return Wish(name, column, kind, value=Value.from_description(name, {Value.kind: unit, "range": [low, high]}))
        names = tuple(filter(None, (clean_name(part) for part in ":".join(more).split(","))))
        if len(set(names)) < len(names) or (more and not names):
            raise OutputError(f"the names of `{name}` must be different ones, with commas between them")
    except OutputError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return Wish(name, column, kind, names)


class OutputReader:
    """Reads one requested output from the rows of a table.

    `classes`, `labels` and `values`, one for each kind, return the output and the target of each image that has one.

    Attributes:
        titles: the output's columns.
        rows: by image, (place, texts under the titles).
        bad: images with an invalid entry.
    """

    def __init__(self, wish: Wish, table: Table, images: Sequence[Path], source: Source, min_images: int) -> None:
        self.wish, self.images, self.source, self.min_images = wish, images, source, min_images
        places = [table.place(column) for column in wish.columns(table.header)]
        if len(set(places)) < len(places) or (len(places) > 1 and wish.names and len(wish.names) != len(places)):
            raise ConversionError(f"--output {wish.name}: {len(places)} columns must be different, with a name for each or none")
        self.titles = [table.header[place].strip() for place in places]
        self.bad: set[Path] = set()
        rows: dict[Path, list[tuple[str, list[str]]]] = defaultdict(list)
        for image, where, cells in table.rows:
            rows[image].append((where, [cells[place] for place in places]))
        self.rows = {image: rows[image] for image in images if image in rows}

    def classes(self) -> tuple[ImageOutput, dict[Path, Target]]:
        """One class per image."""
        wish = self.wish
        named: dict[Path, list[str]] = defaultdict(list)
        found: dict[Path, list[tuple[str, set[str]]]] = defaultdict(list)
        for image, where, names in self._names():
            if names:
                named[image] += names
                found[image].append((where, set(names)))
        self._agreed(found, lambda names: ", ".join(sorted(names)))
        images = [image for image in self.images if image not in self.bad]
        advice = f"correct --output {wish.name}"
        kept, class_of = settle(images, named, wish.names, (), self.min_images, self.source, advice, wish.name)
        return Classes(wish.name, tuple(kept)), {image: (place,) for image, place in class_of.items()}

    def labels(self) -> tuple[ImageOutput, dict[Path, Target]]:
        """Any number of labels per image: names in one column, or a column of 0 and 1 per label."""
        wish = self.wish
        cells = {text.strip().lower() for rows in self.rows.values() for _, texts in rows for text in texts} - _NO_NUMBER
        in_columns = len(self.titles) > 1 or (not wish.names and bool(cells) and cells <= _YES | _NO)
        listed = wish.names or (tuple(self.titles) if in_columns else ())
        found = self._from_marks(listed) if in_columns else self._from_names()
        counts = Counter(name for names in found.values() for name in names)
        for image, names in found.items():
            for name in names:
                if listed and name not in listed:
                    self.source.note(Kind.NOT_LISTED, image, f"{wish.name}: {name}")
                elif counts[name] < self.min_images:
                    few = f"{wish.name}: {name}, {counts[name]} of at least {self.min_images} images"
                    self.source.note(Kind.RARE_NAME, image, few)
        order = listed or tuple(sorted(counts))
        for name in order:
            if not counts[name]:
                self.source.note(Kind.UNUSED_NAME, name, wish.name)
        kept = tuple(name for name in order if counts[name] >= self.min_images)
        if not kept:
            needed = f"a label needs {self.min_images} (--min-images)"
            what = f"`{wish.name}`: no label is left; images by label: {most_common(counts)}; {needed}"
            raise nothing_left(what, f"correct --output {wish.name}", self.source)
        for name in kept:
            if counts[name] == len(found):
                self.source.note(Kind.ALWAYS, name, f"{wish.name}: {counts[name]} images")
        for group in alike(kept, counts):
            self.source.note(Kind.ALIKE, group, wish.name)
        targets = {image: tuple(float(name in names) for name in kept) for image, names in found.items()}
        return LabelSet(wish.name, kept), targets

    def values(self) -> tuple[ImageOutput, dict[Path, Target]]:
        """One number per image."""
        output = self.wish.value
        assert output is not None
        cells = [
            (image, where, text.strip(), _readings(text, output.unit))
            for image, rows in self.rows.items()
            for where, (text,) in rows
            if text.strip().lower() not in _NO_NUMBER
        ]
        signs = {next(iter(read)) for *_, read in cells if len(read) == 1}  # the decimal signs of unambiguous cells
        found: dict[Path, list[tuple[str, float]]] = defaultdict(list)
        for image, where, text, read in cells:
            fitting = _possible(read, signs, output)
            if not read:
                self._refuse(image, where, f"{text} is not a number")
            elif len(fitting) > 1:
                either = " or ".join(f"{value:g}" for value in sorted(fitting))
                self._refuse(image, where, f"{text} may be {either}: write it without signs between thousands")
            elif not output.low <= (value := fitting.pop()) <= output.high:
                self._refuse(image, where, f"{text} is outside {output.low:g} to {output.high:g}")
            else:
                found[image].append((where, value))
        agreed_on = self._agreed(found, lambda value: f"{value:g}")
        targets: dict[Path, Target] = {image: (value,) for image, value in agreed_on.items() if image not in self.bad}
        if not targets:
            what = f"`{output.name}`: no image has a number from {output.low:g} to {output.high:g}"
            raise nothing_left(what, f"correct --output {output.name}", self.source)
        return output, targets

    def _refuse(self, image: Path, where: str, reason: str) -> None:
        """Note an invalid entry."""
        self.bad.add(image)
        self.source.note(Kind.BAD_ENTRY, where, f"{self.source.index.key(image)}: {self.wish.name}: {reason}")

    def _agreed(self, found: Mapping[Path, Sequence[tuple[str, T]]], say: Callable[[T], str]) -> dict[Path, T]:
        def contrast(one: T, other: T) -> str:
            return f"has {say(one)} for `{self.wish.name}` in one row and {say(other)} in the other"

        return agreed(found, self.source, contrast)

    def _names(self) -> Iterator[tuple[Path, str, list[str] | None]]:
        """(image, where, names) of each row of a single column, None for an empty cell. Names are separated by commas,
        semicolons or bars, or in a list as Python or JSON writes it."""
        for image, rows in self.rows.items():
            for where, (text,) in rows:
                text, names = text.strip(), None
                if text in self.wish.names:
                    names = [text]
                elif text.startswith("["):
                    try:
                        listed = yaml.load(text, yaml.BaseLoader)
                    except (yaml.YAMLError, RecursionError):
                        listed = None
                    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                        self._refuse(image, where, f"{text} is no list of names")
                        continue
                    names = [name for name in map(clean_name, listed) if name]
                elif text.startswith("{"):
                    self._refuse(image, where, f"{text} is no name")
                    continue
                elif text.lower() not in _NOTHING:
                    names = split_names(text, self.wish.names) or None
                yield image, where, names

    def _from_names(self) -> dict[Path, list[str]]:
        """The labels of each image that has an entry; several rows are merged."""
        found: dict[Path, list[str]] = {}
        first: dict[Path, dict[bool, str]] = defaultdict(dict)  # where an image is said to have no label, and some
        for image, where, names in self._names():
            if names is None:
                continue
            if [name.lower() for name in names] == [_NO_LABELS] and _NO_LABELS not in self.wish.names:
                names = []
            first[image].setdefault(bool(names), where)
            found[image] = list(dict.fromkeys(found.get(image, []) + names))
        both = {
            image: [(at[False], "no label"), (at[True], ", ".join(found[image]))] for image, at in first.items() if len(at) > 1
        }
        agreed(both, self.source, lambda none, some: f"has {none} of `{self.wish.name}` in one row and {some} in the other")
        return {image: names for image, names in found.items() if image not in self.bad}

    def _from_marks(self, names: Sequence[str]) -> dict[Path, tuple[str, ...]]:
        """The labels whose columns say 1, yes or true; an image needs an entry in every column."""
        found: dict[Path, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        for image, rows in self.rows.items():
            for where, texts in rows:
                marks = [text.strip().lower() for text in texts]
                empty = [title for title, mark in zip(self.titles, marks, strict=True) if mark in _NO_NUMBER]
                wrong = [text.strip() for text in texts if text.strip().lower() not in _YES | _NO | _NO_NUMBER]
                if wrong:
                    self._refuse(image, where, f"{wrong[0]} is neither 0 nor 1 (nor yes, no, true, false)")
                elif empty and len(empty) < len(marks):
                    self._refuse(image, where, f"nothing under {', '.join(empty)}")
                elif not empty:
                    there = tuple(name for name, mark in zip(names, marks, strict=True) if mark in _YES)
                    found[image].append((where, there))
        agreed_on = self._agreed(found, lambda there: ", ".join(there) or "no label")
        return {image: there for image, there in agreed_on.items() if image not in self.bad}


def _readings(text: str, unit: str) -> dict[str, float]:
    """The possible values of a cell by decimal sign, point or comma, also where both give the same value."""
    text, unit = text.strip().replace("\N{MINUS SIGN}", "-"), unit.casefold()
    for known in {unit, *(("%", "percent") if unit in ("%", "percent") else ())}:
        if text.casefold().endswith(known) and text[: -len(known)].strip():
            text = text[: -len(known)].strip()
            break
    text = _GROUPS.sub("", text)
    found: dict[str, float] = {}
    if not re.search(r"\d", text, re.ASCII):
        return found
    if _POINT.fullmatch(text):
        found["."] = float(text.replace(",", ""))
    if _COMMA.fullmatch(text):
        found[","] = float(text.replace(".", "").replace(",", "."))
    return found


def _possible(read: Mapping[str, float], signs: set[str], output: Value) -> set[float]:
    """The values that remain possible, judged by the decimal signs of the other cells, else by the range."""
    if len(set(read.values())) < 2:
        return set(read.values())
    if len(signs) == 1:
        return {read[next(iter(signs))]}
    if not signs and abs(read["."]) < abs(read[","]):
        return {read["."]}  # 1.234, as most programs write it
    fitting = {value for value in read.values() if output.low <= value <= output.high}
    return fitting or set(read.values())
