"""What a run's folder tells while it trains, and when it is done: epochs, both tasks' headline figures, the time."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from gradnorm_plugin.files import read_text
from gradnorm_plugin.run_folder import METRICS_FILE, read_facts


@dataclass(frozen=True)
class Figures:
    """Of the last epoch so far, or of the best checkpoint of a finished run; None where there is none."""

    epochs: int = 0
    """Trained so far."""
    map5095: float | None = None
    balanced_accuracy: float | None = None


def figures_so_far(folder: Path) -> Figures:
    """From the last row of `joint_results.csv`."""
    try:
        *_, last = csv.DictReader(read_text(folder / "joint_results.csv").splitlines())
        return Figures(int(last["epoch"]) + 1, _number(last["mAP50-95"]), _number(last["balanced_accuracy"]))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):  # not there yet, or no row in it yet
        return Figures()


def final_figures(folder: Path) -> Figures:
    """From `joint_metrics.json`, and the epochs from `joint_results.csv`."""
    epochs = figures_so_far(folder).epochs
    try:
        found = json.loads(read_text(folder / METRICS_FILE))
        return Figures(epochs, found["detection"]["mAP50-95"], found["classification"]["balanced_accuracy"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Figures(epochs)


def seconds_trained(folder: Path) -> float | None:
    """The time that the run in `folder` says it took."""
    seconds = read_facts(folder).get("seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _number(text: str) -> float | None:
    value = float(text)
    return value if value == value else None  # NaN: nothing to measure
