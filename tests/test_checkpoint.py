"""Files that are no checkpoint, or a damaged one: one clear error at every door, no memory filled, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joint_data import write_joint_dataset
from torch import nn

from gradnorm_plugin import strip
from gradnorm_plugin.evaluation import command as val
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import CheckpointError, check_network, read_checkpoint
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.predict import command as predict
from gradnorm_plugin.training import run as train
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.upstream.checkout import find_checkout

NARROW = yaml.safe_load((find_checkout() / "models/yolov5n.yaml").read_text(errors="ignore")) | {"width_multiple": 0.0625}


def network(**changes: Any) -> JointDetectionModel:
    """A narrow joint model, with attributes of it changed."""
    torch.manual_seed(0)
    model = JointDetectionModel(NARROW, nc=2, classification_names=["day", "night"])
    for name, value in changes.items():
        setattr(model, name, value)
    return model


def contents(model: Any = None, **changes: Any) -> dict[str, Any]:
    return {"epoch": -1, "model": network() if model is None else model, "ema": None, "optimizer": None, "opt": {}, **changes}


def not_finite() -> nn.Module:
    model = network()
    model.model[0].conv.weight.data[0] = torch.nan
    return model


def expanded() -> nn.Module:
    """One number that claims to be 40 GB."""
    model = network()
    model.model[0].conv.weight = nn.Parameter(torch.zeros(1).expand(10**5, 10**5))
    return model


def scripted(file: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(file))


def packed(file: Path) -> None:
    """A small file of 64 MB of zeros."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 26))
        archive.writestr("archive/version", "3")


SAFETENSORS = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
BYTES = {
    "empty": (b"", "is empty"),
    "text": (b"some words\n", "is no checkpoint of YOLOv5"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
    "onnx": (b"\x08\x08\x12\x07pytorch" + bytes(99), "is no checkpoint of YOLOv5"),
    "safetensors": (struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + bytes(4), "is no checkpoint of YOLOv5"),
    **{f"pickle {p}": (pickle.dumps({"model": 1}, p), "is no checkpoint of YOLOv5") for p in range(6)},
}
SAVED: dict[str, tuple[Callable[[], Any], str]] = {
    "tensor": (lambda: torch.zeros(3), "holds no `model`"),
    "list": (lambda: [network()], "holds no `model`"),
    "no keys": (dict, "holds no `model`"),
    "no model": (lambda: {"model": None, "ema": None}, "holds no `model`"),
    "state dict": (lambda: contents(network().state_dict()), "holds no `model`"),
    "larger than the file": (lambda: contents(expanded()), "its tensors would take 40,"),
    "not finite": (lambda: contents(not_finite()), "its weights are not finite"),
    "no names": (lambda: contents(network(names=None)), "its `names` do not name its 2 classes"),
    "a name too few": (lambda: contents(network(names=["a"])), "its `names` do not name its 2 classes"),
    "image classes": (lambda: contents(network(classification_names={0: "day"})), "its `classification_names` do not name"),
    "no parts": (lambda: contents(network(_modules=None)), "its model is damaged"),
}
WRITTEN = {
    "torchscript": (scripted, "it is TorchScript"),
    "packed": (packed, "its parts are compressed"),
    "folder": (Path.mkdir, "Is a directory"),
    "pipe": (os.mkfifo, "is a pipe or a device, not a file"),
}


def write(kind: str, file: Path) -> str:
    """Make the file, and return what is to be said of it."""
    if kind in BYTES:
        file.write_bytes(BYTES[kind][0])
    elif kind in SAVED:
        torch.save(SAVED[kind][0](), file)
    else:
        WRITTEN[kind][0](file)
    return {**BYTES, **SAVED, **WRITTEN}[kind][1]


def read(file: Path) -> None:
    check_network(read_checkpoint(file)["model"])


@pytest.mark.parametrize("kind", [*BYTES, *SAVED, *WRITTEN])
def test_what_is_wrong_with_a_file_is_said(kind, tmp_path):
    file = tmp_path / "mangled.pt"
    message = write(kind, file)
    with pytest.raises(CheckpointError) as error:
        read(file)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["pipe.pt", "pipe.onnx", "pipe.torchscript"])
