"""The parts plugged into upstream's training loop: hook interface, gradient clipping, loader, atomic files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradnorm_plugin.data.dataset import JointLoader
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.upstream.gateway import swapped, upstream

Fitness = float | np.ndarray
"""A number, or an array of shape (1,)."""
_QUICK = 0.2
"""Momentum of the running statistics; at 0.1 they still lag behind in the first epoch."""
_clip: Callable[..., Tensor] = torch.nn.utils.clip_grad_norm_


class Hook:
    """No-ops for the callbacks we use, with upstream's arguments."""

    def on_pretrain_routine_end(self, labels: np.ndarray, names: Mapping[int, str] | list[str], /) -> None:
        """Network and loaders exist; `labels` are all training boxes, `names` the names of their classes."""

    def on_train_start(self) -> None:
        """The loss exists too; the first epoch comes next."""

    def on_train_epoch_start(self) -> None:
        """An epoch begins."""

    def on_train_batch_end(
        self, model: nn.Module, step: int, images: Tensor, boxes: Tensor, paths: Sequence[str], losses: list[Tensor], /
    ) -> None:
        """A batch is done; `step` counts batches since the start of training."""

    def on_fit_epoch_end(self, values: list[float], epoch: int, best_fitness: Fitness, fitness: Fitness, /) -> None:
        """An epoch is trained and validated, but not yet saved; `values` are upstream's columns of results.csv."""

    def on_train_end(self, last: Path, best: Path, epoch: int, results: object, /) -> None:
        """Training is over."""


class SeparateClip:
    """Upstream's gradient clipping, applied separately to the detection network and to the classification-specific parameters.

    Replaces `torch.nn.utils.clip_grad_norm_`. Upstream clips the norm of all gradients together at 10, so a head whose gradient
    is a hundred times the detector's would shrink the detector's step along with its own. A head without gradient (classification
    off) leaves the detector's clipping bit-identical to that without a head.

    `detection_norm` and `head_norm` are the norms before the last clipping, 0-dim tensors; None before the first. The head's part
    includes its separate backbone, if any.
    """

    def __init__(self, head: Iterable[nn.Parameter]) -> None:
        self._head = {id(parameter) for parameter in head}
        self.detection_norm: Tensor | None = None
        self.head_norm: Tensor | None = None

    def __call__(self, parameters: Iterable[Tensor] | Tensor, max_norm: float, *args: object, **kwargs: object) -> Tensor:
        """Clip each part at `max_norm` and return the detection part's norm before clipping."""
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        head = [parameter for parameter in parameters if id(parameter) in self._head]
        detection = [parameter for parameter in parameters if id(parameter) not in self._head]
        self.detection_norm = _clip(detection, max_norm, *args, **kwargs)
        if head:
            self.head_norm = _clip(head, max_norm, *args, **kwargs)
        return self.detection_norm


class QuickStatistics:
    """Lets batch-norm running statistics keep up with weights that change fast in a short warm-up.

    YOLOv5's statistics cover about the last 33 batches (momentum 0.03), which suits its three-epoch warm-up. In a one-epoch
    warm-up the weights change too much in 33 batches: validated with stale statistics, a network that trains well finds nothing,
    and may produce boxes without a size, whose loss is NaN. Training never reads the statistics, so the weights are unaffected,
    and so are the results of later epochs, by whose end those of the first are forgotten.

    Args:
        model: its statistics cover about five batches until `epochs` epochs are over.
        epochs: at least 1.
    """

    def __init__(self, model: nn.Module, epochs: int) -> None:
        batch_norms = (module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)))
        self._usual = {module: module.momentum for module in batch_norms if module.momentum and module.momentum < _QUICK}
        self._epochs = epochs
        for module in self._usual:
            module.momentum = _QUICK

    def end_epoch(self) -> None:
        """Count an epoch; restore the usual momentum after the last."""
        self._epochs -= 1
        if self._epochs == 0:
            for module, momentum in self._usual.items():
                module.momentum = momentum


class WatchedLoader(JointLoader):
    """Upstream's loader, which tells the run when a batch starts and ends.

    Callbacks run on the first process only, but every process asks its loader for the next batch. So work that all ranks share
    after a batch, including the last of an epoch, is done here.

    Args:
        loader: upstream's; its batches are (images, targets, paths, shapes).
        begin: called with a batch's image files before it is yielded.
        end: called after the batch is trained.
        end_epoch: called after the last batch.
    """

    def __init__(
        self,
        loader: Any,
        begin: Callable[[Sequence[str]], None],
        end: Callable[[], None],
        end_epoch: Callable[[], None],
    ) -> None:
        super().__init__(loader)
        self.begin, self.end, self.end_epoch = begin, end, end_epoch

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            self.begin(batch[2])
            yield batch
            self.end()
        self.end_epoch()


@contextmanager
def whole_files() -> Iterator[None]:
    """Make checkpoints and yamls atomic during training, by replacing `torch.save` and upstream's `yaml_save`."""
    train = upstream("train")
    save, yaml_save = torch.save, train.yaml_save

    def save_whole(contents: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            return save(contents, f, *args, **kwargs)
        with whole_file(Path(f)) as partial, partial.open("wb") as file:  # of a path, torch writes the name into the file
            save(contents, file, *args, **kwargs)

    def yaml_save_whole(file: Any, data: Any) -> None:
        with whole_file(Path(file)) as partial:
            yaml_save(partial, data)

    with swapped(torch, save=save_whole), swapped(train, yaml_save=yaml_save_whole):
        yield


class OutputsInAList(nn.Module):
    """The joint model with its training outputs in one flat list, for upstream's estimate of the batch size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor]:
        """Detection layers and logits of an image batch."""
        detection, logits = self.model(x)
        return [*detection, logits]
