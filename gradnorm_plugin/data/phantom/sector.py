"""Geometry of the probe: the heart's pose in the image and the fan of beams, with the two maps between them.

Pixels: x right, y down, pixel (i, j) has its middle at (j, i). Polar grids: rows = depth, columns = beams.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Window = tuple[slice, slice]  # rows, columns of an image
WHOLE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Pose:
    """Heart coordinates to pixels: mirrored or not, turned (radians), scaled (pixels for a heart unit), shifted."""

    mirror: bool
    turn: float
    scale: float
    shift: tuple[float, float]

    @classmethod
    def sample(cls, size: int, rng: np.random.Generator, spread: float = 1.0) -> Pose:
        """Draw probe tilt, depth and position; `spread` 0 is the standard view, 1 the full variation."""
        return cls(
            mirror=bool(rng.random() < 0.15),
            turn=float(np.radians(rng.uniform(-17, 17)) * spread),
            scale=float(size * (1.02 + spread * rng.uniform(-0.16, 0.17))),
            shift=(
                float(size * (0.5 + spread * rng.uniform(-0.05, 0.05))),
                float(size * (0.5 + spread * rng.uniform(-0.035, 0.035))),
            ),
        )

    def directions(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn and mirror vectors (n, 2) or (2,); lengths stay."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        m = -1.0 if self.mirror else 1.0
        return np.asarray(vectors) @ np.array([[c * m, s * m], [-s, c]])

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heart points (n, 2) to pixels."""
        return self.directions(points) * self.scale + np.asarray(self.shift)


class Fan:
    """A sector of beams in a square image of `size` pixels: apex, opening angle, depth, and both resampling maps."""

    def __init__(self, size: int, half_angle: float, depth: float) -> None:
        """`half_angle` in radians, `depth` as a share of `size`."""
        self.size, self.half_angle = size, half_angle
        self.apex = (size / 2 - 0.5, 0.015 * size)
        self.near, self.far = 0.035 * size, depth * size
        self.shape = (round(self.far - self.near), max(32, int(0.55 * size)))
        rows, beams = self.shape
        depths = np.linspace(self.near, self.far, rows, dtype=np.float32)[:, None]
        angles = np.linspace(-half_angle, half_angle, beams, dtype=np.float32)[None]
        self._to_polar = (
            (self.apex[0] + depths * np.sin(angles)).astype(np.float32),
            (self.apex[1] + depths * np.cos(angles)).astype(np.float32),
        )
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        self.depth = np.hypot(x - self.apex[0], y - self.apex[1])
        self.angle = np.arctan2(x - self.apex[0], y - self.apex[1])
        self._to_image = (
            ((self.angle + half_angle) * ((beams - 1) / (2 * half_angle))).astype(np.float32),
            ((self.depth - self.near) * ((rows - 1) / (self.far - self.near))).astype(np.float32),
        )
        self.mask = (np.abs(self.angle) <= half_angle) & (self.depth >= self.near) & (self.depth <= self.far)

    @classmethod
    def sample(cls, size: int, rng: np.random.Generator) -> Fan:
        """Draw a probe setting."""
        return cls(size, float(np.radians(rng.uniform(37, 43))), float(rng.uniform(0.92, 0.96)))

    def to_polar(self, image: Image) -> Image:
        """Sample an image (size, size) along the beams."""
        return cv2.remap(image, *self._to_polar, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def to_image(self, polar: Image, window: Window = WHOLE) -> Image:
        """Scan conversion: beams (rows, beams) to a window of the image; border beams are repeated outside."""
        x, y = (part[window] for part in self._to_image)
        return cv2.remap(polar, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
