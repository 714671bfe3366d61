"""Seconds of a training step of the joint model by the way the tasks are balanced, each relative to fixed weights.

    python benchmarks/step_time.py [--cfg yolov5s.yaml --imgsz 320 --batch-size 8 --rounds 8 --threads 2 --device cpu
        --outputs 3 --head both]

A step is forward, loss, backward, clip and SGD. The ways take turns within a round, so that a machine whose speed drifts slows
all alike; printed is the median over the rounds of the ratio to fixed weights in the same round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from gradnorm_pytorch import GradNormLossWeighter
from torch import Tensor
from tqdm import tqdm

from gradnorm_plugin import FixedWeights, GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.balancing import CAGrad, PCGrad, preset
from gradnorm_plugin.model import HEADS
from gradnorm_plugin.outputs import class_output, read_outputs, split
from gradnorm_plugin.upstream.gateway import upstream

STEPS = 10
"""Steps of each way in a round: as many as lie between two updates of the report's GradNorm."""

OUTPUTS = (
    class_output(["a", "b", "c"]),
    *read_outputs({"finding": {"labels": ["x", "y"]}, "value": {"value": "percent", "range": [0, 100]}}),
)

Step = Callable[[], None]


def make_batch(size: int, images: int, device: str) -> tuple[Tensor, JointTargets]:
    """Noise with three boxes an image, and a label for each output."""
    boxes = torch.rand(3 * images, 6) * 0.4 + 0.3
    boxes[:, 0], boxes[:, 1] = torch.arange(3 * images) % images, torch.arange(3 * images) % 4
    targets = JointTargets(
        boxes,
        {"class": torch.arange(images) % 3, "finding": (torch.rand(images, 2) > 0.5).float(), "value": 100 * torch.rand(images)},
    )
    return torch.rand(images, 3, size, size).to(device), targets.to(device)


def make_steps(options: argparse.Namespace) -> dict[str, Step]:
    """The ways to balance, each a function that runs one step on the same model and batch."""
    outputs = OUTPUTS[: options.outputs]
    tasks = 1 + len(outputs)
    model = JointDetectionModel(options.cfg, nc=4, outputs=outputs, head=options.head).to(options.device).train()
    model.hyp = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}
    images, targets = make_batch(options.imgsz, options.batch_size, options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    plain = GradNormLoss(model, FixedWeights([1.0, *[0.01] * len(outputs)]))
    detection_loss = upstream("utils.loss").ComputeLoss(model)

    def finish() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    def all_losses() -> list[Tensor]:
        detection, logits = model(images)
        parts = zip(outputs, split(outputs, logits), strict=True)
        of_outputs = [plain.output_loss(output, part, targets.outputs[output.name]) for output, part in parts]
        return [detection_loss(detection, targets.boxes)[0], *of_outputs]

    def ours(criterion: GradNormLoss, channels_last: bool = False, bfloat16: bool = False) -> Step:
        fork, model.fork = model.fork, None  # the loss of PCGrad or CAGrad sets it; the ways share one model

        def step() -> None:
            model.fork, model.channels_last, model.in_bfloat16 = fork, channels_last, bfloat16
            criterion(model(images), targets)[0].backward()
            criterion.settle()
            finish()
            model.fork, model.channels_last, model.in_bfloat16 = None, False, False

        return step

    def a_call_each() -> None:
        losses = all_losses()
        for loss in losses:
            torch.autograd.grad(loss, model.shared_parameter, retain_graph=True)[0].norm().item()
        (losses[0] + 0.01 * sum(losses[1:])).backward()
        finish()

    weighter = GradNormLossWeighter(
        num_losses=tasks, learning_rate=1e-4, restoring_force_alpha=1.5, grad_norm_parameters=model.shared_parameter
    ).to(options.device)

    def package() -> None:
        weighter.backward([loss.squeeze() for loss in all_losses()])
        finish()

    return {
        "fixed weights": ours(plain),
        "GradNorm, update every step": ours(gradnorm_loss(model, interval=1)),
        "GradNorm, update every 10 steps": ours(gradnorm_loss(model, interval=10)),
        "PCGrad": ours(GradNormLoss(model, PCGrad(num_tasks=tasks))),
        "CAGrad": ours(GradNormLoss(model, CAGrad(num_tasks=tasks))),
        "fixed weights, --channels-last": ours(plain, channels_last=True),
        "fixed weights, --precision bfloat16": ours(plain, channels_last=True, bfloat16=True),
        "an autograd.grad call for each task": a_call_each,
        "gradnorm-pytorch": package,
    }


def gradnorm_loss(model: JointDetectionModel, interval: int) -> GradNormLoss:
    """Our loss with the report's settings and another interval."""
    tasks = 1 + len(model.outputs)
    return GradNormLoss(model, GradNorm(tasks, **{**preset("report", tasks), "interval": interval, "warmup": 0}))


def measure(steps: dict[str, Step], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds a step of each way in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in tqdm(range(rounds), desc="rounds"):
        # Step by step in turn: the drift of a whole block of one way would be larger than what is measured.
        spent = dict.fromkeys(steps, 0.0)
        for _ in range(STEPS):
            # In another order each time: a way that always follows the same other one inherits its caches.
            for name, step in random.sample(list(steps.items()), len(steps)):
                start = time.perf_counter()
                step()
                if device != "cpu":
                    torch.cuda.synchronize()
                spent[name] += time.perf_counter() - start
        for name, total in spent.items():
            seconds[name].append(total / STEPS)
    return seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="yolov5s.yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--head", choices=HEADS, default="pooled")
    parser.add_argument("--outputs", type=int, default=1, choices=(1, 2, 3), help="image outputs beside detection")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = measure(make_steps(options), options.rounds, options.device)
    base = seconds["fixed weights"]
    setting = f"{options.cfg}, {options.imgsz} px, batch {options.batch_size}, {options.device}, {options.threads} threads"
    print(f"{setting}, {options.outputs} image outputs, head {options.head}, {options.rounds} rounds of {STEPS} steps")
    print(f"{'':38s}{'s/step':>8s}{'relative':>10s}{'min':>8s}{'max':>8s}")
    for name, values in seconds.items():
        ratios = [value / reference for value, reference in zip(values, base, strict=True)]
        median = statistics.median(ratios)
        print(f"{name:38s}{statistics.median(values):8.3f}{median:10.3f}{min(ratios):8.3f}{max(ratios):8.3f}")


if __name__ == "__main__":
    main()
