"""What training starts from: the network that a `--weights` file holds, and what of it the run's own network takes over."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gradnorm_plugin.model.checkpoint import CheckpointError, box_classes, check_network, image_classes, read_checkpoint
from gradnorm_plugin.model.guided import GuidedHead
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.upstream.gateway import upstream

_SHOWN = 5
"""Names that a list in a message has at most."""


@dataclass(frozen=True)
class Start:
    """The network of a checkpoint: its names, and its head where it has one."""

    file: Path
    box_names: tuple[str, ...]
    classification_names: tuple[str, ...]
    head: str | None
    backbone: str
    shared_layer: int | None


def read_start(file: str | Path) -> Start:
    """The network of the checkpoint `file`.

    Raises:
        CheckpointError: if it is no checkpoint, or damaged.
    """
    model = read_checkpoint(file)["model"]
    try:
        check_network(model)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    boxes = box_classes(model) if isinstance(model, upstream("models.yolo").DetectionModel) else []
    if not isinstance(model, JointDetectionModel):
        return Start(Path(file), tuple(boxes), (), None, "shared", None)
    head = "guided" if isinstance(model.classification_head, GuidedHead) else "pooled"
    return Start(Path(file), tuple(boxes), tuple(image_classes(model)), head, model.backbone, model.shared_layer)


def adopt_network(options: argparse.Namespace) -> None:
    """Fill in `--head`, `--backbone` and `--shared-layer` where they were left out: as in the `--weights`, else the defaults.

    A layer's number means the same only in the same network: it is kept with the checkpoint's head and backbone, not with --cfg.
    """
    start = None
    if options.weights and not options.resume and str(options.weights).endswith(".pt") and Path(options.weights).is_file():
        try:
            start = read_start(options.weights)
        except CheckpointError:  # told where the files are checked, before anything is written
            start = None
    joint = start is not None and start.head is not None
    options.head = options.head or (start.head if joint else "pooled")
    options.backbone = options.backbone or (start.backbone if joint else "shared")
    same = joint and (options.head, options.backbone) == (start.head, start.backbone)
    if same and options.shared_layer is None and not options.cfg:
        options.shared_layer = start.shared_layer


def fit(weights: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> dict[str, Tensor]:
    """The checkpoint's weights with their classes in the order of the run's: both kinds are looked up by name.

    * Image classes that the checkpoint does not know start anew, as does the last layer if it knows none of them.
    * Box classes are put in order if they are the same ones; else they stay as they are, as in YOLOv5.

    Args:
        weights: the checkpoint's `state_dict`.
        model: the run's network, with fresh weights; what does not fit it is left in, for upstream to leave out.
        start: what the checkpoint's network is.
        box_names: the run's classes of boxes.
    """
    fitted, fresh = dict(weights), model.state_dict()
    names = [model.classification_names[index] for index in range(len(model.classification_names))]
    for layer in model.classification_head.class_layers():
        prefix = next(name for name, module in model.named_modules() if module is layer)
        for key in (f"{prefix}.weight", f"{prefix}.bias"):
            if key in weights and weights[key].shape[1:] == fresh[key].shape[1:]:
                fitted[key] = _rows_by_name(weights[key], fresh[key], start.classification_names, names)
    order = _reordered(start.box_names, box_names)
    if order is not None:
        for key in weights:
            if key.startswith(f"model.{len(model.model) - 1}.m.") and weights[key].shape == fresh[key].shape:
                columns = [*range(5), *(5 + index for index in order)]
                fitted[key] = weights[key].unflatten(0, (-1, 5 + len(order)))[:, columns].flatten(0, 1)
        key = "classification_head.attention.0.weight"  # it sees the box's class, after the features
        if key in weights and key in fresh and weights[key].shape == fresh[key].shape:
            features = weights[key].shape[1] - len(order)
            fitted[key] = weights[key][:, [*range(features), *(features + index for index in order)]]
    return fitted


def describe(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> str:
    """One line on what `model` took over from the checkpoint besides the common layers, and what starts anew."""
    return f"{start.file}: {_head_part(taken, model, start)}; {_box_part(taken, model, start, box_names)}"


def _head_part(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start) -> str:
    if start.head is None:
        return "it has no classification head, that starts anew"
    there = f"{start.head}, layer {start.shared_layer}{' of its own backbone' if start.backbone == 'dual' else ''}"
    guided = isinstance(model.classification_head, GuidedHead)
    head = "guided" if guided else "pooled"
    own = {name for name in model.state_dict() if name.startswith("classification_head.")}
    left_out = {name for name in own - taken.keys() if not name.endswith("num_batches_tracked")}
    if head != start.head or len(left_out) > len(own) // 2:
        return f"its classification head ({there}) is left out, that starts anew ({head}, layer {model.shared_layer})"
    names = list(model.classification_names.values())
    known = [name for name in names if name in start.classification_names]
    new = [name for name in names if name not in start.classification_names]
    gone = [name for name in start.classification_names if name not in names]
    told = f"classification head ({there}) taken over"
    if model.shared_layer != start.shared_layer:
        told += f", now on layer {model.shared_layer}"
    if names == list(start.classification_names):
        return f"{told} with its {len(names)} image classes"
    if not known:
        return f"{told} but for its last layer: it tells {_listed(gone)}, the data {_listed(new)}"
    told += f" with the image classes {_listed(known)}, found by name"
    told += f"; {_listed(new)} start anew" if new else ""
    return told + (f"; {_listed(gone)} are left out" if gone else "")


def _box_part(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> str:
    outputs = {name for name in model.state_dict() if name.startswith(f"model.{len(model.model) - 1}.m.")}
    if not outputs <= taken.keys():
        return f"the box outputs start anew ({len(start.box_names)} classes there, {len(box_names)} here)"
    if list(start.box_names) == list(box_names):
        return f"box outputs taken over with their {len(box_names)} classes"
    if _reordered(start.box_names, box_names) is not None:
        return f"box outputs taken over with their {len(box_names)} classes, found by name: their order differs"
    changed = [f"{old} is now {new}" for old, new in zip(start.box_names, box_names, strict=False) if old != new]
    return f"box outputs taken over by number, though names differ: {_listed(changed)}"


def _rows_by_name(old: Tensor, fresh: Tensor, old_names: Sequence[str], names: Sequence[str]) -> Tensor:
    rows = [old[old_names.index(name)].to(fresh) if name in old_names else row for name, row in zip(names, fresh, strict=True)]
    return torch.stack(rows)


def _reordered(old_names: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """For each of `names` its number among `old_names`; None if they are not the same ones, or in the same order already."""
    if len(set(names)) < len(names) or sorted(old_names) != sorted(names) or list(old_names) == list(names):
        return None
    return [old_names.index(name) for name in names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
