"""All label files of a data set read by the strict rules of `labels`, before upstream reads (or drops) any of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradnorm_plugin.data.description import DescriptionError, classification_names
from gradnorm_plugin.data.targets import NO_CLASS
from gradnorm_plugin.labels import LabelError, LabelErrors, read_label_file
from gradnorm_plugin.upstream.gateway import upstream

# The check before training and each loader read the same files: (file, time, size, numbers of classes) -> class
_seen: dict[tuple[str, int, int, int | None, int], int] = {}


class _Listed(Exception):
    """Upstream has listed the files; the rest of its constructor is not wanted."""


class _Listing(upstream("utils.dataloaders").LoadImagesAndLabels):
    """Upstream's data set until it knows its files, so that folders, lists and text files mean what they do there."""

    cache_version = None  # no stored cache has this version, so `cache_labels` is always called

    def cache_labels(self, *args: object, **kwargs: object) -> None:
        raise _Listed


def label_files(source: str | list[str]) -> list[str]:
    """The label file of every image that upstream finds in `source`: a folder, a text file of paths, or a list of such.

    Raises:
        DescriptionError: if `source` does not exist or has no images.
    """
    listing = _Listing.__new__(_Listing)
    try:
        listing.__init__(source)
    except _Listed:
        return listing.label_files
    except Exception as error:  # upstream raises plain Exception here
        raise DescriptionError(str(error)) from None
    raise RuntimeError("YOLOv5's LoadImagesAndLabels no longer calls cache_labels: this version is not supported")


def image_classes(files: Iterable[str], num_box_classes: int | None, num_image_classes: int) -> np.ndarray:
    """The image class that each label file gives, (files,) int64, -1 where it gives none.

    Raises:
        LabelErrors: if any file breaks the rules, with all that do.
    """
    classes, errors = [], []
    for file in files:
        try:
            classes.append(_image_class(file, num_box_classes, num_image_classes))
        except LabelError as error:
            errors.append(error)
    if errors:
        raise LabelErrors(errors)
    return np.array(classes, dtype=np.int64)


def check_labels(data: Mapping[str, Any], splits: tuple[str, ...] = ("train", "val")) -> dict[str, np.ndarray]:
    """Read every label file of `data` (as upstream's `check_dataset` returns it); the image classes of each split.

    Raises:
        DescriptionError: if `classification_names` or a split cannot be used.
        LabelErrors: if any label file of any split breaks the rules, with all that do.
    """
    num_image_classes = len(classification_names(data))
    found: dict[str, np.ndarray] = {}
    errors: dict[str, LabelError] = {}
    for split in splits:
        if not data.get(split):
            raise DescriptionError(f"the data yaml has no `{split}`: add the folder or list of its images")
        try:
            found[split] = image_classes(label_files(data[split]), len(data["names"]), num_image_classes)
        except LabelErrors as wrong:
            errors |= {error.file: error for error in wrong.errors}
    if errors:
        raise LabelErrors(list(errors.values()))
    return found


def _image_class(file: str, num_box_classes: int | None, num_image_classes: int) -> int:
    try:
        state = os.stat(file)
        key = (file, state.st_mtime_ns, state.st_size, num_box_classes, num_image_classes)
    except OSError:
        return _read(file, num_box_classes, num_image_classes)
    if key not in _seen:
        _seen[key] = _read(file, num_box_classes, num_image_classes)
    return _seen[key]


def _read(file: str, num_box_classes: int | None, num_image_classes: int) -> int:
    image_class = read_label_file(Path(file), num_box_classes, num_image_classes).image_class
    return NO_CLASS if image_class is None else image_class
