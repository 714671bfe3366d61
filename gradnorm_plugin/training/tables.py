"""The tables that grow with a run: `gradnorm.csv`, `joint_results.csv`, and `batches.csv` with its lines on the screen."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from gradnorm_plugin.balancing import TaskGradients, pairs
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.outputs import CLASS, Outputs
from gradnorm_plugin.report.run_files import ReportError, read_table
from gradnorm_plugin.run_folder import (
    BATCHES_FILE,
    EPOCHS_FILE,
    UPDATES_FILE,
    batch_figures,
    epoch_columns,
    update_columns,
    weight_columns,
)
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.seams import Fitness, Hook
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")

_WIDTH = 9
"""Letters of an output's name in the head of a column."""


class RunTable:
    """A CSV that grows with the run, is never half-written, and is cut back to the checkpoint when the run resumes.

    Its rows have an `epoch` column. They are kept in memory and the file is written whole.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, Any]] = []

    def resume(self, epoch: int) -> None:
        """Take over the rows that an earlier start of this run wrote before `epoch`.

        Raises:
            ReportError: if the file is not one that a run writes, or has columns that this one does not know.
        """
        found = read_table(self.path)
        if found is None:
            return
        unknown = [name for name in found.columns if name not in self.columns]
        if unknown:
            raise ReportError(f"{self.path} has the columns {', '.join(unknown)}, which this run does not write: remove the file")
        rows = zip(*(found.texts(name) for name in found.columns), strict=True)
        self.rows = [
            dict(zip(found.columns, row, strict=True)) for row, of in zip(rows, found.numbers("epoch"), strict=True) if of < epoch
        ]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numbers keep 6 significant digits. It reaches the disk with the next `write`."""
        self.rows.append({name: f"{v:.6g}" if isinstance(v := row[name], float) else v for name in self.columns})

    def write(self) -> None:
        """Bring the file up to date.

        Raises:
            WriteError: if it cannot be written; the old one is untouched.
        """
        with whole_file(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


class _Table(Hook):
    """A table in the run's folder, brought up to date before the checkpoint of each epoch is written."""

    def __init__(self, run: JointRun, file: str, columns: tuple[str, ...]) -> None:
        self.run, self.file, self.columns = run, file, columns
        self._table: RunTable | None = None

    def table(self, epoch: int) -> RunTable:
        """The rows; a resumed run keeps those from before the `epoch` that asks first."""
        if self._table is None:
            self._table = RunTable(Path(self.run.loggers.save_dir) / self.file, self.columns)
            self._table.resume(epoch)
        return self._table

    def on_fit_epoch_end(self, values: list[float], epoch: int, best_fitness: Fitness, fitness: Fitness) -> None:
        """Write the file."""
        self.table(epoch).write()


class UpdateTable(_Table):
    """`gradnorm.csv`: a row for every measured batch."""

    def __init__(self, run: JointRun) -> None:
        super().__init__(run, UPDATES_FILE, update_columns(run.tasks))
        self.step = 0
        run.on_measured = self.append

    def on_train_batch_end(self, model: nn.Module, step: int, *_: object) -> None:
        """Remember which batch it was: it is settled next."""
        self.step = step

    def append(self, found: TaskGradients) -> None:
        """Write down what the batch showed; its weights are those that it was trained with."""
        criterion, epoch = self.run.criterion, self.step // self.run.batches_per_epoch
        parts, clip = criterion.losses, self.run.clip
        first, second = pairs(len(found.cosines))
        each = found.cosines[first, second].tolist()
        numbers = (
            self.step, epoch, parts.total.item(),
            *(loss.item() for loss in (parts.detection, *parts.outputs)), *criterion.applied_weights,
            *(norm.item() for norm in found.norms), *criterion.training_rates(),
            found.cosine.item(), *(each if len(each) > 1 else ()),
            _number(clip.detection_norm), _number(clip.head_norm),
        )  # fmt: skip
        self.table(epoch).append(dict(zip(self.columns, numbers, strict=True)))


class EpochTable(_Table):
    """`joint_results.csv`: a row for every epoch, and the same figures to whatever logger upstream has active."""

    def __init__(self, run: JointRun) -> None:
        super().__init__(run, EPOCHS_FILE, epoch_columns(run.tasks))
        self.row: dict[str, float] = {}
        """The last one."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Start the means of the image outputs' losses anew."""
        self.sums, self.counts = [0.0] * len(self.run.outputs), [0] * len(self.run.outputs)

    def on_train_batch_end(self, model: nn.Module, step: int, *_: object) -> None:
        """Add the batch's losses of the image outputs, an image's mean, to the epoch's."""
        found = self.run.criterion.losses
        for index, (loss, labelled) in enumerate(zip(found.outputs, found.labelled, strict=True)):
            if labelled:
                self.sums[index] += loss.item() / found.images
                self.counts[index] += 1

    def on_fit_epoch_end(self, values: list[float], epoch: int, best_fitness: Fitness, fitness: Fitness) -> None:
        """Write the row. `values`: 3 training losses, P, R, mAP50, mAP50-95, 3 validation losses, learning rates."""
        train, (precision, recall, map50, map5095), val = values[:3], values[3:7], values[7:10]
        outputs, tasks, nan = self.run.outputs, self.run.tasks, float("nan")
        figures = [self.run.figures.get(output.name, {}) for output in outputs]
        numbers = (
            precision, recall, 2 * precision * recall / (precision + recall + 1e-16), map50, map5095,
            *(found.get(figure, nan) for output, found in zip(outputs, figures, strict=True) for figure in output.figures),
            *train, *(total / count if count else nan for total, count in zip(self.sums, self.counts, strict=True)),
            *val, *(found.get("loss", nan) for found in figures),
            *self.run.criterion.balancer.weights.tolist(), np.asarray(fitness).item(),
        )  # fmt: skip
        self.row = {"epoch": epoch, **{name: float(n) for name, n in zip(self.columns[1:], numbers, strict=True)}}
        self.table(epoch).append(self.row)
        super().on_fit_epoch_end(values, epoch, best_fitness, fitness)
        losses = [f"{split}_{task.name}_loss" for split in ("train", "val") for task in tasks]
        shown = (*(figure for task in tasks for figure in task.figures), *losses, *weight_columns(tasks))
        send_scalars(self.run.loggers, {f"joint/{name}": self.row[name] for name in shown}, epoch)


class BatchLines(_Table):
    """Every `--log-interval` batches a line of losses and weights, in the columns of the report this project started from.

    `batches.csv` has the same lines with 6 digits; the batch counts from 1 in each epoch.
    """

    def __init__(self, run: JointRun) -> None:
        super().__init__(run, BATCHES_FILE, ("epoch", "batch", *batch_figures(run.tasks)))
        self.in_epoch = 0

    def on_train_epoch_start(self) -> None:
        """Count the batches of this epoch from 0."""
        self.in_epoch = 0

    def on_train_batch_end(self, model: nn.Module, step: int, *_: object) -> None:
        """Show the batch's losses, the weights it was trained with, and the lowest cosine last measured."""
        epoch = step // self.run.batches_per_epoch
        table = self.table(epoch)
        self.in_epoch += 1
        if self.in_epoch % self.run.options.log_interval:
            return
        criterion = self.run.criterion
        found = criterion.losses
        values = (
            found.total.item(),
            found.detection.item(),
            *(loss.item() for loss in found.outputs),
            *criterion.applied_weights,
        )
        cosine = float("nan") if criterion.gradients is None else float(criterion.gradients.cosine)
        table.append(dict(zip(self.columns, (epoch, self.in_epoch, *values, cosine), strict=True)))
        batch = f"{self.in_epoch}/{self.run.batches_per_epoch}"
        shown = "-" if criterion.gradients is None else f"{cosine:.3f}"
        with tqdm.external_write_mode():
            if self.in_epoch == self.run.options.log_interval:
                _general.LOGGER.info("".join(f"{name:>11s}" for name in screen_columns(self.run.outputs)))
            _general.LOGGER.info(f"{batch:>11s}" + "".join(f"{value:>11.4g}" for value in values) + f"{shown:>11s}")


def screen_columns(outputs: Outputs) -> tuple[str, ...]:
    """The heads of the columns on the screen."""
    losses = ["Classif" if output.name == CLASS else output.name[:_WIDTH] for output in outputs]
    weights = ["w_cls" if output.name == CLASS else f"w_{output.name[: _WIDTH - 2]}" for output in outputs]
    return ("Batch", "Total", "Detection", *losses, "w_det", *weights, "Cosine")


def send_scalars(loggers: Any, scalars: Mapping[str, float], epoch: int) -> None:
    """Send named figures of one epoch to TensorBoard, W&B, ClearML and Comet, as far as upstream's `loggers` hold them."""
    if loggers.tb:
        for name, value in scalars.items():
            loggers.tb.add_scalar(name, value, epoch)
    elif loggers.clearml:  # as upstream does: ClearML collects TensorBoard's scalars by itself
        for name, value in scalars.items():
            title, series = name.split("/")
            loggers.clearml.task.get_logger().report_scalar(title, series, value, epoch)
    if loggers.wandb:
        loggers.wandb.log(dict(scalars))
    if loggers.comet_logger:
        loggers.comet_logger.log_metrics(dict(scalars), epoch=epoch)


def _number(value: Tensor | None) -> float:
    return float("nan") if value is None else value.item()
