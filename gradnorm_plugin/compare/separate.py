"""The baseline that people would use: upstream's own `classify/train.py` on the same images, from the same weights.

The images of each class are links in folders below the run's, where upstream looks for them. Optimizer, learning rate and
augmentation are upstream's, and so is the choice of the checkpoint, by accuracy; data, weights, size, epochs, batch size and seed
are those of the comparison. The answers for the validation images are then measured as every other method's.

    images/train/0/000000.png      a link to an image of the first class
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradnorm_plugin.compare.plan import CompareError
from gradnorm_plugin.compare.planning import check_separate
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.data.listing import list_images
from gradnorm_plugin.evaluation.summary import summarise_output, version_facts, write_json, write_summary
from gradnorm_plugin.files import explain
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.outputs import Classes
from gradnorm_plugin.run_folder import FACTS_FILE
from gradnorm_plugin.terminal import fail, guard_log
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import OptionError, check_files, read_checkpoint
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.run_file import GFLOPS_SIZE, count_gflops, count_parameters, device_name, output_facts, peak_memory
from gradnorm_plugin.upstream.gateway import parser_of, put_first, upstream

STRIDE = 32
"""The image's side is a multiple of it, as in every YOLOv5."""


def main() -> None:
    """Train with the training flags of the command line. Ends with status 1 and one message on bad input."""
    guard_log()
    put_first()
    try:
        train_classifier(parse_options(sys.argv[1:]), sys.argv[1:])
    except (CompareError, OptionError, DescriptionError, LabelErrors) as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))


def train_classifier(options: argparse.Namespace, command: Sequence[str] = ()) -> None:
    """Train and measure; the run's folder gets upstream's files, `run.json` and `joint_metrics.json`.

    Raises:
        CompareError: if a class has no image, or the batch size is to be estimated.
        OptionError, DescriptionError, LabelErrors: what training says about files and data.
    """
    folder = Path(options.project) / options.name
    check_files(options)
    run = JointRun(options)
    data = run.check_dataset(options.data)
    output = check_separate(run)
    links, images = folder / "images", 0
    for split in ("train", "val"):
        files = list_images(data[split], Path(data["path"]) if data.get("path") else None).im_files
        link_images(links / split, files, run.scans[split].targets[output.name], output)
        images = len(files)
    start = folder / "start.pt"
    network = starting_network(options, len(data["names"]))
    torch.save({"model": network}, start)
    general = upstream("utils.general")
    flags = {
        "model": start, "data": links, "epochs": options.epochs, "batch-size": options.batch_size, "seed": options.seed,
        "imgsz": general.check_img_size(options.imgsz, STRIDE), "device": options.device, "workers": options.workers,
        "project": options.project, "name": options.name, "cutoff": len(network.yaml["backbone"]),
    }  # fmt: skip
    line = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    arguments = parser_of("classify/train").parse_args([*line, "--exist-ok", *(["--nosave"] if options.noval else [])])
    arguments.data = str(links.resolve())
    arguments.model = str(start.resolve())
    clock = time.monotonic()
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    upstream("classify.train").main(arguments)
    seconds = round(time.monotonic() - clock, 1)
    start.unlink()
    best = folder / "weights" / "best.pt"
    if options.noval:  # as every other run: the last epoch, chosen by nothing
        shutil.copyfile(best.with_name("last.pt"), best)
    classifier = upstream("models.experimental").attempt_load(
        str(best), device=upstream("utils.torch_utils").select_device(options.device), fuse=False
    )
    answers, targets = answer(classifier, links / "val", arguments.imgsz, arguments.batch_size)
    facts = {
        "command": ["classify/train.py", *line],
        "started": started,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": seconds,
        "peak_memory_mb": peak_memory(next(classifier.parameters()).device),
        "versions": version_facts(),
        "device": device_name(next(classifier.parameters()).device),
        "model": _sizes(classifier, options),
        "image_outputs": output_facts(run.outputs),
    }
    write_summary(summarise_output(output, answers, targets, str(best), images), folder)
    write_json(facts, folder / FACTS_FILE)


def link_images(folder: Path, files: Sequence[str], targets: np.ndarray, output: Classes) -> None:
    """Make a folder of links for each class, in the order of the classes; images without one are left out."""
    digits = len(str(output.width))
    for index in range(output.width):
        place = folder / f"{index:0{digits}d}"
        place.mkdir(parents=True)
        for number, file in enumerate(file for file, target in zip(files, targets, strict=True) if target == index):
            (place / f"{number:06d}.png").symlink_to(os.path.abspath(file))  # whatever it is: OpenCV looks inside


def starting_network(options: argparse.Namespace, num_boxes: int) -> Any:
    """The detector that training would start from, whose backbone the classifier takes over."""
    start: Any = None
    if options.weights:
        file = upstream("utils.downloads").attempt_download(options.weights)
        start = read_checkpoint("weights", file)["model"].float()
    if not options.cfg:
        return start
    general = upstream("utils.general")
    general.init_seeds(options.seed + 1 + upstream("train").RANK, deterministic=True)  # as upstream's train.py
    network = upstream("models.yolo").DetectionModel(options.cfg, ch=3, nc=num_boxes)
    if start is not None:
        own = network.state_dict()
        network.load_state_dict(general.intersect_dicts(start.state_dict(), own, exclude=["anchor"]), strict=False)
    return network


@torch.inference_mode()
def answer(network: nn.Module, folder: Path, imgsz: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) probabilities and (N,) classes of the images in upstream's `folder`."""
    dataset = upstream("utils.dataloaders").ClassificationDataset(root=folder, augment=False, imgsz=imgsz)
    device = next(network.parameters()).device
    answers = []
    for at in range(0, len(dataset), batch_size):
        images = torch.stack([dataset[index][0] for index in range(at, min(at + batch_size, len(dataset)))])
        answers.append(network(images.to(device)).softmax(1).cpu().numpy())
    return np.concatenate(answers), np.array(dataset.targets)


def _sizes(network: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    parameters, gflops = count_parameters(network), count_gflops(network)
    return {
        "cfg": f"{options.cfg} (classifier)" if options.cfg else "classifier",
        "weights": str(options.weights),
        "parameters": parameters,
        "head_parameters": 0,
        "total_parameters": parameters,
        "gflops": gflops,
        "total_gflops": gflops,
        "gflops_imgsz": GFLOPS_SIZE,
    }
