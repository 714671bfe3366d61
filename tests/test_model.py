"""The joint model: upstream's network untouched, a head beside it, and the outputs that upstream's code expects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from test_loss import HYP

from gradnorm_plugin import GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.model import HEADS
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import swapped, upstream

NAMES = {0: "PSAX", 1: "PLAX", 2: "A4C"}
DetectionModel = upstream("models.yolo").DetectionModel
YOLOV5N = upstream("utils.general").check_yaml("yolov5n.yaml")


@pytest.fixture(scope="module")
def model() -> JointDetectionModel:
    torch.manual_seed(0)
    return JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES)


def test_detection_half_is_upstreams(model):
    torch.manual_seed(0)
    plain = DetectionModel(YOLOV5N, nc=4)
    ours = {key: value for key, value in model.state_dict().items() if not key.startswith("classification_head.")}
    assert ours.keys() == plain.state_dict().keys() and model.nc == 4  # upstream's val.py reads it
    assert all(torch.equal(value, ours[key]) for key, value in plain.state_dict().items())
    images = torch.rand(2, 3, 64, 64)
    for mode in (False, True):
        expected, found = deepcopy(plain).train(mode)(images), deepcopy(model).train(mode)(images)[0]
        expected, found = (expected, found) if mode else ([expected[0]], [found])
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_head_leaves_the_random_numbers_where_they_were():
    torch.manual_seed(3)
    JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES)
    ours = torch.rand(1)
    torch.manual_seed(3)
    DetectionModel(YOLOV5N, nc=4)
    assert torch.equal(ours, torch.rand(1))


def test_yolov5s_has_the_designs_size():
    small = JointDetectionModel("yolov5s.yaml", nc=4, classification_names=NAMES)
    detection = [p for name, p in small.named_parameters() if not name.startswith("classification_head.")]
    assert sum(p.numel() for p in detection) == 7_030_417
    assert small.shared_layer == 9
    assert small.shared_parameter is small.model[9].cv2.conv.weight


@pytest.mark.parametrize("cfg", ["yolov5s.yaml", "yolov5m.yaml", "yolov5l.yaml", "yolov5x.yaml", "yolov5n6.yaml"])
def test_any_cfg_of_upstream(cfg):
    model = JointDetectionModel(cfg, nc=2, classification_names=["a", "b"]).eval()
    with torch.no_grad():
        predictions, (_, logits) = model(torch.rand(1, 3, 128, 128))
    assert predictions.shape[2] == 7
    assert logits.shape == (1, 2)


def test_outputs_of_each_mode(model):
    images = torch.rand(2, 3, 64, 64)
    detection, logits = deepcopy(model).train()(images)
    assert [tuple(d.shape) for d in detection] == [(2, 3, 8, 8, 9), (2, 3, 4, 4, 9), (2, 3, 2, 2, 9)]
    assert logits.shape == (2, 3)
    ready = deepcopy(model).eval()
    with torch.no_grad():
        predictions, (detection, logits) = ready(images)
        assert predictions.shape == (2, 3 * (64 + 16 + 4), 9)
        augmented, (_, averaged) = ready(images, augment=True)
        assert augmented.shape[2] == 9 and averaged.shape == (2, 3)
        ready.model[-1].export = True
        exported, probabilities = ready(images)
    assert torch.equal(exported, predictions)
    assert torch.allclose(probabilities, logits.softmax(1))


def test_no_hook_stays_on_the_network(model):
    model(torch.rand(2, 3, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_threads_that_share_a_model_keep_to_their_own_images(model):
    ready, images = deepcopy(model).train(), torch.rand(2, 1, 3, 64, 64) * torch.tensor([1, 0.1]).view(2, 1, 1, 1, 1)
    for layer in ready.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        ready(images.flatten(0, 1))  # with the statistics of these images their logits differ
        ready.eval()
        expected = [ready(image)[1][1] for image in images]

    def repeat(image: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            return [ready(image)[1][1] for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(repeat, images))
    assert not torch.allclose(*expected, rtol=0, atol=1e-3)
    for logits, reference in zip(found, expected, strict=True):
        assert all(torch.equal(row, reference) for row in logits)


@pytest.mark.parametrize("head", HEADS)
def test_torch_export_gives_the_same_network(head):
    torch.manual_seed(0)
    ready = JointDetectionModel("yolov5n.yaml", nc=2, classification_names=NAMES, head=head).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        predictions, (_, logits) = ready(images)
        found, (_, found_logits) = torch.export.export(ready, (images,), strict=False).module()(images)
    assert torch.equal(found, predictions) and torch.equal(found_logits, logits)


def test_pytorchs_own_onnx_export_gives_the_same_network(tmp_path):
    """With the pooled head; test_predict_outputs.py does the same with guided ones."""
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    ready = JointDetectionModel("yolov5n.yaml", nc=2, classification_names=NAMES, head="pooled").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        predictions, (_, logits) = ready(images)
    torch.onnx.export(ready, (images,), tmp_path / "x.onnx", dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    found, *_, found_logits = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.allclose(found, predictions, atol=1e-3) and np.allclose(found_logits, logits, atol=1e-5)


def test_class_names_and_layer_are_checked():
    with pytest.raises(ValueError, match="classification_names is empty"):
        JointDetectionModel("yolov5n.yaml", nc=4)
    with pytest.raises(ValueError, match="shared_layer is 99, expected 0 to 23"):
        JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES, shared_layer=99)
    with pytest.raises(ValueError, match="head is 'large', expected one of pooled, guided, both"):
        JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES, head="large")


def test_channels_last_is_the_same_network():
    torch.manual_seed(0)
    plain = JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES).train()
    plain.classification_head.dropout.p = 0.0
    other, images, seen = deepcopy(plain), torch.rand(2, 3, 64, 64), []
    other.channels_last = True
    handle = other.model[4].register_forward_hook(lambda _, __, output: seen.append(output))
    for expected, found in zip([*plain(images)[0]], [*other(images)[0]], strict=True):
        assert torch.allclose(expected, found, rtol=1e-3, atol=1e-3)
    handle.remove()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.is_contiguous() for parameter in other.parameters())


@pytest.mark.parametrize("network", [{}, {"head": "both"}, {"backbone": "dual"}, {"backbone": "dual", "head": "both"}])
def test_bfloat16_reaches_the_layers_but_neither_boxes_nor_heads_nor_weights(network):
    torch.manual_seed(0)
    model = JointDetectionModel("yolov5n.yaml", nc=4, classification_names=NAMES, **network).train()
    images, seen = torch.rand(4, 3, 64, 64), {}
    for name in ("model.4", "model.24.m.0", "classification_head"):
        model.get_submodule(name).register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
    exact = model.eval()(images)[0].detach()
    model.in_bfloat16 = True
    rounded, (_, logits) = model(images)
    assert 0 < (rounded - exact)[..., :4].abs().max() < 1  # pixels
    detection, logits = model.train()(images)
    assert {output.dtype for output in (*detection, logits, rounded)} == {torch.float32}
    assert seen["model.4"][1].dtype == torch.bfloat16
    assert seen["model.24.m.0"][0].dtype == seen["classification_head"][0].dtype == torch.float32
    (logits.sum() + sum(output.sum() for output in detection)).backward()
    assert all(parameter.grad.dtype == parameter.dtype == torch.float32 for parameter in model.parameters())
    assert not deepcopy(model).in_bfloat16  # what is validated or saved says for itself


def _networks() -> dict[str, dict[str, Any]]:
    """Upstream's model yamls by name, narrow and shallow; of those that differ in size only, the first."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((find_checkout() / "models").rglob("*.yaml")):
        network = yaml.safe_load(file.read_text(errors="ignore"))
        if "Detect" in str(network.get("head")):
            network |= {"width_multiple": 0.125, "depth_multiple": 0.1}
            found |= {} if network in found.values() else {file.stem: network}
    return found


