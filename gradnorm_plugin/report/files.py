"""The files of a run's folder, read and checked. Any of them may be missing; one that is there must be whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gradnorm_plugin.files import read_text
from gradnorm_plugin.report.records import Record, ReportError, Rows

T = TypeVar("T")

MOST_VALUES = 100_000
"""In a YAML file: no network or list of options has more."""


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


FILES = {
    "options": "opt.yaml",
    "hyperparameters": "hyp.yaml",
    "facts": "run.json",
    "metrics": "joint_metrics.json",
    "epochs": "joint_results.csv",
    "plain_epochs": "results.csv",
    "updates": "gradnorm.csv",
    "batches": "batches.csv",
}


def read_run(folder: Path) -> RunFiles:
    """Read what there is.

    Raises:
        ReportError: if `folder` is no run's folder, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder: name the folder of a run, such as runs/train/exp")
    if not any((folder / name).is_file() for name in FILES.values()):
        raise ReportError(f"{folder} holds none of {', '.join(FILES.values())}: name the folder of a run, such as runs/train/exp")
    readers = {".yaml": _read_yaml, ".json": _read_json, ".csv": _read_csv}
    return RunFiles(folder, **{field: _read(folder / name, readers[Path(name).suffix]) for field, name in FILES.items()})


def _read(file: Path, reader: Callable[[Path], T]) -> T | None:
    if not file.is_file():
        return None
    try:
        return reader(file)
    except ReportError:
        raise
    except (OSError, yaml.YAMLError, ValueError, RecursionError, csv.Error) as error:  # a 13th month is a ValueError to PyYAML
        raise ReportError(f"{file} cannot be read: {error}") from None


def _read_yaml(file: Path) -> Record:
    contents = yaml.safe_load(read_text(file))
    waiting, count = [contents], 0
    while waiting:  # a few lines of aliases of aliases stand for more values than any memory holds
        value, count = waiting.pop(), count + 1
        if count > MOST_VALUES:
            raise ReportError(f"{file} holds more than {MOST_VALUES:,} values: it is not the file that training wrote")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return _record(file, contents)


def _read_json(file: Path) -> Record:
    return _record(file, json.loads(read_text(file)))


def _record(file: Path, contents: Any) -> Record:
    if not isinstance(contents, dict):
        raise ReportError(f"{file} holds no mapping: it is not the file that training wrote")
    return Record(file.name, contents)


def _read_csv(file: Path) -> Rows | None:
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(file).splitlines(keepends=True))] or [[]]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ReportError(f"{file}:{line} has {len(row)} values, the header {len(header)}: mend or remove the line")
    return Rows(file.name, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))) if rows else None
