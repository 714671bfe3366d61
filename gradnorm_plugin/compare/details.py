"""The rest of a comparison's page: predictions, the course over the epochs, what was run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

import numpy as np

from gradnorm_plugin.compare.collect import CURVES
from gradnorm_plugin.compare.curves_plot import FILE as PICTURE
from gradnorm_plugin.compare.curves_plot import band
from gradnorm_plugin.compare.outcome import Outcome
from gradnorm_plugin.compare.predictions import Prediction, Verdict, judge
from gradnorm_plugin.compare.summary import predictions_count
from gradnorm_plugin.compare.wording import signed
from gradnorm_plugin.report.blocks import Block, Cell, Missing, Picture, Points, Section, Small, Table
from gradnorm_plugin.report.wording import NONE, Wording
from gradnorm_plugin.run_folder import FACTS_FILE, Record, read_facts


def predictions_section(outcome: Outcome, say: Wording) -> Section:
    """Each prediction, what was measured, and whether it holds."""
    verdicts = judge(outcome)
    points = [predictions_count(outcome, say)]
    failed = [say.plain(f"score.{of.prediction.figure}") for of in verdicts if of.word in {"below", "above"}]
    if failed:
        points.append(say("compare_predictions.fail", figures=say.listed(failed)))
    rows = [_prediction_row(verdict, say) for verdict in verdicts]
    head = [say(f"compare_predictions.{name}") for name in ("figure", "predicted", "measured", "seeds", "verdict")]
    table = Table(say("compare_predictions.caption"), head, rows)
    blocks = [Points(points), table, Small(say("compare_predictions.note"))]
    return Section("predictions", say("compare_predictions.title"), blocks)


def _prediction_row(verdict: Verdict, say: Wording) -> list[Cell]:
    prediction, found = verdict.prediction, verdict.found
    label, predicted = say(f"score.{prediction.figure}"), _range(prediction, (prediction.low, prediction.high), say)
    if found is None:
        return [label, predicted, NONE, NONE, say("compare_predictions.unmeasured")]
    measured = (
        say.plain("compare_predictions.times", value=f"{found.value:.2f}") if prediction.times else say.percent(found.value)
    )
    seeds = _range(prediction, (found.low, found.high), say, measured=True)
    values = {"value": measured} if verdict.word == "holds" else {"value": measured, "range": predicted}
    return [label, predicted, measured, seeds, say(f"compare_predictions.{verdict.word}", **values)]


def _range(prediction: Prediction, ends: tuple[float, float], say: Wording, measured: bool = False) -> str:
    """3 to 5 times, or 85 % to 90 %; what was measured with more digits."""
    if prediction.times:
        low, high = (f"{end:.2f}" if measured else f"{end:g}" for end in ends)
        return say.plain("compare_predictions.times_range", low=low, high=high)
    low, high = map(say.percent if measured else say.limit, ends)
    return say.plain("number.range", low=low, high=high)


def curves_section(outcome: Outcome, say: Wording) -> Section:
    """The course of both headline figures, and how much they still moved at the end."""
    title, picture = say("compare_curves.title"), outcome.root / PICTURE
    if not any(run.curves for run in outcome.runs):
        return Section("curves", title, [Missing(say("compare_curves.none"))])
    blocks: list[Block] = [Picture(picture, say("compare_curves.picture"))] if picture.is_file() else []
    if all(sum(map(math.isfinite, curve)) < 2 for run in outcome.runs for curve in run.curves.values()):
        return Section("curves", title, [*blocks, Missing(say("compare_curves.single"))])
    rows = []
    for method in outcome.methods:
        changes = (change_at_end(band(outcome.of(method.name), name)) for name in CURVES.values())
        rows.append([method.label, *map(signed, changes)])
    head = (say("compare.method"), *(say(f"score.{name}") for name in CURVES.values()))
    blocks += [Table(say("compare_curves.caption"), head, rows), Small(say("compare_curves.note"))]
    return Section("curves", title, blocks)


def change_at_end(found: tuple[np.ndarray, ...] | None) -> float | None:
    """What the last fifth of the epochs added to the mean; None if nothing was measured before it, or nothing in it."""
    if found is None:
        return None
    epochs, mean = found[0], found[1]
    before = mean[epochs < min(0.8 * (epochs[-1] + 1), epochs[-1])]  # epochs count from 0
    return float(mean[-1] - before[-1]) if len(before) else None


def run_section(outcome: Outcome, say: Wording) -> Section:
    """The plan, and what of it is not there."""
    plan, done = outcome.plan, len(outcome.runs)
    facts: list[tuple[Cell, Cell]] = [
        (say("compare_run.folder"), outcome.root.resolve().name),
        (say("compare_run.started"), plan.started.replace("T", " ")),
        (say("compare_run.flags"), shlex.join(plan.flags) or say("compare_run.none")),
        (say("compare_run.seeds"), say.listed(map(str, plan.seeds))),
        (say("compare_run.finished"), say.plain("compare_tile.of", part=done, all=outcome.planned)),
        *_machines(outcome, say),
    ]
    own = [(method.label, shlex.join(method.flags) or say("compare_run.none")) for method in plan.methods]
    blocks: list[Block] = [Table(say("compare_run.caption"), (), facts, numeric=False)]
    blocks.append(Table(say("compare_run.methods"), (), own, numeric=False))
    if outcome.missing:
        runs = [say.plain("compare.run", method=method.label, seed=seed) for method, seeds in outcome.missing for seed in seeds]
        blocks.insert(0, Missing(say("compare_run.missing", runs=say.listed(runs))))
    return Section("run", say("compare_run.title"), blocks)


def _machines(outcome: Outcome, say: Wording) -> Iterator[tuple[Cell, Cell]]:
    """Devices and versions of the finished runs, each once."""
    facts = [Record(FACTS_FILE, read_facts(run.folder)) for run in outcome.runs]
    devices = dict.fromkeys(of.text("device") for of in facts if of.text("device"))
    if devices:
        yield say("run.device"), say.listed(devices)
    versions = [of.record("versions") for of in facts]
    known = dict.fromkeys(f"{name} {of.text(name)}" for of in versions for name in of.values if of.text(name))
    if known:
        yield say("run.versions"), say.listed(known)
