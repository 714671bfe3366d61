"""The imaging planes: parasternal long axis, apical four chamber, and the short axis at three levels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from gradnorm_demo.heart import (
    BLOOD,
    MUSCLE,
    PERICARDIUM,
    VALVE,
    Anatomy,
    Orifice,
    Phase,
    Stream,
    leaflets,
    ring,
    smooth,
    unit,
    wobble,
)


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


PLANES: dict[str, Callable[[np.random.Generator, Phase], Anatomy]] = {
    "plax": parasternal_long_axis,
    "a4c": apical_four_chamber,
    "aortic": short_axis_aortic,
    "papillary": short_axis_ventricle,
    "mitral": partial(short_axis_ventricle, mitral=True),
}
