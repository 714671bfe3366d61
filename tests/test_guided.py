"""The head that is guided by the detector: what it looks at, by value, and what it leaves alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_checkpoint import read_images, write_checkpoint
from joint_data import write_joint_dataset
from test_loss import make_batch, make_model

from gradnorm_plugin import JointDetectionModel
from gradnorm_plugin.model.guided import GuidedHead, decode, find_regions, region_weights
from gradnorm_plugin.model.pooled_linear import PooledNorm, average_and_maximum
from gradnorm_plugin.strip import strip
from gradnorm_plugin.upstream.gateway import upstream

CELL = 8.0
sides = st.floats(0.5, 200)
centres = st.floats(0, 128)


def head(num_boxes: int = 2, top: int = 2) -> GuidedHead:
    torch.manual_seed(0)
    return GuidedHead(6, 3, num_boxes, CELL, hidden=16, top=top).eval()


def test_decoding_is_upstreams_own():
    model = make_model("guided").eval()
    images, _ = make_batch()
    with torch.no_grad():
        predictions, (raw, _) = model(images)
    assert torch.allclose(decode(model.model[-1], raw), predictions, rtol=1e-5, atol=1e-5)


def test_regions_are_the_most_confident_predictions_of_each_class():
    predictions = torch.rand(3, 40, 5 + 2)
    boxes, scores = find_regions(predictions, 3)
    assert boxes.shape == (3, 6, 4) and scores.shape == (3, 6)
    for image, rows in enumerate(predictions):
        for kind in range(2):
            confidence = rows[:, 4] * rows[:, 5 + kind]
            best = confidence.sort(descending=True).indices[:3]
            assert torch.equal(scores[image, kind::2], confidence[best])
            assert torch.equal(boxes[image, kind::2], rows[best, :4])


@settings(max_examples=100, deadline=None)
@given(x=centres, y=centres, w=sides, h=sides)
def test_weights_average_over_the_cells_that_a_box_covers(x, y, w, h):
    """Against every cell looked at by itself: 16 x 12 cells of 8 pixels."""
    found = region_weights(torch.tensor([[[x, y, w, h]]], dtype=torch.float64), 12, 16, CELL).view(12, 16)

    def covers(centre: float, side: float, cell: int) -> bool:
        return abs((cell + 0.5) - centre / CELL) <= max(side / CELL / 2, 0.5)

    covered = torch.tensor([[covers(y, h, row) and covers(x, w, column) for column in range(16)] for row in range(12)])
    count = int(covered.sum())
    assert torch.equal(found > 0, covered)
    if count:
        assert found.sum().item() == pytest.approx(1) and found.max().item() == pytest.approx(1 / count)


def predictions_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([rows])


def test_only_what_is_inside_a_confident_box_is_looked_at():
    """Features elsewhere change the image's part of the logits, and not the regions'."""
    guided, features = head(), torch.rand(1, 6, 8, 8)
    found = predictions_of((20, 20, 24, 24, 1.0, 1.0, 0.0), (50, 50, 16, 16, 1e-4, 0.0, 1.0))
    changed = features.clone()
    changed[..., 5:, 5:] += 1
    with torch.no_grad():
        before, after = (guided._regions(guided.project(x), found) for x in (features, changed))
        assert torch.allclose(before, after, atol=2e-3)  # the box without confidence has next to no say
        sure = found.clone()
        sure[0, 1, 4] = 1.0
        assert not torch.allclose(*(guided._regions(guided.project(x), sure) for x in (features, changed)), atol=2e-2)


def test_an_image_without_any_detection_has_logits():
    with torch.no_grad():
        logits = head()(torch.rand(2, 6, 4, 4), torch.zeros(2, 10, 7))
    assert logits.shape == (2, 3) and torch.isfinite(logits).all()


def test_predictions_get_no_gradient():
    predictions = torch.rand(1, 10, 7, requires_grad=True)
    head()(torch.rand(1, 6, 4, 4), predictions).sum().backward()
    assert predictions.grad is None


def moved_layers(model: JointDetectionModel) -> list[int]:
    """Those that the image's class sends a gradient into."""
    images, _ = make_batch()
    model(images)[1].square().sum().backward()
    assert all(p.grad is not None for p in model.classification_head.parameters())
    return sorted({int(n.split(".")[1]) for n, p in model.named_parameters() if p.grad is not None and n.startswith("model.")})


@pytest.mark.parametrize(("head", "last"), [("guided", 4), ("both", 9)])
def test_classification_moves_nothing_behind_the_layers_that_it_reads(head, last):
    model = make_model(head)
    assert moved_layers(model) == list(range(last + 1))
    assert model.heads_layers == (4, last) and model.last_shared_weights == "4.cv3.conv.weight"


def test_where_a_balancer_acts_at_the_fork_the_deep_layer_is_read_without_gradient():
    model = make_model("both")
    model.fork = lambda shared: (shared.view_as(shared), shared.view_as(shared))
    assert moved_layers(model) == list(range(5))


