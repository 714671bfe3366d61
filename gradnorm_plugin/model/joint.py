"""One network for all tasks: upstream's `DetectionModel`, unchanged, plus a head per image output on the last shared layer.

With `backbone="dual"` the heads have a separate backbone instead (`model/dual.py`).

B batch, W concatenated logits of all image outputs (for a class output, its number of classes), nl detection layers, na anchors,
no outputs per anchor, n predictions per image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnorm_plugin.model import BACKBONES, HEADS
from gradnorm_plugin.model.detector import DetectionModel, detect_layer
from gradnorm_plugin.model.dual import ClassificationBackbone
from gradnorm_plugin.model.guided import GuidedHead, Regions, decode
from gradnorm_plugin.model.head import ClassificationHead, Head, OutputHeads
from gradnorm_plugin.model.layers import AugmentedPass, KeepingPass, LayerOutput, inspect_layers, last_weights
from gradnorm_plugin.outputs import (
    CLASS,
    ImageOutput,
    Outputs,
    activate,
    class_names,
    class_output,
    describe_outputs,
    read_outputs,
    split,
)
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")
_torch_utils = upstream("utils.torch_utils")


class Seen(NamedTuple):
    """The results of one pass through the layers."""

    detection: Any
    """The output of upstream's network."""
    features: Tensor | Sequence[Tensor]
    """(B, C, H, W) of the heads' layer; with a fork, one per head."""
    deep: Tensor | None
    """Features of the deeper layer, for heads that read one."""


