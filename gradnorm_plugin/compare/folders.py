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
from gradnorm_plugin.files import read_text, write_text
from gradnorm_plugin.run_folder import METRICS_FILE, read_facts

PLAN_FILE = "compare.yaml"
ALLOW_DOWNLOAD = "--allow-download"


class CompareError(ValueError):
    """A comparison cannot be started, gone on with or read; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What a comparison trains: every method with every seed, with the same flags."""

    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    """Training flags of all runs; a method's own follow them. None of them permits anything."""
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
    write_text(root / PLAN_FILE, yaml.safe_dump(contents, sort_keys=False, allow_unicode=True))


def read_plan(root: Path) -> Plan:
    """The plan of the comparison in `root`.

    Raises:
        CompareError: if there is none, or it cannot be used.
    """
    file = root / PLAN_FILE
    if not file.is_file():
        raise CompareError(f"{root} has no {PLAN_FILE}: name the folder of a comparison, such as runs/compare/exp")
    try:
        contents = yaml.safe_load(read_text(file))
        own = contents.get("own_methods") or {}
        return Plan(
            methods=tuple(_method(name, own) for name in contents["methods"]),
            seeds=tuple(int(seed) for seed in contents["seeds"]),
            flags=_without_permission(contents["flags"]),
            directory=str(contents.get("directory") or ""),
            started=str(contents["started"]),
        )
    except (
        OSError,
        UnicodeDecodeError,
        yaml.YAMLError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
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


def _without_permission(flags: list[Any]) -> tuple[str, ...]:
    """The flags that a file holds, less the one that only a command line may give."""
    return tuple(str(flag) for flag in flags if flag != ALLOW_DOWNLOAD)


def _method(name: str, own: dict[str, Any]) -> Method:
    if name in METHODS:
        return METHODS[name]
    if name not in own:
        raise ValueError(f"no method is called {name}")
    return Method(name, name, _without_permission(own[name]["flags"]), own[name]["detects"], own[name]["classifies"])
