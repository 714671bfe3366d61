"""GradNorm's mathematics against closed forms, a plain reference of the paper, and properties that must always hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

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


@settings(max_examples=30, deadline=None)
@given(scale=positive, steps=st.lists(positive, min_size=1, max_size=8))
def test_equal_tasks_keep_equal_weights(scale, steps):
    balancer = GradNorm(num_tasks=3, weight_sum=6)
    for value in steps:
        weights = balancer.update([value] * 3, [scale * value] * 3)
        assert weights.tolist() == pytest.approx([2.0] * 3, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=12),
    alpha=st.floats(0, 3),
    lr=st.floats(0, 2),
    preset=st.sampled_from(["paper", "report"]),
)
def test_weights_sum_to_s_and_stay_in_their_ranges(steps, alpha, lr, preset):
    balancer = GradNorm(**{**PRESETS[preset], "alpha": alpha, "lr": lr})
    for first, second, first_norm, second_norm in steps:
        weights = balancer.update([first, second], [first_norm, second_norm])
        assert weights.sum().item() == pytest.approx(balancer.weight_sum, rel=1e-12)
        assert (weights >= 0).all()
        for weight, (low, high) in zip(weights.tolist(), balancer.weight_ranges, strict=True):
            assert low <= weight <= high


@settings(max_examples=100, deadline=None)
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
        ({"reference": 2}, "reference is 2, expected a task from 0 to 1"),
        ({"reference": 0, "weight_sum": 4.0}, "weight_sum is 4.0, but with a reference task"),
        ({"reference": 0, "weight_ranges": [(2, 4), (0, 1)]}, r"weight_ranges\[0\] is \(2, 4\), expected a range that holds 1"),
        ({"reference": 0, "weight_ranges": [(1, 1), (1, 0.5)]}, r"weight_ranges\[1\]"),
        ({"start": "guessed"}, "start must be one of given, measured, found 'guessed'"),
        ({"start": "measured"}, "needs a warmup of at least 1 batch"),
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


# Ratios to one task: the preset `ratio`

RATIO = PRESETS["ratio"]


def two_tasks(count: int, size: float = 1.0) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Losses and norms of `count` batches: norms near 1 and 100 times `size`, the second falling to a tenth with its loss."""
    generator = torch.Generator().manual_seed(0)
    for batch in range(count):
        falling = 0.1 + 0.9 * math.exp(-batch / 100)
        norms = size * torch.tensor([1.0, 100.0 * falling]) * torch.exp(0.3 * torch.randn(2, generator=generator))
        yield [torch.tensor(size * 0.2), torch.tensor(size * 3.0 * falling)], norms


def weights_of(balancer: GradNorm, batches: Iterable[tuple[list[torch.Tensor], torch.Tensor]]) -> list[list[float]]:
    """The weights that each batch is trained with."""
    used = []
    for losses, norms in batches:
        used.append(balancer.weights.tolist())
        if balancer.begin_step(losses):
            balancer.update(losses, norms)
    return used


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=12),
    alpha=st.floats(0, 3),
    lr=st.floats(0, 2),
    start=st.sampled_from(["given", "measured"]),
    initial=st.tuples(positive, positive),
)
def test_the_reference_has_weight_1_and_the_ratio_stays_in_its_range(steps, alpha, lr, start, initial):
    balancer = GradNorm(
        **{**RATIO, "alpha": alpha, "lr": lr, "start": start, "initial_weights": initial, "warmup": 3, "interval": 1}
    )
    assert balancer.weights.tolist() == [1.0, initial[1] / initial[0]]
    for first, second, first_norm, second_norm in steps:
        if balancer.begin_step([torch.tensor(first), torch.tensor(second)]):
            reference, ratio = balancer.update([first, second], [first_norm, second_norm]).tolist()
            assert reference == 1.0 and 1e-4 <= ratio <= 1


@settings(max_examples=100, deadline=None)
@given(losses=st.tuples(positive, positive), norms=st.tuples(positive, positive), alpha=st.floats(0, 3), ratio=st.floats(1e-3, 1))
def test_the_ratio_moves_towards_its_target_by_twice_the_step(losses, norms, alpha, ratio):
    """Where G_2 / G_1 is above (r_2 / r_1) ** alpha the ratio falls, else it grows: what the paper's signs say of two tasks."""
    wide = {**RATIO, "start": "given", "warmup": 0, "weight_ranges": None, "alpha": alpha, "initial_weights": (1.0, ratio)}
    balancer = GradNorm(**wide)
    balancer.initial_losses = torch.ones(2, dtype=torch.float64)
    excess = math.log(ratio * norms[1] / norms[0]) - alpha * math.log(losses[1] / losses[0])
    moved = math.log(balancer.update(losses, norms)[1] / ratio)
    if abs(excess) > 1e-6:
        assert moved == pytest.approx(-math.copysign(2 * RATIO["lr"], excess), rel=1e-9)


