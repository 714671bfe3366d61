"""Weights of any format that upstream runs, loaded with errors that name the file."""

from __future__ import annotations

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
