"""What happens at upstream's callbacks: lines on the screen, tables, scalars, the balancer's state in the checkpoint.

Upstream runs callbacks on the main process only, in the order in which they were registered; ours come before its loggers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gradnorm_plugin.data.targets import JointTargets
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.plots import plot_epochs, plot_updates
from gradnorm_plugin.training.scalars import send_scalars
from gradnorm_plugin.training.state import attach_state
from gradnorm_plugin.training.tables import RunTable
from gradnorm_plugin.upstream.gateway import upstream

_callbacks = upstream("utils.callbacks")
_general = upstream("utils.general")
_torch_utils = upstream("utils.torch_utils")

UPDATE_COLUMNS = (
    "step", "epoch", "loss", "detection_loss", "classification_loss", "detection_weight", "classification_weight",
    "detection_norm", "classification_norm", "detection_rate", "classification_rate", "cosine",
    "detection_norm_before_clip", "head_norm_before_clip",
)  # fmt: skip
EPOCH_COLUMNS = (
    "epoch", "precision", "recall", "F1", "mAP50", "mAP50-95", "accuracy", "balanced_accuracy", "macro_F1",
    "train_box_loss", "train_obj_loss", "train_cls_loss", "train_classification_loss",
    "val_box_loss", "val_obj_loss", "val_cls_loss", "val_classification_loss",
    "detection_weight", "classification_weight", "fitness",
)  # fmt: skip
SCREEN_COLUMNS = ("Batch", "Total", "Detection", "Classif", "w_det", "w_cls", "Cosine")


class Hook:
    """A no-op at each callback that ours use; arguments as upstream passes them."""

    def on_train_epoch_start(self) -> None:
        """An epoch begins."""

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """A batch was trained; `step` counts batches since the start of training."""

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """An epoch was trained and validated, and is about to be saved; `values` are upstream's columns of results.csv."""

    def on_train_end(self, last: Path, best: Path, epoch: int, results: Any) -> None:
        """Training is over."""


class JointCallbacks(_callbacks.Callbacks):
    """Upstream's callbacks, with plain box tensors where joint targets would reach its loggers."""

    def run(self, hook: str, *args: Any, thread: bool = False, **kwargs: Any) -> None:
        """Run the actions of `hook`."""
        plain = [arg.boxes if isinstance(arg, JointTargets) else arg for arg in args]
        super().run(hook, *plain, thread=thread, **kwargs)


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


class UpdateTable(Hook):
    """`gradnorm.csv`: a row for every measured batch. Hands the measurement to the balancer at the end of its own batch."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.table: RunTable | None = None

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Settle the batch and write down what its gradients showed."""
        epoch = step // self.run.batches_per_epoch
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / "gradnorm.csv", UPDATE_COLUMNS)
            self.table.resume(epoch)
        criterion, clip = self.run.criterion, self.run.clip
        before, parts = criterion.applied_weights, criterion.losses
        found = criterion.settle()
        if found is None:
            return
        rates = criterion.training_rates()
        self.table.append(
            {
                "step": step,
                "epoch": epoch,
                "loss": parts.total.item(),
                "detection_loss": parts.detection.item(),
                "classification_loss": parts.classification.item(),
                "detection_weight": before[0],
                "classification_weight": before[1],
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
            self.sum += self.run.criterion.losses.classification.item() / len(images)
            self.batches += 1

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Write the row. `values`: 3 training losses, P, R, mAP50, mAP50-95, 3 validation losses, learning rates."""
        if self.table is None:
            self.table = RunTable(Path(self.run.loggers.save_dir) / "joint_results.csv", EPOCH_COLUMNS)
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
        shown = ("accuracy", "balanced_accuracy", "macro_F1", "train_classification_loss", "val_classification_loss",
                 "detection_weight", "classification_weight")  # fmt: skip
        send_scalars(self.run.loggers, {f"joint/{name}": row[name] for name in shown}, epoch)


class CheckpointState(Hook):
    """The balancer's state travels in the checkpoint that upstream writes next."""

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.model: torch.nn.Module | None = None

    def on_train_batch_end(self, model: Any, step: int, images: Tensor, boxes: Tensor, paths: Any, losses: Any) -> None:
        """Remember the model that is trained."""
        self.model = _torch_utils.de_parallel(model)

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Attach the state."""
        attach_state(self.model, self.run.criterion.state_dict())


class Plots(Hook):
    """`gradnorm.png` and `joint_results.png` from the two tables, at the end."""

    def __init__(self, run: JointRun) -> None:
        self.run = run

    def on_train_end(self, last: Path, best: Path, epoch: int, results: Any) -> None:
        """Draw what there is."""
        folder = Path(self.run.loggers.save_dir)
        if self.run.options.noplots or self.run.options.evolve:
            return
        for table, draw in (("gradnorm", plot_updates), ("joint_results", plot_epochs)):
            if (folder / f"{table}.csv").is_file():
                draw(folder / f"{table}.csv", folder / f"{table}.png")


def make_callbacks(run: JointRun) -> JointCallbacks:
    """Callbacks with our hooks, in order: the lines show the weights that the batch had, so they come before it is settled;
    the state is attached last, when all of the epoch is settled."""
    callbacks = JointCallbacks()
    for hook in (BatchLines(run), UpdateTable(run), EpochTable(run), CheckpointState(run), Plots(run)):
        for name in ("on_train_epoch_start", "on_train_batch_end", "on_fit_epoch_end", "on_train_end"):
            callbacks.register_action(name, type(hook).__name__, getattr(hook, name))
    return callbacks


def _number(value: Tensor | None) -> float:
    return float("nan") if value is None else value.item()
