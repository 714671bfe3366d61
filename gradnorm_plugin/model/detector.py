"""Upstream's networks as types: what of them is used here, since their own source has none. In a program they are upstream's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from gradnorm_plugin.upstream.gateway import upstream

if TYPE_CHECKING:

    class Layered(Protocol):
        """What upstream's pass through the layers needs."""

        @property
        def model(self) -> Iterable[Callable[..., Any]]:
            """They run one after the other, each on what the layers named by its `f` handed on."""

        @property
        def save(self) -> list[int]:
            """Those whose output later ones read."""

    class BaseModel(nn.Module):
        """A network of such layers."""

        model: nn.Sequential
        save: list[int]

        def _forward_once(self: Layered, x: Tensor, profile: bool = False, visualize: bool = False) -> Any: ...

        def _profile_one_layer(self: object, m: nn.Module, x: Tensor, dt: list[float]) -> None: ...

        def fuse(self) -> BaseModel:
            """Fold batch normalisation into the convolutions, in place."""

    class DetectionModel(BaseModel):
        """A network that ends with `Detect`."""

        yaml: dict[str, Any]
        names: Mapping[int, str] | list[str]
        stride: Tensor
        hyp: dict[str, Any]

        def __init__(self, cfg: str | Mapping[str, Any], ch: int, nc: int | None, anchors: Sequence | int | None) -> None: ...

        def _forward_augment(self: object, x: Tensor) -> tuple[Tensor, None]: ...

    class Detect(nn.Module):
        """The last layer: raw outputs in training, predictions in pixels beside them in inference."""

        nc: int
        stride: Tensor
        export: bool

        def _make_grid(self, nx: int, ny: int, i: int) -> tuple[Tensor, Tensor]: ...

else:
    _yolo = upstream("models.yolo")
    BaseModel, DetectionModel, Detect = _yolo.BaseModel, _yolo.DetectionModel, _yolo.Detect


def detect_layer(network: DetectionModel) -> Detect:
    """The last layer of a detector."""
    return cast(Detect, network.model[-1])
