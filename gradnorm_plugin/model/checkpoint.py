"""A checkpoint, read and looked at before anything is done with it: what is damaged or of another kind is named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.model.detector import DetectionModel, detect_layer
from gradnorm_plugin.model.head import OutputHeads
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import OutputError, Outputs, class_output, read_outputs, read_temperatures
from gradnorm_plugin.upstream.gateway import under_their_own_names, upstream

_FOREIGN = {
    b"": "is empty",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`",
    b"<": "is a web page: download the file itself",
}
"""What files begin with that are often saved under a checkpoint's name, and what to say of them."""


class CheckpointError(ValueError):
    """A file is no checkpoint that can be used; the message names it and says why."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, with a network as its `model`; nothing in the file can run (docs/trust.md).

    Raises:
        CheckpointError: if it cannot be read, is damaged or no checkpoint, or asks for more than a checkpoint needs.
    """
    contents = read_contents(path)
    if not isinstance(contents, dict) or not isinstance(contents.get("model"), nn.Module):
        raise CheckpointError(f"{path} is no YOLOv5 checkpoint: it holds no `model`")
    return contents


def read_contents(path: str | Path) -> Any:
    """What PyTorch has saved in `path`, whatever it is.

    Raises:
        CheckpointError: if it cannot be read, is damaged, or asks for more than a checkpoint needs.
    """
    try:
        _refuse_foreign(Path(path))
        return upstream("utils.trust").load_checkpoint(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # TrustError is one; it names the file
        raise CheckpointError(str(error)) from None


def write_contents(contents: Any, path: Path) -> None:
    """Save a checkpoint, whole or not at all, so that any YOLOv5 finds its layers.

    Raises:
        WriteError: if that cannot be done; what was there is untouched.
    """
    with whole_file(path) as partial, partial.open("wb") as file, under_their_own_names():
        torch.save(contents, file)  # of a path, torch writes the name into the file


def keep_temperatures(file: Path, temperatures: dict[str, float]) -> None:
    """Write what was fitted into a checkpoint's networks, and touch nothing else."""
    if temperatures and file.is_file():
        contents = read_checkpoint(file)
        for network in (contents["model"], contents.get("ema")):
            if isinstance(network, JointDetectionModel):
                network.temperatures = temperatures
        write_contents(contents, file)


def check_network(model: nn.Module) -> None:
    """Refuse a network whose parts do not fit each other, or whose weights are not finite.

    Raises:
        CheckpointError: saying what is wrong, without a file's name.
    """
    try:
        problem = _problem(model)
    except (CheckpointError, OutputError) as error:
        raise CheckpointError(str(error)) from None
    except Exception as error:  # a damaged object can fail in any way
        raise CheckpointError(f"its model is damaged ({type(error).__name__}: {error})") from None
    if problem:
        raise CheckpointError(problem)


def check_detector(model: nn.Module) -> None:
    """Refuse a network that finds no boxes, such as YOLOv5's own for other tasks, and what `check_network` refuses.

    Raises:
        CheckpointError: saying what is wrong, without a file's name.
    """
    yolo = upstream("models.yolo")
    segments = isinstance(model, DetectionModel) and isinstance(model.model[-1], yolo.Segment)
    if segments or not isinstance(model, DetectionModel):
        kind = "segmentation" if segments else "classification" if isinstance(model, yolo.ClassificationModel) else None
        its_own = f": use YOLOv5's scripts for that ({'segment' if segments else 'classify'}/)" if kind else ""
        raise CheckpointError(f"it holds no detector but a {kind or type(model).__name__} network{its_own}")
    check_network(model)


def finite_weights(model: nn.Module) -> bool:
    """Whether all weights are finite as they are saved: in half precision, which ends at 65504."""
    return all(bool(torch.isfinite(parameter.detach().half()).all()) for parameter in model.parameters())


def why_unreadable(files: Sequence[str], error: Exception) -> str:
    """Why one of `files` could not be loaded, where that failed with `error`: in words of `read_checkpoint` if it is a .pt."""
    for file in files:
        if file.endswith(".pt") and Path(file).exists():
            try:
                read_checkpoint(file)
            except CheckpointError as reason:
                return str(reason)
    return str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"


def image_classes(model: nn.Module) -> list[str]:
    """The names of the image's classes that `model` tells, in their order; none for a network without such a head."""
    names = getattr(model, "classification_names", None) or {}
    return [str(names[index]) for index in range(len(names))]


def image_outputs(model: nn.Module) -> Outputs:
    """The image outputs of a network; none for one that only detects.

    Raises:
        CheckpointError: if what it says of them is no description.
    """
    if not hasattr(model, "classification_names"):
        return ()
    try:
        described = getattr(model, "image_outputs", None)
        return (class_output(image_classes(model)),) if described is None else read_outputs(described)
    except (OutputError, KeyError, TypeError) as error:
        raise CheckpointError(f"its image outputs are not described: {error}") from None


def box_classes(model: DetectionModel) -> list[str]:
    """The names of the boxes' classes that the detector `model` finds, in their order."""
    return [str(model.names[index]) for index in range(len(model.names))]


def training_flags(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flags of the training that wrote a checkpoint; empty where it does not say."""
    flags = contents.get("opt") or {}
    return flags if isinstance(flags, dict) else getattr(flags, "__dict__", {})


def image_size(value: Any) -> tuple[int, int] | None:
    """Height and width of one number or two; None for anything else, since a file may hold anything."""
    sides = [value, value] if isinstance(value, int) else value
    if isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides):
        return sides[0], sides[1]
    return None


def refuse_pipe(path: Path) -> None:
    """Refuse what no reader of weights would come back from.

    Raises:
        CheckpointError: if it is a pipe or a device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CheckpointError(f"{path} is a pipe or a device, not a file")


def _refuse_foreign(path: Path) -> None:
    refuse_pipe(path)
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    for beginning, what in _FOREIGN.items():
        if start == beginning or (beginning and start.startswith(beginning)):
            raise CheckpointError(f"{path} {what}")


def _problem(model: nn.Module) -> str | None:
    # Running variances may overflow half precision, and are divided by: only a NaN among them is fatal.
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        return "its weights are not finite"
    if any(torch.isnan(buffer).any() for buffer in model.buffers() if buffer.is_floating_point()):
        return "its batch statistics are not finite"
    if not isinstance(model, DetectionModel):
        return None
    if not isinstance(model.yaml, Mapping):
        return "its `yaml` is no description of a network"
    if not isinstance(model.names, (Mapping, list)) or len(box_classes(model)) < detect_layer(model).nc:
        return f"its `names` do not name its {detect_layer(model).nc} classes of boxes"
    head = getattr(model, "classification_head", None)
    if head is None:
        return None
    outputs = image_outputs(model)
    heads = head.by_name() if isinstance(head, OutputHeads) else {output.name: head for output in outputs[:1]}
    widths = [(name, {layer.out_features for layer in part.class_layers()}) for name, part in heads.items()]
    if widths != [(output.name, {output.width}) for output in outputs]:
        of_class = "its `classification_names` do not name the classes that its head tells"
        return of_class if len(outputs) < 2 else "its `image_outputs` do not describe what its heads tell"
    read_temperatures(getattr(model, "temperatures", None), outputs)
    return None
