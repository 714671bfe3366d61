"""The joint loss: gradient norms without a second pass, the model's gradient untouched, every task in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gradnorm_plugin import FixedWeights, GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.balancing import PRESETS, LogLosses
from gradnorm_plugin.loss import NonFiniteLossError
from gradnorm_plugin.upstream.gateway import upstream

HYP = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}
EVERY_STEP = {**PRESETS["report"], "interval": 1, "warmup": 0}


def make_model(head: str = "pooled") -> JointDetectionModel:
    torch.manual_seed(0)
    model = JointDetectionModel("yolov5n.yaml", nc=4, classification_names=["a", "b", "c"], head=head)
    model.hyp = dict(HYP)
    for module in model.classification_head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the same forward pass twice must give the same
    return model.train()


def make_batch(seed: int = 0, classes: tuple[int, ...] = (0, 2, -1, 1)) -> tuple[torch.Tensor, JointTargets]:
    generator = torch.Generator().manual_seed(seed)
    count = len(classes)
    boxes = torch.rand(3 * count, 6, generator=generator) * 0.4 + 0.3
    boxes[:, 0] = torch.arange(3 * count) % count
    boxes[:, 1] = torch.arange(3 * count) % 4
    return torch.rand(count, 3, 64, 64, generator=generator), JointTargets(boxes, torch.tensor(classes))


def two_passes(model: Any, images: torch.Tensor, targets: JointTargets) -> list[torch.Tensor]:
    """The plain way: each task's gradient at the shared weights by an `autograd.grad` of its own."""
    detection, logits = model(images)
    labelled = targets.classes >= 0
    losses = (
        upstream("utils.loss").ComputeLoss(model)(detection, targets.boxes)[0],
        F.cross_entropy(logits[labelled], targets.classes[labelled]) * len(images),
    )
    return [torch.autograd.grad(loss, model.shared_parameter, retain_graph=True)[0] for loss in losses]


