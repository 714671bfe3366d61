"""All figures of a pass in one mapping (what `joint_metrics.json` holds), and their table on the screen."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradnorm_plugin.evaluation.intervals import Bootstrap, Resampler
from gradnorm_plugin.evaluation.metrics import class_scores, count_pairs
from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.files import write_text
from gradnorm_plugin.run_folder import CLASSIFICATION_FIGURES, DETECTION_FIGURES, METRICS_FILE
from gradnorm_plugin.versions import version_facts


def pass_settings(
    *,
    data: Any,
    imgsz: int,
    batch_size: int,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    half: bool = False,
    augment: bool = False,
    **_: Any,
) -> dict[str, Any]:
    """What figures depend on besides weights and images, of the arguments of upstream's `val.run` and with its defaults."""
    return {
        "data": str(data),
        "imgsz": imgsz,
        "batch_size": batch_size,
        "conf_thres": conf_thres,
        "iou_thres": iou_thres,
        "max_det": max_det,
        "half": half,
        "augment": augment,
        "versions": dict(version_facts()),
    }


def summarise(
    recording: Recording,
    names: Mapping[int, str],
    weights: str | list[str],
    task: str,
    settings: Mapping[str, Any],
    bootstrap: Bootstrap | None = None,
    untrained: Collection[str] = (),
) -> dict[str, Any]:
    """The figures of a pass as `joint_metrics.json` has them; None stands for a figure that there is not.

    Args:
        recording: what passed by.
        names: classes of the boxes.
        weights: the model's file, or the files of an ensemble.
        task: the split.
        settings: as `pass_settings` gives them.
        bootstrap: how to draw the images again for the intervals; None leaves them out.
        untrained: tasks ("detection", "classification") that the weights were never trained for; they have no figures.
    """
    detection, classification = _intervals(recording, bootstrap) if bootstrap else ({}, {})
    draws = {"resamples": bootstrap.resamples, "level": bootstrap.level, "seed": bootstrap.seed} if bootstrap else None
    return _plain(
        {
            "weights": weights[0] if isinstance(weights, list) and len(weights) == 1 else weights,
            "task": task,
            "images": recording.images,
            **settings,
            "detection": _trained(_detection(recording, names, detection), "detection" not in untrained),
            "classification": _trained(_classification(recording, classification), "classification" not in untrained),
            "bootstrap": draws,
        }
    )


def write_summary(figures: Mapping[str, Any], folder: Path) -> None:
    """Write `joint_metrics.json` into `folder`, whole or not at all."""
    write_json(figures, folder / METRICS_FILE)


