"""Image outputs by `--output`: what columns of a table, or keys of COCO's images entries, say for each."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gradnorm_plugin.convert.annotations import ImageLabels, Source, clean_name, split_names
from gradnorm_plugin.convert.classes import (
    alike,
    class_places,
    csv_rows,
    image_classes,
    image_places,
    places_of,
    refuse_contradictions,
    settle,
    the_column,
)
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
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
    class_output,
)

FORM = "NAME=COLUMN[:KIND]"
_YES, _NO = {"1", "1.0", "true", "t", "yes", "y"}, {"0", "0.0", "false", "f", "no", "n"}
_NOTHING = {"", "nan", "<na>"}  # how pandas writes an empty cell
_NO_NUMBER = {*_NOTHING, "na", "n/a", "null", "none", "-"}
_NO_LABELS = "none"
_EXPONENT = r"([eE][+-]?\d+)?"
_POINT = re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}(,\d{{3}})+)?(\.\d*)?{_EXPONENT}", re.ASCII)
_COMMA = re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}(\.\d{{3}})+)?(,\d*)?{_EXPONENT}", re.ASCII)
_GROUPS = re.compile(r"(?<=\d)[ '\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Wish:
    """One `--output`: the output's name, its column or columns, its kind, and the names that it lists or its unit and range."""

    name: str
    column: str
    kind: str = Classes.kind
    names: tuple[str, ...] = ()
    value: Value | None = None


class _Row(NamedTuple):
    """What a table or a JSON file says of one image for one output: where, and the text under each column."""

    where: str
    texts: tuple[str, ...]


@dataclass
class _Entries:
    """All that is said for one output: the titles of its columns, and the rows of each image."""

    titles: tuple[str, ...]
    rows: dict[Path, list[_Row]]


@dataclass
class _Reader:
    """What the functions below share: one output's wish, the images that count, and where to note what is odd."""

    wish: Wish
    images: Sequence[Path]
    index: ImageIndex
    oddities: Oddities
    min_images: int

    def __post_init__(self) -> None:
        self.bad: set[Path] = set()

    def refuse(self, image: Path, where: str, reason: str) -> None:
        """Note an entry that cannot be taken."""
        self.bad.add(image)
        self.oddities.add(Kind.BAD_ENTRY, where, f"{self.index.key(image)}: {self.wish.name}: {reason}")

    def agreed(self, found: Mapping[Path, Sequence[tuple[str, Any]]], say: Callable[[Any], str]) -> dict[Path, Any]:
        """The one thing that all rows of an image say."""
        contradictions = []
        for image, rows in found.items():
            (first, one), *others = rows
            for where, other in others:
                if other != one:
                    contradictions.append(
                        f"{first} and {where.rpartition(':')[2].strip()}: {self.index.key(image)} has {say(one)} for "
                        f"`{self.wish.name}` in one row and {say(other)} in the other"
                    )
        refuse_contradictions(contradictions)
        return {image: rows[0][1] for image, rows in found.items()}


def read_wish(text: str) -> Wish:
    """What `--output` is followed by: NAME=COLUMN, then :KIND, then the names of classes or labels, or unit and range.

    Raises:
        argparse.ArgumentTypeError: saying what is wrong.
    """
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


