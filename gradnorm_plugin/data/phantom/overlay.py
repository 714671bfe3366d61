"""What a scanner writes around the picture: colour window, depth ticks, colour bar, electrocardiogram."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from gradnorm_plugin.data.phantom.doppler import colours
from gradnorm_plugin.data.phantom.sector import Fan

Canvas = NDArray[np.uint8]


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
    depth: float | None = None,
) -> None:
    """Draw a random choice of overlays on BGR bytes (size, size, 3).

    Args:
        window: as `colour_window` gives it.
        depth: of the fan in cm: a tick for each, a long one for every fifth; None for ticks at tenths of the depth.
    """
    size = fan.size
    if window and rng.random() < 0.8:
        near, far, left, right = window
        angles = np.linspace(left, right, 24)
        rays = np.stack([np.sin(angles), np.cos(angles)], 1)
        _curve(canvas, np.concatenate([near * rays, far * rays[::-1]]) + fan.apex, (190, 190, 190), closed=True)
    if rng.random() < 0.7:
        ticks = np.arange(0.1, 0.95, 0.1) if depth is None else np.arange(1, int(depth) + 1) / depth
        for number, tick in enumerate(ticks, start=1):
            y = int(fan.apex[1] + tick * fan.far)
            long = depth is not None and number % 5 == 0
            cv2.line(canvas, (size - (9 if long else 4), y), (size - 2, y), (170, 170, 170), 1)
    if window and rng.random() < 0.8:
        bar = colours(np.linspace(1, -1, int(0.22 * size), dtype=np.float32)[:, None])
        top, left, width = int(0.03 * size), int(0.93 * size), max(3, int(0.025 * size))
        canvas[top : top + len(bar), left : left + width] = (bar * 255).astype(np.uint8)
    if rng.random() < 0.6:
        _heart_beat(canvas, rng)
