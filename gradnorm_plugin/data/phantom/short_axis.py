"""The parasternal short-axis planes: aortic valve, mitral valve, papillary muscles."""

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


def short_axis_aortic(rng: np.random.Generator, phase: Phase) -> Anatomy:
    """Round aortic valve in the middle, the right heart around it: atrium, tricuspid, outflow, pulmonary valve."""
    heart = Anatomy()
    r = rng.uniform(0.106, 0.122)
    edge = wobble([(-0.36, 0.02), (-0.33, -0.14), (-0.19, -0.25), (0.0, -0.28), (0.16, -0.25), (0.28, -0.14),
                   (0.35, 0.02), (0.36, 0.16), (0.27, 0.28), (0.1, 0.345), (-0.1, 0.32), (-0.25, 0.29),
                   (-0.36, 0.17)], rng)  # fmt: skip
    heart.fill(smooth(edge), MUSCLE)
    t_in, t_out = np.array([(-r - 0.028, 0.0), (-0.285, -0.01)]) + rng.normal(0, 0.005, (2, 2))
    p_in, p_out = np.array([(r + 0.035, -0.055), (0.245, -0.13)]) + rng.normal(0, 0.005, (2, 2))
    outflow = smooth([t_out, (-0.285, -0.11), (-0.18, -0.205), (0.0, -0.24), (0.15, -0.215), p_out, p_in,
                      (0.085, -r - 0.012), (0.0, -r - 0.03), (-0.085, -r - 0.005), t_in])  # fmt: skip
    right_atrium = smooth([t_out + (0, 0.015), t_in + (0, 0.015), (-r - 0.012, 0.09), (-0.105, 0.2), (-0.18, 0.255),
                           (-0.29, 0.215), (-0.325, 0.11)])  # fmt: skip
    artery = smooth([p_out + (0.005, 0.015), p_in + (0.0, 0.015), (r + 0.05, 0.03), (0.18, 0.12), (0.27, 0.16),
                     (0.31, 0.08), (0.285, -0.03)])  # fmt: skip
    left_atrium = smooth(wobble([(-0.08, 0.15), (0.0, r + 0.03), (0.1, r + 0.025), (0.165, 0.19), (0.15, 0.275),
                                 (0.05, 0.31), (-0.06, 0.285), (-0.09, 0.22)], rng, 0.004))  # fmt: skip
    for pool in (outflow, right_atrium, artery, left_atrium):
        heart.fill(pool, BLOOD)
    heart.fill(smooth([t_in, t_out, t_out + (0, 0.02), t_in + (0, 0.02)]), BLOOD)
    root = smooth(wobble(ring((0.0, 0.0), r)[::4], rng, 0.004))
    heart.fill(root, BLOOD)
    heart.stroke(np.concatenate([root, root[:1]]), 0.011, VALVE - 2)
    heart.stroke(right_atrium[14:34], 0.007, VALVE - 8)
    heart.stroke(smooth([(-0.1, 0.11), (-0.095, 0.24)], closed=False), 0.008, VALVE - 6)
    turn = rng.uniform(-12, 12)
    for angle in np.radians([-90 + turn, 30 + turn, 150 + turn]):  # three commissures: the closed valve's star
        rim = r * np.array([np.cos(angle), np.sin(angle)])
        if phase.outflow < 0.3:
            heart.stroke([0.02 * rim, 0.95 * rim], 0.008, VALVE)
        else:  # open: cusps lie along the wall, a triangle between commissures
            other = r * np.array([np.cos(angle + 2 * np.pi / 3), np.sin(angle + 2 * np.pi / 3)])
            heart.stroke([0.93 * rim, 0.43 * (rim + other) * (1 + 0.7 * phase.outflow), 0.93 * other], 0.007, VALVE - 2)
    for line in leaflets(np.array([t_out, t_in]), 0.5 * (t_out + t_in) + (0.02, -0.01), phase.inflow, (0.03, -0.08)):
        heart.stroke(line, 0.009, VALVE)
    for line in leaflets(np.array([p_in, p_out]), 0.5 * (p_in + p_out) + (0.02, 0.02), phase.outflow, (0.03, 0.05)):
        heart.stroke(line, 0.008, VALVE)
    angle = rng.uniform(0, 2 * np.pi)  # the leak is seen end-on: its trace may lie anywhere within the ring
    along, towards = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    seam = np.array([-0.62 * r * along, 0.62 * r * along]) - 0.45 * r * towards
    heart.valves["AR"] = Orifice(seam, towards, 0.95 * root, 0.17)
    heart.valves["TR"] = Orifice(np.array([t_out, t_in]), unit((0.05, 1.0)), right_atrium, 0.23)
    heart.valves["PR"] = Orifice(np.array([p_in, p_out]), unit((-0.75, -0.55)), outflow, 0.2)
    heart.lead = [(-0.22, 0.22), (-0.23, 0.1), (-0.215, 0.0), (-0.21, -0.12), (-0.12, -0.185), (0.0, -0.2)]
    if phase.outflow > 0.2:
        heart.streams.append(Stream(np.array([(0.0, -0.19), (0.25, 0.1)]), 0.1, artery))
    if phase.inflow > 0.2:
        heart.streams.append(Stream(np.array([(-0.2, 0.12), (-0.17, -0.15)]), 0.1, outflow))
    return heart