@pytest.mark.parametrize("factor", [1.0, 1024.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_norms_equal_two_autograd_calls(seed, factor):
    """Promise 2. `factor` is whatever a trainer puts on the loss: AMP's scale, the world size."""
    model = make_model()
    images, targets = make_batch(seed)
    expected = two_passes(model, images, targets)
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    loss, _ = criterion(model(images), targets)
    (loss * factor).backward()
    found = criterion.settle()
    for norm, gradient in zip(found.norms, expected, strict=True):
        assert norm.item() == pytest.approx(gradient.norm().item(), rel=1e-5)
    cosine = F.cosine_similarity(expected[0].flatten(), expected[1].flatten(), dim=0)
    assert found.cosine.item() == pytest.approx(cosine.item(), abs=1e-5)


def test_weights_follow_the_balancer_fed_by_hand():
    """Promise 2, end to end: a few optimiser steps, the norms taken by two `autograd.grad` calls beside them."""
    model = make_model()
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    by_hand = GradNorm(**EVERY_STEP)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(6):
        images, targets = make_batch(step)
        norms = [gradient.norm().item() for gradient in two_passes(model, images, targets)]
        loss, _ = criterion(model(images), targets)
        parts = criterion.losses
        loss.backward()
        criterion.settle()
        by_hand.update([parts.detection.item(), parts.classification.item()], norms)
        assert criterion.balancer.weights.tolist() == pytest.approx(by_hand.weights.tolist(), rel=1e-5)
        optimizer.step()
        optimizer.zero_grad()
    assert criterion.balancer.updates == 6


def test_weights_may_follow_from_the_batchs_own_losses():
    """Those of the batch itself, not of the one before; a batch without classes keeps what is held."""
    images, targets = make_batch()
    model = make_model()
    criterion = GradNormLoss(model, LogLosses(interval=1))
    loss, _ = criterion(model(images), targets)
    detection, classification = (part.item() for part in criterion.losses.tasks)
    assert criterion.applied_weights == pytest.approx((1, detection / classification), rel=1e-12)
    assert loss.item() == criterion.losses.total.item() == pytest.approx(2 * criterion.losses.detection.item())
    loss.backward()
    assert criterion.settle() is not None
    held = criterion.applied_weights
    criterion(model(images), JointTargets(targets.boxes, torch.full_like(targets.classes, -1)))
    assert criterion.applied_weights == held


def test_model_gradient_is_that_of_the_plain_weighted_loss():
    images, targets = make_batch()
    measured, plain = make_model(), make_model()
    GradNormLoss(measured, GradNorm(**EVERY_STEP))(measured(images), targets)[0].backward()
    weights = EVERY_STEP["initial_weights"]
    detection, logits = plain(images)
    labelled = targets.classes >= 0
    loss = weights[0] * upstream("utils.loss").ComputeLoss(plain)(detection, targets.boxes)[0]
    loss = loss + weights[1] * F.cross_entropy(logits[labelled], targets.classes[labelled]).reshape(1) * len(images)
    loss.backward()
    for (name, ours), theirs in zip(measured.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_shared_scope_weighs_the_shared_layers_alone():
    images, targets = make_batch()
    gradients = {}
    for scope, weights in (("shared", (2.0, 0.25)), ("loss", (2.0, 0.25)), ("full", (1.0, 1.0))):
        model = make_model()
        criterion = GradNormLoss(model, FixedWeights(weights), weight_scope="loss" if scope == "full" else scope)
        criterion(model(images), targets)[0].backward()
        gradients[scope] = {name: p.grad for name, p in model.named_parameters()}
    for name, gradient in gradients["shared"].items():
        serves_one = name.startswith("classification_head.") or int(name.split(".")[1]) > model.shared_layer
        expected = gradients["full" if serves_one else "loss"][name]
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7), name


def test_no_class_in_the_batch_trains_detection_alone():
    model = make_model()
    images, targets = make_batch(classes=(-1, -1))
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    loss, items = criterion(model(images), targets)
    loss.backward()
    assert criterion.losses.classification.item() == 0 and items.shape == (3,)
    assert criterion.settle() is None and criterion.balancer.batches == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.classification_head.parameters())


def test_classification_loss_is_the_weighted_mean_over_the_labelled_images():
    weights = torch.tensor([2.0, 0.5, 1.0])
    criterion = GradNormLoss(make_model(), class_weights=weights)
    logits, classes = torch.randn(4, 3), torch.tensor([0, 1, -1, 0])
    by_hand = [-weights[c] * torch.log_softmax(row, 0)[c] for row, c in zip(logits, classes, strict=True) if c >= 0]
    assert criterion.output_loss(criterion.outputs[0], logits, classes).item() == pytest.approx(
        4 * sum(by_hand).item() / 4.5, rel=1e-6
    )


def test_frozen_shared_layers_leave_the_weights_alone():
    model = make_model()
    for layer in model.model[:10]:
        layer.requires_grad_(False)
    images, targets = make_batch()
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    criterion(model(images), targets)[0].backward()
    assert criterion.settle() is None
    assert criterion.balancer.weights.tolist() == [1.0, 0.01]


def test_validation_takes_upstreams_plain_targets():
    model = make_model()
    images, targets = make_batch()
    criterion = GradNormLoss(model)
    with torch.no_grad():
        _, train_out = model.eval()(images)
        loss, items = criterion(train_out, targets.boxes)
        assert torch.equal(loss, upstream("utils.loss").ComputeLoss(model)(train_out[0], targets.boxes)[0])
    assert items.shape == (3,) and criterion.balancer.batches == 0


def test_under_a_large_scale_half_precision_measures_as_long_as_the_trainer_can_train():
    """AMP on the CPU: the probe must not overflow where the real backward pass, at its small weight, does not."""
    model = make_model()
    images, targets = make_batch()
    expected = [gradient.norm().item() for gradient in two_passes(model, images, targets)]
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    for _ in range(3):
        with torch.amp.autocast("cpu", dtype=torch.float16):
            loss, _ = criterion(model(images), targets)
        (loss * 2048.0).backward()
        assert torch.isfinite(model.shared_parameter.grad).all()
        found = criterion.settle()
        model.zero_grad()
        assert [norm.item() for norm in found.norms] == pytest.approx(expected, rel=0.05)
    assert criterion.balancer.updates == 3


def test_with_a_scaler_the_weights_are_the_unscaled_ones():
    weights = {}
    for scaled in (False, True):
        model = make_model()
        criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=2, enabled=scaled)
        for step in range(6):
            images, targets = make_batch(step)
            loss, _ = criterion(model(images), targets)
            scaler.scale(loss).backward()
            criterion.settle()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        weights[scaled] = criterion.balancer.weights.tolist()
        assert criterion.balancer.updates == 6
    assert weights[True] == pytest.approx(weights[False], rel=1e-5)


