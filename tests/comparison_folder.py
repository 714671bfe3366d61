"""The folder of a comparison, written by hand: runs of `run_folder` in the places that `compare` gives them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from run_folder import epochs, facts, metrics, options, updates, write_run

from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.compare.plan import SEED, Plan, run_folder, write_plan
from gradnorm_plugin.run_folder import CLASSIFICATION, ImageTasks

# method -> mAP50-95, balanced accuracy, parameters in millions, GFLOPs, seconds an epoch, mean cosine
TRUTH: Mapping[str, tuple[float, ...]] = {
    "detection-only": (0.503, 0.25, 1.77, 4.2, 18.0),
    "classification-only": (0.01, 0.742, 1.86, 4.2, 17.6),
    "fixed-1-0.01": (0.511, 0.694, 1.86, 4.2, 18.4),
    "fixed-1-1": (0.441, 0.761, 1.86, 4.2, 18.3),
    "uncertainty": (0.493, 0.748, 1.86, 4.2, 18.5),
    "dwa": (0.437, 0.755, 1.86, 4.2, 18.4),
    "pcgrad": (0.459, 0.757, 1.86, 4.2, 25.9),
    "cagrad": (0.021, 0.741, 1.86, 4.2, 27.3),
    "gradnorm": (0.521, 0.751, 1.86, 4.2, 18.9),
    "dual": (0.507, 0.738, 3.05, 7.1, 24.6),
}


def write_comparison_folder(
    root: Path,
    methods: Iterable[str | Method] = TRUTH,
    seeds: Sequence[int] = (0, 1, 2),
    finished: Iterable[tuple[str, int]] | None = None,
    count: int = 20,
    changes: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    tasks: ImageTasks = (CLASSIFICATION,),
    unit: str = SEED,
) -> Path:
    """Write the plan and the `finished` runs (default: all) of `count` epochs; `changes` replace files of a run."""
    chosen = tuple(METHODS[method] if isinstance(method, str) else method for method in methods)
    flags = ("--data", "data/mine.yaml", "--epochs", str(count))
    root.mkdir(parents=True, exist_ok=True)
    write_plan(root, Plan(chosen, tuple(seeds), flags, "/somewhere", "2026-01-02T03:04:05+00:00", tasks, unit=unit))
    places = [(method.name, seed) for method in chosen for seed in seeds] if finished is None else finished
    for name, seed in places:
        write_run(
            run_folder(root, name, seed, unit),
            pictures=(),
            **{**run_contents(name, seed, count), **(changes or {}).get((name, seed), {})},
        )
    return root


def run_contents(name: str, seed: int, count: int) -> dict[str, Any]:
    """What the files of a run say: the truth of its method and a little luck of its seed."""
    final, balanced, parameters, gflops, seconds = TRUTH.get(name, TRUTH["gradnorm"])
    luck = np.random.default_rng([seed, *name.encode()]).normal(0, (0.008, 0.014))
    final, balanced = max(final + luck[0], 0.001), balanced + luck[1]
    rise = [1 - math.exp(-5 * (index + 1) / count) for index in range(count)]
    found = metrics()
    ratio = {"precision": 1.5, "recall": 1.4, "F1": 1.45, "mAP50": 1.65, "mAP50-95": 1.0}
    found["detection"] |= {figure: round(final * times, 6) for figure, times in ratio.items()}
    found["classification"] |= {"accuracy": balanced - 0.05, "balanced_accuracy": balanced, "macro_F1": balanced - 0.03}
    curves = {
        "mAP50-95": [final * part for part in rise],
        "balanced_accuracy": [0.25 + (balanced - 0.25) * part for part in rise],
    }
    model = {**facts()["model"], "parameters": int(1e6 * min(parameters, 1.77)), "head_parameters": 90_000, "gflops": 4.2}
    model |= {"total_parameters": int(1e6 * parameters), "total_gflops": gflops}
    return {
        "joint_metrics": found,
        "joint_results": epochs(count, **curves),
        "run": facts(seconds=seconds * count, model=model, peak_memory_mb=1500.0 + seed),
        "opt": options(seed=seed, balancer=name if name in {"pcgrad", "cagrad", "gradnorm"} else "fixed"),
        "gradnorm": updates() if name in {"pcgrad", "cagrad", "gradnorm"} else None,
        "batches": None,
    }


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
