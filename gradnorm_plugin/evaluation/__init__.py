"""Measuring a joint model: upstream's detection figures to the last digit, the classification's beside them, and intervals."""

SPLITS = ("train", "val", "test")


class EvaluationError(ValueError):
    """The model and the data cannot be measured together; the message says why and what to do."""
