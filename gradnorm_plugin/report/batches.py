"""The first epoch, batch by batch, as the screen showed it."""

from __future__ import annotations

from gradnorm_plugin.report.blocks import Section, Small, Table
from gradnorm_plugin.report.describe import missing
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.summary import spread
from gradnorm_plugin.report.wording import Wording, figure

BATCH_COLUMNS = ("total", "detection", "classification", "detection_weight", "classification_weight", "cosine")
MOST_BATCHES = 20


def batches_section(run: RunFiles, say: Wording) -> Section:
    """The lines that the screen showed during the first epoch."""
    title = say("batches.title")
    if run.batches is None:
        return Section("batches", title, [missing(run, say, "batches")])
    epochs = run.batches.texts("epoch")
    first = [index for index, epoch in enumerate(epochs) if epoch == epochs[0]]
    shown = [first[index] for index in spread(len(first), MOST_BATCHES)]
    batch = run.batches.texts("batch")
    columns = [run.batches.numbers(name) for name in BATCH_COLUMNS]
    rows = [[batch[index], *(figure(column[index]) for column in columns)] for index in shown]
    head = (say("batches.batch"), *(say(f"batches.{name}") for name in BATCH_COLUMNS))
    caption = say("batches.caption", epoch=epochs[0], shown=len(shown), all=len(first))
    return Section("batches", title, [Table(caption, head, rows), Small(say("batches.note"))])
