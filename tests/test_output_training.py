"""Several image outputs beside detection: the loss and the balancers over all tasks, and training end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from joint_data import write_joint_dataset
from torch import Tensor
from torch.nn import functional as F
from torchjd.aggregation import CAGrad as ReferenceCAGrad
from torchjd.aggregation import PCGrad as ReferencePCGrad

from gradnorm_plugin import FixedWeights, GradNorm, GradNormLoss, JointDetectionModel, JointTargets
from gradnorm_plugin.balancing import Bisector, CAGrad, PCGrad, preset
from gradnorm_plugin.evaluation.command import main as val
from gradnorm_plugin.model.joint import HEADS
from gradnorm_plugin.outputs import OUTPUT_KINDS, Value, describe_outputs, read_outputs
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.run import main, train
from gradnorm_plugin.training.start import fit, read_start
from gradnorm_plugin.upstream.gateway import upstream

HYP = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}
OUTPUTS = read_outputs(
    {
        "view": {"classes": ["a", "b", "c"]},
        "finding": {"labels": ["x", "y"]},
        "ef": {"value": "percent", "range": [0, 100]},
    }
)
TASKS = ("detection", "view", "finding", "ef")


def make_model(head: str = "pooled") -> JointDetectionModel:
    torch.manual_seed(0)
    model = JointDetectionModel("yolov5n.yaml", nc=4, head=head, outputs=OUTPUTS)
    model.hyp = dict(HYP)
    for module in model.classification_head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.classification_head.class_layers():
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model.train()


def make_batch(seed: int = 0) -> tuple[Tensor, JointTargets]:
    """Four images; each output is unlabelled on one of them."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(12, 6, generator=generator) * 0.4 + 0.3
    boxes[:, 0], boxes[:, 1] = torch.arange(12) % 4, torch.arange(12) % 4
    nan = float("nan")
    targets = {
        "view": torch.tensor([0, 2, -1, 1]),
        "finding": torch.tensor([[1.0, 0.0], [nan, nan], [0.0, 1.0], [0.0, 0.0]]),
        "ef": torch.tensor([12.5, 55.0, 99.0, nan]),
    }
    return torch.rand(4, 3, 64, 64, generator=generator), JointTargets(boxes, targets)


def by_hand(model: JointDetectionModel, images: Tensor, targets: JointTargets) -> list[Tensor]:
    """Each task's loss of the batch."""
    detection, logits = model(images)
    view, finding, ef = logits.split([3, 2, 1], 1)
    said = targets.outputs
    in_view, with_finding, with_ef = said["view"] >= 0, ~said["finding"][:, 0].isnan(), ~said["ef"].isnan()
    return [
        upstream("utils.loss").ComputeLoss(model)(detection, targets.boxes)[0],
        F.cross_entropy(view[in_view], said["view"][in_view]).reshape(1) * 4,
        F.binary_cross_entropy_with_logits(finding[with_finding], said["finding"][with_finding]).reshape(1) * 4,
        F.smooth_l1_loss(ef[with_ef, 0].sigmoid(), said["ef"][with_ef] / 100, beta=0.1).reshape(1) * 4,
    ]


@pytest.mark.parametrize("head", HEADS)
def test_norms_and_cosines_equal_an_autograd_call_for_each_task(head):
    images, targets = make_batch()
    model = make_model(head)
    losses = by_hand(model, images, targets)
    expected = [torch.autograd.grad(loss, model.shared_parameter, retain_graph=True)[0].flatten() for loss in losses]
    weights = (2.0, 0.5, 0.25, 4.0)
    criterion = GradNormLoss(model, FixedWeights(weights, interval=1))
    loss, _ = criterion(model(images), targets)
    torch.testing.assert_close(loss, sum(w * part for w, part in zip(weights, losses, strict=True)))
    loss.backward()
    found = criterion.settle()
    assert [float(norm) for norm in found.norms] == pytest.approx([float(g.norm()) for g in expected], rel=1e-3)
    for i, first in enumerate(expected):
        for j, second in enumerate(expected):
            assert float(found.cosines[i, j]) == pytest.approx(float(F.cosine_similarity(first, second, 0)), abs=2e-3)
    assert float(found.cosine) == pytest.approx(float(found.cosines.min()))


