"""Any weights that upstream runs (.pt, TorchScript, ONNX, OpenVINO, ...), with the image's class beside the boxes.

B batch, C classes of the image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from gradnorm_plugin.upstream.gateway import upstream

_common = upstream("models.common")

METADATA_KEY = "classification_names"


class JointBackend(_common.DetectMultiBackend):
    """Upstream's `DetectMultiBackend`, which also knows the image's classes: `forward` returns what upstream's does.

    * `classification_names`: {0: name, ...}; empty for a model that only detects.
    * `probabilities`: (B, C) of the last forward, float32, each row sums to 1; None before the first and for such a model.
      Several `.pt` weights (an ensemble) and test-time augmentation give the softmax of the mean logits.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.probabilities: Tensor | None = None
        self._logits: list[Tensor] = []
        if self.pt:
            heads = [head for module in self.model.modules() if (head := getattr(module, "classification_head", None))]
            for head in heads:
                head.register_forward_hook(lambda _, __, logits: self._logits.append(logits.float()))
        self.classification_names = self._find_names()

    def forward(self, im: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Upstream's outputs; the image's class is left in `probabilities`."""
        self._logits.clear()
        outputs = super().forward(im, *args, **kwargs)
        if not self.classification_names:
            return outputs
        self.probabilities = torch.stack(self._logits).mean(0).softmax(1) if self.pt else outputs[1].float()
        return outputs

    def _find_names(self) -> dict[int, str]:
        found: Mapping | None = None
        if self.pt:
            members = [self.model] if hasattr(self.model, METADATA_KEY) else list(self.model.children())
            found = getattr(members[0], METADATA_KEY, None) if members else None
        elif self.jit:
            found = json.loads(self.extra_files["config.txt"] or "{}").get(METADATA_KEY)
        elif self.onnx and not self.dnn:  # OpenCV's reader gives no metadata
            found = json.loads(self.meta.get(METADATA_KEY, "{}"))
        elif self.xml:
            description = Path(self.w).with_suffix(".yaml")
            found = yaml.safe_load(description.read_text(encoding="utf-8")).get(METADATA_KEY) if description.is_file() else None
        return {int(index): str(name) for index, name in (found or {}).items()}
