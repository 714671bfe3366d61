"""What `predict` makes of its predictions: label files, JSON, CSV, pictures, videos, crops; and the files' names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from gradnorm_plugin.files import UnfinishedFile
from gradnorm_plugin.labels import Box, LabelRecord, LabelRules, write_label_file
from gradnorm_plugin.names import csv_row, folder_names
from gradnorm_plugin.outputs import CLASS, ImageOutput, Outputs, label_rules
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.drawing import Style
from gradnorm_plugin.predict.images import picture_suffix, write_image
from gradnorm_plugin.predict.prediction import Clip, Prediction
from gradnorm_plugin.predict.sources import Frame
from gradnorm_plugin.upstream.gateway import drawing

_save_one_box = drawing("save_one_box")

_DIGITS = 6
"""Decimals of the coordinates in a label file, as in upstream's."""


class OutputNames:
    """A name, without suffix, for the outputs of each image or video; no two share one.

    `a/1.jpg` gives `1`; then `b/1.jpg` and `a/1.png` give `1-2` and `1-3`. A video `v.mp4` gives `v`, its 7th
    frame `v_7`.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, bool], str] = {}
        self._taken: set[str] = set()
        self.renamed = 0

    def stem(self, frame: Frame) -> str:
        """The name of the picture or the whole video."""
        moving = frame.number is not None
        key = (frame.path, moving)
        if key not in self._of:
            is_file = "://" in frame.path or Path(frame.path).is_file()  # of streams the names hold no address
            plain = Path(frame.path).stem if not moving or is_file else Path(frame.path).name
            name, count = plain, 1
            while self._is_taken(name, moving):
                count += 1
                name = f"{plain}-{count}"
            self.renamed += name != plain
            self._taken.add(name.casefold())  # 1.jpg and 1.JPG are one file on Windows and macOS
            self._of[key] = name
        return self._of[key]

    def frame(self, frame: Frame) -> str:
        """The name of this very image: of a video, with the frame's number."""
        return self.stem(frame) if frame.number is None else f"{self.stem(frame)}_{frame.number}"

    def _is_taken(self, name: str, moving: bool) -> bool:
        name = name.casefold()
        if name in self._taken:
            return True
        # A picture `v_7.jpg` stands in the way of the 7th frame of `v.mp4`; videos come after pictures.
        return moving and any(other.startswith(f"{name}_") and other[len(name) + 1 :].isdigit() for other in self._taken)


@dataclass(frozen=True)
class Result:
    """A prediction on its way to the outputs."""

    frame: Frame
    prediction: Prediction
    stem: str
    """Name, without suffix, of the output for the picture or the whole video."""
    name: str
    """Name, without suffix, for this very image: of a video, with the frame's number."""
    style: Style

    @cached_property
    def drawn(self) -> np.ndarray:
        """The image with boxes and what is said of it, (H, W, 3) uint8, BGR; drawn once for all outputs."""
        return self.prediction.draw(self.style)


class _GrowingText:
    """A text file that grows under a temporary name, between its first lines and its last."""

    def __init__(self, path: Path, head: str, foot: str = "") -> None:
        self.path, self.head, self.foot = path, head, foot
        self._open: tuple[UnfinishedFile, IO[str]] | None = None

    def add(self, text: str) -> None:
        self._begun()[1].write(text)

    def finish(self) -> None:
        file, text = self._begun()
        text.write(self.foot)
        text.close()
        file.finish()

    def discard(self) -> None:
        if self._open is not None:
            file, text = self._open
            with suppress(OSError):  # what is still to be written may be what does not fit on the disk
                text.close()
            file.discard()

    def _begun(self) -> tuple[UnfinishedFile, IO[str]]:
        if self._open is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = UnfinishedFile(self.path)
            self._open = file, file.path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
            self.add(self.head)
        return self._open


class Output:
    """One kind of output. `finish` makes its files appear under their names, `discard` removes what is not whole.

    Its folder is made when the first file is. Errors are `PredictError` and `OSError`.
    """

    texts: Sequence[_GrowingText] = ()
    """Files that grow with each prediction."""

    def write(self, result: Result) -> None:
        """Take the next prediction."""

    def finish(self) -> None:
        """All predictions have been taken."""
        for text in self.texts:
            text.finish()

    def discard(self) -> None:
        """Something went wrong: leave nothing half-written."""
        for text in self.texts:
            text.discard()


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
    unnamed = label_rules(tuple(answer.output for answer in prediction.answers)).unnamed
    told = ((answer.output.name, answer.target) for answer in prediction.answers)
    named = {name: target for name, target in told if name != unnamed and target is not None}
    return LabelRecord(tuple(boxes), image_class=image_class, named=named), len(prediction.boxes) - len(boxes)


