"""`--backbone dual`: nothing is shared, and everything that works with one backbone works with two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from joint_checkpoint import IMAGE_CLASSES, read_images, write_checkpoint
from joint_data import write_joint_dataset
from torch import Tensor, nn
from upstream_driver import run as run_script

from gradnorm_plugin import FixedWeights, GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.evaluation.command import main as val
from gradnorm_plugin.loss import unshared_parameters
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.joint import HEADS
from gradnorm_plugin.predict.predictor import Predictor
from gradnorm_plugin.strip import strip
from gradnorm_plugin.training.run import main
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import swapped, upstream

SIZE = 64
PREFIXES = ("classification_head.", "classification_backbone.")
YOLOV5N = upstream("utils.general").check_yaml("yolov5n.yaml")


def build(seed: int = 0, **more: object) -> JointDetectionModel:
    torch.manual_seed(seed)
    return JointDetectionModel(YOLOV5N, nc=2, classification_names=IMAGE_CLASSES, **{"backbone": "dual", **more})


def parts(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Parameters by name: of detection, of classification."""
    ours = {name: p for name, p in model.named_parameters() if name.startswith(PREFIXES)}
    return {name: p for name, p in model.named_parameters() if name not in ours}, ours


def values(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def loaded(file: Path) -> JointDetectionModel:
    return torch.load(file, weights_only=False)["model"].float()


@pytest.fixture(scope="module")
def model() -> JointDetectionModel:
    return build()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_detection_half_and_random_numbers_are_upstreams(model, images):
    torch.manual_seed(0)
    plain = upstream("models.yolo").DetectionModel(YOLOV5N, nc=2)
    after = torch.rand(1)
    build()
    assert torch.equal(torch.rand(1), after)
    detector = {name: value for name, value in model.state_dict().items() if not name.startswith(PREFIXES)}
    assert same(detector, plain.state_dict())
    for expected, found in zip(plain.train()(images), deepcopy(model).train()(images)[0], strict=True):
        assert torch.equal(expected, found)


def test_the_head_starts_as_that_of_a_shared_model(model):
    assert same(model.classification_head.state_dict(), build(backbone="shared").classification_head.state_dict())


def test_second_backbone_is_the_first_once_more_with_weights_of_its_own(model):
    first = {f"model.{name}": value for name, value in model.model[:10].state_dict().items()}
    second = model.classification_backbone.state_dict()
    assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in second.items()}
    assert not any(torch.equal(value, second[name]) for name, value in first.items() if name.endswith("conv.weight"))
    norms = [m for m in model.classification_backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((m.eps, m.momentum) == (1e-3, 0.03) for m in norms)  # upstream's own


def test_the_head_sees_nothing_of_the_detector(model, images):
    changed = deepcopy(model).eval()
    expected, classified = changed(images)[0], changed(images)[1][1]
    for name, parameter in parts(changed)[0].items():
        parameter.data.add_(0.01 if "bn" in name else 0.1)
    assert torch.equal(changed(images)[1][1], classified) and not torch.equal(changed(images)[0], expected)


@pytest.mark.parametrize("layer", [0, 4, 8])
def test_the_head_may_hang_on_any_layer_of_the_backbone(layer, images):
    model = build(shared_layer=layer).eval()
    assert len(model.classification_backbone.model) == layer + 1
    assert model(images)[1][1].shape == (3, 3)


def test_augmented_and_exported_outputs(model, images):
    ready = deepcopy(model).eval()
    with torch.no_grad():
        predictions, (_, logits) = ready(images)
        assert ready(images, augment=True)[1][1].shape == logits.shape
        ready.model[-1].export = True
        exported, probabilities = ready(images)
    assert torch.equal(exported, predictions) and torch.allclose(probabilities, logits.softmax(1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("task", ["detection", "classification"])
def test_a_step_of_one_task_leaves_the_other_as_it_is(images, task, head):
    trained = build(head=head).train()
    moving, still = parts(trained) if task == "detection" else parts(trained)[::-1]
    before = values(moving), values(still)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    detection, logits = trained(images)
    (sum(d.square().mean() for d in detection) if task == "detection" else logits.square().sum()).backward()
    assert all(p.grad is None for p in still.values())
    assert all(p.grad is not None and p.grad.any() for p in moving.values() if p.ndim > 1)
    optimizer.step()
    assert same(values(still), before[1]) and not same(values(moving), before[0])


def test_the_parameters_of_each_task_are_known(model):
    detection, classification = parts(model)
    assert {id(p) for p in model.classification_parameters()} == {id(p) for p in classification.values()}
    found = unshared_parameters(model)
    assert [{id(p) for p in part} for part in found] == [{id(p) for p in part.values()} for part in (detection, classification)]
    shared = build(backbone="shared")
    assert [id(p) for p in shared.classification_parameters()] == [id(p) for p in shared.classification_head.parameters()]
    assert model.shared_parameter is None and shared.shared_parameter is not None


@pytest.mark.parametrize("balancer", [FixedWeights((1.0, 1.0)), GradNorm(interval=1, warmup=1)], ids=lambda b: type(b).__name__)
def test_the_loss_measures_nothing_and_differentiates_both(model, images, balancer):
    trained = deepcopy(model).train()
    trained.hyp = yaml.safe_load(Path(upstream("utils.general").check_file("hyp.scratch-low.yaml")).read_text())
    criterion, weights = GradNormLoss(trained, balancer), balancer.weights.tolist()
    boxes = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.4]])
    for _ in range(3):
        loss, _ = criterion(trained(images), JointTargets(boxes, torch.tensor([0, 1, 2])))
        loss.backward()
    assert criterion.settle() is None and balancer.weights.tolist() == weights
    assert all(p.grad.any() for part in parts(trained) for p in part.values() if p.ndim > 1)


