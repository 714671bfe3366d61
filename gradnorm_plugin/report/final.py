"""The final figures of `best.pt`: both tasks, class by class, with intervals where they were computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
    Wording,
    count,
    extremes,
    measured,
    missing,
    pictures,
    score,
)
from gradnorm_plugin.report.run_files import Record, ReportError, Rows, RunFiles, best_epoch, task_part
from gradnorm_plugin.run_folder import (
    CLASSIFICATION,
    CONFUSION_PICTURE,
    DETECTION_FIGURES,
    EPOCHS_FILE,
    EXPLAINED_PICTURES,
    METRICS_FILE,
    RELIABILITY_PICTURE,
    ImageTask,
    ImageTasks,
    output_picture,
)

NOT_SHOWN = ("images", "macro_precision", "support", "predicted")
"""Numbers of an image output that are no figures, or say little beside the others."""
MOST_PAIRS = 3
"""If more confusions than this are equally frequent, none is named."""
MOST_CLASSES = 12
"""A confusion matrix of more classes is shown as a picture, not as a table."""


def final_section(run: RunFiles, say: Wording) -> Section:
    """Figures, classes, confusion, and how they compare with always naming one class."""
    blocks: list[Block]
    if run.metrics:
        blocks = [*_detection(run.metrics, say), *(block for task in run.tasks for block in _output(run.metrics, task, say))]
    else:
        last = _of_epochs(run.epochs, run.tasks, say) if run.epochs else missing(run.folder, EPOCHS_FILE, say)
        blocks = [missing(run.folder, METRICS_FILE, say), last]
    blocks += pictures(run.folder, ["PR_curve.png", "confusion_matrix.png"], say)
    return Section("final", say("final.title"), [*blocks, *(found for task in run.tasks for found in _pictures(run, task, say))])


def _pictures(run: RunFiles, task: ImageTask, say: Wording) -> Iterator[Picture]:
    """Those that `val` has drawn of an image output, whatever its kind."""
    files = {output_picture(task.name, RELIABILITY_PICTURE): "final.*_reliability"}
    if not 0 < len(task_part(run.metrics, task.name).sequence("confusion")) <= MOST_CLASSES:  # else the table says the same
        files = {output_picture(task.name, CONFUSION_PICTURE): "final.*_confusion", **files}
    if task != CLASSIFICATION:
        files[f"{task.name}.png"] = "final.*_picture"
    files |= {output_picture(task.name, name): f"final.*_explained_{which}" for which, name in EXPLAINED_PICTURES.items()}
    for name, key in files.items():
        if (run.folder / name).is_file():
            yield Picture(run.folder / name, say.of_task(key, task.name))


def shown_epoch(epochs: Rows) -> tuple[int, str]:
    """The index of the epoch that stands for the run without a final validation, and which it is: `best` or `last`."""
    best = best_epoch(epochs.numbers("fitness"))
    return (len(epochs) - 1, "last") if best is None else (best, "best")


def _of_epochs(epochs: Rows, tasks: ImageTasks, say: Wording) -> Table:
    index, which = shown_epoch(epochs)
    caption = say(f"final.{which}_epoch", epoch=epochs.texts("epoch")[index], file=epochs.file)
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
    if known and (found := extremes([name for name, _ in known], scores)):
        best, worst = map(say.listed, found)
        yield Points([say("final.extremes", best=best, high=score(max(scores)), worst=worst, low=score(min(scores)))])


def _output(metrics: Record, task: ImageTask, say: Wording) -> Iterator[Block]:
    part = task_part(metrics, task.name)
    if not part.values:
        return
    if not trained(part):
        yield Points([say.of_task("final.untrained_*", task.name)])
        return
    unit = part.text("unit")
    values = {"images": count(part.number("images")), "unit": unit}
    caption = say.of_task("final.*_in_unit" if unit else "final.*", task.name, **values)
    yield _overall(metrics, part, dict.fromkeys([*map(task.figure, task.figures), *_numbers([part])]), caption, say)
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
    values = {name: value for record in records for name, value in record.values.items() if name not in NOT_SHOWN}
    return [name for name, value in values.items() if value is None or type(value) in (int, float)]


def trained(part: Record) -> bool:
    """Whether the task's weight was ever above 0. Older files do not say, and count as trained."""
    return part.values.get("trained") is not False


def _overall(metrics: Record, part: Record, names: Iterable[str], caption: Text, say: Wording) -> Table:
    head = [say("final.figure"), say("final.value")]
    rows: list[list[Cell]] = [[say.score(name), measured(name, part.number(name))] for name in names]
    if part.record("intervals").values:
        head.append(interval_name(metrics, say))
        for row, name in zip(rows, names, strict=True):
            low, high = (measured(name, end) for end in read_interval(part, name) or (None, None))
            row.append(NONE if low == NONE else say.plain("number.range", low=low, high=high))
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
    found = part.sequence("confusion")
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
