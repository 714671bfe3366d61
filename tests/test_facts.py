"""Facts about a run: counted as upstream counts, and true of the files; `run.json` and `batches.csv` through an interruption."""

from __future__ import annotations

import copy
import csv
import json
import re
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import thop
import torch
from joint_data import IMAGE_CLASSES, write_joint_dataset

from gradnorm_plugin.balancing import PRESETS, CAGrad, DynamicWeightAverage, FixedWeights, GradNorm
from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.model.dual import ClassificationBackbone
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.report.run_files import read_facts
from gradnorm_plugin.training.run import main
from gradnorm_plugin.training.run_file import RunFile, balancing_facts, data_facts, model_facts, peak_memory
from gradnorm_plugin.upstream.gateway import swapped, upstream


def test_the_network_is_counted_as_upstream_counts_it(caplog):
    upstream("models.yolo").DetectionModel(upstream("utils.general").check_yaml("yolov5n.yaml"), nc=4)
    layers, parameters, _, gflops = re.search(
        r"summary: (\d+) layers, (\d+) parameters, (\d+) gradients, ([\d.]+) GFLOPs", caplog.text
    ).groups()
    model = JointDetectionModel("yolov5n.yaml", nc=4, classification_names=["a", "b", "c"])
    found = model_facts(model)
    assert (found["layers"], found["parameters"]) == (int(layers), int(parameters))
    assert found["gflops"] == pytest.approx(float(gflops), abs=0.05)
    assert found["parameters"] + found["head_parameters"] == sum(p.numel() for p in model.parameters())
    assert (found["cfg"], found["shared_layer"], found["gflops_imgsz"]) == ("yolov5n.yaml", 9, 640)


def test_the_whole_network_is_counted_too():
    names = {"classification_names": ["a", "b", "c"]}
    shared, dual = (JointDetectionModel("yolov5n.yaml", nc=4, backbone=backbone, **names) for backbone in ("shared", "dual"))
    first, second = model_facts(shared), model_facts(dual)
    assert (first["backbone"], first["backbone_parameters"], second["backbone"]) == ("shared", 0, "dual")
    for name in ("layers", "parameters", "head_parameters", "gflops"):  # of the detector and the head alone
        assert first[name] == second[name], name
    for found, model in ((first, shared), (second, dual)):
        parts = found["parameters"] + found["head_parameters"] + found["backbone_parameters"]
        assert parts == found["total_parameters"] == sum(p.numel() for p in model.parameters())
    assert second["backbone_parameters"] == sum(p.numel() for p in shared.model[:10].parameters())
    head = 2e-9 * 20 * 20 * 256 * 256  # the convolution of the head on the map of a 640 px image
    assert first["total_gflops"] - first["gflops"] == pytest.approx(head, abs=0.02)
    operations = thop.profile(
        copy.deepcopy(ClassificationBackbone(dual.yaml, 9)).eval(), (torch.zeros(1, 3, 640, 640),), verbose=False
    )[0]
    assert second["total_gflops"] - first["total_gflops"] == pytest.approx(2e-9 * operations, abs=0.02)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no Linux")
