"""Outputs to look at: drawn pictures and videos, crops of the boxes, a window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2

from gradnorm_plugin.files import UnfinishedFile
from gradnorm_plugin.names import folder_name
from gradnorm_plugin.predict.errors import PredictError
from gradnorm_plugin.predict.images import picture_suffix, write_image
from gradnorm_plugin.predict.writer import Result, Stopped, Writer
from gradnorm_plugin.upstream.gateway import upstream

_plots = upstream("utils.plots")

_TRY_WINDOW = "import cv2, numpy; cv2.imshow('test', numpy.zeros((1, 1, 3), numpy.uint8)); cv2.waitKey(1)"


class Pictures(Writer):
    """Each picture with what was found drawn on it, in a file of its own; each video or stream as an .mp4."""

    def __init__(self, folder: Path, side_by_side: bool) -> None:
        """`side_by_side`: several videos grow at the same time (streams), else one is done when the next begins."""
        self.folder = folder
        self.side_by_side = side_by_side
        self._open: dict[Path, tuple[UnfinishedFile, cv2.VideoWriter]] = {}

    def write(self, result: Result) -> None:
        """Write a picture, or the next frame of a video."""
        if result.frame.number is None:
            write_image(self.folder / f"{result.stem}{picture_suffix(result.frame.path)}", result.drawn)
            return
        path = self.folder / f"{result.stem}.mp4"
        if path not in self._open:
            if not self.side_by_side:
                self.finish()
            self._open[path] = _new_video(path, result)
        self._open[path][1].write(result.drawn)

    def finish(self) -> None:
        """Close the videos."""
        while self._open:
            _, (file, video) = self._open.popitem()
            video.release()
            file.finish()

    def discard(self) -> None:
        """Remove the videos that are not whole."""
        while self._open:
            _, (file, video) = self._open.popitem()
            video.release()
            file.discard()


def _new_video(path: Path, result: Result) -> tuple[UnfinishedFile, cv2.VideoWriter]:
    height, width = result.drawn.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = UnfinishedFile(path)
    video = cv2.VideoWriter(str(file.path), cv2.VideoWriter_fourcc(*"mp4v"), result.frame.fps, (width, height))
    if not video.isOpened():
        file.discard()
        raise PredictError(f"{path} cannot be written: OpenCV opens no mp4 video there")
    return file, video


class Crops(Writer):
    """Each box cut out, with a little around it, as `crops/CLASS/NAME_NUMBER.jpg`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "crops"

    def write(self, result: Result) -> None:
        """Cut the boxes out of the image as it was."""
        image = result.prediction.image
        for number, box in enumerate(result.prediction.boxes, start=1):
            crop = _plots.save_one_box([round(value) for value in box[3:]], image, BGR=True, save=False)
            if crop.size:
                of_class = self.folder / folder_name(box.name)
                write_image(of_class / f"{result.name}_{number}.jpg", crop)


class Window(Writer):
    """A window for each source; the key q stops."""

    def __init__(self) -> None:
        # In another process: without a display OpenCV does not raise, it ends the process.
        tried = subprocess.run([sys.executable, "-c", _TRY_WINDOW], capture_output=True, check=False, timeout=60)
        if tried.returncode:
            raise PredictError("--view-img: no window can be opened here (no display, or OpenCV without windows): leave it out")
        self._titles: set[str] = set()

    def write(self, result: Result) -> None:
        """Show the drawn image."""
        title = result.frame.path.encode("unicode_escape").decode()
        if title not in self._titles:
            self._titles.add(title)
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(title, result.drawn.shape[1], result.drawn.shape[0])
        cv2.imshow(title, result.drawn)
        if cv2.waitKey(1) & 0xFF == ord("q"):
            raise Stopped

    def finish(self) -> None:
        """Close the windows."""
        if self._titles:
            cv2.destroyAllWindows()

    discard = finish
