"""The page of a comparison, in the order in which a reader decides, and the files beside it."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from gradnorm_plugin.compare.curves import CURVES_FILE, band, change_at_end, plot_curves
from gradnorm_plugin.compare.figure_tables import (
    cost_section,
    differences_section,
    figures_section,
    gradients_section,
    named,
    plus_minus,
    short,
    value_of,
    write_methods,
    write_runs,
)
from gradnorm_plugin.compare.latency import Latency, LatencyError, measure_latency
from gradnorm_plugin.compare.methods import GRID_METHODS, Method, baseline, methods_of
from gradnorm_plugin.compare.plan import FOLD
from gradnorm_plugin.compare.plots import CHOICE_FILE, plot_choice
from gradnorm_plugin.compare.results import Outcome, read_outcome
from gradnorm_plugin.compare.verdicts import Prediction, Verdict, best_joint, best_ratio, cheapest, falls_behind, judge, keep_up
from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.report.blocks import (
    LANGUAGES,
    NONE,
    Block,
    Cell,
    Missing,
    Picture,
    Points,
    Report,
    Section,
    Small,
    Table,
    Text,
    Tile,
    Wording,
    count,
)
from gradnorm_plugin.report.compose import LABELS, write_pages
from gradnorm_plugin.report.headline import share_bar
from gradnorm_plugin.report.run_files import Record, read_facts
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, FACTS_FILE

_OF_FOLDS: Mapping[str, Mapping[str, str]] = {
    "en": {"seed": "fold", "Seed": "Fold"},
    "zh-TW": {"亂數種子": "折", "種子": "折"},
}
"""Language -> its words for seeds, and those for folds in their place."""


def write_comparison(root: Path, lang: str = "en", predictions: bool = False) -> list[Path]:
    """Write everything into `root`, the folder of a comparison with any number of finished runs; returns the paths.

    `comparison.csv`, `runs.csv`, `comparison.md`, `comparison.html`, and once a run is finished `comparison` and `curves` as
    .png and .pdf. Nothing is guessed about a run that is missing. When none is, the networks are timed once (`latency.json`);
    if they cannot be, the page says why. `predictions`: also judge those of the report that this project started from.

    Raises:
        CompareError: if `root` is no comparison's folder.
        ReportError: if a file of a finished run cannot be used.
        ValueError: if there are no texts for `lang`.
        WriteError: if a file cannot be written.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}, expected one of {', '.join(LANGUAGES)}")
    outcome = read_outcome(root)
    say = Wording(lang, outcome.tasks, _OF_FOLDS[lang] if outcome.plan.unit == FOLD else {})
    try:
        latency, reason = measure_latency(outcome), None
    except LatencyError as error:
        latency, reason = None, str(error)
    written = [write_methods(outcome, latency, root / "comparison.csv"), write_runs(outcome, root / "runs.csv")]
    written += plot_choice(outcome, latency) + plot_curves(outcome)
    report = compose_comparison(outcome, latency, reason, say, predictions)
    return written + write_pages(report, say, root, "comparison")


def compose_comparison(
    outcome: Outcome, latency: Latency | None, reason: str | None, say: Wording, predictions: bool = False
) -> Report:
    """All sections; without a finished run only those that need none.

    `reason` says why `latency` could not be measured; None if it was, or will be later. `predictions`: whether to judge those of
    the report that this project started from.
    """
    verdicts = judge(outcome) if predictions else []
    sections = [_summary_section(outcome, verdicts, say)]
    if outcome.methods:
        sections += [
            figures_section(outcome, say),
            differences_section(outcome, say),
            cost_section(outcome, latency, reason, say),
            gradients_section(outcome, say),
            *([_predictions_section(verdicts, say)] if verdicts else []),
            _curves_section(outcome, say),
        ]
    return Report(
        language=say.language,
        title=say("compare.title", name=outcome.root.resolve().name),
        subtitle=say("compare.subtitle"),
        tiles=[*_tiles(outcome, verdicts, say)],
        limits_title=say("compare_limits.title"),
        limits=[*_limits(outcome, say)],
        sections=[*sections, _run_section(outcome, say)],
        labels={**{label: say(f"page.{label}") for label in LABELS}, "footer": say("compare.footer")},
    )


def _summary_section(outcome: Outcome, verdicts: list[Verdict], say: Wording) -> Section:
    """The sentences, and the picture."""
    title = say("compare_summary.title")
    if not outcome.methods:
        return Section("summary", title, [Missing(say("compare_summary.none"))])
    points = [*_who_keeps_up(outcome, say), *_who_is_best(outcome, say), *_count_verdicts(verdicts, say)]
    blocks: list[Block] = [Points(points), Small(say("compare_summary.rule"))]
    if (outcome.root / CHOICE_FILE).is_file():
        blocks.append(Picture(outcome.root / CHOICE_FILE, say("compare_summary.picture")))
    return Section("summary", title, blocks)


