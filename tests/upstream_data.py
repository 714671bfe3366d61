"""Tiny data sets of the three kinds that YOLOv5 reads (detection, segmentation, classification), drawn on the spot.

Images are ``size`` x ``size`` pixels, 8-bit BGR; boxes are ``class cx cy w h``, normalised to 0..1.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

CLASS_NAMES = {0: "red", 1: "blue"}
_COLOURS_BGR = {0: (40, 40, 220), 1: (220, 60, 40)}


def write_plain_dataset(folder: Path, images: int = 8, size: int = 96, seed: int = 0) -> Path:
    """Write ``images`` training and half as many validation images, return the path of the data yaml."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", images), ("val", max(1, images // 2))):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            picture, lines = _draw(rng, size)
            cv2.imwrite(str(folder / "images" / split / f"{index}.jpg"), picture)
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data_yaml = folder / "plain.yaml"
    data_yaml.write_text(
        yaml.safe_dump({"path": str(folder), "train": "images/train", "val": "images/val", "names": CLASS_NAMES}),
        encoding="utf-8",
    )
    return data_yaml


def _draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[str]]:
    """Draw one rectangle of each class on noise, return the picture and its label lines."""
    picture = rng.integers(90, 160, (size, size, 3), dtype=np.uint8)
    lines = []
    for class_index, colour in _COLOURS_BGR.items():
        width, height = rng.integers(size // 5, size // 2, 2)
        left, top = rng.integers(0, size - width), rng.integers(0, size - height)
        cv2.rectangle(picture, (int(left), int(top)), (int(left + width), int(top + height)), colour, -1)
        centre_x, centre_y = (left + width / 2) / size, (top + height / 2) / size
        lines.append(f"{class_index} {centre_x:.6f} {centre_y:.6f} {width / size:.6f} {height / size:.6f}")
    return picture, lines


def write_segmentation_dataset(folder: Path, images: int = 4, size: int = 64, seed: int = 0) -> Path:
    """The same pictures with polygons for boxes; return the path of the data yaml."""
    data_yaml = write_plain_dataset(folder, images, size, seed)
    for file in (folder / "labels").rglob("*.txt"):
        boxes = np.loadtxt(file, ndmin=2)
        (left, top), (right, bottom) = (boxes[:, 1:3] - boxes[:, 3:] / 2).T, (boxes[:, 1:3] + boxes[:, 3:] / 2).T
        corners = np.stack([left, top, right, top, right, bottom, left, bottom], 1).clip(0, 1)
        np.savetxt(file, np.column_stack([boxes[:, 0], corners]), fmt=["%d", *["%.6f"] * 8])
    return data_yaml


def write_classification_dataset(folder: Path, images: int = 4, size: int = 40, seed: int = 0) -> Path:
    """Write a folder a class with ``images`` training and half as many validation images; return the data set's folder."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", images), ("val", max(1, images // 2))):
        for class_index, name in CLASS_NAMES.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(90, 160, (size, size, 3), dtype=np.uint8)
                cv2.circle(picture, (size // 2, size // 2), size // 3, _COLOURS_BGR[class_index], -1)
                cv2.imwrite(str(folder / split / name / f"{index}.jpg"), picture)
    return folder
