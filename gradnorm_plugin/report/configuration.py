"""What was run: the command and its settings, the model, the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.report.blocks import (
    NONE,
    Block,
    Cell,
    Points,
    Section,
    Table,
    Wording,
    count,
    extremes,
    figure,
    missing,
    pictures,
)
from gradnorm_plugin.report.run_files import Record, RunFiles
from gradnorm_plugin.run_folder import CLASSIFICATION, FACTS_FILE, ImageTask, ImageTasks

OPTIONS = (
    "weights", "data", "batch_size", "imgsz", "optimizer", "seed", "backbone", "balancer", "gradnorm_preset", "weight_scope",
    "class_weights", "fitness_share",
)  # fmt: skip
"""The options that are shown first; all of them follow at the end."""

Fact = tuple[Cell, Cell]
"""What it is, and its value."""


def run_section(run: RunFiles, say: Wording) -> Section:
    """When, where and with which settings."""
    facts = [*_run_facts(run, say)]
    for name in OPTIONS:
        value = run.options.text(name)
        if value is not None:
            nothing = say("option.scratch" if name == "weights" else "option.empty")
            facts.append((say("option.label", name=name), value or nothing))
    balancing = run.facts.record("balancing")
    values = {name: balancing.text(name) for name in balancing.values if name not in OPTIONS}
    facts += [(say("run.balancing", name=name), value) for name, value in values.items() if value]
    blocks: list[Block] = [Table(say("run.caption"), (), facts, numeric=False)]
    blocks += [missing(run.folder, record.file, say) for record in (run.facts, run.options) if not record]
    return Section("run", say("run.title"), blocks)


def _run_facts(run: RunFiles, say: Wording) -> Iterator[Fact]:
    yield say("run.folder"), run.folder.resolve().name
    if command := run.facts.sequence("command"):
        yield say("run.command"), shlex.join(str(word) for word in command)
    for name in ("started", "finished", "device"):
        if found := run.facts.text(name):
            yield say(f"run.{name}"), found if name == "device" else found.replace("T", " ")
    seconds = run.facts.number("seconds")
    if seconds is not None:
        # Written at the start and after every epoch: it is 0 in a run that stopped during its first one.
        yield say("run.seconds"), say.duration(seconds) if seconds else NONE
    versions = run.facts.record("versions")
    if versions.values:
        yield say("run.versions"), say.listed(f"{name} {found}" for name in versions.values if (found := versions.text(name)))
    epochs, asked = run.epochs, run.options.number("epochs")
    if epochs or asked:
        yield say("run.epochs"), say.plain("run.epochs_of", done=len(epochs) if epochs else 0, asked=count(asked))


def model_section(run: RunFiles, say: Wording) -> Section:
    """The network and its size."""
    model = run.facts.record("model")
    if not model.values:
        return Section("model", say("model.title"), [missing(run.folder, FACTS_FILE, say)])
    facts: list[Fact] = [(say(f"model.{name}"), text) for name in ("cfg", "weights") if (text := model.text(name))]
    second = model.number("backbone_parameters")
    more = ("backbone_parameters", "total_parameters") if second else ()
    sizes = {name: model.number(name) for name in ("layers", "parameters", "head_parameters", *more, "gflops")}
    size = count(model.number("gflops_imgsz"))
    facts += [(say(f"model.{name}", size=size), (figure if name == "gflops" else count)(n)) for name, n in sizes.items()]
    facts.append((say("model.head_layer" if second else "model.shared_layer"), model.text("shared_layer") or NONE))
    blocks: list[Block] = [Table(say("model.caption"), (), facts, numeric=False)]
    head, detector = sizes["head_parameters"], sizes["parameters"]
    if head and detector:
        ours = head + (second or 0)
        values = {"head": count(head), "share": say.percent(ours / (ours + detector))}
        point = say("model.dual_share", backbone=count(second), **values) if second else say("model.head_share", **values)
        blocks.insert(0, Points([point]))
    return Section("model", say("model.title"), blocks)


def data_section(run: RunFiles, say: Wording) -> Section:
    """How many images and boxes each split has, and what is said of the images."""
    data = run.facts.record("data")
    blocks = [*_data_blocks(data, run.tasks, say)] if data.values else [missing(run.folder, FACTS_FILE, say)]
    return Section("data", say("data.title"), [*blocks, *pictures(run.folder, ["labels.jpg"], say)])


def _data_blocks(data: Record, tasks: ImageTasks, say: Wording) -> Iterator[Block]:
    splits = {name: of for name in ("train", "val", "test") if (of := data.record(name)).values}
    names, classes = ([str(name) for name in data.sequence(key)] for key in ("names", "classification_names"))
    boxes, images = ({split: of.numbers(key) for split, of in splits.items()} for key in ("boxes", "image_classes"))

    def row(key: str, values: Iterable[float | None], **named: str) -> list[Cell]:
        return [say(f"data.{key}", **named), *map(count, values)]

    def counts(key: str) -> list[Cell]:
        return row(key, (of.number(key) for of in splits.values()))

    def class_rows(key: str, names: list[str], found: dict[str, list[float]]) -> list[list[Cell]]:
        return [
            row(key, (of[index] if index < len(of) else None for of in found.values()), name=name)
            for index, name in enumerate(names)
        ]

    rows = [counts("images")]
    if CLASSIFICATION in tasks:
        rows += [*class_rows("image_class", classes, images), counts("without_class")]
    rows += [row("boxes", (sum(of) if of else None for of in boxes.values())), *class_rows("box_class", names, boxes)]
    head = [say(f"data.{split}") for split in splits]
    yield Table(say("data.caption", yaml=data.text("yaml") or NONE), [say("data.what"), *head], [*rows, counts("without_boxes")])
    outputs = [_output_row(task, splits, say) for task in tasks if task != CLASSIFICATION]
    if outputs:
        yield Table(say("data.outputs"), [say("data.output"), say("data.kind"), *head], outputs, numeric=False)
    points = []
    for key, labels, counted in (("images", classes, images.get("train")), ("boxes", names, boxes.get("train"))):
        found = extremes(labels, counted) if counted and len(labels) == len(counted) else None
        if counted and found:
            often, rare = map(say.listed, found)
            most, least = count(max(counted)), count(min(counted))
            points.append(say(f"data.balance_{key}", often=often, most=most, rare=rare, least=least))
    if points:
        yield Points(points)


def _output_row(task: ImageTask, splits: Mapping[str, Record], say: Wording) -> list[Cell]:
    row: list[Cell] = [task.name, task.kind]
    for of in splits.values():
        found, images = of.record("image_outputs").record(task.name), count(of.number("images"))
        values = {"labelled": count(found.number("labelled")), "images": images, "summary": found.text("summary") or NONE}
        row.append(say("data.labelled", **values) if found.values else NONE)
    return row


def settings_section(run: RunFiles, say: Wording) -> Section:
    """Every option and hyperparameter, so that the run can be repeated."""
    blocks: list[Block] = []
    for record in (run.options, run.hyperparameters):
        plain = [name for name, value in record.values.items() if not isinstance(value, dict)]
        rows = [(name, without_secrets(record.text(name) or NONE)) for name in plain]
        table = Table(say("settings.caption", file=record.file), (), rows, numeric=False, wide=True)
        blocks.append(table if record else missing(run.folder, record.file, say))
    return Section("settings", say("settings.title"), blocks)
