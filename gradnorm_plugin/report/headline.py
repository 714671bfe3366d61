"""The top of the report: the headline figures, and what cannot be concluded from the run."""

from __future__ import annotations

from gradnorm_plugin.report.blocks import Tile
from gradnorm_plugin.report.final import interval_name, read_interval, trained
from gradnorm_plugin.report.wording import NONE, Text, Wording, count, figure, measured
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    DETECTION,
    Epochs,
    ImageTask,
    ImageTasks,
    Record,
    RunFiles,
    finite,
    output_part,
    task_names,
    weight_columns,
)

HEADLINES = ("mAP50", "mAP50-95")
FEW = 30
"""Classes with fewer examples than this are named among the limits."""


def tiles(run: RunFiles, say: Wording) -> list[Tile]:
    """The figures that a reader looks for first; only those that the files have."""
    epochs = run.any_epochs()
    found: list[Tile] = []
    if run.metrics is not None:
        found = _final_tiles(run.metrics, run.tasks, say)
    elif epochs is not None:
        found = _epoch_tiles(epochs, run.tasks, say)
    if run.updates is not None:
        weights = [figure(run.updates.numbers(weight)[-1]) for weight in weight_columns(run.tasks)]
        note = say("tile.weights_note", tasks=" : ".join(map(say.task, task_names(run.tasks))))
        found.append(Tile(say("tile.weights"), " : ".join(weights), note))
        cosines = finite(run.updates.numbers("cosine"))
        if cosines:
            negative = sum(cosine < 0 for cosine in cosines)
            note = say("tile.conflict_note", negative=count(negative), count=count(len(cosines)))
            found.append(Tile(say("tile.conflict"), say.percent(negative / len(cosines)), note))
    return found


def _columns(tasks: ImageTasks) -> list[tuple[ImageTask, str]]:
    """The figures of the image outputs that have a tile; of the one class also the accuracy, which everyone asks for."""
    return [(t, column) for t in tasks for column in (("accuracy",) if t == CLASSIFICATION else ()) + (t.headline,) if column]


def _final_tiles(metrics: Record, tasks: ImageTasks, say: Wording) -> list[Tile]:
    found = []
    parts = [(metrics.record(DETECTION), name, say.score(name)) for name in HEADLINES]
    parts += [(output_part(metrics, t.name), t.figure(column), say.score(column, t)) for t, column in _columns(tasks)]
    for part, name, label in parts:
        value, bounds = part.number(name), read_interval(part, name)
        if value is None:
            continue
        note = say("tile.best")
        if bounds is not None:
            level = "".join(span.text for span in interval_name(metrics, say))
            note = say("tile.interval", name=level, low=measured(name, bounds[0]), high=measured(name, bounds[1]))
        found.append(Tile(label, measured(name, value), note, share_bar(value, *(bounds or (value, value)))))
    return found


def share_bar(value: float, low: float, high: float) -> tuple[float, float, float] | None:
    """The bar of a tile; none for a figure that is no share."""
    return (value, max(low, 0.0), min(high, 1.0)) if 0 <= value <= 1 else None


def _epoch_tiles(epochs: Epochs, tasks: ImageTasks, say: Wording) -> list[Tile]:
    best = epochs.best()
    index = len(epochs) - 1 if best is None else best
    note = say("tile.last_epoch" if best is None else "tile.best_epoch", epoch=epochs.name(index))
    columns = [(name, name, say.score(name)) for name in HEADLINES]
    columns += [(column, task.figure(column), say.score(column, task)) for task, column in _columns(tasks)]
    values = [(epochs.numbers(column)[index], name, label) for column, name, label in columns]
    return [Tile(label, shown, note, share_bar(v, v, v)) for v, name, label in values if (shown := measured(name, v)) != NONE]


def limits(run: RunFiles, say: Wording) -> list[Text]:
    """What must not be read into the figures."""
    seed, asked = (run.options.text("seed"), run.options.number("epochs")) if run.options is not None else (None, None)
    found = [say("limits.research"), say("limits.seed", seed=seed) if seed is not None else say("limits.one_run")]
    found.append(say("limits.comparison"))
    epochs = run.any_epochs()
    if epochs is not None and asked and len(epochs) < asked:
        found.append(say("limits.epochs", done=len(epochs), asked=count(asked)))
    if run.facts is not None and run.facts.text("finished") is None:
        found.append(say("limits.unfinished"))
    if run.metrics is None:
        if epochs is not None and epochs.best() is not None:
            found.append(say("limits.chosen"))
        return found
    if run.metrics.text("task") == "val":
        found.append(say("limits.chosen"))
    bootstrap = run.metrics.record("bootstrap")
    if bootstrap.number("resamples"):
        found.append(say("limits.intervals", resamples=count(bootstrap.number("resamples")), seed=bootstrap.text("seed") or NONE))
    parts = [(DETECTION, "instances", run.metrics.record(DETECTION))]
    parts += [(task.name, "support", output_part(run.metrics, task.name)) for task in run.tasks]
    for task, key, part in parts:
        examples = [(of.text("name") or NONE, of.number(key)) for of in part.records("classes")]
        if not examples:  # a value has no classes: its images are counted
            examples = [(task, part.number("images"))]
        few = [say.plain("limits.named", name=name, count=count(n)) for name, n in examples if n is not None and n < FEW]
        if few and trained(part):
            found.append(say.of_task("limits.few_*", task, few=FEW, names=say.listed(few)))
    return found
