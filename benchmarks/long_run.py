"""Whether a step of joint training becomes slower, or the process larger, with the number of steps.

    python benchmarks/long_run.py [--steps 10000 --imgsz 64 --batch-size 4 --device cpu]

A tiny YOLOv5n (an eighth of its width) on noise, another batch each step, GradNorm measuring and updating on every step, SGD and
upstream's moving average. Printed are, for each tenth of the run, the median time of a step and the resident memory at its end.
On the CPU it is the processor's time, which other work on the machine disturbs less than the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import psutil
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from gradnorm_plugin import GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.balancing import PRESETS
from gradnorm_plugin.upstream.gateway import upstream, upstream_root

WIDTH = 0.125
BOX_CLASSES, IMAGE_CLASSES = 4, 3
HYP = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}


def make_model(device: str) -> JointDetectionModel:
    """The joint model, in training."""
    cfg: dict[str, Any] = yaml.safe_load((upstream_root() / "models" / "yolov5n.yaml").read_text())
    names = [str(index) for index in range(IMAGE_CLASSES)]
    model = JointDetectionModel({**cfg, "width_multiple": WIDTH}, nc=BOX_CLASSES, classification_names=names)
    model.hyp = HYP
    return model.to(device).train()


def make_batch(size: int, images: int, device: str) -> tuple[Tensor, JointTargets]:
    """Noise with up to four boxes an image; classes of the images by chance, -1 for none among them."""
    boxes = torch.rand(int(torch.randint(1, 4 * images, ())), 6) * 0.4 + 0.3
    boxes[:, 0] = torch.randint(images, (len(boxes),)).sort().values
    boxes[:, 1] = torch.randint(BOX_CLASSES, (len(boxes),))
    targets = JointTargets(boxes, torch.randint(-1, IMAGE_CLASSES, (images,)))
    return torch.rand(images, 3, size, size).to(device), targets.to(device)


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = make_model(options.device)
    criterion = GradNormLoss(model, GradNorm(**{**PRESETS["report"], "interval": 1, "warmup": 10}))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    average = upstream("utils.torch_utils").ModelEMA(model)
    process = psutil.Process()
    tenth = max(1, options.steps // 10)
    seconds: list[float] = []
    table: list[tuple[int, float, float]] = []
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    updates = 0
    for step in tqdm(range(1, 10 * tenth + 1), desc="steps", mininterval=10):
        images, targets = make_batch(options.imgsz, options.batch_size, options.device)
        start = clock()
        criterion(model(images), targets)[0].backward()
        updates += criterion.settle() is not None
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        if step % tenth == 0:
            table.append((step, statistics.median(seconds), process.memory_info().rss / 2**20))
            seconds.clear()
    print(
        f"{10 * tenth} steps, {updates} updates of the weights, now {[round(x, 3) for x in criterion.balancer.weights.tolist()]}"
    )
    print(f"{'step':>8s}{'ms/step':>10s}{'MB':>10s}")
    for step, median, resident in table:
        print(f"{step:8d}{1000 * median:10.2f}{resident:10.1f}")
    (_, first, early), (_, last, late) = table[0], table[-1]
    print(f"last tenth by the first: time {last / first:.3f}, memory {late - early:+.1f} MB")


if __name__ == "__main__":
    main()
