"""What is plugged into upstream's training loop: the shape of a hook, the gradient clip, the loader, whole files."""

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
"""A number, or (1,) of it."""
_QUICK = 0.2
"""Momentum of running statistics; with 0.1 those of the first epoch still lag behind."""
_clip: Callable[..., Tensor] = torch.nn.utils.clip_grad_norm_


class Hook:
    """A no-op at each callback that ours use; arguments as upstream passes them."""

    def on_pretrain_routine_end(self, labels: np.ndarray, names: Mapping[int, str] | list[str], /) -> None:
        """Network and loaders are made; `labels` are all boxes of the training images, `names` their classes' names."""

    def on_train_start(self) -> None:
        """The loss is made too: the first epoch comes next."""

    def on_train_epoch_start(self) -> None:
        """An epoch begins."""

    def on_train_batch_end(
        self, model: nn.Module, step: int, images: Tensor, boxes: Tensor, paths: Sequence[str], losses: list[Tensor], /
    ) -> None:
        """A batch was trained; `step` counts batches since the start of training."""

    def on_fit_epoch_end(self, values: list[float], epoch: int, best_fitness: Fitness, fitness: Fitness, /) -> None:
        """An epoch was trained and validated, and is about to be saved; `values` are upstream's columns of results.csv."""

    def on_train_end(self, last: Path, best: Path, epoch: int, results: object, /) -> None:
        """Training is over."""


class SeparateClip:
    """Upstream's gradient clip, applied to the detection network and to what serves classification alone each by itself.

    It takes the place of `torch.nn.utils.clip_grad_norm_`. Upstream clips the norm of all gradients together at 10: a head whose
    gradient is a hundred times larger than the detector's would shrink the detector's step with its own. And a head without
    gradient (classification switched off) leaves the detector's clip what it is without a head, to the last bit.

    `detection_norm` and `head_norm` are the norms before the last clip, 0-dim tensors; None before the first. The head's part
    has its own backbone in it, where it has one.
    """

    def __init__(self, head: Iterable[nn.Parameter]) -> None:
        self._head = {id(parameter) for parameter in head}
        self.detection_norm: Tensor | None = None
        self.head_norm: Tensor | None = None

    def __call__(self, parameters: Iterable[Tensor] | Tensor, max_norm: float, *args: object, **kwargs: object) -> Tensor:
        """Clip each part at `max_norm` and return the detection part's norm before."""
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        head = [parameter for parameter in parameters if id(parameter) in self._head]
        detection = [parameter for parameter in parameters if id(parameter) not in self._head]
        self.detection_norm = _clip(detection, max_norm, *args, **kwargs)
        if head:
            self.head_norm = _clip(head, max_norm, *args, **kwargs)
        return self.detection_norm


class QuickStatistics:
    """Batch normalisation whose running statistics keep up with weights that a short warm-up moves fast.

    YOLOv5's are of the last 33 batches or so (momentum 0.03), and its warm-up of three epochs is slow enough for them. Where
    it takes one, the weights at its end are far from those of 33 batches ago: validated with the statistics of these, a network
    that trains well finds nothing, and may have boxes without a size, whose loss is NaN. Training itself never reads them: the
    weights stay what they are, and so do the figures of later epochs, by whose end the first one's statistics are forgotten.

    Args:
        model: its layers remember five batches or so, until `epochs` of them are over.
        epochs: at least 1.
    """

    def __init__(self, model: nn.Module, epochs: int) -> None:
        batch_norms = (module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)))
        self._usual = {module: module.momentum for module in batch_norms if module.momentum and module.momentum < _QUICK}
        self._epochs = epochs
        for module in self._usual:
            module.momentum = _QUICK

    def end_epoch(self) -> None:
        """Count an epoch, and let the layers remember as they did where it was the last."""
        self._epochs -= 1
        if self._epochs == 0:
            for module, momentum in self._usual.items():
                module.momentum = momentum


class WatchedLoader(JointLoader):
    """Upstream's loader, telling the run which batch is trained and when it is over.

    Our callbacks run on the first process only; every process asks its loader for the next batch. So this is the place for what
    all ranks do together after a batch, the last of an epoch included.

    Args:
        loader: upstream's; its batches are (images, targets, paths, shapes).
        begin: called with a batch's image files before it is handed out.
        end: called when the batch has been trained.
        end_epoch: called when all have been.
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
    """While upstream trains, checkpoints and yamls appear whole or not at all: its `torch.save` and `yaml_save` are ours."""
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
        """Of an image batch."""
        detection, logits = self.model(x)
        return [*detection, logits]
