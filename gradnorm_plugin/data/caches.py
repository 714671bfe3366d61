"""Caches beside a data set, so that it need not be read again: the targets of all label files, and the pixels of each image.

No cache holds pickled objects. One is used only if it is complete, of exactly the files that are there now and, for targets, made
by these very rules. In every other case it counts as absent and is replaced.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.labels import __file__ as _rules_file
from gradnorm_plugin.outputs import ImageOutput, Outputs
from gradnorm_plugin.outputs import __file__ as _outputs_file
from gradnorm_plugin.pictures import decode

SUFFIX = ".pixels"
STATE = 24
"""Bytes that record the picture's state."""
_SOURCES = [Path(_rules_file), *sorted(Path(_outputs_file).parent.glob("*.py"))]
_RULES = hashlib.sha256(b"".join(file.read_bytes() for file in _SOURCES)).hexdigest()

Bounds = tuple[int | None, Outputs]
"""What a label file is held against: the number of box classes (None: any) and the image outputs."""
Targets = dict[str, np.ndarray]
"""Of all images, by the name of the image output."""


def cache_file(source: str | list[str], label_files: Sequence[str]) -> Path:
    """Where the targets of a data source are kept: beside its text file or, for a folder, beside the folder of its labels."""
    last = Path(source[-1] if isinstance(source, list) else source)
    beside = last if last.is_file() else Path(label_files[0]).parent
    return beside.with_name(f"{beside.name}.joint.cache")


def file_states(files: Sequence[str]) -> np.ndarray:
    """(files, 3) int64: size in bytes, times of the last change of content and of place in ns; the negative error number first.

    What is unpacked or renamed may have the time and size of what lay there before; only the system sets the time of place.
    """
    states: list[int] = []
    for file in files:
        try:
            state = os.stat(file)
            states += (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        except OSError as error:
            states += (-(error.errno or 1), -1, -1)
    return np.array(states, dtype=np.int64).reshape(-1, 3)


def read_targets(path: Path, label_files: Sequence[str], states: np.ndarray, bounds: Bounds) -> Targets | None:
    """The targets kept at `path`; None if they are not there, damaged, or not of these files as they are now."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != _key(label_files, bounds) or not np.array_equal(kept["states"], states):
                return None
            targets = {output.name: kept[f"target {output.name}"] for output in bounds[1]}
            fits = all(_fits(targets[output.name], output, len(label_files)) for output in bounds[1])
    except Exception:  # whatever a damaged file gives, it is made anew
        return None
    return targets if fits else None


def write_targets(path: Path, label_files: Sequence[str], states: np.ndarray, bounds: Bounds, targets: Targets) -> None:
    """Keep the targets at `path`, whole or not at all.

    Raises:
        OSError: if the folder cannot be written to.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        kept = {f"target {name}": values for name, values in targets.items()}
        save: Callable[..., None] = np.savez  # by its type, a name might be that of its one flag
        save(file, key=np.array(_key(label_files, bounds)), states=states, **kept)


def _fits(targets: np.ndarray, output: ImageOutput, files: int) -> bool:
    """Whether these can be the targets of `files` label files: all of them can be written as label lines."""
    like = output.targets([None])
    if targets.shape != (files, *like.shape[1:]) or targets.dtype != like.dtype:
        return False
    known = np.unique(targets[output.known(targets)], axis=0)
    return all(output.parse(output.format(tuple(np.atleast_1d(target).tolist())).split()) for target in known)


def _key(label_files: Sequence[str], bounds: Bounds) -> str:
    return hashlib.sha256("\n".join([_RULES, repr(bounds), *label_files]).encode("utf-8", "surrogateescape")).hexdigest()


class DeepImage:
    """Stands in for the path of an image's .npy if the image has more than 8 bits, of which OpenCV would keep the upper 8.

    Upstream asks `exists()`, then `numpy.load`s it: a file in NumPy's format, made on demand.
    """

    def __init__(self, image: str) -> None:
        self.image, self._file = image, io.BytesIO()

    def exists(self) -> bool:
        """Whether the image can be read; upstream reports it if not."""
        try:
            pixels = decode(np.fromfile(self.image, np.uint8))
        except (OSError, cv2.error):
            pixels = None
        self._file = io.BytesIO()
        if pixels is not None:
            np.lib.format.write_array(self._file, pixels, version=(1, 0), allow_pickle=False)
            self._file.seek(0)
        return pixels is not None

    def read(self, size: int = -1) -> bytes:
        """As a file."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file."""
        return self._file.seek(offset, whence)

    def stat(self) -> Any:
        """For upstream's count of bytes: there are none on the disk."""
        return SimpleNamespace(st_size=0)


class CachedImage:
    """`--cache disk`: stands in for the path of an image's .npy. Upstream asks `exists()`, then `numpy.load`s it.

    Upstream itself would keep `a.npy` beside `a.jpg` even if the picture changes (and for `a.png` too), and read it unasked.
    The file is in NumPy's own format, (H, W, 3) uint8, followed by `STATE` bytes: the picture's `file_states`.
    """

    __slots__ = ("image", "used")

    def __init__(self, image: str, used: bool) -> None:
        """`used`: whether the run asked for it; else any file there is ignored."""
        self.image, self.used = image, used

    def __fspath__(self) -> str:
        return f"{self.image}{SUFFIX}"

    def exists(self) -> bool:
        """Whether the pixels are there, complete, and those of the picture as it is now. Links do not count."""
        if not self.used:
            return False
        try:
            if not stat.S_ISREG(os.lstat(self).st_mode):
                return False
            with open(self, "rb") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    return False
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
                start, end = file.tell(), file.seek(0, os.SEEK_END)
                file.seek(max(start, end - STATE))
                state = file.read()
            whole = len(shape) == 3 and min(shape) > 0 and shape[2] == 3 and start + shape[0] * shape[1] * 3 + STATE == end
            return whole and dtype == np.uint8 and not fortran_order and state == self._state()
        except (OSError, ValueError):
            return False

    def stat(self) -> os.stat_result | SimpleNamespace:
        """For upstream's count of bytes: none if the pixels could not be written."""
        return os.stat(self) if self.exists() else SimpleNamespace(st_size=0)

    def write(self, read: Callable[[str], np.ndarray | None]) -> None:
        """Keep what `read(image)` returns, (H, W, 3) uint8; nothing if that is None, OpenCV's answer to what it cannot read.

        Raises:
            OSError: if the folder cannot be written to.
        """
        state = self._state()  # before the picture is read: a change in between shows
        pixels = read(self.image)
        if pixels is not None:
            with whole_file(Path(self)) as partial, partial.open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(pixels), version=(1, 0), allow_pickle=False)
                file.write(state)

    def _state(self) -> bytes:
        return file_states([self.image]).astype("<i8").tobytes()
