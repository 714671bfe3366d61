"""The other balancers by value: against autograd, plain Python, TorchJD's implementations, and properties that must hold."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import IMTLG, ConFIG
from torchjd.aggregation import CAGrad as ReferenceCAGrad
from torchjd.aggregation import PCGrad as ReferencePCGrad

from gradnorm_plugin.balancing import (
    BALANCERS,
    Bisector,
    CAGrad,
    DynamicWeightAverage,
    FixedWeights,
    LogLosses,
    PCGrad,
    SoftOptimalUncertainty,
    UncertaintyWeights,
)
from gradnorm_plugin.balancing.balancer import WatchedBalancer
from gradnorm_plugin.compare.methods import METHODS
from gradnorm_plugin.presets import SETTINGS
from gradnorm_plugin.training.options import make_balancer, parse_options
from gradnorm_plugin.training.run_file import balancing_facts

sizes = st.floats(1e-3, 1e3)


def scalars(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


def gram_of(gradients: torch.Tensor) -> torch.Tensor:
    return gradients @ gradients.T


def pair(length: float, angle: float) -> torch.Tensor:
    """Two gradients in the plane, (2, 2) float64: one of length 1, and one of the given length at the given angle to it."""
    return torch.tensor([[1.0, 0.0], [length * math.cos(angle), length * math.sin(angle)]], dtype=torch.float64)


# Uncertainty weighting


def test_uncertainty_takes_the_step_that_autograd_finds():
    losses = torch.tensor([0.3, 1.4], dtype=torch.float64)
    s = torch.tensor([0.2, -0.7], dtype=torch.float64, requires_grad=True)
    balancer = UncertaintyWeights(initial_weights=(torch.exp(-s) / 2).tolist(), lr=0.1)
    (losses / (2 * s.exp()) + s / 2).sum().backward()
    balancer.begin_step(list(losses))
    assert balancer.log_variances.tolist() == pytest.approx((s - 0.1 * s.grad).tolist(), rel=1e-12)
    assert balancer.weights.tolist() == pytest.approx((torch.exp(-(s - 0.1 * s.grad)) / 2).tolist(), rel=1e-12)


def test_uncertainty_comes_to_rest_where_every_weighted_loss_is_one_half():
    balancer = UncertaintyWeights(lr=0.2)
    for _ in range(500):
        balancer.begin_step(scalars(0.25, 4.0))
    assert balancer.weights.tolist() == pytest.approx([2.0, 0.125], rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(losses=st.lists(st.tuples(sizes, sizes), min_size=1, max_size=20), lr=st.floats(1e-3, 0.1))
def test_uncertainty_stays_positive_and_moves_towards_rest(losses, lr):
    balancer = UncertaintyWeights(lr=lr)
    for step in losses:
        before = balancer.weights
        balancer.begin_step(scalars(*step))
        for old, new, loss in zip(before.tolist(), balancer.weights.tolist(), step, strict=True):
            assert new >= 0 and (new - old) * (1 - 2 * old * loss) >= 0


def test_losses_that_are_not_finite_teach_nothing():
    for balancer in (UncertaintyWeights(), DynamicWeightAverage()):
        balancer.begin_step(scalars(math.nan, 1.0))
        balancer.end_epoch()
        assert balancer.weights.tolist() == [1.0, 1.0]


# Dynamic weight averaging


def epoch(balancer: DynamicWeightAverage, *batches: tuple[float, float]) -> list[float]:
    for batch in batches:
        balancer.begin_step(scalars(*batch))
    balancer.end_epoch()
    return balancer.weights.tolist()


def test_dwa_against_plain_python():
    balancer = DynamicWeightAverage(temperature=2.0)
    assert epoch(balancer, (4.0, 2.0), (2.0, 2.0)) == [1.0, 1.0]  # means 3 and 2
    first = [math.exp(1.5 / 3 / 2), math.exp(1.8 / 2 / 2)]
    assert epoch(balancer, (1.5, 1.8)) == pytest.approx([2 * value / sum(first) for value in first], rel=1e-6)
    second = [math.exp(1.5 / 1.5 / 2), math.exp(0.9 / 1.8 / 2)]
    assert epoch(balancer, (1.5, 0.9)) == pytest.approx([2 * value / sum(second) for value in second], rel=1e-6)


def test_dwa_favours_the_task_whose_loss_falls_more_slowly_whatever_its_size():
    balancer = DynamicWeightAverage()
    epoch(balancer, (100.0, 0.01))
    slow, fast = epoch(balancer, (99.0, 0.005))
    assert slow > 1 > fast and slow + fast == pytest.approx(2)


def test_dwa_goes_on_from_its_state_in_the_middle_of_an_epoch():
    whole, first = DynamicWeightAverage(), DynamicWeightAverage()
    for balancer in (whole, first):
        epoch(balancer, (3.0, 2.0))
        balancer.begin_step(scalars(2.0, 1.9))
    resumed = DynamicWeightAverage()
    resumed.load_state_dict(first.state_dict())
    assert epoch(resumed, (1.0, 1.8)) == epoch(whole, (1.0, 1.8)) != [1.0, 1.0]


def test_an_epoch_without_losses_changes_nothing():
    balancer = DynamicWeightAverage()
    epoch(balancer, (3.0, 2.0))
    before = epoch(balancer, (1.0, 1.9))
    assert epoch(balancer) == before


# Weights from the batch's own losses


@settings(max_examples=50, deadline=None)
@given(losses=st.tuples(sizes, sizes, sizes))
def test_log_losses_take_the_step_that_autograd_finds(losses):
    """d sum(log L) / dL, divided by the first task's."""
    leaves = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    leaves.log().sum().backward()
    weights = LogLosses(num_tasks=3).weigh(list(leaves.detach()))
    assert weights.tolist() == pytest.approx((leaves.grad / leaves.grad[0]).tolist(), rel=1e-12) and weights[0] == 1


