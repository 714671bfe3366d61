"""The colours of flow: turbulent, aliased mosaic in jets, smooth red or blue in normal streams, the colour window.

Velocities are in Nyquist limits: beyond -1..1 they wrap round (aliasing), as in a scanner.
"""

from __future__ import annotations

import numpy as np

from gradnorm_plugin.data.phantom.anatomy import Points
from gradnorm_plugin.data.phantom.plume import Plume
from gradnorm_plugin.data.phantom.sector import Fan, Image, Pose
from gradnorm_plugin.data.phantom.turbulence import Turbulence


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
