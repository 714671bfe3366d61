"""Upstream's validation, with the classification measured in the same pass."""
