"""Promise 4, resume: killed at any moment, a run goes on from its last checkpoint; its files have no gap and no double row."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from joint_data import write_joint_dataset

from gradnorm_plugin.files import WriteError, whole_file
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.reading import DescriptionError
from gradnorm_plugin.report.run_files import ReportError
from gradnorm_plugin.training.flags import given_flags
from gradnorm_plugin.training.option_files import OptionError
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.resume import read_state, resume_options
from gradnorm_plugin.training.run import main
from gradnorm_plugin.training.tables import RunTable
from gradnorm_plugin.upstream.gateway import swapped, upstream

DRIVER = Path(__file__).with_name("killed_training.py")
EPOCHS = 3
STEPS = list(range(2, 18, 2))
EPOCHS_SAVED = {"batch": 1, "epoch": 1, "checkpoint": 1, "between": 2, "end": 3}
"""By the moment of `killed_training.py`."""


def flags(data: Path, folder: Path) -> list[str]:
    """6 batches an epoch, an update every second one."""
    return (
        f"--cfg yolov5n.yaml --hyp hyp.scratch-low.yaml --imgsz 64 --epochs {EPOCHS} --batch-size 4 --workers 0 --noplots "
        f"--gradnorm-interval 2 --gradnorm-warmup 2 --data {data} --project {folder} --name run --weights"
    ).split() + [""]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(lines)]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=24)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run from start to end, and the balancer's state at the end of each epoch."""
    folder, states = tmp_path_factory.mktemp("whole"), []
    logger = upstream("utils.loggers").Loggers

    def remember(self: Any, last: Path, *_: Any) -> None:
        states.append(read_state(last))

    with swapped(logger, on_model_save=remember):
        main(flags(data, folder))
    return folder / "run", states


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of runs that were killed, by moment."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, DRIVER, folder, *flags(data, folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    statuses = dict(re.findall(r"^(\w+) (-?\d+)$", done.stdout, re.MULTILINE))
    assert statuses == dict.fromkeys(EPOCHS_SAVED, str(-signal.SIGKILL)), done.stdout + done.stderr
    return folder


@pytest.mark.parametrize(("moment", "epochs_saved"), EPOCHS_SAVED.items())
def test_a_killed_run_goes_on(moment, epochs_saved, uninterrupted, killed, monkeypatch):
    whole, states = uninterrupted
    run = killed / moment / "run"
    state = read_state(run / "weights/last.pt")
    assert all(same(state[name], value) for name, value in states[epochs_saved - 1].items())
    assert state["weights"].dtype == state["initial_losses"].dtype == torch.float64

    monkeypatch.chdir(killed / moment)  # the run is named from another folder than it was started in
    main(["--resume", "run/weights/last.pt"])
    assert not list(run.rglob("*.partial*"))
    assert [int(row["step"]) for row in rows(run / "gradnorm.csv")] == STEPS
    for table in ("results.csv", "joint_results.csv"):
        assert [int(row["epoch"]) for row in rows(run / table)] == list(range(EPOCHS)), table
    before = [row for row in rows(whole / "gradnorm.csv") if int(row["epoch"]) < epochs_saved]
    assert rows(run / "gradnorm.csv")[: len(before)] == before
    for name in ("last", "best"):
        checkpoint = torch.load(run / f"weights/{name}.pt", weights_only=False)
        assert checkpoint["epoch"] == -1 and checkpoint["optimizer"] is None  # stripped: the run is finished


def test_best_is_made_up_for_where_it_was_not_written(tmp_path):
    """Killed between last.pt and best.pt: the resumed run knows the best fitness, so best.pt must hold it."""
    weights = unfinished(tmp_path).parent
    assert not (weights / "best.pt").exists()
    assert resume_options(parse_options(["--resume", str(weights / "last.pt")]))
    assert (weights / "best.pt").read_bytes() == (weights / "last.pt").read_bytes()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    file = tmp_path / "last.pt"
    file.write_text("good")
    with pytest.raises(WriteError, match=r"last.pt cannot be written: .*No space left"), whole_file(file) as partial:
        partial.write_text("half")
        raise OSError(28, "No space left on device")
    assert file.read_text() == "good" and list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_one_error_that_keeps_the_last_checkpoint(data, tmp_path, capsys):
    save = torch.save
    saves = 0

    def disk_fills_up(*args: Any, **kwargs: Any) -> None:
        nonlocal saves
        saves += 1
        if saves > 3:  # the first is into memory
            raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")
        save(*args, **kwargs)

    with pytest.raises(SystemExit, match="1"), swapped(torch, save=disk_fills_up):
        main(flags(data, tmp_path))
    assert "last.pt cannot be written" in capsys.readouterr().err
    assert torch.load(tmp_path / "run/weights/last.pt", weights_only=False)["epoch"] == 0


