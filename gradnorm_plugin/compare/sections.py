"""The tables of a comparison's page: figures, differences from the tasks alone, cost, gradients."""

from __future__ import annotations

from collections.abc import Sequence

from gradnorm_plugin.compare.collect import CURVES, FIGURES, trained_tasks
from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.methods import Method
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.compare.wording import plus_minus, short, with_interval
from gradnorm_plugin.report.blocks import Block, Missing, Points, Section, Small, Table, Text
from gradnorm_plugin.report.wording import NONE, Wording, count, figure

COSTS = (("parameters", count), ("gflops", short), ("seconds_per_epoch", short), ("peak_memory_mb", short))
GRADIENTS = ("detection_weight", "classification_weight", "detection_norm_before_clip", "head_norm_before_clip")


def figures_section(outcome: Outcome, say: Wording) -> Section:
    """Every final figure of every method."""
    names = [name for of in FIGURES.values() for name in of]
    rows = [
        [m.label, count(len(outcome.of(m.name))), *(plus_minus(outcome.spread(m.name, name), say) for name in names)]
        for m in outcome.methods
    ]
    head = (say("compare.method"), say("compare_figures.runs"), *(say(f"score.{name}") for name in names))
    table = Table(say("compare_figures.caption"), head, rows)
    return Section("figures", say("compare_figures.title"), [table, Small(say("compare_figures.note"))])


def differences_section(outcome: Outcome, say: Wording) -> Section:
    """Paired differences of the joint methods, a table a task, and on which side of 0 their intervals are."""
    blocks: list[Block] = []
    for task in FIGURES:
        methods = [m for m in outcome.joint_methods if outcome.difference(m.name, CURVES[task]) is not None]
        if methods:
            blocks += [Points(_sides(outcome, methods, CURVES[task], say)), _difference_table(outcome, methods, task, say)]
    blocks = [*blocks, Small(say("compare_differences.rule"))] if blocks else [Missing(say("compare_differences.none"))]
    return Section("differences", say("compare_differences.title"), blocks)


def _difference_table(outcome: Outcome, methods: Sequence[Method], task: str, say: Wording) -> Table:
    rows = []
    for method in methods:
        found = [outcome.difference(method.name, name) for name in FIGURES[task]]
        pairs = max(of.count for of in found if of is not None)
        rows.append([method.label, count(pairs), *(with_interval(of, say) for of in found)])
    head = (say("compare.method"), say("compare_differences.pairs"), *(say(f"score.{name}") for name in FIGURES[task]))
    return Table(say(f"compare_differences.{task}"), head, rows)


def _sides(outcome: Outcome, methods: Sequence[Method], name: str, say: Wording) -> list[Text]:
    labels: dict[str, list[str]] = {"above": [], "includes": [], "below": [], "single": []}
    for method in methods:
        labels[outcome.difference(method.name, name).side or "single"].append(method.label)
    shown = say.plain(f"score.{name}")
    return [say(f"compare_differences.{side}", figure=shown, methods=say.listed(of)) for side, of in labels.items() if of]


def cost_section(outcome: Outcome, latency: Latency | None, reason: str | None, say: Wording) -> Section:
    """Cost of training and predicting; `reason` says why the time of a prediction is missing, None that it is for later."""
    rows = []
    alone = {name: outcome.spread(BASELINES["detection"], name) for name, _ in COSTS}
    for method in outcome.methods:
        row = [method.label]
        for name, number in COSTS:
            spread, base = outcome.spread(method.name, name), alone[name]
            ratio = spread.mean / base.mean if spread and base and base.mean else None
            row.append(_with_ratio(number(spread.mean if spread else None), ratio, say))
        time = latency.of(method.name) if latency else None
        row.append(_with_ratio(short(time.milliseconds), time.ratio, say) if time else NONE)
        rows.append(row)
    head = (say("compare.method"), *(say(f"compare_cost.{name}") for name, _ in COSTS), say("compare_cost.latency"))
    blocks: list[Block] = [Table(say("compare_cost.caption"), head, rows), Small(say("compare_cost.note"))]
    if latency:
        alone_ms = short(latency.times[0].milliseconds)
        blocks.append(Small(say("compare_cost.timed", imgsz=latency.imgsz, device=latency.device, milliseconds=alone_ms)))
    else:
        blocks.append(Missing(say("compare_cost.failed", reason=reason) if reason else say("compare_cost.later")))
    return Section("cost", say("compare_cost.title"), blocks)


def _with_ratio(value: str, ratio: float | None, say: Wording) -> str:
    return value if ratio is None else say.plain("compare.ratio", value=value, ratio=f"{ratio:.2f}")


def gradients_section(outcome: Outcome, say: Wording) -> Section:
    """How far the tasks' gradients agreed, and with which weights the runs ended."""
    rows, measured = [], False
    for method in outcome.methods:
        found = {
            name: outcome.spread(method.name, name) for name in ("cosine", "conflicting_share", "measured_steps", *GRADIENTS)
        }
        means = {name: spread.mean if spread else None for name, spread in found.items()}
        known = means["cosine"] is not None and len(trained_tasks(method)) > 1
        measured |= known
        cosine = [figure(means["cosine"]), say.percent(means["conflicting_share"]), count(means["measured_steps"])]
        place = say(f"compare_gradients.{outcome.of(method.name)[0].measured_at}")
        rows.append([method.label, *([*cosine, place] if known else [NONE] * 4), *(figure(means[name]) for name in GRADIENTS)])
    columns = ("cosine", "conflicting_share", "measured_steps", "measured_at", *GRADIENTS)
    head = (say("compare.method"), *(say(f"compare_gradients.{name}") for name in columns))
    blocks: list[Block] = [] if measured else [Missing(say("compare_gradients.none"))]
    blocks += [Table(say("compare_gradients.caption"), head, rows), Small(say("compare_gradients.note"))]
    return Section("gradients", say("compare_gradients.title"), blocks)
