"""Pictures from files and into them: a picture is (H, W, 3) uint8, its colours in OpenCV's order (blue, green, red)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from gradnorm_plugin.files import explain, write_bytes
from gradnorm_plugin.predict.errors import ImageError, PredictError

_WHOLE = (b"\xff\xd9", b"IEND\xaeB`\x82")  # the last bytes of a JPEG and of a PNG file
_WRITTEN_AS_THEY_ARE = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def read_image(path: str | Path) -> np.ndarray:
    """The picture of a file.

    Raises:
        ImageError: if the file is not there, empty, cut short, or no picture.
    """
    try:
        content = np.fromfile(path, np.uint8)  # not cv2.imread, which takes no foreign letters in paths on Windows
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    if not content.size:
        raise ImageError(f"{path}: the file is empty")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{path}: {error.err or error}") from None
    # OpenCV 4 gives the upper part of a JPEG that was cut short, and grey below.
    if image is None or not content[-8:].tobytes().endswith(_WHOLE):
        fault = _fault(path)
        if image is None or fault:
            raise ImageError(f"{path}: {fault or 'no picture of a kind that OpenCV reads'}")
    return image


def _fault(path: str | Path) -> str:
    """What Pillow finds wrong with the file; nothing for a format that OpenCV alone knows."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except UnidentifiedImageError:
        return ""
    except Exception as error:  # each format's decoder fails in its own way
        return str(error)
    return ""


def picture_suffix(path: str | Path) -> str:
    """The suffix to write a picture of `path` with: its own, or .jpg where OpenCV does not write that format."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _WRITTEN_AS_THEY_ARE else ".jpg"


def write_image(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write a picture; the file appears whole or not at all.

    Raises:
        PredictError: if OpenCV cannot encode it, or the folder cannot be written to.
    """
    # 4:4:4: thin coloured lines and letters stay sharp
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    try:
        done, content = cv2.imencode(path.suffix, image, jpeg if path.suffix in {".jpg", ".jpeg"} else [])
        if not done:
            raise PredictError(f"{path} cannot be written as {path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.tobytes())
    except OSError as error:
        raise PredictError(explain(error)) from None
    except cv2.error as error:
        raise PredictError(f"{path} cannot be written: {error}") from None
