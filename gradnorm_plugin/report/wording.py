"""Sentences in the report's language, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gradnorm_plugin.names import one_line

LANGUAGES = ("en", "zh-TW")
NONE = "–"
"""Shown where there is no figure."""


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
    """Texts by their key, with values put in: `say("weights.rose", task=..., first=...)`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, key: str, **values: Any) -> Text:
        """The text of `key`; a value never becomes markup, whatever it holds."""
        pieces = self._texts[key].split("`")
        clean = {name: one_line(value) for name, value in values.items()}
        return tuple(Span(piece.format(**clean), code=index % 2 == 1) for index, piece in enumerate(pieces) if piece)

    def plain(self, key: str, **values: Any) -> str:
        """The text of `key` as one string, for use inside another."""
        return "".join(span.text for span in self(key, **values))

    def known(self, key: str, other: str) -> Text:
        """The text of `key`; `other` where there is none, as for the name of an image output."""
        return self(key) if key in self._texts else (Span(one_line(other)),)

    def task(self, name: str) -> str:
        """Detection, the classification, or an image output by its own name."""
        return "".join(span.text for span in self.known(f"task.{name}", name))

    def score(self, column: str) -> Text:
        """A figure by its column; that of an image output as `finding macro F1`."""
        return self.known(f"score.{column}", column.replace("_", " "))

    def percent(self, share: float | None) -> str:
        """0.431 -> 43.1 %."""
        return self._percent(share, ".1f")

    def limit(self, share: float) -> str:
        """0.01 -> 1 %."""
        return self._percent(share, "g")

    def change(self, share: float | None) -> str:
        """-0.431 -> -43.1 %, 0.431 -> +43.1 %."""
        return self._percent(share, "+.1f")

    def _percent(self, share: float | None, form: str) -> str:
        return NONE if share is None or math.isnan(share) else self.plain("number.percent", value=format(100 * share, form))

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
