"""`strip` writes a stock checkpoint: an unpatched YOLOv5 without this package loads it and finds the same boxes, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from joint_checkpoint import read_images, write_checkpoint
from upstream_data import write_plain_dataset

from gradnorm_plugin.strip import StripError, main, strip
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream
from gradnorm_plugin.upstream.pinned import COMMIT

DRIVER = Path(__file__).with_name("unpatched_driver.py")
SIZE = 64


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    folder = tmp_path_factory.mktemp("data")
    write_plain_dataset(folder)
    return read_images(folder / "images" / "train", SIZE)


@pytest.fixture(scope="module")
def joint(images: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "best.pt", images)


def load(file: Path) -> dict:
    return torch.load(file, weights_only=False)


def unpatched_upstream(folder: Path) -> Path:
    """The pinned commit's modules, as git has them, not as the work tree has them."""
    checkout = find_checkout()

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(checkout), *arguments], check=True, capture_output=True).stdout

    if not (checkout / ".git").exists() or git("rev-parse", "HEAD").decode().strip() != COMMIT:
        pytest.skip(f"YOLOV5_DIR={checkout} is not at the pinned commit")
    for name in git("ls-tree", "-r", "--name-only", "HEAD", "--", "models", "utils", "export.py").decode().splitlines():
        if name.endswith(".py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(git("cat-file", "blob", f"HEAD:{name}"))
    assert "import pkg_resources" in (folder / "utils" / "general.py").read_text(encoding="utf-8")  # unpatched indeed
    return folder


def test_unpatched_upstream_without_this_package_finds_the_same_boxes(joint, images, tmp_path):
    plain = strip(joint, tmp_path / "plain.pt").output
    np.save(tmp_path / "images.npy", images.numpy())
    folder = unpatched_upstream(tmp_path / "yolov5")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "YOLOV5_CONFIG_DIR": str(tmp_path)}
    arguments = [str(folder), str(plain), str(tmp_path / "images.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [sys.executable, str(DRIVER), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.load(tmp_path / "out.npz")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: the order of a sum is part of its bits
    try:
        with torch.no_grad():
            predictions = upstream("models.experimental").attempt_load(str(joint))(images)[0]
    finally:
        torch.set_num_threads(threads)
    boxes = torch.cat(upstream("utils.general").non_max_suppression(predictions.clone()))
    assert predictions.numpy().tobytes() == found["predictions"].tobytes()
    assert boxes.numpy().tobytes() == found["boxes"].tobytes() and len(boxes) > 10


def test_what_is_written_is_what_upstream_writes(joint, images, tmp_path):
    stock = load(write_checkpoint(tmp_path / "stock.pt", images, joint=False))
    found = load(strip(joint, tmp_path / "plain.pt").output)
    assert list(found) == list(stock)
    assert {k: v for k, v in found.items() if k != "model"} == {k: v for k, v in stock.items() if k != "model"}
    model, expected = found["model"], stock["model"]
    assert type(model) is type(expected) is upstream("models.yolo").DetectionModel
    assert vars(model).keys() == vars(expected).keys()
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in expected.named_modules()]
    assert all(p.dtype == torch.float16 and not p.requires_grad for p in model.parameters())
    half = {k: v for k, v in load(joint)["model"].state_dict().items() if not k.startswith("classification_head.")}
    assert half.keys() == model.state_dict().keys() and all(torch.equal(v, half[k]) for k, v in model.state_dict().items())


def test_no_class_of_ours_is_in_the_file(joint, tmp_path):
    def classes(file: Path) -> bytes:
        with zipfile.ZipFile(file) as archive:
            return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))

    assert b"gradnorm" in classes(joint)
    assert b"gradnorm" not in classes(strip(joint, tmp_path / "plain.pt").output)


def test_a_checkpoint_from_the_middle_of_training_gives_its_averaged_weights(joint, tmp_path):
    contents = load(joint)
    contents |= {"epoch": 3, "ema": load(joint)["model"], "updates": 7, "optimizer": {"state": {}}, "best_fitness": 0.5}
    contents["model"].balancer_state = {"weights": [1.0, 2.0]}
    for parameter in contents["model"].parameters():
        parameter.data.zero_()
    torch.save(contents, tmp_path / "last.pt")
    found = load(strip(tmp_path / "last.pt").output)
    assert (found["epoch"], *(found[key] for key in ("ema", "updates", "optimizer", "best_fitness"))) == (-1, *[None] * 4)
    assert not hasattr(found["model"], "balancer_state")
    assert torch.equal(found["model"].model[0].conv.weight, load(joint)["model"].model[0].conv.weight)


def test_command_writes_beside_the_checkpoint_and_says_what(joint, tmp_path, capsys):
    weights = tmp_path / "best.pt"
    weights.write_bytes(joint.read_bytes())
    main([str(weights)])
    written = tmp_path / "best_detection.pt"
    assert {file.name for file in tmp_path.iterdir()} == {"best.pt", "best_detection.pt"}
    line = capsys.readouterr().out
    parameters = sum(p.numel() for p in load(written)["model"].parameters())
    assert line.startswith(f"{weights} -> {written}: {parameters:,} of ") and f"{written.stat().st_size / 1e6:.1f} of " in line
    assert weights.read_bytes() == joint.read_bytes()


@pytest.mark.parametrize(
    ("weights", "output", "message"),
    [
        ("nowhere.pt", None, r"nowhere\.pt is not there: name a joint checkpoint"),
        ("text.pt", None, r"text\.pt is no checkpoint"),
        ("list.pt", None, r"list\.pt is no YOLOv5 checkpoint: it holds a list"),
        ("empty.pt", None, r"empty\.pt is not a joint checkpoint: it holds no `model`"),
        ("stock.pt", None, r"stock\.pt is not a joint checkpoint: its model is DetectionModel"),
        ("joint.pt", "joint.pt", r"joint\.pt is the joint checkpoint itself"),
        ("joint.pt", "plain.onnx", r"plain\.onnx does not end in \.pt"),
        ("joint.pt", "no/folder/plain.pt", r"there is no folder .*folder; name a file in a folder that exists"),
        ("joint.pt", "folder.pt", r"folder\.pt is a folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(joint, images, tmp_path, capsys, weights, output, message):
    (tmp_path / "text.pt").write_text("no checkpoint", encoding="utf-8")
    torch.save([1], tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    if weights == "stock.pt":
        write_checkpoint(tmp_path / "stock.pt", images, joint=False)
    (tmp_path / "joint.pt").write_bytes(joint.read_bytes())
    (tmp_path / "folder.pt").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StripError, match=message):
        strip(tmp_path / weights, None if output is None else tmp_path / output)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / weights), *(["-o", str(tmp_path / output)] if output else [])])
    said = capsys.readouterr()
    assert end.value.code == 1 and said.out == "" and said.err.count("\n") == 1 and said.err.startswith("ERROR: ")
    assert sorted(tmp_path.iterdir()) == before


def test_a_write_that_fails_leaves_the_old_file_and_no_other(joint, tmp_path, monkeypatch):
    output = tmp_path / "plain.pt"
    output.write_bytes(b"old")

    def full(_: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StripError, match="plain.pt cannot be written: .*No space left"):
        strip(joint, output)
    assert [file.name for file in tmp_path.iterdir()] == ["plain.pt"] and output.read_bytes() == b"old"