def _alone(outcome: Outcome) -> dict[str, Method]:
    """Task -> the method that trains it alone."""
    return {task: methods_of(outcome.tasks)[baseline(task)] for task in outcome.headlines}


def _who_keeps_up(outcome: Outcome, say: Wording) -> Iterator[Text]:
    kept = keep_up(outcome)
    if kept is None:
        absent = [method.label for method in _alone(outcome).values() if not outcome.of(method.name)]
        yield say("compare_summary.no_baseline", methods=say.listed(absent))
    elif kept:
        yield say("compare_summary.keep", methods=say.listed(method.label for method in kept))
    elif outcome.joint_methods:
        yield say("compare_summary.keep_none")
    for task, column in outcome.headlines.items():
        behind = [method.label for method in outcome.joint_methods if falls_behind(outcome, method, task)]
        if behind:
            values = {"figure": named(outcome, column, say), "methods": say.listed(behind)}
            yield say.of_task("compare_summary.behind_*", task, **values)
    for cost, number in (("parameters", count), ("seconds_per_epoch", short)):
        found = cheapest(outcome, kept, cost) if kept and len(kept) > 1 else None
        if found:
            methods = say.listed(method.label for method in found[0])
            yield say(f"compare_summary.{cost}", methods=methods, value=number(found[1]))


def _who_is_best(outcome: Outcome, say: Wording) -> Iterator[Text]:
    if best := best_joint(outcome):
        found = {task: plus_minus(outcome, best.name, column, say) for task, column in outcome.headlines.items()}
        listed = say.listed(f"{named(outcome, column, say)} {found[task]}" for task, column in outcome.headlines.items())
        two = {task: found[task] for task in (DETECTION, CLASSIFICATION.name) if task in found}
        yield say("compare_summary.best", method=best.label, figures=listed, **two)
    if best := best_ratio(outcome):
        labels = say.listed(methods_of(outcome.tasks)[name].label for name in GRID_METHODS)
        yield say("compare_summary.best_ratio", method=best.label, methods=labels)


def _tiles(outcome: Outcome, verdicts: list[Verdict], say: Wording) -> Iterator[Tile]:
    """Headline figures of the best joint method beside the tasks alone, predictions if judged, and how many runs are finished."""
    best = best_joint(outcome)
    headline = outcome.headline(best.name) if best else None
    if best and headline:
        for name, alone, spread in zip(outcome.headlines.values(), _alone(outcome).values(), headline, strict=True):
            known = "alone" if outcome.values(alone.name, name) else "no_baseline"
            note = say(f"compare_tile.{known}", method=alone.label, value=plus_minus(outcome, alone.name, name, say))
            label = say("compare_tile.figure", figure=named(outcome, name, say), method=best.label)
            low, high = spread.mean - (spread.sd or 0), spread.mean + (spread.sd or 0)
            yield Tile(label, value_of(outcome, name, spread.mean), note, share_bar(spread.mean, low, high))
    if verdicts:
        words = Counter(verdict.word for verdict in verdicts)
        note = say("compare_tile.predictions_note", unmeasured=words["unmeasured"])
        part = say.plain("compare_tile.of", part=words["holds"], all=len(verdicts))
        yield Tile(say("compare_tile.predictions"), part, note)
    done = say.plain("compare_tile.of", part=len(outcome.runs), all=outcome.planned)
    plan = say("compare_tile.runs_note", methods=len(outcome.plan.methods), count=len(outcome.plan.seeds))
    yield Tile(say("compare_tile.runs"), done, plan)


def _limits(outcome: Outcome, say: Wording) -> Iterator[Text]:
    """What must not be read into the figures."""
    seeds, folds = len(outcome.plan.seeds), outcome.plan.unit == FOLD
    yield say("limits.research")
    yield say("compare_limits.one_seed") if seeds == 1 else say("compare_limits.seeds", count=seeds)
    if folds:
        yield say("compare_limits.folds")
    if outcome.missing:
        yield say("compare_limits.missing", done=len(outcome.runs), planned=outcome.planned)
    images = {run.images for run in outcome.runs if run.images}
    if len(images) == 1 and not folds:
        yield say("compare_limits.images", images=count(images.pop()))
    # With --noval only the last epoch is measured, and best.pt is that one.
    yield say("compare_limits.last" if "--noval" in outcome.plan.flags else "compare_limits.chosen")
    yield from (say("compare_limits.budget"), say("compare_limits.time"))


def _predictions_section(verdicts: list[Verdict], say: Wording) -> Section:
    """Each prediction, what was measured, and whether it holds."""
    points = [*_count_verdicts(verdicts, say)]
    failed = [say.plain(f"score.{of.prediction.figure}") for of in verdicts if of.word in {"below", "above"}]
    if failed:
        points.append(say("compare_predictions.fail", figures=say.listed(failed)))
    rows = [_prediction_row(verdict, say) for verdict in verdicts]
    head = [say(f"compare_predictions.{name}") for name in ("figure", "predicted", "measured", "seeds", "verdict")]
    table = Table(say("compare_predictions.caption"), head, rows)
    blocks: list[Block] = [Points(points), table, Small(say("compare_predictions.note"))]
    return Section("predictions", say("compare_predictions.title"), blocks)


