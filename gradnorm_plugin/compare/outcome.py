"""A comparison as far as it has come: its plan, its finished runs, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradnorm_plugin.compare.collect import CURVES, FIGURES, RunResult, collect
from gradnorm_plugin.compare.folders import Plan, read_plan
from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.compare.statistics import Difference, Spread, paired_difference, spread_of

BASELINES = {"detection": "detection-only", "classification": "classification-only"}
"""Task -> the method that trains it alone."""


def task_of(figure: str) -> str:
    """The task that a figure measures."""
    return next(task for task, names in FIGURES.items() if figure in names)


@dataclass(frozen=True)
class Outcome:
    """What there is of a comparison."""

    root: Path
    plan: Plan
    runs: tuple[RunResult, ...]

    @property
    def methods(self) -> list[Method]:
        """Methods with a finished run, in the plan's order."""
        return [method for method in self.plan.methods if self.of(method.name)]

    @property
    def joint_methods(self) -> list[Method]:
        """Those among them that train both tasks."""
        return [method for method in self.methods if method.detects and method.classifies]

    @property
    def missing(self) -> list[tuple[Method, list[int]]]:
        """Methods with the planned seeds whose run is not finished."""
        done = {(run.method.name, run.seed) for run in self.runs}
        open_ = [(method, [seed for seed in self.plan.seeds if (method.name, seed) not in done]) for method in self.plan.methods]
        return [(method, seeds) for method, seeds in open_ if seeds]

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

    def baseline(self, task: str) -> Method | None:
        """The method that trains `task` alone, if one of its runs is finished."""
        return next((method for method in self.methods if method.name == BASELINES[task]), None)

    def difference(self, method: str, figure: str) -> Difference | None:
        """A figure less that of the task alone; None for the baseline itself and where they share no seed."""
        baseline = BASELINES[task_of(figure)]
        return None if method == baseline else paired_difference(self.values(method, figure), self.values(baseline, figure))

    def headline(self, method: str) -> list[Spread | None]:
        """The figure that stands for each task."""
        return [self.spread(method, CURVES[task]) for task in FIGURES]


def read_outcome(root: Path) -> Outcome:
    """Read the comparison in `root`.

    Raises:
        CompareError: if there is no comparison in `root`.
        ReportError: if a file of a finished run cannot be used.
    """
    plan = read_plan(root)
    return Outcome(root, plan, tuple(collect(root, plan)))
