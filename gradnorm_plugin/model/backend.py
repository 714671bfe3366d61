"""Any weights that upstream runs (.pt, TorchScript, ONNX, OpenVINO, ...), with the image outputs beside the boxes.

B batch, W answers of all image outputs side by side, n predictions an image.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradnorm_plugin.model.checkpoint import (
    CheckpointError,
    check_detector,
    image_classes,
    image_outputs,
    image_size,
    refuse_pipe,
    training_flags,
)
from gradnorm_plugin.model.guided import Regions
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import (
    Outputs,
    activate,
    class_names,
    class_output,
    cooled,
    list_outputs,
    read_outputs,
    read_temperatures,
    split,
)
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.upstream.gateway import openvino_networks, swapped, upstream

if TYPE_CHECKING:

    class _Backend(nn.Module):
        """What is used here of upstream's `DetectMultiBackend`: which format the weights have, and what then runs them."""

        pt: bool
        jit: bool
        onnx: bool
        dnn: bool
        xml: bool
        engine: bool
        model: nn.Module
        w: str
        device: torch.device
        stride: int
        fp16: bool
        dynamic: bool
        batch_size: int
        names: dict[int, str]
        extra_files: dict[str, str]
        meta: dict[str, str]
        output_names: list[str]
        session: Any
        network: Any
        executable_network: Any

        def __init__(self, weights: str | list[str], *args: Any, **kwargs: Any) -> None: ...

        def warmup(self, imgsz: tuple[int, ...]) -> None: ...

    class _Ensemble(nn.ModuleList):
        """Upstream's."""

else:
    _Backend = upstream("models.common").DetectMultiBackend
    _Ensemble = upstream("models.experimental").Ensemble

_general = upstream("utils.general")
_experimental = upstream("models.experimental")

METADATA_KEY = "classification_names"
OUTPUTS_KEY = "image_outputs"
TEMPERATURES_KEY = "temperatures"


