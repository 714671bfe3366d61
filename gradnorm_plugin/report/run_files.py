"""What the files in a run's folder say. A file may be missing; one that is there must be whole."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradnorm_plugin.reading import read_text, read_yaml
from gradnorm_plugin.run_folder import (
    BATCHES_FILE,
    CLASSIFICATION,
    DETECTION,
    EPOCHS_FILE,
    FACTS_FILE,
    FILES,
    HYPERPARAMETERS_FILE,
    METRICS_FILE,
    OPTIONS_FILE,
    PLAIN_EPOCHS_FILE,
    UPDATES_FILE,
    ImageTask,
    ImageTasks,
    image_tasks,
    loss_columns,
)

# our column of an epoch -> that of YOLOv5's own table
_PLAIN_COLUMNS = {
    "epoch": "epoch",
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "mAP50": "metrics/mAP_0.5",
    "mAP50-95": "metrics/mAP_0.5:0.95",
    **{loss: loss.replace("_", "/", 1) for loss in loss_columns(())},
}


class ReportError(ValueError):
    """A file of a run cannot be reported on; the message names it, the place in it, and what to do."""


@dataclass(frozen=True)
class Rows:
    """A CSV of the run with one row or more: its columns, by name."""

    file: str
    columns: Mapping[str, list[str]]

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    def texts(self, column: str) -> list[str]:
        """A column as it stands in the file.

        Raises:
            ReportError: if there is no such column.
        """
        if column not in self.columns:
            raise ReportError(f"{self.file} has no column `{column}`; it has {', '.join(self.columns)}")
        return self.columns[column]

    def numbers(self, column: str) -> list[float]:
        """A column of numbers; NaN where a cell is empty or `nan`, and everywhere for a figure that YOLOv5's own table lacks.

        Raises:
            ReportError: if there is no such column, or a cell is not a number.
        """
        if self.file == PLAIN_EPOCHS_FILE:
            if column not in _PLAIN_COLUMNS:
                return [math.nan] * len(self)
            column = _PLAIN_COLUMNS[column]
        found = []
        for line, text in enumerate(self.texts(column), 2):
            try:
                found.append(float(text or "nan"))
            except ValueError:
                raise ReportError(f"{self.file}:{line}: `{column}` is {text!r}, expected a number") from None
        return found

    def known(self, column: str) -> list[float]:
        """The numbers of a column, without its gaps."""
        return finite(self.numbers(column))


@dataclass(frozen=True)
class Record:
    """A mapping of a JSON or YAML file; false where there is no such file. What is absent, null or NaN is None.

    Every look-up but `text` raises ReportError, with the file and the place in it, if the value is of another kind.
    """

    file: str
    values: Mapping[str, Any]
    place: str = ""
    found: bool = True

    def __bool__(self) -> bool:
        return self.found

    def number(self, name: str) -> float | None:
        """A number."""
        return self._get(name, (int, float), "a number")

    def text(self, name: str) -> str | None:
        """A text, or the text of a plain value."""
        value = self.values.get(name)
        return None if value is None else str(value)

    def sequence(self, name: str) -> list[Any]:
        """A list of anything; empty if it is absent."""
        return self._get(name, (list,), "a list") or []

    def numbers(self, name: str) -> list[float]:
        """A list of numbers; empty if it is absent."""
        found = self.sequence(name)
        if not _are_numbers(found):
            raise self._error(name, found, "a list of numbers")
        return found

    def pair(self, name: str) -> tuple[float, float] | None:
        """Low and high."""
        found = self._get(name, (list,), "a list")
        return None if found is None else self._pair(name, found)

    def pairs(self, name: str) -> list[tuple[float, float]]:
        """A list of low and high; empty if it is absent."""
        return [self._pair(f"{name}[{index}]", found) for index, found in enumerate(self.sequence(name))]

    def record(self, name: str) -> Record:
        """A mapping; an empty one if it is absent."""
        return Record(self.file, self._get(name, (dict,), "a mapping") or {}, f"{self.place}{name}.")

    def records(self, name: str) -> list[Record]:
        """A list of mappings; empty if it is absent."""
        found = self.sequence(name)
        for value in found:
            if not isinstance(value, dict):
                raise ReportError(f"{self.file}: `{self.place}{name}` has {value!r}, expected a mapping")
        return [Record(self.file, value, f"{self.place}{name}[{index}].") for index, value in enumerate(found)]

    def _get(self, name: str, kinds: tuple[type, ...], expected: str) -> Any:
        value = self.values.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self._error(name, value, expected)
        return value

    def _pair(self, name: str, found: Any) -> tuple[float, float]:
        if not isinstance(found, list) or len(found) != 2 or not _are_numbers(found):
            raise self._error(name, found, "[low, high]")
        return found[0], found[1]

    def _error(self, name: str, value: Any, expected: str) -> ReportError:
        return ReportError(f"{self.file}: `{self.place}{name}` is {value!r}, expected {expected}")


def task_part(metrics: Record, task: str) -> Record:
    """What `joint_metrics.json` holds of a task."""
    return metrics.record(task) if task in (DETECTION, CLASSIFICATION.name) else metrics.record("outputs").record(task)


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds; a table is None if it is not there, or has no row yet."""

    folder: Path
    options: Record
    hyperparameters: Record
    facts: Record
    metrics: Record
    joint_epochs: Rows | None
    plain_epochs: Rows | None
    updates: Rows | None
    batches: Rows | None

    @property
    def epochs(self) -> Rows | None:
        """The figures of every epoch; of detection alone where only YOLOv5's own table has them."""
        return self.joint_epochs or self.plain_epochs

    @property
    def tasks(self) -> ImageTasks:
        """The image outputs, by `run.json` or, where that is missing, by the columns of a table."""
        if self.facts:
            return image_tasks(self.facts.values)
        columns = [column for table in (self.joint_epochs, self.updates, self.batches) if table for column in table.columns]
        names = dict.fromkeys(column.removesuffix("_weight") for column in columns if column.endswith("_weight"))
        others = [
            CLASSIFICATION if name == CLASSIFICATION.name else ImageTask(name, "", (), "") for name in names if name != DETECTION
        ]
        return tuple(others) or (CLASSIFICATION,)


