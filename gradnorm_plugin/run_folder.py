"""A run's folder: the names of its files, their columns and figures. Training and `val` write them, `report` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

OPTIONS_FILE = "opt.yaml"
HYPERPARAMETERS_FILE = "hyp.yaml"
FACTS_FILE = "run.json"
METRICS_FILE = "joint_metrics.json"
EPOCHS_FILE = "joint_results.csv"
PLAIN_EPOCHS_FILE = "results.csv"
"""YOLOv5's own table, which knows detection alone."""
UPDATES_FILE = "gradnorm.csv"
BATCHES_FILE = "batches.csv"
FILES = (
    OPTIONS_FILE, HYPERPARAMETERS_FILE, FACTS_FILE, METRICS_FILE, EPOCHS_FILE, PLAIN_EPOCHS_FILE, UPDATES_FILE, BATCHES_FILE,
)  # fmt: skip
EPOCHS_PICTURE, UPDATES_PICTURE = "joint_results.png", "gradnorm.png"
CONFUSION_PICTURE, RELIABILITY_PICTURE = "classification_confusion_matrix.png", "classification_reliability.png"
EXPLAINED_PICTURES = {which: f"classification_explained_{which}.jpg" for which in ("best", "worst", "wrong")}
"""Validation images with the evidence for the answers."""


def output_picture(task: str, picture: str) -> str:
    """The name of an image output's picture: that of the classification, with the output's own name in it."""
    return picture.replace("classification", task, 1)


DETECTION = "detection"
"""The first task; the others are the image outputs."""
DETECTION_FIGURES = ("precision", "recall", "F1", "mAP50", "mAP50-95")
CLASSIFICATION_FIGURES = ("accuracy", "balanced_accuracy", "macro_F1")
"""Of every epoch and with intervals; `joint_metrics.json` has more."""


@dataclass(frozen=True)
class ImageTask:
    """An image output as the tables of a run have it."""

    name: str
    """In the columns of losses, weights and norms."""
    kind: str = "classes"
    figures: tuple[str, ...] = CLASSIFICATION_FIGURES
    """Columns of its figures."""
    headline: str = "balanced_accuracy"
    """The column that represents the others; 1 is perfect."""

    @property
    def facts(self) -> dict[str, Any]:
        """What `run.json` and `compare.yaml` hold of it, for `image_tasks` to read."""
        return {"task": self.name, "kind": self.kind, "columns": list(self.figures), "headline": self.headline}

    def figure(self, column: str) -> str:
        """The name that the figure of a column has in `joint_metrics.json`."""
        return column.removeprefix(f"{self.name}_")


CLASSIFICATION = ImageTask("classification")
"""The one image output of a data set with `classification_names` alone."""
ImageTasks = tuple[ImageTask, ...]


def task_names(tasks: ImageTasks) -> tuple[str, ...]:
    """Detection and the image outputs."""
    return (DETECTION, *(task.name for task in tasks))


def weight_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """The weights of all tasks."""
    return tuple(f"{name}_weight" for name in task_names(tasks))


def loss_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """An epoch's losses, detection in its three parts."""
    parts = ("box", "obj", "cls", *(task.name for task in tasks))
    return tuple(f"{split}_{part}_loss" for split in ("train", "val") for part in parts)


def cosine_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """The lowest cosine of any two tasks' gradients; then, where there are more than two, that of each two."""
    each = [f"cosine_{first}_{second}" for first, second in combinations(task_names(tasks), 2)]
    return ("cosine", *(each if len(each) > 1 else ()))


def epoch_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """`joint_results.csv`."""
    figures = [figure for task in tasks for figure in task.figures]
    return ("epoch", *DETECTION_FIGURES, *figures, *loss_columns(tasks), *weight_columns(tasks), "fitness")


def update_columns(tasks: ImageTasks) -> tuple[str, ...]:
    """`gradnorm.csv`."""
    names = task_names(tasks)
    return (
        "step", "epoch", "loss", *(f"{name}_loss" for name in names), *weight_columns(tasks), *(f"{name}_norm" for name in names),
        *(f"{name}_rate" for name in names), *cosine_columns(tasks), "detection_norm_before_clip", "head_norm_before_clip",
    )  # fmt: skip


def batch_figures(tasks: ImageTasks) -> tuple[str, ...]:
    """`batches.csv` after the epoch and the batch."""
    return ("total", *task_names(tasks), *weight_columns(tasks), "cosine")


def image_tasks(facts: Mapping[str, Any]) -> ImageTasks:
    """The image outputs of a run, by what its `run.json` holds; that of the class alone where it says nothing else."""
    described = facts.get("image_outputs")
    if not isinstance(described, list) or not all(isinstance(task, dict) for task in described) or not described:
        return (CLASSIFICATION,)
    try:
        return tuple(
            ImageTask(str(t["task"]), str(t["kind"]), tuple(map(str, t["columns"])), str(t["headline"])) for t in described
        )
    except (KeyError, TypeError):
        return (CLASSIFICATION,)
