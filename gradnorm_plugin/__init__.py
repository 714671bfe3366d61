"""Joint detection and image classification for YOLOv5, balanced by GradNorm.

The names below are imported when they are first asked for: `python -m gradnorm_plugin setup` must run before there is a YOLOv5,
and needs no other library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradnorm_plugin.balancing import FixedWeights, GradNorm
    from gradnorm_plugin.data.targets import JointTargets
    from gradnorm_plugin.loss import GradNormLoss
    from gradnorm_plugin.model.joint import JointDetectionModel
    from gradnorm_plugin.predict.prediction import Prediction
    from gradnorm_plugin.predict.predictor import Predictor

__all__ = ["FixedWeights", "GradNorm", "GradNormLoss", "JointDetectionModel", "JointTargets", "Prediction", "Predictor"]

_HOMES = {
    "FixedWeights": "gradnorm_plugin.balancing",
    "GradNorm": "gradnorm_plugin.balancing",
    "GradNormLoss": "gradnorm_plugin.loss",
    "JointDetectionModel": "gradnorm_plugin.model.joint",
    "JointTargets": "gradnorm_plugin.data.targets",
    "Prediction": "gradnorm_plugin.predict.prediction",
    "Predictor": "gradnorm_plugin.predict.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