def short_axis_ventricle(rng: np.random.Generator, phase: Phase, mitral: bool = False) -> Anatomy:
    """Round, thick-walled left ventricle, crescent right ventricle; papillary muscles, or the mitral fish mouth."""
    heart = Anatomy()
    centre = np.array([0.04, 0.03])
    inner = rng.uniform(0.145, 0.165) - 0.045 * phase.squeeze
    outer = inner + rng.uniform(0.06, 0.072) + 0.02 * phase.squeeze
    hull = wobble([(-0.2, 0.17), (-0.31, 0.05), (-0.28, -0.12), (-0.12, -0.235), (0.05, -0.245)], rng)
    heart.fill(smooth(np.concatenate([hull, ring(centre, outer + 0.01, -70, 130)[::5]])), MUSCLE - 2)
    crescent = np.concatenate([
        smooth([(-0.17, 0.16), (-0.285, 0.04), (-0.255, -0.11), (-0.12, -0.21), (0.02, -0.225)], closed=False),
        ring(centre, outer, 150, 268)[::-1],
    ])  # fmt: skip
    heart.fill(crescent, BLOOD)
    heart.fill(smooth(wobble(ring(centre, outer)[::3], rng, 0.003)), MUSCLE + 1)
    cavity = smooth(wobble(ring(centre, (inner, 0.97 * inner))[::3], rng, 0.004))
    heart.fill(cavity, BLOOD)
    heart.stroke(ring(centre, outer + 0.012, -30, 140), 0.010, PERICARDIUM - 5)
    heart.stroke(np.concatenate([cavity, cavity[:1]]), 0.005, VALVE - 10)
    if mitral:
        gape = 0.02 + 0.35 * inner * phase.inflow
        for side in (-1, 1):
            lip = [(-0.75 * inner, 0.0), (0.0, side * gape), (0.75 * inner, 0.0)]
            heart.stroke(centre + smooth(lip, closed=False), 0.012, VALVE)
    else:
        for angle in np.radians([rng.uniform(28, 48), rng.uniform(132, 152)]):
            at = centre + 0.74 * inner * np.array([np.cos(angle), np.sin(angle)])
            heart.fill(smooth(wobble(ring(at, rng.uniform(0.03, 0.04))[::4], rng, 0.003)), MUSCLE + 4)
    heart.lead = [(-0.235, 0.07), (-0.245, 0.0), (-0.21, -0.09), (-0.15, -0.155)]
    if phase.inflow > 0.2:
        heart.streams.append(Stream(centre + [(-0.05, 0.0), (0.07, 0.0)], 0.12, cavity))
    return heart


def papillary_level(rng: np.random.Generator, phase: Phase) -> Anatomy:
    """Short axis through the papillary muscles."""
    return short_axis_ventricle(rng, phase)


def mitral_level(rng: np.random.Generator, phase: Phase) -> Anatomy:
    """Short axis through the mitral valve."""
    return short_axis_ventricle(rng, phase, mitral=True)
