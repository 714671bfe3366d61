"""What ends a prediction with one line."""

from __future__ import annotations


class PredictError(ValueError):
    """Weights, a source or a setting cannot be used; the message says which, and what to do."""


class ImageError(PredictError):
    """One picture cannot be read; the rest can go on without it."""
