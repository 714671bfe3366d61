"""What the options name, looked at before anything is written: networks that cannot be trained jointly, places that cannot be."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
import yaml
from joint_data import IMAGE_CLASSES
from upstream_data import CLASS_NAMES

from gradnorm_plugin.training.option_files import OptionError, check_files, check_place
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream

ROOT = find_checkout()
yolo = upstream("models.yolo")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data yaml; its images are not looked at here."""
    file = tmp_path / "joint.yaml"
    names = dict(enumerate(CLASS_NAMES.values() if isinstance(CLASS_NAMES, dict) else CLASS_NAMES))
    file.write_text(yaml.safe_dump({"train": "a", "val": "b", "names": names, "classification_names": IMAGE_CLASSES}))
    return file


def options(data: Path, *line: str) -> argparse.Namespace:
    found = parse_options(["--data", str(data), "--hyp", "hyp.scratch-low.yaml", *line])
    found.weights = found.weights or ""
    return found


def narrow(name: str) -> dict:
    return yaml.safe_load(next((ROOT / "models").rglob(name)).read_text(errors="ignore")) | {"width_multiple": 0.0625}


def saved(kind: str, file: Path) -> str:
    """A checkpoint of another task of YOLOv5, or of a network with no layer like a detector's."""
    if kind == "seg":
        model = yolo.SegmentationModel(narrow("yolov5n-seg.yaml"), nc=2)
    elif kind == "cls":
        model = yolo.ClassificationModel(model=yolo.DetectionModel(narrow("yolov5n.yaml"), nc=2), nc=3, cutoff=10)
    else:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    torch.save({"model": model, "ema": None, "epoch": -1, "optimizer": None, "opt": {}}, file)
    return str(file)


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("seg", "", "is made for segmentation: start from the weights of a detector"),
        ("cls", "", "holds no detector but a classifier"),
        ("other", "", "holds no detector but a Sequential"),
        ("other", "--cfg {narrow}", "none of its weights fit the network of --cfg"),
    ],
)
def test_weights_of_other_tasks_are_one_error(kind, line, message, data, tmp_path):
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(narrow("yolov5n.yaml")))
    weights = saved(kind, tmp_path / f"{kind}.pt")
    with pytest.raises(OptionError, match=f"--weights {weights}.* ?{message}"):
        check_files(options(data, "--weights", weights, *line.format(narrow=tmp_path / "narrow.yaml").split()))


@pytest.mark.parametrize("kind", ["seg", "cls"])
def test_with_a_network_of_its_own_training_takes_over_their_layers_that_fit(kind, data, tmp_path):
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(narrow("yolov5n.yaml")))
    check_files(options(data, "--weights", saved(kind, tmp_path / f"{kind}.pt"), "--cfg", str(tmp_path / "narrow.yaml")))


def test_a_checkpoint_cannot_ask_for_more_memory_than_it_has_weights(data, tmp_path):
    model = yolo.DetectionModel(narrow("yolov5n.yaml"), nc=2)
    model.yaml["width_multiple"] = 1000.0  # terabytes
    torch.save({"model": model, "ema": None, "epoch": -1, "optimizer": None, "opt": {}}, tmp_path / "wide.pt")
    with pytest.raises(OptionError, match=r"wide\.pt is damaged: it describes a network of [\d,]+ parameters and holds"):
        check_files(options(data, "--weights", str(tmp_path / "wide.pt")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--cfg yolov5n-seg.yaml", "the last layer of its network is Segment, not Detect"),
        ("--cfg anchors.yaml", "lacks anchors, backbone, depth_multiple, head, nc, width_multiple"),
        ("--cfg yolov3-tiny.yaml --shared-layer 99", "this network has layers 0 to 19 to choose from"),
        ("--cfg {broken}", "its network cannot be built: "),
    ],
)
def test_a_network_that_cannot_be_trained_jointly_is_one_error(line, message, data, tmp_path):
    broken = narrow("yolov5n.yaml")
    broken["backbone"][3][0] = 99
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(OptionError, match=f"--(cfg|shared-layer) .*{message}"):
        check_files(options(data, *line.format(broken=tmp_path / "broken.yaml").split()))


@pytest.mark.parametrize("flag", ["data", "cfg", "hyp"])
@pytest.mark.parametrize(
    ("address", "message"),
    [("http://127.0.0.1:1/x.yaml", r"cannot be fetched \(ConnectionError\)"), ("http://[::1/x.yaml", "IPv6")],
)
def test_an_address_that_gives_nothing_is_one_error(flag, address, message, data, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(OptionError, match=rf"^--{flag} {re.escape(address)}: .*{message}"):
        check_files(options(data, f"--{flag}", address))


def test_the_data_of_a_resumed_run_may_have_moved(tmp_path):
    found = parse_options(["--data", str(tmp_path / "gone.yaml"), "--resume", "last.pt"])
    found.save_dir = str(tmp_path / "run")
    with pytest.raises(OptionError, match=r"--data .*gone\.yaml.*; .*run/opt\.yaml names it: put it back"):
        check_files(found)


@pytest.mark.parametrize(
    "line", ["--project {file}", "--project {file}/below", "--project {new} --name " + "x" * 300, "--project /proc/runs"]
)
def test_a_folder_that_cannot_be_made_is_one_error(line, data, tmp_path):
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    places = {"file": tmp_path / "file", "new": tmp_path / "new/deeper"}
    with pytest.raises(OptionError, match=r"--project, --name: .* cannot be written: .*; name another place"):
        check_place(options(data, *line.format(**places).split()))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["nul\0", "half a letter \ud800"])
def test_names_that_no_folder_can_have(name, data, tmp_path):
    with pytest.raises(OptionError, match="cannot be written"):
        check_place(options(data, "--project", str(tmp_path / "runs"), "--name", name))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["exp", "two words", "中文 é", "100% [a] {b}", "..x"])
def test_a_folder_that_can_be_made_is_not_left_behind(name, data, tmp_path):
    check_place(options(data, "--project", str(tmp_path / "runs"), "--name", name))
    assert not (tmp_path / "runs").exists()
