"""Where the tasks' gradients meet in the real network: what reaches the shared layers, and that nothing else changes."""

from __future__ import annotations

import io
from copy import deepcopy
from typing import Any

import pytest
import torch
from test_loss import make_batch, make_model
from torch.nn import functional as F
from torchjd.aggregation import CAGrad as ReferenceCAGrad
from torchjd.aggregation import PCGrad as ReferencePCGrad

from gradnorm_plugin import FixedWeights, GradNormLoss, JointTargets
from gradnorm_plugin.balancing import CAGrad, GradientSurgery, PCGrad


def backward(balancer: Any, images: torch.Tensor, targets: JointTargets, factor: float = 1.0) -> tuple[Any, GradNormLoss]:
    """One step's gradients of the real model, and the criterion."""
    model = make_model()
    criterion = GradNormLoss(model, balancer)
    (criterion(model(images), targets)[0] * factor).backward()
    return model, criterion


def task_gradients(images: torch.Tensor, targets: JointTargets, weights: tuple[float, float]) -> tuple[Any, torch.Tensor, list]:
    """A plain model, its shared layer's output, and there the gradient of each weighted task by a pass of its own."""
    model = make_model()
    criterion = GradNormLoss(model, FixedWeights(weights))
    kept: list[torch.Tensor] = []
    handle = model.model[model.shared_layer].register_forward_hook(lambda _, __, output: kept.append(output))
    detection, logits = model(images)
    handle.remove()
    losses = (
        criterion.detection_loss(detection, targets.boxes)[0],
        criterion.output_loss(criterion.outputs[0], logits, targets.classes),
    )
    pairs = zip(losses, weights, strict=True)
    return model, kept[0], [torch.autograd.grad(w * loss, kept[0], retain_graph=True)[0] for loss, w in pairs]


def opposed(seed: int = 0) -> tuple[torch.Tensor, JointTargets, tuple[float, float]]:
    """A batch whose tasks conflict at the shared layer, and task weights that make their gradients alike in size."""
    for number in range(seed, seed + 50):
        images, targets = make_batch(number)
        _, _, (first, second) = task_gradients(images, targets, (1.0, 1.0))
        if F.cosine_similarity(first.flatten(), second.flatten(), dim=0) < -0.02:
            return images, targets, (1.0, float(first.norm() / second.norm()))
    raise AssertionError("none of 50 batches has tasks in conflict")


@pytest.mark.parametrize(("balancer", "reference", "times"), [
    (PCGrad, ReferencePCGrad(), 1), (CAGrad, ReferenceCAGrad(c=0.4, norm_eps=1e-9), 2),
])  # fmt: skip
def test_shared_layers_get_the_combined_gradient(balancer, reference, times):
    """Against two backward passes, TorchJD's aggregation of what they give, and one more pass down from there."""
    images, targets, weights = opposed()
    plain, output, (first, second) = task_gradients(images, targets, weights)
    combined = times * reference(torch.stack([first.flatten(), second.flatten()]).double()).float().view_as(output)
    assert not torch.allclose(combined, first + second, rtol=1e-3)
    # Layers 7 to 9 lead nowhere but through the meeting; what the neck takes from layers 4 and 6 goes past it.
    expected = torch.autograd.grad(output, list(plain.model[7:10].parameters()), combined)
    model, _ = backward(balancer(weights), images, targets)
    found = [p.grad for p in model.model[7:10].parameters()]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-7


@pytest.mark.parametrize("balancer", [PCGrad, CAGrad])
def test_layers_of_one_task_alone_keep_their_gradients(balancer):
    images, targets, weights = opposed()
    model, _ = backward(balancer(weights), images, targets)
    plain, _ = backward(FixedWeights(weights), images, targets)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if name.startswith("classification_head.") or int(name.split(".")[1]) > model.shared_layer:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8), name
    assert not torch.allclose(model.shared_parameter.grad, plain.shared_parameter.grad, rtol=1e-3)


@pytest.mark.parametrize("factor", [1.0, 1024.0])
def test_norms_and_cosine_at_the_meeting(factor):
    """Of the unweighted losses, whatever factor the trainer puts on their sum."""
    images, targets, weights = opposed()
    _, _, (first, second) = task_gradients(images, targets, weights)
    _, criterion = backward(PCGrad(weights, interval=1), images, targets, factor)
    found = criterion.settle()
    norms = [float(g.norm()) / w for g, w in zip((first, second), weights, strict=True)]
    assert [float(norm) for norm in found.norms] == pytest.approx(norms, rel=1e-4)
    assert float(found.cosine) == pytest.approx(F.cosine_similarity(first.flatten(), second.flatten(), dim=0).item(), abs=1e-4)
    assert float(found.cosine) < 0
    assert criterion.settle() is None


@pytest.mark.parametrize("balancer", [PCGrad, CAGrad])
def test_a_batch_without_classes_trains_detection_as_ever(balancer):
    images, targets = make_batch(classes=(-1, -1))
    model, criterion = backward(balancer(interval=1), images, targets)
    plain, _ = backward(FixedWeights((1.0, 1.0)), images, targets)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8), name
    assert criterion.settle() is None


def test_no_copy_and_no_checkpoint_holds_the_meeting():
    images, targets = make_batch()
    model, _ = backward(PCGrad(), images, targets)
    assert model.fork is not None
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for copy in (deepcopy(model), torch.load(file, weights_only=False)):
        assert copy.fork is None and copy.shared_layer == model.shared_layer
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(copy.eval()(images)[0], model.eval()(images)[0], strict=True))


def test_nothing_is_forked_in_validation():
    images, targets = make_batch()
    model, _ = backward(PCGrad(), images, targets)
    model.fork = lambda _: pytest.fail("forked outside training")
    model.eval()(images)


def test_half_precision_is_combined_in_single():
    """Under AMP's scale, squares of gradients leave the range of half precision."""

    class Largest(GradientSurgery):
        name = "largest"
        seen: torch.Tensor

        def factors(self, gram: torch.Tensor) -> torch.Tensor:
            self.seen = gram
            return torch.ones(2)

    balancer = Largest()
    criterion = GradNormLoss(make_model(), balancer)
    shared = torch.ones(4, dtype=torch.float16, requires_grad=True)
    one, other = criterion.model.fork(shared)
    ((one * 6e4).sum() + (other * 3e4).sum() * -1).backward()
    assert shared.grad.dtype == torch.float16 and torch.isfinite(shared.grad).all()
    assert balancer.seen.dtype == torch.float32 and torch.isfinite(balancer.seen).all()
