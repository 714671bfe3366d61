"""What is known of a run's folder wherever it is written or read."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_epoch(fitness: Sequence[float]) -> int | None:
    """The index of the epoch that `best.pt` holds, by the epochs' fitness, NaN where there is none; None if no epoch has one.

    YOLOv5 saves it whenever no epoch before was better: of several that are equally good it is the last.
    """
    known = [index for index, value in enumerate(fitness) if math.isfinite(value)]
    return max(known, key=lambda index: (fitness[index], index), default=None)
