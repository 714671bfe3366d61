"""What a report is made of before it becomes Markdown or HTML: sections of sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradnorm_plugin.report.wording import Text, Wording

Cell = str | Text
"""A plain string is text without code."""


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: Sequence[Text]
    kind: str = "points"


@dataclass(frozen=True)
class Small:
    """A note: how words were chosen, what a column means."""

    text: Text
    kind: str = "small"


@dataclass(frozen=True)
class Missing:
    """A line in the place of what cannot be shown."""

    text: Text
    kind: str = "missing"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its header."""

    caption: Text
    head: Sequence[Cell]
    """Empty for a list of facts: two columns without headers."""
    rows: Sequence[Sequence[Cell]]
    numeric: bool = True
    """Whether the columns after the first hold numbers."""
    shades: Sequence[Sequence[float]] = ()
    """How dark each cell after the first of its row is, 0..1."""
    wide: bool = False
    """Many short rows, which HTML may lay out in columns."""
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A picture file of the run."""

    file: Path
    caption: Text
    kind: str = "picture"


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where there is room."""

    pictures: Sequence[Picture]
    kind: str = "gallery"


Block = Points | Small | Missing | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and its content; `name` is its anchor."""

    name: str
    title: Text
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A headline figure. `bar` holds value, low and high, if the figure is one between 0 and 1."""

    label: Cell
    value: str
    note: Text
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Report:
    """A whole report."""

    language: str
    title: Text
    subtitle: Text
    tiles: Sequence[Tile]
    limits_title: Text
    limits: Sequence[Text]
    sections: Sequence[Section]
    labels: dict[str, Text] = field(default_factory=dict)
    """Fixed texts of the templates, by the keys in `render.LABELS`."""


def missing(folder: Path, file: str, say: Wording) -> Missing:
    """The line for a file of the run that is not there, or has no row yet."""
    return Missing(say("missing.rows" if (folder / file).is_file() else "missing.file", file=file))


def pictures(folder: Path, names: Iterable[str], say: Wording) -> list[Picture]:
    """The pictures of these names that are in the folder, with their captions."""
    return [Picture(file, say(f"picture.{file.stem}")) for file in map(folder.joinpath, names) if file.is_file()]
