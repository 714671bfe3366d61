"""The images of a source: finding them, resolving references to them, and reading them as training will."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from gradnorm_plugin.convert.oddities import ConversionError, shown
from gradnorm_plugin.names import address_path
from gradnorm_plugin.pictures import DICOM_SUFFIXES, PictureError, decode, dicom_frames, is_deep, is_dicom, thumbnail

# Those that YOLOv5 reads (IMG_FORMATS of its utils/dataloaders.py), and DICOM, which is written as PNG
SUFFIXES = frozenset({*DICOM_SUFFIXES, "bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm"})
TURNS_BY_90 = {5, 6, 7, 8}
_SMALLEST = 10  # pixels; YOLOv5 leaves out smaller images
_LAST_NUMBER = re.compile(r"[0-9]{1,18}$")
_EXIF_ORIENTATION = 0x0112
_SPLIT_NAME = re.compile(r"(train|val|test)(ing|id|idation)?[0-9]*")


def files_under(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files below `folder` with one of the suffixes, sorted; hidden ones (with a leading dot) are skipped."""
    wanted, seen = set(suffixes), set()

    def walk(place: str) -> Iterator[Path]:
        for here, folders, names in os.walk(place, followlinks=True):
            real = os.path.realpath(here)
            if real in seen:  # a link back up
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if not name.startswith(".") and name.rpartition(".")[2].lower() in wanted:
                    path = os.path.join(here, name)
                    if os.path.isfile(path) or not os.path.exists(path):  # no pipe, which would wait for ever
                        yield Path(path)

    return sorted(walk(str(folder)))


class ImageIndex:
    """The image files below a folder, found by path, name, stem or number."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.keep(files)

    def keep(self, files: Sequence[Path]) -> None:
        """Index these files only."""
        self.files = list(files)
        self._named: dict[str, list[Path]] = defaultdict(list)
        self._numbers: dict[int, list[Path]] = defaultdict(list)
        for file in self.files:
            for kind, name in (("path", self.key(file)), ("name", file.name), ("stem", file.stem)):
                for case, called in (("as is", name), ("folded", _folded(name))):
                    self._named[f"{kind} {case} {called}"].append(file)
            if found := _LAST_NUMBER.search(file.stem):
                self._numbers[int(found.group())].append(file)

    def key(self, file: Path) -> str:
        """The path of an image below the folder, with forward slashes."""
        return file.relative_to(self.root).as_posix()

    def find(self, key: str, near: Path | None = None, numbers: bool = False) -> list[Path]:
        """The images that `key` may refer to: one, none, or several if it is ambiguous.

        The first rule that finds any decides: the path below the folder (or its end), the file name, the stem; then the
        same of `key` as part of an address (`my%20image.png`); then both whatever the case; and, with `numbers`, the number
        at the end of the stem (`7` is `Blood_00007.png`). Among several, those count that share most of their folders'
        names with `key`, then with the file `near`.
        """
        key = key.strip()
        address = unquote(address_path(key) if re.match("[a-z]{2,9}://", key) else key)
        for case, fold in (("as is", str), ("folded", _folded)):
            for text in dict.fromkeys((key, address)):
                text = text.replace("\\", "/")
                found = self._lookup(PurePosixPath(fold(text)), case)
                for place in (Path(text), near):
                    if place is not None and len(found) > 1:
                        found = nearest(found, place)
                if found:
                    return found
        stem = _stem(PurePosixPath(key))
        return self._numbers.get(int(stem), []) if numbers and stem.isascii() and stem.isdigit() and len(stem) <= 18 else []

    def _lookup(self, path: PurePosixPath, case: str) -> list[Path]:
        for start in range(len(path.parts)):
            if found := self._named.get(f"path {case} {'/'.join(path.parts[start:])}"):
                return found
        return self._named.get(f"name {case} {path.name}") or self._named.get(f"stem {case} {_stem(path)}") or []


def _stem(path: PurePosixPath) -> str:
    """The name without an image suffix: `scan.v2` has none."""
    return path.stem if path.suffix[1:].lower() in SUFFIXES else path.name


def _folded(name: str) -> str:
    """A name without regard to case, and to whether accents are separate characters (macOS)."""
    return unicodedata.normalize("NFC", name).casefold()


def nearest(files: list[Path], near: Path) -> list[Path]:
    """Those of `files` whose folder path shares the longest tail with that of `near`."""

    def nearness(file: Path) -> int:
        pairs = zip(reversed(file.parent.parts), reversed(near.parent.parts), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    best = max(map(nearness, files))
    return [file for file in files if nearness(file) == best]


def find_images(source: Path, given: Path | None) -> ImageIndex:
    """The images below the given folder, else below the source's JPEGImages, else below the source."""
    root = given or (source if source.is_dir() else source.parent)
    if not given and (root / "JPEGImages").is_dir():
        root = root / "JPEGImages"
    files = files_under(root, SUFFIXES) if root.is_dir() else []
    if not files:
        advice = "name another folder of images" if given else "name their folder by --images"
        raise ConversionError(f"{shown(root)} has no images ({', '.join(sorted(SUFFIXES))}): {advice}")
    return ImageIndex(root, files)


