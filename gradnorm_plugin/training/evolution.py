"""`--evolve` by the joint fitness: what upstream's loop takes for the results of a generation, and how it ranks them.

A row of `evolve.csv` begins with as many figures as upstream's. YOLOv5 of 2026 takes the third for the fitness, older versions
call `fitness` on the first four or on whole rows, so the joint one stands third.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gradnorm_plugin.training.option_files import OptionError
from gradnorm_plugin.upstream.gateway import swapped, upstream

TABLE = "evolve.csv"
COLUMNS = (
    *("metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "metrics/joint_fitness", "metrics/image_outputs"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss"),
)
"""`image_outputs` is the mean of the headline figures of the image outputs that are trained, 0 without one."""
_FITNESS = COLUMNS.index("metrics/joint_fitness")


@contextmanager
def evolving(fitness: Callable[[np.ndarray], np.ndarray], outputs: Callable[[], list[float]]) -> Iterator[None]:
    """Let upstream's generations be told and ranked jointly, for the length of the block.

    Args:
        fitness: of upstream's seven results of the generation just trained.
        outputs: the headline figures of its image outputs.
    """
    train = upstream("train")
    general = upstream("utils.general")
    trained = train.train

    def train_generation(*args: Any, **kwargs: Any) -> tuple[float, ...]:
        results = trained(*args, **kwargs)
        _, _, *boxes = results
        found = outputs()
        joint = float(fitness(np.array(results).reshape(1, -1)).item())
        return (*boxes[:2], joint, float(np.mean(found)) if found else 0.0, *boxes[2:])

    def print_mutation(keys: object, *args: Any, **kwargs: Any) -> None:
        general.print_mutation(COLUMNS, *args, **kwargs)

    ours = swapped(train, train=train_generation, print_mutation=print_mutation)
    with ours, swapped(general, fitness=ranked), swapped(upstream("utils.plots"), fitness=ranked):
        yield


def ranked(rows: np.ndarray) -> np.ndarray:
    """The fitness in rows of the table."""
    return rows[:, _FITNESS]


def check_table(options: argparse.Namespace) -> None:
    """See that generations are not added to a table of other figures.

    Raises:
        OptionError: naming it.
    """
    file = Path(options.project) / options.name / TABLE
    if options.exist_ok and file.is_file():
        with file.open(errors="replace") as lines:
            head = [column.strip() for column in lines.readline().split(",")]
        if tuple(head[: len(COLUMNS)]) != COLUMNS:
            raise OptionError(f"{file} is not ranked by the joint fitness: take another --name, or move it away")
