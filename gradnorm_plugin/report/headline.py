"""The top of the report: the headline figures, and what cannot be concluded from the run."""

from __future__ import annotations

from gradnorm_plugin.report.blocks import Text, Tile
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.final import interval_name, read_interval, trained
from gradnorm_plugin.report.summary import finite, run_epochs
from gradnorm_plugin.report.wording import NONE, Wording, count, figure, score

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
    found = _final_tiles(run, say) if run.metrics is not None else _epoch_tiles(run, say)
    if run.updates is not None:
        detection, classification = (run.updates.numbers(f"{task}_weight")[-1] for task in ("detection", "classification"))
        found.append(Tile(say("tile.weights"), f"{figure(detection)} : {figure(classification)}", say("tile.weights_note")))
        cosines = finite(run.updates.numbers("cosine"))
        if cosines:
            negative = sum(cosine < 0 for cosine in cosines)
            note = say("tile.conflict_note", negative=count(negative), count=count(len(cosines)))
            found.append(Tile(say("tile.conflict"), say.percent(negative / len(cosines)), note))
    return found


def _final_tiles(run: RunFiles, say: Wording) -> list[Tile]:
    found = []
    for task, name in HEADLINES:
        part = run.metrics.record(task)
        value, bounds = part.number(name), read_interval(part, name)
        if value is None:
            continue
        if bounds is None:
            found.append(Tile(say(f"score.{name}"), score(value), say("tile.best"), (value, value, value)))
            continue
        spoken = say("tile.interval", name=_spoken(interval_name(run.metrics, say)), low=score(bounds[0]), high=score(bounds[1]))
        found.append(Tile(say(f"score.{name}"), score(value), spoken, (value, *bounds)))
    return found


def _epoch_tiles(run: RunFiles, say: Wording) -> list[Tile]:
    epochs = run_epochs(run)
    if epochs is None:
        return []
    best = epochs.best()
    index = len(epochs) - 1 if best is None else best
    note = say("tile.last_epoch" if best is None else "tile.best_epoch", epoch=epochs.name(index))
    values = {name: epochs.numbers(name)[index] for _, name in HEADLINES}
    return [Tile(say(f"score.{name}"), score(v), note, (v, v, v)) for name, v in values.items() if score(v) != NONE]


def limits(run: RunFiles, say: Wording) -> list[Text]:
    """What must not be read into the figures."""
    seed = run.options and run.options.text("seed")
    found = [say("limits.research"), say("limits.seed", seed=seed) if seed is not None else say("limits.one_run")]
    found.append(say("limits.comparison"))
    epochs = run_epochs(run)
    asked = run.options and run.options.number("epochs")
    if epochs is not None and asked and len(epochs) < asked:
        found.append(say("limits.epochs", done=len(epochs), asked=count(asked)))
    if run.facts is not None and run.facts.text("finished") is None:
        found.append(say("limits.unfinished"))
    if run.metrics is None:
        if epochs is not None and epochs.best() is not None:
            found.append(say("limits.chosen"))
        return found
    task = run.metrics.text("task")
    if task == "val":
        found.append(say("limits.chosen"))
    bootstrap = run.metrics.record("bootstrap")
    if bootstrap.number("resamples"):
        found.append(say("limits.intervals", resamples=count(bootstrap.number("resamples")), seed=bootstrap.text("seed") or NONE))
    for kind, key in (("detection", "instances"), ("classification", "support")):
        if not trained(run.metrics.record(kind)):
            continue
        few = [
            say.plain("limits.named", name=of.text("name") or NONE, count=count(of.number(key)))
            for of in run.metrics.record(kind).records("classes")
            if of.number(key) is not None and of.number(key) < FEW
        ]
        if few:
            found.append(say(f"limits.few_{kind}", few=FEW, names=say.listed(few)))
    return found


def _spoken(text: Text) -> str:
    return "".join(span.text for span in text)
