"""The names of the methods beside their markers in `comparison.png`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from gradnorm_plugin.compare.placing import Box, nearest, place

WORDS, LABEL = "words", "label"
"""Group ids of what a panel says besides, and of the labels."""
_HALO = [withStroke(linewidth=2, foreground="white", alpha=0.8)]  # legible on the bars of other methods
_RADIUS, _FAR = 4.5, 10.0
"""Of a marker, and how far from its centre a label needs a line to it, in points."""


@dataclass(frozen=True)
class Labelled:
    """A marker that is to have a label."""

    label: str
    colour: str
    place: tuple[float, float]
    """In data units, as are the half lengths of its bars."""
    bars: tuple[float, float]


def draw_labels(axis: Axes, shown: Sequence[Labelled]) -> None:
    """Write each label near its marker, clear of the others, with a line to it where it had to move away.

    The layout must have settled: places are found in pixels.
    """
    figure = axis.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    point = figure.dpi / 72
    to_pixels, to_data = axis.transData.transform, axis.transData.inverted().transform
    said = [tuple(text.get_window_extent(renderer).extents) for text in axis.texts if text.get_gid() == WORDS]
    dashed = [tuple(line.get_window_extent(renderer).padded(1).extents) for line in axis.lines if line.is_dashed()]
    anchors = [tuple(to_pixels(of.place)) for of in shown]
    looks = {"fontsize": 8, "zorder": 4, "gid": LABEL, "path_effects": _HALO}
    texts = [axis.text(*of.place, of.label, color=of.colour, **looks) for of in shown]
    sizes = [(box.width + 2, box.height + 1) for box in (text.get_window_extent(renderer) for text in texts)]
    obstacles = [*(bar for of in shown for bar in _bars(axis, of)), *dashed, *3 * said]
    boxes = place(anchors, sizes, _RADIUS * point, obstacles, tuple(axis.get_window_extent(renderer).extents))
    for text, box, anchor in zip(texts, boxes, anchors, strict=True):
        text.set(position=to_data(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)), ha="center", va="center")
        end = nearest(box, anchor)
        if math.dist(end, anchor) > _FAR * point:
            ends = zip(to_data(anchor), to_data(end), strict=True)
            axis.plot(*ends, color=text.get_color(), linewidth=0.6, alpha=0.6, zorder=1.5, clip_on=False)


def _bars(axis: Axes, of: Labelled) -> list[Box]:
    """Where a marker's error bars are, in pixels."""
    (x, y), (half_x, half_y) = of.place, of.bars
    boxes = []
    for ends in (((x - half_x, y), (x + half_x, y)), ((x, y - half_y), (x, y + half_y))):
        (x0, y0), (x1, y1) = axis.transData.transform(ends)
        boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    return boxes
