"""What every way of weighting T task losses has in common.

T tasks; losses and gradient norms are unweighted, that is, those of the task alone at weight 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Balancer(ABC):
    """Holds one weight a task. The weights are no model parameters: no optimiser decays them, no EMA averages them."""

    weights: Tensor
    """(T,) float64 on the CPU, the factor of each task's loss in the total."""

    def begin_step(self, losses: Sequence[Tensor]) -> bool:
        """Count one batch in which every task has a loss; True if this batch's gradients are to be measured.

        Args:
            losses: T detached scalars, unweighted; they may stay on the accelerator.
        """
        return False

    @abstractmethod
    def update(self, losses: Sequence[float] | Tensor, gradient_norms: Sequence[float] | Tensor) -> Tensor:
        """Move the weights by one step and return them, (T,) float64."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on exactly."""
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


def as_task_vector(name: str, values: Sequence[float] | Tensor, num_tasks: int) -> Tensor:
    """`values` as a (T,) float64 tensor on the CPU.

    Raises:
        ValueError: if there is not one value a task.
    """
    vector = torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten()
    if vector.numel() != num_tasks:
        raise ValueError(f"{name} has {vector.numel()} values, expected one for each of {num_tasks} tasks")
    return vector