def read_run(folder: Path) -> RunFiles:
    """Read what there is.

    Raises:
        ReportError: if `folder` is not a run's folder, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder: name the folder of a run, such as runs/train/exp")
    if not any((folder / name).is_file() for name in FILES):
        raise ReportError(f"{folder} holds none of {', '.join(FILES)}: name the folder of a run, such as runs/train/exp")
    return RunFiles(
        folder,
        options=_read_record(folder / OPTIONS_FILE),
        hyperparameters=_read_record(folder / HYPERPARAMETERS_FILE),
        facts=_read_record(folder / FACTS_FILE),
        metrics=_read_record(folder / METRICS_FILE),
        joint_epochs=read_table(folder / EPOCHS_FILE),
        plain_epochs=read_table(folder / PLAIN_EPOCHS_FILE),
        updates=read_table(folder / UPDATES_FILE),
        batches=read_table(folder / BATCHES_FILE),
    )


def read_table(file: Path) -> Rows | None:
    """A table of a run; None if it is not there, or has no row yet.

    Raises:
        ReportError: if it cannot be read.
    """
    if not file.is_file():
        return None
    try:
        lines = [[cell.strip() for cell in row] for row in csv.reader(read_text(file).splitlines(keepends=True))]
    except (ValueError, csv.Error) as error:
        raise ReportError(f"{file} cannot be read: {error}") from None
    header, *rows = lines or [[]]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ReportError(f"{file}:{line} has {len(row)} values, the header {len(header)}: mend or remove the line")
    return Rows(file.name, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))) if rows else None


def read_facts(folder: Path) -> dict[str, Any]:
    """What `run.json` in `folder` holds, also of a run that is not finished; empty if it cannot be read."""
    try:
        facts = json.loads(read_text(folder / FACTS_FILE))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def best_epoch(fitness: Sequence[float]) -> int | None:
    """The index of the epoch that `best.pt` holds, by the epochs' fitness, NaN where there is none; None if no epoch has one.

    YOLOv5 saves it whenever no epoch before was better: of several that are equally good it is the last.
    """
    known = [index for index, value in enumerate(fitness) if math.isfinite(value)]
    return max(known, key=lambda index: (fitness[index], index), default=None)


def finite(values: Iterable[float]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if math.isfinite(value)]


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _read_record(file: Path) -> Record:
    if not file.is_file():
        return Record(file.name, {}, found=False)
    try:
        contents = json.loads(read_text(file)) if file.suffix == ".json" else read_yaml(file)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from None
    if not isinstance(contents, dict):
        raise ReportError(f"{file} holds no mapping: it is not the file that training wrote")
    return Record(file.name, contents)
