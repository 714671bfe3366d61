"""The tables of a comparison: those of its page, and `comparison.csv` and `runs.csv` with every figure in plain numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.methods import SEPARATE, baseline, methods_of
from gradnorm_plugin.compare.plan import run_folder
from gradnorm_plugin.compare.results import AGREEMENT, COSTS, NORMS, Outcome, gradients_of
from gradnorm_plugin.compare.spread import Difference
from gradnorm_plugin.compare.verdicts import best_ratio
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.names import csv_row
from gradnorm_plugin.report.blocks import (
    NONE,
    Block,
    Cell,
    Missing,
    Points,
    Section,
    Small,
    Table,
    Text,
    Wording,
    count,
    figure,
    measured,
)
from gradnorm_plugin.run_folder import DETECTION, cosine_columns, task_names


def named(outcome: Outcome, column: str, say: Wording) -> str:
    """The name of a figure."""
    return say.score(column, outcome.task_of(column))


def value_of(outcome: Outcome, column: str, value: float | None, sign: str = "") -> str:
    """A figure in the format of its kind; `sign` is "+" for a difference."""
    return measured(outcome.task_of(column).figure(column), value, sign)


def plus_minus(outcome: Outcome, method: str, column: str, say: Wording) -> str:
    """0.512 ± 0.010; the mean alone for a single seed."""
    spread = outcome.spread(method, column)
    mean = value_of(outcome, column, spread.mean if spread else None)
    if spread is None or spread.sd is None:
        return mean
    return say.plain("compare.spread", mean=mean, sd=value_of(outcome, column, spread.sd))


def _with_interval(outcome: Outcome, column: str, difference: Difference | None, say: Wording) -> str:
    """+0.008 (-0.004 to +0.020); the mean alone for a single pair."""
    mean = value_of(outcome, column, difference.mean if difference else None, "+")
    if difference is None or difference.interval is None:
        return mean
    low, high = (value_of(outcome, column, end, "+") for end in difference.interval)
    return say.plain("compare_differences.interval", mean=mean, low=low, high=high)


def short(value: float | None) -> str:
    """A time or GFLOPs to three significant digits; larger numbers whole."""
    return figure(value) if value is None or math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def figures_section(outcome: Outcome, say: Wording) -> Section:
    """Every final figure of every method."""
    names, best = outcome.figure_names, best_ratio(outcome)
    rows: list[list[Cell]] = []
    for method in outcome.methods:
        label = say("compare_figures.best_ratio", method=method.label) if method == best else method.label
        figures = [plus_minus(outcome, method.name, name, say) for name in names]
        rows.append([label, count(len(outcome.of(method.name))), *figures])
    head: list[Cell] = [say("compare.method"), say("compare_figures.runs"), *(named(outcome, name, say) for name in names)]
    table = Table(say("compare_figures.caption"), head, rows)
    return Section("figures", say("compare_figures.title"), [table, Small(say("compare_figures.note"))])


def differences_section(outcome: Outcome, say: Wording) -> Section:
    """Paired differences of the joint methods from each task alone, and on which side of 0 their intervals are."""
    blocks: list[Block] = []
    for task, headline in outcome.headlines.items():
        caption, shown = say.of_task("compare_differences.*", task), named(outcome, headline, say)
        blocks += _difference_blocks(outcome, task, outcome.difference, shown, caption, say)
    for task, headline in outcome.headlines.items() if outcome.of(SEPARATE) else ():
        if methods_of(outcome.tasks)[SEPARATE].trains(task):
            caption = say("compare_differences.separate", task=say.task(task))
            shown = say.plain("compare_differences.figure_separate", figure=named(outcome, headline, say))
            found = _difference_blocks(outcome, task, outcome.separate_difference, shown, caption, say)
            blocks += [*found, Small(say("compare_differences.separate_note"))] if found else []
    blocks.append(Small(say("compare_differences.rule")) if blocks else Missing(say("compare_differences.none")))
    return Section("differences", say("compare_differences.title"), blocks)


def _difference_blocks(
    outcome: Outcome, task: str, difference: Callable[[str, str], Difference | None], shown: str, caption: Text, say: Wording
) -> list[Block]:
    """A task's differences from one baseline, in words (of the headline figure, `shown`) and in a table."""
    names = outcome.figures[task]
    sides: dict[str, list[str]] = {"above": [], "includes": [], "below": [], "single": []}
    rows: list[list[Cell]] = []
    for method in outcome.joint_methods:
        found = {name: difference(method.name, name) for name in names}
        headline = found[outcome.headlines[task]]
        if headline:
            sides[headline.side or "single"].append(method.label)
            pairs = max(of.count for of in found.values() if of)
            rows.append([method.label, count(pairs), *(_with_interval(outcome, *of, say) for of in found.items())])
    texts = [say(f"compare_differences.{side}", figure=shown, methods=say.listed(of)) for side, of in sides.items() if of]
    head: list[Cell] = [say("compare.method"), say("compare_differences.pairs"), *(named(outcome, name, say) for name in names)]
    return [Points(texts), Table(caption, head, rows)] if rows else []