def split_of_name(name: str) -> str | None:
    """The split meant by a folder's name, or part of a file name: train, training, val, valid, validation, test, train2017."""
    found = _SPLIT_NAME.fullmatch(name.lower())
    return found.group(1) if found else None


def split_of_path(path: PurePosixPath) -> str | None:
    """The split named in a file name (`instances_val2017.json`), else by the nearest folder."""
    parts = [*re.split(r"[-_. ]", path.stem), *reversed(path.parent.parts)]
    return next((split for split in map(split_of_name, parts) if split), None)


@dataclass(frozen=True)
class Picture:
    """What is in an image file.

    Attributes:
        size: (width, height) in pixels as training sees it.
        stored: the same before EXIF's `orientation` (1: upright).
        digest: the same for equal files.
        ended: False for a JPEG that breaks off.
        thumbnail: for `pictures.nearest`.
        deep: what it is if it must be written anew in 8 bits (DICOM, a picture of 16 bits), else ''.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int
    digest: bytes
    ended: bool
    thumbnail: np.ndarray
    deep: str = ""


def read_pictures(files: Sequence[Path]) -> dict[Path, Picture | str]:
    """What is in each image file, or why it cannot be used."""
    with warnings.catch_warnings(), ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's, about metadata that nobody needs
        found = tqdm(pool.imap(_read, files), total=len(files), desc="reading images", disable=None, leave=False)
        return dict(zip(files, found, strict=True))


def _read(file: Path) -> Picture | str:
    pixels: np.ndarray | None
    ended, orientation, deep = True, 1, ""
    try:
        content = file.read_bytes()
        if is_dicom(content):
            pixels, kind, deep = read_deep(file), "dicom", "DICOM"
            stored = (pixels.shape[1], pixels.shape[0])
        else:
            with Image.open(io.BytesIO(content)) as image:
                kind, stored = image.format or "", image.size
                # Without it, YOLOv5 calls a JPEG corrupt, mends it and saves it over the old file
                ended = kind != "JPEG" or content[-2:] == b"\xff\xd9"
                if kind != "JPEG" or not ended:
                    image.load()  # raises if the file breaks off, which OpenCV 4 fills up with grey
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            bytes_of = np.frombuffer(content, np.uint8)
            pixels = decode(bytes_of)
            raw = cv2.imdecode(bytes_of, cv2.IMREAD_UNCHANGED) if is_deep(file) else None
            deep = "more than 8 bits" if raw is not None and raw.dtype != np.uint8 else ""
    except PictureError as error:
        return str(error)
    except UnidentifiedImageError:
        return "not an image of any known format"
    except cv2.error as error:
        return f"OpenCV cannot decode it: {error.err}"
    except Exception as error:  # Pillow's readers raise whatever their parsing met
        return f"not a whole image: {error or type(error).__name__}"
    if kind.lower() not in SUFFIXES:
        return f"an image of the kind {kind}, which YOLOv5 does not read"
    if pixels is None:
        return "OpenCV cannot decode it"
    size = (pixels.shape[1], pixels.shape[0])
    if min(size) < _SMALLEST:
        return f"smaller than {_SMALLEST} pixels ({size[0]} x {size[1]})"
    if orientation not in range(1, 9) or (orientation in TURNS_BY_90 and size == stored and size[0] != size[1]):
        orientation = 1  # not a valid one, or one that OpenCV does not obey, so that training does not either
    return Picture(size, stored, orientation, hashlib.sha256(content).digest(), ended, thumbnail(pixels), deep)


def read_deep(file: Path) -> np.ndarray:
    """The picture (H, W, 3) uint8 of a file that is DICOM or has more than 8 bits.

    Raises:
        PictureError: if it cannot be read, or is a film.
    """
    content = file.read_bytes()
    if is_dicom(content):
        picture, *others = itertools.islice(dicom_frames(content)[0], 2)
        if others:
            raise PictureError("a film of several frames: write each as a picture of its own (docs/convert.md)")
        return picture
    found = decode(np.frombuffer(content, np.uint8))
    if found is None:
        raise PictureError("OpenCV cannot decode it")
    return found
