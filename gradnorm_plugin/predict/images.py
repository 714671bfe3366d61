"""Pictures from what people have, and into files. A picture is (H, W, 3) uint8, its colours in OpenCV's order, BGR."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gradnorm_plugin.files import explain, read_bytes, write_bytes
from gradnorm_plugin.pictures import PictureError, decode, dicom_frames, is_dicom, spread
from gradnorm_plugin.predict import ImageError, PredictError

_WHOLE = (b"\xff\xd9", b"IEND\xaeB`\x82")  # the last bytes of a JPEG and of a PNG file
_LARGEST = 4 << 30  # bytes
_WRITTEN_AS_THEY_ARE = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


WHAT_AN_IMAGE_IS = (
    "a path, a PIL image, the content of an image file (bytes, or a file opened in binary mode), or an array of uint8, BGR "
    "(H, W, 3) as cv2.imread gives it"
)


def is_several(images: Any) -> TypeGuard[Iterable[Any]]:
    """Whether `images` is a list, a tuple, a generator or another ordered collection, rather than one image or nothing of use."""
    single = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image.Image, Tensor, Mapping, Set)
    return isinstance(images, Iterable) and not isinstance(images, single) and not hasattr(images, "read")


def as_picture(image: Any) -> tuple[str | None, np.ndarray]:
    """The path that an image is from, None if there is none, and its picture; `Predictor` says what each kind of image means.

    Raises:
        ImageError: if it is a file, or the content of one, that cannot be read.
        PredictError: if it is no image.
    """
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image), read_image(os.fsdecode(image))
    if isinstance(image, np.ndarray):
        return None, _of_array(image)
    if isinstance(image, Image.Image):
        return getattr(image, "filename", None) or None, _of_pil(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return None, _decoded(np.array(bytearray(image)), f"these {memoryview(image).nbytes} bytes")
    if hasattr(image, "read"):
        name = getattr(image, "name", None)
        try:
            content = image.read()
        except (OSError, ValueError) as error:  # closed, or cut off from where it comes
            raise ImageError(f"{name or 'the opened file'}: {error}") from None
        if not isinstance(content, bytes):
            raise PredictError(f"{name or 'the file'} is opened as text: open it in binary mode, open(path, 'rb')")
        return name if isinstance(name, str) else None, _decoded(np.array(bytearray(content)), name or "the opened file")
    if isinstance(image, Tensor):
        raise PredictError(
            f"an image is {WHAT_AN_IMAGE_IS}; found a tensor {tuple(image.shape)} of {image.dtype}, which does not say its order "
            f"of colours and its range: for RGB (3, H, W) from 0 to 1 give "
            f"(tensor * 255).round().byte().permute(1, 2, 0).cpu().numpy()[..., ::-1]"
        )
    raise PredictError(f"an image is {WHAT_AN_IMAGE_IS}; found {_shown(image)}")


def _shown(thing: Any) -> str:
    text = " ".join(repr(thing).split())
    return f"{type(thing).__name__} {text if len(text) <= 40 else text[:40] + '...'}"


def _of_array(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    found = f"{array.shape} of {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    hint = ""
    if array.ndim == 4:
        hint = ": a batch, give list(array)"
    elif array.ndim == 3 and array.shape[0] in {1, 3, 4} and array.shape[2] not in {3, 4}:
        hint = ": channels first, give array.transpose(1, 2, 0)"
    elif array.dtype == np.bool_ or np.issubdtype(array.dtype, np.floating):
        hint = ": for values from 0 to 1 give (array * 255).round().astype(np.uint8)"
    elif np.issubdtype(array.dtype, np.integer) and array.dtype not in (np.uint8, np.uint16):
        hint = ": for values from 0 to 255 give array.astype(np.uint8)"
    elif array.dtype == np.uint16 and array.size and 0 < array.max() < 256:
        hint = ", with no value above 255: give array.astype(np.uint8), or scale it to 65535"
    usable = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})
    if hint or not usable or not array.size or array.dtype not in (np.uint8, np.uint16):
        raise PredictError(f"an image that is an array is (H, W, 3) of uint8 in BGR, as cv2.imread gives it; found {found}{hint}")
    if array.dtype == np.uint16:
        array = spread(array)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array if array.shape[2] == 3 else array[..., :3])


def _of_pil(image: Image.Image) -> np.ndarray:
    try:
        if not image.width * image.height:
            raise PredictError(f"a PIL image of {image.width} x {image.height} pixels has nothing in it")
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):
            return _of_array(spread(np.asarray(upright)))
        return _of_array(np.asarray(upright.convert("RGB"))[..., ::-1])
    except (OSError, ValueError, SyntaxError) as error:  # cut short; a mode without a way to RGB; a broken PNG
        if isinstance(error, PredictError):
            raise
        raise ImageError(f"{getattr(image, 'filename', '') or 'a PIL image'} of mode {image.mode}: {error}") from None


def read_image(path: str | Path) -> np.ndarray:
    """The picture of a file.

    Raises:
        ImageError: if the file is not there, empty, cut short, or no picture.
    """
    try:
        # Not cv2.imread, which takes no foreign letters in paths on Windows and waits for a pipe
        content = np.frombuffer(read_bytes(Path(path), _LARGEST), np.uint8)
    except (OSError, ValueError) as error:  # the latter for a NUL in the path
        if re.match(r"[a-z][a-z0-9+.-]+://?", str(path), re.IGNORECASE):
            raise ImageError(f"{path} is an address, not a file: fetch it first, or use `yolov5-gradnorm predict`") from None
        raise ImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return _decoded(content, path)


def _decoded(content: np.ndarray, path: str | Path) -> np.ndarray:
    """The picture of a file's content; `path` names it in errors."""
    if not content.size:
        raise ImageError(f"{path}: the file is empty")
    try:
        if is_dicom(content):
            first, *others = itertools.islice(dicom_frames(content.tobytes())[0], 2)
            if others:
                raise ImageError(
                    f"{path}: a film of several frames: name it to `yolov5-gradnorm predict`, or give its frames one by one"
                )
            return first
        image = decode(content)
    except PictureError as error:
        raise ImageError(f"{path}: {error}") from None
    except cv2.error as error:
        raise ImageError(f"{path}: {error.err or error}") from None
    # OpenCV 4 gives the upper part of a JPEG that was cut short, and grey below.
    if image is None or not content[-8:].tobytes().endswith(_WHOLE):
        fault = _fault(content)
        if image is None or fault:
            raise ImageError(f"{path}: {fault or 'no picture of a kind that OpenCV reads'}")
    return image


def _fault(content: np.ndarray) -> str:
    """What Pillow finds wrong with the file; nothing for a format that OpenCV alone knows."""
    try:
        with Image.open(io.BytesIO(content.tobytes())) as picture:
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


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a picture; the file appears whole or not at all.

    Raises:
        PredictError: if OpenCV cannot encode it, or the folder cannot be written to.
    """
    # 4:4:4: thin coloured lines and letters stay sharp
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
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