def image_labels(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> ImageLabels:
    """The image outputs, and what each of `images` has for them.

    The class comes first: without `--output` it is all that is asked for; with it only if a flag, or a one-hot line, names it.

    Raises:
        ConversionError: if a source is missing or contradicts itself, or nothing is left of an output.
    """
    wishes, wished = list(options.output), {wish.name for wish in options.output}
    named = [output for output in source.outputs if output.name not in wished]
    by_csv = options.classes_csv and options.classes_from in (None, "csv") and not options.class_pattern
    asked = options.classes_from or options.csv_columns or options.class_key or options.image_class or options.class_pattern
    if wishes and by_csv and (options.csv_columns or options.classes_from or (options.image_class and not options.class_key)):
        column = options.csv_columns[1] if options.csv_columns else ""
        wishes.insert(0, Wish(CLASS, column, names=tuple(options.image_class)))
        asked = None
    elif not wishes:
        asked = asked or options.classes_csv or not named
    if source.entries is None and source.image_classes and not any(wish.name == CLASS for wish in wishes):
        asked = asked or "one-hot lines"
    outputs: list[ImageOutput] = []
    targets: dict[str, dict[Path, Target]] = {}
    if asked:
        names, class_of = image_classes(options, source, images, index, oddities)
        outputs.append(class_output(names))
        targets[CLASS] = {image: (place,) for image, place in class_of.items()}
    for output in named:
        found = source.said.get(output.name, {})
        outputs.append(output)
        targets[output.name] = {image: found[image] for image in images if image in found}
        _note_missing(output.name, images, found, index, oddities)
    entries = _entries(options, source, wishes, index, oddities)
    for wish, said in zip(wishes, entries, strict=True):
        said.rows = {image: said.rows[image] for image in images if image in said.rows}
        reader = _Reader(wish, images, index, oddities, options.min_images)
        read = {Classes.kind: _classes, LabelSet.kind: _labels, Value.kind: _values}[wish.kind]
        output, targets[wish.name] = read(reader, said)
        outputs.append(output)
        if wish.kind != Classes.kind:
            _note_missing(wish.name, images, {*targets[wish.name], *reader.bad}, index, oddities)
    return ImageLabels(tuple(outputs), targets)


def _note_missing(name: str, images: Iterable[Path], found: Any, index: ImageIndex, oddities: Oddities) -> None:
    for image in images:
        if image not in found:
            oddities.add(Kind.NO_LINE, index.key(image), name)


def _entries(
    options: argparse.Namespace, source: Source, wishes: Sequence[Wish], index: ImageIndex, oddities: Oddities
) -> list[_Entries]:
    """What is said for each wish."""
    if not wishes:
        return []
    if options.classes_csv:
        return _table(options, wishes, index, oddities)
    if source.entries is None:
        raise ConversionError("--output reads columns of a table, and there is none: name it by --classes-csv FILE")
    known = dict.fromkeys(str(key) for rows in source.entries.values() for _, entry in rows for key in entry)
    found = []
    for wish in wishes:
        keys = tuple(list(known)[place] for place in _columns_of(wish, list(known), "the entries of the annotations"))
        rows = {
            image: [_Row(where, tuple(_text(entry.get(key)) for key in keys)) for where, entry in of_image]
            for image, of_image in source.entries.items()
        }
        found.append(_Entries(keys, rows))
    return found


def _text(value: Any) -> str:
    """A value of a JSON file as a cell of a table has it."""
    return "" if value is None else value if isinstance(value, str) else dumps(value, ensure_ascii=False)


def _table(options: argparse.Namespace, wishes: Sequence[Wish], index: ImageIndex, oddities: Oddities) -> list[_Entries]:
    named = options.csv_image or (options.csv_columns[0] if options.csv_columns else None)
    found: list[_Entries] = []

    def places_of_image(header: Sequence[str]) -> list[int]:
        return _places(header, named) if named else image_places(header)

    def fitness(header: Sequence[str]) -> int:
        wanted = [name for wish in wishes for name in (wish.column, *wish.column.split(","))]
        return bool(places_of_image(header)) + sum(bool(_places(header, name)) for name in wanted)

    def columns_of(header: Sequence[str], where: str) -> Sequence[int]:
        flag = "--csv-columns" if options.csv_columns else "--csv-image"
        advice = f"correct {flag}" if named else "name it by --csv-image COLUMN"
        columns = [the_column(header, "the image", places_of_image(header), where, advice)]
        for wish in wishes:
            if wish.column:
                of_wish = _columns_of(wish, header, where)
            else:
                advice = f"name it by --output {CLASS}=COLUMN, in the place of other flags for the class"
                of_wish = [the_column(header, "the class", class_places(header), where, advice)]
            found.append(_Entries(tuple(header[place].strip() for place in of_wish), {}))
            columns += of_wish
        return columns

    seen = set()
    file = options.classes_csv
    for image, line, cells in csv_rows(file, fitness, columns_of, index, oddities, options.csv_encoding):
        where, rest = f"{shown(file)}:{line}", iter(cells)
        if image in seen:
            oddities.add(Kind.REPEATED_ROW, where, index.key(image))
        seen.add(image)
        for said in found:
            said.rows.setdefault(image, []).append(_Row(where, tuple(next(rest) for _ in said.titles)))
    return found


def _places(header: Sequence[str], name: str) -> list[int]:
    """Where the column `name` is: written so, or else but for upper case, blanks and signs."""
    exact = [place for place, title in enumerate(header) if title.strip() == name.strip()]
    return exact or (places_of(header, (name,)) if re.search(r"[^\W_]", name) else [])


def _columns_of(wish: Wish, header: Sequence[str], where: str) -> list[int]:
    """The column that a wish names; for labels also several, with commas between them."""
    several = "," in wish.column and wish.kind == LabelSet.kind and not _places(header, wish.column)
    columns = []
    for name in wish.column.split(",") if several else [wish.column]:
        advice = f"correct --output {wish.name}"
        if ":" in name:
            advice += f" (the kinds are {', '.join(OUTPUT_KINDS)})"
        columns.append(the_column(header, f"`{name.strip()}`", _places(header, name), where, advice))
    if len(set(columns)) < len(columns) or (several and wish.names and len(wish.names) != len(columns)):
        raise ConversionError(f"--output {wish.name}: {len(columns)} columns must be different, with a name for each or none")
    return columns


def _names(text: str, chosen: Sequence[str]) -> list[str] | None:
    """The names in a cell: between commas, semicolons or bars, or a list as Python and JSON write it; None if it is empty.

    Raises:
        ValueError: if it is something else.
    """
    if text.strip() in chosen:
        return [text.strip()]
    if text.strip().lower() in _NOTHING:
        return None
    if text.strip().startswith("["):
        try:
            found = yaml.load(text, yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise ValueError(f"{text.strip()} is no list of names")
        return [name for name in map(clean_name, found) if name]
    if text.strip().startswith("{"):
        raise ValueError(f"{text.strip()} is no name")
    return split_names(text, chosen) or None


def _classes(reader: _Reader, said: _Entries) -> tuple[ImageOutput, dict[Path, Target]]:
    """One class for each image."""
    wish = reader.wish
    named: dict[Path, list[str]] = {}
    found: dict[Path, list[tuple[str, set[str]]]] = {}
    for image, rows in said.rows.items():
        for where, (text,) in rows:
            try:
                names = _names(text, wish.names)
            except ValueError as error:
                reader.refuse(image, where, str(error))
                continue
            if names:
                named[image] = named.get(image, []) + names
                found.setdefault(image, []).append((where, set(names)))
    reader.agreed(found, lambda names: ", ".join(sorted(names)))
    images = [image for image in reader.images if image not in reader.bad]
    advice = f"correct --output {wish.name}"
    kept, class_of = settle(
        images, named, wish.names, (), reader.min_images, reader.index, reader.oddities, advice, output=wish.name
    )
    return Classes(wish.name, tuple(kept)), {image: (place,) for image, place in class_of.items()}


def _labels(reader: _Reader, said: _Entries) -> tuple[ImageOutput, dict[Path, Target]]:
    """Any labels for each image: names in one column, or a column of 0 and 1 for each label."""
    wish, index, oddities = reader.wish, reader.index, reader.oddities
    cells = [text.strip().lower() for rows in said.rows.values() for row in rows for text in row.texts]
    marks = [cell for cell in cells if cell not in _NO_NUMBER]
    in_columns = len(said.titles) > 1 or (not wish.names and bool(marks) and {*marks} <= _YES | _NO)
    listed = wish.names or (said.titles if in_columns else ())
    found = _from_marks(reader, said, listed) if in_columns else _from_names(reader, said)
    counts = Counter(name for names in found.values() for name in names)
    for image, names in found.items():
        for name in names:
            if listed and name not in listed:
                oddities.add(Kind.NOT_LISTED, index.key(image), f"{wish.name}: {name}")
            elif counts[name] < reader.min_images:
                few = f"{wish.name}: {name}, {counts[name]} of at least {reader.min_images} images"
                oddities.add(Kind.RARE_NAME, index.key(image), few)
    order = listed or tuple(sorted(counts))
    for name in order:
        if not counts[name]:
            oddities.add(Kind.UNUSED_NAME, name, wish.name)
    kept = tuple(name for name in order if counts[name] >= reader.min_images)
    if not kept:
        seen = ", ".join(f"{name} {count}" for name, count in counts.most_common(10)) or "none"
        raise ConversionError(
            f"`{wish.name}`: no label is left; images by label: {seen}; a label needs {reader.min_images} (--min-images): "
            f"{'. '.join(filter(None, [f'correct --output {wish.name}', oddities.first()]))}"
        )
    for name in kept:
        if counts[name] == len(found):
            oddities.add(Kind.ALWAYS, name, f"{wish.name}: {counts[name]} images")
    for group in alike(kept, counts):
        oddities.add(Kind.ALIKE, group, wish.name)
    return LabelSet(wish.name, kept), {image: tuple(float(name in names) for name in kept) for image, names in found.items()}


def _from_names(reader: _Reader, said: _Entries) -> dict[Path, list[str]]:
    """The labels of each image that has an entry; those of several rows are put together."""
    found: dict[Path, list[str]] = {}
    contradictions = []
    for image, rows in said.rows.items():
        none: list[str] = []
        some: list[str] = []
        for where, (text,) in rows:
            try:
                names = _names(text, reader.wish.names)
            except ValueError as error:
                reader.refuse(image, where, str(error))
                continue
            if names is None:
                continue
            if [name.lower() for name in names] == [_NO_LABELS] and _NO_LABELS not in reader.wish.names:
                names = []
            (some if names else none).append(where)
            found[image] = list(dict.fromkeys(found.get(image, []) + names))
        if none and some:
            contradictions.append(
                f"{none[0]} and {some[0].rpartition(':')[2].strip()}: {reader.index.key(image)} has no label of "
                f"`{reader.wish.name}` in one row and {', '.join(found[image])} in the other"
            )
    refuse_contradictions(contradictions)
    return {image: names for image, names in found.items() if image not in reader.bad}


def _from_marks(reader: _Reader, said: _Entries, names: Sequence[str]) -> dict[Path, list[str]]:
    """The labels whose columns have a 1, a yes or a true; an image needs an entry in every column."""
    found: dict[Path, list[tuple[str, tuple[str, ...]]]] = {}
    for image, rows in said.rows.items():
        for where, texts in rows:
            marks = [text.strip().lower() for text in texts]
            empty = [title for title, mark in zip(said.titles, marks, strict=True) if mark in _NO_NUMBER]
            wrong = [text.strip() for text, mark in zip(texts, marks, strict=True) if mark not in _YES | _NO | _NO_NUMBER]
            if wrong:
                reader.refuse(image, where, f"{wrong[0]} is neither 0 nor 1 (nor yes, no, true, false)")
            elif empty and len(empty) < len(marks):
                reader.refuse(image, where, f"nothing under {', '.join(empty)}")
            elif not empty:
                there = tuple(name for name, mark in zip(names, marks, strict=True) if mark in _YES)
                found.setdefault(image, []).append((where, there))
    agreed = reader.agreed(found, lambda there: ", ".join(there) or "no label")
    return {image: list(there) for image, there in agreed.items() if image not in reader.bad}


def _values(reader: _Reader, said: _Entries) -> tuple[ImageOutput, dict[Path, Target]]:
    """One number for each image."""
    output = reader.wish.value
    assert output is not None
    units = {output.unit.casefold(), *({"%", "percent"} if output.unit.casefold() in ("%", "percent") else ())}
    cells = [
        (image, where, text.strip(), _readings(text, units))
        for image, rows in said.rows.items()
        for where, (text,) in rows
        if text.strip().lower() not in _NO_NUMBER
    ]
    signs = {next(iter(readings)) for *_, readings in cells if len(readings) == 1}  # what the plain cases use as decimal sign
    found: dict[Path, list[tuple[str, float]]] = {}
    for image, where, text, readings in cells:
        possible = _possible(readings, signs, output)
        if not readings:
            reader.refuse(image, where, f"{text} is not a number")
        elif len(possible) > 1:
            either = " or ".join(f"{value:g}" for value in sorted(possible))
            reader.refuse(image, where, f"{text} may be {either}: write it without signs between thousands")
        elif not output.low <= (value := possible.pop()) <= output.high:
            reader.refuse(image, where, f"{text} is outside {output.low:g} to {output.high:g}")
        else:
            found.setdefault(image, []).append((where, value))
    agreed = reader.agreed(found, lambda value: f"{value:g}")
    targets: dict[Path, Target] = {image: (value,) for image, value in agreed.items() if image not in reader.bad}
    if not targets:
        raise ConversionError(
            f"`{output.name}`: no image has a number from {output.low:g} to {output.high:g}: "
            f"{'. '.join(filter(None, [f'correct --output {output.name}', reader.oddities.first()]))}"
        )
    return output, targets


def _readings(text: str, units: Iterable[str]) -> dict[str, float]:
    """What a cell may mean, by decimal sign: the point, the comma; one entry for each if they do not differ in value."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    unit = next((unit for unit in units if text.casefold().endswith(unit) and text[: -len(unit)].strip()), "")
    text = _GROUPS.sub("", text[: len(text) - len(unit)].strip())
    found: dict[str, float] = {}
    if not re.search(r"\d", text, re.ASCII):
        return found
    if _POINT.fullmatch(text):
        found["."] = float(text.replace(",", ""))
    if _COMMA.fullmatch(text):
        found[","] = float(text.replace(".", "").replace(",", "."))
    return found


def _possible(readings: Mapping[str, float], signs: set[str], output: Value) -> set[float]:
    """The numbers that a cell may mean, by the decimal signs of the other cells, else by the range."""
    if len(set(readings.values())) < 2:
        return set(readings.values())
    if len(signs) == 1:
        return {readings[next(iter(signs))]}
    if not signs and abs(readings["."]) < abs(readings[","]):
        return {readings["."]}  # 1.234, as most programs write it
    fitting = {value for value in readings.values() if output.low <= value <= output.high}
    return fitting or set(readings.values())
