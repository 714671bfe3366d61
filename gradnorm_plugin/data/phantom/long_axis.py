"""The parasternal long-axis plane."""

from __future__ import annotations

import numpy as np

from gradnorm_plugin.data.phantom.anatomy import (
    BLOOD,
    MUSCLE,
    PERICARDIUM,
    VALVE,
    Anatomy,
    Orifice,
    Stream,
    leaflets,
    ring,
    smooth,
    unit,
    wobble,
)
from gradnorm_plugin.data.phantom.phase import Phase


def parasternal_long_axis(rng: np.random.Generator, phase: Phase) -> Anatomy:
    """Right ventricle on top, septum, long left ventricle, aortic root upper right, left atrium lower right."""
    heart = Anatomy()
    s = 0.028 * phase.squeeze
    front, back, floor = np.array([(0.085, -0.072), (0.103, 0.036), (0.035, 0.168)]) + rng.normal(0, 0.005, (3, 2))
    edge = wobble([(-0.50, -0.12), (-0.3, -0.25), (0, -0.295), (0.3, -0.28), (0.47, -0.22), (0.5, 0.0), (0.43, 0.22),
                   (0.32, 0.30), (0.1, 0.30), (0.0, 0.24), (-0.2, 0.245), (-0.46, 0.19)], rng)  # fmt: skip
    heart.fill(smooth(edge), MUSCLE)
    right = wobble([(-0.34, -0.17), (-0.22, -0.225), (-0.05, -0.25), (0.12, -0.255), (0.26, -0.235), (0.25, -0.175),
                    (0.1, -0.158), (-0.08, -0.172), (-0.24, -0.152)], rng)  # fmt: skip
    heart.fill(smooth(right), BLOOD)
    left = np.array([(-0.46, 0.02), (-0.30, -0.085 + s), (-0.14, -0.112 + s), (0.0, -0.098 + 0.6 * s), front,
                     (0.112, -0.02), back, (0.085, 0.10), floor, (-0.08, 0.17 - s), (-0.24, 0.155 - s),
                     (-0.38, 0.10 - s)])  # fmt: skip
    ventricle = smooth(wobble(left, rng, 0.004))
    heart.fill(ventricle, BLOOD)
    root = smooth([front, (0.13, -0.115), (0.18, -0.11), (0.25, -0.105), (0.34, -0.13), (0.5, -0.17), (0.52, -0.04),
                   (0.36, -0.01), (0.25, 0.02), (0.18, 0.045), (0.13, 0.055), back])  # fmt: skip
    heart.fill(root, BLOOD)
    atrium = smooth([back + (0.0, 0.035), (0.18, 0.075), (0.29, 0.07), (0.38, 0.11), (0.39, 0.18), (0.32, 0.255),
                     (0.2, 0.272), (0.085, 0.235), floor])  # fmt: skip
    atrium = smooth(wobble(atrium[::8], rng, 0.004))
    heart.fill(atrium, BLOOD)
    mitral = smooth([back, floor, floor + (0.03, 0.02), back + (0.02, 0.03)], closed=True)
    heart.fill(mitral, BLOOD)
    if rng.random() < 0.7:
        heart.fill(ring((0.13, 0.355), rng.uniform(0.03, 0.042)), BLOOD)  # descending aorta behind the atrium
    for wall in (root[:40], root[-42:-2]):
        heart.stroke(wall, 0.011, VALVE - 3)
    heart.stroke(smooth([back, *atrium[4:24:6]], closed=False), 0.008, VALVE - 6)
    heart.stroke(smooth([(-0.48, 0.2), (-0.2, 0.252), (0.0, 0.247), (0.09, 0.305)], closed=False), 0.016, PERICARDIUM)
    heart.stroke(ventricle[8:28], 0.006, VALVE - 9)
    meet = 0.5 * (back + floor) + (-0.035, 0.0)
    for line in leaflets(np.array([back, floor]), meet, phase.inflow, (-0.115, 0.0)):
        heart.stroke(line, 0.011, VALVE)
    for line in leaflets(np.array([front, back]), 0.5 * (front + back) + (0.035, 0.0), phase.outflow, (0.07, -0.01)):
        heart.stroke(line, 0.008, VALVE - 1)
    for y in (0.06, 0.115):  # chordae towards the papillary muscle
        heart.stroke([meet, (-0.15, y)], 0.004, VALVE - 10)
    heart.valves["AR"] = Orifice(np.array([front, back]), unit((-1.0, 0.12)), ventricle, 0.30)
    heart.valves["MR"] = Orifice(np.array([back, floor]), unit((1.0, 0.22)), np.concatenate([atrium]), 0.26)
    heart.lead = [(0.24, -0.203), (0.1, -0.208), (-0.05, -0.206), (-0.22, -0.186), (-0.31, -0.166)]
    if phase.inflow > 0.2:
        heart.streams.append(Stream(np.array([(0.2, 0.15), (-0.16, 0.05)]), 0.10, ventricle))
    if phase.outflow > 0.2:
        heart.streams.append(Stream(np.array([(-0.02, -0.03), (0.32, -0.07)]), 0.10, root))
    return heart
