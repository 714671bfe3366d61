"""What each label file said about its image, kept beside upstream's own cache, so that unchanged files need not be read again.

It holds numbers only (no pickled objects) and is trusted only if it is whole, made by these very rules for these very files,
and no file's time or size has changed since. In every other case it counts as absent, and is replaced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.labels import __file__ as _rules_file
from gradnorm_plugin.outputs import ImageOutput, Outputs
from gradnorm_plugin.outputs import __file__ as _outputs_file

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
    """Whether these can be the targets of `files` label files: what they say can be written as a label line."""
    like = output.targets([None])
    if targets.shape != (files, *like.shape[1:]) or targets.dtype != like.dtype:
        return False
    known = np.unique(targets[output.known(targets)], axis=0)
    return all(output.parse(output.format(tuple(np.atleast_1d(target).tolist())).split()) for target in known)


def _key(label_files: Sequence[str], bounds: Bounds) -> str:
    return hashlib.sha256("\n".join([_RULES, repr(bounds), *label_files]).encode("utf-8", "surrogateescape")).hexdigest()
