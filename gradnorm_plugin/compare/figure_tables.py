"""The tables of a comparison: those of its page, and `comparison.csv` and `runs.csv` with every figure in plain numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.methods import SEPARATE, Method, baseline, methods_of
from gradnorm_plugin.compare.plan import run_folder
from gradnorm_plugin.compare.results import AGREEMENT, COSTS, NORMS, Difference, Outcome, gradients_of
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
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, ImageTask, cosine_columns, task_names


def task_of(outcome: Outcome, column: str) -> ImageTask:
    """The image output that a figure is of; for one of detection that of the class, whose figures need no name before them."""
    return next((task for task in outcome.tasks if column in task.figures), CLASSIFICATION)


def named(outcome: Outcome, column: str, say: Wording) -> str:
    """What a figure is called."""
    return say.score(column, task_of(outcome, column))


def value_of(outcome: Outcome, column: str, value: float | None, sign: str = "") -> str:
    """A figure, as its kind is written; `sign` is "+" for a difference."""
    return measured(task_of(outcome, column).figure(column), value, sign)


def plus_minus(outcome: Outcome, method: str, column: str, say: Wording) -> str:
    """0.512 ± 0.010, without the latter for a single seed."""
    spread = outcome.spread(method, column)
    mean = value_of(outcome, column, spread.mean if spread else None)
    if spread is None or spread.sd is None:
        return mean
    return say.plain("compare.spread", mean=mean, sd=value_of(outcome, column, spread.sd))


def _with_interval(outcome: Outcome, column: str, difference: Difference | None, say: Wording) -> str:
    """+0.008 (-0.004 to +0.020), without the latter for a single pair."""
    mean = value_of(outcome, column, difference.mean if difference else None, "+")
    if difference is None or difference.interval is None:
        return mean
    low, high = (value_of(outcome, column, end, "+") for end in difference.interval)
    return say.plain("compare_differences.interval", mean=mean, low=low, high=high)


def short(value: float | None) -> str:
    """A time or GFLOPs to three significant digits; larger numbers whole."""
    return figure(value) if value is None or math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _names(outcome: Outcome) -> list[str]:
    """The columns of all figures."""
    return [name for names in outcome.figures.values() for name in names]


def figures_section(outcome: Outcome, say: Wording) -> Section:
    """Every final figure of every method."""
    names = _names(outcome)
    best = best_ratio(outcome)
    labels = {m.name: say("compare_figures.best_ratio", method=m.label) if m == best else m.label for m in outcome.methods}
    rows = [
        [labels[m.name], count(len(outcome.of(m.name))), *(plus_minus(outcome, m.name, name, say) for name in names)]
        for m in outcome.methods
    ]
    head: list[Cell] = [say("compare.method"), say("compare_figures.runs"), *(named(outcome, name, say) for name in names)]
    table = Table(say("compare_figures.caption"), head, rows)
    return Section("figures", say("compare_figures.title"), [table, Small(say("compare_figures.note"))])


def differences_section(outcome: Outcome, say: Wording) -> Section:
    """Paired differences of the joint methods from each task alone, and on which side of 0 their intervals are."""
    blocks: list[Block] = []
    for task in outcome.figures:
        caption = say.of_task("compare_differences.*", task)
        blocks += _difference_blocks(
            outcome, task, outcome.difference, named(outcome, outcome.headlines[task], say), caption, say
        )
    for task in outcome.figures if outcome.of(SEPARATE) else ():
        if methods_of(outcome.tasks)[SEPARATE].trains(task):
            caption = say("compare_differences.separate", task=say.task(task))
            shown = say.plain("compare_differences.figure_separate", figure=named(outcome, outcome.headlines[task], say))
            found = _difference_blocks(outcome, task, outcome.separate_difference, shown, caption, say)
            blocks += [*found, Small(say("compare_differences.separate_note"))] if found else []
    blocks.append(Small(say("compare_differences.rule")) if blocks else Missing(say("compare_differences.none")))
    return Section("differences", say("compare_differences.title"), blocks)


def _difference_blocks(
    outcome: Outcome, task: str, difference: Callable[[str, str], Difference | None], shown: str, caption: Text, say: Wording
) -> list[Block]:
    """A task's differences from one baseline, in words (of the headline figure, `shown`) and in a table."""
    names, headline_name = outcome.figures[task], outcome.headlines[task]
    sides: dict[str, list[str]] = {"above": [], "includes": [], "below": [], "single": []}
    rows: list[list[Cell]] = []
    for method in outcome.joint_methods:
        headline = difference(method.name, headline_name)
        if headline is not None:
            sides[headline.side or "single"].append(method.label)
            found = [difference(method.name, name) for name in names]
            pairs = max(of.count for of in found if of is not None)
            cells = [_with_interval(outcome, name, of, say) for name, of in zip(names, found, strict=True)]
            rows.append([method.label, count(pairs), *cells])
    if not rows:
        return []
    texts = [say(f"compare_differences.{side}", figure=shown, methods=say.listed(of)) for side, of in sides.items() if of]
    head: list[Cell] = [say("compare.method"), say("compare_differences.pairs"), *(named(outcome, name, say) for name in names)]
    return [Points(texts), Table(caption, head, rows)]


