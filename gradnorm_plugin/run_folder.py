"""A run's folder: the names of its files, their columns and figures, and how they are written and read back.

Training and `val` write the files under these names, `report` and `compare` read them. A file may be missing; one that is there
must be whole.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.reading import read_text, read_yaml

OPTIONS_FILE = "opt.yaml"
HYPERPARAMETERS_FILE = "hyp.yaml"
FACTS_FILE = "run.json"
METRICS_FILE = "joint_metrics.json"
EPOCHS_FILE = "joint_results.csv"
PLAIN_EPOCHS_FILE = "results.csv"
"""YOLOv5's own table, which knows detection alone."""
UPDATES_FILE = "gradnorm.csv"
BATCHES_FILE = "batches.csv"
FILES = (
    OPTIONS_FILE, HYPERPARAMETERS_FILE, FACTS_FILE, METRICS_FILE, EPOCHS_FILE, PLAIN_EPOCHS_FILE, UPDATES_FILE, BATCHES_FILE,
)  # fmt: skip
EPOCHS_PICTURE, UPDATES_PICTURE = "joint_results.png", "gradnorm.png"
CONFUSION_PICTURE, RELIABILITY_PICTURE = "classification_confusion_matrix.png", "classification_reliability.png"
EXPLAINED_PICTURES = {which: f"classification_explained_{which}.jpg" for which in ("best", "worst", "wrong")}
"""Validation images, and what spoke for the answers."""


def output_picture(task: str, picture: str) -> str:
    """The name of an image output's picture: that of the classification, with the output's own name in it."""
    return picture.replace("classification", task, 1)


DETECTION = "detection"
"""The first task; the others are the image outputs."""
DETECTION_FIGURES = ("precision", "recall", "F1", "mAP50", "mAP50-95")
CLASSIFICATION_FIGURES = ("accuracy", "balanced_accuracy", "macro_F1")
"""Of every epoch and with intervals; `joint_metrics.json` has more."""


@dataclass(frozen=True)
class ImageTask:
    """An image output as the tables of a run have it."""

    name: str
    """In the columns of losses, weights and norms."""
    kind: str = "classes"
    figures: tuple[str, ...] = CLASSIFICATION_FIGURES
    """Columns of its figures."""
    headline: str = "balanced_accuracy"
    """The column that stands for the others; 1 is perfect."""

    def figure(self, column: str) -> str:
        """The name that the figure of a column has in `joint_metrics.json`."""
        return column.removeprefix(f"{self.name}_")


CLASSIFICATION = ImageTask("classification")
"""The one image output of a data set with `classification_names` alone."""
ImageTasks = tuple[ImageTask, ...]


def task_names(tasks: ImageTasks) -> tuple[str, ...]:
    """Detection and the image outputs."""
    return (DETECTION, *(task.name for task in tasks))


def weight_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """The weights of all tasks."""
    return tuple(f"{name}_weight" for name in task_names(tasks))


def loss_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """An epoch's losses, detection in its three parts."""
    parts = ("box", "obj", "cls", *(task.name for task in tasks))
    return tuple(f"{split}_{part}_loss" for split in ("train", "val") for part in parts)


def cosine_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """The lowest cosine of any two tasks' gradients; then, where there are more than two, that of each two."""
    names = task_names(tasks)
    each = [f"cosine_{first}_{second}" for index, first in enumerate(names) for second in names[index + 1 :]]
    return ("cosine", *(each if len(each) > 1 else ()))


def epoch_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """`joint_results.csv`."""
    figures = [figure for task in tasks for figure in task.figures]
    return ("epoch", *DETECTION_FIGURES, *figures, *loss_columns(tasks), *weight_columns(tasks), "fitness")


def update_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """`gradnorm.csv`."""
    names = task_names(tasks)
    return (
        "step", "epoch", "loss", *(f"{name}_loss" for name in names), *weight_columns(tasks), *(f"{name}_norm" for name in names),
        *(f"{name}_rate" for name in names), *cosine_columns(tasks), "detection_norm_before_clip", "head_norm_before_clip",
    )  # fmt: skip


def batch_figures(tasks: ImageTasks) -> tuple[str, ...]:
    """`batches.csv` after the epoch and the batch."""
    return ("total", *task_names(tasks), *weight_columns(tasks), "cosine")