def test_fused_outputs_are_the_same(images, tmp_path):
    model = loaded(write_checkpoint(tmp_path / "dual.pt", images, backbone="dual")).eval()
    fused = deepcopy(model).fuse()
    assert not [m for m in fused.classification_backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        (boxes, (_, logits)), (expected, (_, expected_logits)) = fused(images), model(images)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(boxes, expected, rtol=1e-4, atol=1e-3)  # in pixels


def as_upstream_loads(model: nn.Module, file: Path) -> None:
    weights = upstream("utils.trust").load_checkpoint(file)["model"].float().state_dict()
    model.load_state_dict(upstream("utils.general").intersect_dicts(weights, model.state_dict()), strict=False)


@pytest.mark.parametrize("joint", [False, True], ids=["plain", "shared"])
def test_weights_of_one_backbone_start_both(images, tmp_path, joint):
    saved = loaded(write_checkpoint(tmp_path / "one.pt", images, joint=joint)).state_dict()
    model = build(seed=5)
    as_upstream_loads(model, tmp_path / "one.pt")
    found = model.state_dict()
    for name, value in saved.items():
        assert torch.equal(found[name], value)
    for name, value in model.classification_backbone.state_dict().items():
        assert torch.equal(value, saved[name])
    assert not {p.data_ptr() for p in parts(model)[0].values()} & {p.data_ptr() for p in parts(model)[1].values()}


def test_weights_of_two_backbones_are_restored(images, tmp_path):
    saved = loaded(write_checkpoint(tmp_path / "dual.pt", images, backbone="dual")).state_dict()
    model = build(seed=5)
    as_upstream_loads(model, tmp_path / "dual.pt")
    assert same(model.state_dict(), saved)
    assert not torch.equal(saved["classification_backbone.model.9.cv2.conv.weight"], saved["model.9.cv2.conv.weight"])
    model = build(seed=6)
    model.load_state_dict(saved)  # strictly, as upstream does with the averaged weights
    assert same(model.state_dict(), saved)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="backbone is 'both', expected one of shared, dual"):
        build(backbone="both")
    with pytest.raises(ValueError, match="shared_layer is 10, expected 0 to 9"):
        build(shared_layer=10)


def test_strip_leaves_the_detection_half(images, tmp_path):
    joint = write_checkpoint(tmp_path / "dual.pt", images, backbone="dual")
    done = strip(joint)
    found, expected = (torch.load(file, weights_only=False)["model"] for file in (done.output, joint))
    assert type(found) is upstream("models.yolo").DetectionModel
    assert same(found.state_dict(), {k: v for k, v in expected.state_dict().items() if not k.startswith(PREFIXES)})
    assert done.parameters_before - done.parameters == sum(p.numel() for p in expected.classification_parameters())
    assert b"gradnorm" not in done.output.read_bytes()


# Training and what comes after it


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=12)


def flags(data: Path, folder: Path, name: str, *more: str) -> list[str]:
    """A run of 3 batches an epoch at 64 px; later flags win."""
    small = ["--imgsz", str(SIZE), "--epochs", "1", "--batch-size", "4", "--workers", "0", "--noplots"]
    scratch = ["--cfg", "yolov5n.yaml", "--weights", "", "--hyp", "hyp.scratch-low.yaml"]
    return ["--data", str(data), *scratch, *small, "--project", str(folder), "--name", name, *more]


class Interrupted(Exception):
    pass


def interrupt_at_epoch_1(self: object, epoch: int, fitness: object) -> bool:
    if epoch == 1:
        raise Interrupted
    return False


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """A run of 2 epochs, killed in the second and resumed; and the state that it was resumed with."""
    folder, resumed = tmp_path_factory.mktemp("runs"), {}
    with pytest.raises(Interrupted), swapped(upstream("utils.torch_utils").EarlyStopping, __call__=interrupt_at_epoch_1):
        main(flags(data, folder, "dual", "--epochs", "2", "--backbone", "dual"))
    last = folder / "dual/weights/last.pt"
    saved = loaded(last).state_dict()
    load = JointDetectionModel.load_state_dict

    def keep(self: JointDetectionModel, *args: object, **kwargs: object) -> object:
        done = load(self, *args, **kwargs)
        if self.training:  # the averaged weights come second, into a model that never trains
            resumed.update({name: value.clone() for name, value in self.state_dict().items()})
        return done

    with swapped(JointDetectionModel, load_state_dict=keep):
        main(["--resume", str(last)])
    assert same(resumed, saved)
    return folder / "dual", saved


