"""One image from one case: anatomy, grey echoes, colours, what a scanner writes around them, and the boxes of the jets."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gradnorm_demo.bmode import Fan, Image, Pose, b_mode
from gradnorm_demo.doppler import (
    Plume,
    Turbulence,
    colour_window,
    colours,
    jet_plume,
    jet_velocity,
    stream_plume,
    stream_velocity,
)
from gradnorm_demo.heart import Anatomy, Phase, add_findings
from gradnorm_demo.plan import Case
from gradnorm_demo.planes import PLANES

MAX_OVERLAP = 0.25  # boxes of two jets overlap at most this much (intersection over union)
MIN_SIDE = 0.04  # shortest side of a box, share of the image
_TRIES = 40

Canvas = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def _curve(canvas: Canvas, points: NDArray[np.float64], colour: tuple[int, int, int], closed: bool = False) -> None:
    cv2.polylines(canvas, [np.round(points * 16).astype(np.int32)], closed, colour, 1, cv2.LINE_AA, 4)


def _heart_beat(canvas: Canvas, rng: np.random.Generator) -> None:
    """A trace of the electrocardiogram along the bottom."""
    size = canvas.shape[0]
    t = (np.arange(size) / (size * rng.uniform(0.3, 0.5)) + rng.random()) % 1
    waves = ((0.15, 0.16, 0.04), (0.9, 0.30, 0.018), (-0.25, 0.34, 0.02), (0.25, 0.60, 0.06))  # height, moment, width
    trace = sum(height * np.exp(-(((t - moment) / width) ** 2)) for height, moment, width in waves)
    _curve(canvas, np.stack([np.arange(size), 0.985 * size - 0.05 * size * trace], 1), (90, 200, 90))


def draw_overlays(
    canvas: Canvas,
    fan: Fan,
    window: tuple[float, float, float, float] | None,
    rng: np.random.Generator,
) -> None:
    """Draw a random choice of overlays on BGR bytes (size, size, 3).

    Args:
        window: as `colour_window` gives it.
    """
    size = fan.size
    if window and rng.random() < 0.8:
        near, far, left, right = window
        angles = np.linspace(left, right, 24)
        rays = np.stack([np.sin(angles), np.cos(angles)], 1)
        _curve(canvas, np.concatenate([near * rays, far * rays[::-1]]) + fan.apex, (190, 190, 190), closed=True)
    if rng.random() < 0.7:
        for tick in np.arange(0.1, 0.95, 0.1):
            y = int(fan.apex[1] + tick * fan.far)
            cv2.line(canvas, (size - 4, y), (size - 2, y), (170, 170, 170), 1)
    if window and rng.random() < 0.8:
        bar = colours(np.linspace(1, -1, int(0.22 * size), dtype=np.float32)[:, None])
        top, left, width = int(0.03 * size), int(0.93 * size), max(3, int(0.025 * size))
        canvas[top : top + len(bar), left : left + width] = (bar * 255).astype(np.uint8)
    if rng.random() < 0.6:
        _heart_beat(canvas, rng)


@dataclass(frozen=True)
class Rendered:
    """A finished image.

    Attributes:
        image: BGR bytes (size, size, 3).
        boxes: pixels (n, 4), x1 y1 x2 y2, the first and one past the last column and row of each jet.
        masks: the jets' pixels (n, size, size), boolean, in the order of `case.jets`.
        heart, pose: what is drawn, and where.
        fan: the pixels (size, size) that the beams reach, boolean.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    masks: NDArray[np.bool_]
    heart: Anatomy
    pose: Pose
    fan: NDArray[np.bool_]


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Tight box x1, y1, x2, y2 (exclusive) of a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _seats(jets: tuple[str, ...], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Where each jet leaves its valve (-1 to 1) and its share: jets of one valve stand side by side."""
    seats = []
    for index, jet in enumerate(jets):
        total, earlier = jets.count(jet), jets[:index].count(jet)
        middle = 0.0 if total == 1 else 2 * earlier / (total - 1) - 1
        seats.append((middle * rng.uniform(0.8, 1.0) + rng.uniform(-0.15, 0.15), 1 / total**0.75))
    return seats


def _faults(plumes: list[Plume], fan: Fan) -> float:
    """How many jets are cut by the fan's edge, too small, or too much in one another; infinite if one is not seen."""
    seen = [plume.mask(fan.size) & fan.mask for plume in plumes]
    if not all(mask.any() for mask in seen):
        return float("inf")
    boxes = [box_of(mask) for mask in seen]
    cut = sum(mask.sum() < 0.9 * plume.mask(fan.size).sum() for mask, plume in zip(seen, plumes, strict=True))
    small = sum(min(x2 - x1, y2 - y1) < MIN_SIDE * fan.size for x1, y1, x2, y2 in boxes)
    merged = sum(overlap(a, b) > MAX_OVERLAP for i, a in enumerate(boxes) for b in boxes[:i])
    return 2 * cut + small + merged


def _place(case: Case, heart: Anatomy, noise: Turbulence, rng: np.random.Generator) -> tuple[Pose, list[Plume]]:
    """A pose and jets without faults, or those with the fewest; each try is closer to the standard view."""
    fan = noise.fan
    best: tuple[Pose, list[Plume]] | None = None
    fewest = float("inf")
    for attempt in range(_TRIES):
        pose = Pose.sample(fan.size, rng, spread=1 - attempt / _TRIES)
        plumes = [jet_plume(heart.valves[jet], pose, noise, rng, seat, share)
                  for jet, (seat, share) in zip(case.jets, _seats(case.jets, rng), strict=True)]  # fmt: skip
        faults = _faults(plumes, fan)
        if faults < fewest:
            best, fewest = (pose, plumes), faults
        if not faults:
            break
    if best is None:
        raise RuntimeError(f"no visible jet after {_TRIES} tries for {case}; this is a bug of the generator")
    return best


def _paint(image: Image, plume: Plume, fan: Fan, tint: Image, strength: Image | float) -> None:
    """Lay colour over the picture where the plume is."""
    part = image[plume.window]
    part += (plume.opacity * fan.mask[plume.window] * strength)[..., None] * (tint - part)


def render(case: Case, size: int, rng: np.random.Generator) -> Rendered:
    """Draw one image of `size` pixels a side. The same case, size and generator state give the same bytes."""
    phase = Phase.sample(case.jets, rng)
    fan = Fan.sample(size, rng)
    noise = Turbulence(fan, rng)
    heart = PLANES[case.level](rng, phase)
    if case.extras:
        add_findings(heart, case.extras)
    pose, jets = _place(case, heart, noise, rng)
    image = np.repeat(b_mode(heart, pose, fan, rng)[..., None], 3, axis=2)

    streams = []
    if rng.random() < (0.4 if case.jets else 0.7):
        for stream in heart.streams:
            plume = stream_plume(stream, pose, noise, rng)
            velocity = stream_velocity(plume, stream.path, pose, noise, rng)
            holes = np.clip(2.0 + noise.cells(2.5, plume.window), 0, 1)
            _paint(image, plume, fan, colours(velocity), 0.85 * holes)
            streams.append(plume)
    for plume in jets:
        velocity, variance = jet_velocity(plume, noise, rng)
        faint = rng.random() < 0.12
        tint = colours(velocity, variance) * np.float32(rng.uniform(0.6, 0.8) if faint else 1.0)
        holes = np.clip((1.3 if faint else 2.2) + noise.cells(1.6, plume.window), 0.3, 1)
        _paint(image, plume, fan, tint, holes * (0.75 if faint else 0.95))

    blurred = cv2.GaussianBlur(image, (0, 0), 0.45 * size / 320)
    canvas = np.clip(blurred * 255 + 0.5, 0, 255).astype(np.uint8)
    draw_overlays(canvas, fan, colour_window(fan, streams + jets, rng), rng)
    masks = [plume.mask(size) & fan.mask for plume in jets]
    boxes = np.array([box_of(mask) for mask in masks], dtype=np.int64).reshape(-1, 4)
    return Rendered(canvas, boxes, np.array(masks, dtype=bool).reshape(-1, size, size), heart, pose, fan.mask)
