"""The folder of a small finished run, written by hand in the formats that training and `val` write."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

PICTURES = (
    "labels.jpg", "gradnorm.png", "joint_results.png", "PR_curve.png", "confusion_matrix.png", "classification_reliability.png",
    "train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg",
)  # fmt: skip


def options(**changes: Any) -> dict[str, Any]:
    found = {"weights": "", "data": "data/mine.yaml", "epochs": 3, "batch_size": 8, "imgsz": 320, "optimizer": "SGD", "seed": 7}
    return {**found, "balancer": "gradnorm", "gradnorm_preset": "report", "noplots": False, **changes}


def updates(count: int = 12, **columns: Sequence[float]) -> dict[str, Sequence[Any]]:
    """Columns of `gradnorm.csv`: the first measurement at 1 / 0.01, then weights that sum to 4; 4 of 12 cosines below 0."""
    later = range(1, count)
    found = {
        "step": [10 * (index + 1) for index in range(count)],
        "epoch": [index * 3 // count for index in range(count)],
        "loss": [6.0] * count,
        "detection_loss": [1.5 - 0.1 * index for index in range(count)],
        "classification_loss": [9.0] * count,
        "detection_weight": [1.0, *(3.96 + 0.002 * index for index in later)][:count],
        "classification_weight": [0.01, *(0.04 - 0.002 * index for index in later)][:count],
        "detection_norm": [0.5] * count,
        "classification_norm": [50.0] * count,
        "detection_rate": [1.0] * count,
        "classification_rate": [1.0] * count,
        "cosine": [-0.05 if index % 3 == 0 else 0.075 for index in range(count)],
        "detection_norm_before_clip": [12.0 if index < 3 else 8.0 for index in range(count)],
        "head_norm_before_clip": [0.25] * count,
    }
    return {**found, **columns}


def epochs(count: int = 3, **columns: Sequence[float]) -> dict[str, Sequence[Any]]:
    """Columns of `joint_results.csv`; the highest fitness is that of epoch 1."""
    scores = {"precision": 0.6, "recall": 0.5, "F1": 0.55, "mAP50": 0.512, "mAP50-95": 0.256, "accuracy": 0.811}
    falling = [2.0 / (index + 1) for index in range(count)]
    found = {"epoch": list(range(count)), **{name: [value] * count for name, value in scores.items()}}
    found |= {"balanced_accuracy": [0.711] * count, "macro_F1": [0.7] * count}
    for split in ("train", "val"):
        found |= {f"{split}_{part}_loss": falling for part in ("box", "obj", "cls", "classification")}
    found |= {"detection_weight": [3.97] * count, "classification_weight": [0.03] * count}
    found["fitness"] = [0.5 if index == 1 else 0.25 for index in range(count)]
    return {**found, **columns}


def split(images: int, boxes: list[int], image_classes: list[int], **without: int) -> dict[str, Any]:
    return {"images": images, "boxes": boxes, "image_classes": image_classes, **without}


def facts(**changes: Any) -> dict[str, Any]:
    """The content of `run.json`."""
    found = {
        "command": ["train_joint_gradnorm_fixed.py", "--name", "two words"],
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:06:05+00:00",
        "seconds": 3720.0,
        "versions": {"python": "3.12.1", "torch": "2.9.0", "yolov5_gradnorm": "0.1.0", "yolov5_commit": None},
        "device": "CPU, 2 threads",
        "model": {
            "cfg": "yolov5n.yaml", "weights": "", "layers": 214, "parameters": 1_900_000, "head_parameters": 100_000,
            "gflops": 4.25, "gflops_imgsz": 640, "shared_layer": 9,
        },
        "data": {
            "yaml": "data/mine.yaml", "names": ["AR", "PR"], "classification_names": ["PSAX", "PLAX", "A4C"],
            "train": split(1042, [1250, 84], [374, 555, 111], without_class=2, without_boxes=31),
            "val": split(183, [220, 14], [66, 98, 19], without_class=0, without_boxes=6),
        },
        "balancing": {
            "balancer": "gradnorm", "alpha": 1.5, "weight_sum": 4.0, "interval": 10, "warmup": 10, "lr": 0.1,
            "weight_ranges": [[1.0, 4.0], [0.018, 0.4]], "weight_scope": "loss",
        },
    }  # fmt: skip
    return {**found, **changes}


def metrics(**changes: Any) -> dict[str, Any]:
    """The content of `joint_metrics.json`: naming PLAX always would have accuracy 98 / 183 = 0.536."""
    detection = {
        "precision": 0.585, "recall": 0.903, "F1": 0.71, "mAP50": 0.927, "mAP50-95": 0.601,
        "intervals": {"mAP50": [0.899, 0.948], "mAP50-95": [0.574, 0.622], "recall": None},
        "classes": [
            {"name": "AR", "instances": 220, "precision": 0.6, "recall": 0.91, "F1": 0.72, "mAP50": 0.94, "mAP50-95": 0.62},
            {"name": "PR", "instances": 14, "precision": 0.4, "recall": 0.8, "F1": 0.53, "mAP50": 0.87, "mAP50-95": 0.49},
        ],
    }  # fmt: skip
    classification = {
        "images": 183, "accuracy": 0.978, "balanced_accuracy": 0.982, "macro_F1": 0.964, "calibration_error": 0.031,
        "loss": 0.105,
        "intervals": {"accuracy": [0.956, 0.995], "balanced_accuracy": [0.961, 0.996]},
        "classes": [
            {"name": "PSAX", "support": 66, "precision": 1.0, "recall": 0.985, "F1": 0.992},
            {"name": "PLAX", "support": 98, "precision": 0.99, "recall": 0.969, "F1": 0.979},
            {"name": "A4C", "support": 19, "precision": 0.86, "recall": 1.0, "F1": 0.927},
        ],
        "confusion": [[65, 1, 0], [0, 95, 3], [0, 0, 19]],
    }  # fmt: skip
    found = {"weights": "best.pt", "task": "val", "images": 183, "detection": detection, "classification": classification}
    return {**found, "bootstrap": {"resamples": 1000, "level": 0.95, "seed": 0}, **changes}


def several(count: int = 12) -> dict[str, Any]:
    """What the files of a run with three image outputs hold that differs: one of each kind, the last one new to the report."""
    names, tasks = ("view", "finding", "grade"), ("detection", "view", "finding", "grade")
    columns = {
        "view": ["accuracy", "balanced_accuracy", "macro_F1"], "finding": ["macro_F1", "mean_AP"], "grade": ["kappa_2"],
    }  # fmt: skip
    described = [
        {"name": name, "task": name, "kind": kind, "columns": [f"{name}_{c}" for c in columns[name]], "headline": headline}
        for name, kind, headline in zip(
            names, ("classes", "labels", "rank"), ("view_balanced_accuracy", "finding_macro_F1", "grade_kappa_2"), strict=True
        )
    ]
    rows = {key: value for key, value in epochs().items() if "accuracy" not in key and key != "macro_F1"}
    rows = {key: value for key, value in rows.items() if "classification" not in key}
    rows |= {column: [0.5 + 0.1 * n] * 3 for n, task in enumerate(described) for column in task["columns"]}
    rows |= {f"{split}_{name}_loss": [2.0, 1.0, 0.5] for split in ("train", "val") for name in names}
    rows |= {f"{name}_weight": [0.25] * 3 for name in names}
    measured = {key: value for key, value in updates(count).items() if "classification" not in key}
    per_task = {"loss": 9.0, "weight": 0.25, "norm": 5.0, "rate": 1.0}
    measured |= {f"{name}_{key}": [value] * count for key, value in per_task.items() for name in names}
    pairs = [f"cosine_{one}_{other}" for index, one in enumerate(tasks) for other in tasks[index + 1 :]]
    measured |= {pair: [of] * count for pair, of in zip(pairs, (-0.5, -0.3, -0.05, 0.05, 0.3, 0.5), strict=True)}
    lines = {key: value for key, value in batches().items() if "classification" not in key}
    lines |= {name: [13.5] * 8 for name in names} | {f"{name}_weight": [0.25] * 8 for name in names}
    data = facts()["data"]
    for split, images in (("train", 1042), ("val", 183)):
        data[split] = {key: value for key, value in data[split].items() if key not in ("image_classes", "without_class")}
        data[split]["image_outputs"] = {name: {"labelled": images - 7, "summary": f"{name} of all sorts"} for name in names}
    found = metrics()
    view = {**found.pop("classification"), "trained": True}
    finding = {
        "trained": True, "images": 171, "macro_F1": 0.627, "mean_AP": 0.598, "loss": 0.7055,
        "intervals": {"macro_F1": [0.451, 0.763]},
        "classes": [{"name": "effusion", "support": 12, "predicted": 19, "precision": 0.632, "AP": 0.643}],
    }  # fmt: skip
    grade = {"trained": True, "images": 18, "kappa_2": -12.375, "unit": "steps", "intervals": {"kappa_2": [-15.5, -1.25]}}
    found["outputs"] = {"view": view, "finding": finding, "grade": {**grade, "classes": []}}
    return {
        "run": facts(data=data, image_outputs=described), "joint_results": rows, "gradnorm": measured, "batches": lines,
        "joint_metrics": found,
    }  # fmt: skip


def batches(count: int = 4) -> dict[str, Sequence[Any]]:
    """Columns of `batches.csv`, two epochs of `count` lines."""
    numbers = list(range(2 * count))
    return {
        "epoch": [number // count for number in numbers],
        "batch": [10 * (number % count + 1) for number in numbers],
        "total": [1.5 + number for number in numbers],
        "detection": [1.25] * len(numbers),
        "classification": [13.5] * len(numbers),
        "detection_weight": [3.97] * len(numbers),
        "classification_weight": [0.03] * len(numbers),
        "cosine": ["nan", *[0.0625] * (len(numbers) - 1)],
    }


def write_csv(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_run(folder: Path, **contents: Any) -> Path:
    """Write the run; `contents` replace what a file holds by its stem (`gradnorm=...`), None leaves the file out."""
    files = {
        "opt.yaml": options(), "hyp.yaml": {"lr0": 0.0123, "mosaic": 1.0}, "run.json": facts(), "joint_metrics.json": metrics(),
        "joint_results.csv": epochs(), "gradnorm.csv": updates(), "batches.csv": batches(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, usual in files.items():
        found = contents.pop(Path(name).stem, usual)
        file = folder / name
        if found is None:
            continue
        if file.suffix == ".csv":
            write_csv(file, found)
        else:
            dump = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
            file.write_text(dump(found), encoding="utf-8")
    for name in contents.pop("pictures", PICTURES):
        Image.new("RGB", (64, 48), "white").save(folder / name)
    assert not contents, f"no such file: {contents}"
    return folder
