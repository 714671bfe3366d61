"""What a hook on upstream's training can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor


class Hook:
    """A no-op at each callback that ours use; arguments as upstream passes them."""

    def on_pretrain_routine_end(self, labels: Any, names: Any) -> None:
        """Network and loaders are made; `labels` are all boxes of the training images, `names` their classes' names."""

    def on_train_start(self) -> None:
        """The loss is made too: the first epoch comes next."""

    def on_train_epoch_start(self) -> None:
        """An epoch begins."""

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """A batch was trained; `step` counts batches since the start of training."""

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """An epoch was trained and validated, and is about to be saved; `values` are upstream's columns of results.csv."""

    def on_train_end(self, last: Path, best: Path, epoch: int, results: Any) -> None:
        """Training is over."""