class LabelFiles(Output):
    """`labels/NAME.txt` for each image, in the form that training reads; of a video, one for each frame."""

    def __init__(self, folder: Path, rules: LabelRules) -> None:
        self.folder, self.rules = folder / "labels", rules
        self.left_out = 0
        """Boxes without area, which joint labels do not allow."""

    def write(self, result: Result) -> None:
        """Write the image's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record, left_out = label_record(result.prediction)
        self.left_out += left_out
        write_label_file(self.folder / f"{result.name}.txt", record, None, 0, self.rules)


class JsonFile(Output):
    """`predictions.json`: a list with an object for each image, each on a line of its own."""

    def __init__(self, folder: Path, name: str = "predictions.json") -> None:
        self.texts = [_GrowingText(folder / name, "[", "\n]\n")]
        self._separator = "\n"

    def write(self, result: Result) -> None:
        """Add the image's object."""
        self.add({"name": result.name, **result.prediction.to_dict()})

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an object."""
        self.texts[0].add(self._separator + json.dumps(row, ensure_ascii=False))
        self._separator = ",\n"


class CsvFiles(Output):
    """`images.csv`, a row an image with what is said of it, and `boxes.csv`, a row a box; `name` joins them."""

    def __init__(self, folder: Path, outputs: Outputs) -> None:
        own = ["name", "path", "frame", "width", "height", "boxes"]
        said = _said_columns(outputs, own)
        box_columns = ["class_index", "class", "confidence", "x1", "y1", "x2", "y2"]
        self._images = _GrowingText(folder / "images.csv", _csv_row(*own, *said))
        self._boxes = _GrowingText(folder / "boxes.csv", _csv_row("name", "path", "frame", *box_columns))
        self.texts = [self._images, self._boxes]

    def write(self, result: Result) -> None:
        """Add the image's rows."""
        found = result.prediction
        origin = [result.name, found.path, found.frame]
        height, width = found.shape
        self._images.add(_csv_row(*origin, width, height, len(found.boxes), *_said_cells(found)))
        for box in found.boxes:
            self._boxes.add(_csv_row(*origin, box.class_index, box.name, *_rounded(*box[2:])))


def _said_columns(outputs: Outputs, own: Sequence[str]) -> list[str]:
    """The columns of a table for what is said of an image, beside its own."""
    if _classic(outputs):
        names = outputs[0].rows if outputs else ()
        return ["image_class", "probability", *(f"probability {name}" for name in names)]
    said: list[str] = []
    for column in (column for output in outputs for column in output.cells(np.zeros(output.width))):
        said.append(f"{column} ({len(said) + 1})" if column in (*own, *said) else column)
    return said


def _said_cells(found: Prediction | Clip) -> list[Any]:
    """The cells of these columns."""
    if not _classic([answer.output for answer in found.answers]):
        return [_cell(cell) for answer in found.answers for cell in answer.cells.values()]
    if not found.answers:
        return ["", ""]
    values = found.answers[0].values
    return [found.image_class.name if found.image_class else "", *_rounded(max(values), *values)]


def _classic(outputs: Sequence[ImageOutput]) -> bool:
    """Whether there is nothing but the class of `classification_names`, if that."""
    return [output.name for output in outputs] in ([], [CLASS])


class Clips(Output):
    """`clips.json` and `clips.csv`, or one of them: what each video comes to as a whole, an object or row a video."""

    def __init__(self, folder: Path, outputs: Outputs, as_json: bool, as_csv: bool) -> None:
        own = ["name", "path", "frames"]
        self._json = JsonFile(folder, "clips.json") if as_json else None
        self._csv = _GrowingText(folder / "clips.csv", _csv_row(*own, *_said_columns(outputs, own))) if as_csv else None
        self.texts = [*(self._json.texts if self._json else ()), *([self._csv] if self._csv else ())]
        self._last: dict[str, tuple[str | None, Clip]] = {}

    def write(self, result: Result) -> None:
        """Keep what the video comes to so far."""
        if result.prediction.clip is not None:
            self._last[result.stem] = result.prediction.path, result.prediction.clip

    def finish(self) -> None:
        """Write the files; without a video they hold nothing."""
        for name, (path, clip) in self._last.items():
            if self._json is not None:
                self._json.add({"name": name, "path": path, **clip.to_dict()})
            if self._csv is not None:
                self._csv.add(_csv_row(name, path, clip.frames, *_said_cells(clip)))
        super().finish()


