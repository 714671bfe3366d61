"""Milliseconds of a forward pass at batch 1 of each distinct network of a comparison, and its ratio to the detector alone.

Kept in `latency.json` of the comparison's folder and measured again only when a checkpoint is another.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradnorm_plugin.compare.collect import RunResult
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.compare.timing import load_network, time_networks
from gradnorm_plugin.files import read_text, write_text
from gradnorm_plugin.run_folder import read_facts, read_run
from gradnorm_plugin.strip import strip

FILE = "latency.json"
WEIGHTS = Path("weights") / "best.pt"
IMGSZ = 640
"""Side of the image in pixels where `opt.yaml` does not tell: that of YOLOv5's training."""


class LatencyError(ValueError):
    """The networks of a comparison cannot be timed; the message says why."""


@dataclass(frozen=True)
class Time:
    """Of one network."""

    methods: tuple[str, ...]
    """All methods that train this very structure; empty for a detector that was stripped from a joint network."""
    milliseconds: float
    """Median over the rounds."""
    ratio: float
    """Median over the rounds of the ratio to the detector alone."""


@dataclass(frozen=True)
class Latency:
    """Of all networks; the detector alone is the first."""

    device: str
    imgsz: int
    times: tuple[Time, ...]

    def of(self, method: str) -> Time | None:
        """Of the network that a method trains."""
        return next((time for time in self.times if method in time.methods), None)


@dataclass(frozen=True)
class _Network:
    methods: tuple[str, ...]
    checkpoint: Path
    detector: bool
    """Whether it is timed without its classification head."""


def measure_latency(outcome: Outcome) -> Latency | None:
    """What `latency.json` has, or else measure it and write it there; None while a planned run is missing.

    Raises:
        LatencyError: if a checkpoint is missing or cannot be run.
        WriteError: if `latency.json` cannot be written.
    """
    if outcome.missing:
        return None
    networks = _distinct(outcome)
    kept = _read(outcome.root / FILE)
    absent = [network.checkpoint for network in networks if not network.checkpoint.is_file()]
    if absent and kept:  # weights may go once they were timed
        return kept[1]
    if absent:
        raise LatencyError(f"{absent[0].relative_to(outcome.root).as_posix()} is not there")
    key = [
        [n.checkpoint.relative_to(outcome.root).as_posix(), n.checkpoint.stat().st_mtime_ns, list(n.methods)] for n in networks
    ]
    if kept and kept[0] == key:
        return kept[1]
    latency = _measure(networks, _imgsz(networks[0].checkpoint.parent.parent))
    _write(outcome.root / FILE, key, latency)
    return latency


def _distinct(outcome: Outcome) -> list[_Network]:
    """The detector alone, then the networks whose `run.json` counts something else, each with its first checkpoint."""
    joint: dict[str, list[RunResult]] = {}
    for run in outcome.runs:
        if run.method.classifies:
            shape = {name: value for name, value in read_facts(run.folder).get("model", {}).items() if name != "weights"}
            joint.setdefault(json.dumps(shape, sort_keys=True, default=str), []).append(run)
    alone = [run for run in outcome.runs if not run.method.classifies]
    first = next((run for run in outcome.runs if run.method.name == BASELINES["detection"]), (alone or list(outcome.runs))[0])
    detector = _Network(_names(alone), first.folder / WEIGHTS, detector=True)
    return [detector, *(_Network(_names(runs), runs[0].folder / WEIGHTS, detector=False) for runs in joint.values())]


def _names(runs: list[RunResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.method.name for run in runs))


def _imgsz(folder: Path) -> int:
    options = read_run(folder).options
    return int((options.number("imgsz") if options is not None else None) or IMGSZ)


def _measure(networks: list[_Network], imgsz: int) -> Latency:
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = [
                n.checkpoint if not n.detector else strip(n.checkpoint, Path(folder) / "detector.pt").output for n in networks
            ]
            device, medians = time_networks([load_network(file) for file in files], imgsz)
    except (OSError, ValueError, RuntimeError) as error:  # a file that is refused is a ValueError, no memory a RuntimeError
        raise LatencyError(str(error)) from error
    return Latency(device, imgsz, tuple(Time(n.methods, *pair) for n, pair in zip(networks, medians, strict=True)))


def _read(file: Path) -> tuple[list[Any], Latency] | None:
    """What was measured before, and of which checkpoints; None if there is nothing that can be read."""
    try:
        found = json.loads(read_text(file))
        times = tuple(Time(tuple(t["methods"]), float(t["milliseconds"]), float(t["ratio"])) for t in found["networks"])
        return found["checkpoints"], Latency(str(found["device"]), int(found["imgsz"]), times)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(file: Path, key: list[Any], latency: Latency) -> None:
    networks = [{"methods": list(t.methods), "milliseconds": t.milliseconds, "ratio": t.ratio} for t in latency.times]
    contents = {"device": latency.device, "imgsz": latency.imgsz, "networks": networks, "checkpoints": key}
    write_text(file, json.dumps(contents, indent=2, ensure_ascii=False) + "\n")
