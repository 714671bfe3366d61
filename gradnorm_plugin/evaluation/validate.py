"""Upstream's `val.run`, unchanged, with the classification read beside it in the same pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradnorm_plugin.evaluation.metrics import ClassificationMetrics, classification_metrics
from gradnorm_plugin.upstream.gateway import upstream


class _PlainBatches:
    """A joint loader as upstream's validation wants it: the boxes as a plain tensor. Keeps the classes it passed by."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.classes: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, Tensor, Any, Any]]:
        for images, targets, paths, shapes in self.loader:
            self.classes.append(targets.classes)
            yield images, targets.boxes, paths, shapes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def validate(*args: Any, model: nn.Module, dataloader: Any, **kwargs: Any) -> tuple[tuple[Any, Any, Any], ClassificationMetrics]:
    """Run upstream's `val.run(*args, model=..., dataloader=..., **kwargs)` on a joint model and loader.

    Returns:
        What upstream returns, to the last digit, and the classification's metrics.
    """
    batches = _PlainBatches(dataloader)
    logits: list[Tensor] = []
    handle = model.classification_head.register_forward_hook(lambda _, __, output: logits.append(output.float().cpu()))
    try:
        results = upstream("val").run(*args, model=model, dataloader=batches, **kwargs)
    finally:
        handle.remove()
    if not logits:
        return results, classification_metrics(np.zeros((0, len(model.classification_names))), np.zeros(0, dtype=np.int64))
    probabilities = torch.cat(logits).softmax(1).numpy()
    return results, classification_metrics(probabilities, torch.cat(batches.classes).numpy())
