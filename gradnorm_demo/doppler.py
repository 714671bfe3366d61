"""The colours of flow: where they lie, and turbulent, aliased mosaic in jets or smooth red or blue in normal streams.

One function shapes the jets of every class, with one distribution of form and relative size: only the place among the
chambers tells AR, MR, PR and TR apart. Plumes live in a window of the image, to save time.
Velocities are in Nyquist limits: beyond -1..1 they wrap round (aliasing), as in a scanner.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gradnorm_demo.bmode import Fan, Image, Pose, Window, fill
from gradnorm_demo.heart import Orifice, Points, Stream

OPAQUE = 0.25  # a pixel belongs to a jet from this opacity on


class Turbulence:
    """Endless supply of Doppler noise for one image: one field for each grain, shifted anew at each use."""

    def __init__(self, fan: Fan, rng: np.random.Generator) -> None:
        """`rng` gives the field now and the shifts later."""
        self.fan, self._rng = fan, rng
        self._white = rng.standard_normal(fan.shape, dtype=np.float32)
        self._fields: dict[float, Image] = {}

    def cells(self, grain: float, window: Window) -> Image:
        """Noise of about unit variance on a window of the image; `grain` is the cell's depth, in 1/320 of the image."""
        if grain not in self._fields:
            sigma = grain * self.fan.size / 320
            field = cv2.GaussianBlur(self._white, (0, 0), sigma)
            self._fields[grain] = field * np.float32(2 * np.sqrt(np.pi) * sigma)
        shift = tuple(self._rng.integers(0, self.fan.shape))
        return self.fan.to_image(np.roll(self._fields[grain], shift, (0, 1)), window)


@dataclass(frozen=True)
class Plume:
    """Coloured pixels inside `window` of the image: opacity, place along the axis (0 to 1), across it (-1 to 1)."""

    window: Window
    opacity: Image
    along: Image
    across: Image

    def mask(self, size: int) -> NDArray[np.bool_]:
        """The opaque pixels on the whole image (size, size)."""
        whole = np.zeros((size, size), bool)
        whole[self.window] = self.opacity > OPAQUE
        return whole


def _window(corners: Points, size: int) -> Window:
    """The part of the image that holds all corners (n, 2); at least one pixel, even far outside."""
    (x1, y1), (x2, y2) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
    x1, y1 = np.clip((x1, y1), 0, size - 1)
    return slice(y1, int(np.clip(y2, y1 + 1, size))), slice(x1, int(np.clip(x2, x1 + 1, size)))


def _plume(start: Points, axis: Points, length: float, width: float, noise: Turbulence,
           rough: float) -> Plume:  # fmt: skip
    """A plume from a narrow neck at `start` along `axis`; `length` and `width` in pixels, outline `rough` by noise."""
    normal = np.array([-axis[1], axis[0]])
    corners = [start + a * length * axis + b * width * normal for a in (0.0, 1.05) for b in (-0.9, 0.9)]
    window = _window(np.array(corners), noise.fan.size)
    y, x = np.mgrid[window].astype(np.float32)
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    along = (x * np.float32(axis[0]) + y * np.float32(axis[1])) / np.float32(length)
    across = (x * np.float32(normal[0]) + y * np.float32(normal[1])) / np.float32(width / 2)
    edge = noise.cells(3.2, window)
    s = np.clip(along * (1 + 0.12 * edge), 0, 1)
    half = (0.35 + 0.65 * np.sqrt(s)) * np.sqrt(1 - s**3) * (1 + rough * edge)
    inside = np.minimum((half - np.abs(across)) * (width / 2), (1 - s) * length)
    return Plume(window, np.where(along >= 0, np.clip(inside / 1.5, 0, 1), 0).astype(np.float32), along, across)


def _within(plume: Plume, outline: Points, pose: Pose, size: int, bleed: float) -> Plume:
    """Cut a plume at its chamber's outline, `bleed` heart units beyond it: colour spills a little over walls."""
    canvas = np.zeros((size, size), np.uint8)
    fill(canvas, pose.points(outline), 255)
    side = 2 * round(bleed * pose.scale) + 1
    room = cv2.dilate(canvas, np.ones((side, side), np.uint8))[plume.window].astype(np.float32) / np.float32(255)
    return Plume(plume.window, plume.opacity * room, plume.along, plume.across)


