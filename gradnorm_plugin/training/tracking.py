"""A run in MLflow: settings, the row of every epoch, and at the end the checkpoint and the report.

It is on where `MLFLOW_TRACKING_URI` is set, and `MLFLOW_EXPERIMENT_NAME` and `MLFLOW_RUN` name experiment and run, as with
Ultralytics' newer packages. Whatever goes wrong with it is one warning: training goes on without it.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.reading import read_yaml
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.seams import Hook
from gradnorm_plugin.training.tables import EpochTable
from gradnorm_plugin.upstream.gateway import upstream

ADDRESS = "MLFLOW_TRACKING_URI"
_NO_KEY = re.compile(r"[^\w/.\- ]")
_LONGEST = 500
"""Characters of a setting: what every server takes."""


class Tracking(Hook):
    """Writes to MLflow through a client of its own; off where it is not asked for, not installed, or has failed."""

    def __init__(self, run: JointRun, table: EpochTable) -> None:
        self.run, self.table = run, table
        self.client: Any = None
        self.id = ""

    def on_train_start(self) -> None:
        """Make the run, and note the settings."""
        if not os.environ.get(ADDRESS) or self.run.options.evolve:
            return
        if find_spec("mlflow") is None:
            _warn(f"{ADDRESS} is set, but MLflow is not installed: pip install mlflow-skinny")
            return
        folder, options = Path(self.run.loggers.save_dir), vars(self.run.options)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or Path(self.run.options.project).name
        with self._guarded():
            from mlflow import MlflowClient
            from mlflow.entities import Param

            self.client = MlflowClient()
            found = self.client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self.client.create_experiment(name)
            self.id = self.client.create_run(experiment, run_name=os.environ.get("MLFLOW_RUN") or folder.name).info.run_id
            settings = {**options, **{f"hyp/{key}": value for key, value in read_yaml(folder / "hyp.yaml").items()}}
            params = [Param(_key(key), without_secrets(str(value))[:_LONGEST]) for key, value in settings.items() if key != "hyp"]
            for start in range(0, len(params), 100):  # more are refused
                self.client.log_batch(self.id, params=params[start : start + 100])

    def on_fit_epoch_end(self, values: list[float], epoch: int, *_: object) -> None:
        """Send the row of the epoch; what is not a number is left out."""
        if self.client is None:
            return
        with self._guarded():
            from mlflow.entities import Metric

            now, row = int(time.time() * 1000), self.table.row
            metrics = [
                Metric(_key(key), value, now, epoch) for key, value in row.items() if math.isfinite(value) and key != "epoch"
            ]
            self.client.log_batch(self.id, metrics=metrics)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the run as failed or stopped where the block does not reach its end."""
        try:
            yield
        except BaseException as error:
            self.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def end(self, status: str, *files: Path) -> None:
        """End the run as `FINISHED`, `FAILED` or `KILLED`, with the files that there are."""
        if self.client is None:
            return
        with self._guarded():
            for file in files:
                if file.is_file():
                    self.client.log_artifact(self.id, str(file))
            self.client.set_terminated(self.id, status)
        self.client = None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # MLflow raises whatever its stores and the network do
            self.client = None
            _warn(f"MLflow is off for this run: {without_secrets(str(error)).splitlines()[0]}")


def _key(name: str) -> str:
    return _NO_KEY.sub("_", name)


def _warn(message: str) -> None:
    upstream("utils.general").LOGGER.warning(f"WARNING ⚠️ {message}")
