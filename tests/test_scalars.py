"""Our figures in the loggers that upstream makes, read back from what TensorBoard would read."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from gradnorm_plugin.training.tables import send_scalars
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