def _count_verdicts(verdicts: list[Verdict], say: Wording) -> Iterator[Text]:
    if verdicts:
        words = Counter(verdict.word for verdict in verdicts)
        numbers = {word: words[word] for word in ("holds", "below", "above", "unmeasured")}
        yield say("compare_predictions.count", all=len(verdicts), **numbers)


def _prediction_row(verdict: Verdict, say: Wording) -> list[Cell]:
    prediction, found = verdict.prediction, verdict.found
    label, predicted = say(f"score.{prediction.figure}"), _range(prediction, (prediction.low, prediction.high), say)
    if found is None:
        return [label, predicted, NONE, NONE, say("compare_predictions.unmeasured")]
    times = say.plain("compare_predictions.times", value=f"{found.value:.2f}")
    measured = times if prediction.times else say.percent(found.value)
    seeds = _range(prediction, (found.low, found.high), say, measured=True)
    return [label, predicted, measured, seeds, say(f"compare_predictions.{verdict.word}", value=measured, range=predicted)]


def _range(prediction: Prediction, ends: tuple[float, float], say: Wording, measured: bool = False) -> str:
    """3 to 5 times, or 85 % to 90 %; with more digits if it was measured."""
    if prediction.times:
        low, high = (f"{end:.2f}" if measured else f"{end:g}" for end in ends)
        return say.plain("compare_predictions.times_range", low=low, high=high)
    low, high = (say.percent(end, ".1f" if measured else "g") for end in ends)
    return say.plain("number.range", low=low, high=high)


def _curves_section(outcome: Outcome, say: Wording) -> Section:
    """Both headline figures over the epochs, and how much they still changed at the end."""
    title, picture = say("compare_curves.title"), outcome.root / CURVES_FILE
    if not any(run.curves for run in outcome.runs):
        return Section("curves", title, [Missing(say("compare_curves.none"))])
    blocks: list[Block] = [Picture(picture, say("compare_curves.picture"))] if picture.is_file() else []
    if all(sum(map(math.isfinite, curve)) < 2 for run in outcome.runs for curve in run.curves.values()):
        return Section("curves", title, [*blocks, Missing(say("compare_curves.single"))])
    rows = []
    for method in outcome.methods:
        changes = {name: change_at_end(band(outcome.of(method.name), name)) for name in outcome.headlines.values()}
        rows.append([method.label, *(value_of(outcome, name, change, "+") for name, change in changes.items())])
    head: list[Cell] = [say("compare.method"), *(named(outcome, name, say) for name in outcome.headlines.values())]
    blocks += [Table(say("compare_curves.caption"), head, rows), Small(say("compare_curves.note"))]
    return Section("curves", title, blocks)


def _run_section(outcome: Outcome, say: Wording) -> Section:
    """The plan, and which of its runs are missing."""
    plan, done = outcome.plan, len(outcome.runs)
    facts: list[tuple[Cell, Cell]] = [
        (say("compare_run.folder"), outcome.root.resolve().name),
        (say("compare_run.started"), plan.started.replace("T", " ")),
        (say("compare_run.flags"), without_secrets(shlex.join(plan.flags)) or say("compare_run.none")),
        (say("compare_run.seeds"), say.listed(map(str, plan.seeds))),
        (say("compare_run.finished"), say.plain("compare_tile.of", part=done, all=outcome.planned)),
        *_machines(outcome, say),
    ]
    own = [(method.label, without_secrets(shlex.join(method.flags)) or say("compare_run.none")) for method in plan.methods]
    blocks: list[Block] = [Table(say("compare_run.caption"), (), facts, numeric=False)]
    blocks.append(Table(say("compare_run.methods"), (), own, numeric=False))
    if outcome.missing:
        runs = [say.plain("compare.run", method=method.label, number=seed) for method, seeds in outcome.missing for seed in seeds]
        blocks.insert(0, Missing(say("compare_run.missing", runs=say.listed(runs))))
    return Section("run", say("compare_run.title"), blocks)


def _machines(outcome: Outcome, say: Wording) -> Iterator[tuple[Cell, Cell]]:
    """Devices and versions of the finished runs, each once."""
    facts = [Record(FACTS_FILE, read_facts(run.folder)) for run in outcome.runs]
    devices = dict.fromkeys(device for of in facts if (device := of.text("device")))
    if devices:
        yield say("run.device"), say.listed(devices)
    versions = [of.record("versions") for of in facts]
    known = dict.fromkeys(f"{name} {of.text(name)}" for of in versions for name in of.values if of.text(name))
    if known:
        yield say("run.versions"), say.listed(known)
