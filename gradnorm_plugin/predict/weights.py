"""Weights of any format that upstream runs, loaded with errors that name the file, and the input that they were exported for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import why_unreadable
from gradnorm_plugin.predict.errors import PredictError
from gradnorm_plugin.upstream.gateway import upstream


def load(weights: str | Path | Sequence[str | Path], device: str, half: bool, dnn: bool, data: str | Path | None) -> JointBackend:
    """Upstream's backend for `weights`, ready to run.

    Raises:
        PredictError: if they are not there or cannot be loaded, or if there is no such device.
    """
    names = [str(weights)] if isinstance(weights, (str, Path)) else [str(name) for name in weights]
    shown = ", ".join(names)
    device = "" if device.strip().lower() == "auto" else device
    try:
        chosen = upstream("utils.torch_utils").select_device(device)
    except AssertionError as error:
        raise PredictError(str(error)) from None
    try:
        backend = JointBackend(names if len(names) > 1 else names[0], device=chosen, dnn=dnn, data=data, fp16=half)
    except Exception as error:  # a missing file, a foreign one, a library that is not installed: each format in its own way
        missing = [name for name in names if "://" not in name and not Path(name).exists()]
        if missing:
            raise PredictError(f"weights {', '.join(missing)}: no such file") from None
        raise PredictError(f"weights {shown} cannot be loaded: {why_unreadable(names, error)}") from error
    return backend.eval()


def trained_size(weights: str | Path | Sequence[str | Path]) -> int | None:
    """The `--imgsz` that a .pt was trained with (the first of several); None for other files, and where it does not say."""
    first = str(weights if isinstance(weights, (str, Path)) else weights[0])
    if not first.endswith(".pt"):
        return None
    options = upstream("utils.trust").load_checkpoint(first).get("opt")
    size = options.get("imgsz") if isinstance(options, dict) else getattr(options, "imgsz", None)
    return size if isinstance(size, int) and size > 0 else None


def input_shape(backend: JointBackend) -> tuple[int | None, tuple[int, int] | None]:
    """How many images, and of what height and width, the weights take; None for what is not fixed."""
    if backend.jit:
        shape = json.loads(backend.extra_files["config.txt"] or "{}").get("shape")
    elif backend.dnn:
        return 1, None  # OpenCV does not tell, and upstream exports for one image unless told otherwise
    elif backend.onnx:
        shape = backend.session.get_inputs()[0].shape
    elif backend.xml:
        found = backend.network.get_parameters()[0].get_partial_shape()
        shape = [side.get_length() if side.is_static else None for side in found]
    else:
        return None if backend.pt else 1, None
    if not shape:
        return None, None
    batch, _, height, width = [side if isinstance(side, int) else None for side in shape]
    return batch, (height, width) if height and width else None
