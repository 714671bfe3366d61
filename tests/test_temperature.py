"""Temperature scaling: a temperature that is known is found again, and nothing but the sureness changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnorm_plugin.evaluation.temperature import RANGE, apply_temperature, fit_temperature
from gradnorm_plugin.outputs.classes import classification_metrics


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def drawn(seed: int, images: int, sureness: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits are `sureness` times those that the (N,) classes were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(images, 4))
    classes = (softmax(logits).cumsum(1) < rng.random((images, 1))).sum(1).clip(max=3)
    return softmax(sureness * logits), classes


@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_probabilities_too_sure_is_found(sureness):
    probabilities, classes = drawn(0, 20_000, sureness)
    temperature = fit_temperature(probabilities, classes)
    assert temperature == pytest.approx(sureness, rel=0.05)
    before = classification_metrics(probabilities, classes)
    after = classification_metrics(apply_temperature(probabilities, temperature), classes)
    assert after.loss <= before.loss and after.calibration.error < 0.02
    assert np.array_equal(after.confusion, before.confusion)
    if sureness != 1:
        assert after.calibration.error < before.calibration.error / 3


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 40), sureness=st.floats(0.1, 10))
def test_no_temperature_of_a_fine_grid_has_a_smaller_loss(seed, images, sureness):
    probabilities, classes = drawn(seed, images, sureness)
    classes[::5] = -1
    temperature = fit_temperature(probabilities, classes)
    assert RANGE[0] <= temperature <= RANGE[1] + 1e-9

    def loss(t: float) -> float:
        return classification_metrics(apply_temperature(probabilities, t), classes).loss

    if (classes >= 0).any():
        assert loss(temperature) <= min(map(loss, np.geomspace(*RANGE, 60))) + 1e-6
    else:
        assert temperature == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.floats(*RANGE))
def test_order_and_sum_stay(seed, temperature):
    probabilities, _ = drawn(seed, 20, 1.0)
    found = apply_temperature(probabilities, temperature)
    assert found.sum(1) == pytest.approx(np.ones(20)) and np.array_equal(found.argmax(1), probabilities.argmax(1))
    assert found == pytest.approx(softmax(np.log(probabilities) / temperature), abs=1e-12)


def test_ends():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 1])) == pytest.approx(RANGE[0])  # never wrong
    assert fit_temperature(sure, np.array([1, 0])) == pytest.approx(RANGE[1])  # always wrong
    few = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 1])
    assert fit_temperature(*few, smoothing=1 / 4) == pytest.approx(1.0, abs=0.1)  # 2 of 2 are worth 3 of 4
    assert np.isfinite(apply_temperature(sure, 3.0)).all()
    assert fit_temperature(sure, np.array([-1, -1])) == fit_temperature(np.ones((3, 1)), np.zeros(3, dtype=int)) == 1
    assert apply_temperature(sure, 1.0).tolist() == sure.tolist()
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be finite and positive"):
            apply_temperature(sure, bad)
