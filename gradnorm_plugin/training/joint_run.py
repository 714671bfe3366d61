"""What stands in the place of upstream's names while its `train.main()` runs: model, loss, loaders, validation, fitness."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gradnorm_plugin.balancing import GradNorm, TaskGradients
from gradnorm_plugin.data.checking import LabelScan, check_labels, warn_of_absent
from gradnorm_plugin.data.dataset import JointDataset, create_joint_dataloader
from gradnorm_plugin.data.description import DescriptionError, find_dataset, image_outputs
from gradnorm_plugin.evaluation.intervals import Bootstrap
from gradnorm_plugin.evaluation.plots import explain_examples, plot_outputs
from gradnorm_plugin.evaluation.recording import SINGLE_CLASS, validate
from gradnorm_plugin.evaluation.summary import notes, pass_settings, summarise, table, write_summary
from gradnorm_plugin.loss import GradNormLoss, NonFiniteLossError
from gradnorm_plugin.model.checkpoint import finite_weights, keep_temperatures
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import CLASS, ImageOutput, Outputs
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.run_folder import PLAIN_EPOCHS_FILE, ImageTasks, task_names
from gradnorm_plugin.training.balancers import make_balancer
from gradnorm_plugin.training.evolution import evolving, ranked
from gradnorm_plugin.training.option_files import tasks_of
from gradnorm_plugin.training.resume import read_state
from gradnorm_plugin.training.seams import OutputsInAList, QuickStatistics, SeparateClip, WatchedLoader
from gradnorm_plugin.training.start import describe, fit, read_start
from gradnorm_plugin.upstream.gateway import swapped, upstream

_WARMUP_LEAST = 100
"""Batches that YOLOv5's warm-up has at least."""