def cost_section(outcome: Outcome, latency: Latency | None, reason: str | None, say: Wording) -> Section:
    """The cost of training and predicting; `reason` says why there is no latency, None that it is measured later."""
    numbers: dict[str, Callable[[float | None], str]] = {name: count if name == "parameters" else short for name in COSTS}
    alone = {name: outcome.spread(baseline(DETECTION), name) for name in COSTS}
    rows = []
    for method in outcome.methods:
        row: list[Cell] = [method.label]
        for name, number in numbers.items():
            spread, base = outcome.spread(method.name, name), alone[name]
            ratio = spread.mean / base.mean if spread and base and base.mean else None
            row.append(_with_ratio(number(spread.mean if spread else None), ratio, say))
        time = latency.of(method.name) if latency else None
        row.append(_with_ratio(short(time.milliseconds), time.ratio, say) if time else NONE)
        rows.append(row)
    rows += _two_networks(outcome, latency, numbers, say)
    head = (say("compare.method"), *(say(f"compare_cost.{name}") for name in COSTS), say("compare_cost.latency"))
    blocks: list[Block] = [Table(say("compare_cost.caption"), head, rows), Small(say("compare_cost.note"))]
    if latency:
        alone_ms = short(latency.times[0].milliseconds)
        blocks.append(Small(say("compare_cost.timed", imgsz=latency.imgsz, device=latency.device, milliseconds=alone_ms)))
    else:
        blocks.append(Missing(say("compare_cost.failed", reason=reason) if reason else say("compare_cost.later")))
    return Section("cost", say("compare_cost.title"), blocks)


def _two_networks(
    outcome: Outcome, latency: Latency | None, numbers: Mapping[str, Callable[[float | None], str]], say: Wording
) -> list[list[Cell]]:
    """What detection alone and the separate classifier cost together; empty unless both have a finished run."""
    names = (baseline(DETECTION), SEPARATE)
    if not all(map(outcome.of, names)):
        return []
    first, second = (methods_of(outcome.tasks)[name].label for name in names)
    row: list[Cell] = [say("compare_cost.two", first=first, second=second)]
    for cost, number in numbers.items():
        one, other = (outcome.spread(name, cost) for name in names)
        both = one.mean + other.mean if one and other else None
        row.append(_with_ratio(number(both), both / one.mean if both and one and one.mean else None, say))
    times = [latency.of(name) if latency else None for name in names]
    known = [time for time in times if time]
    together = short(sum(time.milliseconds for time in known))
    row.append(_with_ratio(together, sum(time.ratio for time in known), say) if len(known) == len(names) else NONE)
    return [row]


def _with_ratio(value: str, ratio: float | None, say: Wording) -> str:
    return value if ratio is None else say.plain("compare.ratio", value=value, ratio=f"{ratio:.2f}")


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

    Raises:
        WriteError: if it cannot be written.
    """
    return _write_csv(file, [_method_row(outcome, latency, method) for method in outcome.plan.methods])


def write_runs(outcome: Outcome, file: Path) -> Path:
    """Write a row for each planned run, with what its files say.

    Raises:
        WriteError: if it cannot be written.
    """
    found = {(run.method.name, run.seed): run.values for run in outcome.runs}
    rows = []
    for method in outcome.plan.methods:
        for seed in outcome.plan.seeds:
            values = found.get((method.name, seed))
            row = {"method": method.name, outcome.plan.unit: seed, "finished": "no" if values is None else "yes"}
            row["folder"] = run_folder(outcome.root, method.name, seed, outcome.plan.unit).relative_to(outcome.root).as_posix()
            rows.append({**row, **{name: (values or {}).get(name) for name in _all_names(outcome)}})
    return _write_csv(file, rows)


def _method_row(outcome: Outcome, latency: Latency | None, method: Method) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method.name, "label": method.label, "runs": len(outcome.of(method.name))}
    for name in _all_names(outcome):
        found = outcome.spread(method.name, name)
        row |= {f"{name}_mean": found and found.mean, f"{name}_sd": found and found.sd, f"{name}_n": found.count if found else 0}
        if name in _names(outcome):
            difference = outcome.difference(method.name, name)
            low, high = (difference and difference.interval) or (None, None)
            row |= {f"{name}_diff": difference and difference.mean, f"{name}_diff_low": low, f"{name}_diff_high": high}
    time = latency.of(method.name) if latency else None
    return {**row, "latency_ms": time and time.milliseconds, "latency_ratio": time and time.ratio}


def _all_names(outcome: Outcome) -> tuple[str, ...]:
    return (*_names(outcome), *COSTS, *gradients_of(outcome.tasks))


def _write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(rows[0])
        writer.writerows(csv_row(f"{v:.6g}" if isinstance(v, float) else v for v in row.values()) for row in rows)
    return file