@settings(max_examples=50, deadline=None)
@given(losses=st.tuples(sizes, sizes), temperature=st.floats(0.05, 100))
def test_uw_so_is_the_softmax_of_inverse_losses(losses, temperature):
    weights = SoftOptimalUncertainty(temperature=temperature).weigh(scalars(*losses))
    first, second = (1 / (temperature * float(torch.tensor(loss))) for loss in losses)
    assert weights[0].item() == pytest.approx(1 / (1 + math.exp(min(second - first, 700))), rel=1e-9, abs=1e-300)
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("make", [LogLosses, SoftOptimalUncertainty])
def test_weights_of_a_batch_are_held_until_the_next_and_through_a_resume(make):
    balancer, resumed = make(), make()
    held = balancer.weigh(scalars(0.5, 2.0)).tolist()
    assert held != make().weights.tolist() and balancer.weigh(scalars(math.nan, 2.0)).tolist() == held
    resumed.load_state_dict(balancer.state_dict())
    assert resumed.weights.tolist() == held
    assert torch.isfinite(make().weigh(scalars(0.0, 2.0))).all() and torch.isfinite(make().weigh(scalars(0.0, 0.0))).all()


def test_uw_so_tends_to_equal_weights_and_log_losses_do_not_see_units():
    assert SoftOptimalUncertainty(temperature=1e9).weigh(scalars(0.01, 5.0)).tolist() == pytest.approx([0.5, 0.5])
    assert LogLosses().weigh(scalars(2.0, 6.0)).tolist() == pytest.approx(LogLosses().weigh(scalars(0.2, 0.6)).tolist())


