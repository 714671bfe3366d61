"""GradNorm's mathematics against closed forms, a plain reference of the paper, and properties that must always hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnorm_plugin import FixedWeights, GradNorm
from gradnorm_plugin.balancing import PRESETS, project_weights

positive = st.floats(1e-4, 1e4)


def paper_reference(weights, losses, norms, first_losses, alpha, lr, total):
    """One step of GradNorm with two tasks in plain Python, on log(w) of L_grad / mean(G), renormalised to the sum."""
    g = [w * n for w, n in zip(weights, norms, strict=True)]
    mean_g = sum(g) / 2
    ratio = [loss / first for loss, first in zip(losses, first_losses, strict=True)]
    rate = [r / (sum(ratio) / 2) for r in ratio]
    target = [mean_g * r**alpha for r in rate]
    moved = []
    for w, gi, ti in zip(weights, g, target, strict=True):
        sign = (gi > ti) - (gi < ti)
        moved.append(w * math.exp(-lr * sign * gi / mean_g))
    return [w * total / sum(moved) for w in moved]


def test_trajectory_equals_the_plain_reference_step_by_step():
    generator = torch.Generator().manual_seed(0)
    balancer = GradNorm(alpha=1.5, lr=0.05)
    weights, first = [1.0, 1.0], None
    for _ in range(200):
        losses, norms = (torch.rand(2, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
        first = first or losses.tolist()
        weights = paper_reference(weights, losses.tolist(), norms.tolist(), first, 1.5, 0.05, 2.0)
        assert balancer.update(losses, norms).tolist() == pytest.approx(weights, rel=1e-12)


def test_reference_catches_a_flipped_sign_of_alpha():
    balancer, flipped = GradNorm(alpha=1.5, lr=0.05), [1.0, 1.0]
    balancer.update([1.0, 1.0], [1.0, 1.0])
    for _ in range(20):
        flipped = paper_reference(flipped, [1.0, 0.5], [1.0, 1.0], [1.0, 1.0], -1.5, 0.05, 2.0)
        balancer.update([1.0, 0.5], [1.0, 1.0])
    assert balancer.weights[0] > 1.2 and flipped[0] < 0.8


def test_gradient_of_the_weights_is_the_one_autograd_finds():
    weights = torch.tensor([0.7, 1.3], dtype=torch.float64, requires_grad=True)
    norms, losses, first = (torch.tensor(v, dtype=torch.float64) for v in ([2.0, 0.3], [0.8, 0.2], [1.0, 1.0]))
    balancer = GradNorm(initial_weights=weights.tolist(), lr=0.01)
    balancer.update(first, norms * 0)  # a task without gradient changes nothing, not even L(0)
    assert balancer.initial_losses is None
    balancer.initial_losses = first
    weighted = weights * norms
    target = (weighted.mean() * balancer.training_rates(losses) ** 1.5).detach()
    (weighted - target).abs().sum().backward()
    moved = balancer.update(losses, norms)
    step = weights.detach() * torch.exp(-0.01 * weights.grad * weights.detach() / weighted.mean().detach())
    assert moved.tolist() == pytest.approx((step * 2 / step.sum()).tolist(), rel=1e-12)


def test_the_task_that_is_behind_gains_weight():
    balancer = GradNorm()
    balancer.update([1.0, 1.0], [1.0, 1.0])
    behind = balancer.update([1.0, 0.2], [1.0, 1.0])
    assert behind[0] > 1 > behind[1]


def test_the_larger_gradient_loses_weight():
    larger = GradNorm().update([1.0, 1.0], [5.0, 1.0])
    assert larger[0] < 1 < larger[1]


@settings(max_examples=100, deadline=None)
@given(scale=positive, steps=st.lists(positive, min_size=1, max_size=8))
def test_equal_tasks_keep_equal_weights(scale, steps):
    balancer = GradNorm(num_tasks=3, weight_sum=6)
    for value in steps:
        weights = balancer.update([value] * 3, [scale * value] * 3)
        assert weights.tolist() == pytest.approx([2.0] * 3, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=30),
    alpha=st.floats(0, 3),
    lr=st.floats(0, 2),
    preset=st.sampled_from(sorted(PRESETS)),
)
def test_weights_sum_to_s_and_stay_in_their_ranges(steps, alpha, lr, preset):
    balancer = GradNorm(**{**PRESETS[preset], "alpha": alpha, "lr": lr})
    for first, second, first_norm, second_norm in steps:
        weights = balancer.update([first, second], [first_norm, second_norm])
        assert weights.sum().item() == pytest.approx(balancer.weight_sum, rel=1e-12)
        assert (weights >= 0).all()
        for weight, (low, high) in zip(weights.tolist(), balancer.weight_ranges, strict=True):
            assert low <= weight <= high


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_projection_is_one_factor_within_the_ranges(data):
    count = data.draw(st.integers(2, 5))
    weights = torch.tensor(data.draw(st.lists(positive, min_size=count, max_size=count)), dtype=torch.float64)
    lows = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    ranges = [(low, low + data.draw(st.floats(0.01, 3))) for low in lows]
    lowest, highest = sum(low for low, _ in ranges), sum(high for _, high in ranges)
    total = lowest + data.draw(st.floats(0.001, 0.999)) * (highest - lowest)
    projected = project_weights(weights, total, ranges)
    assert projected.sum().item() == pytest.approx(total, rel=1e-9)
    factors = []
    for weight, original, (low, high) in zip(projected.tolist(), weights.tolist(), ranges, strict=True):
        assert low <= weight <= high
        if low + 1e-9 < weight < high - 1e-9:
            factors.append(weight / original)
    if factors:
        assert max(factors) == pytest.approx(min(factors), rel=1e-6)


def test_warmup_runs_at_the_initial_weights_and_its_mean_losses_are_the_first():
    balancer = GradNorm(**PRESETS["report"])
    asked = [balancer.begin_step([torch.tensor(2.0 + i), torch.tensor(1.0)]) for i in range(31)]
    assert [i for i, due in enumerate(asked) if due] == [10, 20, 30]
    assert balancer.weights.tolist() == [1.0, 0.01]
    balancer.update([3.0, 1.0], [1.0, 100.0])
    assert balancer.initial_losses.tolist() == [6.5, 1.0]
    assert balancer.weights.sum().item() == pytest.approx(4.0, rel=1e-15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_a_measurement_that_went_wrong_changes_nothing(bad):
    balancer = GradNorm(**PRESETS["report"])
    balancer.update([1.0, 1.0], [1.0, 100.0])
    before = balancer.state_dict()
    balancer.update([1.0, 1.0], [bad, 1.0])
    if bad:
        balancer.update([1.0, bad], [1.0, 1.0])
    after = balancer.state_dict()
    assert all(torch.equal(torch.as_tensor(before[k]), torch.as_tensor(after[k])) for k in ("weights", "updates"))


def test_state_goes_on_exactly():
    def run(balancer, steps):
        for step in steps:
            losses = [torch.tensor(1.0 / (1 + step)), torch.tensor(2.0 / (1 + step**0.5))]
            if balancer.begin_step(losses):
                balancer.update([float(x) for x in losses], [0.05, 3.0 + step % 3])
        return balancer

    whole = run(GradNorm(**PRESETS["report"]), range(60))
    for cut in (4, 10, 37):
        resumed = GradNorm(**PRESETS["report"])
        resumed.load_state_dict(run(GradNorm(**PRESETS["report"]), range(cut)).state_dict())
        assert torch.equal(run(resumed, range(cut, 60)).weights, whole.weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_sum": 9.0, "weight_ranges": [(1, 4), (0.01, 0.4)]}, "weight_sum is 9.0.*sum to 1.01..4.4"),
        ({"weight_ranges": [(1, 4)]}, "1 pairs, expected 2"),
        ({"weight_ranges": [(1, 0.5), (0, 1)]}, r"weight_ranges\[0\]"),
        ({"interval": 0}, "interval.*at least 1, found 0"),
        ({"alpha": float("nan")}, "alpha must be finite"),
        ({"initial_weights": [1.0, 0.0]}, "initial_weights must be positive"),
        ({"initial_weights": [1.0]}, "1 values, expected one for each of 2 tasks"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GradNorm(**settings)


def test_fixed_weights_stay_and_refuse_nonsense():
    fixed = FixedWeights([1.0, 0.01])
    assert fixed.update([3.0, 1.0], [1.0, 100.0]).tolist() == [1.0, 0.01]
    assert not fixed.begin_step([torch.tensor(1.0), torch.tensor(1.0)])
    for nonsense in ([-1.0, 1.0], [0.0, 0.0], [float("inf"), 1.0]):
        with pytest.raises(ValueError, match="weights must be finite"):
            FixedWeights(nonsense)
