"""What the screen shows while a comparison trains: a live table on a terminal, else a line whenever a run starts or ends."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradnorm_plugin.compare.results import headlines_of
from gradnorm_plugin.compare.runner import FAILED, FINISHED, RUNNING, WAITING, Run
from gradnorm_plugin.reading import read_text
from gradnorm_plugin.report.run_files import Record, task_part
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, EPOCHS_FILE, METRICS_FILE, ImageTasks


@dataclass(frozen=True)
class Progress:
    """The headline figures of a run's last epoch so far, or of its best checkpoint once it is finished."""

    epochs: int = 0
    """Trained so far."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By task; unknown ones are left out."""


def current_progress(folder: Path, tasks: ImageTasks = (CLASSIFICATION,)) -> Progress:
    """From the last row of `joint_results.csv`."""
    try:
        *_, last = csv.DictReader(read_text(folder / EPOCHS_FILE).splitlines())
        found = {task: float(last[column]) for task, column in headlines_of(tasks).items()}
        return Progress(int(last["epoch"]) + 1, {task: value for task, value in found.items() if math.isfinite(value)})
    except (ValueError, KeyError, TypeError, csv.Error):  # not there yet, or no row in it yet
        return Progress()


def final_progress(folder: Path, tasks: ImageTasks = (CLASSIFICATION,)) -> Progress:
    """From `joint_metrics.json`, and the epochs from `joint_results.csv`."""
    epochs = current_progress(folder, tasks).epochs
    try:
        metrics = Record(METRICS_FILE, json.loads(read_text(folder / METRICS_FILE)))
        columns = {task: column.removeprefix(f"{task}_") for task, column in headlines_of(tasks).items()}
        found = {task: task_part(metrics, task).number(column) for task, column in columns.items()}
        return Progress(epochs, {task: value for task, value in found.items() if value is not None})
    except (ValueError, AttributeError, RecursionError):
        return Progress(epochs)


def seconds_left(runs: Sequence[Run], jobs: int) -> float | None:
    """An estimate of the time until the last run ends; None as long as there is nothing to go by.

    Waiting runs are expected to take as long as the finished ones did on average or, before one is, as the running ones will.
    """
    now, paces = time.monotonic(), []
    running = [run for run in runs if run.state == RUNNING]
    for run in running:
        share = current_progress(run.folder).epochs / run.epochs
        paces.append((now - run.started) / share if share else None)
    known = [run.seconds for run in runs if run.state == FINISHED and run.seconds] or [pace for pace in paces if pace]
    if not known:
        return None
    mean = sum(known) / len(known)
    left = [max(0.0, (pace or mean) - (now - run.started)) for run, pace in zip(running, paces, strict=True)]
    waiting = sum(run.state == WAITING for run in runs)
    return max([(sum(left) + waiting * mean) / jobs, *left])


@contextmanager
def progress_shown(runs: Sequence[Run], root: Path, jobs: int) -> Iterator[Lines]:
    """Show the runs of the comparison in `root` while the block lasts; report every change to what it yields."""
    console = Console()
    if not console.is_terminal:
        yield Lines(runs)
        return
    table = LiveTable(runs, root, jobs)
    with Live(table, console=console, refresh_per_second=2):
        yield table


class Lines:
    """A plain line whenever a run starts, finishes or fails."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def changed(self, run: Run) -> None:
        """Report that `run` has started, finished or failed."""
        if run.state == RUNNING:
            line = f"{run.name} starts"
        elif run.state == FINISHED:
            headlines = {task: column.replace("_", " ") for task, column in headlines_of(run.tasks).items()}
            figures = _figures(run, final_progress(run.folder, run.tasks), headlines)
            line = f"{run.name} is finished: {', '.join(figures)}, {_duration(run.seconds)} ({_count(self.runs)})"
        else:
            line = f"{run.name} failed: {run.error} (all of it: {run.log})"
        print(line, flush=True)


class LiveTable(Lines):
    """A row for each method, a column for each seed or fold; it redraws itself from the runs' files."""

    def __init__(self, runs: Sequence[Run], root: Path, jobs: int) -> None:
        super().__init__(runs)
        self.root, self.jobs = root, jobs
        self.started = time.monotonic()

    def changed(self, run: Run) -> None:
        """The next redraw shows it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=Text(str(self.root)), title_justify="left", title_style="bold", header_style="bold", expand=False)
        table.add_column("method")
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        for seed in seeds:
            table.add_column(f"{self.runs[0].unit} {seed}")
        cells = {(run.method.name, run.seed): self._cell(run) for run in self.runs}
        for name, label in {run.method.name: run.method.label for run in self.runs}.items():
            table.add_row(Text(label), *(cells[name, seed] for seed in seeds))
        yield table
        tasks = self.runs[0].tasks
        columns = headlines_of(tasks).values()
        told = [f"{of}: {column.replace('_', ' ')}" for of, column in zip(_short(tasks).values(), columns, strict=True)]
        yield Text(f"{', '.join(told)}; of the last epoch so far, of best.pt when finished")
        left = seconds_left(self.runs, self.jobs)
        waits = any(run.state in (WAITING, RUNNING) for run in self.runs)
        remaining = f", about {_duration(left)} left" if waits and left is not None else ""
        yield Text(f"{_count(self.runs)}, {_duration(time.monotonic() - self.started)} since the start{remaining}", style="bold")
        for run in self.runs:
            if run.state == FAILED:
                yield Text(f"{run.name} failed: {run.error} (all of it: {run.log})", style="red")

    def _cell(self, run: Run) -> Text:
        if run.state in (WAITING, FAILED):
            return Text(run.state, style="dim" if run.state == WAITING else "bold red")
        if run.state == RUNNING:
            found = current_progress(run.folder, run.tasks)
            return Text(" ".join([f"{found.epochs}/{run.epochs}", *_figures(run, found, _short(run.tasks))]), style="yellow")
        found = final_progress(run.folder, run.tasks)
        return Text(" ".join([*_figures(run, found, _short(run.tasks)), _duration(run.seconds)]), style="green")


def _short(tasks: ImageTasks) -> dict[str, str]:
    """What each task is called where there is little room."""
    return {DETECTION: "box", **{task.name: "cls" if task == CLASSIFICATION else task.name for task in tasks}}


def _figures(run: Run, found: Progress, names: Mapping[str, str]) -> list[str]:
    """The figures of the tasks that the method trains, each after its name."""
    return [f"{names[task]} {value:.3f}" for task, value in found.figures.items() if run.method.trains(task)]


def _count(runs: Sequence[Run]) -> str:
    finished, failed = (sum(run.state == state for run in runs) for state in (FINISHED, FAILED))
    return f"{finished} of {len(runs)} finished" + (f", {failed} failed" if failed else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
