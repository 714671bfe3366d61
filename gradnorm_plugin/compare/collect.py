"""What each finished run found: the figures of its `best.pt`, their course, what it cost, how the tasks' gradients agreed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from gradnorm_plugin.balancing import BALANCERS, GradientSurgery
from gradnorm_plugin.compare.folders import Plan, is_finished, run_folder
from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.run_folder import CLASSIFICATION_FIGURES as CLASSIFICATION
from gradnorm_plugin.run_folder import DETECTION_FIGURES as DETECTION
from gradnorm_plugin.run_folder import Rows, RunFiles, finite, read_run

FIGURES = {"detection": DETECTION, "classification": CLASSIFICATION}
"""Task -> its figures in `joint_metrics.json`."""
COSTS = ("parameters", "gflops", "seconds_per_epoch", "peak_memory_mb")
GRADIENTS = (
    "cosine", "conflicting_share", "measured_steps", "detection_weight", "classification_weight",
    "detection_norm_before_clip", "head_norm_before_clip",
)  # fmt: skip
CURVES = {"detection": "mAP50-95", "classification": "balanced_accuracy"}
"""Task -> the figure that stands for it where there is room for one."""
OUTPUT_BALANCERS = {name for name, balancer in BALANCERS.items() if issubclass(balancer, GradientSurgery)}
"""Balancers that compare the tasks' gradients at the shared layer's output, the others at its weights."""


@dataclass(frozen=True)
class RunResult:
    """One finished run. What it does not have, or a task that its method does not train, is absent rather than bad."""

    method: Method
    seed: int
    folder: Path
    values: Mapping[str, float]
    """Figures of both tasks, `COSTS` and `GRADIENTS`, by name."""
    curves: Mapping[str, tuple[float, ...]]
    """`CURVES` over the epochs, NaN where an epoch was not measured."""
    images: int | None
    """Images of the split that the figures stem from."""
    measured_at: str
    """`weights` or `output`: where the tasks' gradients are compared."""


def trained_tasks(method: Method) -> tuple[str, ...]:
    """The tasks whose figures mean something."""
    return tuple(task for task, trained in zip(FIGURES, (method.detects, method.classifies), strict=True) if trained)


def collect(root: Path, plan: Plan) -> list[RunResult]:
    """The finished runs of the plan, in its order.

    Raises:
        ReportError: if a file of a finished run cannot be used.
    """
    places = [(method, seed, run_folder(root, method.name, seed)) for method in plan.methods for seed in plan.seeds]
    return [read_result(method, seed, folder) for method, seed, folder in places if is_finished(folder)]


def read_result(method: Method, seed: int, folder: Path) -> RunResult:
    """The result of the finished run in `folder`.

    Raises:
        ReportError: if a file of it cannot be used.
    """
    run = read_run(folder)
    values = {**_figures(run, method), **dict(_costs(run, method)), **dict(_gradients(run))}
    images = run.metrics.number("images")
    return RunResult(
        method=method,
        seed=seed,
        folder=folder,
        values={name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)},
        curves=_curves(run.epochs, method) if run.epochs is not None else {},
        images=None if images is None else int(images),
        measured_at="output" if run.options is not None and run.options.text("balancer") in OUTPUT_BALANCERS else "weights",
    )


def _figures(run: RunFiles, method: Method) -> dict[str, float | None]:
    return {name: run.metrics.record(task).number(name) for task in trained_tasks(method) for name in FIGURES[task]}


def _costs(run: RunFiles, method: Method) -> Iterator[tuple[str, float | None]]:
    """A run without classification counts the detector alone: it can do without the head (`strip`)."""
    model = run.facts.record("model")
    parameters, head, gflops = (model.number(name) for name in ("parameters", "head_parameters", "gflops"))
    if method.classifies:
        whole = None if parameters is None or head is None else parameters + head
        found = (model.number(name) for name in ("total_parameters", "total_gflops"))
        parameters, gflops = (usual if total is None else total for total, usual in zip(found, (whole, gflops), strict=True))
    yield "parameters", parameters
    yield "gflops", gflops
    seconds = run.facts.number("seconds")
    yield "seconds_per_epoch", None if seconds is None or run.epochs is None else seconds / len(run.epochs)
    yield "peak_memory_mb", run.facts.number("peak_memory_mb")


def _gradients(run: RunFiles) -> Iterator[tuple[str, float]]:
    if run.epochs is not None:
        for name in ("detection_weight", "classification_weight"):
            yield name, run.epochs.numbers(name)[-1]
    if run.updates is None:
        return
    cosines = finite(run.updates.numbers("cosine"))
    if cosines:
        yield "cosine", fmean(cosines)
        yield "measured_steps", len(cosines)
        yield "conflicting_share", sum(cosine < 0 for cosine in cosines) / len(cosines)
    for name in ("detection_norm_before_clip", "head_norm_before_clip"):
        norms = finite(run.updates.numbers(name))
        if norms:
            yield name, median(norms)


def _curves(epochs: Rows, method: Method) -> dict[str, tuple[float, ...]]:
    """With `--noval` an epoch that was not measured has zeros for detection and no accuracy at all."""
    columns = [epochs.numbers(name) for name in (*DETECTION, "accuracy")]
    measured = [math.isfinite(accuracy) or any(value > 0 for value in of) for *of, accuracy in zip(*columns, strict=True)]
    found = {}
    for task in trained_tasks(method):
        values = epochs.numbers(CURVES[task])
        found[CURVES[task]] = tuple(value if known else math.nan for value, known in zip(values, measured, strict=True))
    return found
