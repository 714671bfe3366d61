"""A tiny joint data set, drawn on the spot: the boxes of `upstream_data`, and an image class that the shade tells."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml
from upstream_data import write_plain_dataset

IMAGE_CLASSES = {0: "dark", 1: "light", 2: "grey"}


def write_joint_dataset(folder: Path, images: int = 8, size: int = 96, unlabelled: int = 1, seed: int = 0) -> Path:
    """Write `images` training and half as many validation images, return the path of the data yaml.

    Classes go round in turn; the last `unlabelled` images of each split have none.
    """
    description = yaml.safe_load(write_plain_dataset(folder, images, size, seed).read_text())
    for split in ("train", "val"):
        files = sorted((folder / "labels" / split).glob("*.txt"))
        for index, file in enumerate(files):
            image_class = index % len(IMAGE_CLASSES)
            picture_file = folder / "images" / split / f"{file.stem}.jpg"
            picture = cv2.imread(str(picture_file)).astype(np.float32) * (0.3, 1.5, 0.8)[image_class]
            cv2.imwrite(str(picture_file), picture.clip(0, 255).astype(np.uint8))
            if index < len(files) - unlabelled:
                one_hot = " ".join(str(int(other == image_class)) for other in IMAGE_CLASSES)
                file.write_text(f"{file.read_text()}\n{one_hot}\n")
    data_yaml = folder / "joint.yaml"
    data_yaml.write_text(yaml.safe_dump({**description, "classification_names": IMAGE_CLASSES}))
    return data_yaml
