"""All figures of a pass in one mapping (what `joint_metrics.json` holds), and their table on the screen."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradnorm_plugin.evaluation.intervals import Bootstrap, Measure, Resampler
from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.evaluation.temperature import apply_temperature
from gradnorm_plugin.files import write_text
from gradnorm_plugin.outputs import CLASS, ImageOutput
from gradnorm_plugin.run_folder import DETECTION_FIGURES, METRICS_FILE
from gradnorm_plugin.upstream.gateway import upstream


def version_facts() -> dict[str, str | None]:
    """Versions of the software; the commit of YOLOv5 is None where its folder is no git repository."""
    try:
        ours = version("yolov5-gradnorm")
    except PackageNotFoundError:  # run from its folder
        ours = None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "yolov5_gradnorm": ours,
        "yolov5_commit": upstream("utils.general").check_git_info()["commit"],
    }


def pass_settings(*, data: Any, imgsz: int, batch_size: int, **options: Any) -> dict[str, Any]:
    """What figures depend on besides weights and images, of the arguments of upstream's `val.run` and with its defaults."""
    defaults = {"conf_thres": 0.001, "iou_thres": 0.6, "max_det": 300, "half": False, "precision": "float32", "augment": False}
    settings = {name: options.get(name, default) for name, default in defaults.items()}
    return {"data": str(data), "imgsz": imgsz, "batch_size": batch_size, **settings, "versions": version_facts()}


def summarise(
    recording: Recording,
    names: Mapping[int, str],
    weights: str | list[str],
    task: str,
    settings: Mapping[str, Any],
    bootstrap: Bootstrap | None = None,
    untrained: Collection[str] = (),
) -> dict[str, Any]:
    """The figures of a pass as `joint_metrics.json` has them; None stands for a missing figure.

    Args:
        recording: what the pass recorded.
        names: classes of the boxes.
        weights: the model's file, or the files of an ensemble.
        task: the split.
        settings: as `pass_settings` gives them.
        bootstrap: how to draw the images again for the intervals; None leaves them out.
        untrained: tasks ("detection", "classification", or an image output) that the weights were never trained for; they have no
            figures.
    """
    detection, *of_outputs = _intervals(recording, bootstrap) if bootstrap else [{}] * (1 + len(recording.outputs))
    parts = {
        output.name: _trained(_output(recording, output, intervals), output.task not in untrained)
        for output, intervals in zip(recording.outputs, of_outputs, strict=True)
    }
    return _plain(
        {
            "weights": weights[0] if isinstance(weights, list) and len(weights) == 1 else weights,
            "task": task,
            "images": recording.images,
            **settings,
            "detection": _trained(_detection(recording, names, detection), "detection" not in untrained),
            **({"classification": parts.pop(CLASS)} if CLASS in parts else {}),
            **({"outputs": parts} if parts else {}),
            "bootstrap": {name: getattr(bootstrap, name) for name in ("resamples", "level", "seed")} if bootstrap else None,
        }
    )


def summarise_output(output: ImageOutput, answers: np.ndarray, targets: np.ndarray, weights: str, images: int) -> dict[str, Any]:
    """What `joint_metrics.json` holds of a network that has this image output alone, of a `val` of so many images."""
    details = output.details(answers, targets)
    part = {"trained": True, **details, "intervals": {}}
    place = {"classification": part} if output.name == CLASS else {"outputs": {output.name: part}}
    return _plain({"weights": weights, "task": "val", "images": images, **place, "bootstrap": None})


def write_summary(figures: Mapping[str, Any], folder: Path) -> None:
    """Write `joint_metrics.json` into `folder`, whole or not at all."""
    write_json(figures, folder / METRICS_FILE)


