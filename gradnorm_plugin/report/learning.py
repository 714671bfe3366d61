"""How losses and figures changed from epoch to epoch."""

from __future__ import annotations

import math

from gradnorm_plugin.report.blocks import Block, Missing, Picture, Points, Section, Small, Table
from gradnorm_plugin.report.describe import missing
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.summary import SAME, Epochs, change, direction, run_epochs, spread
from gradnorm_plugin.report.wording import Wording, figure, score

LOSSES = tuple(f"{split}_{part}_loss" for split in ("train", "val") for part in ("box", "obj", "cls", "classification"))
SCORES = ("precision", "recall", "mAP50", "mAP50-95", "accuracy", "balanced_accuracy", "macro_F1", "fitness")
MOST_EPOCHS = 12


def learning_section(run: RunFiles, say: Wording) -> Section:
    """Loss changes with their words, and the figures epoch by epoch."""
    title = say("losses.title")
    epochs = run_epochs(run)
    if epochs is None:
        return Section("losses", title, [missing(run, say, "epochs")])
    blocks: list[Block] = [] if epochs.joint else [missing(run, say, "epochs"), Small(say("losses.plain"))]
    blocks += _loss_blocks(epochs, say) if len(epochs) > 1 else [Missing(say("losses.one_epoch", epoch=epochs.name(0)))]
    blocks.append(_epoch_table(epochs, say))
    for name in ("joint_results", "results"):
        picture = run.folder / f"{name}.png"
        if picture.is_file():
            blocks.append(Picture(picture, say(f"picture.{name}")))
            break
    return Section("losses", title, blocks)


def _loss_blocks(epochs: Epochs, say: Wording) -> list[Block]:
    rows, words = [], {"fell": [], "rose": [], "held": []}
    overtrained, elsewhere = [], False
    for loss in LOSSES:
        values = epochs.numbers(loss)
        known = [index for index, value in enumerate(values) if math.isfinite(value)]
        if not known:
            continue
        first, last, lowest = known[0], known[-1], min(known, key=values.__getitem__)
        elsewhere = elsewhere or first != 0 or last != len(values) - 1
        label = say.plain(f"loss.{loss}")
        rows.append(
            [
                label, _at(epochs, values, first, 0, say), _at(epochs, values, last, len(values) - 1, say),
                say.change(change(values[first], values[last])), figure(values[lowest]), epochs.name(lowest),
            ]
        )  # fmt: skip
        if first != last:
            words[direction(values[first], values[last])].append(label)
        if loss.startswith("val") and direction(values[lowest], values[last]) == "rose":
            overtrained.append(
                say(
                    "losses.past_lowest",
                    loss=label, epoch=epochs.name(lowest), share=say.percent(change(values[lowest], values[last])),
                )
            )  # fmt: skip
    points = [say(f"losses.{word}", losses=say.listed(labels)) for word, labels in words.items() if labels]
    head = [say(f"losses.{name}") for name in ("loss", "first", "last", "change", "lowest", "epoch")]
    notes = [Small(say("losses.rule", same=say.limit(SAME)))]
    if elsewhere:
        notes.append(Small(say("losses.elsewhere")))
    caption = say("losses.caption", file=epochs.rows.file, first=epochs.name(0), last=epochs.name(len(epochs) - 1))
    return [Points(points + overtrained), Table(caption, head, rows), *notes]


def _at(epochs: Epochs, values: list[float], index: int, expected: int, say: Wording) -> str:
    """A value, with its epoch if that is not the expected one."""
    number = figure(values[index])
    return number if index == expected else say.plain("losses.at", value=number, epoch=epochs.name(index))


def _epoch_table(epochs: Epochs, say: Wording) -> Table:
    best = epochs.best()
    shown = spread(len(epochs), MOST_EPOCHS, [] if best is None else [best])
    scores = [(name, values) for name in SCORES if any(map(math.isfinite, values := epochs.numbers(name)))]
    weights = [(task, epochs.numbers(f"{task}_weight")) for task in ("detection", "classification")]
    weights = [(task, values) for task, values in weights if any(map(math.isfinite, values))]
    rows = []
    for index in shown:
        name = epochs.name(index)
        rows.append(
            [
                say.plain("losses.best", epoch=name) if index == best else name,
                *(score(values[index]) for _, values in scores),
                *(figure(values[index]) for _, values in weights),
            ]
        )
    head = [say("losses.epoch"), *(say(f"score.{name}") for name, _ in scores)]
    head += [say("weights.weight", task=say.plain(f"task.{task}")) for task, _ in weights]
    return Table(say("losses.epochs_caption", shown=len(shown), all=len(epochs)), head, rows)
