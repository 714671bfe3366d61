"""The files of a run's folder, read and checked. Any of them may be missing; one that is there must be whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gradnorm_plugin.report.records import Record, ReportError, Rows

T = TypeVar("T")


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
    except (OSError, UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError, csv.Error) as error:
        raise ReportError(f"{file} cannot be read: {error}") from None


def _read_yaml(file: Path) -> Record:
    return _record(file, yaml.safe_load(file.read_text(encoding="utf-8")))


def _read_json(file: Path) -> Record:
    return _record(file, json.loads(file.read_text(encoding="utf-8")))


def _record(file: Path, contents: Any) -> Record:
    if not isinstance(contents, dict):
        raise ReportError(f"{file} holds no mapping: it is not the file that training wrote")
    return Record(file.name, contents)


def _read_csv(file: Path) -> Rows | None:
    with file.open(encoding="utf-8", newline="") as lines:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines)] or [[]]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ReportError(f"{file}:{line} has {len(row)} values, the header {len(header)}: mend or remove the line")
    return Rows(file.name, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))) if rows else None