class JointBackend(_Backend):
    """Upstream's `DetectMultiBackend`, which also knows the image outputs, and what a file was made for.

    * `outputs`: the image outputs; empty for a model that only detects.
    * `classification_names`: {0: name, ...} of the one that tells a class; empty if there is none.
    * `fixed_size`: height and width in pixels that an exported file takes, None if it takes any.
    * `fixed_batch`: images that an exported file takes at a time, None if it takes any number. `forward` takes any number in
      either case.
    * `usual_size`: height and width that the weights were trained or exported with, None where they do not say.
    * `trained_on`: the data yaml of the training that wrote a checkpoint, None where it names no file.
    * `fp16`: the precision in which it really computes: that of an exported file, whatever was asked for.
    * `temperatures`: what the logits of outputs that tell a class are divided by, by name; of an ensemble each model has its own.
    * `calibrated`: set it to False for the answers without these temperatures.
    * `untrained`: the tasks whose weight was 0 throughout the training that wrote a checkpoint.

    Threads may share it: their calls of `forward` run one after the other.
    """

    _loading = threading.Lock()  # one thread at a time has upstream's reader swapped

    def __init__(self, weights: str | list[str] = "yolov5s.pt", *args: Any, **kwargs: Any) -> None:
        """As upstream's.

        Raises:
            CheckpointError: if a .pt holds no detector, or a damaged one, or if an exported file has other image outputs than it
                says; the other errors are upstream's.
            ValueError: if the models of an ensemble have different image outputs.
        """
        for file in weights if isinstance(weights, list) else [weights]:
            refuse_pipe(Path(file))
        options = self._load(weights, *args, **kwargs)
        self._lock = threading.Lock()
        if self.pt:
            for member in self.model if isinstance(self.model, nn.ModuleList) else [self.model]:
                check_detector(member)
        metadata, described = self._described() if not self.pt else ({}, ())
        self.fixed_batch, self.fixed_size = self._input_shape(metadata)
        self.usual_size = self.fixed_size or image_size(options.get("imgsz")) or image_size(metadata.get("imgsz"))
        data = options.get("data")
        self.trained_on = data if isinstance(data, str) and data and "://" not in data else None
        if self.pt and isinstance(self.model, _Ensemble):
            self.model = _JointEnsemble.of(self.model)
        self.outputs = image_outputs(self.model) if self.pt else described
        found = getattr(self.model, TEMPERATURES_KEY, None) if self.pt else metadata.get(TEMPERATURES_KEY)
        self.temperatures, self.calibrated = read_temperatures(found, self.outputs), True
        self._places = self._find_outputs() if OUTPUTS_KEY in metadata else []
        self.classification_names = class_names(self.outputs)
        self.untrained = _untrained(options, self.outputs)
        self._settle_precision(kwargs.get("fp16", False))
        if OUTPUTS_KEY in metadata:
            self._try_outputs()

    def use_bfloat16(self) -> None:
        """Compute all but the boxes' coordinates and the heads in bfloat16.

        Raises:
            ValueError: if an exported file or another network is in here, which compute as they were made.
        """
        model = getattr(self, "model", None)
        members = list(model) if isinstance(model, nn.ModuleList) else [model]
        joint = [member for member in members if isinstance(member, JointDetectionModel)]
        if not self.pt or len(joint) < len(members):
            raise ValueError("bfloat16 is for .pt weights of joint networks: leave it out")
        for member in joint:
            member.in_bfloat16 = True

    def _load(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Upstream's constructor; returns the flags of the training that wrote the (first) checkpoint, as that is read.

        Empty where it does not say, and for exported files.
        """
        flags: list[Mapping[str, Any]] = []
        reader = threading.get_ident()

        def read(*of: Any, **how: Any) -> dict[str, Any]:
            contents = load_model(*of, **how)
            if threading.get_ident() == reader:
                flags.append(training_flags(contents))
            return contents

        with self._loading:
            load_model = _experimental.load_model
            with swapped(_experimental, load_model=read):
                super().__init__(*args, **kwargs)
        return flags[0] if flags else {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.Lock()

    def forward(self, im: Tensor, *args: Any, **kwargs: Any) -> Any:
        """`(predictions, answers)` of a joint model, what upstream returns of another.

        Predictions are (B, n, 5 + nc) as upstream's; answers (B, W) float32, probabilities and values of all image outputs side
        by side: of one that tells a class, each row sums to 1. Several `.pt` weights (an ensemble) and test-time augmentation
        give what the mean logits come to.
        """
        count, step = len(im), self.fixed_batch or len(im)
        parts = []
        with self._lock:
            for start in range(0, count, step):
                part = im[start : start + step]
                if len(part) < step:  # filled up with blank images
                    part = torch.cat([part, part.new_zeros(step - len(part), *part.shape[1:])])
                parts.append(self._named(super().forward(part, *args, **kwargs)))
        if count == step:
            return parts[0]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)[:count]
        return type(parts[0])(torch.cat(of)[:count] for of in zip(*parts, strict=True))

    @property
    def joint(self) -> JointDetectionModel | None:
        """The joint model itself; None for an exported file, an ensemble, or a model that only detects."""
        return self.model if self.pt and isinstance(self.model, JointDetectionModel) else None

    def explain(self, im: Tensor, columns: Sequence[int]) -> tuple[Tensor, list[Regions | None]]:
        """As `JointDetectionModel.explain`, of weights that have a `joint` model."""
        if self.joint is None:
            raise CheckpointError("these weights are not one joint model")
        with self._lock:
            return self.joint.explain(im, columns)

    def _named(self, outputs: Any) -> Any:
        if not self.outputs:
            return outputs
        if not self.pt:
            predictions, *answers = [outputs[place] for place in self._places] or outputs
            joined = (answers[0] if len(answers) == 1 else torch.cat(answers, 1)).float()
            return predictions, joined if self.calibrated else self._undone(joined)
        predictions, (_, logits) = outputs
        return predictions, activate(self.outputs, logits.float(), self.temperatures if self.calibrated else None)

    def _undone(self, answers: Tensor) -> Tensor:
        """Answers of an exported file as they are without its temperatures; log(probabilities) are logits too."""
        parts = []
        for output, part in zip(self.outputs, split(self.outputs, answers), strict=True):
            temperature = self.temperatures.get(output.name)
            parts.append(part if temperature is None else (part.clamp(min=1e-30).log() * temperature).softmax(1))
        return torch.cat(parts, 1)

    def _described(self) -> tuple[Mapping[str, Any], Outputs]:
        """What an exported file says about itself, and the image outputs that this tells."""
        try:
            metadata = self._metadata()
            if metadata.get(OUTPUTS_KEY) is not None:
                return metadata, read_outputs(metadata[OUTPUTS_KEY])
            names = metadata.get(METADATA_KEY)
            return metadata, (class_output({int(index): str(name) for index, name in names.items()}),) if names else ()
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise CheckpointError(f"what it says of its image outputs is damaged, export it again: {error}") from None

    def _find_outputs(self) -> list[int]:
        """Where boxes and image outputs stand among what the file gives, by their names; none where the format has no names."""
        if self.jit:
            return []
        names = [output.any_name for output in openvino_networks(self)[1].outputs] if self.xml else self.output_names
        wanted = ["output0", *(output.name for output in self.outputs)]
        if sorted(names) != sorted(wanted):
            raise CheckpointError(f"its outputs are {', '.join(names)}, but it says {', '.join(wanted)}: export it again")
        return [names.index(name) for name in wanted]

    def _try_outputs(self) -> None:
        """Run the file once, on a blank image: its answers must be those that it says it gives."""
        size = self.usual_size or (2 * self.stride, 2 * self.stride)
        found = super().forward(torch.zeros(self.fixed_batch or 1, 3, *size, device=self.device))
        widths = [found[place].shape[1] for place in (self._places or range(len(found)))[1:]]
        if widths != [output.width for output in self.outputs]:
            raise CheckpointError(
                f"its outputs have {', '.join(map(str, widths))} values, other than {list_outputs(self.outputs)}: export it again"
            )

    def _metadata(self) -> Mapping[str, Any]:
        """What an exported file says about itself; empty for other files."""
        if self.jit:
            return json.loads(self.extra_files["config.txt"] or "{}")
        if self.onnx and not self.dnn:  # OpenCV's reader gives no metadata
            return {
                key: json.loads(self.meta[key])
                for key in (METADATA_KEY, OUTPUTS_KEY, TEMPERATURES_KEY, "imgsz")
                if key in self.meta
            }
        if self.xml:
            description = Path(self.w).with_suffix(".yaml")
            return read_yaml(description) if description.is_file() else {}
        return {}

    def _input_shape(self, metadata: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
        if self.pt:
            return None, None
        if self.jit:
            shape = metadata.get("shape")
            if shape and "imgsz" in metadata:  # of files from before this entry, those of a guided head take one batch size only
                shape = [None, *shape[1:]]
        elif self.onnx and not self.dnn:
            shape = self.session.get_inputs()[0].shape
        elif self.xml:
            sides = openvino_networks(self)[0].get_parameters()[0].get_partial_shape()
            shape = [side.get_length() if side.is_static else None for side in sides]
        elif self.engine:
            return None if self.dynamic else self.batch_size, None
        else:  # they do not tell, and upstream exports for one image unless told otherwise
            return 1, None
        if not shape:
            return None, None
        batch, _, height, width = [side if isinstance(side, int) else None for side in shape]
        return batch, (height, width) if height and width else None

    def _settle_precision(self, asked: bool) -> None:
        if self.dnn:
            self.fp16 = False
        elif self.onnx:
            self.fp16 = self.session.get_inputs()[0].type == "tensor(float16)"
        elif self.jit:  # upstream has converted the weights, but the constants of a trace stay what they are
            self.model = torch.jit.load(self.w, map_location=self.device)
            self.fp16 = next(self.model.parameters()).dtype == torch.float16
        if asked and not self.fp16:
            _general.LOGGER.info("--half has no effect: the file computes in single precision")


class _JointEnsemble(_Ensemble):
    """Upstream's ensemble, with the mean of the logits of its joint models."""

    classification_names: Mapping[int, str]
    image_outputs: Mapping[str, Any] | None

    @classmethod
    def of(cls, ensemble: _Ensemble) -> _Ensemble:
        """The same models; the ensemble itself where none of them is joint.

        Raises:
            ValueError: if they have different image outputs.
        """
        joint = [model for model in ensemble if hasattr(model, METADATA_KEY)]
        if not joint:
            return ensemble
        for other in joint[1:]:
            if image_outputs(other) != image_outputs(joint[0]):
                first, second = (list_outputs(image_outputs(model)) for model in (joint[0], other))
                raise ValueError(f"the models of an ensemble must tell the same classes of the image: {first}; {second}")
        ours = cls()
        ours.extend(ensemble)
        for name in ("names", "nc", "yaml", "stride"):
            setattr(ours, name, getattr(ensemble, name))
        ours.classification_names = dict(enumerate(image_classes(joint[0])))
        ours.image_outputs = getattr(joint[0], OUTPUTS_KEY, None)
        return ours.eval()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """(B, n of all models, 5 + nc) predictions, and (None, logits (B, W))."""
        outputs = [model(x, *args, **kwargs) for model in self]
        logits = [
            cooled(image_outputs(model), extra[1].float(), getattr(model, TEMPERATURES_KEY, None))
            for model, (_, extra) in zip(self, outputs, strict=True)
            if hasattr(model, METADATA_KEY)
        ]
        return torch.cat([predictions for predictions, _ in outputs], 1), (None, torch.stack(logits).mean(0))


def _untrained(options: Mapping[str, Any], outputs: Outputs) -> tuple[str, ...]:
    weights = options.get("initial_weights") if options.get("balancer") == "fixed" else None
    tasks = ("detection", *(output.task for output in outputs))
    if not isinstance(weights, (list, tuple)) or len(weights) < 2:
        return ()
    weights = [*weights, *[weights[-1]] * (len(tasks) - 2)] if len(weights) == 2 else weights
    return tuple(task for task, weight in zip(tasks, weights, strict=False) if weight == 0)
