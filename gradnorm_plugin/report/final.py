"""The final figures of `best.pt`: both tasks, class by class, with intervals where they were computed.

And the top of the report: the headline figures, and what cannot be concluded from the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradnorm_plugin.report.blocks import (
    NONE,
    Block,
    Cell,
    Picture,
    Points,
    Section,
    Small,
    Table,
    Text,
    Tile,
    Wording,
    count,
    extremes,
    figure,
    measured,
    missing,
    pictures,
    score,
)
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    CONFUSION_PICTURE,
    DETECTION,
    DETECTION_FIGURES,
    EPOCHS_FILE,
    EXPLAINED_PICTURES,
    METRICS_FILE,
    RELIABILITY_PICTURE,
    Epochs,
    ImageTask,
    ImageTasks,
    Record,
    ReportError,
    RunFiles,
    finite,
    output_part,
    output_picture,
    task_names,
    weight_columns,
)

NOT_SHOWN = ("images", "macro_precision", "support", "predicted")
"""Numbers of an image output that are no figures, or say little beside the others."""
MOST_PAIRS = 3
"""If more confusions than this are equally frequent, none is named."""
MOST_CLASSES = 12
"""A confusion matrix of more classes is shown as a picture, not as a table."""


def final_section(run: RunFiles, say: Wording) -> Section:
    """Figures, classes, confusion, and how they compare with always naming one class."""
    epochs = run.any_epochs()
    blocks: list[Block]
    if run.metrics is None:
        last = missing(run.folder, EPOCHS_FILE, say) if epochs is None else _of_epochs(epochs, run.tasks, say)
        blocks = [missing(run.folder, METRICS_FILE, say), last]
    else:
        blocks = [*_detection(run.metrics, say), *(block for task in run.tasks for block in _output(run.metrics, task, say))]
    blocks += pictures(run.folder, ["PR_curve.png", "confusion_matrix.png"], say)
    return Section("final", say("final.title"), [*blocks, *(found for task in run.tasks for found in _pictures(run, task, say))])


def _pictures(run: RunFiles, task: ImageTask, say: Wording) -> Iterator[Picture]:
    """Those that `val` has drawn of an image output, whatever its kind."""
    counts = output_part(run.metrics, task.name).sequence("confusion") if run.metrics is not None else None
    keys = {CONFUSION_PICTURE: "confusion", RELIABILITY_PICTURE: "reliability"}
    files = {output_picture(task.name, name): f"final.*_{key}" for name, key in keys.items()}
    if 0 < len(counts or ()) <= MOST_CLASSES:
        del files[output_picture(task.name, CONFUSION_PICTURE)]  # the table says the same
    if task != CLASSIFICATION:
        files[f"{task.name}.png"] = "final.*_picture"
    files |= {output_picture(task.name, name): f"final.*_explained_{which}" for which, name in EXPLAINED_PICTURES.items()}
    for name, key in files.items():
        if (run.folder / name).is_file():
            yield Picture(run.folder / name, say.of_task(key, task.name))


def _of_epochs(epochs: Epochs, tasks: ImageTasks, say: Wording) -> Table:
    """Without the final validation: the row of the epoch that `best.pt` was saved from, or the last one."""
    best = epochs.best()
    index = len(epochs) - 1 if best is None else best
    caption = say("final.last_epoch" if best is None else "final.best_epoch", epoch=epochs.name(index), file=epochs.rows.file)
    rows = [(say.score(name), score(epochs.numbers(name)[index])) for name in DETECTION_FIGURES]
    columns = [(task, name) for task in tasks for name in task.figures]
    rows += [(say.score(name, task), measured(task.figure(name), epochs.numbers(name)[index])) for task, name in columns]
    return Table(caption, (say("final.figure"), say("final.value")), rows)


def _detection(metrics: Record, say: Wording) -> Iterator[Block]:
    part = metrics.record("detection")
    if not part.values:
        return
    if not trained(part):
        yield Points([say("final.untrained_detection")])
        return
    yield _overall(metrics, part, DETECTION_FIGURES, say("final.detection", images=count(metrics.number("images"))), say)
    classes = part.records("classes")
    if classes:
        yield _class_table(say("final.detection_classes"), "instances", classes, DETECTION_FIGURES, say)
    known = [(of.text("name") or NONE, value) for of in classes if (value := of.number("mAP50-95")) is not None]
    scores = [value for _, value in known]
    found = extremes([name for name, _ in known], scores) if known else None
    if found:
        best, worst = map(say.listed, found)
        yield Points([say("final.extremes", best=best, high=score(max(scores)), worst=worst, low=score(min(scores)))])


def _output(metrics: Record, task: ImageTask, say: Wording) -> Iterator[Block]:
    part = output_part(metrics, task.name)
    if not part.values:
        return
    if not trained(part):
        yield Points([say.of_task("final.untrained_*", task.name)])
        return
    unit = part.text("unit")
    values = {"images": count(part.number("images")), "unit": unit}
    caption = say.of_task("final.*_in_unit" if unit else "final.*", task.name, **values)
    yield _overall(metrics, part, [*dict.fromkeys([*map(task.figure, task.figures), *_numbers([part])])], caption, say)
    classes = part.records("classes")
    points = _baselines(part, classes, task, say)
    names = [of.text("name") or NONE for of in classes]
    confusion = _read_confusion(metrics, part, len(names))
    if confusion:
        points += _confused(confusion, names, say)
    if points:
        yield Points(points)
        yield Small(say("final.rule"))
    if classes:
        yield _class_table(say.of_task("final.*_classes", task.name), "support", classes, _numbers(classes), say)
    if 0 < len(confusion) <= MOST_CLASSES:
        # Transposed like YOLOv5's matrices and the picture of this one: the true class across
        predicted = list(zip(*confusion, strict=True))
        rows: list[list[Cell]] = [[name, *map(count, row)] for name, row in zip(names, predicted, strict=True)]
        images = [max(sum(row), 1) for row in confusion]
        shades = [[value / of for value, of in zip(row, images, strict=True)] for row in predicted]
        yield Table(say("final.confusion"), [say("final.confusion_head"), *names], rows, shades=shades)


def _numbers(records: Sequence[Record]) -> list[str]:
    """The names of the figures in these mappings: what is a number, or null in the place of one."""
    found = dict.fromkeys(name for record in records for name, value in record.values.items() if _is_number(value))
    return [name for name in found if name not in NOT_SHOWN]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def trained(part: Record) -> bool:
    """Whether the task's weight was ever above 0. Older files do not say, and count as trained."""
    return part.values.get("trained") is not False


