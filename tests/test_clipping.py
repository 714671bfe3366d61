"""The gradient clip of each part by itself, beside torch's clip of all parts together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradnorm_plugin.training.seams import SeparateClip

clip = torch.nn.utils.clip_grad_norm_


class Network(nn.Module):
    """A detector and a head; every gradient is set by hand."""

    def __init__(self, detection_norm: float, head_norm: float, seed: int = 0) -> None:
        super().__init__()
        self.detector = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(7, 5))
        self.head = nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(seed)
        for part, norm in ((self.detector, detection_norm), (self.head, head_norm)):
            raw = [torch.randn(p.shape, generator=generator) for p in part.parameters()]
            length = torch.sqrt(sum(g.square().sum() for g in raw))
            for parameter, gradient in zip(part.parameters(), raw, strict=True):
                parameter.grad = gradient * (norm / length)


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) > 0 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def norm_of(values: list[Tensor]) -> float:
    return torch.sqrt(sum(value.square().sum() for value in values)).item()


@pytest.mark.parametrize("norms", [(3.0, 4.0), (50.0, 4.0), (3.0, 700.0), (50.0, 700.0)])
def test_each_part_is_clipped_as_torch_clips_it_alone(norms):
    ours, reference = Network(*norms), Network(*norms)
    separate = SeparateClip(ours.head.parameters())
    returned = separate(ours.parameters(), max_norm=10.0)
    expected = clip(reference.detector.parameters(), 10.0), clip(reference.head.parameters(), 10.0)
    assert equal(gradients(ours), gradients(reference))
    assert (separate.detection_norm, separate.head_norm) == expected
    assert torch.equal(returned, separate.detection_norm)
    assert separate.detection_norm.item() == pytest.approx(norms[0], rel=1e-5)
    assert separate.head_norm.item() == pytest.approx(norms[1], rel=1e-5)
    for part, norm in ((ours.detector, norms[0]), (ours.head, norms[1])):
        assert norm_of(gradients(part)) == pytest.approx(min(norm, 10.0), rel=1e-5)


def test_a_huge_head_does_not_eat_the_detectors_step():
    together, apart = Network(2.0, 2000.0), Network(2.0, 2000.0)
    before = gradients(apart.detector)
    clip(together.parameters(), 10.0)
    assert norm_of(gradients(together.detector)) == pytest.approx(2.0 * 10 / 2000, rel=1e-3)  # 1/200 of its size
    SeparateClip(apart.head.parameters())(apart.parameters(), 10.0)
    assert equal(gradients(apart.detector), before)
    assert norm_of(gradients(apart.head)) == pytest.approx(10.0, rel=1e-5)


def test_a_huge_detector_does_not_eat_the_heads_step():
    network = Network(2000.0, 2.0)
    before = gradients(network.head)
    SeparateClip(network.head.parameters())(network.parameters(), 10.0)
    assert equal(gradients(network.head), before)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("silent", ["zero", "none"])
@pytest.mark.parametrize("detection_norm", [2.0, 37.5])
def test_a_head_without_gradient_leaves_the_detectors_step_bit_for_bit(detection_norm, silent, seed):
    """Promise 1: at weight 0 the head's gradient is 0, or there is none; upstream's plain model has no head at all.

    One clip of all together would not do: zeros among the summands regroup torch's sum, and the last bit of the norm with it.
    """
    ours, alone = Network(detection_norm, 1.0, seed), Network(detection_norm, 1.0, seed)
    for parameter in ours.head.parameters():
        parameter.grad = torch.zeros_like(parameter) if silent == "zero" else None
    separate = SeparateClip(ours.head.parameters())
    assert torch.equal(separate(ours.parameters(), max_norm=10.0), clip(alone.detector.parameters(), max_norm=10.0))
    assert equal(gradients(ours.detector), gradients(alone.detector))
    assert separate.head_norm.item() == 0


def test_norms_are_those_of_the_last_clip():
    network = Network(3.0, 4.0)
    separate = SeparateClip(network.head.parameters())
    assert separate.detection_norm is None and separate.head_norm is None
    for scale in (1.0, 5.0):
        for parameter, fresh in zip(network.parameters(), Network(3.0 * scale, 4.0 * scale).parameters(), strict=True):
            parameter.grad = fresh.grad
        separate(network.parameters(), 10.0)
        assert separate.detection_norm.item() == pytest.approx(3.0 * scale, rel=1e-5)
        assert separate.head_norm.item() == pytest.approx(4.0 * scale, rel=1e-5)


def test_parameters_may_be_an_iterator_a_list_or_one_tensor():
    for form in (lambda n: n.parameters(), lambda n: list(n.parameters())):
        network = Network(50.0, 60.0)
        SeparateClip(network.head.parameters())(form(network), 10.0)
        assert norm_of(gradients(network.detector)) == pytest.approx(10.0, rel=1e-5)
        assert norm_of(gradients(network.head)) == pytest.approx(10.0, rel=1e-5)
    network = Network(50.0, 60.0)
    other = nn.Parameter(torch.ones(4))
    other.grad = torch.full((4,), 20.0)
    before = gradients(network)
    separate = SeparateClip(network.head.parameters())
    assert separate(other, 10.0).item() == pytest.approx(40.0)
    assert other.grad.norm().item() == pytest.approx(10.0, rel=1e-5)
    assert equal(gradients(network), before) and separate.head_norm is None


def test_further_arguments_reach_torch():
    network = Network(50.0, 60.0)
    largest = max(p.grad.abs().max() for p in network.detector.parameters())
    found = SeparateClip(network.head.parameters())(network.parameters(), 10.0, norm_type=float("inf"))
    assert torch.equal(found, largest)
    next(network.head.parameters()).grad[0] = torch.nan
    with pytest.raises(RuntimeError, match="non-finite"):
        SeparateClip(network.head.parameters())(network.parameters(), max_norm=10.0, error_if_nonfinite=True)
