"""Measuring a joint model: upstream's detection figures to the last digit, the classification's beside them, and intervals."""

SPLITS = ("train", "val", "test")
DEFAULT_SIZE = 320
"""Pixels where neither the weights nor the user say: the launcher's default."""


class EvaluationError(ValueError):
    """The model and the data cannot be measured together; the message says why and what to do."""
