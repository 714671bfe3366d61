"""What was run: the command and its settings, the model, the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

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
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    FACTS_FILE,
    HYPERPARAMETERS_FILE,
    OPTIONS_FILE,
    ImageTask,
    ImageTasks,
    Record,
    RunFiles,
)

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
    if run.options is not None:
        for name in OPTIONS:
            value = run.options.text(name)
            if value is not None:
                facts.append(
                    (say("option.label", name=name), value or say(f"option.{'scratch' if name == 'weights' else 'empty'}"))
                )
    if run.facts is not None:
        balancing = run.facts.record("balancing")
        values = {name: balancing.text(name) for name in balancing.values if name not in OPTIONS}
        facts += [(say("run.balancing", name=name), value) for name, value in values.items() if value]
    blocks: list[Block] = [Table(say("run.caption"), (), facts, numeric=False)]
    blocks += [
        missing(run.folder, file, say) for file, of in ((FACTS_FILE, run.facts), (OPTIONS_FILE, run.options)) if of is None
    ]
    return Section("run", say("run.title"), blocks)


def _run_facts(run: RunFiles, say: Wording) -> Iterator[Fact]:
    yield say("run.folder"), run.folder.resolve().name
    if run.facts is not None:
        command = run.facts.sequence("command")
        if command:
            yield say("run.command"), shlex.join(str(word) for word in command)
        for name in ("started", "finished", "device"):
            found = run.facts.text(name)
            if found:
                yield say(f"run.{name}"), found if name == "device" else found.replace("T", " ")
        seconds = run.facts.number("seconds")
        if seconds is not None:
            # Written at the start and after every epoch: it is 0 in a run that stopped during its first one.
            yield say("run.seconds"), say.duration(seconds) if seconds else NONE
        versions = run.facts.record("versions")
        if versions.values:
            known = [f"{name} {versions.text(name)}" for name in versions.values if versions.text(name)]
            yield say("run.versions"), say.listed(known)
    epochs, asked = run.any_epochs(), run.options.number("epochs") if run.options is not None else None
    if epochs is not None or asked:
        yield say("run.epochs"), say.plain("run.epochs_of", done=len(epochs) if epochs else 0, asked=count(asked))


def model_section(run: RunFiles, say: Wording) -> Section:
    """The network and its size."""
    model = run.facts.record("model") if run.facts is not None else None
    if model is None or not model.values:
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
    data = run.facts.record("data") if run.facts is not None else None
    blocks: list[Block] = (
        [*_data_blocks(data, run.tasks, say)] if data is not None and data.values else [missing(run.folder, FACTS_FILE, say)]
    )
    return Section("data", say("data.title"), [*blocks, *pictures(run.folder, ["labels.jpg"], say)])


def _data_blocks(data: Record, tasks: ImageTasks, say: Wording) -> Iterator[Block]:
    splits = {name: data.record(name) for name in ("train", "val", "test") if data.record(name).values}
    names = [str(name) for name in data.sequence("names") or []]
    classes = [str(name) for name in data.sequence("classification_names") or []]
    boxes = {split: of.numbers("boxes") or [] for split, of in splits.items()}
    images = {split: of.numbers("image_classes") or [] for split, of in splits.items()}

    def row(key: str, values: Sequence[float | None], **named: str) -> list[Cell]:
        return [say(f"data.{key}", **named), *map(count, values)]

    def class_rows(key: str, names: list[str], splits: dict[str, list[float]]) -> Iterator[list[Cell]]:
        for index, name in enumerate(names):
            yield row(key, [of[index] if index < len(of) else None for of in splits.values()], name=name)

    of_class = [
        *class_rows("image_class", classes, images),
        row("without_class", [of.number("without_class") for of in splits.values()]),
    ]
    rows = [
        row("images", [of.number("images") for of in splits.values()]),
        *(of_class if CLASSIFICATION in tasks else ()),
        row("boxes", [sum(counts) if counts else None for counts in boxes.values()]),
        *class_rows("box_class", names, boxes),
        row("without_boxes", [of.number("without_boxes") for of in splits.values()]),
    ]
    head = (say("data.what"), *(say(f"data.{split}") for split in splits))
    yield Table(say("data.caption", yaml=data.text("yaml") or NONE), head, rows)
    outputs = [_output_row(task, splits, say) for task in tasks if task != CLASSIFICATION]
    if outputs:
        yield Table(say("data.outputs"), (say("data.output"), say("data.kind"), *head[1:]), outputs, numeric=False)
    points = []
    for key, labels, counts in (("images", classes, images.get("train")), ("boxes", names, boxes.get("train"))):
        found = extremes(labels, counts) if counts and len(labels) == len(counts) else None
        if counts and found:
            often, rare = map(say.listed, found)
            points.append(say(f"data.balance_{key}", often=often, most=count(max(counts)), rare=rare, least=count(min(counts))))
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
    for file, record in ((OPTIONS_FILE, run.options), (HYPERPARAMETERS_FILE, run.hyperparameters)):
        if record is None:
            blocks.append(missing(run.folder, file, say))
            continue
        rows = [
            (name, without_secrets(record.text(name) or NONE))
            for name, value in record.values.items()
            if not isinstance(value, dict)
        ]
        blocks.append(Table(say("settings.caption", file=record.file), (), rows, numeric=False, wide=True))
    return Section("settings", say("settings.title"), blocks)
