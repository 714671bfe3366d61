"""What the finished runs of a comparison found, each on its own and over the seeds.

Tasks are `detection` and the image outputs, figures have the names of their columns in `joint_results.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from gradnorm_plugin.balancing import BALANCERS, GradientSurgery
from gradnorm_plugin.compare.methods import SEPARATE, Method, baseline
from gradnorm_plugin.compare.plan import Plan, is_finished, read_plan, run_folder
from gradnorm_plugin.compare.spread import Difference, Spread, paired_difference, spread_of
from gradnorm_plugin.report.run_files import Rows, RunFiles, read_run, task_part
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    DETECTION,
    DETECTION_FIGURES,
    ImageTask,
    ImageTasks,
    cosine_columns,
    weight_columns,
)

HEADLINE = "mAP50-95"
"""The figure that stands for detection where there is room for one."""
COSTS = ("parameters", "gflops", "seconds_per_epoch", "peak_memory_mb")
AGREEMENT = ("cosine", "conflicting_share", "measured_steps")
NORMS = ("detection_norm_before_clip", "head_norm_before_clip")

_OUTPUT_BALANCERS = {name for name, balancer in BALANCERS.items() if issubclass(balancer, GradientSurgery)}
"""Balancers that compare the tasks' gradients at the shared layer's output; the others do at its weights."""


def figures_of(tasks: ImageTasks) -> dict[str, tuple[str, ...]]:
    """Task -> its figures."""
    return {DETECTION: DETECTION_FIGURES, **{task.name: task.figures for task in tasks}}


def headlines_of(tasks: ImageTasks) -> dict[str, str]:
    """Task -> the figure that stands for it where there is room for one."""
    return {DETECTION: HEADLINE, **{task.name: task.headline for task in tasks}}


def gradients_of(tasks: ImageTasks) -> tuple[str, ...]:
    """What is known of the gradients: how they agree, the weights at the end, norms, and the mean cosine of each two tasks."""
    return (*AGREEMENT, *weight_columns(tasks), *NORMS, *cosine_columns(tasks)[1:])


@dataclass(frozen=True)
class RunResult:
    """One finished run. Missing values are left out, and so are the figures of a task that its method does not train."""

    method: Method
    seed: int
    folder: Path
    values: Mapping[str, float]
    """Figures of all tasks, `COSTS` and `gradients_of`, by name."""
    curves: Mapping[str, tuple[float, ...]]
    """Headline figures over the epochs, NaN where an epoch was not measured."""
    images: int | None
    """Images in the split that was measured."""
    measured_at: str
    """`weights` or `output`: where the tasks' gradients are compared."""


@dataclass(frozen=True)
class Outcome:
    """A comparison so far: its plan, its finished runs, and what they say together."""

    root: Path
    plan: Plan
    runs: tuple[RunResult, ...]

    @property
    def tasks(self) -> ImageTasks:
        """The image outputs."""
        return self.plan.tasks

    @property
    def figures(self) -> dict[str, tuple[str, ...]]:
        """Task -> its figures."""
        return figures_of(self.tasks)

    @property
    def headlines(self) -> dict[str, str]:
        """Task -> the figure that stands for it."""
        return headlines_of(self.tasks)

    @property
    def figure_names(self) -> list[str]:
        """The columns of all figures."""
        return [name for names in self.figures.values() for name in names]

    @property
    def all_names(self) -> tuple[str, ...]:
        """Those, costs, and what is known of the gradients."""
        return (*self.figure_names, *COSTS, *gradients_of(self.tasks))

    def task_of(self, column: str) -> ImageTask:
        """The image output that a figure is of; of one of detection the class, whose figures need no name before them."""
        return next((task for task in self.tasks if column in task.figures), CLASSIFICATION)

    @property
    def methods(self) -> list[Method]:
        """Methods with a finished run, in the plan's order."""
        return [method for method in self.plan.methods if self.of(method.name)]

    @property
    def joint_methods(self) -> list[Method]:
        """Those among them that train detection and an image output."""
        return [method for method in self.methods if method.detects and method.classifies]

    @property
    def missing(self) -> list[tuple[Method, list[int]]]:
        """Methods with the planned seeds whose run is not finished."""
        done = {(run.method.name, run.seed) for run in self.runs}
        due = [(method, [seed for seed in self.plan.seeds if (method.name, seed) not in done]) for method in self.plan.methods]
        return [(method, seeds) for method, seeds in due if seeds]

    @property
    def planned(self) -> int:
        """How many runs there will be."""
        return len(self.plan.methods) * len(self.plan.seeds)

    def of(self, method: str) -> list[RunResult]:
        """The finished runs of a method."""
        return [run for run in self.runs if run.method.name == method]

    def values(self, method: str, name: str) -> dict[int, float]:
        """A figure, cost or gradient quantity of a method by seed, where there is one."""
        return {run.seed: run.values[name] for run in self.of(method) if name in run.values}

    def spread(self, method: str, name: str) -> Spread | None:
        """The same over the seeds."""
        return spread_of(self.values(method, name).values())

    def difference(self, method: str, figure: str) -> Difference | None:
        """A figure minus that of the task trained alone; None for the baseline itself and where they share no seed."""
        alone = next(baseline(task) for task, names in self.figures.items() if figure in names)
        return None if method == alone else paired_difference(self.values(method, figure), self.values(alone, figure))

    def separate_difference(self, method: str, figure: str) -> Difference | None:
        """A figure minus that of the separate classifier; None where they share no seed."""
        return paired_difference(self.values(method, figure), self.values(SEPARATE, figure))

    def headline(self, method: str) -> tuple[Spread, ...] | None:
        """The headline figures of detection and the image outputs; None unless the method has all of them."""
        found = [self.spread(method, name) for name in self.headlines.values()]
        return tuple(of for of in found if of) if all(found) else None


