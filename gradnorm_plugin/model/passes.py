"""Upstream's passes through a network, run on an object of their own that keeps what upstream's code throws away.

Such an object lives for one pass. Passes that run at the same time (threads, the replicas of DataParallel) share nothing, and a
compiler or exporter sees plain calls: hooks on the network would give neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradnorm_plugin.upstream.gateway import upstream

_DetectionModel = upstream("models.yolo").DetectionModel

Fork = Callable[[Tensor], tuple[Tensor, ...]]


class KeepingPass:
    """One pass through the layers that keeps what one of them hands on, in `output`.

    With `fork` the first of what it makes of that output goes on to the next layers, and the others are kept. With `bfloat16`
    all layers but the last (`Detect`) compute in that precision; what is handed out is float32.
    """

    _forward_once = _DetectionModel._forward_once
    _profile_one_layer = _DetectionModel._profile_one_layer

    def __init__(self, network: nn.Module, layer: int, fork: Fork | None = None, bfloat16: bool = False) -> None:
        self._kept, self._bfloat16 = _KeptLayer(network.model[layer], fork), bfloat16
        self.model = [*network.model]
        self.model[layer] = self._kept
        if bfloat16:
            self.model[-1] = _Float32Layer(self.model[-1])
        self.save = network.save

    def run(self, x: Tensor, profile: bool = False, visualize: bool = False) -> Any:
        """What upstream's network gives."""
        if not self._bfloat16:
            return self._forward_once(x, profile, visualize)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._forward_once(x, profile, visualize)

    @property
    def output(self) -> Tensor | Sequence[Tensor]:
        """What the layer handed on; with a fork into more than two, what is kept of it."""
        kept = self._kept.output
        if not self._bfloat16:
            return kept
        return kept.float() if isinstance(kept, Tensor) else [part.float() for part in kept]


class _KeptLayer:
    """Stands in a layer's place, with all its attributes."""

    def __init__(self, layer: nn.Module, fork: Fork | None) -> None:
        self._layer, self._fork = layer, fork
        self.output: Any = None

    def __call__(self, x: Any) -> Tensor:
        onward = self.output = self._layer(x)
        if self._fork is not None:
            onward, *kept = self._fork(onward)
            self.output = kept[0] if len(kept) == 1 else kept
        return onward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _Float32Layer:
    """Stands in `Detect`'s place, for boxes are read from its outputs: 8 bits of a coordinate are off by a pixel."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def __call__(self, features: Sequence[Tensor]) -> Any:
        with torch.autocast(features[0].device.type, enabled=False):
            return self._layer([of.float() for of in features])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class AugmentedPass:
    """Upstream's test-time augmentation that keeps the logits of each augmented image, in `logits`."""

    run = _DetectionModel._forward_augment

    def __init__(self, network: nn.Module, run_both: Callable[[Tensor], tuple[Any, Tensor]]) -> None:
        """`run_both` gives what upstream's network returns in inference, and the logits (B, C)."""
        self._network, self._run_both = network, run_both
        self.logits: list[Tensor] = []

    def _forward_once(self, x: Tensor) -> Any:
        detection, logits = self._run_both(x)
        self.logits.append(logits)
        return detection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)
