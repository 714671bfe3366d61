"""The lines of losses and weights on the screen."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from tqdm import tqdm

from gradnorm_plugin.training.hook import Hook
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")

SCREEN_COLUMNS = ("Batch", "Total", "Detection", "Classif", "w_det", "w_cls", "Cosine")


class BatchLines(Hook):
    """Every `--log-interval` batches a line of losses and weights, in the columns of the report this project started from."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.in_epoch = 0

    def on_train_epoch_start(self) -> None:
        """Count the batches of this epoch from 0."""
        self.in_epoch = 0

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Show the batch's losses, the weights it was trained with, and the cosine last measured."""
        self.in_epoch += 1
        criterion = self.run.criterion
        if self.in_epoch % self.run.options.log_interval:
            return
        found, (detection, classification) = criterion.losses, criterion.applied_weights
        cosine = "-" if criterion.gradients is None else f"{float(criterion.gradients.cosine):.3f}"
        values = (found.total.item(), found.detection.item(), found.classification.item(), detection, classification)
        batch = f"{self.in_epoch}/{self.run.batches_per_epoch}"
        with tqdm.external_write_mode():
            if self.in_epoch == self.run.options.log_interval:
                _general.LOGGER.info("".join(f"{name:>11s}" for name in SCREEN_COLUMNS))
            _general.LOGGER.info(f"{batch:>11s}" + "".join(f"{value:>11.4g}" for value in values) + f"{cosine:>11s}")
