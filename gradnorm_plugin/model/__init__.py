"""Upstream's detector with a classification head on the last layer that both tasks share."""

DEFAULT_SIZE = 320
"""Pixels of the longer side that images are scaled to where neither the user nor the weights say."""
BACKBONES = ("shared", "dual")
"""Whether both tasks have one backbone, or each its own."""
HEADS = ("pooled", "guided", "both")
"""Where a head looks: in the whole image, or also where the detector has found something."""
