"""The marker and colour of each method, the same in every comparison: apart for the colour-blind, and by shape in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.compare.outcome import BASELINES
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION

# Tol's "muted" scheme without what is near the tasks' own colours; then again with other shapes, for methods of the user's own.
_COLOURS = ("#117733", "#CC6677", "#332288", "#AA4499", "#44AA99", "#999933", "#882255", "#333333")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    marker: str
    colour: str


def looks(methods: Sequence[Method]) -> dict[str, Look]:
    """By name, the same in every comparison: the baselines have the colours of their tasks, the others theirs by their place
    in the registry; the user's own follow in the plan's order."""
    colours = dict(zip(BASELINES.values(), (DETECTION, CLASSIFICATION), strict=True))
    others = [name for name in dict.fromkeys([*METHODS, *(method.name for method in methods)]) if name not in colours]
    found = {name: Look(_SHAPES[i % len(_SHAPES)], _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(others)}
    return {**{name: Look("d", colour) for name, colour in colours.items()}, **found}
