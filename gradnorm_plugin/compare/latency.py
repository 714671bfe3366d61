"""The time of a forward pass at batch 1 of each distinct network of a comparison, and its ratio to the detector alone.

The networks take turns because a machine's speed drifts. The result is kept in `latency.json` of the comparison's folder, and
measured again only when a checkpoint has changed.
"""

from __future__ import annotations

import json
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from gradnorm_plugin.compare.methods import baseline
from gradnorm_plugin.compare.results import Outcome, RunResult
from gradnorm_plugin.evaluation.summary import write_json
from gradnorm_plugin.reading import read_text
from gradnorm_plugin.report.run_files import read_facts, read_run
from gradnorm_plugin.run_folder import DETECTION
from gradnorm_plugin.strip import strip
from gradnorm_plugin.training.run_file import device_name
from gradnorm_plugin.upstream.gateway import upstream

FILE = "latency.json"
WEIGHTS = Path("weights") / "best.pt"
IMGSZ = 640
"""Side of the image in pixels where `opt.yaml` does not say: YOLOv5's default."""
ROUNDS, PASSES = 15, 3
"""Rounds, and passes of each network in a round."""


class LatencyError(ValueError):
    """The networks of a comparison cannot be timed; the message says why."""


@dataclass(frozen=True)
class Time:
    """The time of one network's forward pass."""

    methods: tuple[str, ...]
    """All methods that train this structure; empty for a detector that was stripped from a joint network."""
    milliseconds: float
    """Median over the rounds."""
    ratio: float
    """Median over the rounds of the ratio to the detector alone."""


@dataclass(frozen=True)
class Latency:
    """The times of all networks; the detector alone comes first."""

    device: str
    imgsz: int
    times: tuple[Time, ...]

    def of(self, method: str) -> Time | None:
        """The time of the network that a method trains."""
        return next((found for found in self.times if method in found.methods), None)


class _Network(NamedTuple):
    methods: tuple[str, ...]
    checkpoint: Path


def measure_latency(outcome: Outcome) -> Latency | None:
    """Read `latency.json`, or measure and write it; None while a planned run is missing.

    Raises:
        LatencyError: if a checkpoint is missing or cannot be run.
        WriteError: if `latency.json` cannot be written.
    """
    if outcome.missing:
        return None
    networks, file = _distinct(outcome), outcome.root / FILE
    places = [network.checkpoint.relative_to(outcome.root).as_posix() for network in networks]
    measured, latency = _read(file)
    absent = [place for place, network in zip(places, networks, strict=True) if not network.checkpoint.is_file()]
    if absent and latency is None:
        raise LatencyError(f"{absent[0]} is not there")
    if absent:  # weights may be deleted once they were timed
        return latency
    key = [[place, n.checkpoint.stat().st_mtime_ns, list(n.methods)] for place, n in zip(places, networks, strict=True)]
    if latency is None or measured != key:
        latency = _measure(networks)
        write_json(
            {
                "device": latency.device,
                "imgsz": latency.imgsz,
                "networks": [asdict(time) for time in latency.times],
                "checkpoints": key,
            },
            file,
        )
    return latency


def _distinct(outcome: Outcome) -> list[_Network]:
    """The detector alone, then each network with other counts in `run.json`, with its first checkpoint."""
    joint: dict[str, list[RunResult]] = {}
    for run in outcome.runs:
        if run.method.classifies:
            shape = {name: value for name, value in read_facts(run.folder).get("model", {}).items() if name != "weights"}
            joint.setdefault(json.dumps(shape, sort_keys=True, default=str), []).append(run)
    alone = [run for run in outcome.runs if not run.method.classifies]
    first = next((run for run in outcome.runs if run.method.name == baseline(DETECTION)), (alone or outcome.runs)[0])
    groups = [(alone, first), *((runs, runs[0]) for runs in joint.values())]
    return [_Network(tuple(dict.fromkeys(run.method.name for run in runs)), of.folder / WEIGHTS) for runs, of in groups]


def _measure(networks: list[_Network]) -> Latency:
    """Time the networks, the first without its classification head."""
    imgsz = int(read_run(networks[0].checkpoint.parent.parent).options.number("imgsz") or IMGSZ)
    try:
        with tempfile.TemporaryDirectory() as folder:
            detector = strip(networks[0].checkpoint, Path(folder) / "detector.pt").output
            loaded = [load_network(file) for file in (detector, *(network.checkpoint for network in networks[1:]))]
            device, medians = time_networks(loaded, imgsz)
    except (OSError, ValueError, RuntimeError) as error:  # a file that is refused is a ValueError, no memory a RuntimeError
        raise LatencyError(str(error)) from error
    return Latency(device, imgsz, tuple(Time(n.methods, *pair) for n, pair in zip(networks, medians, strict=True)))


def _read(file: Path) -> tuple[list[Any], Latency | None]:
    """The checkpoints that were measured before, and their times; None if there is nothing that can be read."""
    try:
        found = json.loads(read_text(file))
        times = tuple(Time(tuple(t["methods"]), float(t["milliseconds"]), float(t["ratio"])) for t in found["networks"])
        return found["checkpoints"], Latency(str(found["device"]), int(found["imgsz"]), times)
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], None


def load_network(checkpoint: Path) -> nn.Module:
    """The network of a checkpoint as it predicts: fused, in evaluation mode, in FP32, on the GPU if there is one.

    Raises:
        ValueError: if the file cannot be trusted.
        OSError: if it cannot be read.
    """
    logger = upstream("utils.general").LOGGER
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        network = upstream("models.experimental").attempt_load(str(checkpoint), device=device)
    finally:
        logger.setLevel(level)
    network.model[-1].export = True  # one answer, without the maps that only training wants
    return network


def time_networks(networks: Sequence[nn.Module], imgsz: int) -> tuple[str, list[tuple[float, float]]]:
    """The device, and for each network the medians of its milliseconds and of its ratio to the first, at `imgsz` pixels.

    The networks take turns within a round, in a new order each time: drift slows all alike, and no network always runs after the
    same other one. NMS is left out: it is the same for all.
    """
    device = next(networks[0].parameters()).device
    stride = max(int(torch.as_tensor(network.stride).max()) for network in networks)
    side = upstream("utils.general").check_img_size(imgsz, stride)
    image = torch.rand(1, 3, side, side, device=device)
    order = random.Random(0)
    rounds: list[list[float]] = []
    with torch.inference_mode():
        for network in networks:
            network(image)  # the first pass allocates
        for _ in range(ROUNDS):
            spent: list[list[float]] = [[] for _ in networks]
            for _ in range(PASSES):
                for index in order.sample(range(len(networks)), len(networks)):
                    spent[index].append(_milliseconds(networks[index], image))
            rounds.append([median(times) for times in spent])
    columns = list(zip(*rounds, strict=True))
    ratios = [median(a / b for a, b in zip(column, columns[0], strict=True)) for column in columns]
    return device_name(device), [(median(column), ratio) for column, ratio in zip(columns, ratios, strict=True)]


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)
