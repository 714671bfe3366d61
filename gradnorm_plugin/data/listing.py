"""Which images a data source names, and label files near them that nothing would read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.reading import read_text
from gradnorm_plugin.upstream.gateway import upstream

_dataloaders = upstream("utils.dataloaders")

if TYPE_CHECKING:

    class LoadImagesAndLabels(Dataset[tuple]):
        """What is used here of upstream's data set."""

        path: str | list[str]
        im_files: list[str]
        label_files: list[str]
        labels: list[np.ndarray]
        """(boxes, 5) of each image: class, centre, size."""
        indices: Sequence[int]
        cache_version: float | None

        def __init__(self, path: str | list[str], *args: Any, **kwargs: Any) -> None: ...

        def check_cache_ram(self, *args: Any, **kwargs: Any) -> bool:
            """Whether the images fit into memory."""

        def cache_labels(self, path: Path, prefix: str) -> dict[str, Any]:
            """Read all images and labels."""

        def load_mosaic(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            """Image `index` among others, and their boxes."""

        @staticmethod
        def collate_fn(batch: Sequence[tuple]) -> tuple[Tensor, Any, tuple[str, ...], tuple]:
            """Images, targets, paths, shapes."""

else:
    LoadImagesAndLabels = _dataloaders.LoadImagesAndLabels

SHOWN = 5
_LABEL_FOLDERS = ("labels", "label", "annotations")


def read_list(file: Path, root: Path | None = None) -> list[str]:
    """The absolute paths of the images that a text file names, one in each line, each once.

    A relative path counts from the working directory, the file's own folder or `root` (the `path` of the data yaml), whichever
    has the image; after `./` the file's folder comes first, as in upstream. Surrounding blanks, empty lines, quotes, `~` and
    backslashes are understood.

    Raises:
        DescriptionError: if the file is not Unicode text, or at the first line that names no file.
    """
    found: list[str] = []
    other: list[str] = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        text = line.strip()
        if not text or (text.startswith("#") and not _is_image(text)):
            continue
        if "\0" in text:
            raise DescriptionError(f"{file}:{number}: {short(text)}: no file name has the character U+0000")
        candidates = list(_meant(text, file.parent, root))
        path = next((path for path in candidates if os.path.exists(path)), candidates[0])
        if _is_image(path):
            found.append(path)
        elif os.path.isfile(path):
            other.append(path)
        else:
            raise DescriptionError(
                f"{file}:{number}: {short(text)} is not the path of an image: a list has one path in each line and nothing else"
            )
    images = list(dict.fromkeys(found))
    if other:
        warn(f"{file} names {_some(other)}, of a kind that YOLOv5 does not read: left out")
    if len(images) < len(found):
        warn(f"{file} names {len(found) - len(images)} images more than once: each is used once")
    return images


def _is_image(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _dataloaders.IMG_FORMATS


def _meant(text: str, folder: Path, root: Path | None) -> Iterator[str]:
    """The paths that a line may mean, most likely first."""
    spellings = [text]
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        spellings.insert(0, text[1:-1])
    if "\\" in text and os.sep == "/":
        spellings += [spelling.replace("\\", "/") for spelling in spellings]
    bases = [Path.cwd(), folder] if not text.startswith("./") else [folder, Path.cwd()]
    bases += [root] if root else []
    for spelling in spellings:
        for base in bases:
            yield os.path.normpath(base / os.path.expanduser(spelling))


class ImageLists(LoadImagesAndLabels):
    """Upstream's data set, its lists of images read by `read_list`, once each."""

    lists: dict[Path, list[str]]
    """What was read; set before upstream's constructor runs."""
    root: Path | None = None

    def read_list(self, p: Path) -> list[str]:
        """Replaces upstream's own reading."""
        if p not in self.lists:
            self.lists[p] = read_list(p, self.root)
        return self.lists[p]


class _Listed(Exception):
    """Upstream has listed the files; the rest of its constructor is not wanted."""


class Listing(ImageLists):
    """Upstream's data set until it knows its files, so that folders, lists and text files mean what they do there."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "label_files":
            raise _Listed


def list_images(source: str | list[str], root: Path | None = None) -> Listing:
    """Upstream's data set of `source`, with nothing but its `im_files` and `label_files`.

    Raises:
        DescriptionError: if `source` does not exist, has no images, or names one that no file can have.
    """
    listing = Listing.__new__(Listing)
    listing.lists, listing.root = {}, root
    try:
        Listing.__init__(listing, source)
    except _Listed:
        for file in listing.im_files:
            if not file.isprintable() and any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in file):
                raise DescriptionError(f"{source} has {file!r}, whose name is not UTF-8: rename it") from None
        _refuse_loops(listing.im_files)
        return listing
    except Exception as error:  # upstream raises plain Exception here, with what went wrong as its cause
        raise DescriptionError(str(error.__cause__ if isinstance(error.__cause__, DescriptionError) else error)) from None
    raise RuntimeError("YOLOv5's LoadImagesAndLabels no longer names its label_files: this version is not supported")


def _refuse_loops(files: list[str]) -> None:
    """Refuse a folder that is a link to one above it: its images would be listed again, up to forty times."""
    seen: dict[str, str] = {}
    for folder in sorted({os.path.dirname(file) for file in files}):
        first = seen.setdefault(os.path.realpath(folder), folder)
        if folder.startswith(first + os.sep):
            raise DescriptionError(f"{folder} is a link that leads back to {first}, whose images would count again: remove it")


def check_found(split: str, listing: Listing, missing: np.ndarray, needed: bool) -> None:
    """Report label files that are near images without one and would not be read.

    Args:
        missing: (images,) bool, which of them have no label file.
        needed: whether the split must have at least one.

    Raises:
        DescriptionError: if no image has a label file, and the split needs one or there are some nearby.
    """
    without = [
        (image, label) for image, label, absent in zip(listing.im_files, listing.label_files, missing, strict=True) if absent
    ]
    if not without:
        return
    near = Neighbourhood()
    unread = list(dict.fromkeys(file for image, label in without if (file := near.unread(image, label))))
    advice = "the labels of .../images/x.png are read from .../labels/x.txt, in these very letters: move or rename them"
    lie_near = f"{len(unread)} label file{'s' * (len(unread) > 1)} lie{'s' * (len(unread) == 1)} near and"
    lie_near += f" {'are' if len(unread) > 1 else 'is'} not read: {_some(unread)}; {advice}"
    if len(without) == len(listing.im_files):
        looked_in = _some(sorted({os.path.dirname(label) for label in listing.label_files}))
        message = f"no label file found for `{split}`; looked in {looked_in}"
        if unread:
            raise DescriptionError(f"{message}; {lie_near}")
        others = near.others(without)
        if others:
            message += f"; {others} is of another format: `python -m gradnorm_plugin convert` reads Pascal VOC and COCO"
        if needed:
            raise DescriptionError(f"{message}; {advice.partition(':')[0]} (docs/labels.md)")
        warn(message)
    elif unread:
        warn(f"{len(without)} images of `{split}` have no label file, but {lie_near}")


class Neighbourhood:
    """Looks around images for files that may be meant as their labels; every folder is listed once."""

    def __init__(self) -> None:
        self._names = cache(_names)
        self._folders = cache(self._label_folders)

    def unread(self, image: str, label: str) -> str | None:
        """A file near `image` that is named as its label file might be, and is not `label`."""
        names = (os.path.basename(label).lower(), f"{os.path.basename(image)}.txt".lower())
        for folder in (os.path.dirname(label), *self._folders(os.path.dirname(image))):
            there = self._names(folder)
            for found in (found for name in names for found in there.get(name, ())):
                if os.path.isfile(file := os.path.join(folder, found)) and file != label:
                    return file
        return None

    def others(self, pairs: Sequence[tuple[str, str]]) -> str | None:
        """A label file of another format near the first images."""
        for image, label in pairs[:SHOWN]:
            stem = os.path.splitext(os.path.basename(image))[0].lower()
            for folder in (os.path.dirname(label), *self._folders(os.path.dirname(image))):
                there = self._names(folder)
                for name in (f"{stem}.xml", f"{stem}.json"):
                    if name in there:
                        return os.path.join(folder, there[name][0])
        return None

    def _label_folders(self, folder: str) -> list[str]:
        """Where the labels of the images of `folder` may lie: there, and in `labels` beside each of its path's last parts."""
        parts = Path(folder).parts
        found = [folder]
        for index in range(len(parts), max(0, len(parts) - 4), -1):
            beside = os.path.join(*parts[:index])
            siblings = [name for lower in _LABEL_FOLDERS for name in self._names(beside).get(lower, ())]
            for name in siblings:
                found += [os.path.join(beside, name, *parts[index + 1 :]), os.path.join(beside, name)]
        return list(dict.fromkeys(found))


def _names(folder: str) -> dict[str, list[str]]:
    """The files in a folder, by name in lower case."""
    found: dict[str, list[str]] = {}
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            found.setdefault(name.lower(), []).append(name)
    return found


def check_apart(listings: dict[str, Listing]) -> None:
    """Warn of images that are both trained and measured on."""
    real = cache(os.path.realpath)

    def images(listing: Listing) -> set[tuple[str, str]]:
        return {(real(os.path.dirname(file)), os.path.basename(file)) for file in listing.im_files}

    if "train" not in listings or "val" not in listings:
        return
    train, val = images(listings["train"]), images(listings["val"])
    both = sorted(os.path.join(*pair) for pair in train & val)
    if both and train == val:
        warn("`val` has the very images of `train`: its figures say nothing about new images")
    elif both:
        warn(f"{len(both)} of {len(val)} images of `val` are also in `train`, which flatters its figures: {_some(both)}")


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:SHOWN]) + (f", ... ({len(files)} in all)" if len(files) > SHOWN else "")


def warn(message: str) -> None:
    """Log a warning once, also where several processes train together."""
    if _dataloaders.LOCAL_RANK <= 0:
        upstream("utils.general").LOGGER.warning(f"WARNING ⚠️ {message}")
