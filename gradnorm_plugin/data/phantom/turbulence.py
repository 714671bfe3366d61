"""Noise with the grain of colour Doppler: cells of the same size along the beam, wider across it with depth."""

from __future__ import annotations

import cv2
import numpy as np

from gradnorm_plugin.data.phantom.sector import Fan, Image, Window


class Turbulence:
    """Endless supply of Doppler noise for one image: one field for each grain, shifted anew at each use."""

    def __init__(self, fan: Fan, rng: np.random.Generator) -> None:
        """`rng` gives the field now and the shifts later."""
        self.fan, self._rng = fan, rng
        self._white = rng.standard_normal(fan.shape, dtype=np.float32)
        self._fields: dict[float, Image] = {}

    def cells(self, grain: float, window: Window) -> Image:
        """Noise of about unit variance on a window of the image; `grain` is the cell's depth, in 1/320 of the image."""
        if grain not in self._fields:
            sigma = grain * self.fan.size / 320
            field = cv2.GaussianBlur(self._white, (0, 0), sigma)
            self._fields[grain] = field * np.float32(2 * np.sqrt(np.pi) * sigma)
        shift = tuple(self._rng.integers(0, self.fan.shape))
        return self.fan.to_image(np.roll(self._fields[grain], shift, (0, 1)), window)
