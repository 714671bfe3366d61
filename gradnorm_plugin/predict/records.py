"""Outputs to compute with: joint label files, JSON, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from gradnorm_plugin.files import UnfinishedFile
from gradnorm_plugin.labels import Box, LabelRecord, write_label_file
from gradnorm_plugin.names import csv_row
from gradnorm_plugin.predict.prediction import Prediction
from gradnorm_plugin.predict.writer import Result, Writer

_DIGITS = 6
"""Decimals of the coordinates in a label file, as in upstream's."""


def label_record(prediction: Prediction) -> tuple[LabelRecord, int]:
    """The prediction as joint labels, and how many boxes were left out because they have no area within the image."""
    height, width = prediction.shape
    boxes = []
    for box in prediction.boxes:
        left, right = (min(max(value / width, 0.0), 1.0) for value in (box.x1, box.x2))
        top, bottom = (min(max(value / height, 0.0), 1.0) for value in (box.y1, box.y2))
        values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        label = Box(box.class_index, *(round(value, _DIGITS) for value in values))
        if label.w > 0 and label.h > 0:
            boxes.append(label)
    image_class = None if prediction.image_class is None else prediction.image_class.index
    return LabelRecord(tuple(boxes), image_class=image_class), len(prediction.boxes) - len(boxes)


class LabelFiles(Writer):
    """`labels/NAME.txt` for each image, in the form that training reads; of a video, one for each frame."""

    def __init__(self, folder: Path, num_box_classes: int, num_image_classes: int) -> None:
        self.folder = folder / "labels"
        self.num_box_classes, self.num_image_classes = num_box_classes, num_image_classes
        self.left_out = 0
        """Boxes without area, which joint labels do not allow."""

    def write(self, result: Result) -> None:
        """Write the image's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record, left_out = label_record(result.prediction)
        self.left_out += left_out
        write_label_file(self.folder / f"{result.name}.txt", record, self.num_box_classes, self.num_image_classes)


class _Table(Writer):
    """A text file that grows under a temporary name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished: UnfinishedFile | None = None
        self._file: IO[str] | None = None

    @property
    def file(self) -> IO[str]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished = UnfinishedFile(self.path)
            self._file = self._unfinished.path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
            self.begin(self._file)
        return self._file

    def begin(self, file: IO[str]) -> None:
        """Write what stands above the rows."""

    def end(self, file: IO[str]) -> None:
        """Write what stands below the rows."""

    def finish(self) -> None:
        """Give the file its name."""
        with self.file as file:
            self.end(file)
        self._unfinished.finish()

    def discard(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()
            self._unfinished.discard()


class JsonFile(_Table):
    """`predictions.json`: a list with an object for each image, each on a line of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "predictions.json")
        self._separator = "\n"

    def begin(self, file: IO[str]) -> None:
        """Open the list."""
        file.write("[")

    def write(self, result: Result) -> None:
        """Add the image's object."""
        row = {"name": result.name, **result.prediction.to_dict()}
        self.file.write(self._separator + json.dumps(row, ensure_ascii=False))
        self._separator = ",\n"

    def end(self, file: IO[str]) -> None:
        """Close the list."""
        file.write("\n]\n")


class _CsvFile(_Table):
    """A CSV file with the given columns."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path)
        self.columns = columns

    def begin(self, file: IO[str]) -> None:
        """Name the columns."""
        self.add(self.columns, file)

    def add(self, row: Sequence[Any], file: IO[str] | None = None) -> None:
        """Write a row; no cell is a formula to a spreadsheet."""
        csv.writer(file or self.file, lineterminator="\n").writerow(csv_row(row))


class CsvFiles(Writer):
    """`images.csv`, a row an image with its class, and `boxes.csv`, a row a box; `name` joins them."""

    def __init__(self, folder: Path, image_classes: Sequence[str]) -> None:
        class_columns = ["image_class", "probability", *(f"probability {name}" for name in image_classes)]
        self.images = _CsvFile(folder / "images.csv", ["name", "path", "frame", "width", "height", "boxes", *class_columns])
        box_columns = ["class_index", "class", "confidence", "x1", "y1", "x2", "y2"]
        self.boxes = _CsvFile(folder / "boxes.csv", ["name", "path", "frame", *box_columns])
        self._no_class = [""] * len(class_columns)

    def write(self, result: Result) -> None:
        """Add the image's rows."""
        found = result.prediction
        origin = [result.name, found.path, found.frame]
        height, width = found.shape
        of_class = self._no_class
        if found.image_class is not None:
            of_class = [found.image_class.name, *_rounded(found.image_class.probability)]
            of_class += _rounded(*found.image_class.probabilities.values())
        self.images.add([*origin, width, height, len(found.boxes), *of_class])
        for box in found.boxes:
            self.boxes.add([*origin, box.class_index, box.name, *_rounded(*box[2:])])

    def finish(self) -> None:
        """Give both files their names."""
        self.images.finish()
        self.boxes.finish()

    def discard(self) -> None:
        """Remove both files."""
        self.images.discard()
        self.boxes.discard()


def _rounded(*values: float) -> list[str]:
    return [f"{value:.6g}" for value in values]
