"""Training with each of the other balancers, through upstream's own `train.main()`, on tiny joint data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from joint_data import write_joint_dataset

from gradnorm_plugin.training.resume import read_state
from gradnorm_plugin.training.run import main
from gradnorm_plugin.upstream.gateway import swapped, upstream


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=12)


def run(data: Path, folder: Path, *more: str) -> list[dict[str, str]]:
    """Train for 3 epochs of 3 batches at 64 px, looking at the gradients of every second; the rows of gradnorm.csv.

    Later flags win.
    """
    small = ["--imgsz", "64", "--epochs", "3", "--batch-size", "4", "--workers", "0", "--noplots", "--noval"]
    scratch = ["--cfg", "yolov5n.yaml", "--weights", "", "--hyp", "hyp.scratch-low.yaml", "--gradnorm-interval", "2"]
    with swapped(upstream("train"), strip_optimizer=lambda *_: None):  # the balancer's state goes with it
        main(["--data", str(data), *scratch, *small, "--project", str(folder.parent), "--name", folder.name, *more])
    with (folder / "gradnorm.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def weights(rows: list[dict[str, str]]) -> list[tuple[float, float]]:
    return [(float(row["detection_weight"]), float(row["classification_weight"])) for row in rows]


def balancing(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())["balancing"]


def test_uncertainty_moves_each_weight_towards_one_half_of_its_loss(data, tmp_path):
    rows = run(data, tmp_path / "run", "--balancer", "uncertainty", "--uncertainty-lr", "0.2")
    found, state = weights(rows), read_state(tmp_path / "run/weights/last.pt")
    assert found[0] == (1.0, 1.0) and len(rows) == 5
    assert found[-1][1] < 1  # a loss of about 1.1 an image wants a weight of 0.45
    assert state["batches"] == 9 and state["weights"].tolist() != [1.0, 1.0]
    assert balancing(tmp_path / "run")["balancer"] == "uncertainty"


def test_dwa_moves_from_the_third_epoch_on(data, tmp_path):
    rows = run(data, tmp_path / "run", "--balancer", "dwa", "--dwa-temperature", "0.1")
    found = weights(rows)
    assert found[:3] == [(1.0, 1.0)] * 3 and found[-1] != (1.0, 1.0)
    assert sum(found[-1]) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(("balancer", "head"), [("pcgrad", "both"), ("cagrad", "pooled"), ("bisector", "pooled")])
def test_directions_are_combined_in_the_one_backward_pass(data, tmp_path, balancer, head):
    weighed = ("--initial-weights", "1", "0.1", "--epochs", "1")
    rows = run(data, tmp_path / "run", "--balancer", balancer, "--head", head, *weighed)
    assert weights(rows) == [(1.0, 0.1)] * 2
    for row in rows:
        assert float(row["detection_norm"]) > 0 and float(row["classification_norm"]) > 0 and -1 <= float(row["cosine"]) <= 1
    model = torch.load(tmp_path / "run/weights/last.pt", weights_only=False)["model"]
    assert model.fork is None and all(torch.isfinite(p).all() for p in model.parameters())
    assert type(model.classification_head).__name__ == ("GuidedHead" if head == "both" else "ClassificationHead")


def test_ratios_keep_detections_weight_and_start_where_the_gradients_are_equal(data, tmp_path):
    """Measured are both batches of the warm-up, then every second; the ratio that is given serves the first batch alone."""
    ratio = ("--gradnorm-preset", "ratio", "--gradnorm-warmup", "2", "--initial-weights", "1", "1", "--weight-scope", "shared")
    rows = run(data, tmp_path / "run", *ratio)
    found = weights(rows)
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 4, 6, 8]
    assert found[0] == (1.0, 1.0) and all(detection == 1 for detection, _ in found)
    equal = float(rows[0]["detection_norm"]) / float(rows[0]["classification_norm"])
    assert found[1][1] == pytest.approx(min(equal, 1), rel=1e-3) and found[2] != found[1]
    facts = balancing(tmp_path / "run")
    assert (facts["reference"], facts["start"], facts["weight_ranges"]) == (0, "measured", [[1, 1], [1e-4, 1]])
    report = (tmp_path / "run/report.md").read_text(encoding="utf-8")
    assert "`reference`" in report and "The detection weight was" not in report


def test_log_losses_weigh_each_batch_by_its_own(data, tmp_path):
    for row in run(data, tmp_path / "run", "--balancer", "log", "--epochs", "2"):
        ratio = float(row["detection_loss"]) / float(row["classification_loss"])
        assert float(row["classification_weight"]) == pytest.approx(ratio, rel=1e-3) and float(row["detection_weight"]) == 1


def test_fixed_weights_are_looked_at_too(data, tmp_path):
    flags = ("--initial-weights", "1", "0.5", "--channels-last", "--epochs", "1")
    rows = run(data, tmp_path / "run", "--balancer", "fixed", *flags)
    assert weights(rows) == [(1.0, 0.5)] * 2
    assert "no gradients were measured" not in (tmp_path / "run/report.md").read_text(encoding="utf-8")


def test_a_task_that_is_switched_off_is_not_measured(data, tmp_path):
    assert run(data, tmp_path / "run", "--balancer", "fixed", "--initial-weights", "0", "1", "--epochs", "1") == []
    with (tmp_path / "run/joint_results.csv").open(newline="") as lines:
        row = next(csv.DictReader(lines))
    assert float(row["fitness"]) == pytest.approx(float(row["balanced_accuracy"]), abs=1e-5)