def test_a_damaged_checkpoint_is_one_error(data, tmp_path, capsys):
    weights = tmp_path / "run/weights"
    weights.mkdir(parents=True)
    (weights / "last.pt").write_bytes(b"PK\x03\x04 half of a file")
    (tmp_path / "run/opt.yaml").write_text(yaml.safe_dump({"epochs": 3}))
    with pytest.raises(SystemExit, match="1"):
        main(["--resume", str(weights / "last.pt")])
    assert "last.pt is no checkpoint" in capsys.readouterr().err


@cache
def network() -> JointDetectionModel:
    return JointDetectionModel("yolov5n.yaml", nc=2, classification_names=["a", "b"])


def unfinished(folder: Path, **changes: Any) -> Path:
    """A run of 3 epochs, killed in its second: what `--resume` reads of it, with parts of the checkpoint changed."""
    weights = folder / "run/weights"
    weights.mkdir(parents=True)
    sound = {"epoch": 0, "best_fitness": 0.1, "model": network(), "ema": network(), "updates": 3, "optimizer": {"state": {}}}
    torch.save({**sound, **changes}, weights / "last.pt")
    line = ["--cfg", "yolov5n.yaml", "--weights", "", "--epochs", "3", "--batch-size", "4", "--imgsz", "64"]
    saved = {**vars(parse_options(line)), "data": str(folder / "joint.yaml")}
    (folder / "run/opt.yaml").write_text(yaml.safe_dump(saved))
    return weights / "last.pt"


def test_flags_beside_resume_are_named_if_they_are_ignored(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--epochs", "9", "--batch-size", "4", "--head", "guided", "--data", "joint.yaml", "--device", "auto", "--cache"]
    line = ["--resume", str(unfinished(tmp_path)), *flags, "--allow-download"]
    found = parse_options(line)
    assert resume_options(found, given_flags(line)) and found.epochs == 3 and found.head == "pooled" and found.allow_download
    told = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    assert len(told) == 1
    for part in ("--epochs 9 (the run has 3)", "--head guided (the run has pooled)", "--cache ram (the run has None)"):
        assert part in told[0]
    assert not any(flag in told[0] for flag in ("--batch-size", "--data", "--device", "--allow-download", "--resume X"))
    caplog.clear()
    assert resume_options(parse_options(line[:2]), given_flags(line[:2])) and "ignored" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": -1}, "is finished; start a new run with --weights"),
        ({"epoch": None}, "is finished"),
        ({"optimizer": None}, r"cannot be resumed from \(optimizer\)"),
        ({"ema": None, "updates": "x"}, r"cannot be resumed from \(ema, updates\)"),
        ({"model": torch.nn.Linear(2, 2)}, "is not of a joint run; start a new run with --weights .* YOLOv5's own train.py"),
    ],
)
def test_a_checkpoint_that_no_run_goes_on_from(changes, message, tmp_path):
    last = unfinished(tmp_path, **changes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match=message):
        resume_options(parse_options(["--resume", str(last)]))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run", "run is a folder: name the last.pt of a run, here .*run/weights/last.pt"),
        ("run/weights", "weights is a folder: name the last.pt of a run, here .*run/weights/last.pt"),
        (".", "is a folder: name the last.pt of a run$"),
        ("run/weights/best.onnx", "best.onnx with its .*opt.yaml is not there"),
    ],
)
def test_what_is_no_checkpoint_of_a_run(name, message, tmp_path):
    unfinished(tmp_path)
    with pytest.raises(OptionError, match=message):
        resume_options(parse_options(["--resume", str(tmp_path / name)]))


@pytest.fixture
def strangers_run(tmp_path: Path) -> Path:
    """A run broken off after its first epoch; it came with links that lead out of it."""
    unfinished(tmp_path)
    (tmp_path / "mine.csv").write_text("epoch, loss\n0, 1\n1, 2\n")
    (tmp_path / "run" / "results.csv").symlink_to(tmp_path / "mine.csv")
    return tmp_path / "run"