def write_json(contents: Any, file: Path) -> None:
    """Write plain JSON, whole or not at all; `contents` must hold no NaN."""
    write_text(file, json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def table(figures: Mapping[str, Any], by_class: bool) -> Iterator[str]:
    """Lines in the columns of upstream's table: the classification over all images, and `by_class` where that is asked for."""
    found = figures["classification"]
    if not found["images"]:
        yield f"{'classification':>22}{0:>11}   no image of this split has a class"
        return
    if not found["trained"]:
        yield f"{'classification':>22}{found['images']:>11}   not trained: its weight was 0 when these weights were trained"
        return
    yield ("%22s" + "%11s" * 6) % ("Image class", "Images", "Predicted", "P", "R", "F1", "Accuracy")
    macro = [found[name] for name in ("macro_precision", "balanced_accuracy", "macro_F1", "accuracy")]
    yield _row("all", found["images"], found["images"], *macro)
    if by_class:
        for row, predicted in zip(found["classes"], np.sum(found["confusion"], 0), strict=True):
            yield _row(row["name"], row["support"], predicted, row["precision"], row["recall"], row["F1"])


def notes(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lines to follow the table: where P and R are read, loss and calibration, what was left out, the intervals of both tasks."""
    found, boxes = figures["classification"], figures["detection"]
    note = f"Balanced accuracy (mean R) {_digits(found['balanced_accuracy'])}, log loss {_digits(found['loss'])}"
    note += f", calibration error {_digits(found['calibration_error'])}"
    left_out = figures["images"] - found["images"]
    note += f"; {left_out} image{'s' * (left_out > 1)} without a class left out" if left_out else ""
    if found["images"] and found["trained"]:
        yield note
    if not boxes["trained"]:
        yield "Detection was not trained: its weight was 0 when these weights were trained, so its figures mean nothing"
    elif boxes["confidence"] is not None:
        yield f"P and R of the boxes are read at confidence {_digits(boxes['confidence'])}, which gives the best mean F1"
    if figures["bootstrap"]:
        yield from _interval_table(figures)


def _interval_table(figures: Mapping[str, Any]) -> Iterator[str]:
    settings = figures["bootstrap"]
    percent = f"{settings['level']:.0%}"
    yield ("%22s" + "%11s" * 3) % ("Figure", "value", f"{percent} from", "to")
    for task in ("detection", "classification"):
        for name, interval in figures[task]["intervals"].items():
            low, high = interval or (None, None)
            yield f"{name.replace('_', ' '):>22}" + "".join(f"{_digits(v):>11}" for v in (figures[task][name], low, high))
    yield f"Intervals from {settings['resamples']} draws of {figures['images']} images with replacement, seed {settings['seed']}"


def _row(name: str, images: int, predicted: int, *values: float | None) -> str:
    return f"{name:>22}{images:>11}{predicted:>11}" + "".join(f"{_digits(value):>11}" for value in values)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _intervals(recording: Recording, bootstrap: Bootstrap) -> list[dict[str, list[float] | None]]:
    """Of both tasks, from the same draws; empty for detection where it hit nothing."""
    classes, predicted, num_classes = recording.classes, recording.probabilities.argmax(1), recording.probabilities.shape[1]
    labelled = classes >= 0
    classes, predicted = classes[labelled], predicted[labelled]

    def classification(times: np.ndarray) -> dict[str, np.ndarray]:
        found = [class_scores(count_pairs(classes, predicted, num_classes, of_draw)) for of_draw in times[:, labelled]]
        values = np.array([(scores.accuracy, scores.balanced_accuracy, scores.macro_f1) for scores in found])
        return dict(zip(CLASSIFICATION_FIGURES, values.T, strict=True))

    predictions = recording.predictions()
    if predictions is None:
        return [{}, *bootstrap.intervals(recording.images, classification)]
    return bootstrap.intervals(recording.images, Resampler(predictions), classification)


def _detection(recording: Recording, names: Mapping[int, str], intervals: Mapping[str, Any]) -> dict[str, Any]:
    found, boxes = recording.detection(), np.bincount(recording.box_classes(), minlength=len(names))
    classes = []
    for index, name in names.items():
        at = np.flatnonzero(found.classes == index)
        values = (found.precision, found.recall, found.f1, found.ap[:, 0], found.ap.mean(1)) if len(at) else ()
        figures = [value[at[0]] for value in values] or [None if not boxes[index] else 0.0] * 5
        columns = zip(DETECTION_FIGURES, figures, strict=True)
        classes.append({"name": name, "instances": boxes[index], **dict(columns)})
    headlines = found.headlines() if boxes.any() else dict.fromkeys(found.headlines())
    confidence = Resampler(predictions).best_confidence(recording.images) if (predictions := recording.predictions()) else None
    return {**headlines, "confidence": confidence, "intervals": intervals, "classes": classes}


def _trained(part: dict[str, Any], trained: bool) -> dict[str, Any]:
    """A task's figures, or its counts alone if it was never trained: what chance gives would pass for a figure."""
    if trained:
        return {"trained": True, **part}
    counts = ("images", "name", "instances", "support")
    classes = [{key: value if key in counts else None for key, value in of.items()} for of in part["classes"]]
    rest = {"intervals": {}, "classes": classes, **({"confusion": []} if "confusion" in part else {})}
    return {"trained": False, **{key: value if key in counts else None for key, value in part.items()}, **rest}


def _classification(recording: Recording, intervals: Mapping[str, Any]) -> dict[str, Any]:
    found = recording.classification()
    scores, support = found.scores, found.confusion.sum(1)
    columns = zip(recording.classification_names.values(), support, scores.precision, scores.recall, scores.f1, strict=True)
    return {
        "images": found.images,
        "accuracy": found.accuracy,
        "balanced_accuracy": found.balanced_accuracy,
        "macro_precision": scores.macro_precision,
        "macro_F1": found.macro_f1,
        "calibration_error": found.calibration.error,
        "loss": found.loss,
        "intervals": intervals,
        "classes": [dict(zip(("name", "support", "precision", "recall", "F1"), row, strict=True)) for row in columns],
        "confusion": found.confusion,
    }


def _plain(value: Any) -> Any:
    """The same in Python's own types, for JSON: arrays as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