def test_no_reader_waits_for_a_pipe(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a pipe or a device, not a file"):
        JointBackend(str(tmp_path / name))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("good") / "good.pt"
    torch.save(contents(), file)
    read(file)
    return file.read_bytes()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_changed_file_is_one_error_or_what_it_was(good, tmp_path, data):
    """A change that matters is noticed: by the sums of the archive. Its padding, and some of its directory, matter to nobody."""
    place = data.draw(st.integers(0, len(good) - 1))
    bits = data.draw(st.integers(0, 255), "0 cuts the file off")
    changed = good[:place] + (bytes([good[place] ^ bits]) + good[place + 1 :] if bits else b"")
    file = tmp_path / "mangled.pt"
    file.write_bytes(changed)
    try:
        found = read_checkpoint(file)["model"].state_dict()
    except CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert bits and all(torch.equal(value, found[name]) for name, value in network().state_dict().items())


def test_sound_files_with_odd_notes_are_read(tmp_path):
    for notes in ({"opt": None}, {"opt": 5}, {"epoch": None}, {"date": [1]}, {"best_fitness": "high"}):
        torch.save(contents(**notes), tmp_path / "odd.pt")
        read(tmp_path / "odd.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=4, size=64)


def train_from(file: Path, data: Path) -> None:
    train.main(["--weights", str(file), "--data", str(data), "--project", str(file.parent / "runs")])


def resume(file: Path, data: Path) -> None:
    place = file.parent / "runs/weights/last.pt"
    place.parent.mkdir(parents=True)
    file.rename(place)
    (place.parents[1] / "opt.yaml").write_text(yaml.safe_dump(vars(parse_options(["--data", str(data)]))))
    train.main(["--resume", str(place)])


DOORS: dict[str, Callable[[Path, Path], None]] = {
    "train": train_from,
    "resume": resume,
    "val": lambda file, data: val.main(["--weights", str(file), "--data", str(data), "--project", str(file.parent / "runs")]),
    "predict": lambda file, data: predict.main(
        ["--weights", str(file), "--source", str(data.parent / "images/val"), "--project", str(file.parent / "runs")]
    ),
    "strip": lambda file, data: strip.main([str(file)]),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", ["page", "tensor", "not finite", "image classes", "packed"])
def test_every_door_says_so_and_writes_nothing(kind, door, data, tmp_path, capsys):
    file = tmp_path / "mangled.pt"
    message = write(kind, file)
    with pytest.raises(SystemExit, match="1"):
        DOORS[door](file, data)
    error = capsys.readouterr().err.rpartition("ERROR: ")[2]
    # `strip` has words of its own for a file that holds something else than a checkpoint.
    assert message in error or (door == "strip" and "is no YOLOv5 checkpoint" in error) and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == (["runs"] if door == "resume" else ["mangled.pt"])


HUB = """
import sys, torch
torch.hub.load(sys.argv[1], "custom", path=sys.argv[3], source="local", _verbose=False)
"""
UPSTREAM = {
    "detect": ("page", ["detect.py"]),
    "val": ("tensor", ["val.py"]),
    "export": ("no parts", ["export.py"]),
    "train": ("packed", ["train.py", "--data", "joint.yaml", "--noplots"]),
    "classify": ("pickle 2", ["classify/predict.py"]),
    "hub": ("no names", ["-c", HUB, str(find_checkout())]),
}


@pytest.mark.parametrize("door", UPSTREAM)
def test_yolov5s_own_scripts_say_it_in_one_line(door, data, tmp_path):
    kind, (script, *flags) = UPSTREAM[door]
    write(kind, tmp_path / "mangled.pt")
    place = [script] if script == "-c" else [str(find_checkout() / script)]
    flags = [str(data) if flag == "joint.yaml" else flag for flag in flags]
    ended = subprocess.run(
        [sys.executable, *place, *flags, "--weights", "mangled.pt"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    *_, last = ended.stderr.splitlines()
    assert ended.returncode == 1 and last.startswith("ERROR: mangled.pt ") and "Traceback" not in ended.stderr


def test_every_other_error_of_theirs_is_shown_as_ever():
    code = "from gradnorm_plugin.upstream.gateway import upstream; upstream('utils.trust'); {}['key']"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "Traceback" in ended.stderr and ended.stderr.endswith("KeyError: 'key'\n")


def test_a_layer_of_a_fork_is_told_as_such(tmp_path):
    """Its file names a class that this YOLOv5 does not have, in a module that it has or lacks."""
    from forgery import Filled, Named, New, forge

    for module, remedy in (
        ("models.common", "set YOLOV5_DIR to the checkout that it was made with"),
        ("models.attention", "YOLOV5_DIR"),
    ):
        layer = Filled(New(Named(module, "CoordAtt")), vars(nn.Identity()))
        forge({"model": nn.Sequential(nn.Identity(), nn.ModuleList()), "layer": layer}, tmp_path / "fork.pt")
        with pytest.raises(CheckpointError, match=rf"CoordAtt, which.*{remedy}"):
            read_checkpoint(tmp_path / "fork.pt")
