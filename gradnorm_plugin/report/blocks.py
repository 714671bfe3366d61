"""What a report is made of, before it is Markdown or HTML: sections of sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Span:
    """A piece of a sentence; `code` for a file's name and the like."""

    text: str
    code: bool = False


Text = tuple[Span, ...]
Cell = str | Text
"""A plain string is text without code."""


@dataclass(frozen=True)
class Points:
    """Sentences, one below the other."""

    texts: Sequence[Text]
    kind: str = "points"


@dataclass(frozen=True)
class Small:
    """How words were chosen, what a column means."""

    text: Text
    kind: str = "small"


@dataclass(frozen=True)
class Missing:
    """A file that is not there, in one line."""

    text: Text
    kind: str = "missing"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its heading."""

    caption: Text
    head: Sequence[Cell]
    """Empty for facts: two columns without headings."""
    rows: Sequence[Sequence[Cell]]
    numeric: bool = True
    """Whether the columns after the first hold numbers."""
    shades: Sequence[Sequence[float]] = ()
    """Share (0..1) behind each cell after the first of each row."""
    wide: bool = False
    """Many short rows, which HTML may set in columns."""
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
    """A heading and what is below it; `name` is its anchor."""

    name: str
    title: Text
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A headline figure. `bar` holds value, low, high in 0..1 where it has a place on that scale."""

    label: Text
    value: str
    note: Text
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Report:
    """The whole of it."""

    language: str
    title: Text
    subtitle: Text
    tiles: Sequence[Tile]
    limits_title: Text
    limits: Sequence[Text]
    sections: Sequence[Section]
    labels: dict[str, Text] = field(default_factory=dict)
    """Fixed words of the templates."""