def _csv_row(*cells: Any) -> str:
    """A line of CSV; no cell is a formula to a spreadsheet."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(csv_row(cells))
    return line.getvalue()


def _rounded(*values: float) -> list[str]:
    return [f"{value:.6g}" for value in values]


def _cell(value: Any) -> Any:
    return _rounded(value)[0] if isinstance(value, float) else value


class Pictures(Output):
    """Each picture with what was found drawn on it, in a file of its own; each video or stream as an .mp4."""

    def __init__(self, folder: Path, side_by_side: bool) -> None:
        """`side_by_side`: several videos grow at the same time (streams), else one is done when the next begins."""
        self.folder = folder
        self.side_by_side = side_by_side
        self._open: dict[Path, tuple[UnfinishedFile, cv2.VideoWriter]] = {}

    def write(self, result: Result) -> None:
        """Write a picture, or the next frame of a video."""
        drawn = self.drawing(result)
        if result.frame.number is None:
            write_image(self.folder / f"{result.stem}{picture_suffix(result.frame.path)}", drawn)
            return
        path = self.folder / f"{result.stem}.mp4"
        if path not in self._open:
            if not self.side_by_side:
                self.finish()
            self._open[path] = _new_video(path, drawn.shape, result.frame.fps)
        self._open[path][1].write(drawn)

    def drawing(self, result: Result) -> np.ndarray:
        """What is written of a picture or frame, (H, W, 3) uint8, BGR."""
        return result.drawn

    def finish(self) -> None:
        """Close the videos."""
        for file in self._closed():
            file.finish()

    def discard(self) -> None:
        """Remove the videos that are not whole."""
        for file in self._closed():
            file.discard()

    def _closed(self) -> Iterator[UnfinishedFile]:
        while self._open:
            _, (file, video) = self._open.popitem()
            video.release()
            yield file


class ExplainedPictures(Pictures):
    """Each picture, or frame of a video, beside the heat maps that say why."""

    def __init__(self, folder: Path, side_by_side: bool) -> None:
        super().__init__(folder, side_by_side)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def drawing(self, result: Result) -> np.ndarray:
        """The explained picture. Frames have the size of their video's first: how many labels there are may change."""
        drawn = result.prediction.explain().draw(result.style)
        if result.frame.number is None:
            return drawn
        height, width = self._shapes.setdefault(result.stem, drawn.shape)[:2]
        scale = min(height / drawn.shape[0], width / drawn.shape[1])
        if scale == 1:
            fitted = drawn
        else:
            fitted = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        fitted = fitted[:height, :width]
        below, beside = height - fitted.shape[0], width - fitted.shape[1]
        return cv2.copyMakeBorder(fitted, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _new_video(path: Path, shape: tuple[int, ...], fps: float) -> tuple[UnfinishedFile, cv2.VideoWriter]:
    height, width = shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = UnfinishedFile(path)
    video = cv2.VideoWriter(str(file.path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not video.isOpened():
        file.discard()
        raise PredictError(f"{path} cannot be written: OpenCV opens no mp4 video there")
    return file, video


class Crops(Output):
    """Each box cut out, with a little around it, as `crops/CLASS/NAME_NUMBER.jpg`."""

    def __init__(self, folder: Path, box_classes: Iterable[str]) -> None:
        self.folder, self.folders = folder / "crops", folder_names(box_classes)

    def write(self, result: Result) -> None:
        """Cut the boxes out of the image as it was."""
        image = result.prediction.image
        for number, box in enumerate(result.prediction.boxes, start=1):
            crop = _save_one_box([round(value) for value in box[3:]], image, BGR=True, save=False)
            if crop.size:  # a class without a name is called by its number
                write_image(self.folder / self.folders.get(box.name, box.name) / f"{result.name}_{number}.jpg", crop)
