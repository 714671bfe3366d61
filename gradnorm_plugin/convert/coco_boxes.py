"""Boxes and outlines of COCO annotations, and how their numbers are to be read, judged from all boxes of a file.

A bbox should be x, y of the upper left corner, width, height (xywh) in pixels. Common deviations are understood: numbers
as text, outlines without a bbox, boxes as two corners (xyxy) or by centre (cxcywh), boxes in fractions of the picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradnorm_plugin.convert.boxes import MOST, READINGS, Four, Point, are_shares, around, corners_of, four_numbers, number

_BEYOND = 0.1  # share of the picture's side by which a box must reach out before its terms are doubted
_FEW = 4  # boxes that may fit in other terms by chance


class Shape(NamedTuple):
    """The four numbers of a bbox, the box around the outline, the outline's points if it has one part, and the stated area."""

    values: Four | None
    around: Four | None
    points: tuple[Point, ...] | None
    area: float | None


class Terms(NamedTuple):
    """How a file writes its bboxes: their number, reading, and whether in fractions; `doubtful` if corners fit as well."""

    boxes: int
    reading: str
    shares: bool
    doubtful: bool


def read_shape(entry: Mapping[str, Any]) -> Shape | None:
    """The bbox and outline of an entry of `annotations`; None if it has neither."""
    values, (box, points) = _bbox(entry.get("bbox")), _outline(entry.get("segmentation"))
    return Shape(values, box, points, number(entry.get("area"))) if values or box else None


def tell_terms(shapes: Sequence[tuple[Shape, tuple[float, float] | None]]) -> Terms:
    """How a file writes its bboxes, judged from their shapes and the sizes of their pictures.

    The reading is the one that matches the outlines, else the one that keeps the boxes inside the picture or matches the areas.
    """
    boxes = [(shape.values, shape, size) for shape, size in shapes if shape.values and min(shape.values[2:]) > 0]
    if not boxes:
        return Terms(0, "xywh", False, False)
    shares = are_shares([values for values, _, _ in boxes])
    # Of each box, NaN where it is not known: the box around its outline (n, 4), its area (n,), its picture's size (n, 2)
    outlines = np.full((len(boxes), 4), np.nan)
    areas = np.array([shape.area or np.nan for _, shape, _ in boxes])
    sizes = np.array([(1, 1) if shares else size or (np.nan, np.nan) for _, _, size in boxes])
    for place, (_, shape, size) in enumerate(boxes):
        if shape.around:
            in_pixels = shares and size and not are_shares([shape.around])
            outlines[place] = np.array(shape.around) / ([*size, *size] if in_pixels and size else 1)
    with np.errstate(all="ignore"):
        read = np.array([[corners_of(values, reading) for values, _, _ in boxes] for reading in READINGS])  # (3, n, 4)
        width, height = read[..., 2] - read[..., 0], read[..., 3] - read[..., 1]
        area = np.where((width > 0) & (height > 0), width * height, 0)
        slack = 0.02 * (outlines[:, 2:] - outlines[:, :2]).sum(1, keepdims=True)
        by_outline = _decided((np.abs(read - outlines) <= slack).all(2))
        by_area = _decided((np.abs(area - areas) <= 0.01 * areas)[:2])
        reach = np.maximum(-read[..., :2] / sizes, read[..., 2:] / sizes - 1).max(2)  # by how much of the side it reaches out
        reach[(area == 0) & ~np.isnan(reach)] = np.inf
    sized = int((~np.isnan(sizes[:, 0])).sum())
    inside, beyond = (reach <= 0.01).sum(1), (reach[0] > _BEYOND).sum()
    corners_fit = bool(inside[1] >= MOST * max(sized, 1))
    reading = "xywh"
    if by_outline.any():
        reading = READINGS[by_outline.argmax()]
    elif sized and shares and inside[0] < MOST * sized:
        reading = READINGS[inside.argmax()]
    elif corners_fit and (beyond >= sized / 2 or by_area[1] >= MOST * len(boxes)):
        reading = "xyxy"
    doubtful = corners_fit and not by_outline.any() and not by_area.any() and sized >= _FEW
    return Terms(len(boxes), reading, shares, doubtful)


def _decided(fits: np.ndarray) -> np.ndarray:
    """How many boxes fit each reading and no other: (readings,) from (readings, n) bool."""
    return fits[:, fits.sum(0) == 1].sum(1)


def _bbox(value: Any) -> Four | None:
    """Four numbers from a list, a nested list, or a text."""
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip(" []()"))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return four_numbers(value) if isinstance(value, list) else None


def _outline(segmentation: Any) -> tuple[Four | None, tuple[Point, ...] | None]:
    """The box around an outline (polygons or run lengths of a mask), and its points if it has one part."""
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
    box = around(point for polygon in polygons for point in polygon)
    return box if box[0] < box[2] and box[1] < box[3] else None, polygons[0] if len(polygons) == 1 else None


def _around_mask(mask: Mapping[str, Any]) -> Four | None:
    """The box around a mask: `counts` alternate between runs of 0 and of 1, down the columns of `size` (height, width)."""
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
    if not edges or not place <= rows * width < math.inf:
        return None
    lefts, tops, rights, bottoms = zip(*edges, strict=True)
    return min(lefts), min(tops), max(rights) + 1, max(bottoms) + 1


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths: five bits per letter, lowest first; from the third on, relative to the run two before."""
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
