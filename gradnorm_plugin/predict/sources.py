"""Where images come from: files, video, cameras, the screen, the network, found and read by upstream's own loaders.

The loaders' scaled images are not used (`Predictor` scales): they are asked for none.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np

from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.names import address_path, without_secrets
from gradnorm_plugin.pictures import DICOM_SUFFIXES, PictureError, dicom_frames, dicom_length
from gradnorm_plugin.predict import ImageError, PredictError
from gradnorm_plugin.predict.images import read_image
from gradnorm_plugin.reading import read_text
from gradnorm_plugin.upstream.gateway import swapped, upstream

_downloads = upstream("utils.downloads")
_loaders = upstream("utils.dataloaders")

STREAM_FPS = 30
"""Frames a second that the video of a stream is written with, as upstream does: they come as fast as they are predicted."""


_READ = ("rtsp://", "rtmp://", "http://", "https://")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Frame(NamedTuple):
    """An image (H, W, 3) uint8, BGR, and where it is from."""

    path: str
    image: np.ndarray
    number: int | None = None
    """Which frame of a video or stream, from 1; None: a picture."""
    fps: float = 0.0
    """Frames a second of the video."""


class Source:
    """What `predict` goes through: lists of frames that come at the same time (several for several streams)."""

    total: int | None = None
    """How many frames there are, if that can be known."""
    live = False
    """Whether it goes on until it is stopped."""

    def __init__(self) -> None:
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[list[Frame]]:
        raise NotImplementedError


class _Listing(_loaders.LoadImages):  # type: ignore[misc,name-defined]
    """Upstream's, which opens no video before it is known what its file is."""

    def _new_video(self, path: str) -> None:
        return


class _Files(Source):
    """Pictures and videos that upstream's `LoadImages` finds; one that cannot be read is noted and passed over."""

    def __init__(self, source: str | list[str], vid_stride: int) -> None:
        super().__init__()
        with swapped(_loaders, IMG_FORMATS=(*_loaders.IMG_FORMATS, *DICOM_SUFFIXES), glob=SimpleNamespace(glob=_matching)):
            found = _Listing(source, transforms=_no_scaling, vid_stride=vid_stride)
        kinds = []
        for path, is_video in zip(found.files, found.video_flag, strict=True):
            if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which would be waited for
                self.unreadable.append(f"{path}: not a regular file")
            else:
                kinds.append((path, is_video))
        self.pictures = [path for path, is_video in kinds if not is_video]
        self.videos = [path for path, is_video in kinds if is_video]
        self.vid_stride = vid_stride
        frames = [*map(_frames, self.videos), *(dicom_length(path) for path in self.pictures if _is_dicom(path))]
        self.total = sum(not _is_dicom(path) for path in self.pictures) + sum(math.ceil(count / vid_stride) for count in frames)

    def __iter__(self) -> Iterator[list[Frame]]:
        for path in self.pictures:  # upstream's own reading ends at the first one that is broken
            if _is_dicom(path):
                yield from self._dicom(path)
                continue
            try:
                yield [Frame(path, read_image(path))]
            except ImageError as error:
                self.unreadable.append(str(error))
        for path in self.videos:
            yield from self._video(path)

    def _dicom(self, path: str) -> Iterator[list[Frame]]:
        """The picture, or the frames of the film."""
        try:
            moving = dicom_length(path) > 1
            frames, fps = dicom_frames(Path(path).read_bytes())
            for number, image in enumerate(
                itertools.islice(frames, self.vid_stride - 1 if moving else 0, None, self.vid_stride), 1
            ):
                yield [Frame(path, image, number, fps / self.vid_stride or STREAM_FPS) if moving else Frame(path, image)]
        except (PictureError, OSError) as error:
            self.unreadable.append(f"{path}: {getattr(error, 'strerror', None) or error}")

    def _video(self, path: str) -> Iterator[list[Frame]]:
        capture = cv2.VideoCapture(path)
        fps = capture.get(cv2.CAP_PROP_FPS) / self.vid_stride
        number = 0
        # Not upstream's own loop: it asks for one frame more than there are, which OpenCV reports as an error.
        while all(capture.grab() for _ in range(self.vid_stride)):
            readable, image = capture.retrieve()
            if not readable:
                break
            number += 1
            yield [Frame(path, image, number, fps if math.isfinite(fps) and fps > 0 else STREAM_FPS)]
        capture.release()
        if not number:
            self.unreadable.append(f"{path}: no frame of this video can be read")


class _Fetched(_Files):
    """The picture or video at an address, as it is now; it lies in a folder of its own for as long as it is needed."""

    def __init__(self, address: str, vid_stride: int) -> None:
        self._folder = TemporaryDirectory(prefix="gradnorm-")
        file = _downloads.fetch(address, self._folder.name)
        super().__init__(file, vid_stride)
        self._place = f"{without_secrets(address).rpartition('/')[0]}/{Path(file).name}"

    def __iter__(self) -> Iterator[list[Frame]]:
        for frames in super().__iter__():
            yield [frame._replace(path=self._place) for frame in frames]
        self.unreadable = [
            error.replace(str(Path(self._folder.name, Path(self._place).name)), self._place) for error in self.unreadable
        ]


