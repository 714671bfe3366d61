"""What a file of the run holds, looked up by name and checked on the way: a value of the wrong kind is named with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ReportError(ValueError):
    """A file of the run cannot be used; the message names it, the place in it, and what to do."""


@dataclass(frozen=True)
class Rows:
    """A CSV of the run. Columns are looked up by name."""

    file: str
    columns: Mapping[str, list[str]]
    """Column -> its text in every row."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def texts(self, column: str) -> list[str]:
        """A column as it stands in the file.

        Raises:
            ReportError: if there is no such column.
        """
        if column not in self.columns:
            raise ReportError(f"{self.file} has no column `{column}`; it has {', '.join(self.columns)}")
        return self.columns[column]

    def numbers(self, column: str) -> list[float]:
        """A column of numbers; NaN where a cell is empty or `nan`.

        Raises:
            ReportError: if there is no such column, or a cell is no number.
        """
        return [self._number(column, index, text) for index, text in enumerate(self.texts(column))]

    def _number(self, column: str, index: int, text: str) -> float:
        try:
            return float(text) if text else math.nan
        except ValueError:
            raise ReportError(f"{self.file}:{index + 2}: `{column}` is {text!r}, expected a number") from None


@dataclass(frozen=True)
class Record:
    """A mapping of a JSON or YAML file. What is absent, null or NaN is None."""

    file: str
    values: Mapping[str, Any]
    place: str = ""

    def _get(self, name: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self.values.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ReportError(f"{self.file}: `{self.place}{name}` is {value!r}, expected {expected}")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        return self._get(name, (int, float), "a number")

    def text(self, name: str) -> str | None:
        """A text, or the text of a plain value."""
        value = self.values.get(name)
        return None if value is None else str(value)

    def list(self, name: str) -> list[Any] | None:
        """A list."""
        return self._get(name, list, "a list")

    def numbers(self, name: str) -> list[float] | None:
        """A list of numbers."""
        found = self.list(name)
        if found is not None and not all(isinstance(value, (int, float)) for value in found):
            raise ReportError(f"{self.file}: `{self.place}{name}` is {found!r}, expected a list of numbers")
        return found

    def pair(self, name: str) -> tuple[float, float] | None:
        """Low and high."""
        found = self.list(name)
        return None if found is None else self._pair(name, found)

    def pairs(self, name: str) -> list[tuple[float, float]]:
        """A list of low and high; empty if it is absent."""
        return [self._pair(f"{name}[{index}]", found) for index, found in enumerate(self.list(name) or [])]

    def _pair(self, name: str, found: Any) -> tuple[float, float]:
        if not isinstance(found, list) or len(found) != 2 or not all(isinstance(value, (int, float)) for value in found):
            raise ReportError(f"{self.file}: `{self.place}{name}` is {found!r}, expected [low, high]")
        return found[0], found[1]

    def record(self, name: str) -> Record:
        """A mapping; an empty one if it is absent."""
        return Record(self.file, self._get(name, dict, "a mapping") or {}, f"{self.place}{name}.")

    def records(self, name: str) -> list[Record]:
        """A list of mappings; empty if it is absent."""
        found = self.list(name) or []
        for value in found:
            if not isinstance(value, dict):
                raise ReportError(f"{self.file}: `{self.place}{name}` has {value!r}, expected a mapping")
        return [Record(self.file, value, f"{self.place}{name}[{index}].") for index, value in enumerate(found)]
