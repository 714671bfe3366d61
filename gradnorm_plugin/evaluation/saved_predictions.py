"""What `--save-txt` and `--save-json` add for the image outputs."""

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
from gradnorm_plugin.outputs import CLASS, ImageOutput, Target, label_rules
from gradnorm_plugin.upstream.gateway import upstream

PREDICTIONS = "classification_predictions.json"

_save_one_txt = upstream("val").save_one_txt


class LabelFiles:
    """The joint labels of `--save-txt`: upstream writes an image's boxes, then `finish` adds what is predicted of the image.

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

        `keep_true` (`--save-hybrid`) takes what is said of an image where it has a label.
        """
        outputs, rules = recording.outputs, label_rules(recording.outputs)
        said = [self._said(output, recording, keep_true) for output in outputs]
        left_out = 0
        for image, row in zip(recording.files, zip(*said, strict=True), strict=True):
            named = {output.name: target for output, target in zip(outputs, row, strict=True)}
            told = named.pop(rules.unnamed, None) if rules.unnamed else None
            index = None if told is None else int(told[0])
            file = folder / f"{Path(image).stem}.txt"
            text = file.read_text(encoding="ascii") if file in self._started else ""
            if save_conf:
                lines = [(o.name, o.format(target)) for o, target in zip(outputs, row, strict=True)]
                named_lines = "".join(f"{name}: {fields}\n" for name, fields in lines if name != rules.unnamed)
                one_hot = "".join(f"{fields}\n" for name, fields in lines if name == rules.unnamed)
                write_text(file, text + named_lines + one_hot, encoding="ascii")
                continue
            rows = [[float(value) for value in line.split()] for line in text.splitlines()]
            boxes = [Box(int(row[0]), *np.clip(row[1:], 0, 1).tolist()) for row in rows]
            kept = tuple(box for box in boxes if box.w and box.h)
            left_out += len(boxes) - len(kept)
            write_label_file(file, LabelRecord(kept, image_class=index, named=named), None, 0, rules)
        return left_out

    @staticmethod
    def _said(output: ImageOutput, recording: Recording, keep_true: bool) -> list[Target]:
        """What each image's file says for `output`: the prediction, or with `keep_true` the label where there is one."""
        predicted = [output.decide(answer) for answer in recording.answers(output)]
        if not keep_true:
            return predicted
        targets = recording.targets(output)
        known = output.known(targets)
        return [output.target(row) if there else told for row, there, told in zip(targets, known, predicted, strict=True)]


def image_id(file: str) -> int | str:
    """What YOLOv5 calls an image in the JSON of its predictions: the name without extension, as a number where it is one."""
    stem = Path(file).stem
    return int(stem) if stem.isdecimal() else stem


def stem(file: str) -> str:
    """What YOLOv5 calls the file of an image's predictions, less the extension."""
    return Path(file).stem


def called_alike(files: Iterable[str], name: Callable[[str], int | str]) -> tuple[str, str] | None:
    """Two of these files whose images get the same `name` (`image_id` or `stem`), if there are any."""
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
    that is not finite is None. Other image outputs than `class` stand under `outputs`, each with what is predicted and its label
    (`true`, None without one) in the words of `predict`.
    """
    rows = []
    columns = [(output, recording.calibrated(output), recording.targets(output)) for output in recording.outputs]
    for index, file in enumerate(recording.files):
        row: dict[str, Any] = {"image_id": image_id(file), "file": file}
        for output, answers, targets in columns:
            answer = np.round(answers[index].astype(np.float64), 6)
            label = output.target(targets[index]) if output.known(targets[index : index + 1])[0] else None
            told = _finite(output.as_data(answer))
            if output.name == CLASS:
                row["class"] = None if label is None else output.rows[int(label[0])]
                row |= {"predicted": told["class"], "probabilities": told["probabilities"]}
            else:
                row.setdefault("outputs", {})[output.name] = {**told, "true": None if label is None else output.say_target(label)}
        rows.append(row)
    write_json(rows, folder / PREDICTIONS)
    return folder / PREDICTIONS


def _finite(value: Any) -> Any:
    """The same, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
