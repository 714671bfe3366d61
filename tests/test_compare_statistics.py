"""What seeds say together, against NumPy, SciPy and values by hand; the predictions' verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from comparison_folder import write_comparison_folder
from hypothesis import given
from hypothesis import strategies as st
from run_folder import metrics
from scipy import stats

from gradnorm_plugin.compare.results import read_outcome
from gradnorm_plugin.compare.spread import Difference, Ratio, Spread, paired_difference, paired_ratio, spread_of
from gradnorm_plugin.compare.verdicts import PREDICTIONS, judge

FIGURES = st.floats(0, 1, allow_nan=False)
BY_SEED = st.dictionaries(st.integers(0, 6), FIGURES, max_size=6)


def test_spread_by_hand():
    assert spread_of([1.0, 2.0, 4.0, math.nan]) == Spread(7 / 3, pytest.approx(1.5275252316519468), 1.0, 4.0, 3)
    assert spread_of([0.5]) == Spread(0.5, None, 0.5, 0.5, 1)
    assert spread_of([math.nan]) is None and spread_of([]) is None


def test_difference_by_hand():
    found = paired_difference({0: 0.5, 1: 0.6, 2: 0.9, 7: 0.1}, {2: 0.6, 1: 0.4, 0: 0.4, 8: 0.0})
    # differences 0.1, 0.2, 0.3: sd 0.1, t(0.975, 2) = 4.302653, half width 4.302653 * 0.1 / sqrt(3)
    assert found == Difference(pytest.approx(0.2), (pytest.approx(-0.048414, abs=1e-6), pytest.approx(0.448414, abs=1e-6)), 3)
    assert found.side == "includes"


@pytest.mark.parametrize(
    ("differences", "side"),
    [((0.2, 0.21, 0.22), "above"), ((-0.2, -0.21, -0.22), "below"), ((-0.1, 0.1), "includes"), ((0.3,), None)],
)
def test_side_of_an_interval(differences, side):
    found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(3), 0.0))
    assert found.side == side and (found.interval is None) == (side is None)


def test_nothing_in_common_is_no_difference():
    assert paired_difference({0: 0.5}, {1: 0.5}) is None and paired_difference({}, {0: 0.5}) is None


@given(BY_SEED, BY_SEED)
def test_difference_agrees_with_scipy(values, baseline):
    common = sorted(values.keys() & baseline.keys())
    found = paired_difference(values, baseline)
    if not common:
        assert found is None
        return
    differences = np.array([values[seed] - baseline[seed] for seed in common])
    assert found.count == len(common) and found.mean == pytest.approx(differences.mean(), abs=1e-12)
    if len(common) == 1:
        assert found.interval is None
    elif differences.std(ddof=1) > 1e-9:
        expected = stats.ttest_rel([values[s] for s in common], [baseline[s] for s in common]).confidence_interval(0.95)
        assert found.interval == pytest.approx(tuple(expected), rel=1e-6, abs=1e-9)
    else:  # SciPy gives NaN for differences that are all the same
        assert found.interval == pytest.approx((found.mean, found.mean), abs=1e-7)


@given(BY_SEED, BY_SEED)
def test_difference_turns_round_and_shrinks_with_its_scale(values, baseline):
    one, other = paired_difference(values, baseline), paired_difference(baseline, values)
    assert (one is None) == (other is None)
    if one is not None:
        assert one.mean == pytest.approx(-other.mean, abs=1e-12)
        if one.interval is not None:
            assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]), abs=1e-9)
            assert one.interval[0] <= one.mean <= one.interval[1]


def test_ratio_is_that_of_the_means_over_common_seeds():
    # (0.2 + 0.6) / (0.1 + 0.2), of the seeds 2 and 3
    assert paired_ratio({0: 0.2, 1: 0.6, 2: 0.9}, {0: 0.1, 1: 0.2, 5: 0.3}) == Ratio(
        pytest.approx(0.8 / 0.3), 2.0, pytest.approx(3), 2
    )
    assert paired_ratio({0: 0.2}, {1: 0.1}) is None and paired_ratio({0: 0.2}, {0: 0.0}) is None
    assert paired_ratio({0: 0.2, 1: 0.4}, {0: 0.0, 1: 0.2}) == Ratio(pytest.approx(3.0), pytest.approx(2), pytest.approx(2), 2)


@given(
    st.dictionaries(st.integers(0, 6), st.floats(0.01, 1), min_size=1),
    st.dictionaries(st.integers(0, 6), st.floats(0.01, 1), min_size=1),
)
def test_ratio_of_means_is_between_those_of_the_seeds(values, baseline):
    found = paired_ratio(values, baseline)
    if found is not None:
        assert found.low * (1 - 1e-12) <= found.value <= found.high * (1 + 1e-12)


def figures(**values: float) -> dict:
    """`joint_metrics.json` with these figures."""
    found = metrics()
    for name, value in values.items():
        found["classification" if name == "accuracy" else "detection"][name] = value
    return {"joint_metrics": found}


@pytest.mark.parametrize(
    ("figure", "base", "reached", "word"),
    [
        ("recall", 0.2, 0.5, "holds"), ("recall", 0.25, 0.5, "holds"), ("recall", 0.5, 0.5, "below"),
        ("recall", 0.1, 0.5, "above"), ("precision", 0.1, 0.5, "holds"), ("precision", 0.1, 0.39, "below"),
        ("F1", 0.1, 0.35, "holds"), ("mAP50", 0.1, 0.4, "holds"),
        ("accuracy", 0.1, 0.87, "holds"), ("accuracy", 0.1, 0.849, "below"), ("accuracy", 0.1, 0.91, "above"),
    ],
)  # fmt: skip
def test_verdict_is_read_from_the_figures(tmp_path, figure, base, reached, word):
    changes = {("gradnorm", 0): figures(**{figure: reached}), ("fixed-1-0.01", 0): figures(**{figure: base})}
    outcome = read_outcome(write_comparison_folder(tmp_path, ["fixed-1-0.01", "gradnorm"], [0], count=1, changes=changes))
    verdicts = {verdict.prediction.figure: verdict for verdict in judge(outcome)}
    assert verdicts[figure].word == word and len(verdicts) == len(PREDICTIONS)
    assert verdicts[figure].found.value == pytest.approx(reached if figure == "accuracy" else reached / base)


def test_predictions_without_their_runs_are_not_measured(tmp_path):
    outcome = read_outcome(write_comparison_folder(tmp_path, ["fixed-1-0.01", "gradnorm"], [0], finished=[], count=1))
    assert {verdict.word for verdict in judge(outcome)} == {"unmeasured"}
    only = read_outcome(write_comparison_folder(tmp_path / "only", ["gradnorm"], [0], count=1))
    assert [v.prediction.figure for v in judge(only) if v.word != "unmeasured"] == ["accuracy"]  # needs no other method
