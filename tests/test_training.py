"""Training end to end, through upstream's own `train.main()`, on tiny joint data."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from joint_data import IMAGE_CLASSES, write_joint_dataset

from gradnorm_plugin.model.checkpoint import read_checkpoint
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.resume import read_state
from gradnorm_plugin.training.run import main, train
from gradnorm_plugin.upstream.checkout import REPOSITORY, find_checkout
from gradnorm_plugin.upstream.gateway import swapped, upstream

SIZE = 64
DRIVER = Path(__file__).with_name("upstream_driver.py")
SCRATCH = ["--cfg", "yolov5n.yaml", "--weights", "", "--hyp", "hyp.scratch-low.yaml"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=24)


def flags(data: Path, folder: Path, name: str, *more: str) -> list[str]:
    """A run of 2 epochs of 6 batches at 64 px; later flags win."""
    small = ["--imgsz", str(SIZE), "--epochs", "2", "--batch-size", "4", "--workers", "0", "--noplots"]
    return ["--data", str(data), *SCRATCH, *small, "--project", str(folder), "--name", name, *more]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def unstripped(*names: str) -> swapped:
    """Keep the optimiser in the checkpoint at the end of training."""
    return swapped(upstream("train"), **dict.fromkeys(names or ("strip_optimizer",), lambda *_: None))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all its plots."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [a for a in flags(data, folder, "joint", "--gradnorm-interval", "2", "--gradnorm-warmup", "3")]
    arguments.remove("--noplots")
    main([*arguments, "--log-interval", "2", "--device", "auto"])
    return folder / "joint"


@pytest.mark.parametrize(("hyp", "expected"), [("hyp.joint.yaml", {0: {0.2}, 1: {0.03}}), (None, {0: {0.03}, 1: {0.03}})])
def test_running_statistics_keep_up_with_a_short_warm_up_and_with_no_other(data, tmp_path, hyp, expected):
    found: dict[int, set[float]] = {}  # momenta by epoch

    class Watched(JointRun):
        def end_batch(self) -> None:
            super().end_batch()
            layers = [module for module in self.model.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
            self.seen = getattr(self, "seen", 0) + 1
            found.setdefault((self.seen - 1) // self.batches_per_epoch, set()).update(layer.momentum for layer in layers)

    more = ["--hyp", str(REPOSITORY / "data" / hyp)] if hyp else []
    with swapped(sys.modules[train.__module__], JointRun=Watched):
        train(parse_options(flags(data, tmp_path, "short", "--nosave", "--noval", *more)))
    assert found == expected


def test_with_classification_weight_0_training_is_upstreams(data, tmp_path):
    """Promise 1: the same losses and metrics, float32 momentum and weights, bit for bit."""
    with unstripped():
        plain = upstream("train").parse_opt(True)
        ours = parse_options(flags(data, tmp_path, "ours", "--balancer", "fixed", "--initial-weights", "1", "0"))
        for name in vars(plain):
            setattr(plain, name, getattr(ours, name))
        plain.name = "plain"
        upstream("train").main(plain, upstream("utils.callbacks").Callbacks())
        train(ours)
    assert (tmp_path / "plain/results.csv").read_text() == (tmp_path / "ours/results.csv").read_text()
    saved = [torch.load(tmp_path / name / "weights/last.pt", weights_only=False) for name in ("plain", "ours")]
    for kind in ("model", "ema"):
        expected, found = (checkpoint[kind].state_dict() for checkpoint in saved)
        assert len(expected) > 300 and all(torch.equal(value, found[key]) for key, value in expected.items())
    compared = 0
    for expected, found in zip(*(checkpoint["optimizer"]["param_groups"] for checkpoint in saved), strict=True):
        # In each group the head's parameters come after the detector's.
        for index, our_index in zip(expected["params"], found["params"], strict=False):
            momenta = [c["optimizer"]["state"][i]["momentum_buffer"] for c, i in zip(saved, (index, our_index), strict=True)]
            assert momenta[0].dtype == torch.float32 and torch.equal(*momenta)
            compared += 1
    assert compared == len(list(saved[0]["model"].parameters()))


def test_run_folder_holds_both_tasks(trained):
    steps = rows(trained / "gradnorm.csv")
    assert [int(row["step"]) for row in steps] == [3, 5, 7, 9, 11]
    for row in steps[1:]:
        assert float(row["detection_weight"]) + float(row["classification_weight"]) == pytest.approx(4, abs=1e-4)
        assert all(float(row[name]) > 0 for name in ("detection_norm", "classification_norm", "head_norm_before_clip"))
        assert -1 <= float(row["cosine"]) <= 1
    epochs, plain = rows(trained / "joint_results.csv"), rows(trained / "results.csv")
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    for ours, theirs in zip(epochs, ({k.strip(): v for k, v in row.items()} for row in plain), strict=True):
        assert float(ours["mAP50"]) == pytest.approx(float(theirs["metrics/mAP_0.5"]), rel=1e-3, abs=1e-6)
        assert 0 <= float(ours["balanced_accuracy"]) <= 1 and float(ours["val_classification_loss"]) > 0
    for picture in ("gradnorm.png", "joint_results.png", "classification_confusion_matrix.png", "results.png"):
        assert (trained / picture).stat().st_size > 10_000
    for name in ("gradnorm.pdf", "joint_results.pdf", "train_batch0.jpg", "train_batch2.jpg", "val_batch0_labels.jpg",
                 "val_batch0_pred.jpg", "labels.jpg", "report.md", "report.html"):  # fmt: skip
        assert (trained / name).stat().st_size > 1000, name
    assert not list(trained.glob("*.partial*"))


def test_the_best_checkpoint_is_calibrated_on_val(trained):
    figures = json.loads((trained / "joint_metrics.json").read_text())["classification"]
    temperatures = read_checkpoint(trained / "weights" / "best.pt")["model"].temperatures
    assert temperatures == {"class": figures["temperature"]} and figures["temperature"] != 1
    assert figures["calibrated_loss"] < figures["loss"] + 1e-3 and figures["calibrated_error"] is not None
    assert read_checkpoint(trained / "weights" / "last.pt")["model"].temperatures is None  # it was not measured


def test_screen_has_the_reports_columns_and_no_thread_is_left(data, tmp_path, caplog):
    before = set(threading.enumerate())
    main(flags(data, tmp_path, "screen", "--epochs", "1", "--log-interval", "3"))
    lines = [line.split() for line in caplog.text.splitlines() if "tables.py:" in line]
    assert lines[0][-7:] == ["Batch", "Total", "Detection", "Classif", "w_det", "w_cls", "Cosine"]
    assert [line[-7] for line in lines[1:]] == ["3/6", "6/6"]
    assert "this run has 6 batches, and GradNorm looks at the gradients from batch 11 on, every 10" in caplog.text
    total, detection, classification, first, second = map(float, lines[1][-6:-1])
    assert total == pytest.approx(first * detection + second * classification, rel=1e-3)
    left = set(threading.enumerate()) - before  # tqdm's is one a process
    assert not [thread for thread in left if "tensorboard" in type(thread).__module__]


def test_upstreams_names_are_put_back(trained):
    module = upstream("train")
    assert module.Model is upstream("models.yolo").Model
    assert module.ComputeLoss is upstream("utils.loss").ComputeLoss
    assert module.validate is upstream("val")
    assert torch.nn.utils.clip_grad_norm_.__module__ == "torch.nn.utils.clip_grad"


def test_upstreams_scripts_take_the_checkpoint(trained, data, tmp_path):
    best, root = trained / "weights" / "best.pt", find_checkout()
    common = ["--project", str(tmp_path), "--imgsz", str(SIZE)]
    source = ["--source", str(data.parent / "images" / "val"), "--conf-thres", "0.001"]
    commands = {
        "val": ["--weights", str(best), "--data", str(data), "--workers", "0", *common],
        "detect": ["--weights", str(best), *source, *common],
        "export": ["--weights", str(best), "--include", "onnx", "--imgsz", str(SIZE)],
        "detect onnx": ["--weights", str(best.with_suffix(".onnx")), *source, *common],
    }
    listing = tmp_path / "commands.json"
    listing.write_text(
        json.dumps([{"name": n, "script": str(root / f"{n.split()[0]}.py"), "arguments": a} for n, a in commands.items()])
    )
    done = subprocess.run([sys.executable, DRIVER, listing], capture_output=True, text=True, check=False, cwd=tmp_path)
    for name in commands:
        assert f"@@ {name} ok" in done.stdout, done.stdout + done.stderr
    model = torch.load(best, weights_only=False)["model"].float().fuse().eval()
    session = onnxruntime.InferenceSession(best.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, SIZE, SIZE)
    boxes, probabilities = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        predictions, (_, logits) = model(images)
    assert np.abs(boxes - predictions.numpy()).max() < 1e-4
    calibrated = (logits / model.temperatures["class"]).softmax(1).numpy()
    assert np.abs(probabilities - calibrated).max() < 1e-4
    assert probabilities.shape == (1, len(IMAGE_CLASSES))


def interrupt_at_epoch_1(self: object, epoch: int, fitness: object) -> bool:
    """In the place of upstream's early stopping, which is asked between an epoch's validation and its checkpoint."""
    if epoch == 1:
        raise KeyboardInterrupt
    return False


def test_a_run_that_was_interrupted_says_how_to_go_on_and_resumes_with_its_balancer(data, tmp_path, caplog):
    arguments = flags(data, tmp_path, "run", "--epochs", "3", "--gradnorm-interval", "2", "--gradnorm-warmup", "2")
    with (
        pytest.raises(SystemExit, match="130"),
        swapped(upstream("utils.torch_utils").EarlyStopping, __call__=interrupt_at_epoch_1),
    ):
        main(arguments)
    run = tmp_path / "run"
    assert f"Resume with: python train_joint_gradnorm_fixed.py --resume {run}/weights/last.pt" in caplog.text
    state = read_state(run / "weights/last.pt")
    assert state["batches"] == 6 and state["weights"].dtype == torch.float64
    before = (run / "gradnorm.csv").read_text()
    main(["--resume", str(run / "weights/last.pt"), "--epochs", "9", "--imgsz", str(SIZE)])
    assert "ignored: --epochs 9 (the run has 3). To train" in caplog.text
    assert (run / "gradnorm.csv").read_text().startswith(before)
    assert [int(row["step"]) for row in rows(run / "gradnorm.csv")] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [row["epoch"] for row in rows(run / "joint_results.csv")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "more",
    [
        ["--rect", "--cache", "ram", "--gradnorm-preset", "paper"],
        ["--image-weights", "--multi-scale", "--optimizer", "AdamW", "--cos-lr"],
        ["--workers", "2", "--cache", "disk", "--weight-scope", "shared", "--gradnorm-alpha", "0.5"],
        ["--single-cls", "--noval", "--label-smoothing", "0.1", "--class-weights", "none"],
    ],
    ids=lambda more: more[0].strip("-"),
)
def test_upstreams_flags_work(data, tmp_path, more):
    main(flags(data, tmp_path, "run", "--epochs", "1", *more))
    assert (tmp_path / "run/weights/best.pt").is_file()
    assert len(rows(tmp_path / "run/joint_results.csv")) == 1


def test_detection_weights_transfer_and_freeze(trained, data, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.csv").write_text("of an earlier run\n")
    more = ["--weights", str(trained / "weights/last.pt"), "--freeze", "10", "--exist-ok"]
    main(flags(data, tmp_path, "run", "--epochs", "1", *more))
    assert len(rows(tmp_path / "run/results.csv")) == 1 and "earlier" not in (tmp_path / "run/results.csv").read_text()
    assert "last.pt: classification head (pooled, layer 9) inherited with its 3 image classes" in caplog.text
    assert "freezing model.9.cv2.conv.weight" in caplog.text
    assert "there is nothing to balance" in caplog.text
    start, end = (
        torch.load(folder / "weights/last.pt", weights_only=False)["model"].state_dict() for folder in (trained, tmp_path / "run")
    )
    backbone = [key for key in start if key.startswith("model.9.") and key.endswith("conv.weight")]
    assert backbone and all(torch.equal(start[key], end[key]) for key in backbone)
    assert not torch.equal(start["classification_head.linear.weight"], end["classification_head.linear.weight"])


def test_bad_labels_are_one_error_and_leave_nothing(data, tmp_path, capsys):
    broken = write_joint_dataset(tmp_path / "broken", images=6)
    file = sorted((tmp_path / "broken/labels/train").glob("*.txt"))[0]
    file.write_text("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n\n1 0 0\n")
    with pytest.raises(SystemExit, match="1"):
        main(flags(broken, tmp_path / "runs", "run"))
    message = capsys.readouterr().err
    assert f"{file}:2" in message and "ERROR" in message
    assert not (tmp_path / "runs").exists()


BAD_FILES = {
    "broken.yaml": "names: [a, b\nnc: 2",
    "text.yaml": "just words",
    "empty_hyp.yaml": "lr0: 0.01",
    "no_images.yaml": "path: /nowhere\ntrain: a\nval: b\nnames: {0: a}\nclassification_names: {0: a, 1: b}",
    "model.yaml": "nc: 2",
    "junk.pt": "no pickle",
}


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--data", "nowhere.yaml", "--data nowhere.yaml"),
        ("--data", "broken.yaml", "broken.yaml:2: not YAML: expected ',' or ']'"),
        ("--data", "text.yaml", "text.yaml holds no `key: value` lines"),
        ("--data", "no_images.yaml", "no_images.yaml: Dataset not found"),
        ("--weights", "mine.pt", "--weights mine.pt is not there"),
        ("--weights", "text.yaml", "--weights text.yaml: training starts from a .pt"),
        ("--weights", "junk.pt", "--weights junk.pt is no checkpoint"),
        ("--hyp", "none.yaml", "--hyp none.yaml"),
        ("--hyp", "empty_hyp.yaml", "empty_hyp.yaml lacks anchor_t, box"),
        ("--cfg", "model.yaml", "model.yaml lacks anchors, backbone"),
        ("--resume", "gone/weights/last.pt", "--resume"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_error(data, tmp_path, flag, value, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in BAD_FILES.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, tmp_path / "runs", "run", flag, value))
    error = capsys.readouterr().err
    assert "ERROR: " in error and message in error
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_not_resumed(trained, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["--resume", str(trained / "weights/last.pt")])
    assert "is finished" in capsys.readouterr().err


def test_data_without_class_names_is_one_error(data, tmp_path, capsys):
    description = yaml.safe_load(data.read_text())
    del description["classification_names"]
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(description))
    with pytest.raises(SystemExit, match="1"):
        main(flags(plain, tmp_path / "runs", "run"))
    assert "classification_names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quad"], "--quad makes one image out of four"),
        (["--weight-sum", "9"], "weight_sum is 9.0"),
        (["--fitness-share", "2"], "--fitness-share must be from 0 to 1"),
        (["--gradnorm-interval", "0"], "interval must be"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--imgsz", "0"], "--imgsz must be at least 1, found 0"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--patience", "-1"], "--patience must be at least 0, found -1"),  # YOLOv5 stops after the first epoch
        (["--freeze", "3", "-1"], "--freeze must be at least 0, found [3, -1]"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967295"),
        (["--label-smoothing", "nan"], "--label-smoothing must be from 0 to 1"),
        pytest.param(
            ["--device", "0,1"], "there is no CUDA GPU here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
        ),
        (["--weights", ""], "add --cfg yolov5s.yaml"),
    ],
)
def test_wrong_flags_are_one_line(more, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(more)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_help_lists_upstreams_flags_and_ours(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "auto (a GPU if there is one)" in words and "refused: it cannot be combined with image classes" in words
    for flag in ("--sync-bn", "--image-weights", "--freeze", "--evolve", "--gradnorm-alpha", "--weight-scope", "--log-interval"):
        assert flag in text
    assert text.index("YOLOv5's own options") < text.index("task balancing") < text.index("image classification")


def test_missing_upstream_is_one_line_that_names_the_command(tmp_path):
    launcher = Path(__file__).parents[1] / "train_joint_gradnorm_fixed.py"
    environment = {**os.environ, "YOLOV5_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, launcher], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("ERROR: YOLOV5_DIR=") and "python -m gradnorm_plugin setup" in done.stderr


def test_generations_are_ranked_by_the_joint_fitness(data, tmp_path, monkeypatch):
    """The second generation descends from the first; of two, that with the better joint fitness is written down as the best."""
    small = flags(data, tmp_path, "evolved", "--epochs", "1", "--batch-size", "12", "--fitness-share", "0.5")
    found: list[dict[str, dict[str, float]]] = []
    original = JointRun.fitness
    monkeypatch.setattr(JointRun, "fitness", lambda run, x: (found.append(run.figures), original(run, x))[1])
    main([*small, "--evolve", "2"])
    folder = tmp_path / "evolved"
    table = [{key.strip(): float(value) for key, value in row.items()} for row in rows(folder / "evolve.csv")]
    assert list(table[0])[:4] == ["metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "metrics/joint_fitness", "metrics/image_outputs"]
    assert list(table[0])[7:9] == ["lr0", "lrf"] and len(table) == 2 and table[0] != table[1]
    for row in table:
        detection = 0.1 * row["metrics/mAP_0.5"] + 0.9 * row["metrics/mAP_0.5:0.95"]
        assert row["metrics/joint_fitness"] == pytest.approx(0.5 * detection + 0.5 * row["metrics/image_outputs"], abs=1e-4)
    told = [figures["class"]["balanced_accuracy"] for figures in found if figures]
    assert told[0] == pytest.approx(table[0]["metrics/image_outputs"], abs=1e-4) and told[0] > 0.1
    best = max(range(2), key=lambda place: table[place]["metrics/joint_fitness"])
    text = (folder / "hyp_evolve.yaml").read_text()
    assert f"# Best generation: {best}" in text and yaml.safe_load(text)["lr0"] == table[best]["lr0"]
    assert set(yaml.safe_load(text)) == set(list(table[0])[7:]) and (folder / "evolve.png").is_file()
    (folder / "evolve.csv").write_text("metrics/precision, metrics/recall\n0, 0\n")
    with pytest.raises(SystemExit):
        main([*small, "--evolve", "1", "--exist-ok"])


def test_a_single_class_of_the_image_has_no_say_in_the_best_epoch():
    run = JointRun(parse_options(["--fitness-share", "0.5"]))
    results = np.array([[0.9, 0.8, 0.7, 0.6, 0.1, 0.1, 0.1]])
    detection = upstream("utils.metrics").fitness(results)
    run.outputs, targets = (class_output(["a", "b"]),), np.array([0, 0, 0])
    run.datasets, run.figures = {"val": SimpleNamespace(targets={"class": targets})}, {"class": {"balanced_accuracy": 1.0}}
    assert run.fitness(results) == detection
    targets[2], run.figures["class"]["balanced_accuracy"] = 1, 0.5
    assert run.fitness(results) == pytest.approx((detection + 0.5) / 2)
