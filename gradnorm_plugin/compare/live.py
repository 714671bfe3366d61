"""What the screen shows while a comparison trains: a live table on a terminal, else a line for every run's start and end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradnorm_plugin.compare.figures import Figures, figures_so_far, final_figures
from gradnorm_plugin.compare.runs import FAILED, FINISHED, RUNNING, WAITING, Run, seconds_left


@contextmanager
def shown(runs: Sequence[Run], root: Path, jobs: int) -> Iterator[Screen]:
    """The screen for the length of the block."""
    console = Console()
    if not console.is_terminal:
        yield Screen(runs)
        return
    table = LiveTable(runs, root, jobs)
    with Live(table, console=console, refresh_per_second=2):
        yield table


class Screen:
    """A plain line whenever a run starts, ends or fails."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def changed(self, run: Run) -> None:
        """Tell that `run` has started, is finished or has failed."""
        name = f"{run.method.name} seed {run.seed}"
        if run.state == RUNNING:
            line = f"{name} starts"
        elif run.state == FINISHED:
            found = final_figures(run.folder)
            line = f"{name} is finished: {_long(run, found)}, {_duration(run.seconds)} ({_count(self.runs)})"
        else:
            line = f"{name} failed: {run.error} (all of it: {run.log})"
        print(line, flush=True)


class LiveTable(Screen):
    """A row for each method, a column for each seed; it draws itself anew from the runs' files."""

    def __init__(self, runs: Sequence[Run], root: Path, jobs: int) -> None:
        super().__init__(runs)
        self.root, self.jobs = root, jobs
        self.started = time.monotonic()
        self.final: dict[Path, Figures] = {}

    def changed(self, run: Run) -> None:
        """The next drawing shows it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=Text(str(self.root)), title_justify="left", title_style="bold", header_style="bold", expand=False)
        table.add_column("method")
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        for seed in seeds:
            table.add_column(f"seed {seed}")
        cells = {(run.method.name, run.seed): self._cell(run) for run in self.runs}
        for name, label in {run.method.name: run.method.label for run in self.runs}.items():
            table.add_row(Text(label), *(cells[name, seed] for seed in seeds))
        yield table
        yield Text("box: mAP50-95, cls: balanced accuracy; of the last epoch so far, of best.pt when finished")
        left = seconds_left(self.runs, self.jobs)
        waits = any(run.state in (WAITING, RUNNING) for run in self.runs)
        remaining = f", about {_duration(left)} left" if waits and left is not None else ""
        yield Text(f"{_count(self.runs)}, {_duration(time.monotonic() - self.started)} since the start{remaining}", style="bold")
        for run in self.runs:
            if run.state == FAILED:
                yield Text(f"{run.method.name} seed {run.seed} failed: {run.error} (all of it: {run.log})", style="red")

    def _cell(self, run: Run) -> Text:
        if run.state == WAITING:
            return Text("waiting", style="dim")
        if run.state == FAILED:
            return Text("failed", style="bold red")
        if run.state == RUNNING:
            found = figures_so_far(run.folder)
            return Text(f"{found.epochs}/{run.epochs} {_short(run, found)}".rstrip(), style="yellow")
        found = self.final.setdefault(run.folder, final_figures(run.folder))
        return Text(f"{_short(run, found)} {_duration(run.seconds)}", style="green")


def _short(run: Run, found: Figures) -> str:
    box, cls = _values(run, found)
    return " ".join(part for part in (box and f"box {box}", cls and f"cls {cls}") if part)


def _long(run: Run, found: Figures) -> str:
    box, cls = _values(run, found)
    return ", ".join(part for part in (box and f"mAP50-95 {box}", cls and f"balanced accuracy {cls}") if part)


def _values(run: Run, found: Figures) -> tuple[str, str]:
    """Of the tasks that the method trains, '' for the other."""
    pairs = ((run.method.detects, found.map5095), (run.method.classifies, found.balanced_accuracy))
    box, cls = (f"{value:.3f}" if trained and value is not None else "" for trained, value in pairs)
    return box, cls


def _count(runs: Sequence[Run]) -> str:
    finished, failed = (sum(run.state == state for run in runs) for state in (FINISHED, FAILED))
    return f"{finished} of {len(runs)} finished" + (f", {failed} failed" if failed else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
