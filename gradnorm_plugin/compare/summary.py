"""What a reader looks for first: sentences, headline figures and limits, from the figures alone."""

from __future__ import annotations

from collections import Counter

from gradnorm_plugin.compare.choice_plot import FILE as PICTURE
from gradnorm_plugin.compare.choosing import best_joint, cheapest, falls_behind, keep_up
from gradnorm_plugin.compare.collect import CURVES, FIGURES
from gradnorm_plugin.compare.methods import METHODS
from gradnorm_plugin.compare.outcome import BASELINES, Outcome
from gradnorm_plugin.compare.predictions import judge
from gradnorm_plugin.compare.wording import plus_minus, short
from gradnorm_plugin.report.blocks import Block, Missing, Picture, Points, Section, Small, Text, Tile
from gradnorm_plugin.report.wording import Wording, count, score

_NUMBERS = {"parameters": count, "seconds_per_epoch": short}


def summary_section(outcome: Outcome, say: Wording, predictions: bool) -> Section:
    """The sentences, and the picture."""
    title = say("compare_summary.title")
    if not outcome.methods:
        return Section("summary", title, [Missing(say("compare_summary.none"))])
    points = [*_keeping_up(outcome, say), *_best(outcome, say)]
    blocks: list[Block] = [Points([*points, predictions_count(outcome, say)] if predictions else points)]
    blocks.append(Small(say("compare_summary.rule")))
    if (outcome.root / PICTURE).is_file():
        blocks.append(Picture(outcome.root / PICTURE, say("compare_summary.picture")))
    return Section("summary", title, blocks)


def _keeping_up(outcome: Outcome, say: Wording) -> list[Text]:
    kept, texts = keep_up(outcome), []
    if kept is None:
        absent = [METHODS[name].label for task, name in BASELINES.items() if outcome.baseline(task) is None]
        texts.append(say("compare_summary.no_baseline", methods=say.listed(absent)))
    elif kept:
        texts.append(say("compare_summary.keep", methods=say.listed(method.label for method in kept)))
    elif outcome.joint_methods:
        texts.append(say("compare_summary.keep_none"))
    for task in FIGURES:
        behind = [method.label for method in outcome.joint_methods if falls_behind(outcome, method, task)]
        if behind:
            texts.append(say(f"compare_summary.behind_{task}", methods=say.listed(behind)))
    for cost, number in _NUMBERS.items():
        found = cheapest(outcome, kept, cost) if kept and len(kept) > 1 else None
        if found:
            methods = say.listed(method.label for method in found[0])
            texts.append(say(f"compare_summary.{cost}", methods=methods, value=number(found[1])))
    return texts


def _best(outcome: Outcome, say: Wording) -> list[Text]:
    best = best_joint(outcome)
    if best is None:
        return []
    detection, classification = (plus_minus(of, say) for of in outcome.headline(best.name))
    return [say("compare_summary.best", method=best.label, detection=detection, classification=classification)]


def predictions_count(outcome: Outcome, say: Wording) -> Text:
    """How many of the predictions hold."""
    words = Counter(verdict.word for verdict in judge(outcome))
    numbers = {word: words[word] for word in ("holds", "below", "above", "unmeasured")}
    return say("compare_predictions.count", all=words.total(), **numbers)


def tiles(outcome: Outcome, say: Wording, predictions: bool) -> list[Tile]:
    """Both figures of the best joint method beside the tasks alone, the predictions if wanted, and how far it has come."""
    found, best = [], best_joint(outcome)
    if best is not None:
        for (task, name), spread in zip(CURVES.items(), outcome.headline(best.name), strict=True):
            alone = outcome.spread(BASELINES[task], name)
            values = {"method": METHODS[BASELINES[task]].label, "value": plus_minus(alone, say)}
            note = say("compare_tile.alone", **values) if alone else say("compare_tile.no_baseline", method=values["method"])
            half = spread.sd or 0
            bar = (spread.mean, max(spread.mean - half, 0.0), min(spread.mean + half, 1.0))
            label = say("compare_tile.figure", figure=say.plain(f"score.{name}"), method=best.label)
            found.append(Tile(label, score(spread.mean), note, bar))
    if predictions:
        verdicts = judge(outcome)
        words = Counter(verdict.word for verdict in verdicts)
        part = say.plain("compare_tile.of", part=words["holds"], all=len(verdicts))
        note = say("compare_tile.predictions_note", unmeasured=words["unmeasured"])
        found.append(Tile(say("compare_tile.predictions"), part, note))
    done = say.plain("compare_tile.of", part=len(outcome.runs), all=outcome.planned)
    plan = say("compare_tile.runs_note", methods=len(outcome.plan.methods), seeds=len(outcome.plan.seeds))
    return [*found, Tile(say("compare_tile.runs"), done, plan)]


def limits(outcome: Outcome, say: Wording) -> list[Text]:
    """What must not be read into the figures."""
    seeds = len(outcome.plan.seeds)
    texts = [say("limits.research")]
    texts.append(say("compare_limits.one_seed") if seeds == 1 else say("compare_limits.seeds", count=seeds))
    if outcome.missing:
        texts.append(say("compare_limits.missing", done=len(outcome.runs), planned=outcome.planned))
    images = {run.images for run in outcome.runs if run.images}
    if len(images) == 1:
        texts.append(say("compare_limits.images", images=count(images.pop())))
    # With --noval only the last epoch is measured, and best.pt is that one.
    checkpoint = "last" if "--noval" in outcome.plan.flags else "chosen"
    return [*texts, *(say(f"compare_limits.{name}") for name in (checkpoint, "budget", "time"))]