# Balancers that look at directions


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("ours", "reference", "tolerance"), [
    (PCGrad(), ReferencePCGrad(), 1e-9),
    (CAGrad(c=0.4), ReferenceCAGrad(c=0.4, norm_eps=1e-12), 2e-4),
    (CAGrad(c=0.9), ReferenceCAGrad(c=0.9, norm_eps=1e-12), 2e-4),
])  # fmt: skip
def test_against_torchjd(seed, ours, reference, tolerance):
    """TorchJD's PCGrad sums as ours does; its CAGrad is the paper's d, of which ours is twice, found
    by a solver that stops at about 1e-4."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    gradients[1] *= 10 ** (seed % 5 - 2)  # of very different sizes, as they are in training
    if seed % 2:
        gradients[1] -= gradients[0] * gradients[1].norm() / gradients[0].norm()  # most of these conflict
    torch.manual_seed(0)
    expected = reference(gradients) * (2 if isinstance(ours, CAGrad) else 1)
    found = ours.factors(gram_of(gradients)) @ gradients
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("seed", range(10))
def test_imtl_g_config_and_nash_mtl_go_along_the_bisector(seed):
    """TorchJD's IMTL-G and ConFIG, and the equation that Nash-MTL solves: (G G^T a)_i = 1 / a_i, up to the length of a."""
    gradients = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradients[1] *= 10 ** (seed % 5 - 2)
    factors = Bisector().factors(gram_of(gradients))
    for method in (IMTLG(), ConFIG()):
        along = torch.nn.functional.cosine_similarity(factors @ gradients, method(gradients), dim=0)
        assert along.item() == pytest.approx(1, abs=1e-9)
    first, second = (gram_of(gradients) @ factors * factors).tolist()
    assert first == pytest.approx(second, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(length=sizes, angle=st.floats(0, math.pi))
def test_the_bisector_is_as_near_to_both_and_leaves_the_first_gradient_as_it_is(length, angle):
    gradients = pair(length, angle)
    factors = Bisector().factors(gram_of(gradients))
    assert factors.tolist() == pytest.approx([1, 1 / length], rel=1e-9) and factors[0] == 1
    along = gradients @ (factors @ gradients) / gradients.norm(dim=1)
    assert along[0].item() == pytest.approx(along[1].item(), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(length=sizes, angle=st.floats(0.01, 3.13))
def test_pcgrad_ends_conflicts_and_leaves_the_rest_alone(length, angle):
    gradients = pair(length, angle)
    factors = PCGrad().factors(gram_of(gradients))
    if angle <= math.pi / 2:
        assert factors.tolist() == [1.0, 1.0]
        return
    combined = factors @ gradients
    assert ((gradients @ combined) >= -1e-9 * gradients.norm(dim=1) * combined.norm()).all()


@settings(max_examples=100, deadline=None)
@given(length=sizes, angle=st.floats(0.01, 3.13), c=st.floats(0.05, 0.95))
def test_cagrad_is_the_best_of_a_search(length, angle, c):
    """The direction maximises the smaller inner product within its ball: no x of a fine grid does better."""
    gradients = pair(length, angle)
    mean = gradients.mean(0)
    found = CAGrad(c=c).factors(gram_of(gradients)) @ gradients / 2
    assert (found - mean).norm().item() == pytest.approx(c * mean.norm().item(), rel=1e-6)
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    directions = x * gradients[0] + (1 - x) * gradients[1]
    others = mean + c * mean.norm() * directions / directions.norm(dim=1, keepdim=True)
    best = (others @ gradients.T).min(1).values.max()
    scale = gradients.norm(dim=1).max() * mean.norm()
    assert (gradients @ found).min() >= best - 1e-9 * scale


def test_cagrad_with_radius_0_is_the_sum():
    assert CAGrad(c=0.0).factors(gram_of(pair(3.0, 2.0))).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("balancer", [PCGrad(), CAGrad(), Bisector()], ids=lambda b: b.name)
@pytest.mark.parametrize("gradients", [[[0.0, 0.0], [1.0, 2.0]], [[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_without_one_of_the_gradients_the_other_is_handed_on(balancer, gradients):
    assert balancer.factors(gram_of(torch.tensor(gradients))).tolist() == [1.0, 1.0]


def test_equal_gradients_stay_a_sum_of_equals():
    same = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    assert PCGrad().factors(gram_of(same)).tolist() == [1.0, 1.0]
    assert (CAGrad(c=0.4).factors(gram_of(same)) @ same).tolist() == pytest.approx((1.4 * same.sum(0)).tolist())


# All of them


@pytest.mark.parametrize(("make", "message"), [
    (lambda: UncertaintyWeights(lr=0.0), "lr must be finite and positive, found 0.0"),
    (lambda: UncertaintyWeights(initial_weights=(1.0, 0.0)), r"initial_weights must be positive, found \[1.0, 0.0\]"),
    (lambda: DynamicWeightAverage(temperature=-1), "temperature must be finite and positive, found -1"),
    (lambda: SoftOptimalUncertainty(temperature=0), "temperature must be finite and positive, found 0"),
    (lambda: CAGrad(c=math.inf), "c must be finite and not negative, found inf"),
    (lambda: PCGrad(initial_weights=(1.0,)), "initial_weights has 1 values, expected one for each of 2 tasks"),
    (lambda: FixedWeights((1, 1), interval=-1), "interval must be a whole number of at least 0, found -1"),
])  # fmt: skip
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [
    lambda **k: FixedWeights((1, 1), **k), UncertaintyWeights, DynamicWeightAverage, SoftOptimalUncertainty, LogLosses, PCGrad,
    CAGrad, Bisector,
])  # fmt: skip
def test_gradients_are_looked_at_every_interval_batches(make):
    losses = scalars(1.0, 2.0)
    assert [make(interval=3).begin_step(losses)] + [make().begin_step(losses)] == [True, False]
    balancer = make(interval=3)
    assert [balancer.begin_step(losses) for _ in range(7)] == [True, False, False, True, False, False, True]
    resumed = make(interval=3)
    resumed.load_state_dict(balancer.state_dict())
    assert [resumed.begin_step(losses) for _ in range(3)] == [False, False, True]
    assert torch.equal(resumed.update([1.0, 2.0], [3.0, 4.0]), resumed.weights)


def test_every_balancer_but_the_fixed_weights_is_a_method_of_compare():
    assert set(BALANCERS) - {"fixed"} <= set(METHODS)
    for name, balancer in BALANCERS.items():
        assert balancer.name == name and balancer.label and balancer.note
        assert parse_options(["--balancer", name]).balancer == name


def test_the_flags_tell_the_defaults_of_the_classes():
    assert list(SETTINGS) == list(BALANCERS)
    for name, own in SETTINGS.items():
        of_class = inspect.signature(BALANCERS[name]).parameters
        assert {argument: default for argument, (default, _) in own.items()} == {
            argument: of_class[argument].default for argument in own
        }


class Halved(WatchedBalancer):
    """Weights that are `share` of 1, as anyone might add it."""

    name = "halved"
    label = "Halved"
    note = "a half each"

    def __init__(self, share: float = 0.5, interval: int = 0) -> None:
        super().__init__(torch.full((2,), share, dtype=torch.float64), interval)
        self.share = share


def test_a_new_balancer_is_one_class_and_its_entries(monkeypatch, capsys):
    """Its flag with the default in the help, its setting, its facts, and the refusal of flags that are not its own."""
    monkeypatch.setitem(BALANCERS, Halved.name, Halved)
    monkeypatch.setitem(SETTINGS, Halved.name, {"share": (0.5, "what is left of each loss")})
    found = make_balancer(parse_options(["--balancer", "halved", "--halved-share", "0.25", "--gradnorm-interval", "5"]))
    assert type(found) is Halved and found.weights.tolist() == [0.25, 0.25] and found.interval == 5
    assert make_balancer(parse_options(["--balancer", "halved"])).share == 0.5
    facts = {"balancer": "halved", "weights": [0.25, 0.25], "interval": 5, "share": 0.25}
    assert balancing_facts(found) == facts
    for line in ("--halved-share 0.1", "--balancer halved --gradnorm-lr 1", "--balancer halved --initial-weights 1 1"):
        with pytest.raises(SystemExit):
            parse_options(line.split())
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    assert "what is left of each loss (default: 0.5)" in " ".join(capsys.readouterr().out.split())