def test_peak_memory_is_what_the_system_counts():
    (high_water,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak_memory(torch.device("cpu")) == pytest.approx(int(high_water) * 1024 / 1e6, rel=0.05)


def test_peak_memory_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory(torch.device("cpu")) is None


def test_counting_leaves_the_model_and_the_random_numbers_as_they_are():
    model = JointDetectionModel("yolov5n.yaml", nc=2, classification_names=["a", "b"]).train()
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    model_facts(model)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert list(model.state_dict()) == list(state) and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_data_is_counted_as_its_label_files_say(tmp_path):
    write_joint_dataset(tmp_path, images=9, unlabelled=2)
    empty = sorted((tmp_path / "labels/train").glob("*.txt"))[0]
    empty.write_text("1 0 0\n")
    boxes, classes, without_boxes = [0, 0], [0, 0, 0], 0
    for file in (tmp_path / "labels/train").glob("*.txt"):
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
        for line in lines:
            if len(line) == 5:
                boxes[int(line[0])] += 1
            else:
                classes[line.index("1")] += 1
        without_boxes += all(len(line) == 3 for line in lines)
    _, dataset = create_joint_dataloader(
        str(tmp_path / "images/train"), 64, 4, 32, hyp={}, outputs=(class_output(IMAGE_CLASSES),), num_box_classes=2
    )
    assert data_facts(dataset, 2) == {
        "images": 9, "boxes": boxes, "image_classes": classes, "without_class": 2, "without_boxes": without_boxes,
    }  # fmt: skip
    assert without_boxes >= 1 and min(classes) > 0


def test_settings_of_the_balancer():
    report = balancing_facts(GradNorm(**PRESETS["report"]))
    assert report["weight_ranges"] == [[1.0, 4.0], [0.01, 0.4]] and report["weight_sum"] == 4.0 and report["alpha"] == 1.5
    assert balancing_facts(GradNorm(**PRESETS["paper"]))["weight_ranges"] is None
    ratio = balancing_facts(GradNorm(**PRESETS["ratio"]))
    assert (ratio["reference"], ratio["start"], ratio["weight_ranges"]) == (0, "measured", [[1.0, 1.0], [1e-4, 1.0]])
    assert "weight_sum" not in ratio and "reference" not in report
    assert balancing_facts(FixedWeights((1.0, 0.01), 5)) == {"balancer": "fixed", "weights": [1.0, 0.01], "interval": 5}
    assert balancing_facts(CAGrad(c=0.2)) == {"balancer": "cagrad", "weights": [1.0, 1.0], "interval": 0, "c": 0.2}
    assert balancing_facts(DynamicWeightAverage())["temperature"] == 2.0
    json.dumps([report, balancing_facts(GradNorm())], allow_nan=False)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_facts_that_cannot_be_read_are_none(tmp_path, text):
    assert read_facts(tmp_path) == {}
    (tmp_path / "run.json").write_text(text)
    assert read_facts(tmp_path) == {}


def test_evolved_runs_leave_no_facts(tmp_path):
    run = Namespace(options=Namespace(evolve=3), loggers=Namespace(save_dir=tmp_path))
    RunFile(run).on_fit_epoch_end([], 0, 0.0, 0.0)
    assert not list(tmp_path.iterdir())


class Interrupted(Exception):
    pass


def interrupt_at_epoch_1(self: object, epoch: int, fitness: object) -> bool:
    if epoch == 1:
        raise Interrupted
    return False


@pytest.fixture(scope="module")
def interrupted_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict, dict]:
    """A run of 2 epochs of 6 batches that stopped before its second checkpoint; its flags and its facts then and at the end."""
    folder = tmp_path_factory.mktemp("facts")
    data = write_joint_dataset(folder / "data", images=24)
    line = ["--data", str(data), "--cfg", "yolov5n.yaml", "--weights", "", "--imgsz", "64", "--epochs", "2", "--batch-size", "4",
            "--workers", "0", "--noplots", "--log-interval", "2", "--gradnorm-interval", "2", "--gradnorm-warmup", "3",
            "--project", str(folder), "--name", "run"]  # fmt: skip
    with pytest.raises(Interrupted), swapped(upstream("utils.torch_utils").EarlyStopping, __call__=interrupt_at_epoch_1):
        main(line)
    first = read_facts(folder / "run")
    needed = {"seconds": 5000.0, "peak_memory_mb": 9e6}  # as if it had taken that long, and that much
    (folder / "run/run.json").write_text(json.dumps({**first, **needed}))
    main(["--resume", str(folder / "run/weights/last.pt")])
    return folder / "run", line, first, read_facts(folder / "run")


def test_run_json_holds_through_an_interruption(interrupted_and_resumed):
    folder, line, first, last = interrupted_and_resumed
    assert first["finished"] is None and last["finished"] >= last["started"]
    assert 0 < first["seconds"] < 5000 < last["seconds"]  # the times of both starts together
    assert 50 < first["peak_memory_mb"] < 9e6 == last["peak_memory_mb"]  # the higher of both
    for name in ("command", "started", "model", "data", "versions", "device", "balancing"):
        assert first[name] == last[name]
    assert last["command"] == ["train_joint_gradnorm_fixed.py", *line]
    assert last["versions"]["torch"] == torch.__version__
    assert last["data"]["classification_names"] == list(IMAGE_CLASSES.values())
    assert last["data"]["train"]["images"] == 24 and last["data"]["val"]["images"] == 12
    assert sum(last["data"]["val"]["image_classes"]) + last["data"]["val"]["without_class"] == 12
    assert last["balancing"]["interval"] == 2 and last["balancing"]["weight_scope"] == "loss"
    assert not list(folder.glob("*.partial*"))


def test_batches_are_the_lines_of_the_screen(interrupted_and_resumed):
    with (interrupted_and_resumed[0] / "batches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["batch"]) for row in rows] == [(e, b) for e in "01" for b in "246"]
    # Measured are batches 4 and 6 of the first epoch and 2, 4, 6 of the second, each shown from the next line on;
    # a resumed run starts without.
    assert [row["cosine"] == "nan" for row in rows] == [True, True, False, True, False, False]
    for row in rows:
        total, *parts = (float(row[name]) for name in ("total", "detection", "classification"))
        weights = [float(row[f"{task}_weight"]) for task in ("detection", "classification")]
        assert total == pytest.approx(sum(w * part for w, part in zip(weights, parts, strict=True)), rel=1e-4)
