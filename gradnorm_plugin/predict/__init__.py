"""From weights and pictures to boxes and what is said of the image: in Python (`Predictor`), and as the command `predict`."""


class PredictError(ValueError):
    """Weights, a source or a setting cannot be used; the message says which, and what to do."""


class ImageError(PredictError):
    """One picture cannot be read; the rest can go on without it."""