def test_no_permission_comes_from_the_options_of_a_run(strangers_run):
    more = {"allow_download": True, "evolve": 300, "bucket": "b", "upload_dataset": True}
    (strangers_run / "opt.yaml").write_text(yaml.safe_dump({"epochs": 5, "batch_size": 4, "imgsz": 64, "data": "x.yaml", **more}))
    last = strangers_run / "weights" / "last.pt"
    options = parse_options(["--resume", str(last)])
    assert resume_options(options)
    assert (options.epochs, options.data) == (5, "x.yaml")
    assert (options.allow_download, options.evolve, options.bucket, options.upload_dataset) == (False, None, "", False)
    options = parse_options(["--resume", str(last), "--allow-download"])
    assert resume_options(options) and options.allow_download
    table = strangers_run / "results.csv"
    assert not table.is_symlink() and table.read_text() == "epoch, loss\n0, 1\n"
    assert (strangers_run.parent / "mine.csv").read_text() == "epoch, loss\n0, 1\n1, 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "opt.yaml is not that of a run: it has no epochs, batch_size, imgsz"),
        ("epochs: [", "opt.yaml:1: not YAML: expected the node content"),
        (
            "{epochs: 3, batch_size: 4, imgsz: 64, data: https://example.org/x.yaml}",
            "`data` is the address https://example.org/x",
        ),
        ("a: 2024-13-45", "opt.yaml: not YAML: month must be in 1..12"),
        ("[" * 1000, "opt.yaml: not YAML: nested too deep"),
        ("{epochs: many, batch_size: 4, imgsz: 64}", "it has no epochs in whole numbers"),
        ("{epochs: 3, batch_size: 4, imgsz: 64, weight_sum: 99}", "opt.yaml is not that of a joint run: weight_sum"),
    ],
)
def test_options_of_a_run_that_cannot_be_used(text, message, tmp_path):
    last = unfinished(tmp_path)
    (tmp_path / "run/opt.yaml").write_text(text)
    with pytest.raises(OptionError, match=message):
        resume_options(parse_options(["--resume", str(last)]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.csv", b"epoch, loss\nx, 1\n", "results.csv is not the table that YOLOv5 wrote: remove it"),
        ("results.csv", b"epoch\n\xe9\n", r"results.csv:2: byte 6 of the file \(0xE9\) is not UTF-8"),
        (
            "joint_results.csv",
            b"a,b\n1,2\n",
            "joint_results.csv has no column `epoch`; it has a, b; mend or remove this file of",
        ),
        ("joint_results.csv", b"epoch\nx\n", "joint_results.csv:2: `epoch` is 'x', expected a number; mend"),
        ("gradnorm.csv", b"epoch,step\n1\n", "gradnorm.csv:2 has 1 values, the header 2"),
        ("run.json", b'{"seconds": "long"}', "run.json: `seconds` is 'long', expected a number"),
        ("batches.csv", b"\xff\xfe\x00", "batches.csv cannot be read: .* is not UTF-16"),
    ],
)
def test_a_damaged_table_of_a_run_is_one_error(name, content, message, tmp_path):
    last = unfinished(tmp_path)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises((OptionError, DescriptionError), match=message):
        resume_options(parse_options(["--resume", str(last)]))


def test_an_empty_table_of_yolov5_is_no_obstacle(tmp_path):
    last = unfinished(tmp_path)
    (tmp_path / "run/results.csv").touch()  # the power failed before it was filled
    assert resume_options(parse_options(["--resume", str(last)]))


def test_a_table_with_other_columns_is_one_error(tmp_path):
    (tmp_path / "x.csv").write_text("epoch,loss,mood\n0,1,good\n1,2,bad\n")
    with pytest.raises(ReportError, match=r"x.csv has the columns mood, which this run does not write: remove the file"):
        RunTable(tmp_path / "x.csv", ("epoch", "loss")).resume(1)
    table = RunTable(tmp_path / "x.csv", ("epoch", "loss", "mood"))
    table.resume(1)
    assert table.rows == [{"epoch": "0", "loss": "1", "mood": "good"}]


def test_without_any_run_there_is_nothing_to_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=rf"there is no last.pt of a run in or below {tmp_path}"):
        resume_options(parse_options(["--resume"]))
