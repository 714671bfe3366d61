"""`--backbone dual`: a second backbone, which serves classification alone. The two tasks then share no layer."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor

from gradnorm_plugin.model.detector import BaseModel
from gradnorm_plugin.upstream.gateway import upstream

_yolo = upstream("models.yolo")
_torch_utils = upstream("utils.torch_utils")


class ClassificationBackbone(BaseModel):
    """The first layers of a detector, with weights of their own: (B, ch, H, W) to the feature map of the last of them.

    Its parameters are called as those of the detector's layers, `model.N. ...`. That is what upstream's `--freeze` looks for
    anywhere in a name: layers that are frozen are frozen in both backbones.
    """

    def __init__(self, yaml: Mapping[str, Any], last_layer: int) -> None:
        """Build layers 0 to `last_layer` of the backbone in `yaml`, the `DetectionModel.yaml` of the detector."""
        super().__init__()
        cut = {**yaml, "backbone": yaml["backbone"][: last_layer + 1], "head": []}
        self.model, self.save = _yolo.parse_model(deepcopy(cut), ch=[yaml["ch"]])  # it writes into what it reads
        _torch_utils.initialize_weights(self)

    def complete(self, state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """The detector's `state_dict`, with its layers once more as those of this backbone, under `prefix`.

        One that has such weights already is left as it is.
        """
        if any(name.startswith(prefix) for name in state_dict):
            return dict(state_dict)
        return {**state_dict, **{f"{prefix}{name}": state_dict[name] for name in self.state_dict() if name in state_dict}}
