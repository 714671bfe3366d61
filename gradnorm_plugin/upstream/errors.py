"""What goes wrong with the checkout of YOLOv5, in one line that says what to do."""

from __future__ import annotations


class CheckoutError(RuntimeError):
    """YOLOv5 is missing, not patched, or could not be set up; the message names the command or the remedy."""
