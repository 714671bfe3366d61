"""The final figures of `best.pt`: both tasks, class by class, with intervals where they were computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradnorm_plugin.report.blocks import Block, Picture, Points, Section, Small, Table, Text
from gradnorm_plugin.report.describe import missing
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.records import Record, ReportError
from gradnorm_plugin.report.summary import extremes, run_epochs
from gradnorm_plugin.report.wording import NONE, Wording, count, figure, score

DETECTION = ("precision", "recall", "F1", "mAP50", "mAP50-95")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "macro_F1", "calibration_error")
PER_IMAGE_CLASS = ("precision", "recall", "F1")
MOST_PAIRS = 3
"""Equally frequent confusions that are still named."""
MOST_CLASSES = 12
"""A confusion matrix of more classes is shown as a picture, not as a table."""


def final_section(run: RunFiles, say: Wording) -> Section:
    """Figures, classes, confusion, and how they compare with naming one class always."""
    if run.metrics is None:
        blocks = [missing(run, say, "metrics"), *_of_epochs(run, say)]
    else:
        blocks = [*_detection(run.metrics, say), *_classification(run.metrics, say)]
    confusion = run.metrics.record("classification").list("confusion") if run.metrics is not None else None
    pictures = ["PR_curve", "confusion_matrix", "classification_confusion_matrix", "classification_reliability"]
    if confusion and len(confusion) <= MOST_CLASSES:
        pictures.remove("classification_confusion_matrix")  # the table says the same
    for name in pictures:
        picture = run.folder / f"{name}.png"
        if picture.is_file():
            blocks.append(Picture(picture, say(f"picture.{name}")))
    return Section("final", say("final.title"), blocks)


def _of_epochs(run: RunFiles, say: Wording) -> Iterator[Block]:
    """Without the final validation: the row of the epoch that `best.pt` was saved from, or the last one."""
    epochs = run_epochs(run)
    if epochs is None:
        yield missing(run, say, "epochs")
        return
    best = epochs.best()
    index = len(epochs) - 1 if best is None else best
    key = "final.last_epoch" if best is None else "final.best_epoch"
    names = (*DETECTION, *CLASSIFICATION[:3])
    rows = [[say(f"score.{name}"), score(epochs.numbers(name)[index])] for name in names]
    yield Table(say(key, epoch=epochs.name(index), file=epochs.rows.file), (say("final.figure"), say("final.value")), rows)


def _detection(metrics: Record, say: Wording) -> Iterator[Block]:
    part = metrics.record("detection")
    if not part.values:
        return
    if not trained(part):
        yield Points([say("final.untrained_detection")])
        return
    yield _overall(metrics, part, DETECTION, say("final.detection", images=count(metrics.number("images"))), say)
    classes = part.records("classes")
    if classes:
        head = [say("final.class"), say("final.instances"), *(say(f"score.{name}") for name in DETECTION)]
        rows = [
            [of.text("name") or NONE, count(of.number("instances")), *(score(of.number(name)) for name in DETECTION)]
            for of in classes
        ]
        yield Table(say("final.detection_classes"), head, rows)
    known = [of for of in classes if of.number("mAP50-95") is not None]
    scores = [of.number("mAP50-95") for of in known]
    found = extremes([of.text("name") or NONE for of in known], scores) if known else None
    if found:
        best, worst = map(say.listed, found)
        yield Points([say("final.extremes", best=best, high=score(max(scores)), worst=worst, low=score(min(scores)))])


def _classification(metrics: Record, say: Wording) -> Iterator[Block]:
    part = metrics.record("classification")
    if not part.values:
        return
    if not trained(part):
        yield Points([say("final.untrained_classification")])
        return
    caption = say("final.classification", images=count(part.number("images")))
    yield _overall(metrics, part, (*CLASSIFICATION, "loss"), caption, say)
    classes = part.records("classes")
    points = _baselines(part, classes, say)
    names = [of.text("name") or NONE for of in classes]
    confusion = part.list("confusion") or []
    if confusion:
        _check_confusion(metrics, confusion, len(names))
        points += _confused(confusion, names, say)
    if points:
        yield Points(points)
        yield Small(say("final.rule"))
    if classes:
        head = [say("final.class"), say("final.support"), *(say(f"score.{name}") for name in PER_IMAGE_CLASS)]
        rows = [
            [name, count(of.number("support")), *(score(of.number(figure_)) for figure_ in PER_IMAGE_CLASS)]
            for name, of in zip(names, classes, strict=True)
        ]
        yield Table(say("final.classification_classes"), head, rows)
    if 0 < len(confusion) <= MOST_CLASSES:
        head = [say("final.confusion_head"), *names]
        predicted = list(
            zip(*confusion, strict=True)
        )  # turned as YOLOv5 turns its matrices, and the picture of this one: true across
        rows = [[name, *(count(value) for value in row)] for name, row in zip(names, predicted, strict=True)]
        images = [max(sum(row), 1) for row in confusion]
        shades = [[value / of for value, of in zip(row, images, strict=True)] for row in predicted]
        yield Table(say("final.confusion"), head, rows, shades=shades)


def trained(part: Record) -> bool:
    """Whether a task's weight was ever above 0; files from before this was noted do not say, and count as trained."""
    return part.values.get("trained") is not False


def _overall(metrics: Record, part: Record, names: Sequence[str], caption: Text, say: Wording) -> Table:
    intervals = part.record("intervals")
    head = [say("final.figure"), say("final.value")]
    rows = [[say(f"score.{name}"), (figure if name == "loss" else score)(part.number(name))] for name in names]
    if intervals.values:
        head.append(interval_name(metrics, say))
        for row, name in zip(rows, names, strict=True):
            bounds = read_interval(part, name)
            row.append(NONE if bounds is None else say.plain("number.range", low=score(bounds[0]), high=score(bounds[1])))
    return Table(caption, head, rows)


def interval_name(metrics: Record, say: Wording) -> Text:
    """What the intervals are called, with their level if the file gives it."""
    level = metrics.record("bootstrap").number("level")
    return say("final.interval") if level is None else say("final.interval_level", level=f"{100 * level:g}")


def read_interval(part: Record, name: str) -> tuple[float, float] | None:
    """The interval of a figure, if there is one. One without width says nothing: of a few images every draw is alike."""
    bounds = part.record("intervals").pair(name)
    return None if bounds is None or bounds[0] == bounds[1] else bounds


def _baselines(part: Record, classes: list[Record], say: Wording) -> list[Text]:
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
        points.append(
            say(f"final.{word}", figure=say.plain(f"score.{key}"), value=score(value), name=name, baseline=score(baseline))
        )
    return points


def _check_confusion(metrics: Record, confusion: list, size: int) -> None:
    square = len(confusion) == size and all(isinstance(row, list) and len(row) == size for row in confusion)
    if not square or not all(isinstance(value, (int, float)) for row in confusion for value in row):
        raise ReportError(f"{metrics.file}: `classification.confusion` is not {size} rows of {size} counts, one a class")


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