def _overall(metrics: Record, part: Record, names: Sequence[str], caption: Text, say: Wording) -> Table:
    head = [say("final.figure"), say("final.value")]
    rows: list[list[Cell]] = [[say.score(name), measured(name, part.number(name))] for name in names]
    if part.record("intervals").values:
        head.append(interval_name(metrics, say))
        for row, name in zip(rows, names, strict=True):
            bounds = read_interval(part, name)
            row.append(
                NONE
                if bounds is None
                else say.plain("number.range", low=measured(name, bounds[0]), high=measured(name, bounds[1]))
            )
    return Table(caption, head, rows)


def _class_table(caption: Text, examples: str, classes: list[Record], figures: Sequence[str], say: Wording) -> Table:
    head: list[Cell] = [say("final.class"), say(f"final.{examples}"), *(say.score(name) for name in figures)]
    rows = [
        [of.text("name") or NONE, count(of.number(examples)), *(measured(name, of.number(name)) for name in figures)]
        for of in classes
    ]
    return Table(caption, head, rows)


def interval_name(metrics: Record, say: Wording) -> Text:
    """The name of the intervals, with their level if the file has it."""
    level = metrics.record("bootstrap").number("level")
    return say("final.interval") if level is None else say("final.interval_level", level=f"{100 * level:g}")


def read_interval(part: Record, name: str) -> tuple[float, float] | None:
    """The interval of a figure, if there is one. One without width says nothing: with few images all draws can be alike."""
    bounds = part.record("intervals").pair(name)
    return None if bounds is None or bounds[0] == bounds[1] else bounds


def _baselines(part: Record, classes: list[Record], task: ImageTask, say: Wording) -> list[Text]:
    """Accuracy and balanced accuracy beside those of a model that always names the most frequent class."""
    supports = [of.number("support") or 0 for of in classes]
    if not sum(supports):
        return []
    name = classes[supports.index(max(supports))].text("name") or NONE
    points = []
    for key, baseline in (("accuracy", max(supports) / sum(supports)), ("balanced_accuracy", 1 / sum(map(bool, supports)))):
        value, bounds = part.number(key), read_interval(part, key)
        if value is None:
            continue
        low, high = bounds or (value, value)
        word = "above" if low > baseline else "below" if high < baseline else "open"
        points.append(say(f"final.{word}", figure=say.score(key, task), value=score(value), name=name, baseline=score(baseline)))
    return points


def _read_confusion(metrics: Record, part: Record, size: int) -> list[list[float]]:
    """(true, predicted) counts; empty if there are none.

    Raises:
        ReportError: if they are not `size` rows of `size` numbers.
    """
    found = part.sequence("confusion") or []
    square = len(found) in {0, size} and all(isinstance(row, list) and len(row) == size for row in found)
    if not square or not all(isinstance(value, (int, float)) for row in found for value in row):
        raise ReportError(f"{metrics.file}: `{part.place}confusion` is not {size} rows of {size} counts, one a class")
    return found


def _confused(confusion: list[list[float]], names: list[str], say: Wording) -> list[Text]:
    total = sum(map(sum, confusion))
    wrong = [(value, row, column) for row, of in enumerate(confusion) for column, value in enumerate(of) if row != column]
    errors = sum(value for value, _, _ in wrong)
    if not total:
        return []
    if not errors:
        return [say("final.all_right", total=count(total))]
    most = max(value for value, _, _ in wrong)
    pairs = [say.plain("final.pair", true=names[row], predicted=names[column]) for value, row, column in wrong if value == most]
    if len(pairs) > MOST_PAIRS:
        return [say("final.errors", errors=count(errors), total=count(total))]
    return [say("final.errors_most", errors=count(errors), total=count(total), times=count(most), pairs=say.listed(pairs))]


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
