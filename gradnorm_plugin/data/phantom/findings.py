"""Findings put into a heart that has been drawn up without them; no random numbers, so the rest of the picture stays."""

from __future__ import annotations

import numpy as np

from gradnorm_plugin.data.phantom.anatomy import BLOOD, PERICARDIUM, Anatomy, Line, Region, smooth
from gradnorm_plugin.data.phantom.plan import Extras


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
