"""What each layer of a detector hands on: looked up by running it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class LayerOutput:
    """The feature map that a layer hands on."""

    channels: int
    cell: float
    """Side of a cell in pixels of the image: the layer's stride."""
    last_weights: str | None
    """Name, within the layer, of the weights that are applied last; None for a layer without any."""


@torch.no_grad()
def inspect_layers(network: nn.Module, run: Callable[[Tensor], object], channels: int) -> list[LayerOutput]:
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


def last_weights(network: nn.Module, layers: list[LayerOutput], index: int) -> str:
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
        sources = network.model[layer].f
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
