"""The apical four-chamber plane."""

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
    smooth,
    unit,
    wobble,
)
from gradnorm_plugin.data.phantom.phase import Phase


def apical_four_chamber(rng: np.random.Generator, phase: Phase) -> Anatomy:
    """Apex on top: left ventricle right, right ventricle left, the atria below, the valves' cross in the middle."""
    heart = Anatomy()
    s = 0.026 * phase.squeeze
    edge = wobble([(0.05, -0.37), (0.17, -0.29), (0.245, -0.12), (0.25, 0.04), (0.235, 0.09), (0.245, 0.18),
                   (0.2, 0.29), (0.1, 0.315), (0.0, 0.285), (-0.12, 0.295), (-0.235, 0.255), (-0.265, 0.14),
                   (-0.225, 0.05), (-0.235, -0.06), (-0.17, -0.19), (-0.06, -0.28)], rng, 0.005)  # fmt: skip
    heart.fill(smooth(edge), MUSCLE)
    m1, m2 = np.array([(0.19 - 0.4 * s, 0.06), (0.022, 0.055)]) + rng.normal(0, 0.004, (2, 2))
    t1, t2 = np.array([(-0.2 + 0.4 * s, 0.035), (-0.022, 0.03)]) + rng.normal(0, 0.004, (2, 2))
    left = [(0.06, -0.315 + s), (0.13, -0.24 + s), (0.185 - s, -0.1), m1, (0.11, 0.075), m2, (0.022 + s, -0.08),
            (0.018 + s, -0.22)]  # fmt: skip
    ventricle = smooth(wobble(left, rng, 0.004))
    heart.fill(ventricle, BLOOD)
    right = [(-0.05, -0.265 + s), (-0.034, -0.12), t2, (-0.11, 0.045), t1, (-0.21 + s, -0.05), (-0.155 + s, -0.17)]
    heart.fill(smooth(wobble(right, rng, 0.004)), BLOOD)
    left_atrium = smooth([m2 + (0.0, 0.02), m1 + (0.0, 0.02), (0.225, 0.17), (0.18, 0.265), (0.1, 0.29),
                          (0.03, 0.255), (0.012, 0.16)])  # fmt: skip
    right_atrium = smooth([t1 + (0.0, 0.02), t2 + (0.0, 0.02), (-0.012, 0.15), (-0.03, 0.24), (-0.11, 0.27),
                           (-0.205, 0.235), (-0.24, 0.14)])  # fmt: skip
    for atrium in (left_atrium, right_atrium):
        heart.fill(atrium, BLOOD)
        heart.stroke(np.concatenate([atrium[12:], atrium[:1]]), 0.006, VALVE - 11)
    heart.fill(smooth([m2, m1, m1 + (0, 0.025), m2 + (0, 0.025)]), BLOOD)
    heart.fill(smooth([t2, t1, t1 + (0, 0.025), t2 + (0, 0.025)]), BLOOD)
    heart.stroke([(-0.002, 0.05), (0.0, 0.27)], 0.007, VALVE - 6)  # septum between the atria
    heart.stroke([t2, m2], 0.018, VALVE - 3)  # the crux
    heart.stroke(smooth([(-0.19, -0.11), (-0.11, -0.165), (-0.04, -0.15)], closed=False), 0.008, MUSCLE + 3)
    heart.stroke(edge[[1, 2, 3, 4]], 0.009, PERICARDIUM - 8)
    for hinges, drop in ((np.array([m1, m2]), 0.012), (np.array([t1, t2]), 0.008)):
        meet = hinges.mean(0) + (0.01 * np.sign(hinges.mean(0)[0]), -drop)
        for line in leaflets(hinges, meet, phase.inflow, (0.0, -0.095)):
            heart.stroke(line, 0.010, VALVE)
    heart.valves["MR"] = Orifice(np.array([m2, m1]), unit((0.0, 1.0)), left_atrium, 0.24)
    heart.valves["TR"] = Orifice(np.array([t1, t2]), unit((0.0, 1.0)), right_atrium, 0.24)
    heart.lead = [(-0.17, 0.25), (-0.13, 0.14), (-0.11, 0.03), (-0.1, -0.08), (-0.075, -0.2)]
    if phase.inflow > 0.2:
        heart.streams.append(Stream(np.array([(0.105, 0.16), (0.09, -0.16)]), 0.11, ventricle))
    if phase.outflow > 0.2:
        heart.streams.append(Stream(np.array([(0.09, -0.18), (0.05, 0.04)]), 0.08, ventricle))
    return heart
