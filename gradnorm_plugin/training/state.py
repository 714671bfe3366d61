"""The balancer's state in upstream's checkpoints: plain data on the model that upstream pickles, gone when it strips it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

ATTRIBUTE = "balancer_state"


def attach_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Let the next checkpoint of `model` carry `state`."""
    setattr(model, ATTRIBUTE, state)


def read_state(checkpoint: Path) -> dict[str, Any] | None:
    """The balancer's state in a checkpoint that training wrote; None if it is a stripped one, or not a joint model's."""
    contents = torch.load(checkpoint, map_location="cpu", weights_only=False)
    return getattr(contents["model"], ATTRIBUTE, None)
