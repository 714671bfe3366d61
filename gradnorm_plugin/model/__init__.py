"""Upstream's detector with a classification head on the last layer that both tasks share."""
