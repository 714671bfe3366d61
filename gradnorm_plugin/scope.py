"""`--weight-scope shared`: a task's weight acts on the shared layers only."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from gradnorm_plugin.model.joint import JointDetectionModel


def unshared_parameters(model: JointDetectionModel) -> list[list[nn.Parameter]]:
    """The parameters that serve detection alone (the layers after the shared one, all if none is), and each image output alone.

    A backbone of their own serves all image outputs; where there is but one, it is that one's alone.
    """
    if model.backbone == "shared":
        return [list(part.parameters()) for part in (model.model[model.shared_layer + 1 :], *model.heads)]
    if len(model.heads) == 1:
        return [list(model.model.parameters()), model.classification_parameters()]
    return [list(part.parameters()) for part in (model.model, *model.heads)]


def rescale_unshared(model: JointDetectionModel, weights: Callable[[], tuple[float, ...]]) -> None:
    """Divide the gradient of every parameter that serves one task alone by that task's weight, as it arrives.

    The loss is weighted as a whole; this undoes it outside the shared layers, in the same backward pass. A task whose weight is
    0 gets no gradient anywhere.

    Args:
        model: the hooks stay on its parameters.
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
