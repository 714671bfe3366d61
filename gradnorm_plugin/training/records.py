"""`gradnorm.csv` and `joint_results.csv`: what the run's folder keeps of every measurement and every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from gradnorm_plugin.balancing import TaskGradients, pairs
from gradnorm_plugin.run_folder import (
    EPOCHS_FILE,
    UPDATES_FILE,
    RunTable,
    epoch_columns,
    update_columns,
    weight_columns,
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
            self.table = RunTable(Path(self.run.loggers.save_dir) / UPDATES_FILE, update_columns(self.run.tasks))
            self.table.resume(step // self.run.batches_per_epoch)

    def append(self, found: TaskGradients) -> None:
        """Write down what the batch showed; its weights are those that it was trained with."""
        criterion = self.run.criterion
        parts, clip = criterion.losses, self.run.clip
        first, second = pairs(len(found.cosines))
        each = found.cosines[first, second].tolist()
        numbers = (
            self.step, self.step // self.run.batches_per_epoch, parts.total.item(),
            *(loss.item() for loss in (parts.detection, *parts.outputs)), *criterion.applied_weights,
            *(norm.item() for norm in found.norms), *criterion.training_rates(),
            found.cosine.item(), *(each if len(each) > 1 else ()),
            _number(clip.detection_norm), _number(clip.head_norm),
        )  # fmt: skip
        self.table.append(dict(zip(update_columns(self.run.tasks), numbers, strict=True)))

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Bring the file up to date before the epoch's checkpoint is written."""
        if self.table is not None:
            self.table.write()


class EpochTable(Hook):
    """`joint_results.csv`: a row for every epoch, and the same figures to whatever logger upstream has active."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.table: RunTable | None = None
        self.sums, self.counts = [0.0] * len(run.outputs), [0] * len(run.outputs)

    def on_train_epoch_start(self) -> None:
        """Start the means of the image outputs' losses anew."""
        self.sums, self.counts = [0.0] * len(self.run.outputs), [0] * len(self.run.outputs)

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Add the batch's losses of the image outputs, an image's mean, to the epoch's."""
        found = self.run.criterion.losses
        for index, (loss, labelled) in enumerate(zip(found.outputs, found.labelled, strict=True)):
            if labelled:
                self.sums[index] += loss.item() / found.images
                self.counts[index] += 1

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Write the row. `values`: 3 training losses, P, R, mAP50, mAP50-95, 3 validation losses, learning rates."""
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / EPOCHS_FILE, epoch_columns(self.run.tasks))
            self.table.resume(epoch)
        train, (precision, recall, map50, map5095), val = values[:3], values[3:7], values[7:10]
        weights, outputs, tasks = self.run.criterion.balancer.weights.tolist(), self.run.outputs, self.run.tasks
        nothing = dict.fromkeys(("loss", *(figure for output in outputs for figure in output.figures)), float("nan"))
        figures = [self.run.figures.get(output.name, nothing) for output in outputs]
        numbers = (
            precision, recall, 2 * precision * recall / (precision + recall + 1e-16), map50, map5095,
            *(found[figure] for output, found in zip(outputs, figures, strict=True) for figure in output.figures),
            *train, *(total / count if count else float("nan") for total, count in zip(self.sums, self.counts, strict=True)),
            *val, *(found["loss"] for found in figures),
            *weights, fitness.item() if hasattr(fitness, "item") else fitness,
        )  # fmt: skip
        columns = epoch_columns(tasks)
        row = {"epoch": epoch, **{name: float(n) for name, n in zip(columns[1:], numbers, strict=True)}}
        self.table.append(row)
        self.table.write()
        losses = [f"{split}_{task.name}_loss" for split in ("train", "val") for task in tasks]
        shown = (*(figure for task in tasks for figure in task.figures), *losses, *weight_columns(tasks))
        send_scalars(self.run.loggers, {f"joint/{name}": row[name] for name in shown}, epoch)


def _number(value: Tensor | None) -> float:
    return float("nan") if value is None else value.item()
