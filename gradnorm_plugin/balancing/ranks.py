"""What the processes of a distributed training agree on; without a process group each function hands its argument back.

Every function is a collective: all ranks call it at the same point, none of them inside a backward pass.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of all ranks' `values`, which have one shape."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def of_first_rank(values: Tensor) -> Tensor:
    """Rank 0's `values`, to the last bit, on every rank."""
    if world_size() > 1:
        values = values.clone()
        dist.broadcast(values, src=0)
    return values