NETWORKS = _networks()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_upstream_trains_both_tasks(name, head):
    convolution = upstream("models.common").Conv
    with swapped(convolution, default_act=convolution.default_act):  # a yaml with an activation sets it for all that follow
        model = JointDetectionModel(NETWORKS[name], nc=2, classification_names=["a", "b"], head=head)
    model.hyp = dict(HYP)
    criterion = GradNormLoss(model, GradNorm(interval=1))
    side = int(model.stride.max())
    boxes = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3], [1, 0, 0.4, 0.6, 0.3, 0.5]])
    loss, _ = criterion(model.train()(torch.rand(2, 3, 2 * side, 2 * side)), JointTargets(boxes, torch.tensor([0, 1])))
    loss.backward()
    norms = torch.stack(tuple(criterion.settle().norms))
    assert len(NETWORKS) > 10 and torch.isfinite(norms).all() and (norms > 0).all()


@pytest.mark.parametrize(("layer", "weights"), [(12, "10.conv.weight"), (11, "10.conv.weight"), (18, "16.conv.weight")])
def test_a_layer_without_weights_is_measured_at_the_last_ones_before_it(layer, weights):
    """YOLOv3-tiny's 11 and 12 are pooling and padding; its 18 joins an upsampled 16 and 8."""
    model = JointDetectionModel(NETWORKS["yolov3-tiny"], nc=2, classification_names=["a", "b"], shared_layer=layer)
    assert model.shared_parameter is model.model.get_parameter(weights)
