"""A tiny checkpoint as training leaves it, without training: random weights, batch statistics of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from upstream_data import CLASS_NAMES

from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.upstream.gateway import upstream

IMAGE_CLASSES = {0: "dark", 1: "light", 2: "grey"}


def read_images(folder: Path, size: int) -> Tensor:
    """All pictures of a folder, (B, 3, size, size), RGB, 0 to 1."""
    pictures = [cv2.resize(cv2.imread(str(file)), (size, size)) for file in sorted(folder.glob("*.jpg"))]
    return torch.from_numpy(np.stack(pictures)[..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255


def write_checkpoint(file: Path, images: Tensor, joint: bool = True, seed: int = 0, **network: str) -> Path:
    """Write a YOLOv5n checkpoint, stripped of its optimizer by upstream, and return its path; `network` is the joint model's.

    Two classes of boxes, and for a joint one three of the image. Objectness and class are likely: there are boxes to compare.
    """
    general = upstream("utils.general")
    torch.manual_seed(seed)
    cfg = general.check_yaml("yolov5n.yaml")
    more = {"classification_names": IMAGE_CLASSES, **network} if joint else {}
    model = (JointDetectionModel if joint else upstream("models.yolo").DetectionModel)(cfg, nc=len(CLASS_NAMES), **more)
    model.names, model.nc, model.class_weights = CLASS_NAMES, len(CLASS_NAMES), torch.ones(len(CLASS_NAMES))
    model.hyp = {"box": 0.05}
    detect = model.model[-1]
    _measure(model, images)
    for layer in detect.m:
        layer.weight.data *= 0.3
        layer.bias.data.view(detect.na, -1)[:, 4:] = 1.5
    keys = ("best_fitness", "ema", "updates", "optimizer", "opt", "git", "date")
    torch.save({"epoch": 0, "model": model, **dict.fromkeys(keys)}, file)
    general.strip_optimizer(str(file))
    return file


def _measure(model: nn.Module, images: Tensor) -> None:
    """Set the batch statistics, layer after layer, to those of the pictures: untrained, the signal would die out or explode.

    A channel that hardly varies gets twice the mean variance of its layer: divided by its own, it would blow rounding up.
    """

    def measure(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        layer.running_mean = inputs[0].mean((0, 2, 3))
        variance = inputs[0].var((0, 2, 3), unbiased=False)
        layer.running_var = variance.clamp(min=2 * float(variance.mean()))

    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [layer.register_forward_pre_hook(measure) for layer in layers]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
