"""What training starts from: a checkpoint's head is inherited, its classes by name, and one line says what was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gradnorm_plugin.model.joint import HEADS, JointDetectionModel
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.start import describe, fit, read_start
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream

NARROW = yaml.safe_load((find_checkout() / "models/yolov5n.yaml").read_text(errors="ignore")) | {"width_multiple": 0.0625}
BOXES, CLASSES = ["cat", "dog", "owl"], ["day", "dusk", "night"]


def build(boxes: list[str] = BOXES, classes: list[str] = CLASSES, seed: int = 0, **options: Any) -> JointDetectionModel:
    torch.manual_seed(seed)
    model = JointDetectionModel(NARROW, nc=len(boxes), classification_names=classes, **options)
    model.names = dict(enumerate(boxes))
    for layer in model.model[-1].m:  # of each class its own
        torch.nn.init.normal_(layer.bias)
    return model.eval()


def save(model: torch.nn.Module, file: Path) -> Path:
    torch.save({"model": model, "ema": None, "epoch": -1, "optimizer": None, "opt": {}}, file)
    return file


def started(file: Path, boxes: list[str], classes: list[str], **options: Any) -> tuple[JointDetectionModel, str]:
    """A new model that took over what it could, as upstream lets it, and the line about it."""
    model, start = build(boxes, classes, seed=1, **options), read_start(file)
    weights = upstream("utils.trust").load_checkpoint(file)["model"].float().state_dict()
    taken = upstream("utils.general").intersect_dicts(fit(weights, model, start, boxes), model.state_dict())
    model.load_state_dict(taken, strict=False)
    return model, describe(taken, model, start, boxes)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_classes_in_another_order_give_the_same_answers(head, tmp_path):
    old = build(head=head)
    boxes, classes = ["owl", "cat", "dog"], ["night", "day", "dusk"]
    new, line = started(save(old, tmp_path / "old.pt"), boxes, classes, head=head)
    images, results = torch.rand(2, 3, 64, 64), []
    for model in (new, old):
        torch.manual_seed(2)  # for dropout
        with torch.no_grad():
            results.append(model.train()(images))  # in training mode, in which an untrained network has a signal
    (found, logits), (expected, expected_logits) = results
    columns = [0, 1, 2, 3, 4, *(5 + BOXES.index(name) for name in boxes)]
    assert all(torch.allclose(ours, theirs[..., columns], atol=1e-4) for ours, theirs in zip(found, expected, strict=True))
    assert torch.allclose(logits, expected_logits[:, [CLASSES.index(name) for name in classes]], atol=1e-4)
    assert logits.std() > 1e-2
    assert "image classes night, day, dusk, matched by name" in line and "matched by name: their order differs" in line


@pytest.mark.parametrize("head", HEADS)
def test_nothing_changes_where_nothing_differs(head, tmp_path):
    old = build(head=head)
    new, line = started(save(old, tmp_path / "old.pt"), BOXES, CLASSES, head=head)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    layer = old.shared_layer
    assert line.endswith(
        f"old.pt: classification head ({head}, layer {layer}) inherited with its 3 image classes; "
        f"box outputs inherited with their 3 classes"
    )


def test_classes_that_the_checkpoint_knows_keep_their_rows(tmp_path):
    old = build()
    new, line = started(save(old, tmp_path / "old.pt"), ["cat", "dog"], ["dawn", "night"])
    rows, fresh = new.classification_head.linear.weight, build(["cat", "dog"], ["dawn", "night"], seed=1)
    assert torch.equal(rows[1], old.classification_head.linear.weight[2])
    assert torch.equal(rows[0], fresh.classification_head.linear.weight[0])
    assert torch.equal(new.classification_head.project[0].weight, old.classification_head.project[0].weight)
    assert "with the image classes night, matched by name; dawn newly initialised; day, dusk dropped" in line
    assert "box outputs newly initialised (3 classes there, 2 here)" in line


def test_no_class_in_common_and_other_box_names(tmp_path):
    new, line = started(save(build(), tmp_path / "old.pt"), ["cat", "fox", "owl"], ["on", "off"])
    assert "inherited except for its last layer: it predicts day, dusk, night, the data has on, off" in line
    assert "box outputs inherited by index, although names differ: dog is now fox" in line


def test_a_head_of_another_kind_and_none_at_all(tmp_path):
    _, line = started(save(build(head="guided"), tmp_path / "guided.pt"), BOXES, CLASSES)
    assert "its classification head (guided, layer 4) is replaced by a new one (pooled, layer 9)" in line
    plain = upstream("models.yolo").DetectionModel(NARROW, nc=3)
    _, line = started(save(plain, tmp_path / "plain.pt"), BOXES, CLASSES)
    assert (
        "it has no classification head, a new one is initialised; box outputs inherited by index, although names differ" in line
    )


@pytest.mark.parametrize(
    ("network", "line", "expected"),
    [
        ({"head": "guided"}, "", ("guided", "shared", 4, "gradnorm")),
        ({"head": "guided", "shared_layer": 17}, "", ("guided", "shared", 17, "gradnorm")),
        ({"head": "guided"}, "--head pooled", ("pooled", "shared", None, "gradnorm")),
        ({"head": "guided"}, "--cfg yolov5n.yaml", ("guided", "shared", None, "gradnorm")),
        ({"head": "both"}, "", ("both", "shared", 4, "gradnorm")),
        ({"shared_layer": 8}, "", ("pooled", "shared", 8, "gradnorm")),
        ({"shared_layer": 8}, "--shared-layer 6", ("pooled", "shared", 6, "gradnorm")),
        ({"backbone": "dual"}, "", ("pooled", "dual", 9, "fixed")),
        ({"backbone": "dual"}, "--backbone shared", ("pooled", "shared", None, "gradnorm")),
    ],
)
def test_the_checkpoints_network_is_taken_over_unless_a_flag_says_otherwise(network, line, expected, tmp_path):
    file = save(build(**network), tmp_path / "joint.pt")
    found = parse_options(["--weights", str(file), *line.split()])
    assert (found.head, found.backbone, found.shared_layer, found.balancer) == expected
    assert parse_options([*line.split(), "--weights", "", "--cfg", "yolov5n.yaml"]).head == "pooled"
