"""The network in a `--weights` file, and what the run's own network inherits from it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.checkpoint import CheckpointError, box_classes, check_network, image_outputs, read_checkpoint
from gradnorm_plugin.model.detector import DetectionModel
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import CLASS, Classes, ImageOutput, Outputs, the_classes

_SHOWN = 5
"""Names that a list in a message has at most."""


@dataclass(frozen=True)
class Start:
    """The network of a checkpoint: its names, and its head where it has one."""

    file: Path
    box_names: tuple[str, ...]
    outputs: Outputs
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
    boxes = box_classes(model) if isinstance(model, DetectionModel) else []
    if not isinstance(model, JointDetectionModel):
        return Start(Path(file), tuple(boxes), (), None, "shared", None)
    return Start(Path(file), tuple(boxes), image_outputs(model), model.head, model.backbone, model.shared_layer)


def adopt_network(options: argparse.Namespace) -> None:
    """Fill in `--head`, `--backbone` and `--shared-layer` where they were left out: as in the `--weights`, if those are joint.

    Else the head looks into boxes too where training starts from a trained detector, which knows where to look, and from scratch
    at the whole image alone. A layer's number means the same only in the same network: it is kept with the checkpoint's head and
    backbone, not with --cfg.
    """
    start = None
    if options.weights and not options.resume and str(options.weights).endswith(".pt") and Path(options.weights).is_file():
        try:
            start = read_start(options.weights)
        except CheckpointError:  # told where the files are checked, before anything is written
            start = None
    joint = start if start is not None and start.head is not None else None
    options.backbone = options.backbone or (joint.backbone if joint else "shared")
    trained = bool(options.weights) and options.backbone == "shared"
    options.head = options.head or (joint.head if joint else "both" if trained else "pooled")
    same = joint and (options.head, options.backbone) == (joint.head, joint.backbone)
    if joint and same and options.shared_layer is None and not options.cfg:
        options.shared_layer = joint.shared_layer


def fit(weights: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> dict[str, Tensor]:
    """The checkpoint's weights with their classes in the order of the run's: both kinds are looked up by name.

    * A head is that of the image output of the same name and kind, or of the one that tells a class in both. Image classes that
      the checkpoint does not know are newly initialised, as is the last layer if it knows none of them.
    * Box classes are put in order if they are the same ones; else they stay as they are, as in YOLOv5.

    Args:
        weights: the checkpoint's `state_dict`.
        model: the run's network, with fresh weights; what does not fit it is left in, for upstream to leave out.
        start: what the checkpoint's network is.
        box_names: the run's classes of boxes.
    """
    fresh = model.state_dict()
    fitted = {name: value for name, value in weights.items() if not name.startswith("classification_head.")}
    for output, head in zip(model.outputs, model.heads, strict=True):
        old = _counterpart(output, start.outputs, model.outputs)
        if old is None:
            continue
        here = _prefix(model, head)
        there = "classification_head." if len(start.outputs) == 1 else f"classification_head.heads.{old.name}."
        fitted |= {here + name.removeprefix(there): value for name, value in weights.items() if name.startswith(there)}
        for layer in head.class_layers():
            for key in (f"{_prefix(model, layer)}weight", f"{_prefix(model, layer)}bias"):
                if key in fitted and fitted[key].shape[1:] == fresh[key].shape[1:]:
                    fitted[key] = _rows_by_name(fitted[key], fresh[key], old.rows, output.rows)
    order = _reordered(start.box_names, box_names)
    if order is not None:
        for key in weights:
            if key.startswith(f"model.{len(model.model) - 1}.m.") and weights[key].shape == fresh[key].shape:
                columns = [*range(5), *(5 + index for index in order)]
                fitted[key] = weights[key].unflatten(0, (-1, 5 + len(order)))[:, columns].flatten(0, 1)
        for head in model.heads:
            key = f"{_prefix(model, head)}attention.0.weight"  # it sees the box's class, after the features
            if key in fitted and key in fresh and fitted[key].shape == fresh[key].shape:
                features = fitted[key].shape[1] - len(order)
                fitted[key] = fitted[key][:, [*range(features), *(features + index for index in order)]]
    return fitted


def describe(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> str:
    """One line on what `model` inherits from the checkpoint besides the common layers, and what is new."""
    return f"{start.file}: {_head_part(taken, model, start)}; {_box_part(taken, model, start, box_names)}"


def _counterpart(output: ImageOutput, of_start: Outputs, of_model: Outputs) -> ImageOutput | None:
    """The checkpoint's output whose head `output` takes over."""
    same = next((old for old in of_start if (old.name, old.kind) == (output.name, output.kind)), None)
    return the_classes(of_start) if same is None and output is the_classes(of_model) else same


def _prefix(model: nn.Module, module: nn.Module) -> str:
    """What the names of a module's weights begin with."""
    return next(f"{name}." for name, found in model.named_modules() if found is module)


def _head_part(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start) -> str:
    if start.head is None:
        return "it has no classification head, a new one is initialised"
    there = f"{start.head}, layer {start.shared_layer}{' of its own backbone' if start.backbone == 'dual' else ''}"
    told = []
    for output, part in zip(model.outputs, model.heads, strict=True):
        what = "classification head" if output.name == CLASS else f"head of `{output.name}`"
        prefix, old = _prefix(model, part), _counterpart(output, start.outputs, model.outputs)
        own = {name for name in model.state_dict() if name.startswith(prefix)}
        left_out = {name for name in own - taken.keys() if not name.endswith("num_batches_tracked")}
        if old is None:
            told.append(
                f"its heads ({', '.join(o.name for o in start.outputs)}) do not include this output, a new {what} is initialised"
            )
        elif model.head != start.head or len(left_out) > len(own) // 2:
            told.append(f"its {what} ({there}) is replaced by a new one ({model.head}, layer {model.shared_layer})")
        else:
            moved = f", now on layer {model.shared_layer}" if model.shared_layer != start.shared_layer else ""
            told.append(f"{what} ({there}) inherited{moved}{_rows_part(output, old)}")
    return "; ".join(told)


def _rows_part(output: ImageOutput, old: ImageOutput) -> str:
    """Which part of the last layer is inherited."""
    names, kind = list(output.rows), "image classes" if isinstance(output, Classes) else "rows"
    known = [name for name in names if name in old.rows]
    new = [name for name in names if name not in old.rows]
    gone = [name for name in old.rows if name not in names]
    if names == list(old.rows):
        return f" with its {len(names)} {kind}"
    if not known:
        return f" except for its last layer: it predicts {_listed(gone)}, the data has {_listed(new)}"
    told = f" with the {kind} {_listed(known)}, matched by name"
    told += f"; {_listed(new)} newly initialised" if new else ""
    return told + (f"; {_listed(gone)} dropped" if gone else "")


def _box_part(taken: Mapping[str, Tensor], model: JointDetectionModel, start: Start, box_names: Sequence[str]) -> str:
    outputs = {name for name in model.state_dict() if name.startswith(f"model.{len(model.model) - 1}.m.")}
    if not outputs <= taken.keys():
        return f"box outputs newly initialised ({len(start.box_names)} classes there, {len(box_names)} here)"
    if list(start.box_names) == list(box_names):
        return f"box outputs inherited with their {len(box_names)} classes"
    if _reordered(start.box_names, box_names) is not None:
        return f"box outputs inherited with their {len(box_names)} classes, matched by name: their order differs"
    changed = [f"{old} is now {new}" for old, new in zip(start.box_names, box_names, strict=False) if old != new]
    return f"box outputs inherited by index, although names differ: {_listed(changed)}"


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
