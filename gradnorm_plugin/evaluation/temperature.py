"""Temperature scaling: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599).

Probabilities that are too sure, or not sure enough, become softmax(logits / T) with one number T > 0 for all classes. The order
of the classes stays, and with it every figure but the log loss and the calibration error. T is the one with the smallest log
loss on images that were not trained on.

N images, C classes. Since a softmax does not see what is added to all logits alike, log(probabilities) are logits as well.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

RANGE = (0.05, 20.0)
"""The range searched for T: without any error the smallest T, without any relation to the classes the largest, would be best."""
_SMALLEST = np.finfo(np.float32).tiny


def fit_temperature(probabilities: np.ndarray, classes: np.ndarray, smoothing: float = 0.0) -> float:
    """The T in `RANGE` with the smallest log loss of (N, C) probabilities against (N,) classes, -1 for an image without one.

    `smoothing` is the share of each label that the other classes have, in equal parts.

    1 where there is nothing to fit to: no image with a class, or a single class. The loss is convex in 1 / T, so that the one
    minimum on log(T) is the global one.
    """
    labelled = classes >= 0
    if not labelled.any() or probabilities.shape[1] < 2:
        return 1.0
    logits, rows = _logits(probabilities[labelled]), np.arange(int(labelled.sum()))

    def loss(log_temperature: float) -> float:
        answers = log_softmax(logits / math.exp(log_temperature), axis=1)
        of_class = answers[rows, classes[labelled]]
        of_others = (answers.sum(1) - of_class) / (answers.shape[1] - 1)
        return -float(((1 - smoothing) * of_class + smoothing * of_others).mean())

    low, high = map(math.log, RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(min((low, found.x, 0.0, high), key=loss))  # the search never tries the ends themselves


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) float64 probabilities of softmax(logits / T); for T = 1 those that are given.

    Raises:
        ValueError: if T is not finite and positive.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and positive, found {temperature}")
    if temperature == 1:
        return probabilities.astype(np.float64)
    return softmax(_logits(probabilities) / temperature, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
