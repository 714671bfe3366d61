"""Our figures in the loggers that upstream makes, read back from what TensorBoard would read."""

from __future__ import annotations

import csv
import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from joint_data import write_joint_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from gradnorm_plugin.training.run import main
from gradnorm_plugin.training.tables import send_scalars
from gradnorm_plugin.training.tracking import Tracking
from gradnorm_plugin.upstream.gateway import upstream

FIGURES = [{"joint/accuracy": 0.5, "joint/detection_weight": 3.6}, {"joint/accuracy": 0.75, "joint/detection_weight": 3.8}]


def make_loggers(folder: Path, *include: str) -> Any:
    """Upstream's own loggers."""
    options = Namespace(noplots=True, evolve=None, resume=False)
    module = upstream("utils.loggers")
    return module.Loggers(folder, "", options, {}, logging.getLogger("quiet"), include=include)


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_every_figure_at_its_epoch(tmp_path):
    loggers = make_loggers(tmp_path, "csv", "tb")
    assert isinstance(loggers.tb, SummaryWriter)
    for epoch, figures in enumerate(FIGURES):
        send_scalars(loggers, figures, epoch)
    loggers.tb.close()
    found = read_back(tmp_path)
    assert found.keys() == FIGURES[0].keys()
    assert found["joint/accuracy"] == [(0, 0.5), (1, 0.75)]
    assert found["joint/detection_weight"] == [(0, pytest.approx(3.6)), (1, pytest.approx(3.8))]


def test_figures_that_are_not_numbers_are_shown_as_such(tmp_path):
    """Without a labelled validation image the accuracy is NaN."""
    loggers = make_loggers(tmp_path, "tb")
    send_scalars(loggers, {"joint/accuracy": float("nan")}, 3)
    loggers.tb.close()
    ((step, value),) = read_back(tmp_path)["joint/accuracy"]
    assert step == 3 and value != value


def test_without_an_active_logger_nothing_happens(tmp_path):
    loggers = make_loggers(tmp_path, "csv")
    assert not any((loggers.tb, loggers.wandb, loggers.clearml, loggers.comet_logger))
    send_scalars(loggers, FIGURES[0], 0)
    assert list(tmp_path.iterdir()) == []


def test_mlflow_has_the_settings_every_figure_and_the_results(tmp_path, monkeypatch, caplog):
    """What its own client reads back; a store that fails costs a warning."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install -e .[mlflow]")
    for name, value in {"TRACKING_URI": (tmp_path / "store").as_uri(), "EXPERIMENT_NAME": "hearts", "RUN": "first"}.items():
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    data = write_joint_dataset(tmp_path / "data", images=8, size=64)
    small = (
        "--weights= --cfg yolov5n.yaml --imgsz 64 --epochs 2 --batch-size 4 --workers 0 --noplots --exist-ok --name run".split()
    )
    main(["--data", str(data), *small, "--project", str(tmp_path / "runs")])
    assert "MLflow is off" not in caplog.text, caplog.text
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("hearts").experiment_id])
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["balancer"] == "gradnorm" and float(found.data.params["hyp/lr0"]) == 0.02
    assert {"mAP50-95", "accuracy", "balanced_accuracy", "classification_weight", "fitness"} <= found.data.metrics.keys()
    with (tmp_path / "runs/run/joint_results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    history = client.get_metric_history(found.info.run_id, "balanced_accuracy")
    assert [(at.step, at.value) for at in history] == [
        (i, pytest.approx(float(r["balanced_accuracy"]), abs=1e-6)) for i, r in enumerate(rows)
    ]
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"best.pt", "report.html"}

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://u:secret@host")
    tracking = Tracking(Namespace(options=Namespace(evolve=None, project="p"), loggers=Namespace(save_dir=tmp_path)), None)
    tracking.on_train_start()
    tracking.on_fit_epoch_end([], 0)
    tracking.end("FINISHED")
    assert "MLflow is off for this run" in caplog.text and "secret" not in caplog.text


def test_mlflow_that_is_asked_for_and_not_installed_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "x")
    monkeypatch.setattr("gradnorm_plugin.training.tracking.find_spec", lambda name: None)
    Tracking(Namespace(options=Namespace(evolve=None)), None).on_train_start()
    assert "MLFLOW_TRACKING_URI is set, but MLflow is not installed" in caplog.text