def test_the_first_task_alone_when_all_outputs_weigh_nothing():
    images, targets = make_batch()
    model = make_model()
    GradNormLoss(model, FixedWeights((1, 0, 0, 0)))(model(images), targets)[0].backward()
    assert all(not p.grad.any() for p in model.classification_parameters() if p.grad is not None)


def test_weights_of_the_shared_scope_undo_nothing_between_outputs():
    images, targets = make_batch()
    gradients = {}
    for scope in ("loss", "shared"):
        model = make_model()
        GradNormLoss(model, FixedWeights((1.0, 0.5, 0.25, 0.125)), weight_scope=scope)(model(images), targets)[0].backward()
        gradients[scope] = {name: p.grad for name, p in model.named_parameters()}
    for name, weight in zip(("view", "finding", "ef"), (0.5, 0.25, 0.125), strict=True):
        key = f"classification_head.heads.{name}.linear.weight"
        torch.testing.assert_close(gradients["loss"][key], weight * gradients["shared"][key])


def test_a_batch_without_a_label_for_one_output_teaches_the_balancer_nothing():
    images, targets = make_batch()
    targets.outputs["ef"][:] = float("nan")
    criterion = GradNormLoss(make_model(), GradNorm(4, **{**preset("report", 4), "warmup": 0, "interval": 1}))
    before = criterion.balancer.weights.clone()
    criterion(criterion.model(images), targets)[0].backward()
    assert criterion.settle() is None and torch.equal(criterion.balancer.weights, before)
    assert criterion.losses.labelled == (3, 3, 0) and criterion.losses.outputs[2] == 0


def test_a_balancer_for_another_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match="the balancer has 2 weights, expected 4"):
        GradNormLoss(make_model(), GradNorm())


def test_presets_treat_every_further_output_as_the_second_task():
    assert preset("report", 4)["initial_weights"] == (1.0, 0.01, 0.01, 0.01)
    assert preset("report", 4)["weight_ranges"] == ((1.0, 4.0), *[(0.01, 0.4)] * 3)
    assert preset("paper", 4)["weight_sum"] == 4 and preset("report", 4)["weight_sum"] == 4
    assert preset("report") == preset("report", 2)


