"""What `--save-txt` and `--save-json` add for the classification."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.evaluation.summary import write_json
from gradnorm_plugin.files import write_text
from gradnorm_plugin.labels import Box, LabelRecord, write_label_file
from gradnorm_plugin.upstream.gateway import upstream

PREDICTIONS = "classification_predictions.json"

_save_one_txt = upstream("val").save_one_txt


class LabelFiles:
    """The joint labels of `--save-txt`: upstream writes an image's boxes, then `finish` adds the predicted class, one-hot.

    Without `--save-conf` a file is a joint label that `gradnorm_plugin.labels` and upstream read: a coordinate that rounding has
    put outside 0..1 is brought back, a box that rounding or the image's edge has left without area is left out. With
    `--save-conf` the boxes' lines stay upstream's, with the confidence as a sixth value, which no reader of labels takes.
    """

    def __init__(self) -> None:
        self._started: set[Path] = set()

    def save_boxes(self, predictions: Tensor, save_conf: bool, shape: Any, file: Path) -> None:
        """In the place of upstream's `save_one_txt`, which appends: a file that an earlier run left starts anew."""
        if file not in self._started:
            file.unlink(missing_ok=True)
            self._started.add(file)
        _save_one_txt(predictions, save_conf, shape, file)

    def finish(self, folder: Path, recording: Recording, save_conf: bool, keep_true: bool) -> int:
        """Complete the file of every image in `folder`; the number of boxes left out.

        `keep_true` (`--save-hybrid`) takes an image's true class where it has one.
        """
        classes = recording.probabilities.argmax(1)
        if keep_true:
            classes = np.where(recording.classes >= 0, recording.classes, classes)
        left_out = 0
        for image, index in zip(recording.files, classes.tolist(), strict=True):
            file = folder / f"{Path(image).stem}.txt"
            text = file.read_text(encoding="ascii") if file in self._started else ""
            if save_conf:
                one_hot = " ".join(str(int(other == index)) for other in recording.classification_names)
                write_text(file, f"{text}{one_hot}\n", encoding="ascii")
                continue
            rows = [[float(value) for value in line.split()] for line in text.splitlines()]
            boxes = [Box(int(row[0]), *np.clip(row[1:], 0, 1).tolist()) for row in rows]
            kept = tuple(box for box in boxes if box.w and box.h)
            left_out += len(boxes) - len(kept)
            write_label_file(file, LabelRecord(kept, image_class=index), None, len(recording.classification_names))
        return left_out


def image_id(file: str) -> int | str:
    """What YOLOv5 calls an image in the JSON of its predictions: the name without extension, as a number where it is one."""
    stem = Path(file).stem
    return int(stem) if stem.isdecimal() else stem


def stem(file: str) -> str:
    """What YOLOv5 calls the file of an image's predictions, less the extension."""
    return Path(file).stem


def called_alike(files: Iterable[str], name: Callable[[str], int | str]) -> tuple[str, str] | None:
    """Two images, by any file of theirs, that have one name, if there are any: `image_id` or `stem`."""
    seen: dict[int | str, str] = {}
    for file in files:
        called = name(file)
        if called in seen:
            return seen[called], file
        seen[called] = file
    return None


def write_predictions(recording: Recording, folder: Path) -> Path:
    """Write `classification_predictions.json`: a list with each image's file, true class, predicted class and probabilities.

    `image_id` is that of upstream's box predictions. `class` is None for an image without one. Probabilities keep 6 decimals; one
    that is not finite is None.
    """
    names = recording.classification_names
    rows = []
    for file, index, probabilities in zip(recording.files, recording.classes.tolist(), recording.probabilities, strict=True):
        values = [round(float(p), 6) if np.isfinite(p) else None for p in probabilities]
        rows.append(
            {
                "image_id": image_id(file),
                "file": file,
                "class": names.get(index),
                "predicted": names[int(probabilities.argmax())],
                "probabilities": dict(zip(names.values(), values, strict=True)),
            }
        )
    write_json(rows, folder / PREDICTIONS)
    return folder / PREDICTIONS