def test_an_overflow_step_changes_nothing():
    model = make_model()
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38, backoff_factor=1e-30)
    before = [parameter.clone() for parameter in model.parameters()]
    for overflow in (True, False):
        state = criterion.state_dict()
        images, targets = make_batch()
        loss, _ = criterion(model(images), targets)
        scaler.scale(loss).backward()
        criterion.settle()
        assert torch.isfinite(model.shared_parameter.grad).all() != overflow
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        kept = all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        assert kept == overflow
        assert torch.equal(criterion.balancer.weights, state["weights"]) == overflow
        assert criterion.balancer.updates == (0 if overflow else 1)
        assert (criterion.balancer.initial_losses is None) == overflow


def test_gradients_of_earlier_batches_do_not_leak_into_the_norms():
    """Accumulation: upstream leaves `.grad` standing until it has seen 64 images."""
    model = make_model()
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    for seed in range(4):
        images, targets = make_batch(seed)
        expected = [gradient.norm().item() for gradient in two_passes(model, images, targets)]
        criterion(model(images), targets)[0].backward()
        found = criterion.settle()
        assert [norm.item() for norm in found.norms] == pytest.approx(expected, rel=1e-5)
    assert criterion.balancer.batches == criterion.balancer.updates == 4


def test_measurements_leave_nothing_behind():
    model = make_model()
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    for seed in range(3):
        images, targets = make_batch(seed)
        loss, _ = criterion(model(images), targets)
        if seed == 1:
            continue  # a batch whose backward pass never comes
        loss.backward()
        criterion.settle()
    assert not model.shared_parameter._backward_hooks


def test_a_loss_that_is_not_finite_is_reported_with_its_parts():
    model = make_model()
    images, targets = make_batch()
    criterion = GradNormLoss(model)
    with pytest.raises(NonFiniteLossError, match=r"box .*objectness .*classification nan, weights 1 and 0.01"):
        detection, logits = model(images)
        criterion((detection, logits * float("nan")), targets)


def test_unknown_scope_is_named():
    with pytest.raises(ValueError, match="weight_scope is 'heads'"):
        GradNormLoss(make_model(), weight_scope="heads")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_norms_under_amp_equal_the_unscaled_ones():
    model = make_model().cuda()
    images, targets = make_batch()
    images, targets = images.cuda(), targets.to("cuda")
    expected = [gradient.norm().item() for gradient in two_passes(model, images, targets)]
    criterion = GradNormLoss(model, GradNorm(**EVERY_STEP))
    scaler = torch.amp.GradScaler("cuda")
    for _ in range(4):  # from the second step on the probe runs at the scaler's scale
        with torch.amp.autocast("cuda"):
            loss, _ = criterion(model(images), targets)
        scaler.scale(loss).backward()
        found = criterion.settle()
        model.zero_grad()
        assert [norm.item() for norm in found.norms] == pytest.approx(expected, rel=2e-2)
    assert criterion.balancer.updates == 4
