"""The files that the options name, looked at before upstream makes a run folder: bad ones should leave nothing behind."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
import yaml
from torch import nn

from gradnorm_plugin.data.description import NAME_KEYS, DescriptionError, image_outputs
from gradnorm_plugin.model import checkpoint
from gradnorm_plugin.model.detector import DetectionModel
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import Outputs
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.run_folder import OPTIONS_FILE, ImageTask, ImageTasks
from gradnorm_plugin.upstream.gateway import upstream, upstream_root

MODEL_KEYS = {"nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head"}


FETCHED = ("cfg", "data", "hyp", "weights")
"""Options that name a file, or an address that YOLOv5 fetches it from."""
_ADDRESS = re.compile(r"\s*\w{2,}:/")  # a path that has been through `Path` has one slash left


class OptionError(ValueError):
    """An option names something that is not there, or not what it should be."""


def check_files(options: argparse.Namespace) -> None:
    """Find and read the files that the options name, where upstream looks for them.

    A resumed run has its hyperparameters in its options and its model in the checkpoint; that of a new one is built once, to see
    that it can be.

    Raises:
        OptionError: naming the flag, the file and what is wrong with it.
        DescriptionError: if the data yaml has no usable image output.
    """
    try:
        data = _read_yaml(options, "data")
    except OptionError as error:
        if not options.resume:
            raise
        saved = Path(options.save_dir) / OPTIONS_FILE
        raise OptionError(f"{error}; {saved} names it: put it back, or write there where it is now") from None
    outputs = image_outputs(data)  # before upstream downloads data that could not be used
    if options.resume:
        return
    needed = set(read_yaml(upstream_root() / "data" / "hyps" / "hyp.scratch-low.yaml"))  # by its place: a fork may have two
    hyp = _read_yaml(options, "hyp")
    _require_keys(options, "hyp", hyp, needed)
    start = _find_weights(str(options.weights)) if options.weights else None
    if options.cfg:
        network = _read_yaml(options, "cfg")
        _require_keys(options, "cfg", network, MODEL_KEYS)
        if yaml.safe_load(Path(options.cfg).read_text(encoding="ascii", errors="ignore")) != network:
            raise OptionError(f"--cfg {options.cfg}: YOLOv5 reads model yamls as ASCII: write its keys and values so")
    else:
        network = _network_of(options.weights, start)
    flag = f"--cfg {options.cfg}" if options.cfg else f"--weights {options.weights}"
    _check_detector(flag, network)
    if options.shared_layer is not None:
        _check_layer(options, network)
    num_boxes = len(data["names"]) if isinstance(data.get("names"), (dict, list)) else 1
    model = _build(flag, network, num_boxes, hyp.get("anchors"), outputs, options)
    if start is not None and not _common(start, model):
        raise OptionError(f"--weights {options.weights}: none of its weights fit the network of {flag}; leave one of them out")


def read_tasks(options: argparse.Namespace) -> ImageTasks:
    """The image outputs of the data yaml that the options name.

    Raises:
        OptionError: if it cannot be read.
        DescriptionError: if it has no usable image output.
    """
    return tasks_of(image_outputs(_read_yaml(options, "data")))


def tasks_of(outputs: Outputs) -> ImageTasks:
    """The image outputs as a run's tables have them."""
    return tuple(
        ImageTask(o.task, o.kind, tuple(o.column(figure) for figure in o.figures), o.column(o.headline)) for o in outputs
    )


def is_address(value: object) -> bool:
    """Whether the value of an option is an address rather than a path."""
    return isinstance(value, str) and _ADDRESS.match(value) is not None and not os.path.isfile(value)


def read_checkpoint(flag: str, path: str | Path) -> dict[str, Any]:
    """The contents of the checkpoint that `--flag path` names, read so that nothing in it can run (docs/trust.md).

    Raises:
        OptionError: if it is no checkpoint, or asks for more than a checkpoint needs.
    """
    try:
        return checkpoint.read_checkpoint(path)
    except checkpoint.CheckpointError as error:
        raise OptionError(f"--{flag} {error}") from None


def check_network(flag: str, path: str | Path, model: nn.Module) -> None:
    """Refuse a network that is damaged, which the checkpoint `path` of `--flag` holds.

    Raises:
        OptionError: saying what is wrong with it.
    """
    try:
        checkpoint.check_network(model)
    except checkpoint.CheckpointError as error:
        raise OptionError(f"--{flag} {path}: {error}") from None


def check_place(options: argparse.Namespace) -> None:
    """See that the run's folder can be made and written to; what is made for that is removed again.

    Raises:
        OptionError: naming the folder and what keeps it from being made.
    """
    if options.resume and not options.evolve:
        folder = Path(options.save_dir)
    else:
        folder = Path(options.project) / options.name
    made: list[Path] = []
    try:
        str(folder).encode()
        if not options.resume:
            folder = upstream("utils.general").increment_path(folder, exist_ok=options.exist_ok)
        weights = folder / "weights"
        for part in (*reversed(weights.parents), weights):
            if not part.is_dir():
                part.mkdir()
                made.append(part)
        with TemporaryFile(dir=weights) as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:  # a ValueError for characters that no name can have
        shown, reason = str(folder), str(getattr(error, "strerror", None) or error)
        if isinstance(error, ValueError):
            shown = ascii(shown)
        elif isinstance(error, FileExistsError):
            reason = f"{error.filename} is no folder"
        raise OptionError(f"--project, --name: {shown} cannot be written: {reason}; name another place") from None
    finally:
        for part in reversed(made):
            with suppress(OSError):  # another program may have put something there meanwhile
                part.rmdir()


