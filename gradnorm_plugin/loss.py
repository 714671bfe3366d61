"""The joint loss that replaces `ComputeLoss`: upstream's signature outside, named losses inside.

    total = w_det * L_det + sum_i w_i * L_i

L_det is upstream's own detection loss; L_i is that of image output i (for a class, the cross-entropy), averaged over the images
labelled for it. All are scaled by the batch size, like upstream's.

With several processes (DDP) each has a part of the batch, and the trainer sums their gradients. All decisions made here (labelled
or not, finite or not, the weights) use the figures of the whole batch, identically on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from gradnorm_plugin.balancing import (
    Balancer,
    GradientProbe,
    GradientSurgery,
    GradNorm,
    Meeting,
    TaskGradients,
    preset,
    sum_over_ranks,
    world_size,
)
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import ImageOutput, split
from gradnorm_plugin.upstream.gateway import upstream

_loss = upstream("utils.loss")
_torch_utils = upstream("utils.torch_utils")


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message lists all its parts and the weights."""


@dataclass(frozen=True)
class JointLosses:
    """The losses of one batch over all ranks, detached and scaled by the batch size: unweighted, and the total."""

    detection: Tensor
    outputs: tuple[Tensor, ...]
    """Those of the image outputs, in order."""
    total: Tensor
    labelled: tuple[int, ...]
    """Number of labelled images in the batch, per image output."""
    images: int

    @property
    def classification(self) -> Tensor:
        """The loss of the first image output."""
        return self.outputs[0]

    @property
    def tasks(self) -> tuple[Tensor, ...]:
        """Per-image losses as the balancer sees them, detection first."""
        return tuple(loss / self.images for loss in (self.detection, *self.outputs))


