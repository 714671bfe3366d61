"""The look of a run's figures, and how they are written: as PNG to look at, as PDF to print.

Figures are made without pyplot: nothing is registered anywhere, and what upstream has drawn before leaves no trace in them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.run_folder import ImageTasks, task_names
from gradnorm_plugin.upstream.gateway import upstream

DETECTION, CLASSIFICATION, OTHER = "#004488", "#D55E00", "#333333"
"""Colours of the tasks, distinct for the colour-blind and in grey."""
_FURTHER = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31")

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#666666",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.2,
    "pdf.fonttype": 42,  # journals refuse Type 3 fonts
    "savefig.dpi": 300,
}


def draw(make: Callable[[], Figure], picture: Path) -> list[Path]:
    """Write the figure that `make` builds as `picture`, a .png, and beside it as .pdf; returns both paths."""
    written = []
    with style.context(_STYLE, after_reset=True):
        figure = make()
        upstream("utils.fonts").give_letters(figure)
        for path in (picture, picture.with_suffix(".pdf")):
            with whole_file(path) as partial:
                figure.savefig(partial, format=path.suffix[1:])
            written.append(path)
    return written


def task_colours(tasks: ImageTasks) -> dict[str, str]:
    """A colour for detection and each image output, by the task's name."""
    return dict(zip(task_names(tasks), (DETECTION, *islice(cycle((CLASSIFICATION, *_FURTHER)), len(tasks))), strict=True))


def head(axis: Axes, letter: str, title: str, pad: float = 6) -> None:
    """The panel's letter, bold, and its title, `pad` points above it."""
    axis.set_title(
        rf"$\mathbf{{{letter}}}$  {title}", loc="left", pad=pad, parse_math=True
    )  # YOLOv5 turns it off because of names


def log_scale(axis: Axes) -> None:
    """A logarithmic y axis with plain numbers, at least a factor of 4 high; a panel without positive values stays linear."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    if not (values > 0).any():
        return
    axis.set_yscale("log", nonpositive="mask")
    low, high = axis.get_ylim()
    if high / low < 4:  # noise would fill the panel
        middle = (low * high) ** 0.5
        low, high = middle / 2, middle * 2
        axis.set_ylim(low, high)
    axis.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5), numticks=8))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