def test_a_run_is_resumed_with_both_backbones(trained):
    folder, before = trained
    after = loaded(folder / "weights/last.pt")
    assert after.backbone == "dual"
    for name in (
        "model.9.cv2.conv.weight",
        "classification_backbone.model.9.cv2.conv.weight",
        "classification_head.linear.weight",
    ):
        assert not torch.equal(after.state_dict()[name], before[name])
    found = json.loads((folder / "run.json").read_text())
    assert found["balancing"] == {"balancer": "fixed", "weights": [1.0, 1.0], "interval": 10, "weight_scope": "loss"}
    assert found["model"]["backbone"] == "dual" and found["model"]["backbone_parameters"] > 1_000_000
    assert found["peak_memory_mb"] > 50
    assert yaml.safe_load((folder / "opt.yaml").read_text())["backbone"] == "dual"


def test_the_report_tells_of_two_backbones(trained):
    text = (trained[0] / "report.md").read_text(encoding="utf-8")
    assert "Classification has a backbone of its own with 1," in text and "The two tasks share no layer" in text
    assert "Last layer that both tasks share" not in text and "is not in the folder" not in text.partition("Data")[0]


def test_val_and_predictor_take_the_checkpoint(trained, data, tmp_path):
    best = trained[0] / "weights/best.pt"
    common = ["--imgsz", str(SIZE), "--batch-size", "4", "--workers", "0", "--bootstrap", "0"]
    val(["--data", str(data), "--weights", str(best), *common, "--project", str(tmp_path), "--name", "val"])
    figures = json.loads((tmp_path / "val/joint_metrics.json").read_text())
    assert figures["classification"]["images"] == 5 and 0 <= figures["classification"]["accuracy"] <= 1
    file = next((data.parent / "images/val").glob("*.jpg"))
    found = Predictor(best, imgsz=SIZE)(cv2.imread(str(file)))
    assert sum(found.image_class.probabilities.values()) == pytest.approx(1)


def test_upstreams_scripts_take_the_checkpoint_and_export_both_outputs(data, tmp_path, monkeypatch):
    pictures = read_images(data.parent / "images/val", SIZE)
    dual = write_checkpoint(tmp_path / "dual.pt", pictures, backbone="dual")
    run = ["--weights", str(dual), "--imgsz", str(SIZE), "--project", str(tmp_path)]
    commands = {
        "val": ["--data", str(data), "--workers", "0", *run],
        "detect": ["--source", str(data.parent / "images/val"), *run],
        "export": ["--include", "onnx", *run[:4]],
    }
    monkeypatch.setattr(sys, "argv", [])  # put back at the end
    monkeypatch.chdir(tmp_path)
    for name, arguments in commands.items():
        assert run_script(str(find_checkout() / f"{name}.py"), arguments), name
    session = onnxruntime.InferenceSession(dual.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    reference = JointBackend(str(dual))
    classified = []
    for picture in pictures:
        boxes, probabilities = session.run(["output0", "classification"], {"images": picture[None].numpy()})
        with torch.no_grad():
            expected_boxes, expected_probabilities = reference(picture[None])
        np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities, expected_probabilities, rtol=0, atol=1e-4)
        classified.append(probabilities)
    assert np.std(classified, axis=0).max() > 0.01  # the images differ in what is compared


def test_frozen_layers_are_frozen_in_both_backbones_and_start_from_the_one_that_is_there(data, tmp_path):
    pictures = read_images(data.parent / "images/train", SIZE)
    start = loaded(write_checkpoint(tmp_path / "shared.pt", pictures)).state_dict()
    main(flags(data, tmp_path, "run", "--backbone", "dual", "--weights", str(tmp_path / "shared.pt"), "--freeze", "9"))
    model = loaded(tmp_path / "run/weights/last.pt")
    for name, parameter in model.classification_backbone.named_parameters():
        frozen, before = not name.startswith("model.9."), start[name].half()
        if frozen or name.endswith("conv.weight"):
            assert [torch.equal(p.half(), before) for p in (parameter, model.state_dict()[name])] == [frozen] * 2, name


def test_without_classification_the_detector_trains_as_beside_one_backbone(data, tmp_path):
    """Promise 1, and with it upstream's own training: bit for bit."""
    with swapped(upstream("train"), strip_optimizer=lambda *_: None):
        for backbone in ("shared", "dual"):
            main(flags(data, tmp_path, backbone, "--backbone", backbone, "--balancer", "fixed", "--initial-weights", "1", "0"))
    assert (tmp_path / "shared/results.csv").read_text() == (tmp_path / "dual/results.csv").read_text()
    shared, dual = (torch.load(tmp_path / name / "weights/last.pt", weights_only=False) for name in ("shared", "dual"))
    for kind in ("model", "ema"):
        found = dual[kind].state_dict()
        for name, value in shared[kind].state_dict().items():
            assert name.startswith(PREFIXES) or torch.equal(value, found[name]), name
