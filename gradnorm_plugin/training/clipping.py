"""Upstream's gradient clip, applied to the detection network and to what serves classification alone each by itself.

Upstream clips the norm of all gradients together at 10. A head whose gradient is a hundred times larger than the detector's would
scale the detector's step down with its own; apart, neither eats the other's. And a head
without gradient (classification switched off) leaves the detector's clip what it is without a head, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_clip: Callable[..., Tensor] = torch.nn.utils.clip_grad_norm_


class SeparateClip:
    """Takes the place of `torch.nn.utils.clip_grad_norm_` while upstream trains.

    `detection_norm` and `head_norm` are the norms before the last clip, 0-dim tensors; None before the first. The head's part
    has its own backbone in it, where it has one.
    """

    def __init__(self, head: Iterable[nn.Parameter]) -> None:
        self._head = {id(parameter) for parameter in head}
        self.detection_norm: Tensor | None = None
        self.head_norm: Tensor | None = None

    def __call__(self, parameters: Iterable[Tensor] | Tensor, max_norm: float, *args: object, **kwargs: object) -> Tensor:
        """Clip each part at `max_norm` and return the detection part's norm before."""
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        head = [parameter for parameter in parameters if id(parameter) in self._head]
        detection = [parameter for parameter in parameters if id(parameter) not in self._head]
        self.detection_norm = _clip(detection, max_norm, *args, **kwargs)
        if head:
            self.head_norm = _clip(head, max_norm, *args, **kwargs)
        return self.detection_norm
