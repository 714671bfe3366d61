"""The two kinds of thing that are found in an image."""

from __future__ import annotations

from typing import NamedTuple


class DetectedBox(NamedTuple):
    """An object: its class, how sure the detector is (0..1), and its corners in pixels of the image."""

    class_index: int
    name: str
    confidence: float
    x1: float
    y1: float
    x2: float
    y2: float


class ImageClass(NamedTuple):
    """The class of the whole image: the most probable one, and the probability of each class by name, in their order (sum 1)."""

    index: int
    name: str
    probability: float
    probabilities: dict[str, float]
