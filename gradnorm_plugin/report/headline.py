"""The top of the report: the headline figures, and what cannot be concluded from the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradnorm_plugin.report.blocks import NONE, Text, Tile, Wording, count, figure, measured
from gradnorm_plugin.report.final import interval_name, read_interval, shown_epoch, trained
from gradnorm_plugin.report.run_files import RunFiles, task_part
from gradnorm_plugin.run_folder import CLASSIFICATION, DETECTION, task_names, weight_columns

HEADLINES = ("mAP50", "mAP50-95")
FEW = 30
"""Classes with fewer examples than this are named among the limits."""


def tiles(run: RunFiles, say: Wording) -> Iterator[Tile]:
    """The figures that a reader looks for first; only those that the files have."""
    if run.metrics or run.epochs:
        yield from _figures(run, say)
    if run.updates:
        weights = [figure(run.updates.numbers(weight)[-1]) for weight in weight_columns(run.tasks)]
        note = say("tile.weights_note", tasks=" : ".join(map(say.task, task_names(run.tasks))))
        yield Tile(say("tile.weights"), " : ".join(weights), note)
        if cosines := run.updates.known("cosine"):
            negative = sum(cosine < 0 for cosine in cosines)
            note = say("tile.conflict_note", negative=count(negative), count=count(len(cosines)))
            yield Tile(say("tile.conflict"), say.percent(negative / len(cosines)), note)


def _figures(run: RunFiles, say: Wording) -> Iterator[Tile]:
    """Headline figures of the final validation or, without one, of the best epoch; of the one class also the accuracy."""
    columns = [(DETECTION, name, name, say.score(name)) for name in HEADLINES]
    for task in run.tasks:
        names = ("accuracy", task.headline) if task == CLASSIFICATION else (task.headline,)
        columns += [(task.name, name, task.figure(name), say.score(name, task)) for name in names if name]
    for task_name, column, name, label in columns:
        if run.metrics:
            part, note = task_part(run.metrics, task_name), say("tile.best")
            value, bounds = part.number(name), read_interval(part, name)
        elif run.epochs:
            index, which = shown_epoch(run.epochs)
            value, bounds = run.epochs.numbers(column)[index], None
            note = say(f"tile.{which}_epoch", epoch=run.epochs.texts("epoch")[index])
        if value is None or math.isnan(value):
            continue
        if bounds:
            level = "".join(span.text for span in interval_name(run.metrics, say))
            note = say("tile.interval", name=level, low=measured(name, bounds[0]), high=measured(name, bounds[1]))
        yield Tile(label, measured(name, value), note, share_bar(value, *(bounds or (value, value))))


def share_bar(value: float, low: float, high: float) -> tuple[float, float, float] | None:
    """The bar of a tile; none for a figure that is no share."""
    return (value, max(low, 0.0), min(high, 1.0)) if 0 <= value <= 1 else None


def limits(run: RunFiles, say: Wording) -> Iterator[Text]:
    """What must not be read into the figures."""
    epochs, metrics = run.epochs, run.metrics
    seed, asked = run.options.text("seed"), run.options.number("epochs")
    yield say("limits.research")
    yield say("limits.one_run") if seed is None else say("limits.seed", seed=seed)
    yield say("limits.comparison")
    if epochs and asked and len(epochs) < asked:
        yield say("limits.epochs", done=len(epochs), asked=count(asked))
    if run.facts and run.facts.text("finished") is None:
        yield say("limits.unfinished")
    if metrics.text("task") == "val" if metrics else epochs and shown_epoch(epochs)[1] == "best":
        yield say("limits.chosen")
    bootstrap = metrics.record("bootstrap")
    if bootstrap.number("resamples"):
        yield say("limits.intervals", resamples=count(bootstrap.number("resamples")), seed=bootstrap.text("seed") or NONE)
    for task in task_names(run.tasks):
        part, key = task_part(metrics, task), "instances" if task == DETECTION else "support"
        examples = [(of.text("name") or NONE, of.number(key)) for of in part.records("classes")]
        if not examples:  # a value has no classes: its images are counted
            examples = [(task, part.number("images"))]
        few = [say.plain("limits.named", name=name, count=count(n)) for name, n in examples if n is not None and n < FEW]
        if few and trained(part):
            yield say.of_task("limits.few_*", task, few=FEW, names=say.listed(few))
