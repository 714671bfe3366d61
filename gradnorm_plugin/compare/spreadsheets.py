"""`comparison.csv`, a row a method, and `runs.csv`, a row a run: every figure for a spreadsheet, in plain numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradnorm_plugin.compare.collect import COSTS, FIGURES, GRADIENTS
from gradnorm_plugin.compare.folders import run_folder
from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.compare.outcome import Outcome
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.names import csv_row

_NAMES = [name for names in FIGURES.values() for name in names]


def write_methods(outcome: Outcome, latency: Latency | None, file: Path) -> Path:
    """Write a row for each planned method, also for one without a finished run; an empty cell is a figure that there is not.

    `X_mean`, `X_sd` (sample standard deviation) and `X_n` are over the seeds; `X_diff`, `X_diff_low` and `X_diff_high` are the
    paired difference from the task alone and its 95 % interval.

    Raises:
        WriteError: if it cannot be written.
    """
    return _write(file, [_method_row(outcome, latency, method) for method in outcome.plan.methods])


def write_runs(outcome: Outcome, file: Path) -> Path:
    """Write a row for each planned run, with what its files say.

    Raises:
        WriteError: if it cannot be written.
    """
    found = {(run.method.name, run.seed): run.values for run in outcome.runs}
    rows = []
    for method in outcome.plan.methods:
        for seed in outcome.plan.seeds:
            values = found.get((method.name, seed))
            row = {"method": method.name, "seed": seed, "finished": "no" if values is None else "yes"}
            row["folder"] = run_folder(outcome.root, method.name, seed).relative_to(outcome.root).as_posix()
            rows.append({**row, **{name: (values or {}).get(name) for name in (*_NAMES, *COSTS, *GRADIENTS)}})
    return _write(file, rows)


def _method_row(outcome: Outcome, latency: Latency | None, method: Method) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method.name, "label": method.label, "runs": len(outcome.of(method.name))}
    for name in (*_NAMES, *COSTS, *GRADIENTS):
        found = outcome.spread(method.name, name)
        row |= {f"{name}_mean": found and found.mean, f"{name}_sd": found and found.sd, f"{name}_n": found.count if found else 0}
        if name in _NAMES:
            difference = outcome.difference(method.name, name)
            low, high = (difference and difference.interval) or (None, None)
            row |= {f"{name}_diff": difference and difference.mean, f"{name}_diff_low": low, f"{name}_diff_high": high}
    time = latency.of(method.name) if latency else None
    return {**row, "latency_ms": time and time.milliseconds, "latency_ratio": time and time.ratio}


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(rows[0])
        writer.writerows(csv_row(f"{v:.6g}" if isinstance(v, float) else v for v in row.values()) for row in rows)
    return file
