"""The upstream commit that `yolov5/` is pinned to, as git knows it: its ids, its commit object, its list of files.

Beside this file: `commit` (the commit object), `ls-tree` (what `git ls-tree -r` prints for it), and `wheel.patch`,
which turns the two files that the PyPI wheel altered back into upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COMMIT = "a199480ba6bb527598df11abbc1d679ccda82670"
TREE = "f8c5825bb1145ff0a29df74285ed9fe45737d50f"
WHEEL = "yolov5-utils==7.1.5 --hash=sha256:e9e73efac84766a1b626587313afba96a1432471e488fa2e7ffd9ba95915be4e"
"""The wheel that carries this tree, as a line of a pip requirements file."""
WHEEL_FOLDER = "yolov5_utils/yolov5/"
"""Where in the wheel."""

_HERE = Path(__file__).resolve().parent
COMMIT_OBJECT = _HERE / "commit"
WHEEL_PATCH = _HERE / "wheel.patch"


@dataclass(frozen=True)
class Entry:
    """A file of the pinned tree: git's mode ("100644" or "100755"), its blob id, its path."""

    mode: str
    blob: str
    path: str


def entries() -> list[Entry]:
    """The files of the pinned tree."""
    found = []
    for line in (_HERE / "ls-tree").read_text(encoding="utf-8").splitlines():
        meta, path = line.split("\t")
        mode, _, blob = meta.split()
        found.append(Entry(mode, blob, path))
    return found