def cost_section(outcome: Outcome, latency: Latency | None, reason: str | None, say: Wording) -> Section:
    """The cost of training and predicting; `reason` says why there is no latency, None that it is measured later."""

    def cell(value: str, ratio: float | None) -> str:
        return value if ratio is None else say.plain("compare.ratio", value=value, ratio=f"{ratio:.2f}")

    def row(label: Cell, *methods: str) -> list[Cell]:
        """What these networks cost together, beside the detector alone."""
        cells = [label]
        for cost in COSTS:
            spreads = [outcome.spread(method, cost) for method in methods]
            total = sum(of.mean for of in spreads if of) if all(spreads) else None
            alone = outcome.spread(baseline(DETECTION), cost)
            ratio = total / alone.mean if total is not None and alone and alone.mean else None
            cells.append(cell((count if cost == "parameters" else short)(total), ratio))
        times = [time for method in methods if latency and (time := latency.of(method))]
        together = cell(short(sum(time.milliseconds for time in times)), sum(time.ratio for time in times))
        return [*cells, together if len(times) == len(methods) else NONE]

    rows = [row(method.label, method.name) for method in outcome.methods]
    two = (baseline(DETECTION), SEPARATE)
    if all(map(outcome.of, two)):
        first, second = (methods_of(outcome.tasks)[name].label for name in two)
        rows.append(row(say("compare_cost.two", first=first, second=second), *two))
    head = (say("compare.method"), *(say(f"compare_cost.{name}") for name in COSTS), say("compare_cost.latency"))
    blocks: list[Block] = [Table(say("compare_cost.caption"), head, rows), Small(say("compare_cost.note"))]
    if latency:
        milliseconds = short(latency.times[0].milliseconds)
        blocks.append(Small(say("compare_cost.timed", imgsz=latency.imgsz, device=latency.device, milliseconds=milliseconds)))
    else:
        blocks.append(Missing(say("compare_cost.failed", reason=reason) if reason else say("compare_cost.later")))
    return Section("cost", say("compare_cost.title"), blocks)


def gradients_section(outcome: Outcome, say: Wording) -> Section:
    """How far the tasks' gradients agreed, and the weights and norms that the runs had."""
    rows: list[list[Cell]] = []
    of_pairs: list[list[Cell]] = []
    tasks, pairs = task_names(outcome.tasks), cosine_columns(outcome.tasks)[1:]
    for method in outcome.methods:
        spreads = {name: outcome.spread(method.name, name) for name in gradients_of(outcome.tasks)}
        means = {name: spread.mean if spread else None for name, spread in spreads.items()}
        agreement: list[Cell] = [NONE] * 4
        if means["cosine"] is not None and sum(map(method.trains, tasks)) > 1:
            of_pairs.append([method.label, *(figure(means[pair]) for pair in pairs)])
            place = say(f"compare_gradients.{outcome.of(method.name)[0].measured_at}")
            share, steps = say.percent(means["conflicting_share"]), count(means["measured_steps"])
            agreement = [figure(means["cosine"]), share, steps, place]
        rows.append([method.label, *agreement, *(figure(means[name]) for name in (*(f"{t}_weight" for t in tasks), *NORMS))])
    of_tasks = [say.of_task("compare_gradients.*_weight", task) for task in tasks]
    first, last = ([say(f"compare_gradients.{name}") for name in names] for names in ((*AGREEMENT, "measured_at"), NORMS))
    head = (say("compare.method"), *first, *of_tasks, *last)
    blocks: list[Block] = [] if of_pairs else [Missing(say("compare_gradients.none"))]
    blocks.append(Table(say("compare_gradients.caption"), head, rows))
    if of_pairs and pairs:
        two = [say("interference.pair", first=say.task(one), second=say.task(other)) for one, other in combinations(tasks, 2)]
        blocks.append(Table(say("compare_gradients.pairs"), (say("compare.method"), *two), of_pairs))
    blocks.append(Small(say("compare_gradients.note")))
    return Section("gradients", say("compare_gradients.title"), blocks)


def write_methods(outcome: Outcome, latency: Latency | None, file: Path) -> Path:
    """Write a row for each planned method, even without a finished run; a figure that does not exist is an empty cell.

    `X_mean`, `X_sd` (sample standard deviation) and `X_n` are over the seeds; `X_diff`, `X_diff_low` and `X_diff_high` are the
    paired difference from the task alone and its 95 % interval.
    """
    rows = []
    for method in outcome.plan.methods:
        row: dict[str, Any] = {"method": method.name, "label": method.label, "runs": len(outcome.of(method.name))}
        for name in outcome.all_names:
            spread = outcome.spread(method.name, name)
            mean, sd, runs = (spread.mean, spread.sd, spread.count) if spread else (None, None, 0)
            row |= {f"{name}_mean": mean, f"{name}_sd": sd, f"{name}_n": runs}
            if name in outcome.figure_names:
                difference = outcome.difference(method.name, name)
                low, high = (difference and difference.interval) or (None, None)
                row |= {f"{name}_diff": difference and difference.mean, f"{name}_diff_low": low, f"{name}_diff_high": high}
        time = latency.of(method.name) if latency else None
        rows.append({**row, "latency_ms": time and time.milliseconds, "latency_ratio": time and time.ratio})
    return _write_csv(file, rows)


def write_runs(outcome: Outcome, file: Path) -> Path:
    """Write a row for each planned run, with what its files say."""
    plan, found = outcome.plan, {(run.method.name, run.seed): run.values for run in outcome.runs}
    rows = []
    for method in plan.methods:
        for seed in plan.seeds:
            values = found.get((method.name, seed))
            folder = run_folder(Path(), method.name, seed, plan.unit).as_posix()
            row = {"method": method.name, plan.unit: seed, "finished": "no" if values is None else "yes", "folder": folder}
            rows.append({**row, **{name: (values or {}).get(name) for name in outcome.all_names}})
    return _write_csv(file, rows)


def _write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(rows[0])
        writer.writerows(csv_row(f"{v:.6g}" if isinstance(v, float) else v for v in row.values()) for row in rows)
    return file