class _Streams(Source):
    """Cameras and network streams, read in threads by upstream's `LoadStreams`; each step takes the newest frame of all."""

    live = True

    def __init__(self, source: str, vid_stride: int) -> None:
        super().__init__()
        self.loader = _loaders.LoadStreams(source, transforms=_no_scaling, vid_stride=vid_stride)

    def __iter__(self) -> Iterator[list[Frame]]:
        number = 0
        # Not upstream's own loop: it asks for a key press, which OpenCV's headless build has not.
        while all(thread.is_alive() for thread in self.loader.threads):
            number += 1
            images = list(self.loader.imgs)
            yield [Frame(name, image, number, STREAM_FPS) for name, image in zip(self.loader.sources, images, strict=True)]


class _Screen(Source):
    """The screen, or a part of it: "screen", "screen N", "screen LEFT TOP WIDTH HEIGHT", "screen N LEFT TOP WIDTH HEIGHT"."""

    live = True

    def __init__(self, source: str) -> None:
        super().__init__()
        self.loader = _loaders.LoadScreenshots(source, transforms=_no_scaling)

    def __iter__(self) -> Iterator[list[Frame]]:
        for screen, _, image, _, _ in self.loader:
            yield [Frame(f"screen{screen}", image, self.loader.frame, STREAM_FPS)]


def open_source(source: str, vid_stride: int = 1) -> Source:
    """Find what `source` names, by upstream's rules.

    Args:
        source: a picture, a video, a folder, a glob, a .txt list of those, a .streams list, a camera's number, a URL, "screen".
        vid_stride: every how many frames of a video or stream are taken.

    Raises:
        PredictError: if it is not there, holds nothing to read, or cannot be opened.
    """
    lowered = source.lower()
    is_url = lowered.startswith(_READ)
    place = address_path(lowered) if is_url else lowered
    is_file = Path(place).suffix[1:] in (
        *_loaders.IMG_FORMATS,
        *_loaders.VID_FORMATS,
        *DICOM_SUFFIXES,
    ) and not lowered.startswith("rt")
    if _ADDRESS.match(source) and not is_url:  # upstream would make a path of it, and say that this does not exist
        raise PredictError(f"--source {source}: addresses begin with {', '.join(_READ)}; of other files give the path")
    try:
        if lowered.startswith("screen") and not Path(source).exists():
            return _Screen(source)
        if lowered.endswith(".streams") and Path(source).is_file() and not Path(source).read_bytes().strip():
            raise PredictError(f"--source {source} is empty: write an address on each line")
        if source.isdecimal() or lowered.endswith(".streams") or (is_url and not is_file):
            return _Streams(source, vid_stride)
        if is_url:
            return _Fetched(source, vid_stride)
        return _Files(_listed(source) if lowered.endswith(".txt") else source, vid_stride)
    except PredictError:
        raise
    except ModuleNotFoundError as error:
        raise PredictError(f"--source {source} needs the package {error.name}: pip install {error.name}") from None
    except (FileNotFoundError, AssertionError) as error:
        raise PredictError(without_secrets(f"--source {source}: {error}")) from None
    except Exception as error:  # cameras, screens and servers are away in many ways; to the user they are one
        message = f"--source {source} cannot be opened: {type(error).__name__}: {error}"
        raise PredictError(without_secrets(message)) from None


def _listed(source: str) -> list[str]:
    """The lines of a .txt list; upstream splits at spaces too, which paths may have."""
    if not Path(source).exists():
        raise PredictError(f"--source {source} does not exist")
    try:
        lines = [line.strip() for line in read_text(source).split("\n")]
    except DescriptionError as error:
        raise PredictError(f"--source {error}") from None
    paths = [line for line in lines if line]
    if not paths:
        raise PredictError(f"--source {source} is empty: write a path on each line")
    address = next((path for path in paths if _ADDRESS.match(path)), None)
    if address:
        raise PredictError(f"--source {source}: {address} is an address: a list holds paths, a .streams file addresses")
    return paths


def _matching(pattern: str, recursive: bool = False) -> list[str]:
    """In the place of upstream's `glob.glob`: as far as a path is there, its letters are no pattern (`scans [1]`, `a*.png`)."""
    there = pattern
    while there and not os.path.exists(there):
        there = os.path.dirname(there)
    if os.path.isfile(there):
        return [there]
    rest = os.path.relpath(pattern, there) if there != pattern else "*.*"
    return glob.glob(os.path.join(glob.escape(there), rest), recursive=recursive)


def _no_scaling(_: np.ndarray) -> np.ndarray:
    return np.empty(0)


def _is_dicom(path: str) -> bool:
    return path.lower().endswith(tuple(f".{suffix}" for suffix in DICOM_SUFFIXES))


def _frames(video: str) -> int:
    capture: Any = cv2.VideoCapture(video)
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return max(0, int(frames)) if math.isfinite(frames) else 0