class GradNormLoss:
    """`loss, loss_items = criterion(pred, targets)`, like upstream's `ComputeLoss`, with the tasks weighted by a balancer.

    In training `pred` is the joint model's `(detection, logits)` and `targets` are `JointTargets`; `loss_items` are upstream's
    three (box, objectness, class). With gradients disabled (validation), `targets` may be upstream's plain tensor, and the loss
    is the detection loss only.

    `settle` passes the measured gradients to the balancer.
    """

    losses: JointLosses
    """The parts of the last training batch; unset before the first."""
    gradients: TaskGradients | None
    """Those of the last measured batch."""

    def __init__(
        self,
        model: nn.Module,
        balancer: Balancer | None = None,
        weight_scope: str = "loss",
        class_weights: Tensor | Mapping[str, Tensor | None] | None = None,
        label_smoothing: float | None = None,
    ) -> None:
        """Args:
            model: a `JointDetectionModel`, possibly wrapped for parallel training, with upstream's `hyp` attached.
            balancer: sets the task weights, detection's first; default GradNorm with the report's settings.
            weight_scope: "loss", a weight scales its task's whole loss; "shared", only the task's gradient into the shared
                layers, while task-specific layers train at full strength.
            class_weights: (C,) weights of the image classes in the cross-entropy; or a mapping from each image output to the
                result of its `balance`.
            label_smoothing: for the image outputs; default upstream's `--label-smoothing`.

        Raises:
            ValueError: if the scope is unknown, or the balancer is for a different number of tasks.
        """
        self.model: JointDetectionModel = _torch_utils.de_parallel(model)
        self.detection_loss = _loss.ComputeLoss(model)
        self.outputs = self.model.outputs
        tasks = 1 + len(self.outputs)
        self.balancer = GradNorm(tasks, **preset("report", tasks)) if balancer is None else balancer
        if len(self.balancer.weights) != tasks:
            raise ValueError(
                f"the balancer has {len(self.balancer.weights)} weights, expected {tasks}: detection's and one for each "
                f"image output"
            )
        hyp = cast("Mapping[str, float]", model.hyp)
        self.label_smoothing = hyp.get("label_smoothing", 0.0) if label_smoothing is None else label_smoothing
        device = next(self.model.parameters()).device
        given = class_weights if isinstance(class_weights, Mapping) else {self.outputs[0].name: class_weights}
        self.class_weights = {name: None if of is None else of.float().to(device) for name, of in given.items()}
        self._probe = self._make_probe()
        self._inner_logits: Tensor | None = None
        if self.model is not model:
            self.model.watch = self._keep_inner_logits
        self.gradients = None
        if weight_scope == "shared":
            rescale_unshared(self.model, lambda: self.applied_weights)
        elif weight_scope != "loss":
            raise ValueError(f'weight_scope is {weight_scope!r}, expected "loss" or "shared"')
        self.applied_weights = self._weights()

    def _make_probe(self) -> GradientProbe | Meeting | None:
        """Measures gradients: where they meet if the balancer acts there, else at the last shared weights."""
        if isinstance(self.balancer, GradientSurgery):
            meeting = Meeting(self.balancer.factors, 1 + len(self.outputs))
            self.model.fork = meeting.fork
            return meeting
        shared = self.model.shared_parameter
        return GradientProbe(shared) if shared is not None and shared.requires_grad else None

    def _keep_inner_logits(self, logits: Tensor) -> None:
        self._inner_logits = logits

    def _before_wrapper(self, logits: Tensor) -> Tensor:
        """The head's own tensor for the logits that a wrapper of the model returned.

        With replicas (DataParallel), each of which computes a part of the batch, there is none, and `logits` is returned.
        """
        inner, self._inner_logits = self._inner_logits, None
        return logits if inner is None or inner.shape != logits.shape else inner

    def _weights(self) -> tuple[float, ...]:
        return tuple(self.balancer.weights.tolist())

    def __call__(self, pred: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """The loss to differentiate, (1,), and upstream's loss items, (3,) detached.

        Raises:
            NonFiniteLossError: if a training loss is NaN or infinite.
        """
        detection, logits = pred
        inner_logits = self._before_wrapper(logits)
        boxes = getattr(targets, "boxes", targets)
        detection_loss, items = self.detection_loss(detection, boxes)
        if not torch.is_grad_enabled():
            return detection_loss, items
        self.settle()
        parts = list(zip(self.outputs, split(self.outputs, logits), strict=True))
        shares, labelled = self._shares_of_labels(targets.outputs)
        losses = [detection_loss]
        losses += [
            self.output_loss(output, of, targets.outputs[output.name]) * s for (output, of), s in zip(parts, shares, strict=True)
        ]
        of_all_ranks = sum_over_ranks(torch.cat(losses).detach().float()).unbind()
        images = targets.images * world_size()
        complete = all(count > 0 for count in labelled)
        if complete:
            self.balancer.weigh([loss / images for loss in of_all_ranks])
        self.applied_weights = weights = self._weights()
        total, of_all_tasks = _weighted_sum(weights, losses), _weighted_sum(weights, of_all_ranks)
        self.losses = JointLosses(of_all_ranks[0], tuple(of_all_ranks[1:]), of_all_tasks, labelled, images)
        self._refuse_non_finite(items)
        if complete and self.balancer.begin_step(self.losses.tasks):
            if self._probe is not None and min(weights) > 0 and logits.requires_grad:
                self._probe.arm(losses, weights, (logits, inner_logits))
        return total, items

    def _shares_of_labels(self, targets: Mapping[str, Tensor]) -> tuple[list[float | Tensor], tuple[int, ...]]:
        """Per output: this rank's weighted share of the batch's labels, and the number of labels over all ranks.

        Scaled by it, the ranks' losses sum to the weighted mean over the whole batch, however the labels are distributed.
        """
        labels = [targets[output.name][output.known(targets[output.name])] for output in self.outputs]
        if world_size() == 1:
            return [1.0] * len(labels), tuple(map(len, labels))
        weights = [
            output.label_weights(of, self.class_weights.get(output.name)).sum()
            for output, of in zip(self.outputs, labels, strict=True)
        ]
        counts = torch.tensor([float(len(of)) for of in labels], device=weights[0].device)
        here = torch.cat([torch.stack(weights).float(), counts])
        everywhere = sum_over_ranks(here)
        tiny = torch.finfo(torch.float32).tiny
        shares: list[float | Tensor] = [here[i] / everywhere[i].clamp(min=tiny) * world_size() for i in range(len(labels))]
        return shares, tuple(int(count) for count in everywhere[len(labels) :])

    def output_loss(self, output: ImageOutput, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of an image output over its labelled images, times the batch size; (1,).

        Without labelled images it is 0, but still part of the graph.

        Args:
            logits: (B, W) of this output.
            targets: of this output.
        """
        labelled = output.known(targets)
        if not labelled.any():
            return (logits.float() * 0).sum().reshape(1)
        balance = self.class_weights.get(output.name)
        loss = output.loss(logits[labelled].float(), targets[labelled], balance, self.label_smoothing)
        return loss.reshape(1) * len(targets)

    def settle(self) -> TaskGradients | None:
        """Pass the gradients measured in the last backward pass to the balancer; returns them, or None if none were measured.

        With several processes a collective if there is a measurement: all ranks settle at the same point, after the backward
        pass, at the latest in the next call of the loss.
        """
        found = None if self._probe is None else self._probe.take()
        if found is not None:
            self.gradients = found
            self.balancer.update(self._of_an_image(found), [float(x) for x in found.norms])
        return found

    def _of_an_image(self, measured: TaskGradients) -> list[float]:
        """The losses of a measured batch as the balancer sees them."""
        return [float(loss) / self.losses.images for loss in measured.losses]

    def end_epoch(self) -> None:
        """Settle, and end the balancer's epoch; on all ranks."""
        self.settle()
        self.balancer.end_epoch()

    def training_rates(self) -> tuple[float, ...]:
        """r_i of the last measured batch; NaN for balancers without such rates."""
        if self.gradients is None or not isinstance(self.balancer, GradNorm):
            return (float("nan"),) * (1 + len(self.outputs))
        losses = torch.tensor(self._of_an_image(self.gradients), dtype=torch.float64)
        return tuple(self.balancer.training_rates(losses).tolist())

    def _refuse_non_finite(self, items: Tensor) -> None:
        losses = self.losses
        if torch.isfinite(losses.total).all():
            return
        box, objectness, classes = items.tolist()
        of_outputs = ", ".join(f"{o.task} {of.item():g}" for o, of in zip(self.outputs, losses.outputs, strict=True))
        raise NonFiniteLossError(
            f"the loss is not finite: total {losses.total.item():g}, detection {losses.detection.item():g} "
            f"(box {box:g}, objectness {objectness:g}, class {classes:g}), {of_outputs}, "
            f"weights {' and '.join(f'{weight:g}' for weight in self.applied_weights)}; "
            f"lower the learning rate (lr0, warmup_bias_lr) or the task weights"
        )

    def state_dict(self) -> dict[str, Any]:
        """The balancer's state, after settling any pending measurement."""
        self.settle()
        return self.balancer.state_dict()


def _weighted_sum(weights: Sequence[float], losses: Sequence[Tensor]) -> Tensor:
    total = weights[0] * losses[0]
    for weight, loss in zip(weights[1:], losses[1:], strict=True):
        total = total + weight * loss
    return total


def unshared_parameters(model: JointDetectionModel) -> list[list[nn.Parameter]]:
    """The task-specific parameters: of detection (the layers after those the heads read; all if nothing is shared), then of each
    image output.

    A separate backbone serves all image outputs; with a single output it belongs to that one.
    """
    if model.backbone == "shared":
        return [list(part.parameters()) for part in (model.model[model.heads_layers[1] + 1 :], *model.heads)]
    if len(model.heads) == 1:
        return [list(model.model.parameters()), model.classification_parameters()]
    return [list(part.parameters()) for part in (model.model, *model.heads)]


def rescale_unshared(model: JointDetectionModel, weights: Callable[[], tuple[float, ...]]) -> None:
    """Divide the gradient of every task-specific parameter by its task's weight, as it arrives.

    The loss is weighted as a whole; this undoes the weighting outside the shared layers, in the same backward pass, so that the
    weights act on the shared layers only (`--weight-scope shared`). A task with weight 0 gets no gradient anywhere.

    Args:
        model: its parameters keep the hooks.
        weights: returns the weights used in the loss of the current step.
    """

    def rescaled_by(task: int) -> Callable[[Tensor], Tensor | None]:
        def rescale(gradient: Tensor) -> Tensor | None:
            weight = weights()[task]
            return gradient / weight if weight > 0 else None

        return rescale

    for task, parameters in enumerate(unshared_parameters(model)):
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_hook(rescaled_by(task))
