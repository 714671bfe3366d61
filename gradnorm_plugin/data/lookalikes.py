"""Nearly identical pictures in two splits, and equal ones with different labels: reported at the first start."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gradnorm_plugin.pictures import nearest, thumbnail

LIMIT = 2000
"""Data sets with more images are not searched: training would start seconds later."""


class Labelled(NamedTuple):
    """The images of a split and, by output, (a row for each image, which of them are known)."""

    images: Sequence[str]
    targets: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def differs(self, place: int, other: Labelled, its_place: int) -> bool:
        """Whether two images have different labels for one output."""
        return any(
            known[place]
            and other.targets[name][1][its_place]
            and not np.array_equal(rows[place], other.targets[name][0][its_place])
            for name, (rows, known) in self.targets.items()
        )


def lookalikes(splits: Mapping[str, Labelled]) -> list[str]:
    """Warnings of images of a later split that nearly equal one of the first, and of equal files with different labels."""
    if sum(len(labelled.images) for labelled in splits.values()) > LIMIT:
        return []
    return [*_near(splits), *_contradictions(splits)]


def _near(splits: Mapping[str, Labelled]) -> list[str]:
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        seen = {split: pool.map(_thumbnail, labelled.images) for split, labelled in splits.items()}
    (first, *_), found = splits, []
    for split in list(splits)[1:]:
        pairs = [
            (place, other)
            for place, other in nearest(seen[split], seen[first])
            if os.path.realpath(splits[split].images[place]) != os.path.realpath(splits[first].images[other])
        ]
        if pairs:
            named = [f"{_name(splits[split], place)} = {_name(splits[first], other)}" for place, other in pairs[:3]]
            apart = sum(splits[split].differs(place, splits[first], other) for place, other in pairs)
            found.append(
                f"{len(pairs)} of {len(seen[split])} images of `{split}` are nearly identical to one of `{first}`, which "
                f"flatters its figures{f'; {apart} of them are labelled differently' if apart else ''}: {', '.join(named)}"
                f"{', ...' if len(pairs) > 3 else ''}; `convert --group` draws a split that keeps such images together"
            )
    return found


def _thumbnail(file: str) -> np.ndarray:
    picture = None
    if os.path.isfile(file):
        try:
            picture = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
        except (OSError, cv2.error):  # upstream tells what it cannot read
            picture = None
    return thumbnail(np.zeros((1, 1), np.uint8) if picture is None else picture)


def _contradictions(splits: Mapping[str, Labelled]) -> list[str]:
    by_size: dict[int, list[tuple[Labelled, int]]] = defaultdict(list)
    for labelled in splits.values():
        for place, file in enumerate(labelled.images):
            if os.path.isfile(file):
                by_size[os.path.getsize(file)].append((labelled, place))
    pairs = []
    for alike in (alike for alike in by_size.values() if len(alike) > 1):
        first: dict[bytes, tuple[Labelled, int]] = {}
        for labelled, place in alike:
            other, its_place = first.setdefault(
                hashlib.sha256(Path(labelled.images[place]).read_bytes()).digest(), (labelled, place)
            )
            if labelled.differs(place, other, its_place):
                pairs.append(f"{_name(labelled, place)} = {_name(other, its_place)}")
    if not pairs:
        return []
    more = ", ..." if len(pairs) > 3 else ""
    return [
        f"{len(pairs)} images are the same picture as another, labelled differently: {', '.join(pairs[:3])}{more}; correct one"
    ]


def _name(labelled: Labelled, place: int) -> str:
    return os.path.join(*Path(labelled.images[place]).parts[-2:])
