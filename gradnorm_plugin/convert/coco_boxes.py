"""What COCO's bbox and segmentation mean. A bbox is x, y of the upper left corner, width, height (xywh), in pixels.

What else people write and plainly mean is read: numbers as text, outlines without a bbox, boxes as two corners (xyxy) or by
their centre (cxcywh), boxes in shares of the picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gradnorm_plugin.convert.annotations import MOST, Four, Point, are_shares, four_numbers, number

READINGS = ("xywh", "xyxy", "cxcywh")
_BEYOND = 0.1  # share of the picture's side by which a box must reach out before its terms are doubted
_FEW = 4  # boxes that may fit in other terms by chance

Size = tuple[float, float]


class Shape(NamedTuple):
    """The four numbers of a bbox, the box around the outline, the outline's points if it has one part, and the area given."""

    values: Four | None
    around: Four | None
    points: tuple[Point, ...] | None
    area: float | None


class Terms(NamedTuple):
    """What the bboxes of a file are: how many, in what reading, in shares or pixels; `doubtful` if corners fit as well."""

    boxes: int
    reading: str
    shares: bool
    doubtful: bool


def read_shape(entry: Mapping[str, Any]) -> Shape | None:
    """The bbox and the outline of an entry of `annotations`; None if it has neither."""
    values, (around, points) = _bbox(entry.get("bbox")), _outline(entry.get("segmentation"))
    return Shape(values, around, points, number(entry.get("area"))) if values or around else None


def tell_terms(shapes: Sequence[tuple[Shape, Size | None]]) -> Terms:
    """The terms of a file's bboxes, from their shapes and the sizes of their pictures.

    The reading is that with which the outlines agree; else the one that keeps the boxes in the picture; else the areas'.
    """
    boxes = [(shape.values, shape, size) for shape, size in shapes if shape.values and min(shape.values[2:]) > 0]
    shares = are_shares([values for values, _, _ in boxes])
    by_outline: Counter[str] = Counter()
    by_area: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    sized = beyond = 0
    for values, shape, size in boxes:
        read = {reading: corners_of(values, reading) for reading in READINGS}
        if around := shape.around:
            if shares and size and not are_shares([around]):  # the outline is in pixels
                around = (around[0] / size[0], around[1] / size[1], around[2] / size[0], around[3] / size[1])
            near = [reading for reading, corners in read.items() if _near(corners, around)]
            by_outline.update(near if len(near) == 1 else [])
        if shape.area:
            near = [reading for reading in ("xywh", "xyxy") if abs(area_of(read[reading]) - shape.area) <= 0.01 * shape.area]
            by_area.update(near if len(near) == 1 else [])
        picture = (1.0, 1.0) if shares else size
        if picture:
            sized += 1
            reach = {reading: _reach(corners, picture) for reading, corners in read.items()}
            inside.update(reading for reading in READINGS if reach[reading] <= 0.01)
            beyond += reach["xywh"] > _BEYOND
    corners_fit = inside["xyxy"] >= MOST * max(sized, 1)
    if by_outline:
        reading = by_outline.most_common(1)[0][0]
    elif sized and shares and inside["xywh"] < MOST * sized:
        reading = max(READINGS, key=inside.__getitem__)
    elif corners_fit and (beyond >= sized / 2 or by_area["xyxy"] >= MOST * len(boxes)):
        reading = "xyxy"
    else:
        reading = "xywh"
    return Terms(len(boxes), reading, shares, corners_fit and not by_outline and not by_area and sized >= _FEW)


def _bbox(value: Any) -> Four | None:
    """Four numbers in a list, a list within a list, or a text."""
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip(" []()"))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return four_numbers(value) if isinstance(value, list) else None


def corners_of(values: Four, reading: str) -> Four:
    """The corners x1, y1, x2, y2 that a bbox has in a reading."""
    a, b, c, d = values
    if reading == "xyxy":
        return values
    return (a, b, a + c, b + d) if reading == "xywh" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


def area_of(corners: Four) -> float:
    """The area within corners; 0 if they are exchanged."""
    x1, y1, x2, y2 = corners
    return (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0


def _near(corners: Four, around: Four) -> bool:
    slack = 0.02 * (around[2] - around[0] + around[3] - around[1])
    return all(abs(one - other) <= slack for one, other in zip(corners, around, strict=True))


def _reach(corners: Four, size: tuple[float, float]) -> float:
    """By how much of the picture's side a box reaches out; without end for one without area."""
    x1, y1, x2, y2 = corners
    return max(-x1 / size[0], x2 / size[0] - 1, -y1 / size[1], y2 / size[1] - 1) if area_of(corners) else float("inf")


def _outline(segmentation: Any) -> tuple[Four | None, tuple[Point, ...] | None]:
    """The box around an outline (polygons or a mask's run lengths), and its points if it has one part."""
    if isinstance(segmentation, dict):
        return _around_mask(segmentation), None
    parts = segmentation if isinstance(segmentation, list) else []
    if parts and not any(isinstance(part, (list, dict)) for part in parts):
        parts = [parts]
    polygons = []
    for part in parts:
        values = [number(value) for value in part] if isinstance(part, list) else []
        known = [value for value in values if value is not None]
        if len(values) < 6 or len(values) % 2 or len(known) < len(values):
            return None, None
        polygons.append(tuple(zip(known[::2], known[1::2], strict=True)))
    if not polygons:
        return None, None
    xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
    around = (min(xs), min(ys), max(xs), max(ys))
    return around if area_of(around) else None, polygons[0] if len(polygons) == 1 else None


def _around_mask(mask: Mapping[str, Any]) -> Four | None:
    """The box around a mask: `counts` are lengths of runs of 0 and 1 in turn, down the columns of `size` (height, width)."""
    counts, size = mask.get("counts"), mask.get("size")
    height, width = (number(side) or 0 for side in size) if isinstance(size, list) and len(size) == 2 else (0, 0)
    runs = _run_lengths(counts) if isinstance(counts, str) else counts
    if height < 1 or not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return None
    rows, place, edges = int(height), 0, []
    for turn, run in enumerate(runs):
        if turn % 2 and run:
            (left, top), (right, bottom) = divmod(place, rows), divmod(place + run - 1, rows)
            edges.append((left, top, right, bottom) if left == right else (left, 0, right, rows - 1))
        place += run
    if not edges or place > rows * width:
        return None
    lefts, tops, rights, bottoms = zip(*edges, strict=True)
    return min(lefts), min(tops), max(rights) + 1, max(bottoms) + 1


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths: five bits a letter, the lowest first, from the third on relative to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs
