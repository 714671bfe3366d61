"""A joint label file and its typed record: upstream's box or polygon lines, then what it says about the whole image.

The first lines are `class cx cy w h` or `class x1 y1 x2 y2 ...`, coordinates normalised to 0..1. A line `NAME: ...` is the target
of the image output of that name, at most one for each. If only one output is a class, its line needs no name if it is the last
non-blank line: one-hot over the classes, plain `0` and `1`, exactly one `1`. Blank lines are allowed anywhere. Any other line
is an error that names file, line and reason; nothing is skipped silently.

A line of plain zeros with a single one is always a one-hot line: as a box or polygon it would have no area. So is the last line
if it is plain zeros and ones and as long as `classification_names`; a coordinate that happens to be whole can always be written
`1.0`, as `write_label_file` does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import NamedTuple, Protocol

from gradnorm_plugin.files import write_text

LISTED_ERRORS = 20
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FOREIGN = re.compile(r"[^ -~\t\r\n]")
_LONG_WORD = re.compile(r"([^\s`]{40})[^\s`]+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


class Box(NamedTuple):
    """An object: its class, and its centre and size as fractions of the image's width and height."""

    class_index: int
    cx: float
    cy: float
    w: float
    h: float


class Polygon(NamedTuple):
    """An object's outline: its class, and three or more points (x, y) as fractions of the image's width and height."""

    class_index: int
    points: tuple[tuple[float, float], ...]


class NamedLine(Protocol):
    """What an image output of `gradnorm_plugin.outputs` provides: its name, and how its line is read and written."""

    @property
    def name(self) -> str:
        """Before the colon."""

    def parse(self, fields: Sequence[str], /) -> tuple[float, ...]:
        """The target that the fields stand for; raises ValueError saying what is wrong with them."""

    def format(self, target: tuple[float, ...], /) -> str:
        """The fields."""


@dataclass(frozen=True)
class LabelRules:
    """The rules that label files are checked against."""

    num_box_classes: int | None
    """None leaves the upper bound of box classes unchecked."""
    num_image_classes: int = 0
    """Number of classes of the output whose line needs no name; 0 if there is none."""
    unnamed: str | None = None
    """That output's name, which its line may have as well."""
    outputs: tuple[NamedLine, ...] = ()
    """All image outputs."""


@dataclass(frozen=True)
class LabelRecord:
    """What one label file says: boxes or polygons (never both), the image's class (None: it has none), and named lines."""

    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    image_class: int | None = None
    named: Mapping[str, tuple[float, ...]] = default(default_factory=dict)
    """By the name of the output; that of `image_class` is not among them."""

    def target(self, name: str, rules: LabelRules) -> tuple[float, ...] | None:
        """The target of the image output `name`, by the rules it was read with; None if it has none."""
        if name != rules.unnamed:
            return self.named.get(name)
        return None if self.image_class is None else (self.image_class,)


class LabelError(ValueError):
    """One faulty label file: which file, which line (from 1; None: the file as a whole), and what is wrong with it."""

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        super().__init__(file, line, reason)
        self.file, self.line, self.reason = file, line, reason

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.reason}"


