"""Classification metrics against values worked out by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from gradnorm_plugin.evaluation.metrics import classification_metrics

# Predicted: 0 0 1 1 2 0; true: 0 0 0 1 1 2.
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.25, 0.75], [0.9, 0.0, 0.1]]
)
CLASSES = np.array([0, 0, 0, 1, 1, 2])


def test_by_hand():
    found = classification_metrics(PROBABILITIES, CLASSES)
    assert found.images == 6
    assert found.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [1, 0, 0]]  # row true, column predicted
    assert found.accuracy == pytest.approx(3 / 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # F1 is 2 TP / (2 TP + FP + FN): 4 / (4 + 1 + 1), 2 / (2 + 1 + 1), 0.
    assert found.macro_f1 == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)
    assert found.loss == pytest.approx(-sum(math.log(p) for p in (0.8, 0.5, 0.2, 0.6, 0.25, 0.1)) / 6)


def test_images_without_class_are_left_out():
    rng = np.random.default_rng(0)
    noise = rng.random((4, 3))
    mixed = np.insert(PROBABILITIES, [0, 2, 2, 6], noise / noise.sum(1, keepdims=True), axis=0)
    classes = np.insert(CLASSES, [0, 2, 2, 6], -1)
    found, expected = classification_metrics(mixed, classes), classification_metrics(PROBABILITIES, CLASSES)
    assert found.images == 6 and found.confusion.tolist() == expected.confusion.tolist()
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("images", [0, 5])
def test_without_any_class_there_is_no_figure(images):
    found = classification_metrics(np.full((images, 3), 1 / 3), np.full(images, -1))
    assert all(math.isnan(getattr(found, name)) for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss"))
    assert found.images == 0 and found.confusion.tolist() == [[0] * 3] * 3


def test_a_single_class():
    found = classification_metrics(np.ones((3, 1)), np.array([0, -1, 0]))
    assert (found.accuracy, found.balanced_accuracy, found.macro_f1, found.loss) == (1, 1, 1, 0)
    assert found.images == 2 and found.confusion.tolist() == [[2]]


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_one_class_always_named_has_a_balanced_accuracy_of_chance(num_classes):
    classes = np.repeat(np.arange(num_classes), np.arange(1, num_classes + 1) ** 2)  # far from equally frequent
    always = np.zeros((len(classes), num_classes))
    always[:, -1] = 1
    found = classification_metrics(always, classes)
    assert found.balanced_accuracy == pytest.approx(1 / num_classes)
    assert found.accuracy == pytest.approx(num_classes**2 / len(classes)) and found.accuracy > found.balanced_accuracy
    assert 0 < found.macro_f1 < found.balanced_accuracy


def test_classes_that_do_not_occur_are_no_miss_and_no_warning():
    """All images are of class 1 of 3; one is told wrong, for a class that has no images."""
    probabilities = np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(probabilities, np.array([1, 1, 1, 1]))
    assert found.accuracy == found.balanced_accuracy == pytest.approx(3 / 4)
    assert found.macro_f1 == pytest.approx(6 / 7)
    assert found.confusion.tolist() == [[0, 0, 0], [1, 3, 0], [0, 0, 0]]


def test_probabilities_in_single_precision_need_not_sum_to_one_exactly():
    logits = np.random.default_rng(1).normal(size=(200, 7)).astype(np.float32)
    exponent = np.exp(logits)
    probabilities = exponent / exponent.sum(1, keepdims=True)
    classes = np.random.default_rng(2).integers(0, 7, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(probabilities, classes)
    assert found.loss == pytest.approx(-np.log(probabilities[np.arange(200), classes]).mean(), rel=1e-5)
