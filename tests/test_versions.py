"""Other YOLOv5s than the pinned one: a fork with a layer of its own, and every checkout in the folder `YOLOV5_CHECKOUTS`.

The latter is outside the repository and holds a checkout in each of its folders (v7.0, today's master, a fork); they are copied,
and none is touched. One process runs all steps on one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from joint_data import write_joint_dataset

from gradnorm_plugin.upstream.checkout import find_checkout

CHECKOUTS = Path(os.environ.get("YOLOV5_CHECKOUTS") or os.devnull)
FOUND = sorted(path for path in CHECKOUTS.iterdir() if (path / "train.py").is_file()) if CHECKOUTS.is_dir() else []
NONE = pytest.param(None, marks=pytest.mark.skip(reason="YOLOV5_CHECKOUTS names no folder with checkouts of YOLOv5"))
SIZE = ["--imgsz", "64", "--device", "cpu"]
DRIVER = """
import json, runpy, sys
from pathlib import Path
failed = []
for name, line in json.loads(Path(sys.argv[1]).read_text()):
    sys.argv = [name, *line]
    try:
        if name.endswith(".py"):
            runpy.run_path(name, run_name="__main__")
        else:
            from gradnorm_plugin.cli import main
            main([name, *line])
    except SystemExit as end:
        if end.code:
            failed.append(f"{name}: {end.code}")
sys.exit(", ".join(failed) or 0)
"""


def run(folder: Path, checkout: Path | None, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands of ours (train, val, ...) and scripts of the checkout, one after another, in one process."""
    (folder / "commands.json").write_text(json.dumps([(name, line) for name, *line in commands]))
    environment = {name: value for name, value in os.environ.items() if name != "YOLOV5_DIR"}
    if checkout is not None:
        environment["YOLOV5_DIR"] = str(checkout)
    environment.update(YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(folder))
    command = [sys.executable, "-c", DRIVER, str(folder / "commands.json")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("source", FOUND or [NONE], ids=lambda path: path.name if path else "none")
def test_every_step_runs_on_another_version(source: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "yolov5"
    shutil.copytree(source, checkout, ignore=shutil.ignore_patterns(".git", "runs"))
    data, pictures = str(write_joint_dataset(tmp_path / "data")), str(tmp_path / "data" / "images" / "val")
    weights, project = tmp_path / "runs" / "exp" / "weights", ["--project", str(tmp_path / "runs")]
    small = ["--data", data, "--batch-size", "4", "--workers", "0", *SIZE]
    scratch = ["--weights", "", "--cfg", "yolov5n.yaml", "--save-period", "1", "--epochs", "2"]
    best, plain = str(weights / "best.pt"), str(tmp_path / "plain.pt")
    done = run(
        tmp_path,
        checkout,
        ["setup"],
        ["train", *small, *scratch, *project],
        ["train", "--resume", str(weights / "epoch0.pt")],
        ["val", *small, "--weights", best, *project],
        [str(checkout / "export.py"), "--weights", best, "--include", "onnx", *SIZE],
        [
            "predict",
            "--weights",
            best,
            "--source",
            pictures,
            "--save-csv",
            "--save-crop",
            "--conf-thres",
            "0.001",
            *SIZE,
            *project,
        ],
        ["predict", "--weights", str(weights / "best.onnx"), "--source", pictures, *SIZE, *project],
        ["strip", best, "-o", plain],
        [str(checkout / "detect.py"), "--weights", plain, "--source", pictures, *SIZE, *project],
        [str(checkout / "val.py"), "--weights", plain, *small, *project],
        [str(checkout / "train.py"), "--weights", plain, "--epochs", "1", *small, *project],
    )
    if "needs the package" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "runs" / "exp" / "results.csv").read_text().count("\n") == 3
    assert any(tmp_path.glob("runs/*/images.csv")) and any(tmp_path.glob("runs/*/crops/*/*.jpg"))


STEM = """

class StemBlock(nn.Module):
    # A layer of the fork's own
    def __init__(self, c1, c2):
        super().__init__()
        self.first, self.second = Conv(c1, c2, 3, 2), Conv(c2, c2, 1, 1)

    def forward(self, x):
        return self.second(self.first(x))
"""


def test_layers_of_a_fork_work_with_yolov5_dir_and_are_named_without_it(tmp_path: Path) -> None:
    """The fork is the checkout in use, without git, and with what forks change: a layer, and its line in `parse_model`."""
    fork = tmp_path / "fork"
    shutil.copytree(find_checkout(), fork, ignore=shutil.ignore_patterns(".git", ".gradnorm-*", "runs"))
    with (fork / "models" / "common.py").open("a") as file:
        file.write(STEM)
    network = (fork / "models" / "yolo.py").read_text()
    assert "                Conv, GhostConv" in network
    (fork / "models" / "yolo.py").write_text(
        network.replace("                Conv, GhostConv", "                StemBlock, Conv, GhostConv")
    )
    description = yaml.safe_load((fork / "models" / "yolov5n.yaml").read_text())
    description["backbone"][0] = [-1, 1, "StemBlock", [64]]
    cfg = tmp_path / "stem.yaml"
    cfg.write_text(yaml.safe_dump(description))
    data = str(write_joint_dataset(tmp_path / "data"))
    train = ["train", "--data", data, "--cfg", str(cfg), "--weights", "", "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    train += [*SIZE, "--project", str(tmp_path / "runs")]
    best = str(tmp_path / "runs" / "exp" / "weights" / "best.pt")
    val = ["val", "--data", data, "--weights", best, "--batch-size", "4", "--workers", "0", *SIZE]
    done = run(tmp_path, fork, ["setup"], train, [*val, "--project", str(tmp_path / "runs")])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "StemBlock" in done.stderr
    refused = run(tmp_path, None, train, val)
    assert refused.returncode == 1 and refused.stderr.rstrip().endswith("train: 1, val: 1"), refused.stdout + refused.stderr
    error = "this model uses StemBlock, which this YOLOv5 does not have: set YOLOV5_DIR to the checkout that it was made with"
    assert refused.stderr.count(error) == 2 and "Traceback" not in refused.stderr, refused.stderr[-3000:]
