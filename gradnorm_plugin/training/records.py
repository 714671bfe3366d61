"""`gradnorm.csv` and `joint_results.csv`: what the run's folder keeps of every measurement and every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from gradnorm_plugin.balancing import TaskGradients
from gradnorm_plugin.run_folder import (
    CLASSIFICATION_FIGURES,
    EPOCH_COLUMNS,
    EPOCHS_FILE,
    UPDATE_COLUMNS,
    UPDATES_FILE,
    WEIGHTS,
    RunTable,
)
from gradnorm_plugin.training.hook import Hook
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.scalars import send_scalars


class UpdateTable(Hook):
    """`gradnorm.csv`: a row for every measured batch."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.table: RunTable | None = None
        self.step = 0
        run.on_measured = self.append

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Remember which batch it was: it is settled next."""
        self.step = step
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / UPDATES_FILE, UPDATE_COLUMNS)
            self.table.resume(step // self.run.batches_per_epoch)

    def append(self, found: TaskGradients) -> None:
        """Write down what the batch showed; its weights are those that it was trained with."""
        criterion, clip = self.run.criterion, self.run.clip
        parts, weights, rates = criterion.losses, criterion.applied_weights, criterion.training_rates()
        self.table.append(
            {
                "step": self.step,
                "epoch": self.step // self.run.batches_per_epoch,
                "loss": parts.total.item(),
                "detection_loss": parts.detection.item(),
                "classification_loss": parts.classification.item(),
                "detection_weight": weights[0],
                "classification_weight": weights[1],
                "detection_norm": found.norms[0].item(),
                "classification_norm": found.norms[1].item(),
                "detection_rate": rates[0],
                "classification_rate": rates[1],
                "cosine": found.cosine.item(),
                "detection_norm_before_clip": _number(clip.detection_norm),
                "head_norm_before_clip": _number(clip.head_norm),
            }
        )

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Bring the file up to date before the epoch's checkpoint is written."""
        if self.table is not None:
            self.table.write()


class EpochTable(Hook):
    """`joint_results.csv`: a row for every epoch, and the same figures to whatever logger upstream has active."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.table: RunTable | None = None
        self.sum, self.batches = 0.0, 0

    def on_train_epoch_start(self) -> None:
        """Start the mean of the classification loss anew."""
        self.sum, self.batches = 0.0, 0

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Add the batch's classification loss, an image's mean, to the epoch's."""
        if self.run.criterion.losses.labelled:
            self.sum += self.run.criterion.losses.classification.item() / self.run.criterion.losses.images
            self.batches += 1

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Write the row. `values`: 3 training losses, P, R, mAP50, mAP50-95, 3 validation losses, learning rates."""
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / EPOCHS_FILE, EPOCH_COLUMNS)
            self.table.resume(epoch)
        train, (precision, recall, map50, map5095), val = values[:3], values[3:7], values[7:10]
        metrics, weights = self.run.metrics, self.run.criterion.balancer.weights.tolist()
        nan = float("nan")
        numbers = (
            precision, recall, 2 * precision * recall / (precision + recall + 1e-16), map50, map5095,
            *((metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1) if metrics else (nan, nan, nan)),
            *train, self.sum / self.batches if self.batches else nan,
            *val, metrics.loss if metrics else nan,
            *weights, fitness.item() if hasattr(fitness, "item") else fitness,
        )  # fmt: skip
        row = {"epoch": epoch, **{name: float(n) for name, n in zip(EPOCH_COLUMNS[1:], numbers, strict=True)}}
        self.table.append(row)
        self.table.write()
        shown = (*CLASSIFICATION_FIGURES, "train_classification_loss", "val_classification_loss", *WEIGHTS)
        send_scalars(self.run.loggers, {f"joint/{name}": row[name] for name in shown}, epoch)


def _number(value: Tensor | None) -> float:
    return float("nan") if value is None else value.item()