def image_tasks(facts: Mapping[str, Any]) -> ImageTasks:
    """The image outputs of a run, by what its `run.json` holds; that of the class alone where it says nothing else."""
    described = facts.get("image_outputs")
    if not isinstance(described, list) or not all(isinstance(task, dict) for task in described) or not described:
        return (CLASSIFICATION,)
    try:
        return tuple(
            ImageTask(str(t["task"]), str(t["kind"]), tuple(map(str, t["columns"])), str(t["headline"])) for t in described
        )
    except (KeyError, TypeError):
        return (CLASSIFICATION,)


def weighted_tasks(columns: Iterable[str]) -> ImageTasks:
    """The image outputs that have a weight among a table's columns; nothing is known of their figures but of the class's."""
    names = [column.removesuffix("_weight") for column in columns if column.endswith("_weight")]
    others = [name for name in names if name != DETECTION]
    return tuple(CLASSIFICATION if name == CLASSIFICATION.name else ImageTask(name, "", (), "") for name in others)


def output_part(metrics: Record, task: str) -> Record:
    """What `joint_metrics.json` holds of an image output."""
    return metrics.record(task) if task == CLASSIFICATION.name else metrics.record("outputs").record(task)


# our column of an epoch -> that of YOLOv5's own table
_PLAIN_COLUMNS = {
    "epoch": "epoch",
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "mAP50": "metrics/mAP_0.5",
    "mAP50-95": "metrics/mAP_0.5:0.95",
    **{loss: loss.replace("_", "/", 1) for loss in loss_columns(())},
}

T = TypeVar("T")


class ReportError(ValueError):
    """A file of a run cannot be reported on; the message names it, the place in it, and what to do."""