class LabelErrors(ValueError):
    """The faulty label files of a data set, one `LabelError` each; the message lists the first 20."""

    def __init__(self, errors: list[LabelError]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        count = len(self.errors)
        lines = [f"{count} label file{'s are' if count > 1 else ' is'} wrong; correct or remove:"]
        lines += [f"  {error}" for error in self.errors[:LISTED_ERRORS]]
        if count > LISTED_ERRORS:
            lines.append(f"  ... and {count - LISTED_ERRORS} more")
        return "\n".join(lines)


class _Fault(Exception):
    """What is wrong with one line, before file and line number are known."""


def parse_label_text(
    text: str, num_box_classes: int | None, num_image_classes: int, file: str = "<text>", rules: LabelRules | None = None
) -> LabelRecord:
    """The record that `text` stands for; `num_box_classes` None leaves the upper bound of box classes unchecked.

    `rules`, if given, replace both numbers.

    Raises:
        LabelError: at the first fault, citing `file` and the line.
    """
    foreign = _FOREIGN.search(text)
    if foreign:
        at = len(_LINE_BREAK.findall(text, 0, foreign.start())) + 1
        code = f"U+{ord(foreign.group()):04X}"
        raise LabelError(file, at, f"character {code} is not plain text: save it as ASCII, without byte order mark")
    rules = rules or LabelRules(num_box_classes, num_image_classes)
    num_box_classes, num_image_classes = rules.num_box_classes, rules.num_image_classes
    lines = [(number, line) for number, line in enumerate(_LINE_BREAK.split(text), start=1) if line.strip()]
    last = max((number for number, line in lines if ":" not in line), default=0)
    boxes: list[Box] = []
    polygons: list[Polygon] = []
    named: dict[str, tuple[float, ...]] = {}
    image_class, number = None, 0
    try:
        for number, line in lines:
            fields = line.split()
            if ":" in line:
                _add_named(named, line, rules)
                continue
            if _is_one_hot(fields, num_image_classes if number == last else None):
                image_class = _image_class(fields, rules, number == last)
            elif len(fields) == 5:
                boxes.append(_box(fields, num_box_classes))
            elif len(fields) >= 7 and len(fields) % 2 == 1:
                polygons.append(_polygon(fields, num_box_classes))
            else:
                raise _Fault(_wrong_length(len(fields), num_image_classes))
            if boxes and polygons:
                raise _Fault("boxes and polygons in one file, where YOLOv5 takes every line for a polygon: write all as one kind")
        if rules.unnamed in named:
            if image_class is not None:
                raise _Fault(
                    f"the last line is the image's class, which the line `{rules.unnamed}: ...` gives as well: remove one"
                )
            image_class = int(named.pop(str(rules.unnamed))[0])
    except _Fault as fault:
        raise LabelError(file, number, _LONG_WORD.sub(r"\1...", str(fault))) from None
    return LabelRecord(tuple(boxes), tuple(polygons), image_class, named)


def read_label_file(
    path: str | Path, num_box_classes: int | None, num_image_classes: int, rules: LabelRules | None = None
) -> LabelRecord:
    """The record of the file at `path`; a missing file is a background image without a class, as upstream has it.

    `rules`, if given, replace both numbers.

    Raises:
        LabelError: if the file cannot be read, or at its first fault.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):  # to read a pipe would wait for ever
            raise LabelError(str(path), None, "is not a file: remove it")
        with open(path, "rb") as stream:  # creating a Path for each of 100,000 files takes noticeable time
            content = stream.read()
    except FileNotFoundError:
        if os.path.islink(path):
            raise LabelError(str(path), None, "is a link to nothing: mend or remove it") from None
        return LabelRecord()
    except OSError as error:
        raise LabelError(str(path), None, f"cannot be read: {error.strerror}") from None
    # Only ASCII is valid, and Latin-1 shows every other byte as the character of that number, so decoding cannot fail.
    return parse_label_text(content.decode("latin-1"), num_box_classes, num_image_classes, str(path), rules)


def write_label_file(
    path: str | Path,
    record: LabelRecord,
    num_box_classes: int | None,
    num_image_classes: int,
    rules: LabelRules | None = None,
) -> None:
    """Write `record` so that `read_label_file` gives it back exactly; the file appears whole or not at all.

    `rules`, if given, replace both numbers.

    Raises:
        LabelError: if the record breaks a rule of the format; nothing is written then.
        OSError: if the folder cannot be written to.
    """
    path = Path(path)
    rules = rules or LabelRules(num_box_classes, num_image_classes)
    num_image_classes = rules.num_image_classes
    if record.image_class is not None and not 0 <= record.image_class < num_image_classes:
        reason = f"image class {record.image_class} is not one of the {num_image_classes} of classification_names"
        raise LabelError(str(path), None, reason)
    objects = [(box.class_index, [box.cx, box.cy, box.w, box.h]) for box in record.boxes]
    objects += [(polygon.class_index, [v for point in polygon.points for v in point]) for polygon in record.polygons]
    # repr keeps every bit of a float and has a point or an exponent, so no coordinate looks like a one-hot digit.
    lines = [" ".join([str(index), *(repr(float(value)) for value in values)]) for index, values in objects]
    formats = {output.name: output.format for output in rules.outputs}
    unknown = [name for name in record.named if name not in formats]
    if unknown:
        raise LabelError(str(path), None, f"`{unknown[0]}` is no image output of the data set")
    lines += [f"{name}: {format_target(record.named[name])}" for name, format_target in formats.items() if name in record.named]
    if record.image_class is not None:
        lines.append(" ".join("1" if index == record.image_class else "0" for index in range(num_image_classes)))
    text = "".join(f"{line}\n" for line in lines)
    parse_label_text(text, num_box_classes, num_image_classes, str(path), rules)
    write_text(path, text, encoding="ascii")


def _add_named(named: dict[str, tuple[float, ...]], line: str, rules: LabelRules) -> None:
    """Read a named line into `named`."""
    name, _, text = (part.strip() for part in line.partition(":"))
    output = next((output for output in rules.outputs if output.name == name), None)
    if output is None:
        known = ", ".join(f"`{output.name}: ...`" for output in rules.outputs if output.name != rules.unnamed)
        raise _Fault(f"`{line.strip()}` is of no image output of the data set" + (f"; it has {known}" if known else ""))
    if name in named:
        raise _Fault(f"a second line `{name}: ...`: give each once")
    try:
        named[name] = output.parse(text.split())
    except ValueError as error:
        raise _Fault(str(error)) from None


def _is_one_hot(fields: list[str], length: int | None) -> bool:
    """Whether a line is meant as one-hot: zeros and a single one; or zeros and ones of exactly the given length."""
    return set(fields) <= {"0", "1"} and (fields.count("1") == 1 or len(fields) == length)


def _image_class(fields: list[str], rules: LabelRules, last: bool) -> int:
    num_image_classes = rules.num_image_classes
    if not last:
        raise _Fault("a one-hot line (or a box without area) above other lines: the image's class is the last line, given once")
    if num_image_classes == 0 and rules.outputs:
        known = ", ".join(f"`{output.name}: ...`" for output in rules.outputs)
        raise _Fault(f"a one-hot line without a name, where no one output tells a class: write {known}")
    if num_image_classes == 0:
        raise _Fault("a one-hot line, but the data set has no classification_names: add them to the data yaml")
    if len(fields) != num_image_classes:
        raise _Fault(
            f"a one-hot line (or a box without area) of {len(fields)} values, but classification_names has "
            f"{num_image_classes}: write one value for each"
        )
    ones = fields.count("1")
    if ones != 1:
        raise _Fault(f"a one-hot line with {ones} ones: write exactly one 1 (if it is a box or polygon, write 1.0 for 1)")
    return fields.index("1")


def _wrong_length(count: int, num_image_classes: int) -> str:
    expected = "5 for a box, an odd number from 7 for a polygon"
    if num_image_classes:
        expected += f", {num_image_classes} of plain 0 and 1 with exactly one 1 on the last line for the image's class"
    hint = " (is the sixth a confidence? remove it)" if count == 6 else ""
    return f"{count} value{'s' if count > 1 else ''}{hint}: expected {expected}"


def _number(field: str, what: str) -> float:
    if not _NUMBER.fullmatch(field):
        raise _Fault(f"{what} `{field}` is not a number")
    return float(field)


def _class_index(field: str, num_box_classes: int | None) -> int:
    value = _number(field, "class")
    if not value.is_integer():
        raise _Fault(f"class {field} is not a whole number")
    if value < 0 or (num_box_classes is not None and value >= num_box_classes):
        known = "" if num_box_classes is None else f" ({num_box_classes} classes, 0 to {num_box_classes - 1})"
        raise _Fault(f"class {field} is outside names{known}: correct it, or add the class to the data yaml")
    return int(value)


def _coordinates(fields: list[str]) -> list[float]:
    values = [_number(field, "coordinate") for field in fields]
    for field, value in zip(fields, values, strict=True):
        if not 0 <= value <= 1:
            raise _Fault(f"coordinate {field} is outside 0..1: divide x by the image's width, y by its height")
    return values


def _box(fields: list[str], num_box_classes: int | None) -> Box:
    box = Box(_class_index(fields[0], num_box_classes), *_coordinates(fields[1:]))
    if box.w == 0 or box.h == 0:
        raise _Fault(f"a box without area (w {fields[3]}, h {fields[4]}): remove it, or give its size")
    return box


def _polygon(fields: list[str], num_box_classes: int | None) -> Polygon:
    class_index, values = _class_index(fields[0], num_box_classes), _coordinates(fields[1:])
    xs, ys = values[::2], values[1::2]
    if min(xs) == max(xs) or min(ys) == max(ys):
        raise _Fault("a polygon without area (its points share one x or one y): remove it, or correct its points")
    return Polygon(class_index, tuple(zip(xs, ys, strict=True)))
