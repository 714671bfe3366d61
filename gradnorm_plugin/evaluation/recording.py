"""What is recorded while upstream's `val.run` works: the labels of the images, the model's answers, its detections.

B images in a batch, W answers of all image outputs side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradnorm_plugin.evaluation.intervals import DetectionMetrics, Predictions
from gradnorm_plugin.evaluation.mosaics import Badge, answer_badges, badges_on_mosaics, label_badges
from gradnorm_plugin.evaluation.temperature import apply_temperature, fit_temperature
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import Classes, ImageOutput, Outputs, activate, split
from gradnorm_plugin.upstream.gateway import swapped, upstream

_val = upstream("val")

SINGLE_CLASS = {0: "item"}
"""What upstream calls the one class of `--single-cls`."""


class Recording:
    """One pass of `val.run`, whose detection figures stay what they are.

    `split_outputs` makes predictions (B, n, 5 + nc) and answers (B, W) of what upstream is about to filter; by default it is that
    pair already.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.temperatures: Mapping[str, float] = {}
        """Of the outputs that tell a class and were calibrated; all answers here are as they are without them."""
        self.split_outputs: Callable[[Any], tuple[Tensor, Tensor]] = lambda outputs: outputs
        self.files: list[str] = []
        self._targets: list[Mapping[str, Tensor]] = []
        self._answers: list[Tensor] = []
        self._prediction_counts: list[int] = []
        self._box_counts: list[Tensor] = []
        self._box_classes: list[Tensor] = []
        self._arguments: tuple[np.ndarray, ...] = ()
        self._figures: tuple[np.ndarray, ...] = ()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Listen where `val.run` filters a batch's boxes and where it counts them all, for the length of the block.

        The mosaics that it draws carry what is said of the images.
        """
        listening = swapped(_val, non_max_suppression=self._filter_boxes, ap_per_class=self._count)
        with listening, badges_on_mosaics(_val, self._badges):
            yield

    def _badges(self, predicted: bool) -> list[Badge]:
        """For the tiles of the batch that upstream is at."""
        targets = self._targets[-1]
        return answer_badges(self.outputs, self._answers[-1], targets) if predicted else label_badges(self.outputs, targets)

    def add_batch(self, boxes: Tensor, targets: Mapping[str, Tensor], paths: Any) -> None:
        """Note the truth about a batch: (n, 6) boxes whose first column is the image, and the targets of the image outputs."""
        self.files += paths
        self._box_classes.append(boxes[:, 1].clone())  # upstream scales its boxes in place
        self._targets.append(targets)
        self._box_counts.append(torch.bincount(boxes[:, 0].long(), minlength=len(paths)))

    def _filter_boxes(self, outputs: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
        predictions, answers = self.split_outputs(outputs)
        self._answers.append(answers.float().cpu())
        # With upstream's limit a slow machine would lose predictions of the batch's last images.
        found = upstream("utils.general").non_max_suppression(predictions, *args, time_limit=math.inf, **kwargs)
        self._prediction_counts += [len(predictions) for predictions in found]
        return found

    def _count(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        self._arguments = args
        self._figures = upstream("utils.metrics").ap_per_class(*args, **kwargs)
        return self._figures

    @property
    def images(self) -> int:
        """Number of images recorded."""
        return len(self.files)

    def targets(self, output: ImageOutput) -> np.ndarray:
        """(images, ...) what is said of the images for `output`."""
        nothing = output.targets([])
        return np.concatenate([nothing, *(targets[output.name].cpu().numpy() for targets in self._targets)])

    def answers(self, output: ImageOutput) -> np.ndarray:
        """(images, W) float32, what the model says for `output`."""
        nothing = torch.zeros(0, sum(output.width for output in self.outputs))
        return split(self.outputs, torch.cat([nothing, *self._answers]).numpy())[self.outputs.index(output)]

    def calibrated(self, output: ImageOutput) -> np.ndarray:
        """(images, W), what the model says for `output` at its temperature."""
        answers = self.answers(output)
        return apply_temperature(answers, self.temperatures[output.name]) if output.name in self.temperatures else answers

    def fit_temperatures(self, outputs: Outputs) -> dict[str, float]:
        """The temperature of each of `outputs` that tells a class, from the labels of this pass; 1 where there is none.

        Labels are smoothed by 1 / (N + 2), N their number (Platt, "Probabilistic Outputs for Support Vector Machines", 1999): a
        few images that are all right would else make the model as good as certain of everything.
        """
        found = {}
        for output in outputs:
            if isinstance(output, Classes):
                answers, targets = self.labelled(output)
                found[output.name] = fit_temperature(answers, targets, 1 / (len(targets) + 2))
        return found

    def labelled(self, output: ImageOutput) -> tuple[np.ndarray, np.ndarray]:
        """Answers and targets of the images that have a label for `output`."""
        targets = self.targets(output)
        known = output.known(targets)
        return self.answers(output)[known], targets[known]

    def figures(self, output: ImageOutput) -> dict[str, float]:
        """The figures of `output`, and its `loss`."""
        answers, targets = self.labelled(output)
        found = output.measure(answers, targets, np.ones((1, len(targets)), dtype=np.int64))
        return {"loss": output.answer_loss(answers, targets), **{name: float(value[0]) for name, value in found.items()}}

    def detection(self) -> DetectionMetrics:
        """Upstream's figures, class by class."""
        nothing = np.zeros(0)
        if not self._figures:  # upstream does not count where nothing was hit
            return DetectionMetrics(nothing, nothing, nothing, nothing, np.zeros((0, 10)))
        _, _, precision, recall, f1, ap, classes = self._figures
        return DetectionMetrics(classes, precision, recall, f1, ap)

    def box_classes(self) -> np.ndarray:
        """(boxes,) true classes of the boxes of all images."""
        return torch.cat([torch.zeros(0), *self._box_classes]).long().numpy()

    def predictions(self) -> Predictions | None:
        """Every prediction and box with its image; None where upstream does not count, because nothing was hit."""
        if not self._arguments:
            return None
        correct, confidence, classes, box_classes = self._arguments
        images = np.arange(self.images)
        of_prediction = np.repeat(images, self._prediction_counts)
        of_box = np.repeat(images, torch.cat(self._box_counts).numpy())
        return Predictions(correct, confidence, classes, of_prediction, box_classes, of_box)


class RecordedBatches:
    """A joint loader whose batches have the boxes as a plain tensor, as upstream expects; the rest is noted on the way."""

    def __init__(self, loader: Any, recording: Recording) -> None:
        self.loader, self.recording = loader, recording

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, Tensor, Any, Any]]:
        for images, targets, paths, shapes in self.loader:
            self.recording.add_batch(targets.boxes, targets.outputs, paths)
            yield images, targets.boxes, paths, shapes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def validate(*args: Any, model: JointDetectionModel, dataloader: Any, **kwargs: Any) -> tuple[tuple[Any, Any, Any], Recording]:
    """Run upstream's `val.run(*args, model=..., dataloader=..., **kwargs)` on a joint model and loader, as training does.

    Returns:
        What upstream returns, to the last digit, and what passed by.
    """
    recording = Recording(model.outputs)
    latest: list[Tensor] = []
    handle = model.classification_head.register_forward_hook(lambda _, __, logits: latest.append(logits))
    recording.split_outputs = lambda predictions: (predictions, activate(recording.outputs, latest.pop().float()))
    try:
        with recording.in_place():
            return _val.run(*args, model=model, dataloader=RecordedBatches(dataloader, recording), **kwargs), recording
    finally:
        handle.remove()