@pytest.mark.parametrize("seed", range(6))
def test_cagrad_and_pcgrad_with_four_tasks(seed):
    gradients = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gram = gradients @ gradients.T
    mean, c = gradients.mean(0), 0.4
    found = CAGrad(num_tasks=4).factors(gram) @ gradients / 4
    reference = ReferenceCAGrad(c=c, norm_eps=1e-9)(gradients)
    assert float((found - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-6), "within the radius"
    assert float((gradients @ found).min()) >= float((gradients @ reference).min()) - 2e-3 * float(gram.diagonal().max())
    conflict_free = torch.eye(4, dtype=torch.float64) * 2
    assert PCGrad(num_tasks=4).factors(conflict_free).tolist() == [1, 1, 1, 1]


def test_pcgrad_with_three_tasks_is_the_papers_in_one_of_its_orders():
    gradients = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = PCGrad(num_tasks=3).factors(gradients @ gradients.T) @ gradients
    drawn = []
    for seed in range(40):  # the reference draws its orders
        torch.manual_seed(seed)
        drawn.append(ReferencePCGrad()(gradients))
    assert min(float((found - one).norm()) for one in drawn) < 1e-9


def test_the_bisector_brings_all_to_the_first_length():
    gram = torch.diag(torch.tensor([4.0, 1.0, 16.0, 9.0]))
    assert Bisector(num_tasks=4).factors(gram).tolist() == pytest.approx([1, 2, 0.5, 2 / 3])


@dataclass(frozen=True)
class Whole(Value):
    """A kind of the test's own: a whole number."""

    kind = "whole"

    @classmethod
    def from_description(cls, name: str, description: Mapping[str, Any]) -> Whole:
        return cls(name, description["whole"], 0.0, 10.0)

    @property
    def description(self) -> dict[str, Any]:
        return {"whole": self.unit}

    def parse(self, fields: Any) -> tuple[float, ...]:
        (value,) = super().parse(fields)
        if value != int(value):
            raise ValueError(f"`{self.name}` is {fields[0]}, expected a whole number")
        return (value,)

    def decide(self, answer: np.ndarray) -> tuple[float, ...]:
        return (float(round(float(answer[0]))),)


def write_data(folder: Path, outputs: Mapping[str, Any], images: int = 8) -> Path:
    """The joint set of the other tests with further outputs; every third image lacks each line."""
    data = write_joint_dataset(folder, images=images)
    lines = {"classes": "1 0", "labels": "0 1", "value": "12.5", "whole": "7"}
    for split in ("train", "val"):
        for index, file in enumerate(sorted((folder / "labels" / split).glob("*.txt"))):
            said = [f"{n}: {lines[next(k for k in lines if k in d)]}" for n, d in outputs.items() if index % 3 or index == 0]
            if index % 2:
                said = [line.replace("1 0", "0 1").replace("12.5", "81") for line in said]
            file.write_text("\n".join([*said, file.read_text()]))
    description = {**yaml.safe_load(data.read_text()), "image_outputs": dict(outputs)}
    data.write_text(yaml.safe_dump(description, sort_keys=False))
    return data


EXTRA = {"finding": {"labels": ["x", "y"]}, "ef": {"value": "percent", "range": [0, 100]}}


def flags(data: Path, *more: str) -> list[str]:
    return [
        "--data", str(data), "--cfg", "yolov5n.yaml", "--weights", "", "--imgsz", "64", "--batch-size", "4", "--epochs", "2",
        "--workers", "0", "--device", "cpu", "--project", str(data.parent / "runs"), "--name", "r", "--exist-ok",
        "--gradnorm-interval", "1", "--log-interval", "1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three image outputs, trained for two epochs."""
    data = write_data(tmp_path_factory.mktemp("outputs"), EXTRA)
    main(flags(data, "--gradnorm-warmup", "1"))
    return data.parent / "runs/r"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_tables_have_every_task(run):
    epochs, updates, batches = rows(run / "joint_results.csv"), rows(run / "gradnorm.csv"), rows(run / "batches.csv")
    assert len(epochs) == 2 and updates and batches
    for task in ("detection", "classification", "finding", "ef"):
        assert float(epochs[-1][f"{task}_weight"]) > 0 and float(updates[-1][f"{task}_norm"]) > 0
    for column in ("balanced_accuracy", "finding_macro_F1", "finding_mean_AP", "ef_MAE", "train_ef_loss", "val_finding_loss"):
        assert np.isfinite(float(epochs[-1][column])), column
    pairs = [name for name in updates[0] if name.startswith("cosine_")]
    assert len(pairs) == 6 and float(updates[0]["cosine"]) == min(float(updates[0][name]) for name in pairs)
    assert float(batches[0]["finding"]) > 0
    assert sum(float(epochs[-1][f"{task}_weight"]) for task in ("detection", "classification", "finding", "ef")) == (
        pytest.approx(4, rel=1e-4)
    )


def test_facts_figures_and_pictures(run):
    facts, figures = (json.loads((run / name).read_text()) for name in ("run.json", "joint_metrics.json"))
    assert [output["task"] for output in facts["image_outputs"]] == ["classification", "finding", "ef"]
    assert facts["data"]["train"]["image_outputs"]["ef"]["labelled"] == 5 + 1
    assert set(figures["outputs"]) == {"finding", "ef"} and figures["classification"]["images"] == 3
    assert figures["outputs"]["ef"]["intervals"]["MAE"] and len(figures["outputs"]["finding"]["classes"]) == 2
    for picture in ("finding.png", "ef.png", "gradnorm.png", "joint_results.png"):
        assert (run / picture).stat().st_size > 5000, picture


def test_val_says_the_same_and_writes_label_files(run, capsys):
    data = run.parents[1] / "joint.yaml"
    weights = str(run / "weights/best.pt")
    val(["--data", str(data), "--weights", weights, "--device", "cpu", "--workers", "0", "--bootstrap", "50",
         "--project", str(run.parent), "--name", "v", "--exist-ok", "--save-txt", "--save-json"])  # fmt: skip
    trained, measured = (json.loads((run.parent / name / "joint_metrics.json").read_text()) for name in ("r", "v"))
    for output in ("finding", "ef"):
        for figure in ("macro_F1", "MAE", "loss"):
            if figure in trained["outputs"][output]:
                assert measured["outputs"][output][figure] == pytest.approx(trained["outputs"][output][figure], rel=1e-3)
    text = next((run.parent / "v/labels").glob("*.txt")).read_text()
    assert "finding: " in text and "ef: " in text and set(text.splitlines()[-1].split()) == {"0", "1"}
    predicted = json.loads((run.parent / "v/classification_predictions.json").read_text())
    assert predicted[0]["outputs"]["ef"]["unit"] == "percent" and "predicted" in predicted[0]


def test_training_goes_on_from_it_with_other_outputs_by_name(run):
    file = run / "weights/best.pt"
    start = read_start(file)
    assert [output.name for output in start.outputs] == ["class", "finding", "ef"]
    outputs = read_outputs({"ef": EXTRA["ef"], "finding": {"labels": ["y", "z"]}})
    model = JointDetectionModel("yolov5n.yaml", nc=4, outputs=outputs)
    weights = torch.load(file, weights_only=False)["model"].float().state_dict()
    fitted = fit(weights, model, start, list(start.box_names))
    old = weights["classification_head.heads.finding.linear.weight"]
    key = "classification_head.heads.finding.linear.weight"
    assert torch.equal(fitted[key][0], old[1]) and torch.equal(fitted[key][1], model.state_dict()[key][1])
    assert torch.equal(fitted["classification_head.heads.ef.linear.bias"], weights["classification_head.heads.ef.linear.bias"])


def test_an_interrupted_run_goes_on_exactly(tmp_path):
    whole = write_data(tmp_path / "whole", EXTRA)
    main(flags(whole, "--noplots", "--gradnorm-warmup", "1"))
    cut = write_data(tmp_path / "cut", EXTRA)

    class Stop(Exception):
        pass

    def stop(self: Any, last: Any, epoch: int, *_: Any) -> None:
        if epoch == 0:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstream("utils.loggers").Loggers, "on_model_save", stop)
        with pytest.raises(Stop):
            main(flags(cut, "--noplots", "--gradnorm-warmup", "1"))
    main(["--resume", str(cut.parent / "runs/r/weights/last.pt")])
    found, expected = (rows(data.parent / "runs/r/gradnorm.csv") for data in (cut, whole))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    first = [row for row in found if row["epoch"] == "0"]
    assert first == [row for row in expected if row["epoch"] == "0"]


def test_a_third_output_and_a_kind_of_ones_own_need_no_change_anywhere(tmp_path, monkeypatch):
    monkeypatch.setitem(OUTPUT_KINDS, Whole.kind, Whole)
    outputs = {"probe": {"classes": ["c", "d"]}, "count": {"whole": "pieces"}, **EXTRA}
    data = write_data(tmp_path, outputs)
    trained = train(parse_options(flags(data, "--epochs", "1", "--balancer", "cagrad")))
    assert [output.name for output in trained.outputs] == ["class", "probe", "count", "finding", "ef"]
    assert describe_outputs(trained.outputs)["count"] == {"whole": "pieces"}
    figures = json.loads((tmp_path / "runs/r/joint_metrics.json").read_text())
    assert figures["outputs"]["count"]["MAE"] is not None and figures["outputs"]["probe"]["balanced_accuracy"] is not None
    assert (tmp_path / "runs/r/report.html").is_file()
    bad = next((tmp_path / "labels/train").glob("*.txt"))
    bad.write_text("count: 1.5\n")
    with pytest.raises(ValueError, match="expected a whole number"):
        train(parse_options(flags(data)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--initial-weights", "1", "0.1", "0.1"], "--initial-weights is for 3 tasks, but the data have 4"),
        (["--fitness-share", "0.1", "0.1"], "--fitness-share has 2 values, but there are 3 image outputs"),
        (["--weight-ranges", "1", "4", "0.1"], "a lowest and a highest"),
    ],
)
def test_flags_for_another_number_of_outputs_are_told(tmp_path, capsys, more, message):
    data = write_data(tmp_path, EXTRA)
    with pytest.raises(SystemExit):
        main(flags(data, *more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_gradient_of_0_has_no_cosine_and_the_others_keep_theirs():
    images, targets = make_batch()
    model = make_model()
    for layer in model.heads[2].class_layers():
        torch.nn.init.zeros_(layer.weight)
    criterion = GradNormLoss(model, FixedWeights((1, 1, 1, 1), interval=1))
    criterion(model(images), targets)[0].backward()
    found = criterion.settle()
    assert found.norms[3] == 0 and found.cosines[0, 3].isnan()
    assert float(found.cosine) == float(torch.stack([found.cosines[0, 1], found.cosines[0, 2], found.cosines[1, 2]]).min())
