"""Training steps in one process or on several gloo ranks, for test_distributed.py: spawned processes import it by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradnorm_plugin import GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.balancing import PRESETS
from gradnorm_plugin.upstream.gateway import upstream, upstream_root

HYP = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}
Batch = tuple[torch.Tensor, JointTargets]


def tiny_model() -> JointDetectionModel:
    """An eighth of YOLOv5n's width, with batch statistics of real activations."""
    cfg = yaml.safe_load((upstream_root() / "models" / "yolov5n.yaml").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = JointDetectionModel({**cfg, "width_multiple": 0.125}, nc=4, classification_names=["a", "b", "c"])
    model.hyp = dict(HYP)
    for module in model.classification_head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 0.5
    for seed in range(6):
        model(skewed_batch(seed, rank=seed % 2)[0])
    return model


def skewed_batch(seed: int, rank: int, images: int = 4, extra_boxes: bool = False) -> Batch:
    """Rank 0 sees bright images of the first classes, rank 1 dark ones of the last, and every fifth step none with a class.

    Boxes lie the same on both ranks unless `extra_boxes` gives rank 0 twice as many.
    """
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(3 * images, 6, generator=generator) * 0.4 + 0.3
    boxes[:, 0] = torch.arange(3 * images) % images
    boxes[:, 1] = (torch.arange(3 * images) % 2) + 2 * rank
    if extra_boxes and rank == 0:
        boxes = torch.cat([boxes, boxes + torch.tensor([0, 0, 0.05, -0.05, 0.1, 0.1])])
    classes = torch.tensor([0, 0, 1, -1] if rank == 0 else [2, 1, -1, -1])
    if rank == 1 and seed % 5 == 4:
        classes[:] = -1
    pixels = torch.rand(images, 3, 64, 64, generator=generator) * (1.0 if rank == 0 else 0.4)
    return pixels, JointTargets(boxes, classes)


def joined(parts: list[Batch]) -> Batch:
    """The ranks' batches as one."""
    boxes, offset = [], 0
    for images, targets in parts:
        boxes.append(targets.boxes + torch.tensor([offset, 0, 0, 0, 0, 0]))
        offset += len(images)
    classes = torch.cat([targets.classes for _, targets in parts])
    return torch.cat([images for images, _ in parts]), JointTargets(torch.cat(boxes), classes)


def steps(batches: list[Batch], settings: dict[str, Any], frozen_statistics: bool, world: int = 1) -> dict[str, Any]:
    """Train a tiny model on `batches`; the balancer's weights after each step, what it measured, and the final parameters."""
    model = tiny_model()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.eval()
    network = model if world == 1 else DistributedDataParallel(model, static_graph=True)
    network.hyp = model.hyp
    class_weights = torch.tensor([0.5, 1.0, 2.0])
    criterion = GradNormLoss(network, GradNorm(**{**PRESETS["report"], **settings}), class_weights=class_weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    found: dict[str, Any] = {"weights": [], "norms": [], "losses": []}
    for images, targets in batches:
        loss, _ = criterion(network(images), targets)
        loss *= world  # as upstream's train.py does
        loss.backward()
        measured = criterion.settle()
        found["norms"].append(None if measured is None else [float(norm) for norm in measured.norms])
        found["weights"].append(criterion.balancer.weights.tolist())
        found["losses"].append([criterion.losses.detection.item(), criterion.losses.classification.item()])
        optimizer.step()
        optimizer.zero_grad()
    found["parameters"] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return found


def _rank(rank: int, world: int, meeting: str, results: str, job: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    upstream("utils.general").LOGGER.setLevel("WARNING")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        torch.save(job(rank), Path(results) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def on_ranks(job: Callable[[int], Any], world: int = 2) -> list[Any]:
    """What `job(rank)` returns on each of `world` gloo processes; `job` can be pickled."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world, str(Path(folder) / "meeting"), folder, job), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]
