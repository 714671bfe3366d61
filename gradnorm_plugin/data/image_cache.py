"""`--cache disk`: the pixels of each image beside it, used only where they are those of the picture as it is now.

Upstream keeps `a.npy` beside `a.jpg`, whatever becomes of the picture (and for `a.png` too), and reads it without being asked.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from gradnorm_plugin.data.label_cache import file_states
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.pictures import decode

SUFFIX = ".pixels"
STATE = 24
"""Bytes that tell the picture's state."""


class DeepImage:
    """In the place of the path of an image's .npy, for an image of more than 8 bits, which OpenCV would cut to the upper 8.

    Upstream asks `exists()`, then `numpy.load`s it: a file of NumPy's format, made when it is asked for.
    """

    def __init__(self, image: str) -> None:
        self.image, self._file = image, io.BytesIO()

    def exists(self) -> bool:
        """Whether the image can be read; upstream tells of one that cannot."""
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
    """In the place of the path of an image's .npy: upstream asks `exists()`, then `numpy.load`s it.

    The file is NumPy's own format, (H, W, 3) uint8, and at its end `STATE` bytes: the picture's `file_states`.
    """

    __slots__ = ("image", "used")

    def __init__(self, image: str, used: bool) -> None:
        """`used`: whether the run asked for it; else there is nothing, whatever lies there."""
        self.image, self.used = image, used

    def __fspath__(self) -> str:
        return f"{self.image}{SUFFIX}"

    def exists(self) -> bool:
        """Whether the pixels are there, whole, and of the picture as it is now. A link is nothing."""
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

    def stat(self) -> Any:
        """For upstream's count of bytes; there are none where the pixels could not be written."""
        return os.stat(self) if self.exists() else SimpleNamespace(st_size=0)

    def write(self, read: Any) -> None:
        """Keep what `read(image)` returns, (H, W, 3) uint8; nothing if it is None, as OpenCV says of what it cannot read.

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
