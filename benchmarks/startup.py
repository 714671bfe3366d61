"""Seconds until the loaders of a large joint data set stand, relative to plain YOLOv5's on the same data in plain form.

    python benchmarks/startup.py [--images 10000 --rounds 3 --folder startup_data]

A start is what `train.py` does before its first batch as far as data goes: the data yaml, then the training and the validation
loader (a tenth of the images); ours with the check of every label file. The first start finds no cache, the second those that
the first wrote. Images are of 16 x 16 pixels, the worst case: the less there is to do for an image, the more labels weigh.

Each start is a fresh process (its imports are not counted), and the four kinds take turns, so that a machine whose speed drifts
slows all alike; a ratio is of two starts of one round. Printed are the time on the clock and of all processors, and bytes an
image: by which the process has grown, and of the training set's state as a worker process is sent it.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import yaml

NAMES = ["a", "b", "c", "d"]
IMAGE_CLASSES = ["dark", "light", "grey"]
HYP = {"mosaic": 0.0, "mixup": 0.0}


def write_images(folder: Path, images: int) -> None:
    """Joint data in `folder`/joint and the same without image classes in `folder`/plain, with the same image files."""
    rng = np.random.default_rng(0)
    pictures = [cv2.imencode(".jpg", rng.integers(0, 255, (16, 16, 3), np.uint8))[1].tobytes() for _ in range(64)]
    for split, count in (("train", images), ("val", max(1, images // 10))):
        for form in ("joint", "plain"):
            for kind in ("images", "labels"):
                (folder / form / kind / split).mkdir(parents=True)
        for index in range(count):
            joint_image, plain_image = (folder / form / "images" / split / f"{index:07}.jpg" for form in ("joint", "plain"))
            joint_image.write_bytes(pictures[index % len(pictures)])
            os.link(joint_image, plain_image)
            boxes = rng.uniform(0.1, 0.9, (1 + index % 5, 4))
            lines = "".join(f"{row % len(NAMES)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for row, (x, y, w, h) in enumerate(boxes))
            one_hot = " ".join(str(int(other == index % len(IMAGE_CLASSES))) for other in range(len(IMAGE_CLASSES)))
            (folder / "plain" / "labels" / split / f"{index:07}.txt").write_text(lines)
            (folder / "joint" / "labels" / split / f"{index:07}.txt").write_text(f"{lines}\n{one_hot}\n")
    for form, extra in (("joint", {"classification_names": IMAGE_CLASSES}), ("plain", {})):
        data = {"path": str(folder / form), "train": "images/train", "val": "images/val", "names": NAMES, **extra}
        (folder / f"{form}.yaml").write_text(yaml.safe_dump(data))


def start(form: str, data_yaml: str) -> dict[str, float]:
    """Make both loaders as training does: seconds, seconds of all processors, and bytes an image of the training set."""
    from gradnorm_plugin.data.checking import check_labels
    from gradnorm_plugin.data.dataset import create_joint_dataloader
    from gradnorm_plugin.data.description import classification_names
    from gradnorm_plugin.upstream.gateway import upstream

    general, dataloaders = upstream("utils.general"), upstream("utils.dataloaders")
    resident = psutil.Process().memory_info().rss
    begin, processors = time.perf_counter(), sum(os.times()[:4])
    data = general.check_dataset(data_yaml)
    create, options = dataloaders.create_dataloader, {"workers": 0}
    if form == "joint":
        scans = check_labels(data)
        create = create_joint_dataloader
        options |= {"classification_names": classification_names(data), "num_box_classes": data["nc"]}
    train, val = ({"scan": scans[split]} if form == "joint" else {} for split in ("train", "val"))
    loader, dataset = create(data["train"], 64, 16, 32, hyp=HYP, augment=True, shuffle=True, **train, **options)
    val_loader, _ = create(data["val"], 64, 16, 32, hyp=HYP, rect=True, pad=0.5, **val, **options)
    found = {"wall": time.perf_counter() - begin, "processors": sum(os.times()[:4]) - processors}
    found["resident"] = (psutil.Process().memory_info().rss - resident) / (len(loader.dataset) + len(val_loader.dataset))
    found["pickled"] = len(pickle.dumps(vars(dataset))) / len(dataset)
    return found


def in_a_process(form: str, folder: Path) -> dict[str, float]:
    """`start` in a process of its own."""
    command = [sys.executable, __file__, "--start", form, "--folder", str(folder)]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return json.loads(output.splitlines()[-1])


def remove_caches(folder: Path) -> None:
    """As if no start had been made."""
    for file in folder.glob("*/labels/*.cache"):
        file.unlink()


def main() -> None:
    """Generate the data, take the starts in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the data here for another run; default: a temporary folder")
    parser.add_argument("--start", choices=("plain", "joint"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        print(json.dumps(start(options.start, str(options.folder / f"{options.start}.yaml"))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        if not (folder / "plain.yaml").exists():
            write_images(folder, options.images)
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for number in range(options.rounds):
            remove_caches(folder)
            for when in ("first", "cached"):
                for form in ("plain", "joint") if number % 2 else ("joint", "plain"):
                    found.setdefault((when, form), []).append(in_a_process(form, folder))
    print(f"{options.images} images and a tenth more, {options.rounds} rounds")
    print(f"{'':22s}{'plain':>9s}{'joint':>9s}{'ratio':>8s}{'min':>7s}{'max':>7s}")
    for when in ("first", "cached"):
        for what, unit, digits in (("wall", "s", 2), ("processors", "s", 2), ("resident", "B", 0), ("pickled", "B", 0)):
            plain, joint = ([x[what] for x in found[when, form]] for form in ("plain", "joint"))
            ratios = [ours / theirs for ours, theirs in zip(joint, plain, strict=True)]
            print(
                f"{when:7s}{what:12s}{unit:3s}{statistics.median(plain):9.{digits}f}{statistics.median(joint):9.{digits}f}"
                f"{statistics.median(ratios):8.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
            )


if __name__ == "__main__":
    main()