class JointDetectionModel(DetectionModel):
    """Detects objects and predicts the image outputs, such as the image's class.

    `forward` returns:

    * training: `(detection, logits)`; detection is upstream's list of nl tensors (B, na, H, W, no), logits is (B, W).
    * inference: `(predictions, (detection, logits))`; predictions (B, n, 5 + nc) in pixels, as upstream's.
    * export (upstream's `Detect.export` is set): `(predictions, *answers)`, an activated tensor per image output; for a class,
      probabilities (B, C) that sum to 1.
    * `augment=True` (test-time augmentation): `(predictions, (None, logits))`, logits averaged over the augmented images.
    """

    fork: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    """In training: forks the shared layer's output for detection and each head. Set by the loss if the balancer acts on the
    gradients there; it is not part of the network and is left out of copies and checkpoints."""

    watch: Callable[[Tensor], None] | None = None
    """In training: receives the head's logits before a wrapper of the model (DistributedDataParallel) adds its own autograd
    nodes. Set by the loss and left out of copies and checkpoints, like `fork`."""

    channels_last = False
    """Whether training runs in PyTorch's channels-last memory format, which activations inherit from the images. The weights
    keep theirs, because upstream's code relies on it."""

    in_bfloat16 = False
    """Whether the layers before `Detect` and the heads compute in bfloat16. Left out of copies and checkpoints, like `fork`."""

    deep_layer: int | None = None
    """Index of the layer from which heads of kind "both" read the whole image; None for the others, and in old checkpoints."""

    image_outputs: Mapping[str, Mapping[str, Any]] | None = None
    """Descriptions of the image outputs, plain data; None if the class is the only one."""

    temperatures: Mapping[str, float] | None = None
    """Calibration temperatures of the class outputs, by name; exported files and `JointBackend` divide the logits by them. None
    for an uncalibrated network."""

    def __init__(
        self,
        cfg: str | Mapping[str, Any] = "yolov5s.yaml",
        ch: int = 3,
        nc: int | None = None,
        anchors: Sequence | int | None = None,
        classification_names: Mapping[int, str] | Sequence[str] | None = None,
        shared_layer: int | None = None,
        backbone: str = "shared",
        head: str = "pooled",
        outputs: Sequence[ImageOutput] | None = None,
    ) -> None:
        """Build upstream's network from `cfg`, then the heads, and their backbone if it is separate.

        Args:
            cfg: upstream's model yaml (a path, or a name that upstream knows), or its contents.
            ch: image channels.
            nc: number of box classes; default from `cfg`.
            anchors: as upstream's.
            classification_names: names of the image classes, if the class is the only image output.
            shared_layer: index of the layer that feeds the heads; default the backbone's last (SPPF), or, for heads with box
                features, its last one at the finest stride the detector uses.
            backbone: "shared", the heads read that layer of the detector; "dual", that layer of a second backbone.
            head: "pooled" uses the whole image; "guided" also the detected boxes, both from the fine grid; "both" the boxes from
                the fine grid and the whole image from the backbone's last layer.
            outputs: the image outputs, instead of `classification_names`.

        Raises:
            ValueError: if there is no image output, no such layer, backbone or head, or if the tasks share no weights.
        """
        super().__init__(cfg if isinstance(cfg, Mapping) else _general.check_yaml(str(cfg)), ch, nc, anchors)
        if not outputs:
            if not classification_names:
                raise ValueError(
                    "classification_names is empty: a joint model needs the names of the image's classes, or `outputs`"
                )
            pairs = classification_names.items() if isinstance(classification_names, Mapping) else enumerate(classification_names)
            outputs = (class_output({int(index): str(name) for index, name in pairs}),)
        outputs = tuple(outputs)
        if [output.name for output in outputs] != [CLASS]:
            self.image_outputs = describe_outputs(outputs)
        self.classification_names = class_names(outputs)
        if backbone not in BACKBONES:
            raise ValueError(f"backbone is {backbone!r}, expected one of {', '.join(BACKBONES)}")
        if head not in HEADS:
            raise ValueError(f"head is {head!r}, expected one of {', '.join(HEADS)}")
        self.nc = self.model[-1].nc  # upstream's scripts read it; its training sets it
        layers = inspect_layers(self, super()._forward_once, ch)
        self.shared_layer = self._default_layer(head, layers) if shared_layer is None else shared_layer
        last = len(self.yaml["backbone"]) - 1 if backbone == "dual" else len(self.model) - 2
        if not 0 <= self.shared_layer <= last:
            raise ValueError(f"shared_layer is {self.shared_layer}, expected 0 to {last}")
        if head == "both":
            self.deep_layer = len(self.yaml["backbone"]) - 1
        first, _ = self.heads_layers
        self.last_shared_weights = None if backbone == "dual" else last_weights(self, layers, first)
        # Our initialisation must not advance the random state that upstream's training draws from.
        with torch.random.fork_rng(devices=[]):
            heads = {output.name: self._make_head(head, layers, output) for output in outputs}
            self.classification_head: Head = next(iter(heads.values())) if len(heads) == 1 else OutputHeads(heads)
            if backbone == "dual":
                self.classification_backbone = ClassificationBackbone(self.yaml, self.heads_layers[1])
        _torch_utils.initialize_weights(self.classification_head)
        where = " and ".join(f"layer {at} ({layers[at].channels} channels)" for at in dict.fromkeys(self.heads_layers))
        for output, part in zip(outputs, self.heads, strict=True):
            _general.LOGGER.info(
                f"{'Classification head' if output.name == CLASS else f'Head of `{output.name}`'} ({head}) on {where}"
                f"{' of its own backbone' if backbone == 'dual' else ''}: {', '.join(output.rows)}; "
                f"{sum(p.numel() for p in part.parameters()):,} parameters" + ("\n" if output is outputs[-1] else "")
            )

    def _default_layer(self, head: str, layers: list[LayerOutput]) -> int:
        backbone = range(len(self.yaml["backbone"]))
        if head == "pooled":
            return backbone[-1]
        finest = float(self.stride.min())
        return max((index for index in backbone if layers[index].cell == finest), default=backbone[-1])

    def _make_head(self, head: str, layers: list[LayerOutput], output: ImageOutput) -> Head:
        layer = layers[self.shared_layer]
        if head == "pooled":
            return ClassificationHead(layer.channels, output.width)
        deep = None if self.deep_layer is None else layers[self.deep_layer].channels
        return GuidedHead(layer.channels, output.width, detect_layer(self).nc, layer.cell, deep_channels=deep)

    @property
    def heads_layers(self) -> tuple[int, int]:
        """The first and last layer that the heads read, which may be the same."""
        deep = self.shared_layer if self.deep_layer is None else self.deep_layer
        return min(self.shared_layer, deep), max(self.shared_layer, deep)

    @property
    def outputs(self) -> Outputs:
        """The image outputs, in the order of their logits."""
        if self.image_outputs is None:
            return (class_output(self.classification_names),)
        return read_outputs(self.image_outputs)

    @property
    def head(self) -> str:
        """The kind of the heads, one of `HEADS`."""
        if not isinstance(self.heads[0], GuidedHead):
            return "pooled"
        return "both" if self.heads[0].reads_deep else "guided"

    @property
    def heads(self) -> list[Head]:
        """The head of each image output."""
        head = self.classification_head
        return list(head.by_name().values()) if isinstance(head, OutputHeads) else [head]

    @property
    def export_names(self) -> list[str]:
        """Names of the image outputs in exported files; `classification` if the class is the only one."""
        return ["classification"] if self.image_outputs is None else [output.name for output in self.outputs]

    @property
    def backbone(self) -> str:
        """The source of the heads' features: "shared", the detector's layers; "dual", a separate backbone."""
        return "dual" if "classification_backbone" in self._modules else "shared"

    @property
    def shared_parameter(self) -> nn.Parameter | None:
        """The last weights shared by all tasks, where gradient norms are measured; None if nothing is shared."""
        name = self.last_shared_weights
        return None if name is None else self.model.get_parameter(name)

    def classification_parameters(self) -> list[nn.Parameter]:
        """The parameters specific to the image outputs: those of the heads and of a separate backbone."""
        parts: list[nn.Module] = [self.classification_head, *([self.classification_backbone] if self.backbone == "dual" else [])]
        return [parameter for part in parts for parameter in part.parameters()]

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's. Weights with one backbone, such as pretrained ones, initialise both backbones."""
        if self.backbone == "dual":
            state_dict = self.classification_backbone.complete(state_dict, "classification_backbone.")
        return super().load_state_dict(state_dict, *args, **kwargs)

    def fuse(self) -> JointDetectionModel:
        """As upstream's, for both backbones."""
        if self.backbone == "dual":
            self.classification_backbone.fuse()
        super().fuse()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and checkpoints: everything but `fork`, `watch` and `in_bfloat16`."""
        return {name: value for name, value in self.__dict__.items() if name not in ("fork", "watch", "in_bfloat16")}

    def forward(self, x: Tensor, augment: bool = False, *how: Any, **named: Any) -> Any:
        """The class docstring lists the return values."""
        if self.in_bfloat16 or (self.training and self.channels_last):  # bfloat16 gains little without it
            x = x.contiguous(memory_format=torch.channels_last)
        if not augment:
            return self._forward_once(x, *how, **named)
        augmented = AugmentedPass(self, self._run_both)
        predictions, _ = augmented.run(x)
        return predictions, (None, torch.stack(augmented.logits).mean(0))

    def _forward_once(self, x: Tensor, *how: Any, **named: Any) -> Any:
        if "classification_head" not in self._modules:  # upstream's constructor runs the network before the head exists
            return super()._forward_once(x, *how, **named)
        detection, logits = self._run_both(x, *how, **named)
        if self.training:
            if self.watch is not None:
                self.watch(logits)
            return detection, logits
        if detect_layer(self).export:
            return detection[0], *split(self.outputs, activate(self.outputs, logits, self.temperatures))
        return detection[0], (detection[1], logits)

    def _run_both(self, x: Tensor, *how: Any, **named: Any) -> tuple[Any, Tensor]:
        """The output of upstream's network and the logits (B, W); `how` differs between upstream's versions."""
        seen = self._run(x, *how, **named)
        return seen.detection, self._classify(seen)

    def _run(self, x: Tensor, *how: Any, **named: Any) -> Seen:
        fork = self.fork if self.training else None
        deep = self.deep_layer if self.backbone == "shared" else None
        keeping = KeepingPass(self, self.shared_layer, deep, fork, self.in_bfloat16)
        detection = keeping.run(x, *how, **named)
        if self.backbone == "dual":
            keeping = KeepingPass(self.classification_backbone, self.shared_layer, self.deep_layer, None, self.in_bfloat16)
            keeping.run(x)
        read = keeping.deep_output
        # A fork could not attribute the gradients that arrive through the layers up to the deep one.
        return Seen(detection, keeping.output, read.detach() if read is not None and fork is not None else read)

    def explain(self, x: Tensor, columns: Sequence[int]) -> tuple[Tensor, list[Regions | None]]:
        """Where the features of the heads' layers speak for some logits of an image: Grad-CAM (Selvaraju et al., ICCV 2017).

        A channel of a layer weighs what its gradient is on average over the map; a place counts by the weighted sum of its
        channels, from 0 on. Detection takes no part in the gradient: one backward pass through a head is short. What a deeper
        layer says is spread over the finer cells and added.

        Args:
            x: (1, ch, H, W), no inference tensor.
            columns: of the logits.

        Returns:
            (columns, h, w), not scaled, in cells of the heads' layer; and for each head the regions that it looks into, None for
            a head that looks into none.
        """
        with torch.no_grad():
            seen = self._run(x)
        with torch.enable_grad():
            maps = [of.detach().requires_grad_() for of in (cast("Tensor", seen.features), seen.deep) if of is not None]
            logits = self._classify(Seen(seen.detection, maps[0], maps[1] if len(maps) > 1 else None))[0]
            gradients = [torch.autograd.grad(logits[column], maps, retain_graph=True) for column in columns]
        with torch.no_grad():
            regions = [head.attend(maps[0], seen.detection[0]) if isinstance(head, GuidedHead) else None for head in self.heads]
            spoken = [
                (torch.cat(of).mean((2, 3), keepdim=True) * features).sum(1)
                for of, features in zip(zip(*gradients, strict=True), maps, strict=True)
            ]
            heat = spoken[0]
            for coarse in spoken[1:]:
                spread = F.interpolate(coarse[None], heat.shape[1:], mode="bilinear")[0]
                heat = heat + spread * (coarse[0].numel() / heat[0].numel())
        return heat.relu(), regions

    def _classify(self, seen: Seen) -> Tensor:
        """Logits (B, W)."""
        if self.head == "pooled":
            return self.classification_head(seen.features)
        predictions = decode(detect_layer(self), seen.detection) if self.training else seen.detection[0]
        return self.classification_head(seen.features, predictions, *([] if seen.deep is None else [seen.deep]))