def write_json(contents: Any, file: Path) -> None:
    """Write plain JSON, whole or not at all; `contents` must hold no NaN."""
    write_text(file, json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parts(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each image output of `joint_metrics.json`: the task's name, and its part."""
    if "classification" in figures:
        yield "classification", figures["classification"]
    yield from figures.get("outputs", {}).items()


def table(figures: Mapping[str, Any], by_class: bool) -> Iterator[str]:
    """Lines in the columns of upstream's table: each image output over all images, and `by_class` where that is asked for."""
    for name, found in parts(figures):
        if not found["images"]:
            what = "class" if name == "classification" else "label"
            yield f"{name:>22}{0:>11}   no image of this split has a {what}"
        elif not found["trained"]:
            yield f"{name:>22}{found['images']:>11}   not trained: its weight was 0 when these weights were trained"
        elif "confusion" in found:
            yield from _classes_table(name, found, by_class)
        else:
            yield from _other_table(name, found, by_class)


def _classes_table(name: str, found: Mapping[str, Any], by_class: bool) -> Iterator[str]:
    title = "Image class" if name == "classification" else name
    yield ("%22s" + "%11s" * 6) % (title, "Images", "Predicted", "P", "R", "F1", "Accuracy")
    macro = [found[figure] for figure in ("macro_precision", "balanced_accuracy", "macro_F1", "accuracy")]
    yield _row("all", found["images"], found["images"], *macro)
    if by_class:
        for row, predicted in zip(found["classes"], np.sum(found["confusion"], 0), strict=True):
            yield _row(row["name"], row["support"], predicted, row["precision"], row["recall"], row["F1"])


def _other_table(name: str, found: Mapping[str, Any], by_class: bool) -> Iterator[str]:
    """The figures that the kind has, then those of each label."""
    columns = [figure for figure in found if figure not in ("trained", "images", "classes", "intervals", "unit")]
    values = [found[figure] for figure in columns]
    yield f"{name:>22}{'Images':>11}" + "".join(f"{figure.replace('_', ' '):>15}" for figure in columns)
    yield f"{'all':>22}{found['images']:>11}" + "".join(f"{_digits(value):>15}" for value in values)
    if by_class and found["classes"]:
        yield ("%22s" + "%11s" * 6) % ("", "Images", "Predicted", "P", "R", "F1", "AP")
        for row in found["classes"]:
            yield _row(row["name"], row["support"], row["predicted"], row["precision"], row["recall"], row["F1"], row["AP"])


def notes(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lines to follow the table: where P and R are read, loss and calibration, what was left out, the intervals of all tasks."""
    boxes = figures["detection"]
    for name, found in parts(figures):
        what, of = ("class", "") if name == "classification" else (f"`{name}`", f"{name}: ")
        left_out = figures["images"] - found["images"]
        without = f"; {left_out} image{'s' * (left_out > 1)} without a {what} left out" if left_out else ""
        if found["images"] and found["trained"] and "confusion" in found:
            note = f"{of}Balanced accuracy (mean R) {_digits(found['balanced_accuracy'])}, log loss {_digits(found['loss'])}"
            after = ""
            if found.get("temperature"):
                after = f", calibrated {_digits(found['calibrated_error'])} (temperature {_digits(found['temperature'])})"
            yield f"{note}, calibration error {_digits(found['calibration_error'])}{after}{without}"
        elif found["images"] and found["trained"] and without:
            yield f"{of}{without.removeprefix('; ')}"
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
    for task, part in (("detection", figures["detection"]), *parts(figures)):
        for name, interval in part["intervals"].items():
            low, high = interval or (None, None)
            title = f"{'' if task in ('detection', 'classification') else f'{task} '}{name.replace('_', ' ')}"
            yield f"{title:>22}" + "".join(f"{_digits(v):>11}" for v in (part[name], low, high))
    yield f"Intervals from {settings['resamples']} draws of {figures['images']} images with replacement, seed {settings['seed']}"


def _row(name: str, images: int, predicted: int, *values: float | None) -> str:
    return f"{name:>22}{images:>11}{predicted:>11}" + "".join(f"{_digits(value):>11}" for value in values)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _intervals(recording: Recording, bootstrap: Bootstrap) -> list[dict[str, list[float] | None]]:
    """Of detection and each image output, from the same draws; empty for detection where it hit nothing."""

    def measure(output: ImageOutput) -> Measure:
        known = output.known(recording.targets(output))
        answers, targets = recording.labelled(output)
        return lambda times: output.measure(answers, targets, times[:, known])

    measures = [measure(output) for output in recording.outputs]
    predictions = recording.predictions()
    if predictions is None:
        return [{}, *bootstrap.intervals(recording.images, *measures)]
    return bootstrap.intervals(recording.images, Resampler(predictions), *measures)


def _detection(recording: Recording, names: Mapping[int, str], intervals: Mapping[str, Any]) -> dict[str, Any]:
    found, boxes = recording.detection(), np.bincount(recording.box_classes(), minlength=len(names))
    columns = (found.precision, found.recall, found.f1, found.ap[:, 0], found.ap.mean(1))
    of_class = dict(zip(found.classes.tolist(), zip(*columns, strict=True), strict=True))
    classes = []
    for index, name in names.items():
        figures = of_class.get(index, [0.0 if boxes[index] else None] * len(columns))
        classes.append({"name": name, "instances": boxes[index], **dict(zip(DETECTION_FIGURES, figures, strict=True))})
    headlines = found.headlines() if boxes.any() else dict.fromkeys(found.headlines())
    confidence = Resampler(predictions).best_confidence(recording.images) if (predictions := recording.predictions()) else None
    return {**headlines, "confidence": confidence, "intervals": intervals, "classes": classes}


def _trained(part: dict[str, Any], trained: bool) -> dict[str, Any]:
    """A task's figures, or only its counts if it was never trained: figures of chance would look real."""
    if trained:
        return {"trained": True, **part}
    counts = ("images", "name", "instances", "support", "unit")
    classes = [{key: value if key in counts else None for key, value in of.items()} for of in part["classes"]]
    rest = {"intervals": {}, "classes": classes, **({"confusion": []} if "confusion" in part else {})}
    return {"trained": False, **{key: value if key in counts else None for key, value in part.items()}, **rest}


def _output(recording: Recording, output: ImageOutput, intervals: Mapping[str, Any]) -> dict[str, Any]:
    answers, targets = recording.labelled(output)
    details = output.details(answers, targets)
    tables = ("classes", "confusion")
    figures = {key: value for key, value in details.items() if key not in tables}
    if output.name in recording.temperatures:
        temperature = recording.temperatures[output.name]
        after = output.details(apply_temperature(answers, temperature), targets)
        figures |= {"temperature": temperature, "calibrated_error": after["calibration_error"], "calibrated_loss": after["loss"]}
    return {**figures, "intervals": intervals, **{key: details[key] for key in tables if key in details}}


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
