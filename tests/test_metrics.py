"""Classification metrics against values worked out by hand and scikit-learn's."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradnorm_plugin.outputs.classes import calibrate, class_scores, classification_metrics, count_pairs

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


def random_pass(seed: int, images: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (images, C), right more often than not, and classes (images,), some of them -1."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(-1, num_classes, images)
    logits = rng.normal(size=(images, num_classes)) + 1.5 * (classes[:, None] == np.arange(num_classes))
    exponent = np.exp(logits)
    return exponent / exponent.sum(1, keepdims=True), classes


@pytest.mark.parametrize(("images", "num_classes"), [(1, 2), (7, 3), (40, 12), (300, 4)])
def test_as_scikit_learn(images, num_classes):
    for seed in range(5):
        probabilities, classes = random_pass(seed, images, num_classes)
        found = classification_metrics(probabilities, classes)
        labelled = classes >= 0
        if not labelled.any():
            continue
        true, predicted = classes[labelled], probabilities[labelled].argmax(1)
        names = np.arange(num_classes)
        occurring = np.unique(true)
        assert found.confusion.tolist() == sklearn.metrics.confusion_matrix(true, predicted, labels=names).tolist()
        assert found.accuracy == pytest.approx(sklearn.metrics.accuracy_score(true, predicted), abs=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of predicted classes that no image has, and of a single class
            balanced = sklearn.metrics.balanced_accuracy_score(true, predicted)
        assert found.balanced_accuracy == pytest.approx(balanced, abs=1e-12)
        by_class = sklearn.metrics.precision_recall_fscore_support(true, predicted, labels=occurring, zero_division=0)
        for ours, theirs in zip((found.scores.precision, found.scores.recall, found.scores.f1), by_class, strict=False):
            assert ours[occurring] == pytest.approx(theirs, abs=1e-12)
            assert np.isnan(np.delete(ours, occurring)).all()
        assert found.scores.macro_precision == pytest.approx(by_class[0].mean(), abs=1e-12)
        assert found.macro_f1 == pytest.approx(by_class[2].mean(), abs=1e-12)
        loss = sklearn.metrics.log_loss(true, probabilities[labelled], labels=names)
        assert found.loss == pytest.approx(loss, abs=1e-12)


def test_calibration_by_hand():
    """Bins (0.6, 0.667], (0.8, 0.867] and (0.933, 1] hold 2, 3 and 1 of 6 images; 0.8 itself ends the bin below."""
    confidence = np.array([0.62, 0.66, 0.81, 0.82, 0.86, 0.97])
    right = np.array([True, False, True, True, False, True])
    found = calibrate(confidence, right)
    assert found.counts.tolist() == [0] * 9 + [2, 0, 0, 3, 0, 1]
    assert found.accuracy[[9, 12, 14]] == pytest.approx([1 / 2, 2 / 3, 1])
    assert found.confidence[[9, 12, 14]] == pytest.approx([0.64, 0.83, 0.97])
    expected = (2 * (0.64 - 1 / 2) + 3 * (0.83 - 2 / 3) + 1 * (1 - 0.97)) / 6
    assert found.error == pytest.approx(expected)
    assert np.flatnonzero(calibrate(np.array([0.8, 1.0]), np.array([True, True])).counts).tolist() == [11, 14]
    assert calibrate(np.array([0.25, 0.9]), np.array([True, False]), bins=2).error == pytest.approx((0.75 + 0.9) / 2)


def test_calibration_ends():
    always_right = calibrate(np.full(4, 1.0), np.ones(4, dtype=bool))
    assert always_right.error == 0 and always_right.counts[-1] == 4
    assert calibrate(np.full(4, 1.0), np.zeros(4, dtype=bool)).error == 1
    just_above_one = np.nextafter(np.float32(1), np.float32(2))  # a softmax in single precision
    assert calibrate(np.full(2, just_above_one), np.ones(2, dtype=bool)).error == pytest.approx(0, abs=1e-6)
    assert math.isnan(calibrate(np.zeros(0), np.zeros(0, dtype=bool)).error)


@st.composite
def passes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) probabilities, ties and zeros among them, and (N,) classes from -1."""
    images, num_classes = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    shares = draw(arrays(np.float64, (images, num_classes), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 7.5])))
    shares[shares.sum(1) == 0] = 1
    return shares / shares.sum(1, keepdims=True), draw(arrays(np.int64, images, elements=st.integers(-1, num_classes - 1)))


NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "loss")


@settings(deadline=None, max_examples=60)
@given(passes(), st.randoms(use_true_random=False))
def test_bounds_and_order(found, random):
    """Every figure is in its bounds, and neither the order of the images nor the numbering of the classes moves it."""
    probabilities, classes = found
    metrics = classification_metrics(probabilities, classes)
    assert metrics.images == (classes >= 0).sum() == metrics.confusion.sum() == metrics.calibration.counts.sum()
    figures = {name: getattr(metrics, name) for name in NAMES} | {"calibration": metrics.calibration.error}
    if not metrics.images:
        assert all(math.isnan(value) for value in figures.values())
        return
    assert all(0 <= figures[name] <= 1 for name in figures if name != "loss") and figures["loss"] >= 0
    order = list(range(len(classes)))
    random.shuffle(order)
    shuffled = classification_metrics(probabilities[order], classes[order])
    assert shuffled.confusion.tolist() == metrics.confusion.tolist()
    assert shuffled.calibration.error == pytest.approx(figures["calibration"], abs=1e-12)
    assert shuffled.loss == pytest.approx(figures["loss"], abs=1e-12)
    numbering = list(range(probabilities.shape[1]))
    random.shuffle(numbering)
    renumbered = class_scores(metrics.confusion[np.ix_(numbering, numbering)])
    assert renumbered.balanced_accuracy == pytest.approx(metrics.balanced_accuracy, abs=1e-12)
    assert renumbered.macro_f1 == pytest.approx(metrics.macro_f1, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(passes(), st.integers(0, 10**6))
def test_counting_an_image_twice_is_having_it_twice(found, seed):
    probabilities, classes = found
    labelled = classes >= 0
    predicted, classes = probabilities.argmax(1)[labelled], classes[labelled]
    times = np.random.default_rng(seed).integers(0, 4, len(classes))
    num_classes = probabilities.shape[1]
    weighted = count_pairs(classes, predicted, num_classes, times)
    repeated = count_pairs(np.repeat(classes, times), np.repeat(predicted, times), num_classes)
    assert weighted.tolist() == repeated.tolist() and weighted.sum() == times.sum()
