"""Our figures in whatever experiment logger upstream has active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def send_scalars(loggers: Any, scalars: Mapping[str, float], epoch: int) -> None:
    """Send named figures of one epoch to TensorBoard, W&B, ClearML and Comet, as far as upstream's `loggers` hold them."""
    if loggers.tb:
        for name, value in scalars.items():
            loggers.tb.add_scalar(name, value, epoch)
    elif loggers.clearml:  # as upstream does: ClearML collects TensorBoard's scalars by itself
        for name, value in scalars.items():
            title, series = name.split("/")
            loggers.clearml.task.get_logger().report_scalar(title, series, value, epoch)
    if loggers.wandb:
        loggers.wandb.log(dict(scalars))
    if loggers.comet_logger:
        loggers.comet_logger.log_metrics(dict(scalars), epoch=epoch)
