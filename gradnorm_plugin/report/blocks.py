"""What a report is made of before it becomes Markdown or HTML: sentences in its language, tables, pictures, sections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from gradnorm_plugin.names import one_line
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, ImageTask, ImageTasks

LANGUAGES = ("en", "zh-TW")
NONE = "–"
"""Shown in place of a missing figure."""
_OF_OUTPUTS = "_outputs"
_SHARES = frozenset(
    ("precision", "recall", "F1", "mAP50", "mAP50-95", "accuracy", "balanced_accuracy", "macro_F1", "mean_AP", "AP", "R2",
     "calibration_error", "fitness")
)  # fmt: skip
"""Figures that are best at 1 or 0 and written to three places; others may be of any size."""


@dataclass(frozen=True)
class Span:
    """A piece of a sentence; `code` for the name of a file or an option."""

    text: str
    code: bool = False


Text = tuple[Span, ...]


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """All texts of a language, `section.key` -> text with {placeholders} and `code`."""
    source = files("gradnorm_plugin.report") / "texts" / f"{language}.yaml"
    sections = yaml.safe_load(source.read_text(encoding="utf-8"))
    return {f"{section}.{key}": text for section, texts in sections.items() for key, text in texts.items()}


class Wording:
    """Texts by their key, with values put in: `say("weights.rose", task=..., first=...)`.

    For other image outputs than the one class, a text whose key ends with `_outputs` takes the place of that without. In the
    texts of `compare`, what `instead` has as a key is replaced by its value.
    """

    def __init__(
        self, language: str, tasks: ImageTasks = (CLASSIFICATION,), instead: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.language = language
        self.several = tasks != (CLASSIFICATION,)
        self._texts = dict(catalogue(language))
        if self.several:
            others = {key: text for key, text in self._texts.items() if key.endswith(_OF_OUTPUTS)}
            self._texts |= {key.removesuffix(_OF_OUTPUTS): text for key, text in others.items()}
        for word, other in instead.items():
            ours = {key: text for key, text in self._texts.items() if key.startswith("compare")}
            self._texts |= {key: text.replace(word, other) for key, text in ours.items()}

    def __call__(self, key: str, **values: Any) -> Text:
        """The text of `key`; a value never becomes markup, whatever it holds."""
        pieces = self._texts[key].split("`")
        clean = {name: one_line(value) for name, value in values.items()}
        return tuple(Span(piece.format(**clean), code=index % 2 == 1) for index, piece in enumerate(pieces) if piece)

    def plain(self, key: str, **values: Any) -> str:
        """The text of `key` as one string, for use inside another."""
        return "".join(span.text for span in self(key, **values))

    def task(self, name: str) -> str:
        """The name of a task; an image output has that of the data yaml."""
        return self.plain(f"task.{name}") if f"task.{name}" in self._texts else name

    def of_task(self, key: str, task: str, **values: Any) -> Text:
        """The text of `key` with the task in place of `*`; for an image output that with `task` there, and its name in it."""
        known = task in (DETECTION, CLASSIFICATION.name)
        return self(key.replace("*", task if known else "task"), task=task, **values)

    def score(self, column: str, task: ImageTask = CLASSIFICATION) -> str:
        """The name of a figure: of detection, or in a column of an image output, whose name goes before it."""
        figure = task.figure(column)
        name = self.plain(f"score.{figure}") if f"score.{figure}" in self._texts else figure.replace("_", " ")
        return name if task == CLASSIFICATION else self.plain("score.of", task=task.name, figure=name)

    def loss(self, column: str) -> str:
        """The name of a loss in a column of an epoch."""
        split, _, task = column.removesuffix("_loss").partition("_")
        return self.plain(f"loss.{column}") if f"loss.{column}" in self._texts else self.plain(f"loss.{split}_task", task=task)

    def percent(self, share: float | None, form: str = ".1f") -> str:
        """0.431 -> 43.1 %; 0.01 -> 1 % with the form "g"."""
        return NONE if share is None or math.isnan(share) else self.plain("number.percent", value=format(100 * share, form))

    def change(self, share: float | None) -> str:
        """-0.431 -> -43.1 %, 0.431 -> +43.1 %."""
        return self.percent(share, "+.1f")

    def listed(self, names: Iterable[str]) -> str:
        """Names, separated by commas."""
        return self.plain("number.comma").join(one_line(name) for name in names)

    def duration(self, seconds: float) -> str:
        """Hours and minutes, or minutes and seconds of less than an hour."""
        whole = round(seconds)
        if whole >= 3600:
            return self.plain("number.hours", hours=whole // 3600, minutes=whole % 3600 // 60)
        return self.plain("number.minutes", minutes=whole // 60, seconds=whole % 60)


def count(value: float | None) -> str:
    """7030417 -> 7,030,417."""
    return _number(value, ",.0f")


def score(value: float | None) -> str:
    """A figure between 0 and 1, to three places."""
    return _number(value, ".3f")


def measured(name: str, value: float | None, sign: str = "") -> str:
    """A figure of `joint_metrics.json`, by its name there; `sign` is "+" for a difference."""
    return _number(value, f"{sign}.3f" if name in _SHARES else f"{sign}.4g")


def figure(value: float | None) -> str:
    """A loss, weight or norm, to four significant digits, as on the screen."""
    return _number(value, ".4g")


def _number(value: float | None, form: str) -> str:
    return NONE if value is None or math.isnan(value) else format(value, form)


def extremes(names: Sequence[str], values: Sequence[float]) -> tuple[list[str], list[str]] | None:
    """The names with the highest value and those with the lowest; None if all values are the same."""
    high, low = max(values), min(values)
    pairs = list(zip(names, values, strict=True))
    return None if high == low else ([n for n, value in pairs if value == high], [n for n, value in pairs if value == low])


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
    """A line in place of something that cannot be shown."""

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
    """Fixed texts of the templates, by the keys in `compose.LABELS`."""


def missing(folder: Path, file: str, say: Wording) -> Missing:
    """The line for a file of the run that is not there, or has no row yet."""
    return Missing(say("missing.rows" if (folder / file).is_file() else "missing.file", file=file))


def pictures(folder: Path, names: Iterable[str], say: Wording) -> list[Picture]:
    """The pictures of these names that are in the folder, with their captions."""
    return [Picture(file, say(f"picture.{file.stem}")) for file in map(folder.joinpath, names) if file.is_file()]
