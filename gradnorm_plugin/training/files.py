"""The files that the options name, looked at before upstream makes a run folder: bad ones should leave nothing behind."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from gradnorm_plugin.data.description import NAME_KEYS, DescriptionError, classification_names
from gradnorm_plugin.data.files import read_yaml
from gradnorm_plugin.upstream.gateway import upstream

MODEL_KEYS = {"nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head"}


class OptionError(ValueError):
    """An option names something that is not there, or not what it should be."""


def check_files(options: argparse.Namespace) -> None:
    """Find and read the files that the options name, where upstream looks for them.

    A resumed run has its hyperparameters in its options and its model in the checkpoint.

    Raises:
        OptionError: naming the flag, the file and what is wrong with it.
        DescriptionError: if the data yaml has no usable `classification_names`.
    """
    classification_names(_read_yaml(options, "data"))  # before upstream downloads data that could not be used
    if options.resume:
        return
    reference = upstream("utils.general").check_file("hyp.scratch-low.yaml")
    needed = set(read_yaml(reference))
    _require_keys(options, "hyp", _read_yaml(options, "hyp"), needed)
    network: dict[str, Any] = {}
    if options.weights:
        network = _find_weights(str(options.weights))
    if options.cfg:
        network = _read_yaml(options, "cfg")
        _require_keys(options, "cfg", network, MODEL_KEYS)
        if yaml.safe_load(Path(options.cfg).read_text(encoding="ascii", errors="ignore")) != network:
            raise OptionError(f"--cfg {options.cfg}: YOLOv5 reads model yamls as ASCII: write its keys and values so")
    if options.shared_layer is not None:
        _check_layer(options, network)


def read_checkpoint(flag: str, path: str | Path) -> dict[str, Any]:
    """The contents of the checkpoint that `--flag path` names, read so that nothing in it can run (docs/trust.md).

    Raises:
        OptionError: if it is no checkpoint, or asks for more than a checkpoint needs.
    """
    try:
        contents = upstream("utils.trust").load_checkpoint(path)
    except (OSError, ValueError) as error:  # TrustError is a ValueError
        raise OptionError(f"--{flag} {error}") from None
    if not isinstance(contents, dict) or not isinstance(contents.get("model"), nn.Module):
        raise OptionError(f"--{flag} {path} is no YOLOv5 checkpoint: it holds no `model`")
    return contents


def _read_yaml(options: argparse.Namespace, flag: str) -> dict[str, Any]:
    name = getattr(options, flag)
    try:
        path = upstream("utils.general").check_yaml(name)
        contents = read_yaml(path, NAME_KEYS if flag == "data" else ())
    except AssertionError as error:
        raise OptionError(f"--{flag} {name}: {error}") from None
    except DescriptionError as error:
        raise OptionError(f"--{flag} {error}") from None
    if not isinstance(contents, dict):
        raise OptionError(f"--{flag} {path} holds no `key: value` lines: it should be a YOLOv5 {flag} yaml")
    setattr(options, flag, str(Path(path).resolve()))
    return contents


def _require_keys(options: argparse.Namespace, flag: str, contents: dict[str, Any], needed: set[str]) -> None:
    missing = sorted(needed - contents.keys())
    if missing:
        raise OptionError(f"--{flag} {getattr(options, flag)} lacks {', '.join(missing)}: add what YOLOv5's own files have")


def _check_layer(options: argparse.Namespace, network: dict[str, Any]) -> None:
    """The last layer of a network is `Detect`; a second backbone ends with the backbone."""
    last = len(network["backbone"]) - 1
    if options.backbone == "shared":
        last += len(network["head"]) - 1
    if not 0 <= options.shared_layer <= last:
        raise OptionError(f"--shared-layer {options.shared_layer}: this network has layers 0 to {last} to choose from")


def _find_weights(name: str) -> dict[str, Any]:
    """The model yaml in a checkpoint that is there or can be fetched."""
    if not name.endswith(".pt"):
        raise OptionError(f"--weights {name}: training starts from a .pt checkpoint; for scratch use --weights '' and --cfg")
    if Path(name).is_file():
        return read_checkpoint("weights", name)["model"].yaml
    try:
        found = upstream("utils.downloads").attempt_download(name)
    except Exception as error:  # upstream's download fails in many ways; to the user they are one
        raise OptionError(f"--weights {name} is not there and cannot be fetched: {error}") from None
    if not Path(found).is_file():
        raise OptionError(f"--weights {name} is not there and cannot be fetched: name an existing file")
    return read_checkpoint("weights", found)["model"].yaml
