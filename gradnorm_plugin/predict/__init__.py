"""From weights and pictures to boxes and what is said of the image: in Python (`Predictor`), and as the command `predict`."""

DEFAULT_SIZE = 320
"""Pixels of the longer side that images are scaled to where the weights do not say: the launcher's default."""


class PredictError(ValueError):
    """Weights, a source or a setting cannot be used; the message says which, and what to do."""


class ImageError(PredictError):
    """One picture cannot be read; the rest can go on without it."""