class RunTable:
    """A CSV that grows with the run, is never half-written, and is cut back to the checkpoint when the run resumes.

    Its rows have an `epoch` column. They are kept in memory and the file is written whole.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, Any]] = []

    def resume(self, epoch: int) -> None:
        """Take over the rows that an earlier start of this run wrote before `epoch`.

        Raises:
            ReportError: if the file is not one that a run writes, or has columns that this one does not know.
        """
        found = read_table(self.path)
        if found is None:
            return
        unknown = [name for name in found.columns if name not in self.columns]
        if unknown:
            raise ReportError(f"{self.path} has the columns {', '.join(unknown)}, which this run does not write: remove the file")
        rows = zip(*(found.texts(name) for name in found.columns), strict=True)
        self.rows = [
            dict(zip(found.columns, row, strict=True)) for row, of in zip(rows, found.numbers("epoch"), strict=True) if of < epoch
        ]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numbers keep 6 significant digits. It reaches the disk with the next `write`."""
        self.rows.append({name: f"{v:.6g}" if isinstance(v := row[name], float) else v for name in self.columns})

    def write(self) -> None:
        """Bring the file up to date.

        Raises:
            WriteError: if it cannot be written; the old one is untouched.
        """
        with whole_file(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


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
            ReportError: if there is no such column, or a cell is not a number.
        """
        return [self._number(column, index, text) for index, text in enumerate(self.texts(column))]

    def _number(self, column: str, index: int, text: str) -> float:
        try:
            return float(text) if text else math.nan
        except ValueError:
            raise ReportError(f"{self.file}:{index + 2}: `{column}` is {text!r}, expected a number") from None


@dataclass(frozen=True)
class Record:
    """A mapping of a JSON or YAML file. What is absent, null or NaN is None.

    Every look-up but `text` raises ReportError, with the file and the place in it, if the value is of another kind.
    """

    file: str
    values: Mapping[str, Any]
    place: str = ""

    def number(self, name: str) -> float | None:
        """A number."""
        return self._get(name, (int, float), "a number")

    def text(self, name: str) -> str | None:
        """A text, or the text of a plain value."""
        value = self.values.get(name)
        return None if value is None else str(value)

    def sequence(self, name: str) -> list[Any] | None:
        """A list of anything."""
        return self._get(name, (list,), "a list")

    def numbers(self, name: str) -> list[float] | None:
        """A list of numbers."""
        found = self.sequence(name)
        if found is not None and not all(isinstance(value, (int, float)) for value in found):
            raise self._error(name, found, "a list of numbers")
        return found

    def pair(self, name: str) -> tuple[float, float] | None:
        """Low and high."""
        found = self.sequence(name)
        return None if found is None else self._pair(name, found)

    def pairs(self, name: str) -> list[tuple[float, float]]:
        """A list of low and high; empty if it is absent."""
        return [self._pair(f"{name}[{index}]", found) for index, found in enumerate(self.sequence(name) or [])]

    def record(self, name: str) -> Record:
        """A mapping; an empty one if it is absent."""
        return Record(self.file, self._get(name, (dict,), "a mapping") or {}, f"{self.place}{name}.")

    def records(self, name: str) -> list[Record]:
        """A list of mappings; empty if it is absent."""
        found = self.sequence(name) or []
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
        if not isinstance(found, list) or len(found) != 2 or not all(isinstance(value, (int, float)) for value in found):
            raise self._error(name, found, "[low, high]")
        return found[0], found[1]

    def _error(self, name: str, value: Any, expected: str) -> ReportError:
        return ReportError(f"{self.file}: `{self.place}{name}` is {value!r}, expected {expected}")


@dataclass(frozen=True)
class Epochs:
    """The figures of every epoch, from `joint_results.csv` or, where that is missing, from YOLOv5's own `results.csv`."""

    rows: Rows
    joint: bool

    def __len__(self) -> int:
        return len(self.rows)

    def numbers(self, column: str) -> list[float]:
        """A column of `joint_results.csv`; all NaN if YOLOv5's file has no such figure."""
        if self.joint:
            return self.rows.numbers(column)
        return self.rows.numbers(_PLAIN_COLUMNS[column]) if column in _PLAIN_COLUMNS else [math.nan] * len(self)

    def name(self, index: int) -> str:
        """The epoch's number as the file has it."""
        return self.rows.texts("epoch")[index]

    def best(self) -> int | None:
        """Index of the row that `best.pt` was saved from; None if the file has no fitness."""
        return best_epoch(self.numbers("fitness"))


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds; None for a file that is not there, or has no row yet."""

    folder: Path
    options: Record | None
    hyperparameters: Record | None
    facts: Record | None
    metrics: Record | None
    epochs: Rows | None
    plain_epochs: Rows | None
    updates: Rows | None
    batches: Rows | None

    @property
    def tasks(self) -> ImageTasks:
        """The image outputs, by `run.json` or, where that is missing, by the columns of a table."""
        if self.facts is not None:
            return image_tasks(self.facts.values)
        tables = [table for table in (self.epochs, self.updates, self.batches) if table is not None]
        return next((found for table in tables if (found := weighted_tasks(table.columns))), (CLASSIFICATION,))

    def any_epochs(self) -> Epochs | None:
        """The epochs, from whichever table has them."""
        if self.epochs is not None:
            return Epochs(self.epochs, joint=True)
        return None if self.plain_epochs is None else Epochs(self.plain_epochs, joint=False)


def read_run(folder: Path) -> RunFiles:
    """Read what there is.

    Raises:
        ReportError: if `folder` is not a run's folder, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder: name the folder of a run, such as runs/train/exp")
    if not any((folder / name).is_file() for name in FILES):
        raise ReportError(f"{folder} holds none of {', '.join(FILES)}: name the folder of a run, such as runs/train/exp")
    return RunFiles(
        folder,
        options=_read(folder / OPTIONS_FILE, _yaml),
        hyperparameters=_read(folder / HYPERPARAMETERS_FILE, _yaml),
        facts=_read(folder / FACTS_FILE, _json),
        metrics=_read(folder / METRICS_FILE, _json),
        epochs=_read(folder / EPOCHS_FILE, _csv),
        plain_epochs=_read(folder / PLAIN_EPOCHS_FILE, _csv),
        updates=_read(folder / UPDATES_FILE, _csv),
        batches=_read(folder / BATCHES_FILE, _csv),
    )


def read_table(file: Path) -> Rows | None:
    """A table of a run; None if it is not there, or has no row yet.

    Raises:
        ReportError: if it cannot be read.
    """
    return _read(file, _csv)


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
    """The values of a column without its gaps."""
    return [value for value in values if math.isfinite(value)]


def _read(file: Path, reader: Callable[[Path], T]) -> T | None:
    if not file.is_file():
        return None
    try:
        return reader(file)
    except ReportError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise ReportError(f"{file} cannot be read: {error}") from None


def _yaml(file: Path) -> Record:
    return _record(file, read_yaml(file))


def _json(file: Path) -> Record:
    return _record(file, json.loads(read_text(file)))


def _record(file: Path, contents: Any) -> Record:
    if not isinstance(contents, dict):
        raise ReportError(f"{file} holds no mapping: it is not the file that training wrote")
    return Record(file.name, contents)


def _csv(file: Path) -> Rows | None:
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(file).splitlines(keepends=True))] or [[]]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ReportError(f"{file}:{line} has {len(row)} values, the header {len(header)}: mend or remove the line")
    return Rows(file.name, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))) if rows else None
