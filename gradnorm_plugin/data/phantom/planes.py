"""The imaging planes by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradnorm_plugin.data.phantom.anatomy import Anatomy
from gradnorm_plugin.data.phantom.four_chamber import apical_four_chamber
from gradnorm_plugin.data.phantom.long_axis import parasternal_long_axis
from gradnorm_plugin.data.phantom.phase import Phase
from gradnorm_plugin.data.phantom.short_axis import mitral_level, papillary_level, short_axis_aortic

PLANES: dict[str, Callable[[np.random.Generator, Phase], Anatomy]] = {
    "plax": parasternal_long_axis,
    "a4c": apical_four_chamber,
    "aortic": short_axis_aortic,
    "papillary": papillary_level,
    "mitral": mitral_level,
}
