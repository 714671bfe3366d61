"""The lines of losses and weights on the screen, kept in `batches.csv`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from gradnorm_plugin.outputs import CLASS, Outputs
from gradnorm_plugin.run_folder import BATCHES_FILE, RunTable, batch_figures
from gradnorm_plugin.training.hook import Hook
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")

_WIDTH = 9
"""Letters of an output's name in the head of a column."""


def screen_columns(outputs: Outputs) -> tuple[str, ...]:
    """The heads of the columns."""
    losses = ["Classif" if output.name == CLASS else output.name[:_WIDTH] for output in outputs]
    weights = ["w_cls" if output.name == CLASS else f"w_{output.name[: _WIDTH - 2]}" for output in outputs]
    return ("Batch", "Total", "Detection", *losses, "w_det", *weights, "Cosine")


class BatchLines(Hook):
    """Every `--log-interval` batches a line of losses and weights, in the columns of the report this project started from.

    `batches.csv` has the same lines with 6 digits; the batch counts from 1 in each epoch.
    """

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.table: RunTable | None = None
        self.in_epoch = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Of `batches.csv`."""
        return ("epoch", "batch", *batch_figures(self.run.tasks))

    def on_train_epoch_start(self) -> None:
        """Count the batches of this epoch from 0."""
        self.in_epoch = 0

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Show the batch's losses, the weights it was trained with, and the lowest cosine last measured."""
        epoch = step // self.run.batches_per_epoch
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / BATCHES_FILE, self.columns)
            self.table.resume(epoch)
        self.in_epoch += 1
        if self.in_epoch % self.run.options.log_interval:
            return
        criterion = self.run.criterion
        found = criterion.losses
        losses = (found.total, found.detection, *found.outputs)
        values = (*(loss.item() for loss in losses), *criterion.applied_weights)
        cosine = float("nan") if criterion.gradients is None else float(criterion.gradients.cosine)
        self.table.append(dict(zip(self.columns, (epoch, self.in_epoch, *values, cosine), strict=True)))
        self._show(values, "-" if criterion.gradients is None else f"{cosine:.3f}")

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Bring the file up to date before the epoch's checkpoint is written."""
        if self.table is not None:
            self.table.write()

    def _show(self, values: tuple[float, ...], cosine: str) -> None:
        batch = f"{self.in_epoch}/{self.run.batches_per_epoch}"
        with tqdm.external_write_mode():
            if self.in_epoch == self.run.options.log_interval:
                _general.LOGGER.info("".join(f"{name:>11s}" for name in screen_columns(self.run.outputs)))
            _general.LOGGER.info(f"{batch:>11s}" + "".join(f"{value:>11.4g}" for value in values) + f"{cosine:>11s}")
