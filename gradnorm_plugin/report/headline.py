"""The top of the report: the headline figures, and what cannot be concluded from the run."""

from __future__ import annotations

from gradnorm_plugin.report.blocks import Tile
from gradnorm_plugin.report.final import interval_name, read_interval, trained
from gradnorm_plugin.report.wording import NONE, Text, Wording, count, figure, score
from gradnorm_plugin.run_folder import CLASSIFICATION, Epochs, ImageTasks, Record, RunFiles, finite, task_names, weight_columns

HEADLINES = (
    ("detection", "mAP50"),
    ("detection", "mAP50-95"),
    ("classification", "accuracy"),
    ("classification", "balanced_accuracy"),
)
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
        names = " : ".join(map(say.task, task_names(run.tasks)))
        note = say("tile.weights_note") if run.tasks == (CLASSIFICATION,) else say("tile.weights_of_all", names=names)
        found.append(Tile(say("tile.weights"), " : ".join(weights), note))
        cosines = finite(run.updates.numbers("cosine"))
        if cosines:
            negative = sum(cosine < 0 for cosine in cosines)
            note = say("tile.conflict_note", negative=count(negative), count=count(len(cosines)))
            found.append(Tile(say("tile.conflict"), say.percent(negative / len(cosines)), note))
    return found


def _final_tiles(metrics: Record, tasks: ImageTasks, say: Wording) -> list[Tile]:
    found = []
    further = [(task.name, task.headline.removeprefix(f"{task.name}_")) for task in tasks if task != CLASSIFICATION]
    for task, name in (*HEADLINES, *further):
        part = metrics.record(task) if (task, name) in HEADLINES else metrics.record("outputs").record(task)
        column = name if (task, name) in HEADLINES else f"{task}_{name}"
        value, bounds = part.number(name), read_interval(part, name)
        if value is None:
            continue
        note = say("tile.best")
        if bounds is not None:
            level = "".join(span.text for span in interval_name(metrics, say))
            note = say("tile.interval", name=level, low=score(bounds[0]), high=score(bounds[1]))
        found.append(Tile(say.score(column), score(value), note, (value, *(bounds or (value, value)))))
    return found


def _epoch_tiles(epochs: Epochs, tasks: ImageTasks, say: Wording) -> list[Tile]:
    best = epochs.best()
    index = len(epochs) - 1 if best is None else best
    note = say("tile.last_epoch" if best is None else "tile.best_epoch", epoch=epochs.name(index))
    names = [name for task, name in HEADLINES if task == "detection" or CLASSIFICATION in tasks]
    names += [task.headline for task in tasks if task != CLASSIFICATION]
    values = {name: epochs.numbers(name)[index] for name in names}
    return [Tile(say.score(name), score(v), note, (v, v, v)) for name, v in values.items() if score(v) != NONE]


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
    for task, key in (("detection", "instances"), ("classification", "support")):
        part = run.metrics.record(task)
        examples = [(of.text("name") or NONE, of.number(key)) for of in part.records("classes")] if trained(part) else []
        few = [say.plain("limits.named", name=name, count=count(n)) for name, n in examples if n is not None and n < FEW]
        if few:
            found.append(say(f"limits.few_{task}", few=FEW, names=say.listed(few)))
    outputs = run.metrics.record("outputs")
    for name in outputs.values:
        examples = [(of.text("name") or NONE, of.number("support")) for of in outputs.record(name).records("classes")]
        few = [say.plain("limits.named", name=label, count=count(n)) for label, n in examples if n is not None and n < FEW]
        if few:
            found.append(say("limits.few_classification", few=FEW, names=say.listed(few)))
    return found
