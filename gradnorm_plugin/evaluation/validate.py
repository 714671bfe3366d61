"""Upstream's `val.run`, unchanged, with the classification read beside it in the same pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.upstream.gateway import upstream


def validate(*args: Any, model: nn.Module, dataloader: Any, **kwargs: Any) -> tuple[tuple[Any, Any, Any], Recording]:
    """Run upstream's `val.run(*args, model=..., dataloader=..., **kwargs)` on a joint model and loader, as training does.

    Returns:
        What upstream returns, to the last digit, and what passed by.
    """
    recording = Recording(dict(model.classification_names))
    latest: list[Tensor] = []
    handle = model.classification_head.register_forward_hook(lambda _, __, logits: latest.append(logits))
    recording.split_outputs = lambda predictions: (predictions, latest.pop().float().softmax(1))
    try:
        with recording.in_place():
            return upstream("val").run(*args, model=model, dataloader=recording.batches(dataloader), **kwargs), recording
    finally:
        handle.remove()
