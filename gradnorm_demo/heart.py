"""What a heart looks like in one imaging plane, before any physics: outlines, bright lines, valves, streams; phase and findings.

Coordinates here are *heart coordinates*: unit = side of the image, origin = middle of the heart, x right, y away from
the probe. Echo levels are decibels below the brightest reflector (0 dB).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradnorm_demo.plan import Extras

BLOOD = -52.0
MUSCLE = -22.0
TISSUE = -33.0
VALVE = -9.0
PERICARDIUM = -4.0

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A filled outline, points (n, 2), of scattering tissue or blood at `level` decibels."""

    points: Points
    level: float


@dataclass(frozen=True)
class Line:
    """An open line, points (n, 2), of mirror-like tissue: `width` heart units, `level` decibels."""

    points: Points
    width: float
    level: float


@dataclass(frozen=True)
class Orifice:
    """A valve that may leak.

    Attributes:
        ends: the two hinge points (2, 2) of the closed valve.
        towards: unit vector (2,) of the leak.
        pool: outline (n, 2) of the chamber that the leak enters and cannot leave.
        reach: the longest jet that fits, heart units.
    """

    ends: Points
    towards: Points
    pool: Points
    reach: float


@dataclass(frozen=True)
class Stream:
    """Physiological, laminar flow along start -> end (2, 2) inside `pool`, about `width` heart units wide."""

    path: Points
    width: float
    pool: Points


@dataclass
class Anatomy:
    """All there is to draw: regions and lines in painting order, leaking valves by jet name, normal streams.

    The first region is the heart as a whole. `lead` is the way (n, 2) of a pacemaker's lead, should there be one.
    """

    regions: list[Region] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    valves: dict[str, Orifice] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    lead: list[tuple[float, float]] = field(default_factory=list)

    def fill(self, points: ArrayLike, level: float) -> None:
        """Add a region."""
        self.regions.append(Region(np.asarray(points, dtype=float), level))

    def stroke(self, points: ArrayLike, width: float, level: float) -> None:
        """Add a bright line."""
        self.lines.append(Line(np.asarray(points, dtype=float), width, level))


def smooth(points: ArrayLike, closed: bool = True, steps: int = 8) -> Points:
    """Catmull-Rom curve through `points` (n, 2): `steps` points for each piece."""
    p = np.asarray(points, dtype=float)
    q = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = (np.arange(steps) / steps)[:, None]
    curve = [
        b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
        for a, b, c, d in zip(q, q[1:], q[2:], q[3:], strict=False)
    ]
    return np.concatenate(curve if closed else [*curve, p[-1:]])


def wobble(points: ArrayLike, rng: np.random.Generator, amount: float = 0.006) -> Points:
    """No two hearts are alike: move each control point by a normal deviate of `amount` heart units."""
    p = np.asarray(points, dtype=float)
    return p + rng.normal(0.0, amount, p.shape)


def ring(centre: ArrayLike, radius: float | tuple[float, float], start: float = 0.0, stop: float = 360.0) -> Points:
    """Points on a circle or an ellipse's arc, degrees clockwise from +x (y points down)."""
    angle = np.radians(np.linspace(start, stop, 33 if stop - start < 360 else 32, endpoint=stop - start < 360))
    return np.asarray(centre) + np.stack([np.cos(angle), np.sin(angle)], 1) * np.asarray(radius)


def unit(vector: ArrayLike) -> Points:
    """The vector (2,) at length 1."""
    v = np.asarray(vector, dtype=float)
    return v / np.hypot(*v)


def leaflets(ends: Points, meet: ArrayLike, opening: float, into: ArrayLike) -> list[Points]:
    """Two leaflets hinged at `ends` (2, 2).

    They meet at `meet` when `opening` is 0; at 1 their tips lie `into` (2,) downstream of their own hinges.
    """
    meet, into = np.asarray(meet, dtype=float), np.asarray(into, dtype=float)
    lines = []
    for hinge in ends:
        tip = (1 - opening) * meet + opening * (hinge + 0.22 * (meet - hinge) + into)
        belly = 0.5 * (hinge + tip) + 0.12 * into * (1 - 2 * opening)
        lines.append(smooth([hinge, belly, tip], closed=False))
    return lines


@dataclass(frozen=True)
class Phase:
    """A moment of the heart beat: squeeze of the ventricles and opening of the valves, all 0 to 1."""

    squeeze: float
    inflow: float
    outflow: float

    @classmethod
    def sample(cls, jets: tuple[str, ...], rng: np.random.Generator) -> Phase:
        """A phase in which all `jets` can leak: a valve leaks while it is shut.

        Atrioventricular valves are shut in systole, arterial ones in diastole, both in the isovolumic moments between.
        """
        arterial, atrial = bool({"AR", "PR"} & set(jets)), bool({"MR", "TR"} & set(jets))
        if arterial == atrial:
            moment = "isovolumic" if arterial else rng.choice(["systole", "diastole"])
        else:
            moment = "diastole" if arterial else "systole"
        if moment == "systole":
            return cls(rng.uniform(0.5, 1.0), 0.0, rng.uniform(0.5, 1.0))
        if moment == "diastole":
            return cls(rng.uniform(0.0, 0.5), rng.uniform(0.4, 1.0), 0.0)
        return cls(rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.1), 0.0)


def add_findings(heart: Anatomy, extras: Extras) -> None:
    """Draw fluid between heart and pericardium, and a lead through the right heart, as `extras` says."""
    aside = np.array([np.cos(extras.side), np.sin(extras.side)])
    if extras.effusion:
        edge = heart.regions[0].points
        outwards = edge - edge.mean(0)
        outwards /= np.hypot(*outwards.T)[:, None]
        rim = edge + extras.effusion * (1 + 0.35 * outwards @ aside)[:, None] * outwards
        heart.regions.insert(0, Region(rim, BLOOD))
        heart.lines.insert(0, Line(np.concatenate([rim, rim[:1]]), 0.011, PERICARDIUM - 2))
    if extras.lead:
        heart.stroke(smooth(heart.lead, closed=False) + 0.006 * aside, 0.014, 0.0)
