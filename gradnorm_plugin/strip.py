"""`strip`: the detection half of a joint checkpoint as a stock YOLOv5 checkpoint, independent of this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gradnorm_plugin.files import WriteError, explain
from gradnorm_plugin.model.checkpoint import CheckpointError, check_network, read_contents, write_contents
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.terminal import fail, parse
from gradnorm_plugin.upstream.gateway import upstream

_yolo = upstream("models.yolo")

# Set on a detection model by upstream's constructor and trainer. Anything else is ours and is removed.
_STOCK_ATTRIBUTES = {"training", "yaml", "yaml_file", "save", "names", "inplace", "stride", "nc", "hyp", "class_weights"}
_STOCK_MODULES = {"model"}


class StripError(ValueError):
    """The checkpoint has no detection half, or the result cannot be written."""


@dataclass(frozen=True)
class Stripped:
    """What was written; sizes in bytes."""

    output: Path
    size: int
    size_before: int
    parameters: int
    parameters_before: int


def main(argv: Sequence[str] | None = None) -> None:
    """Strip the checkpoint given by `argv`. Ends with status 1 and one message on bad input."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm strip",
        description="Write the detection half of a joint checkpoint as a stock YOLOv5 checkpoint (FP16, without optimizer).",
    )
    parser.add_argument("weights", type=Path, help="joint checkpoint, e.g. runs/train/exp/weights/best.pt")
    parser.add_argument("-o", "--output", type=Path, help="output file, .pt (default: <stem>_detection.pt next to it)")
    options = parse(parser, argv)
    try:
        done = strip(options.weights, options.output)
    except StripError as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))
    print(
        f"{options.weights} -> {done.output}: {done.parameters:,} of {done.parameters_before:,} parameters, "
        f"{done.size / 1e6:.1f} of {done.size_before / 1e6:.1f} MB; a stock YOLOv5 loads it, without this package"
    )


def strip(weights: Path, output: Path | None = None) -> Stripped:
    """Write the detection half of the joint checkpoint `weights` to `output` (default `<stem>_detection.pt` next to it).

    The format is that of upstream's `strip_optimizer`: EMA weights, FP16, no optimizer, the same keys. `opt` keeps the training
    flags, including ours: plain values.

    Raises:
        StripError: if `weights` is missing, damaged or not a joint checkpoint, or `output` cannot be written. Nothing is left
            behind.
        OSError: if the system rejects a path.
    """
    output = weights.with_name(f"{weights.stem}_detection.pt") if output is None else output
    _check_paths(weights, output)
    checkpoint = _load(weights)
    model = next((part for part in (checkpoint.get("ema"), checkpoint.get("model")) if part is not None), None)
    if not isinstance(model, JointDetectionModel):
        found = f"its model is {type(model).__name__}" if model is not None else "it holds no `model`"
        raise StripError(f"{weights} is not a joint checkpoint: {found}; name a .pt that yolov5-gradnorm trained")
    try:
        check_network(model)
    except CheckpointError as error:
        raise StripError(f"{weights}: {error}") from None
    parameters_before = _count(model)
    _save({**checkpoint, "model": _detection_half(model)}, output)
    return Stripped(output, output.stat().st_size, weights.stat().st_size, _count(model), parameters_before)


def _check_paths(weights: Path, output: Path) -> None:
    if not weights.is_file():
        raise StripError(f"{weights} is not there: name a joint checkpoint, e.g. runs/train/exp/weights/best.pt")
    if output.suffix != ".pt":
        raise StripError(f"-o {output} does not end in .pt: YOLOv5 tells a checkpoint by that")
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder" if output.is_dir() else f"cannot be written: there is no folder {output.parent}"
        raise StripError(f"-o {output} {what}; name a file in a folder that exists")
    if output.exists() and output.samefile(weights):
        raise StripError(f"-o {output} is the joint checkpoint itself, whose head would be lost: name another file")


def _load(weights: Path) -> dict[str, Any]:
    try:
        contents = read_contents(weights)
    except CheckpointError as error:
        raise StripError(str(error)) from None
    if not isinstance(contents, dict):
        raise StripError(f"{weights} is no YOLOv5 checkpoint: it holds a {type(contents).__name__}, not a dict with a `model`")
    return contents


def _detection_half(model: JointDetectionModel) -> nn.Module:
    """The network as an instance of upstream's own class, without the joint model's additions."""
    model.__class__ = _yolo.DetectionModel
    for name in [name for name in vars(model) if not name.startswith("_") and name not in _STOCK_ATTRIBUTES]:
        delattr(model, name)
    for name in [name for name, _ in model.named_children() if name not in _STOCK_MODULES]:
        delattr(model, name)
    return model.half().requires_grad_(False)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _save(checkpoint: dict[str, Any], output: Path) -> None:
    contents = {**checkpoint, **dict.fromkeys(("optimizer", "best_fitness", "ema", "updates")), "epoch": -1}
    try:
        write_contents(contents, output)
    except WriteError as error:
        raise StripError(str(error)) from None
