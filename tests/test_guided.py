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
from gradnorm_plugin.model.pooled_linear import PooledNorm
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


def test_classification_moves_nothing_behind_the_shared_layer():
    model = make_model("guided")
    images, _ = make_batch()
    model(images)[1].square().sum().backward()
    moved = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and name.startswith("model.")}
    assert moved == {"0", "1", "2", "3", "4"}
    assert all(p.grad is not None for p in model.classification_head.parameters())


def test_training_and_inference_look_at_the_same_regions():
    model = make_model("guided")
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
