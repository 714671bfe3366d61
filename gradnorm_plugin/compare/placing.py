"""Where to put labels beside their markers, so that none lies on another, on a marker, or outside the panel.

Boxes are `(x0, y0, x1, y1)`, in any one unit (pixels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]
Point = tuple[float, float]

_DIRECTIONS = [2 * math.pi * index / 24 for index in range(24)]
_DISTANCES = (0.0, 6.0, 14.0, 26.0, 42.0, 62.0, 86.0, 114.0, 146.0)
"""From the marker's edge to the label's."""
_SWEEPS = 6
_OVERLAP, _LEADER, _BAR = 10_000.0, 120.0, 35.0
"""Harm of what must not be, which no number of the lesser outweighs, of a leader across something, and of an error bar."""


def place(anchors: Sequence[Point], sizes: Sequence[Point], radius: float, obstacles: Sequence[Box], panel: Box) -> list[Box]:
    """A box for each label: its `sizes` (width, height) near its anchor, a marker's centre, in the order given.

    Of the places tried for a label the one with the least harm is taken, in turn, until none moves: outside of the panel and on
    another label or a marker (`radius`) are the worst, then a leader across another marker or label, then a thin obstacle (an
    error bar), then distance. Where the panel has no room, labels may still overlap: there is always an answer.
    """
    markers = [(x - radius, y - radius, x + radius, y + radius) for x, y in anchors]
    candidates = [_around(anchor, size, radius) for anchor, size in zip(anchors, sizes, strict=True)]
    # What the other labels have no part in is the same in every sweep.
    fixed = [
        [_harm(index, box, distance, anchors, markers, obstacles, panel) for box, distance in of]
        for index, of in enumerate(candidates)
    ]
    # Each starts at its best, as if it were alone: so those without neighbours never move.
    chosen = [of[min(range(len(of)), key=harm.__getitem__)][0] for of, harm in zip(candidates, fixed, strict=True)]
    for _ in range(_SWEEPS):
        before = list(chosen)
        for index, of in enumerate(candidates):
            others = [(anchors[i], box) for i, box in enumerate(chosen) if i != index]
            totals = [
                harm + sum(_clash(anchors[index], box, anchor, other) for anchor, other in others)
                for (box, _), harm in zip(of, fixed[index], strict=True)
            ]
            chosen[index] = of[totals.index(min(totals))][0]
        if chosen == before:
            break
    return chosen


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def nearest(box: Box, point: Point) -> Point:
    """The point of a box that is nearest to another."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _around(anchor: Point, size: Point, radius: float) -> list[tuple[Box, float]]:
    """Boxes around a marker, each just far enough in its direction, with their distance."""
    found = []
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            reach = radius + 2 + distance
            x, y = anchor[0] + reach * math.cos(angle), anchor[1] + reach * math.sin(angle)
            left = x - size[0] * (1 - math.cos(angle)) / 2
            low = y - size[1] * (1 - math.sin(angle)) / 2
            found.append(((left, low, left + size[0], low + size[1]), distance))
    return found


def _harm(
    index: int, box: Box, distance: float, anchors: Sequence[Point], markers: Sequence[Box], obstacles: Sequence[Box], panel: Box
) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    harm = distance + _OVERLAP * (area - overlap(box, panel)) / area
    leader = (anchors[index], nearest(box, anchors[index]))
    for other, marker in enumerate(markers):
        if overlap(box, marker):
            harm += _OVERLAP
        elif other != index and distance and crosses(*leader, marker):
            harm += _LEADER
    return harm + _BAR * sum(overlap(box, bar) > 0 for bar in obstacles)


def _clash(anchor: Point, box: Box, other_anchor: Point, other: Box) -> float:
    if overlap(box, other):
        return _OVERLAP + _OVERLAP * overlap(box, other) / ((box[2] - box[0]) * (box[3] - box[1]))
    return _LEADER * (crosses(anchor, nearest(box, anchor), other) or crosses(other_anchor, nearest(other, other_anchor), box))


def crosses(start: Point, end: Point, box: Box) -> bool:
    """Whether a line from `start` to `end` meets a box (Liang and Barsky, 1984)."""
    enter, leave = 0.0, 1.0
    for axis in (0, 1):
        step = end[axis] - start[axis]
        low, high = box[axis] - start[axis], box[axis + 2] - start[axis]
        if not step:
            if low > 0 or high < 0:
                return False
            continue
        first, last = sorted((low / step, high / step))
        enter, leave = max(enter, first), min(leave, last)
    return enter <= leave