def test_equal_tasks_never_move_the_ratio():
    balancer = GradNorm(**{**RATIO, "initial_weights": (1.0, 1.0)})
    for _ in range(60):
        losses = [torch.tensor(0.7), torch.tensor(0.7)]
        if balancer.begin_step(losses):
            assert balancer.update(losses, [3.0, 3.0]).tolist() == [1.0, 1.0]


def test_the_common_size_of_the_losses_changes_nothing():
    small, large = (weights_of(GradNorm(**RATIO), two_tasks(200, size)) for size in (1e-3, 1e4))
    assert [ratio for _, ratio in small] == pytest.approx([ratio for _, ratio in large], rel=1e-6)


@pytest.mark.parametrize("initial", [1e-4, 0.01, 1.0, 100.0])
def test_a_ratio_given_far_too_large_or_small_is_gone_after_the_first_batch(initial):
    given = GradNorm(**{**RATIO, "initial_weights": (1.0, initial)})
    found, expected = (weights_of(balancer, two_tasks(300)) for balancer in (given, GradNorm(**RATIO)))
    assert found[0] == [1.0, initial] and found[1:] == expected[1:]
    assert found[1][1] == pytest.approx(0.01, rel=1)


@pytest.mark.parametrize("initial", [1e-4, 1.0])
def test_a_given_ratio_100_times_off_arrives_within_24_updates(initial):
    """Twice 0.1 an update on the logarithm, ln(100) in 24; at rest it stays within two steps."""

    def train(ratio: float) -> list[float]:
        balancer = GradNorm(**{**RATIO, "alpha": 0, "start": "given", "initial_weights": (1.0, ratio)})
        return [balancer.update([1.0, 1.0], [1.0, 100.0])[1].item() for _ in range(60)]

    assert all(abs(math.log(ratio / 0.01)) <= 0.4 for ratio in train(initial)[24:])
    assert any(abs(math.log(ratio / 0.01)) > 0.4 for ratio in train(initial)[:20])


def test_the_start_is_where_the_geometric_mean_norms_are_equal():
    balancer = GradNorm(**{**RATIO, "warmup": 3})
    for norms, ratio in (((1.0, 10.0), 1 / 10), ((4.0, 10.0), 2 / 10), ((0.25, 80.0), 1 / 20)):
        assert balancer.begin_step([torch.tensor(2.0), torch.tensor(3.0)])
        assert balancer.update([2.0, 3.0], norms).tolist() == pytest.approx([1.0, ratio], rel=1e-12)
    assert balancer.updates == 0 and balancer.initial_losses is None
    balancer.begin_step([torch.tensor(1.0), torch.tensor(1.0)])
    balancer.update([1.0, 1.0], [1.0, 20.0])
    assert balancer.updates == 1 and balancer.initial_losses.tolist() == [2.0, 3.0]


def test_a_measured_start_keeps_the_sum_where_there_is_one():
    balancer = GradNorm(**{**PRESETS["report"], "start": "measured"})
    balancer.begin_step([torch.tensor(1.0), torch.tensor(1.0)])
    assert balancer.update([1.0, 1.0], [1.0, 50.0]).tolist() == pytest.approx([4 / 1.02, 0.08 / 1.02], rel=1e-12)


def test_a_task_far_ahead_still_has_a_ratio_at_which_the_rule_rests():
    """r = 1.8 and 0.2: the paper's target of the first is more than all the gradient there is, so the second's weight would
    fall to whatever range it has; as a ratio, G_2 / G_1 comes to (0.2 / 1.8) ** 1.5."""
    losses, norms = [0.9, 0.1], [1.0, 50.0]
    found = {}
    for preset, changes in (("ratio", {"start": "given"}), ("paper", {})):
        balancer = GradNorm(**{**PRESETS[preset], **changes, "lr": 0.02, "weight_ranges": None, "warmup": 0})
        balancer.initial_losses = torch.ones(2, dtype=torch.float64)
        for _ in range(600):
            weights = balancer.update(losses, norms)
        found[preset] = float(weights[1] * norms[1] / (weights[0] * norms[0]))
    assert found["ratio"] == pytest.approx((0.2 / 1.8) ** 1.5, rel=0.05)
    assert found["paper"] < 1e-6


def test_a_ratio_of_more_than_two_tasks():
    balancer = GradNorm(num_tasks=3, reference=1, start="measured", warmup=1)
    balancer.begin_step([torch.tensor(1.0)] * 3)
    assert balancer.update([1.0] * 3, [2.0, 1.0, 8.0]).tolist() == pytest.approx([0.5, 1.0, 0.125])
    assert balancer.update([1.0] * 3, [2.0, 1.0, 8.0]).tolist() == pytest.approx([0.5, 1.0, 0.125])


@pytest.mark.parametrize("cut", [0, 1, 4, 10, 11, 37])
def test_a_ratio_goes_on_exactly_from_its_state(cut):
    batches = list(two_tasks(60))
    whole, first, resumed = (GradNorm(**RATIO) for _ in range(3))
    expected, before = weights_of(whole, batches), weights_of(first, batches[:cut])
    resumed.load_state_dict(first.state_dict())
    assert before + weights_of(resumed, batches[cut:]) == expected
    assert torch.equal(resumed.weights, whole.weights)
