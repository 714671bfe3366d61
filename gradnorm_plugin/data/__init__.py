"""From label files to batches. `dataset` and `checking` need upstream's checkout: import them where they are used."""

from __future__ import annotations

from gradnorm_plugin.data.description import DescriptionError, classification_names, image_outputs
from gradnorm_plugin.data.targets import NO_CLASS, JointTargets

__all__ = ["NO_CLASS", "DescriptionError", "JointTargets", "classification_names", "image_outputs"]
