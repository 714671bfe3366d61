"""The grey picture: a B-mode echo image of an anatomy, within the fan of the probe's beams.

Pixels: x right, y down, pixel (i, j) has its middle at (j, i). Polar grids: rows = depth, columns = beams.

Echoes are simulated along the beams, in polar coordinates, as in a scanner: many small scatterers give a complex
Gaussian field that the pulse blurs (Rayleigh-distributed envelope, i.e. speckle whose grain widens with depth),
mirror-like structures add to it coherently; then attenuation and its compensation, noise, logarithmic compression,
scan conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gradnorm_demo.heart import TISSUE, Anatomy, Points

_FLOOR = -64.0  # decibels that the byte 0 stands for while outlines are drawn
_STEP = 64.0 / 255
_SHIFT = 4  # OpenCV draws with 1/16 pixel

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
        polar = cv2.remap(image, *self._to_polar, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(polar, dtype=np.float32)

    def to_image(self, polar: Image, window: Window = WHOLE) -> Image:
        """Scan conversion: beams (rows, beams) to a window of the image; border beams are repeated outside."""
        x, y = (part[window] for part in self._to_image)
        image = cv2.remap(polar, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(image, dtype=np.float32)


def _subpixel(points: Points) -> np.ndarray:
    """Fixed-point coordinates as OpenCV's drawing functions take them."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def _byte(level: float) -> int:
    return int(np.clip((level - _FLOOR) / _STEP, 0, 255))


def fill(canvas: np.ndarray, points: Points, value: int) -> None:
    """Fill an outline (n, 2) of pixels on a byte image, with soft edges."""
    cv2.fillPoly(canvas, [_subpixel(points)], value, cv2.LINE_AA, _SHIFT)


def _decibels(anatomy: Anatomy, pose: Pose, size: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """Draw the scattering (diffuse) and the mirror-like (specular) level of each pixel, in decibels."""
    diffuse = np.full((size, size), _byte(TISSUE + rng.normal(0, 2)), np.uint8)
    specular = np.zeros((size, size), np.uint8)
    for region in anatomy.regions:
        fill(diffuse, pose.points(region.points), _byte(region.level + rng.normal(0, 0.8)))
    for line in anatomy.lines:
        thickness = max(1, round(line.width * pose.scale))
        cv2.polylines(specular, [_subpixel(pose.points(line.points))], False,
                      _byte(line.level + rng.normal(0, 1.5)), thickness, cv2.LINE_AA, _SHIFT)  # fmt: skip
    return tuple(level.astype(np.float32) * np.float32(_STEP) + np.float32(_FLOOR) for level in (diffuse, specular))


def _cloud(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Image:
    """Smooth noise, about normal, `cells` across."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _facing(level: Image) -> Image:
    """How squarely each mirror faces the beam, 0 to 1: one seen edge-on sends its echo elsewhere and drops out."""
    fine = cv2.GaussianBlur(level, (0, 0), 1.5)
    down, side = cv2.Sobel(fine, cv2.CV_32F, 0, 1), cv2.Sobel(fine, cv2.CV_32F, 1, 0)
    down, side = (cv2.GaussianBlur(part * part, (0, 0), 2.0) for part in (down, side))
    return down / (down + side + np.float32(1e-3))


def _near_field(fan: Fan, rng: np.random.Generator) -> Image:
    """Chest wall under the probe: bright layers, in decibels above the tissue."""
    rows = fan.shape[0]
    depth = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    layers = np.cos(depth * rng.uniform(90, 160) + rng.uniform(0, 6)) + 0.6 * np.cos(depth * rng.uniform(180, 300))
    fade = np.exp(-depth / rng.uniform(0.06, 0.10))
    return ((11.0 + 3.5 * layers) * fade).astype(np.float32)


def b_mode(anatomy: Anatomy, pose: Pose, fan: Fan, rng: np.random.Generator) -> Image:
    """Return the grey image (size, size), 0 to 1, black outside the fan."""
    diffuse, specular = (fan.to_polar(level) for level in _decibels(anatomy, pose, fan.size, rng))
    rows, beams = fan.shape
    depth = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    diffuse += 2.5 * _cloud(fan.shape, 10, rng) + 2.0 * _cloud(fan.shape, 40, rng) + _near_field(fan, rng)
    specular += 5.0 * _cloud(fan.shape, 24, rng) - 2.0 + 12.0 * (_facing(specular) - 0.85)

    scatter = np.power(np.float32(10), diffuse / 20)
    mirror = np.power(np.float32(10), specular / 20)
    grain = rng.uniform(0.8, 1.2) * fan.size / 320
    across, along = 1.3 * grain, 0.85 * grain  # the pulse: beams wide, samples long
    gain = np.float32(np.sqrt(2 * np.pi * across * along))  # keeps the mean intensity of unit scatterers at 1
    echoes = []
    for part in range(2):  # in phase, in quadrature
        field = cv2.GaussianBlur(rng.standard_normal(fan.shape, dtype=np.float32) * (scatter + 0.5 * mirror), (0, 0),
                                 sigmaX=across, sigmaY=along)  # fmt: skip
        # next to the probe beams are narrower than the pulse is wide: the grain lies flat there
        flat = cv2.GaussianBlur(field, (0, 0), sigmaX=5 * across, sigmaY=0.6 * along) * np.float32(2.6)
        close = np.exp(-depth / np.float32(0.09))
        echoes.append(gain * (close * flat + (1 - close) * field))
        if part == 0:
            echoes[0] += cv2.GaussianBlur(mirror, (0, 0), sigmaX=across, sigmaY=0.6 * along)
    echo = 10 * np.log10(echoes[0] ** 2 + echoes[1] ** 2 + np.float32(1e-7))

    echo -= rng.uniform(2, 11) * depth  # attenuation that the time gain compensation leaves over
    echo += 2.0 * _cloud((1, beams), 9, rng)[:1]  # ribs and contact: some beams are weaker
    floor = rng.uniform(-60, -43) + 10 * depth**2  # amplifier noise, raised with depth by the compensation
    noise = np.abs(cv2.GaussianBlur(rng.standard_normal(fan.shape, dtype=np.float32), (0, 0), 0.7 * grain)) * 2
    echo = np.maximum(echo, floor + 20 * np.log10(noise + np.float32(1e-3)))
    span, top = rng.uniform(42, 54), rng.uniform(-6, 2)  # dynamic range and the level shown white, decibels
    grey = np.clip((echo - (top - span + 8)) / (span - 8), 0, 1) ** np.float32(rng.uniform(1.0, 1.4))
    return np.where(fan.mask, np.clip(fan.to_image(grey.astype(np.float32)), 0, 1), np.float32(0))
