"""The balancer's state in upstream's checkpoints: plain data on the model that upstream pickles, gone when it strips it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from gradnorm_plugin.upstream.gateway import upstream

ATTRIBUTE = "balancer_state"


def attach_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Let the next checkpoint of `model` carry `state`."""
    setattr(model, ATTRIBUTE, state)


def read_state(checkpoint: Path) -> dict[str, Any] | None:
    """The balancer's state in a checkpoint that training wrote; None if it is a stripped one, or not a joint model's.

    Raises:
        TrustError: upstream's, if the file asks for more than a checkpoint needs.
    """
    contents = upstream("utils.trust").load_checkpoint(checkpoint)
    return getattr(contents["model"], ATTRIBUTE, None)