@pytest.mark.parametrize("layer", [9, 17])
def test_both_may_see_the_boxes_in_any_layer(layer):
    """The gradients are measured at the first weights behind which the tasks share no more."""
    model = JointDetectionModel("yolov5n.yaml", nc=4, classification_names=["a", "b"], head="both", shared_layer=layer).train()
    assert (model.deep_layer, model.last_shared_weights) == (9, "9.cv2.conv.weight")
    assert moved_layers(model)[-1] == layer


def test_both_sees_the_whole_image_in_the_deep_layer_and_the_boxes_in_the_fine_one():
    model, seen = make_model("both").eval(), {}
    for index in (4, 9):
        model.model[index].register_forward_hook(lambda _, __, output, index=index: seen.update({index: output}))
    images, _ = make_batch()
    with torch.no_grad():
        predictions, (_, logits) = model(images)
        head = model.classification_head
        whole = head.linear(average_and_maximum(head.project_deep(seen[9])))
        inside = head.linear_of_regions(head._regions(head.project(seen[4]), predictions))
    assert torch.allclose(logits, whole + inside, atol=1e-5)


def test_what_a_deep_layer_says_is_spread_over_the_fine_cells():
    """The sum over a map stays what it is: places of both layers count by what they add to the logit."""
    model = make_model("both").eval()
    torch.nn.init.zeros_(model.classification_head.linear_of_regions.linear.weight)  # only the whole image speaks
    torch.nn.init.ones_(model.classification_head.linear.linear.weight)
    heat, _ = model.explain(make_batch()[0][:1], [0])
    features = model._run(make_batch()[0][:1]).deep.detach().requires_grad_()
    model.classification_head.linear(average_and_maximum(model.classification_head.project_deep(features))).select(
        1, 0
    ).backward()
    coarse = (features.grad.mean((2, 3), keepdim=True) * features.detach()).sum((0, 1))
    cells = heat[0].numel() // coarse.numel()
    assert cells == 16 and heat.any()
    nearest = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1) / cells
    assert torch.corrcoef(torch.stack([nearest.relu().flatten(), heat[0].flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("head", ["guided", "both"])
def test_training_and_inference_look_at_the_same_regions(head):
    model = make_model(head)
    for module in model.modules():  # batch statistics would differ, not the regions
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.eval()
    images, _ = make_batch()
    with torch.no_grad():
        in_training = model(images)[1]
        in_inference = deepcopy(model).eval()(images)[1][1]
    assert torch.allclose(in_training, in_inference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cfg", "layer"), [("yolov5n.yaml", 4), ("yolov5n6.yaml", 4), ("hub/yolov3-tiny.yaml", 8)])
def test_the_finest_cells_that_the_detector_uses(cfg, layer):
    """Stride 8 in YOLOv5, the last such layer of the backbone; 16 in YOLOv3-tiny."""
    model = JointDetectionModel(cfg.split("/")[-1], nc=2, classification_names=["a", "b"], head="guided")
    assert model.shared_layer == layer
    assert model.classification_head.cell == float(model.stride.min())


def test_one_image_can_be_trained_on():
    """Its one row of pooled features has no statistics of its own."""
    guided = head().train()
    assert torch.isfinite(guided(torch.rand(1, 6, 4, 4), torch.rand(1, 10, 7))).all()
    assert not guided.linear.norm.norm.running_mean.any() and guided.normalise_regions.norm.running_mean.any()


def test_pooled_features_are_normalised_over_the_rows():
    norm, rows = PooledNorm(5), 3 + 0.01 * torch.randn(4, 6, 5)
    found = norm(rows).flatten(0, 1)
    assert torch.allclose(found.mean(0), torch.zeros(5), atol=1e-3)
    assert torch.allclose(norm.norm.running_mean, 0.1 * rows.mean((0, 1)))
    assert torch.allclose(
        found, (rows.flatten(0, 1) - rows.mean((0, 1))) / (rows.var((0, 1), unbiased=False) + 1e-5).sqrt(), atol=1e-3
    )


def test_a_layer_may_be_named_in_the_neck():
    model = JointDetectionModel("yolov5n.yaml", nc=2, classification_names=["a", "b"], shared_layer=17, head="guided")
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 64))[1][1].shape == (1, 2)
    assert model.shared_parameter is model.model[17].cv3.conv.weight


def test_stripped(tmp_path):
    """The detection half is what it is without a head."""
    data = write_joint_dataset(tmp_path / "data", images=12)
    pictures = read_images(data.parent / "images/val", 64)
    guided = write_checkpoint(tmp_path / "guided.pt", pictures, head="guided")
    half = torch.load(strip(guided).output, weights_only=False)["model"]
    assert type(half) is upstream("models.yolo").DetectionModel
