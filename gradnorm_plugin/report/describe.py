"""What was run: the command and its settings, the model, the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from gradnorm_plugin.report.blocks import Block, Missing, Picture, Points, Section, Table, Text
from gradnorm_plugin.report.files import FILES, RunFiles
from gradnorm_plugin.report.records import Record
from gradnorm_plugin.report.summary import extremes, run_epochs
from gradnorm_plugin.report.wording import NONE, Wording, count, figure

OPTIONS = (
    "weights", "data", "batch_size", "imgsz", "optimizer", "seed", "backbone", "balancer", "gradnorm_preset", "weight_scope",
    "class_weights", "fitness_share",
)  # fmt: skip
"""The options that are shown up front; all stand at the end."""


def missing(run: RunFiles, say: Wording, field: str) -> Missing:
    """The line for a file that is not there, or has no row yet."""
    file = FILES[field]
    return Missing(say("missing.rows" if (run.folder / file).is_file() else "missing.file", file=file))


def run_section(run: RunFiles, say: Wording) -> Section:
    """When, where and with which settings."""
    blocks: list[Block] = []
    facts = [*_run_facts(run, say)]
    if run.options is not None:
        for name in OPTIONS:
            if run.options.text(name) is not None:
                empty = say("option.scratch" if name == "weights" else "option.empty")
                facts.append((say("option.label", name=name), run.options.text(name) or empty))
    if run.facts is not None:
        balancing = run.facts.record("balancing")
        names = [name for name in balancing.values if balancing.text(name) and name not in OPTIONS]
        facts += [(say("run.balancing", name=name), balancing.text(name)) for name in names]
    blocks.append(Table(say("run.caption"), (), facts, numeric=False))
    blocks += [missing(run, say, field) for field in ("facts", "options") if getattr(run, field) is None]
    return Section("run", say("run.title"), blocks)


def _run_facts(run: RunFiles, say: Wording) -> Iterator[tuple[Text, str]]:
    yield say("run.folder"), run.folder.resolve().name
    if run.facts is not None:
        command = run.facts.list("command")
        if command:
            yield say("run.command"), shlex.join(str(word) for word in command)
        for name in ("started", "finished", "device"):
            found = run.facts.text(name)
            if found:
                yield say(f"run.{name}"), found if name == "device" else found.replace("T", " ")
        seconds = run.facts.number("seconds")
        if seconds is not None:
            # Written at the start and after every epoch: a run that was broken off in its first one has none.
            yield say("run.seconds"), say.duration(seconds) if seconds else NONE
        versions = run.facts.record("versions")
        if versions.values:
            known = [f"{name} {versions.text(name)}" for name in versions.values if versions.text(name)]
            yield say("run.versions"), say.listed(known)
    epochs, asked = run_epochs(run), run.options and run.options.number("epochs")
    if epochs is not None or asked:
        yield say("run.epochs"), say.plain("run.epochs_of", done=len(epochs) if epochs else 0, asked=count(asked))


def model_section(run: RunFiles, say: Wording) -> Section:
    """The network and its size."""
    model = run.facts.record("model") if run.facts is not None else None
    if model is None or not model.values:
        return Section("model", say("model.title"), [missing(run, say, "facts")])
    facts = [(say(f"model.{name}"), model.text(name)) for name in ("cfg", "weights") if model.text(name)]
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
    """How many images, boxes and image classes each split has."""
    blocks: list[Block] = []
    data = run.facts.record("data") if run.facts is not None else None
    if data is None or not data.values:
        blocks.append(missing(run, say, "facts"))
    else:
        blocks += _data_blocks(data, say)
    picture = run.folder / "labels.jpg"
    if picture.is_file():
        blocks.append(Picture(picture, say("picture.labels")))
    return Section("data", say("data.title"), blocks)


def _data_blocks(data: Record, say: Wording) -> Iterator[Block]:
    splits = {name: data.record(name) for name in ("train", "val", "test") if data.record(name).values}
    names = [str(name) for name in data.list("names") or []]
    classes = [str(name) for name in data.list("classification_names") or []]
    boxes = {split: of.numbers("boxes") or [] for split, of in splits.items()}
    images = {split: of.numbers("image_classes") or [] for split, of in splits.items()}

    def row(label: Text, values: list[float | None]) -> list:
        return [label, *(count(value) for value in values)]

    rows = [row(say("data.images"), [of.number("images") for of in splits.values()])]
    rows += _class_rows(say, "data.image_class", classes, images)
    rows.append(row(say("data.without_class"), [of.number("without_class") for of in splits.values()]))
    rows.append(row(say("data.boxes"), [sum(counts) if counts else None for counts in boxes.values()]))
    rows += _class_rows(say, "data.box_class", names, boxes)
    rows.append(row(say("data.without_boxes"), [of.number("without_boxes") for of in splits.values()]))
    head = (say("data.what"), *(say(f"data.{split}") for split in splits))
    yield Table(say("data.caption", yaml=data.text("yaml") or NONE), head, rows)
    points = []
    for key, labels, counts in (("images", classes, images.get("train")), ("boxes", names, boxes.get("train"))):
        found = extremes(labels, counts) if counts and len(labels) == len(counts) else None
        if found:
            often, rare = map(say.listed, found)
            points.append(say(f"data.balance_{key}", often=often, most=count(max(counts)), rare=rare, least=count(min(counts))))
    if points:
        yield Points(points)


def _class_rows(say: Wording, key: str, names: list[str], splits: dict[str, list[float]]) -> list[list]:
    rows = []
    for index, name in enumerate(names):
        counts = [of[index] if index < len(of) else None for of in splits.values()]
        rows.append([say(key, name=name), *(count(value) for value in counts)])
    return rows


def settings_section(run: RunFiles, say: Wording) -> Section:
    """Every option and hyperparameter, so that the run can be repeated."""
    blocks: list[Block] = []
    for field in ("options", "hyperparameters"):
        record = getattr(run, field)
        if record is None:
            blocks.append(missing(run, say, field))
            continue
        rows = [(name, record.text(name) or NONE) for name in record.values if not isinstance(record.values[name], dict)]
        blocks.append(Table(say("settings.caption", file=record.file), (), rows, numeric=False, wide=True))
    return Section("settings", say("settings.title"), blocks)
