"""Plain statistics over the columns of a run, with the gaps (NaN) left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.records import Rows
from gradnorm_plugin.run_folder import best_epoch

SAME = 0.01
"""A change of no more than this share of the first value counts as none."""

# our column -> YOLOv5's, in its own results.csv
_PLAIN = {
    "epoch": "epoch",
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "mAP50": "metrics/mAP_0.5",
    "mAP50-95": "metrics/mAP_0.5:0.95",
    **{f"{split}_{part}_loss": f"{split}/{part}_loss" for split in ("train", "val") for part in ("box", "obj", "cls")},
}


def finite(values: Iterable[float]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if math.isfinite(value)]


def middle(values: Iterable[float]) -> float:
    """Median of the values that are numbers; NaN if none is."""
    found = finite(values)
    return median(found) if found else math.nan


def change(first: float, last: float) -> float:
    """Change as a share of `first`; NaN if that is 0."""
    return (last - first) / abs(first) if first else math.nan


def direction(first: float, last: float) -> str:
    """`rose`, `fell`, or `held` if the change is within `SAME` (or `first` is 0 and nothing can be said in shares)."""
    share = change(first, last)
    if math.isnan(share):
        return "held" if last == first else ("rose" if last > first else "fell")
    return "held" if abs(share) <= SAME else ("rose" if share > 0 else "fell")


def spread(length: int, limit: int, keep: Iterable[int] = ()) -> list[int]:
    """At most `limit` indices of `length`, evenly apart, first and last among them; `keep` besides."""
    if length <= limit:
        return list(range(length))
    return sorted({round(index * (length - 1) / (limit - 1)) for index in range(limit)} | set(keep))


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
        return self.rows.numbers(_PLAIN[column]) if column in _PLAIN else [math.nan] * len(self)

    def name(self, index: int) -> str:
        """The epoch's number as the file has it."""
        return self.rows.texts("epoch")[index]

    def best(self) -> int | None:
        """Index of the row that `best.pt` was saved from; None if the file has no fitness."""
        return best_epoch(self.numbers("fitness"))


def run_epochs(run: RunFiles) -> Epochs | None:
    """The epochs of a run, if either file is there."""
    if run.epochs is not None:
        return Epochs(run.epochs, joint=True)
    return None if run.plain_epochs is None else Epochs(run.plain_epochs, joint=False)


def extremes(names: Sequence[str], values: Sequence[float]) -> tuple[list[str], list[str]] | None:
    """The names with the highest value and those with the lowest; None if all values are the same."""
    high, low = max(values), min(values)
    pairs = list(zip(names, values, strict=True))
    return None if high == low else ([n for n, value in pairs if value == high], [n for n, value in pairs if value == low])
