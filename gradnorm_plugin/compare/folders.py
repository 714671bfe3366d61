"""The folder of a comparison: its plan in `compare.yaml`, and where each run and its log are.

ROOT/compare.yaml              the plan
ROOT/METHOD/seed0/             the folder of a training run, as `train` writes it
ROOT/METHOD/seed0.log          what the run printed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.evaluation.summary import FILE as METRICS_FILE
from gradnorm_plugin.training.run_file import read_facts
from gradnorm_plugin.training.whole_files import whole_file

PLAN_FILE = "compare.yaml"


class CompareError(ValueError):
    """A comparison cannot be started, gone on with or read; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What a comparison trains: every method with every seed, with the same flags."""

    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    """Training flags of all runs; a method's own follow them."""
    directory: str
    """The working folder it was started in, from which relative paths among the flags count."""
    started: str
    """ISO 8601, with the time zone."""


def write_plan(root: Path, plan: Plan) -> None:
    """Write `compare.yaml`. Methods of the registry are kept by name, the user's own with all that they are.

    Raises:
        WriteError: if it cannot be written.
    """
    own = {
        method.name: {"flags": list(method.flags), "detects": method.detects, "classifies": method.classifies}
        for method in plan.methods
        if method.name not in METHODS
    }
    contents = {
        "methods": [method.name for method in plan.methods],
        "seeds": list(plan.seeds),
        "flags": list(plan.flags),
        "own_methods": own,
        "directory": plan.directory,
        "started": plan.started,
    }
    with whole_file(root / PLAN_FILE) as partial:
        partial.write_text(yaml.safe_dump(contents, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_plan(root: Path) -> Plan:
    """The plan of the comparison in `root`.

    Raises:
        CompareError: if there is none, or it cannot be used.
    """
    file = root / PLAN_FILE
    if not file.is_file():
        raise CompareError(f"{root} has no {PLAN_FILE}: name the folder of a comparison, such as runs/compare/exp")
    try:
        contents = yaml.safe_load(file.read_text(encoding="utf-8"))
        own = contents.get("own_methods") or {}
        return Plan(
            methods=tuple(_method(name, own) for name in contents["methods"]),
            seeds=tuple(int(seed) for seed in contents["seeds"]),
            flags=tuple(str(flag) for flag in contents["flags"]),
            directory=str(contents.get("directory") or ""),
            started=str(contents["started"]),
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f"{file} is not as `compare` wrote it ({type(error).__name__}: {error}): restore it") from None


def run_folder(root: Path, method: str, seed: int) -> Path:
    """The folder of one run."""
    return root / method / f"seed{seed}"


def log_file(root: Path, method: str, seed: int) -> Path:
    """Where the output of one run is."""
    return root / method / f"seed{seed}.log"


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` was trained and measured to its end."""
    return read_facts(folder).get("finished") is not None and (folder / METRICS_FILE).is_file()


def _method(name: str, own: dict[str, Any]) -> Method:
    if name in METHODS:
        return METHODS[name]
    if name not in own:
        raise ValueError(f"no method is called {name}")
    return Method(name, name, tuple(map(str, own[name]["flags"])), own[name]["detects"], own[name]["classifies"])