def read_outcome(root: Path) -> Outcome:
    """Read the comparison in `root`.

    Raises:
        CompareError: if there is no comparison in `root`.
        ReportError: if a file of a finished run cannot be used.
    """
    plan = read_plan(root)
    places = [(method, seed, run_folder(root, method.name, seed, plan.unit)) for method in plan.methods for seed in plan.seeds]
    return Outcome(root, plan, tuple(_read_result(*place, plan.tasks) for place in places if is_finished(place[-1])))


def _read_result(method: Method, seed: int, folder: Path, tasks: ImageTasks) -> RunResult:
    run = read_run(folder)
    values = {**dict(_costs(run, method)), **dict(_gradients(run, tasks))}
    for task, columns in figures_of(tasks).items():
        if method.trains(task):
            part = task_part(run.metrics, task)
            values |= {column: part.number(column.removeprefix(f"{task}_")) for column in columns}
    images = run.metrics.number("images")
    return RunResult(
        method=method,
        seed=seed,
        folder=folder,
        values={name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)},
        curves=_curves(run.joint_epochs, method, tasks) if run.joint_epochs else {},
        images=None if images is None else int(images),
        measured_at="output" if run.options.text("balancer") in _OUTPUT_BALANCERS else "weights",
    )


def _costs(run: RunFiles, method: Method) -> Iterator[tuple[str, float | None]]:
    """A run without classification counts as the detector alone: it needs no head (`strip`)."""
    model = run.facts.record("model")
    parameters, head, gflops = (model.number(name) for name in ("parameters", "head_parameters", "gflops"))
    if method.classifies:
        whole = None if parameters is None or head is None else parameters + head
        found = (model.number(name) for name in ("total_parameters", "total_gflops"))
        parameters, gflops = (usual if total is None else total for total, usual in zip(found, (whole, gflops), strict=True))
    yield "parameters", parameters
    yield "gflops", gflops
    seconds = run.facts.number("seconds")
    yield "seconds_per_epoch", None if seconds is None or not run.epochs else seconds / len(run.epochs)
    yield "peak_memory_mb", run.facts.number("peak_memory_mb")


def _gradients(run: RunFiles, tasks: ImageTasks) -> Iterator[tuple[str, float]]:
    if run.joint_epochs:
        for name in weight_columns(tasks):
            yield name, run.joint_epochs.numbers(name)[-1]
    if not run.updates:
        return
    if cosines := run.updates.known("cosine"):
        yield "measured_steps", len(cosines)
        yield "conflicting_share", sum(cosine < 0 for cosine in cosines) / len(cosines)
    for name in (*cosine_columns(tasks), *NORMS):
        if known := run.updates.known(name):
            yield name, median(known) if name in NORMS else fmean(known)


def _curves(epochs: Rows, method: Method, tasks: ImageTasks) -> dict[str, tuple[float, ...]]:
    """With `--noval`, an epoch that was not measured has zeros for detection and nothing for the image outputs."""
    boxes = zip(*(epochs.numbers(name) for name in DETECTION_FIGURES), strict=True)
    outputs = zip(*(epochs.numbers(task.figures[0]) for task in tasks), strict=True)
    measured = [
        any(map(math.isfinite, of_outputs)) or any(value > 0 for value in of_boxes)
        for of_boxes, of_outputs in zip(boxes, outputs, strict=True)
    ]
    names = [name for task, name in headlines_of(tasks).items() if method.trains(task)]
    return {name: tuple(np.where(measured, epochs.numbers(name), math.nan).tolist()) for name in names}
