"""Which image class each label file gave, kept beside upstream's own cache, so that unchanged files need not be read again.

It holds numbers only (no pickled objects) and is trusted only if it is whole, made by these very rules for these very files,
and no file's time or size has changed since. In every other case it counts as absent, and is replaced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.labels import __file__ as _rules_file

_RULES = hashlib.sha256(Path(_rules_file).read_bytes()).hexdigest()

Bounds = tuple[int | None, int]
"""What a label file is held against: the number of box classes (None: any) and of image classes."""


def cache_file(source: str | list[str], label_files: Sequence[str]) -> Path:
    """Where the classes of a data source are kept: beside its text file or, for a folder, beside the folder of its labels."""
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
            states += (-error.errno, -1, -1)
    return np.array(states, dtype=np.int64).reshape(-1, 3)


def read_classes(path: Path, label_files: Sequence[str], states: np.ndarray, bounds: Bounds) -> np.ndarray | None:
    """The (files,) int64 classes kept at `path`; None if they are not there, damaged, or not of these files as they are now."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != _key(label_files, bounds) or not np.array_equal(kept["states"], states):
                return None
            classes = kept["classes"]
    except Exception:  # whatever a damaged file gives, it is made anew
        return None
    fits = classes.shape == (len(label_files),) and classes.dtype == np.int64
    return classes if fits and ((classes >= -1) & (classes < bounds[1])).all() else None


def write_classes(path: Path, label_files: Sequence[str], states: np.ndarray, bounds: Bounds, classes: np.ndarray) -> None:
    """Keep the classes at `path`, whole or not at all.

    Raises:
        OSError: if the folder cannot be written to.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, key=np.array(_key(label_files, bounds)), states=states, classes=classes)


def _key(label_files: Sequence[str], bounds: Bounds) -> str:
    return hashlib.sha256("\n".join([_RULES, repr(bounds), *label_files]).encode("utf-8", "surrogateescape")).hexdigest()
