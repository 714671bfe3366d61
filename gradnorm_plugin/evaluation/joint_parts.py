"""What stands in the place of upstream's parts while `val.run` measures a joint model: the model, its image size, the loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradnorm_plugin.data.checking import LabelScan
from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.evaluation import EvaluationError
from gradnorm_plugin.evaluation.recording import SINGLE_CLASS, RecordedBatches, Recording
from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import why_unreadable
from gradnorm_plugin.outputs import CLASS, list_outputs
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")


def load_model(weights: list[str] | str, **options: Any) -> JointBackend:
    """The joint model in `weights`; `options` are upstream's `DetectMultiBackend`'s.

    Raises:
        EvaluationError: if it cannot be loaded, or tells nothing of the image.
    """
    files = weights if isinstance(weights, list) else [weights]
    shown = " ".join(files)
    try:
        model = JointBackend(weights, **options)
    except Exception as error:  # whatever a broken file makes the many formats' readers raise
        raise EvaluationError(f"--weights {shown} cannot be loaded: {why_unreadable(files, error)}") from error
    if not model.outputs:
        raise EvaluationError(f"--weights {shown} has no classification head: it only detects; measure it with yolov5/val.py")
    return model


@dataclass
class JointParts:
    """The joint model, its image size and the joint loader in the place of upstream's, for one pass."""

    recording: Recording
    joint_data: dict[str, Any]
    """The data yaml's content as `find_dataset` returns it."""
    scan: LabelScan
    """What `check_labels` found in the split."""
    single_cls: bool
    loaded: JointBackend | None
    """The model, if it is loaded already."""
    bfloat16: bool
    model: JointBackend = field(init=False)
    """From `load` on."""
    imgsz: int = field(init=False)
    batch_size: int = field(init=False)
    """Both as the pass has them."""

    def __post_init__(self) -> None:
        self.names: dict[int, str] = SINGLE_CLASS if self.single_cls else self.joint_data["names"]

    def select_device(self, device: str, **more: Any) -> torch.device:
        """In `select_device`'s place: a model that is loaded stays where it is."""
        return self.loaded.device if self.loaded else upstream("utils.torch_utils").select_device(device, **more)

    def load(self, weights: list[str] | str, **options: Any) -> JointBackend:
        """In `DetectMultiBackend`'s place: the joint model, if it fits the data."""
        shown = " ".join(weights) if isinstance(weights, list) else weights
        model = self.loaded or load_model(weights, **options)
        expected = self.recording.outputs
        if model.outputs != expected:
            key = "classification_names" if [output.name for output in expected] == [CLASS] else "image_outputs"
            raise EvaluationError(
                f"--weights {shown} tells {list_outputs(model.outputs)}, but `{key}` of the data yaml has "
                f"{list_outputs(expected)}: use the data yaml that the model was trained with"
            )
        if not self.single_cls:
            names = model.names if isinstance(model.names, dict) else dict(enumerate(model.names))
            _check_box_names(shown, [str(name) for name in names.values()], [str(name) for name in self.names.values()])
        if self.bfloat16:
            try:
                model.use_bfloat16()
            except ValueError as error:
                raise EvaluationError(f"--weights {shown}: {error}") from None
        self.model = model
        model.calibrated, self.recording.temperatures = False, model.temperatures  # figures are those of training; both are told
        return model

    def choose_size(self, imgsz: int | None, s: int) -> int:
        """In `check_img_size`'s place: the side of the square that images are scaled to, whole strides `s`, and why."""
        fixed, usual = self.model.fixed_size, self.model.usual_size
        if fixed and fixed[0] != fixed[1]:
            raise EvaluationError(
                f"--weights was exported for {fixed[0]} x {fixed[1]} pixels, and `val` measures on square images: export it "
                f"for a square size"
            )
        if fixed and imgsz not in (None, fixed[0]):
            raise EvaluationError(
                f"--imgsz is {imgsz}, but the weights were exported for {fixed[0]} x {fixed[1]}: leave it out, or export them "
                f"for that size"
            )
        known = max(usual) if usual else None
        asked = imgsz or known or DEFAULT_SIZE
        self.imgsz = asked if fixed else _general.check_img_size(asked, s=s)
        made = "trained" if self.model.pt else "exported"
        why = f"the weights were {made} at {known}" if known else f"the weights do not say at which they were {made}"
        _general.LOGGER.info(f"Image size: {self.imgsz} pixels; {why}")
        return self.imgsz

    def make_loader(self, path: Any, imgsz: int, batch_size: int, *args: Any, **kwargs: Any) -> tuple[RecordedBatches, Any]:
        """In `create_dataloader`'s place: the joint loader, with batches as an exported file takes them."""
        fixed = self.model.fixed_batch
        if fixed and fixed != batch_size and not self.model.jit:
            _general.LOGGER.info(f"Batch size: {fixed}; the weights were exported for it")
            batch_size = fixed
        self.batch_size = batch_size
        loader, dataset = create_joint_dataloader(
            path,
            imgsz,
            batch_size,
            *args,
            outputs=self.recording.outputs,
            num_box_classes=len(self.joint_data["names"]),
            scan=self.scan,
            root=Path(self.joint_data["path"]) if self.joint_data.get("path") else None,
            **kwargs,
        )
        return RecordedBatches(loader, self.recording), dataset


def _check_box_names(weights: str, of_model: list[str], of_data: list[str]) -> None:
    """Raises an EvaluationError where the numbers of the labels would mean other classes than those of the model."""
    if of_model == of_data:
        return
    advice = "use the data yaml that the model was trained with"
    if len(of_model) != len(of_data):
        counts = f"{len(of_model)} classes of boxes, but `names` of the data yaml has {len(of_data)}"
        raise EvaluationError(f"--weights {weights} finds {counts}: {advice}")
    both = f"--weights {weights} finds {', '.join(of_model)}, but `names` of the data yaml has {', '.join(of_data)}"
    if any(name in of_model and of_model.index(name) != of_data.index(name) for name in of_data):
        raise EvaluationError(
            f"{both}: a class that both know has another number, and its figures would be another class's; {advice}"
        )
    _general.LOGGER.warning(f"WARNING ⚠️ {both}: they are taken for the same classes, number by number")
