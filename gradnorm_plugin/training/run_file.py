"""`run.json`: model, data, settings and duration of a run.

The facts are read from the objects that train (network, data, balancer, machine), and are plain data.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import thop
import torch
from torch import Tensor, nn

from gradnorm_plugin.balancing import Balancer, GradNorm
from gradnorm_plugin.data.dataset import JointDataset
from gradnorm_plugin.evaluation.summary import version_facts, write_json
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.outputs import CLASS, Outputs, class_names
from gradnorm_plugin.presets import SETTINGS
from gradnorm_plugin.report.run_files import read_facts
from gradnorm_plugin.run_folder import FACTS_FILE
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import tasks_of
from gradnorm_plugin.training.seams import Hook

GFLOPS_SIZE = 640
"""Side of the square image for which GFLOPs are counted, in pixels: that of upstream's own summary."""
_OF_GRADNORM = ("alpha", "weight_sum", "interval", "warmup", "lr", "reference", "start")


class RunFile(Hook):
    """Writes the facts at the start, the time spent and the peak memory after every epoch, and the moment of the end.

    A resumed run keeps what its first start wrote and adds its own time to the time of the epochs it goes on from; its peak is
    the highest of all starts.
    """

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.facts: dict[str, Any] = {}
        self.seconds_before = 0.0
        self.peak_before = 0.0
        self.clock = time.monotonic()

    def on_pretrain_routine_end(self, labels: np.ndarray, names: Mapping[int, str] | list[str]) -> None:
        """Gather the facts: network and data are there, and nothing is attached to them yet."""
        run, now = self.run, datetime.now().astimezone().isoformat(timespec="seconds")
        found = read_facts(Path(run.loggers.save_dir)) if run.options.resume else {}
        self.seconds_before = float(found.get("seconds") or 0.0)
        self.peak_before = float(found.get("peak_memory_mb") or 0.0)
        self.facts = {
            "command": [without_secrets(word) for word in run.command],
            "choices": dict(run.choices),
            "started": now,
            "finished": None,
            "seconds": self.seconds_before,
            "peak_memory_mb": None,
            "versions": version_facts(),
            "device": device_name(next(run.model.parameters()).device),
            "model": {"weights": without_secrets(str(run.options.weights)), **model_facts(run.model)},
            "data": {
                "yaml": str(run.options.data),
                "names": list(names.values()) if isinstance(names, Mapping) else list(names),
                "classification_names": list(class_names(run.outputs).values()),
                **{split: data_facts(dataset, len(names)) for split, dataset in run.datasets.items()},
            },
            "image_outputs": output_facts(run.outputs),
            **{key: found[key] for key in ("command", "choices", "started", "model") if key in found},
        }

    def on_train_start(self) -> None:
        """Start the clock."""
        balancing = balancing_facts(self.run.criterion.balancer)
        self.facts["balancing"] = {**balancing, "weight_scope": self.run.options.weight_scope}
        self.clock = time.monotonic()
        self._write()

    def on_fit_epoch_end(self, *_: object) -> None:
        """Keep the time up to the checkpoint that upstream writes next."""
        self._write()

    def on_train_end(self, *_: object) -> None:
        """Note the end."""
        self.facts["finished"] = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write()

    def _write(self) -> None:
        if self.run.options.evolve:  # many runs in one folder
            return
        self.facts["seconds"] = round(self.seconds_before + time.monotonic() - self.clock, 1)
        peak = peak_memory(next(self.run.model.parameters()).device)
        self.facts["peak_memory_mb"] = None if peak is None else max(peak, self.peak_before)
        write_json(self.facts, Path(self.run.loggers.save_dir) / FACTS_FILE)


