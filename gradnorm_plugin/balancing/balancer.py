"""The interface of all balancers of T task losses, and the collectives of distributed training.

Losses and gradient norms are unweighted, that is, of each task at weight 1. The rank functions are collectives: all ranks call
them at the same point, never inside a backward pass. Without a process group they return their argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor


class Balancer(ABC):
    """Holds one weight per task. The weights are not model parameters: no optimizer decays them, no EMA averages them.

    A training step gets the batch's weights from `weigh`, passes its losses to `begin_step` and, if that returned True, the
    measured gradients to `update`. An epoch ends with `end_epoch`.
    """

    name: str
    """Its name for `--balancer`."""
    label: str
    """For tables and plots."""
    note: str
    """A one-line description."""
    needs_shared_layer: ClassVar[bool] = False
    """Whether it needs a layer that the tasks share."""
    weights: Tensor
    """(T,) float64 on the CPU, the factor of each task's loss in the total."""

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """The weights for the batch with these losses, (T,) float64: the current ones, or new ones that replace them.

        Called only for batches in which every task has a loss; others use the current weights.

        Args:
            losses: as for `begin_step`.
        """
        return self.weights

    @abstractmethod
    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Count one batch in which every task has a loss; True if its gradients are to be measured.

        Args:
            losses: T detached scalars, unweighted, per image; they may stay on the accelerator.
        """

    @abstractmethod
    def update(self, losses: Sequence[float] | Tensor, gradient_norms: Sequence[float] | Tensor) -> Tensor:
        """Update with the losses and gradient norms of a measured batch; returns the weights, (T,) float64."""

    def end_epoch(self) -> None:
        """Called after the last batch of an epoch."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to continue exactly."""
        return {"weights": self.weights.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave.

        Raises:
            ValueError: if it is for another number of tasks.
        """
        weights = torch.as_tensor(state["weights"], dtype=torch.float64)
        if weights.shape != self.weights.shape:
            raise ValueError(
                f"state holds {weights.numel()} task weights, expected {self.weights.numel()}: "
                f"it belongs to a run with other tasks"
            )
        self.weights = weights.clone()


class WatchedBalancer(Balancer):
    """A balancer that does not need gradient norms; they are still measured every `interval` batches, for the tables.

    Raises:
        ValueError: if `interval` is negative; 0 measures nothing.
    """

    def __init__(self, weights: Tensor, interval: int = 0) -> None:
        if interval != int(interval) or interval < 0:
            raise ValueError(f"interval must be a whole number of at least 0, found {interval}")
        self.weights = weights
        self.interval = interval
        self.batches = 0

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Count one batch; True for the first of every `interval`."""
        self.batches += 1
        return self.interval > 0 and (self.batches - 1) % self.interval == 0

    def update(self, losses: Sequence[float] | Tensor, gradient_norms: Sequence[float] | Tensor) -> Tensor:
        """The current weights, unchanged."""
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Weights and the number of batches."""
        return {**super().state_dict(), "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        super().load_state_dict(state)
        self.batches = state.get("batches", 0)  # version 0.1.0 wrote none for fixed weights


def loss_values(losses: Sequence[Tensor]) -> Tensor:
    """T detached scalars as (T,) float64 on the CPU."""
    return torch.stack([loss.detach().reshape(()) for loss in losses]).cpu().double()


def as_task_vector(name: str, values: Sequence[float] | Tensor, num_tasks: int) -> Tensor:
    """`values` as a (T,) float64 tensor on the CPU.

    Raises:
        ValueError: if there is not one value a task.
    """
    vector = torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten()
    if vector.numel() != num_tasks:
        raise ValueError(f"{name} has {vector.numel()} values, expected one for each of {num_tasks} tasks")
    return vector


def positive_weights(name: str, values: Sequence[float] | None, num_tasks: int) -> Tensor:
    """`values` (default 1 each) as (T,) float64 initial weights.

    Raises:
        ValueError: if there is not one finite, positive value per task.
    """
    weights = as_task_vector(name, [1.0] * num_tasks if values is None else values, num_tasks).clone()
    if not (torch.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"{name} must be positive, found {weights.tolist()}")
    return weights


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
    """Rank 0's `values`, bit-identical on every rank."""
    if world_size() > 1:
        values = values.clone()
        dist.broadcast(values, src=0)
    return values