def _read_yaml(options: argparse.Namespace, flag: str) -> dict[str, Any]:
    name = getattr(options, flag)
    try:
        path = upstream("utils.general").check_yaml(name)
        contents = read_yaml(path, NAME_KEYS if flag == "data" else ())
    except DescriptionError as error:
        raise OptionError(f"--{flag} {error}") from None
    except (AssertionError, OSError, ValueError) as error:  # an address that cannot be reached, or is none
        raise OptionError(f"--{flag} {name}: {error}") from None
    if not isinstance(contents, dict):
        raise OptionError(f"--{flag} {path} holds no `key: value` lines: it should be a YOLOv5 {flag} yaml")
    setattr(options, flag, str(Path(path).resolve()))
    return contents


def _require_keys(options: argparse.Namespace, flag: str, contents: dict[str, Any], needed: set[str]) -> None:
    missing = sorted(needed - contents.keys())
    if missing:
        raise OptionError(f"--{flag} {getattr(options, flag)} lacks {', '.join(missing)}: add what YOLOv5's own files have")


def _network_of(weights: str, start: nn.Module | None) -> dict[str, Any]:
    """The model yaml in a checkpoint: that of a detector, and of one of the size of its weights."""
    if not isinstance(start, DetectionModel):
        kind = "classifier" if isinstance(start, upstream("models.yolo").ClassificationModel) else type(start).__name__
        raise OptionError(
            f"--weights {weights} holds no detector but a {kind}: start from a detector, or name a network whose layers fit, "
            f"for instance --cfg yolov5s.yaml, to take those over"
        )
    missing = sorted(MODEL_KEYS - start.yaml.keys())
    if missing:
        raise OptionError(f"--weights {weights}: the description of its network lacks {', '.join(missing)}")
    if isinstance(start.model[-1], upstream("models.yolo").Segment):
        raise OptionError(
            f"--weights {weights} is made for segmentation: start from the weights of a detector, or take over the layers that "
            f"fit by naming its network, for instance --cfg yolov5s.yaml"
        )
    held = sum(parameter.numel() for parameter in start.parameters())
    try:
        with torch.device("meta"), _without_words():  # a yaml can ask for more than any memory has
            layers, _ = upstream("models.yolo").parse_model(deepcopy(start.yaml), ch=[start.yaml.get("ch", 3)])
        described = sum(parameter.numel() for parameter in layers.parameters())
    except Exception as error:  # a damaged yaml can fail in any way
        raise OptionError(f"--weights {weights}: its network cannot be built: {type(error).__name__}: {error}") from None
    if described > 2 * held:
        raise OptionError(
            f"--weights {weights} is damaged: it describes a network of {described:,} parameters and holds {held:,}; "
            f"name its network with --cfg"
        )
    return start.yaml


def _check_detector(flag: str, network: dict[str, Any]) -> None:
    """A joint model ends with `Detect`."""
    try:
        last = network["head"][-1][2] if len(network["backbone"]) else None
    except (TypeError, LookupError):
        last = None
    if last != "Detect":
        raise OptionError(
            f"{flag}: the last layer of its network is {last}, not Detect: with image classes a detector is trained, such as "
            f"--cfg yolov5s.yaml"
        )


def _build(
    flag: str, network: dict[str, Any], num_boxes: int, anchors: Any, outputs: Outputs, options: argparse.Namespace
) -> JointDetectionModel:
    """The network as upstream's training will build it."""
    try:
        with _without_words():
            return JointDetectionModel(
                deepcopy(network), 3, num_boxes, anchors, None, options.shared_layer, options.backbone, options.head, outputs
            )
    except Exception as error:  # a yaml can be wrong in any way
        raise OptionError(f"{flag}: its network cannot be built: {type(error).__name__}: {error}") from None


@contextmanager
def _without_words() -> Iterator[None]:
    """Without upstream's table of layers: training shows it once the network is made to stay."""
    log = upstream("utils.general").LOGGER
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _common(start: nn.Module, model: nn.Module) -> bool:
    ours = model.state_dict()
    return any(value.ndim > 1 and name in ours and value.shape == ours[name].shape for name, value in start.state_dict().items())


def _check_layer(options: argparse.Namespace, network: dict[str, Any]) -> None:
    """The last layer of a network is `Detect`; a second backbone ends with the backbone."""
    last = len(network["backbone"]) - 1
    if options.backbone == "shared":
        last += len(network["head"]) - 1
    if not 0 <= options.shared_layer <= last:
        raise OptionError(f"--shared-layer {options.shared_layer}: this network has layers 0 to {last} to choose from")


def _find_weights(name: str) -> nn.Module:
    """The network in a checkpoint that is there or can be fetched."""
    if not name.endswith(".pt"):
        raise OptionError(f"--weights {name}: training starts from a .pt checkpoint; for scratch use --weights '' and --cfg")
    if Path(name).exists():
        return _sound_network(name)
    try:
        found = upstream("utils.downloads").attempt_download(name)
    except Exception as error:  # upstream's download fails in many ways; to the user they are one
        raise OptionError(f"--weights {name} is not there and cannot be fetched: {error}") from None
    if not Path(found).is_file():
        raise OptionError(f"--weights {name} is not there and cannot be fetched: name an existing file")
    return _sound_network(found)


def _sound_network(path: str | Path) -> nn.Module:
    model = read_checkpoint("weights", path)["model"]
    check_network("weights", path, model)
    return model
