"""What the layers of a detector hand on: looked up by running it once, and kept from a pass that upstream's code makes.

Such a pass is an object that lives as long as it. Passes that run at the same time (threads, the replicas of DataParallel) share
nothing, and a compiler or exporter sees plain calls: hooks on the network would give neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.detector import BaseModel, Detect, DetectionModel

Fork = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass
class LayerOutput:
    """The feature map that a layer hands on."""

    channels: int
    cell: float
    """Side of a cell in pixels of the image: the layer's stride."""
    last_weights: str | None
    """Name, within the layer, of the weights that are applied last; None for a layer without any."""


@torch.no_grad()
def inspect_layers(network: DetectionModel, run: Callable[[Tensor], object], channels: int) -> list[LayerOutput]:
    """Run a blank image through `network.model` and describe what its layers hand on, all but the last (`Detect`).

    Args:
        network: upstream's detection network; its batch statistics stay what they are.
        run: its forward pass.
        channels: of the image.
    """
    side = 2 * int(network.stride.max())
    found = [LayerOutput(0, 0.0, None) for _ in network.model[:-1]]
    handles = []
    for output, layer in zip(found, network.model, strict=False):
        for name, module in layer.named_modules():
            if any(p.ndim > 1 for p in module.parameters(recurse=False)):
                handles.append(module.register_forward_hook(_remember_weights(output, f"{name}.weight" if name else "weight")))
        handles.append(layer.register_forward_hook(_remember_shape(output, side)))
    was_training = network.training
    try:
        network.eval()  # in training mode this pass would move the batch statistics
        run(torch.zeros(1, channels, side, side))
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    return found


def last_weights(network: DetectionModel, layers: list[LayerOutput], index: int) -> str:
    """Name, within `network.model`, of the last weights that make what layer `index` hands on.

    A layer without any (pooling, upsampling, concatenation) hands on what the latest of those that it reads from made.

    Raises:
        ValueError: if there are no weights up to there.
    """
    layer = index
    while layer >= 0:
        name = layers[layer].last_weights
        if name is not None:
            return f"{layer}.{name}"
        sources = cast("int | list[int]", network.model[layer].f)
        sources = sources if isinstance(sources, list) else [sources]
        layer = max(source if source >= 0 else layer + source for source in sources)
    raise ValueError(f"layer {index} comes before all weights of the network: there is nothing that both tasks share")


def _remember_weights(output: LayerOutput, name: str) -> Callable[..., None]:
    def remember(*_: object) -> None:
        output.last_weights = name

    return remember


def _remember_shape(output: LayerOutput, side: int) -> Callable[..., None]:
    def remember(_: nn.Module, __: object, features: Tensor) -> None:
        output.channels, output.cell = features.shape[1], side / features.shape[3]

    return remember


class KeepingPass:
    """One pass through the layers that keeps what one of them hands on, in `output`, and of a second one in `deep_output`.

    With `fork` the first of what it makes of that output goes on to the next layers, and the others are kept. With `bfloat16`
    all layers but the last (`Detect`) compute in that precision; what is handed out is float32.
    """

    _forward_once = DetectionModel._forward_once
    _profile_one_layer = DetectionModel._profile_one_layer

    def __init__(
        self, network: BaseModel, layer: int, deep: int | None = None, fork: Fork | None = None, bfloat16: bool = False
    ) -> None:
        self.model, self._bfloat16 = [*network.model], bfloat16
        self._kept = self.model[layer] = _KeptLayer(self.model[layer], fork)
        self._deep = None if deep is None else _KeptLayer(self.model[deep], None)
        if deep is not None:
            self.model[deep] = self._deep
        if bfloat16 and isinstance(self.model[-1], Detect):
            self.model[-1] = _Float32Layer(self.model[-1])
        self.save = network.save

    def run(self, x: Tensor, *how: Any, **named: Any) -> Any:
        """What upstream's network gives."""
        if not self._bfloat16:
            return self._forward_once(x, *how, **named)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._forward_once(x, *how, **named)

    @property
    def output(self) -> Tensor | Sequence[Tensor]:
        """What the layer handed on; with a fork into more than two, what is kept of it."""
        return self._in_float32(self._kept.output)

    @property
    def deep_output(self) -> Tensor | None:
        """What the second layer handed on; None if there is none."""
        return None if self._deep is None else cast("Tensor", self._in_float32(self._deep.output))

    def _in_float32(self, kept: Any) -> Tensor | Sequence[Tensor]:
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

    run = DetectionModel._forward_augment

    def __init__(self, network: DetectionModel, run_both: Callable[[Tensor], tuple[Any, Tensor]]) -> None:
        """`run_both` gives what upstream's network returns in inference, and the logits (B, C)."""
        self._network, self._run_both = network, run_both
        self.logits: list[Tensor] = []

    def _forward_once(self, x: Tensor) -> Any:
        detection, logits = self._run_both(x)
        self.logits.append(logits)
        return detection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)