def model_facts(model: JointDetectionModel) -> dict[str, Any]:
    """Size of the network, counted as upstream's `model_info` counts: of the detector alone, and of the whole.

    `layers` are modules of the detector, containers among them; `gflops` are the detector's at `gflops_imgsz` pixels, and
    `total_gflops` with the classification, None where they cannot be counted. `backbone_parameters` are those of a second
    backbone. The model itself is not touched: copies are measured, in evaluation mode.
    """
    detector = deepcopy(model)
    del detector.classification_head  # what is left runs as upstream's network
    if model.backbone == "dual":
        del detector.classification_backbone
    cfg = getattr(model, "yaml_file", None)  # a network that is built from a checkpoint has none
    return {
        "cfg": cfg,
        "layers": len(list(detector.modules())),
        "parameters": count_parameters(detector),
        "head_parameters": count_parameters(model.classification_head),
        "backbone": model.backbone,
        "backbone_parameters": count_parameters(model.classification_backbone) if model.backbone == "dual" else 0,
        "total_parameters": count_parameters(model),
        "gflops": count_gflops(detector),
        "total_gflops": count_gflops(deepcopy(model)),
        "gflops_imgsz": GFLOPS_SIZE,
        "shared_layer": model.shared_layer,
    }


def count_parameters(module: nn.Module) -> int:
    """All of them, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_gflops(network: nn.Module) -> float | None:
    """2 operations per multiply-add, on an image of one stride, scaled to `GFLOPS_SIZE`: convolutions grow with the area.

    The head's linear layer, which does not grow, is scaled as well: 0.0004 too many per class.
    """
    first = next(network.parameters())
    side = max(int(cast(Tensor, network.stride).max()), 32)
    image = torch.zeros(1, first.shape[1], side, side, device=first.device)
    try:
        with torch.no_grad():
            operations = thop.profile(network.eval(), inputs=(image,), verbose=False)[0]
    except Exception:  # as upstream: a layer that thop cannot count costs the figure, not the run
        return None
    return round(2e-9 * operations * (GFLOPS_SIZE / side) ** 2, 2)


def output_facts(outputs: Outputs) -> list[dict[str, Any]]:
    """Each image output as the run's tables have it (`run_folder.image_tasks`), and what it is."""
    tasks = zip(outputs, tasks_of(outputs), strict=True)
    return [{"name": output.name, **task.facts, "description": output.description} for output, task in tasks]


def data_facts(dataset: JointDataset, num_box_classes: int) -> dict[str, Any]:
    """Counts of one split, as it is trained on: images, boxes of each class, and what is or is not said of the images."""
    boxes = np.concatenate([np.zeros(0, dtype=np.int64), *(labels[:, 0].astype(np.int64) for labels in dataset.labels)])
    found: dict[str, Any] = {
        "images": len(dataset.labels),
        "boxes": np.bincount(boxes, minlength=num_box_classes).tolist(),
    }
    for output in dataset.outputs:
        targets = dataset.targets[output.name]
        known = output.known(targets)
        if output.name == CLASS:
            found["image_classes"] = np.bincount(targets[known], minlength=output.width).tolist()
            found["without_class"] = int((~known).sum())
        else:
            of_output = {"labelled": int(known.sum()), "summary": output.summary(targets)}
            found.setdefault("image_outputs", {})[output.name] = of_output
    return {**found, "without_boxes": sum(not len(labels) for labels in dataset.labels)}


def balancing_facts(balancer: Balancer) -> dict[str, Any]:
    """The balancer and its settings; `weight_ranges` is None where there are none.

    GradNorm has either a `weight_sum` or a `reference`, the task whose weight is always 1.
    """
    names = _OF_GRADNORM if isinstance(balancer, GradNorm) else ("interval", *SETTINGS[balancer.name])
    settings = {name: vars(balancer)[name] for name in names if vars(balancer).get(name) is not None}
    if not isinstance(balancer, GradNorm):
        return {"balancer": balancer.name, "weights": balancer.weights.tolist(), **settings}
    bounded = all(math.isfinite(high) for _, high in balancer.weight_ranges)
    ranges = [list(pair) for pair in balancer.weight_ranges] if bounded else None
    return {"balancer": balancer.name, **settings, "weight_ranges": ranges}


def peak_memory(device: torch.device) -> float | None:
    """The most memory that was held at once so far, in MB (10^6 bytes).

    On a GPU what PyTorch reserved there, else the resident size of this process; None where the system does not tell.
    """
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 1e6, 1)
    if sys.platform == "win32":
        return None
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    threads = torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread{'s' * (threads > 1)}"
