"""Promise 4, resume: killed at any moment, a run goes on from its last checkpoint; its files have no gap and no double row."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from joint_checkpoint import write_checkpoint
from joint_data import write_joint_dataset

from gradnorm_plugin.files import WriteError, whole_file
from gradnorm_plugin.training.files import OptionError
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.resume import resume_options
from gradnorm_plugin.training.run import main
from gradnorm_plugin.training.state import read_state
from gradnorm_plugin.upstream.gateway import swapped, upstream

DRIVER = Path(__file__).with_name("killed_training.py")
EPOCHS = 3
STEPS = list(range(2, 18, 2))


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


@pytest.mark.parametrize(("moment", "epochs_saved"), [("batch", 1), ("epoch", 1), ("checkpoint", 1), ("between", 2), ("end", 3)])
def test_a_killed_run_goes_on(moment, epochs_saved, data, uninterrupted, tmp_path, monkeypatch):
    whole, states = uninterrupted
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, DRIVER, moment, *flags(data, tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    run = tmp_path / "run"
    state = read_state(run / "weights/last.pt")
    assert all(same(state[name], value) for name, value in states[epochs_saved - 1].items())
    assert state["weights"].dtype == state["initial_losses"].dtype == torch.float64

    monkeypatch.chdir(tmp_path)  # the run is named from another folder than it was started in
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


def test_best_is_made_up_for_where_it_was_not_written(data, tmp_path):
    """Killed between last.pt and best.pt: the resumed run knows the best fitness, so best.pt must hold it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, DRIVER, "between", *flags(data, tmp_path)], capture_output=True, check=False, env=environment)
    weights = tmp_path / "run/weights"
    (weights / "best.pt").unlink(missing_ok=True)
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
        if saves > 2:
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


@pytest.fixture
def strangers_run(tmp_path: Path) -> Path:
    """A run broken off after its first epoch; it came with links that lead out of it."""
    weights = tmp_path / "run" / "weights"
    weights.mkdir(parents=True)
    checkpoint = torch.load(write_checkpoint(tmp_path / "made.pt", torch.rand(2, 3, 64, 64)), weights_only=False)
    torch.save({**checkpoint, "epoch": 0, "best_fitness": 0.5}, weights / "last.pt")
    (tmp_path / "mine.csv").write_text("epoch, loss\n0, 1\n1, 2\n")
    (tmp_path / "run" / "results.csv").symlink_to(tmp_path / "mine.csv")
    return tmp_path / "run"


def test_no_permission_comes_from_the_options_of_a_run(strangers_run):
    more = {"allow_download": True, "evolve": 300, "bucket": "b", "upload_dataset": True}
    (strangers_run / "opt.yaml").write_text(yaml.safe_dump({"epochs": 5, "data": "x.yaml", **more}))
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
        ("data: https://example.org/x.yaml", "`data` is the address https://example.org/x.yaml"),
        ("- 1", "holds no options"),
        ("a: 2024-13-45", "cannot be read"),
        ("[" * 1000, "cannot be read"),
    ],
)
def test_options_of_a_run_that_cannot_be_used_are_one_error(strangers_run, text, message):
    (strangers_run / "opt.yaml").write_text(text)
    with pytest.raises(OptionError, match=rf"opt\.yaml.*{message}"):
        resume_options(parse_options(["--resume", str(strangers_run / "weights" / "last.pt")]))
