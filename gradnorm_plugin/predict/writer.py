"""What every kind of output has in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradnorm_plugin.predict.drawing import Style
from gradnorm_plugin.predict.prediction import Prediction
from gradnorm_plugin.predict.sources import Frame


@dataclass(frozen=True)
class Result:
    """A prediction on its way to the writers."""

    frame: Frame
    prediction: Prediction
    stem: str
    """Name, without suffix, of the output for the picture or the whole video."""
    name: str
    """Name, without suffix, for this very image: of a video, with the frame's number."""
    style: Style

    @cached_property
    def drawn(self) -> np.ndarray:
        """The image with boxes and class on it, (H, W, 3) uint8, BGR; drawn once for all writers."""
        return self.prediction.draw(self.style)


class Stopped(Exception):
    """The user has seen enough: what there is so far is kept."""


class Writer:
    """One kind of output. `finish` makes its files appear under their names, `discard` removes what is not whole.

    Each may be called without any `write` before it. Errors are `PredictError` and `OSError`.
    """

    def write(self, result: Result) -> None:
        """Take the next prediction."""

    def finish(self) -> None:
        """All predictions have been taken."""

    def discard(self) -> None:
        """Something went wrong: leave nothing half-written."""
