"""Places that cannot be written to: every command ends with one clear message, and nothing half-written is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from joint_checkpoint import read_images, write_checkpoint
from joint_data import write_joint_dataset
from run_folder import write_run

from gradnorm_plugin.cli import main

COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "val": lambda made, out: [
        *("val", "--weights", str(made / "best.pt"), "--data", str(made / "data" / "joint.yaml"), "--imgsz", "64"),
        *("--batch-size", "4", "--bootstrap", "0", "--workers", "0", "--device", "cpu", "--project", str(out), "--name", "x"),
    ],
    "predict": lambda made, out: [
        *("predict", "--weights", str(made / "best.pt"), "--source", str(made / "data" / "images" / "val"), "--imgsz", "64"),
        *("--device", "cpu", "--save-txt", "--save-csv", "--save-json", "--save-crop", "--project", str(out), "--name", "x"),
    ],
    "predict --nosave": lambda made, out: [*COMMANDS["predict"](made, out), "--nosave"],
    "report": lambda made, out: ["report", str(made / "run"), "--output", str(out / "x")],
    "strip": lambda made, out: ["strip", str(made / "best.pt"), "--output", str(out / "x.pt")],
    "demo-data": lambda made, out: ["demo-data", "--root", str(out / "x"), "--train", "3", "--val", "2", "--size", "96"],
    "compare": lambda made, out: [
        *(
            "compare",
            "--methods",
            "gradnorm",
            "--seeds",
            "0",
            "--data",
            str(made / "data" / "joint.yaml"),
            "--cfg",
            "yolov5n.yaml",
        ),
        *("--weights", "", "--epochs", "1", "--imgsz", "64", "--project", str(out), "--name", "x"),
    ],
}
PLACES = {"a file": "file", "below a file": "file/below", "a name too long": "x" * 300, "no place for files": "/sys/kernel"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, data and a run to work on."""
    folder = tmp_path_factory.mktemp("made")
    data = write_joint_dataset(folder / "data", images=4, size=64)
    write_checkpoint(folder / "best.pt", read_images(data.parent / "images" / "train", 64))
    write_run(folder / "run")
    return folder


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_is_one_clear_error(command, place, made, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    before = sorted(made.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(COMMANDS[command](made, tmp_path / PLACES[place]))
    last = (str(ended.value.code) if isinstance(ended.value.code, str) else capsys.readouterr().err).strip().splitlines()[-1]
    assert ended.value.code not in (0, None)
    assert any(
        reason in last for reason in ("ot a directory", "too long", "not permitted", "ermission denied", "xists", "folder")
    )
    assert "Traceback" not in last and PLACES[place].split("/")[0][:20] in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"] and (tmp_path / "file").read_text() == "mine"
    assert [path for path in sorted(made.rglob("*")) if path not in before and "cache" not in path.name] == []


FULL = """
import subprocess, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:5]
from test_places import COMMANDS
from gradnorm_plugin.cli import main
made, out = map(Path, sys.argv[1:3])
for kind, options, commands in (("full", "size=4k", sys.argv[5:]), ("read-only", "ro", sys.argv[5:7])):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", out], check=True)
    if kind == "full":
        (out / "rest").write_bytes(b"x" * 4096)
    for name in commands:
        try:
            main(COMMANDS[name](made, out))
        except SystemExit as ended:
            left = [path.name for path in out.rglob("*") if path.is_file() and path.name != "rest"]
            print("ENDED", kind, name, ended.code, left, flush=True)
    subprocess.run(["umount", out], check=True)
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting a small file system is not permitted here",
)
def test_a_full_and_a_read_only_disk_are_one_clear_error(made, tmp_path):
    here = Path(__file__).parent
    command = ["unshare", "-m", sys.executable, "-c", FULL, str(made), str(tmp_path), str(here), str(here.parent)]
    command += ["report", "strip", "demo-data", "predict", "val"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "MPLBACKEND": "Agg"})
    ended = [line for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert done.returncode == 0 and len(ended) == 7, done.stdout + done.stderr
    for line in ended:
        assert line.endswith(" []") and " 0 []" not in line, line
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("No space left on device") >= 4 and done.stderr.count("Read-only file system") == 2