class JointRun:
    """One training run: makes what upstream asks for, and keeps what the hooks read; what is not made yet is not there yet."""

    model: JointDetectionModel
    criterion: GradNormLoss
    clip: SeparateClip
    statistics: QuickStatistics | None
    loggers: Any
    """Upstream's."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.command: Sequence[str] = ()
        self.choices: dict[str, str] = {}
        """What was left to the program, and why it chose so, by flag."""
        self.data: dict[str, Any] = {}
        """The data yaml as upstream reads it, once it was checked."""
        self.outputs: Outputs = ()
        self.scans: dict[str, LabelScan] = {}
        """What the check of the labels found, by split, until its data set is made."""
        self.datasets: dict[str, JointDataset] = {}
        """By split, as the loaders made them: `train` and, on the main process, `val`."""
        self.batches_per_epoch = 0
        self.on_measured: Callable[[TaskGradients], None] = lambda found: None
        self.paths: Sequence[str] = ()
        self.figures: dict[str, dict[str, float]] = {}
        """Of the last validation, by image output that is trained: its figures, and `loss`."""

    @property
    def tasks(self) -> ImageTasks:
        """The image outputs as the run's tables have them."""
        return tasks_of(self.outputs)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put our parts where upstream's `train` looks its own up, for the length of the block."""
        ours = swapped(
            upstream("train"),
            check_dataset=self.check_dataset,
            Model=self.make_model,
            yaml=SimpleNamespace(safe_load=lambda stream: read_yaml(stream.name)),  # not in the locale's encoding
            create_dataloader=self.make_loader,
            labels_to_image_weights=self.image_weights,
            ComputeLoss=self.make_loss,
            check_train_batch_size=self.estimate_batch_size,
            check_amp=self.check_amp,
            Loggers=self.make_loggers,
            validate=SimpleNamespace(run=self.validate),
            fitness=self.fitness,
            intersect_dicts=self.take_over,
        )
        generations = evolving(self.fitness, lambda: [*self.headlines().values()]) if self.options.evolve else nullcontext()
        with ours, generations, swapped(torch.nn.utils, clip_grad_norm_=self.clip_gradients):
            try:
                yield
            finally:
                self._close_loggers()

    def check_dataset(self, data: str, autodownload: bool = True) -> dict[str, Any]:
        """Upstream's `check_dataset`, then the image outputs and every label of both splits; done once.

        Raises:
            DescriptionError: if the data yaml has no usable image output, flags are for another number of them, or the training
                split has no box, or no label for one of them.
            LabelErrors: listing the label lines that are wrong.
        """
        if not self.data:
            found = find_dataset(data, self.options.allow_download)
            self.outputs = image_outputs(found)
            try:
                make_balancer(self.options, 1 + len(self.outputs))
                self._shares()
            except ValueError as error:
                raise DescriptionError(str(error)) from None
            if upstream("train").LOCAL_RANK in {-1, 0}:  # the others read the cache that the first one writes
                self.scans = check_labels(found, trained=("boxes", *(output.name for output in self.trained_outputs)))
            self.data = found
        return self.data

    def make_model(self, cfg: Any, ch: int = 3, nc: int | None = None, anchors: Any = None) -> JointDetectionModel:
        """The joint model in `Model`'s place."""
        options = self.options
        self.model = JointDetectionModel(
            cfg, ch, nc, anchors, None, options.shared_layer, options.backbone, options.head, self.outputs
        )
        self.model.channels_last, self.model.in_bfloat16 = options.channels_last, options.precision == "bfloat16"
        return self.model

    def check_amp(self, model: nn.Module) -> bool:
        """Upstream's `check_amp`, where `--precision` leaves the choice to it."""
        return self.options.precision == "auto" and bool(upstream("utils.general").check_amp(model))

    def take_over(self, weights: dict[str, Tensor], own: dict[str, Tensor], exclude: Sequence[str] = ()) -> dict[str, Tensor]:
        """The weights of `--weights` that the model takes over, in `intersect_dicts`' place: classes are looked up by name."""
        general = upstream("utils.general")
        if self.options.resume:
            return general.intersect_dicts(weights, own, exclude)
        start, names = read_start(self.options.weights), self._box_names()
        taken = general.intersect_dicts(fit(weights, self.model, start, names), own, exclude)
        if upstream("train").RANK in {-1, 0}:
            general.LOGGER.info(describe(taken, self.model, start, names))
        return taken

    def _box_names(self) -> list[str]:
        names = SINGLE_CLASS if self.options.single_cls else self.data["names"]
        return [str(names[index]) for index in range(len(names))]

    def make_loader(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The joint loader in `create_dataloader`'s place."""
        split = "train" if kwargs.get("augment") else "val"
        loader, dataset = create_joint_dataloader(
            *args,
            outputs=self.outputs,
            num_box_classes=self.data["nc"],
            mix_classes=self.detection_only,
            scan=self.scans.pop(split, None),
            root=Path(self.data["path"]) if self.data.get("path") else None,
            **kwargs,
        )
        if not self.options.single_cls:
            warn_of_absent(split, dataset.labels, dataset.targets, self.outputs, self.data["names"])
        if split == "train":
            self.datasets, self.batches_per_epoch = {"train": dataset}, len(loader)
            loader = WatchedLoader(loader, self.begin_batch, self.end_batch, self.end_epoch)
        else:
            self.datasets["val"] = dataset
        return loader, dataset

    def image_weights(self, labels: Sequence[np.ndarray], nc: int, class_weights: np.ndarray) -> np.ndarray:
        """(images,) how likely `--image-weights` draws each image: half by upstream's rule for boxes, half by what is said of it.

        Upstream's alone never draws an image without boxes. Every image class has the same share of the other half.
        """
        of_boxes = upstream("utils.general").labels_to_image_weights(labels, nc=nc, class_weights=class_weights)
        targets = self.datasets["train"].targets
        each = [
            weights / weights.sum()
            for output in self.trained_outputs
            if (weights := output.draw_weights(targets[output.name])).sum() > 0
        ]
        if not each:
            return of_boxes
        of_outputs = sum(each) / len(each)
        if self.classification_only or not of_boxes.sum() > 0:
            return of_outputs
        return of_boxes / of_boxes.sum() + of_outputs

    def begin_batch(self, paths: Sequence[str]) -> None:
        """Remember the images of the batch that is about to be trained."""
        self.paths = paths

    def end_batch(self) -> None:
        """Hand what the batch's gradients showed to the balancer, on all ranks, and then to `on_measured`."""
        found = self.criterion.settle()
        if found is not None:
            self.on_measured(found)

    def end_epoch(self) -> None:
        """Let the balancer know, and the running statistics, on all ranks."""
        self.criterion.end_epoch()
        if self.statistics is not None:
            self.statistics.end_epoch()

    @property
    def switched_off(self) -> tuple[bool, ...]:
        """Whether each task, detection first, has the fixed weight 0. Before the data yaml is read, those of the flags."""
        tasks = 1 + len(self.outputs) if self.outputs else None
        weights = make_balancer(self.options, tasks).weights if self.options.balancer == "fixed" else [1.0] * (tasks or 2)
        return tuple(float(weight) == 0 for weight in weights)

    @property
    def trained_outputs(self) -> Outputs:
        """The image outputs that are not switched off."""
        return tuple(output for output, off in zip(self.outputs, self.switched_off[1:], strict=True) if not off)

    @property
    def detection_only(self) -> bool:
        """Whether all image outputs are switched off: then mosaics need not respect them."""
        return all(self.switched_off[1:])

    @property
    def classification_only(self) -> bool:
        """Whether detection is switched off."""
        return self.switched_off[0]

    @property
    def untrained(self) -> tuple[str, ...]:
        """The tasks that are switched off."""
        return tuple(task for task, off in zip(task_names(self.tasks), self.switched_off, strict=True) if off)

    def make_loss(self, model: nn.Module) -> GradNormLoss:
        """The joint loss in `ComputeLoss`'s place; a resumed run's balancer goes on where its checkpoint stands."""
        raw = upstream("utils.torch_utils").de_parallel(model)
        self.clip, self.figures = SeparateClip(raw.classification_parameters()), {}
        self.statistics = self._quick_statistics(model)
        if self.options.balancer == "gradnorm" and not raw.shared_parameter.requires_grad:
            upstream("utils.general").LOGGER.warning(
                "WARNING ⚠️ the shared layer is frozen: there is nothing to balance, the task weights stay at their initial "
                "values (--initial-weights)"
            )
        for output in self.trained_outputs:
            if not self._has_a_say(output):
                what = "class" if output.name == CLASS else f"`{output.name}`"
                upstream("utils.general").LOGGER.warning(
                    f"WARNING ⚠️ no two images of `val` differ in {what}: any model that always says the same is right, so it has "
                    f"no say in which epoch becomes best.pt"
                )
        balancer = make_balancer(self.options, 1 + len(self.outputs))
        state = read_state(Path(self.options.resume)) if self.options.resume else None
        if state is not None:
            balancer.load_state_dict(state)
        targets = self.datasets["train"].targets
        balanced = self.options.class_weights == "balanced"
        weights = {output.name: output.balance(targets[output.name]) if balanced else None for output in self.outputs}
        if isinstance(balancer, GradNorm) and upstream("train").RANK in {-1, 0}:
            self._warn_of_a_short_run(balancer)
        self.criterion = GradNormLoss(model, balancer, self.options.weight_scope, weights)
        return self.criterion

    def _quick_statistics(self, model: nn.Module) -> QuickStatistics | None:
        """For a warm-up that is allowed to be shorter than YOLOv5's 100 batches; a run that is resumed has it behind it."""
        hyp = cast("Mapping[str, float]", model.hyp)
        short = hyp.get("warmup_least", getattr(self.options, "warmup_least", _WARMUP_LEAST)) < _WARMUP_LEAST
        epochs = math.ceil(hyp["warmup_epochs"])
        return QuickStatistics(model, epochs) if short and epochs > 0 and not self.options.resume else None

    def _warn_of_a_short_run(self, balancer: GradNorm) -> None:
        batches = self.options.epochs * self.batches_per_epoch
        if batches > balancer.warmup + balancer.interval:
            return
        upstream("utils.general").LOGGER.warning(
            f"WARNING ⚠️ this run has {batches} batch{'es' * (batches != 1)}, and GradNorm looks at the gradients from batch "
            f"{balancer.warmup + 1} on, every {balancer.interval}: the task weights hardly leave their initial values; "
            f"train longer, or set --gradnorm-warmup and --gradnorm-interval lower"
        )

    def estimate_batch_size(self, model: nn.Module, *args: Any, **kwargs: Any) -> int:
        """Upstream's `--batch-size -1`, which tells the memory of a backward pass from a list of outputs only."""
        return upstream("utils.autobatch").check_train_batch_size(OutputsInAList(model), *args, **kwargs)

    def clip_gradients(self, parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Tensor:
        """Upstream's clip, for each part by itself."""
        return self.clip(parameters, max_norm, *args, **kwargs)

    def make_loggers(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream's own loggers, kept so that our scalars reach them; their table starts anew with the run, as ours do."""
        if not self.options.resume and not self.options.evolve:
            (Path(self.options.save_dir) / PLAIN_EPOCHS_FILE).unlink(missing_ok=True)
        self._close_loggers()  # those of the run before, where hyperparameters evolve
        self.loggers = upstream("utils.loggers").Loggers(*args, **kwargs)
        return self.loggers

    def _close_loggers(self) -> None:
        """End the thread of TensorBoard's writer, which upstream leaves running."""
        writer = getattr(getattr(self, "loggers", None), "tb", None)
        if writer:
            writer.close()

    def validate(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Upstream's validation; the image outputs' figures of the same pass are kept and shown.

        The last one, of best.pt, also calibrates that, and writes `joint_metrics.json`, with intervals, and the pictures.

        Raises:
            NonFiniteLossError: if the epoch's last step broke the weights, before they are saved over the last good ones.
        """
        if not finite_weights(kwargs["model"]):
            raise NonFiniteLossError(
                "the weights are not finite after the epoch's last batch; lower the learning rate (lr0, warmup_bias_lr)"
            )
        last = kwargs.get("verbose", False)  # upstream asks for its table by class then, and only then
        if isinstance(kwargs["model"], JointDetectionModel):
            # As upstream measures epochs in training's precision
            kwargs["model"].in_bfloat16 = self.model.in_bfloat16 and not last
        results, recording = validate(*args, **kwargs)
        trained = self.trained_outputs
        self.figures = {output.name: recording.figures(output) for output in trained}
        folder = Path(kwargs["save_dir"])
        names = SINGLE_CLASS if kwargs.get("single_cls") else self.data["names"]
        half = kwargs.get("half", True) and next(kwargs["model"].parameters()).is_cuda  # as upstream decides
        settings = pass_settings(**{"data": self.options.data, **kwargs, "half": half})
        best, bootstrap = folder / "weights" / "best.pt", Bootstrap() if last else None
        if last:
            recording.temperatures = recording.fit_temperatures(trained)
            keep_temperatures(best, recording.temperatures)
        figures = summarise(recording, names, str(best), "val", settings, bootstrap, self.untrained)
        for line in (*table(figures, by_class=last), *(notes(figures) if last else ())):
            upstream("utils.general").LOGGER.info(line)
        if last:
            write_summary(figures, folder)
            if kwargs.get("plots"):
                plot_outputs(recording, folder, trained)
                device = str(next(kwargs["model"].parameters()).device)
                explain_examples(recording, folder, trained, str(best), kwargs["imgsz"], device)
        return results

    def fitness(self, results: np.ndarray) -> np.ndarray:
        """`(1 - share) * YOLOv5's fitness + share * balanced accuracy`, or that of the tasks that are trained.

        Other image outputs have their headline figure, from 0 on, in the place of balanced accuracy. Rows of the table of
        evolved runs hold it; an output whose labels in `val` are all alike has no share.
        """
        if results.shape != (1, 7):
            return ranked(results)
        detection = upstream("utils.metrics").fitness(results)
        shares = {
            output: share
            for output, share in zip(self.outputs, self._shares(), strict=True)
            if output.name in self.figures and self._has_a_say(output)
        }
        total = sum(shares.values())
        if self.classification_only and total > 0:
            shares, total = {output: share / total for output, share in shares.items()}, 1.0
        elif self.classification_only and shares:
            shares, total = dict.fromkeys(shares, 1 / len(shares)), 1.0
        headlines = self.headlines()
        scores = [max(0.0, headlines[output.name]) * share for output, share in shares.items()]
        return (1 - total) * detection + sum(scores) if scores else detection

    def headlines(self) -> dict[str, float]:
        """The headline figure of each image output that is trained, of the last validation."""
        return {o.name: self.figures[o.name][o.headline] for o in self.outputs if o.name in self.figures}

    def _shares(self) -> list[float]:
        """Each image output's share of the fitness, as `--fitness-share` gives them: one for all together, or one each.

        Raises:
            ValueError: if there are as many as neither.
        """
        given, count = self.options.fitness_share, len(self.outputs)
        given = given if isinstance(given, (list, tuple)) else [given]
        if len(given) not in (1, count):
            raise ValueError(
                f"--fitness-share has {len(given)} values, but there are {count} image outputs: give one, or one for each"
            )
        return [given[0] / count] * count if len(given) == 1 else list(given)

    def _has_a_say(self, output: ImageOutput) -> bool:
        """Whether the labels of `val` differ: if not, an output's figures tell nothing."""
        return "val" not in self.datasets or output.varied(self.datasets["val"].targets[output.name])
