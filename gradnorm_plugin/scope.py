"""`--weight-scope shared`: a task's weight acts on the shared layers only."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def unshared_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that serve detection alone (the layers after the shared one, all if none is), and classification alone."""
    first = 0 if model.backbone == "dual" else model.shared_layer + 1
    return list(model.model[first:].parameters()), model.classification_parameters()


def rescale_unshared(model: nn.Module, weights: Callable[[], tuple[float, float]]) -> None:
    """Divide the gradient of every parameter that serves one task alone by that task's weight, as it arrives.

    The loss is weighted as a whole; this undoes it outside the shared layers, in the same backward pass. A task whose weight is
    0 gets no gradient anywhere.

    Args:
        model: a `JointDetectionModel`; the hooks stay on its parameters.
        weights: gives the weights that the loss of the running step was multiplied with.
    """

    def rescaled_by(task: int) -> Callable[[Tensor], Tensor | None]:
        def rescale(gradient: Tensor) -> Tensor | None:
            weight = weights()[task]
            return gradient / weight if weight > 0 else None

        return rescale

    for task, parameters in enumerate(unshared_parameters(model)):
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_hook(rescaled_by(task))