def _in_one_piece(plume: Plume) -> Plume:
    """Drop the islands that rough edges leave, so that a box is as tight as its jet."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((plume.opacity > OPAQUE).astype(np.uint8))
    if count <= 2:  # background and one piece, or nothing
        return plume
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    keep = (labels == largest) | (labels == 0)
    return Plume(plume.window, plume.opacity * keep, plume.along, plume.across)


def jet_plume(valve: Orifice, pose: Pose, noise: Turbulence, rng: np.random.Generator, seat: float, share: float) -> Plume:
    """A random jet out of `valve`.

    Args:
        seat: where on the valve it starts, -1 to 1 between the hinges.
        share: part of the valve that is this jet's own, 1 for a single jet.
    """
    first, last = valve.ends
    gap = float(np.hypot(*(last - first)))
    small = rng.random() < 0.15
    length = valve.reach * (rng.uniform(0.4, 0.55) if small else rng.uniform(0.55, 1.0))
    width = min(gap * share * rng.uniform(0.7, 1.2), 0.8 * length) * (0.75 if small else 1.0)
    start = 0.5 * (first + last) + 0.36 * seat * (last - first) - 0.012 * valve.towards
    # a jet at one side leans outwards a little: the turn that takes `towards` to the line of the valve has this sign
    side = np.sign(valve.towards[0] * (last - first)[1] - valve.towards[1] * (last - first)[0])
    lean = side * np.radians(rng.uniform(-16, 16) * (1 - 0.5 * abs(seat)) + 10 * seat)
    turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    plume = _plume(pose.points(start[None])[0], pose.directions(valve.towards @ turn), length * pose.scale,
                   width * pose.scale, noise, rough=rng.uniform(0.15, 0.3))  # fmt: skip
    return _in_one_piece(_within(plume, valve.pool, pose, noise.fan.size, 0.006))


def stream_plume(stream: Stream, pose: Pose, noise: Turbulence, rng: np.random.Generator) -> Plume:
    """A random piece of normal flow."""
    start, end = pose.points(stream.path)
    length = float(np.hypot(*(end - start)))
    plume = _plume(start, (end - start) / length, length, stream.width * rng.uniform(0.8, 1.5) * pose.scale,
                   noise, rough=0.2)  # fmt: skip
    return _within(plume, stream.pool, pose, noise.fan.size, 0.004)


def jet_velocity(plume: Plume, noise: Turbulence, rng: np.random.Generator) -> tuple[Image, Image]:
    """Velocity (wrapped to -1..1) and its variance (0 to 1) in a jet: fast, turbulent, aliased.

    The sign is random: beyond the Nyquist limit colour no longer tells direction, and so no class.
    """
    fast = rng.uniform(0.9, 1.9) * rng.choice([-1, 1])
    core = 1 - 0.35 * np.clip(plume.along, 0, 1) - 0.3 * np.clip(plume.across, -1, 1) ** 2
    velocity = fast * core + rng.uniform(0.25, 0.55) * noise.cells(1.6, plume.window)
    variance = np.clip(0.45 + 0.35 * noise.cells(2.0, plume.window), 0, 1) * rng.uniform(0.2, 1.0)
    return ((velocity + 1) % 2 - 1).astype(np.float32), variance.astype(np.float32)


def stream_velocity(plume: Plume, path: Points, pose: Pose, noise: Turbulence, rng: np.random.Generator) -> Image:
    """Velocity of normal flow: smooth, below the limit, red towards the probe and blue away from it."""
    start, end = pose.points(path)
    toward = -(end - start)[1] / np.hypot(*(end - start))
    speed = rng.uniform(0.4, 0.9) * (np.sign(toward) if abs(toward) > 0.2 else rng.choice([-1, 1]))
    profile = 1 - 0.8 * np.clip(plume.across, -1, 1) ** 2
    return np.clip(speed * profile + 0.06 * noise.cells(2.5, plume.window), -0.95, 0.95).astype(np.float32)


def colours(velocity: Image, variance: Image | float = 0.0) -> Image:
    """Velocity-variance colour map, BGR (..., 3), 0 to 1: red towards, blue away, green turbulence."""
    strength = np.abs(velocity)
    main = 0.38 + 0.62 * strength
    hot = np.clip(0.95 * strength**1.6 + 0.45 * variance * strength, 0, 1)
    low = np.full_like(main, 0.04)
    toward = np.stack([low, hot, main], -1)
    return np.where(velocity[..., None] >= 0, toward, toward[..., ::-1])


def colour_window(fan: Fan, plumes: list[Plume], rng: np.random.Generator) -> tuple[float, float, float, float] | None:
    """The scanner's colour window around all colour: depth from, to (pixels), angle from, to; None without colour."""
    lit = [(fan.depth[p.window][seen], fan.angle[p.window][seen]) for p in plumes
           if (seen := (p.opacity > 0) & fan.mask[p.window]).any()]  # fmt: skip
    if not lit:
        return None
    depths, angles = (np.concatenate(parts) for parts in zip(*lit, strict=True))
    room = rng.uniform(0.02, 0.12, 4) * (fan.far, fan.far, 1.0, 1.0)
    limit = 0.97 * fan.half_angle
    return (
        max(fan.near + 2, float(depths.min() - room[0])),
        min(fan.far - 2, float(depths.max() + room[1])),
        max(-limit, float(angles.min() - room[2])),
        min(limit, float(angles.max() + room[3])),
    )
