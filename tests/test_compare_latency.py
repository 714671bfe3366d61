"""The time of a prediction: one real network a structure, kept until a checkpoint is another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from comparison_folder import write_comparison_folder
from joint_checkpoint import write_checkpoint
from run_folder import options

from gradnorm_plugin.compare import latency as module
from gradnorm_plugin.compare.latency import WEIGHTS, LatencyError, load_network, measure_latency
from gradnorm_plugin.compare.results import read_outcome
from gradnorm_plugin.model.joint import JointDetectionModel

METHODS = ("detection-only", "classification-only", "gradnorm", "dual")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "best.pt", torch.rand(2, 3, 64, 64))


@pytest.fixture
def root(checkpoint: Path, tmp_path: Path) -> Path:
    """A comparison whose runs have the same checkpoint; `dual` says in its facts that it is another network."""
    changes = {(name, 0): {"opt": options(imgsz=64)} for name in METHODS}
    folder = write_comparison_folder(tmp_path / "exp", METHODS, [0], count=1, changes=changes)
    for name in METHODS:
        (folder / name / "seed0" / WEIGHTS).parent.mkdir()
        shutil.copy(checkpoint, folder / name / "seed0" / WEIGHTS)
    return folder


def test_each_structure_is_timed_once_and_kept(root, monkeypatch):
    found = measure_latency(read_outcome(root))
    assert [time.methods for time in found.times] == [("detection-only",), ("classification-only", "gradnorm"), ("dual",)]
    assert found.imgsz == 64 and found.device.startswith("CPU")
    assert found.times[0].ratio == 1 and all(0.2 < time.ratio < 5 and 0 < time.milliseconds < 1000 for time in found.times)
    assert found.of("gradnorm") is found.times[1] and found.of("dwa") is None
    monkeypatch.setattr(module, "time_networks", lambda *_: pytest.fail("measured again"))
    assert measure_latency(read_outcome(root)) == found
    (root / "dual" / "seed0" / WEIGHTS).unlink()  # weights may go once they were timed
    assert measure_latency(read_outcome(root)) == found


def test_another_checkpoint_is_timed_again(root, monkeypatch):
    monkeypatch.setattr(module, "load_network", lambda file: None)
    monkeypatch.setattr(module, "time_networks", lambda networks, imgsz: ("here", [(1.0, 1.0)] * len(networks)))
    measure_latency(read_outcome(root))
    monkeypatch.setattr(module, "time_networks", lambda networks, imgsz: ("there", [(2.0, 1.0)] * len(networks)))
    assert measure_latency(read_outcome(root)).device == "here"
    os.utime(root / "dual" / "seed0" / WEIGHTS, ns=(0, 0))
    assert measure_latency(read_outcome(root)).device == "there"
    (root / module.FILE).write_text(json.dumps({"device": "half a file"}), encoding="utf-8")
    assert measure_latency(read_outcome(root)).device == "there"


def test_the_detector_alone_has_no_head(root, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "time_networks", lambda networks, _: seen.extend(networks) or ("here", [(1.0, 1.0)] * len(networks))
    )
    measure_latency(read_outcome(root))
    assert [isinstance(network, JointDetectionModel) for network in seen] == [False, True, True]
    assert not any(network.training or parameter.requires_grad for network in seen for parameter in network.parameters())


def test_without_detection_only_the_detector_is_taken_out_of_a_joint_network(root, monkeypatch):
    write_comparison_folder(root, ["gradnorm"], [0], finished=[])
    found = measure_latency(read_outcome(root))
    assert [time.methods for time in found.times] == [(), ("gradnorm",)]


def test_nothing_is_timed_before_all_runs_are_finished(root):
    write_comparison_folder(root, [*METHODS, "dwa"], [0], finished=[])
    assert measure_latency(read_outcome(root)) is None and not (root / module.FILE).exists()


def test_a_checkpoint_that_is_missing_or_no_checkpoint_is_said(root):
    (root / "dual" / "seed0" / WEIGHTS).write_bytes(b"no checkpoint")
    with pytest.raises(LatencyError, match=r"best\.pt"):
        measure_latency(read_outcome(root))
    (root / "dual" / "seed0" / WEIGHTS).unlink()
    with pytest.raises(LatencyError, match=r"^dual/seed0/weights/best\.pt is not there$"):
        measure_latency(read_outcome(root))


def test_a_loaded_network_answers_as_it_predicts(checkpoint):
    boxes, probabilities = load_network(checkpoint)(torch.rand(1, 3, 64, 64))
    assert boxes.shape[0] == 1 and probabilities.sum().item() == pytest.approx(1, abs=1e-5)
