"""Milliseconds of a forward pass: detection only, the joint model, and two separate networks for the same two answers.

    python benchmarks/inference.py [--cfg yolov5s.yaml --head pooled --imgsz 320 --batch-sizes 1 8 --rounds 20 --device cpu]

Two separate networks are the detector and a classifier that stands alone:
* "+ backbone and head": the joint model's own backbone (to SPPF) and head, without the detector's neck: the cheapest there is
  (with the pooled head only: the others look into the detector's boxes);
* "+ YOLOv5-cls": upstream's own `ClassificationModel`, cut after the backbone as its `classify/train.py` does;
* "+ whole detector": the joint model run beside the detector, what one has who trains two tasks with two runs of this package.
Networks are fused, in evaluation mode, with random weights, which cost what trained ones do; NMS is left out, it is the same for
all. The ways take turns within a round, so that a machine whose speed drifts slows all alike; printed are the medians over the
rounds, of the milliseconds and of the ratios within a round.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import onnxruntime
import thop
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gradnorm_plugin import JointDetectionModel
from gradnorm_plugin.model import HEADS
from gradnorm_plugin.upstream.gateway import upstream

DETECTION, JOINT = "detection only", "joint model"
CLASSES = ["a", "b", "c"]
PASSES = 5
"""Passes of each way in a round."""

Pass = Callable[[], object]


class BackboneAndHead(nn.Module):
    """The classification half of a joint model, by itself: logits of (B, 3, H, W)."""

    def __init__(self, joint: JointDetectionModel) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*joint.model[: joint.shared_layer + 1])
        self.head = joint.classification_head

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, C)."""
        return self.head(self.backbone(images))


def make_networks(cfg: str, head: str, device: str) -> dict[str, list[nn.Module]]:
    """The networks of each way, in evaluation mode, fused, answering as exported ones do."""
    yolo = upstream("models.yolo")
    joint = JointDetectionModel(cfg, nc=4, classification_names=CLASSES, head=head)
    detector = yolo.DetectionModel(upstream("utils.general").check_yaml(cfg), nc=4)
    whole = yolo.ClassificationModel(model=deepcopy(detector), nc=len(CLASSES), cutoff=joint.heads_layers[1] + 1)
    for network in (joint, detector, whole):
        network.requires_grad_(False).eval().fuse().to(device)
        if network is not whole:
            network.model[-1].export = True
    apart = {"two: + backbone and head": [detector, BackboneAndHead(joint).eval()]} if head == "pooled" else {}
    return {
        DETECTION: [detector],
        JOINT: [joint],
        **apart,
        "two: + YOLOv5-cls": [detector, whole],
        "two: + whole detector": [detector, joint],
    }


def gigaflops(networks: list[nn.Module], size: int, device: str) -> float:
    """What the networks compute for one image, counted as upstream's model summary counts it: a figure without noise."""
    image = torch.zeros(1, 3, size, size, device=device)
    return sum(thop.profile(deepcopy(network), (image,), verbose=False)[0] for network in networks) * 2 / 1e9


def in_torch(networks: list[nn.Module], images: Tensor) -> Pass:
    """Run the networks one after the other in PyTorch."""

    def run() -> None:
        with torch.inference_mode():
            for network in networks:
                network(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def open_session(network: nn.Module, images: Tensor, threads: int) -> onnxruntime.InferenceSession:
    """The network, exported for these images, in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (images,), file, opset_version=17, dynamo=False, input_names=["images"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        # Else the threads of a session go on spinning after its pass, in the way of the next session's.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CUDAExecutionProvider"] if images.is_cuda else ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(file.read_bytes(), settings, providers=providers)


def in_onnx_runtime(sessions: list[onnxruntime.InferenceSession], images: Tensor) -> Pass:
    """Run the networks one after the other in ONNX Runtime."""
    array = images.cpu().numpy()

    def run() -> None:
        for session in sessions:
            session.run(None, {"images": array})

    return run


def measure(ways: dict[str, Pass], rounds: int, description: str) -> dict[str, list[float]]:
    """Milliseconds a pass of each way in each round."""
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in tqdm(range(rounds), desc=description, leave=False):
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(PASSES):
            # In another order each time: a way that always follows the same other one inherits its caches.
            for name, way in random.sample(list(ways.items()), len(ways)):
                start = time.perf_counter()
                way()
                spent[name].append(time.perf_counter() - start)
        for name, times in spent.items():
            milliseconds[name].append(1000 * statistics.median(times))
    return milliseconds


def show(title: str, milliseconds: dict[str, list[float]]) -> None:
    """Print the medians of one engine and batch size."""
    _heading(title, "ms")
    for name, values in milliseconds.items():
        of_detection = statistics.median(a / b for a, b in zip(values, milliseconds[DETECTION], strict=True))
        of_it = statistics.median(a / b for a, b in zip(milliseconds[JOINT], values, strict=True))
        _row(name, statistics.median(values), of_detection, of_it)


def show_counts(counts: dict[str, float]) -> None:
    """Print what each way computes."""
    _heading("counted", "GFLOPs")
    for name, count in counts.items():
        _row(name, count, count / counts[DETECTION], counts[JOINT] / count)


def _heading(title: str, unit: str) -> None:
    print(f"\n{title:28s}{unit:>9s}{'of detection':>14s}{'joint is of it':>16s}")


def _row(name: str, value: float, of_detection: float, of_it: float) -> None:
    print(f"{name:28s}{value:9.2f}{of_detection:14.3f}{of_it:16.3f}")


def main() -> None:
    """Measure and print a table for each engine and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="yolov5s.yaml")
    parser.add_argument("--head", choices=HEADS, default="pooled")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnx"], choices=["torch", "onnx"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    upstream("utils.general").LOGGER.setLevel(logging.WARNING)
    networks = make_networks(options.cfg, options.head, options.device)
    setting = f"{options.cfg}, head {options.head}, {options.imgsz} px, {options.device}, {options.threads} threads"
    print(f"{setting}, {options.rounds} rounds of {PASSES} passes")
    show_counts({name: gigaflops(parts, options.imgsz, options.device) for name, parts in networks.items()})
    for size in options.batch_sizes:
        images = torch.rand(size, 3, options.imgsz, options.imgsz, device=options.device)
        if "torch" in options.engines:
            ways = {name: in_torch(parts, images) for name, parts in networks.items()}
            show(f"PyTorch, batch {size}", measure(ways, options.rounds, f"PyTorch, batch {size}"))
        if "onnx" in options.engines:
            every = {network for parts in networks.values() for network in parts}
            sessions = {network: open_session(network, images, options.threads) for network in every}
            ways = {name: in_onnx_runtime([sessions[part] for part in parts], images) for name, parts in networks.items()}
            show(f"ONNX Runtime, batch {size}", measure(ways, options.rounds, f"ONNX Runtime, batch {size}"))


if __name__ == "__main__":
    main()
