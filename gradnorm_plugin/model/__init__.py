"""Upstream's detector with a classification head on the last layer that both tasks share."""

DEFAULT_SIZE = 320
"""Pixels of the longer side that images are scaled to where neither the user nor the weights say."""
