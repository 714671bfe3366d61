"""`run.json`: which model was trained on which data with which settings, and for how long."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from gradnorm_plugin.files import write_text
from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.run_folder import FACTS_FILE, read_facts
from gradnorm_plugin.training.facts import balancing_facts, data_facts, device_name, model_facts, output_facts, peak_memory
from gradnorm_plugin.training.hook import Hook
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.versions import version_facts


class RunFile(Hook):
    """Writes the facts at the start, the time spent and the peak memory after every epoch, and the moment of the end.

    A resumed run keeps what its first start wrote and adds its own time to the time of the epochs it goes on from; its peak is
    the highest of all starts.
    """

    def __init__(self, run: JointRun) -> None:
        self.run = run
        self.facts: dict[str, Any] = {}
        self.seconds_before = 0.0
        self.peak_before = 0.0
        self.clock = time.monotonic()

    def on_pretrain_routine_end(self, labels: Any, names: Any) -> None:
        """Gather the facts: network and data are there, and nothing is attached to them yet."""
        run, now = self.run, datetime.now().astimezone().isoformat(timespec="seconds")
        found = read_facts(Path(run.loggers.save_dir)) if run.options.resume else {}
        self.seconds_before = float(found.get("seconds") or 0.0)
        self.peak_before = float(found.get("peak_memory_mb") or 0.0)
        self.facts = {
            "command": [without_secrets(word) for word in run.command],
            "started": now,
            "finished": None,
            "seconds": self.seconds_before,
            "peak_memory_mb": None,
            "versions": dict(version_facts()),
            "device": device_name(next(run.model.parameters()).device),
            "model": {"weights": without_secrets(str(run.options.weights)), **model_facts(run.model)},
            "data": {
                "yaml": str(run.options.data),
                "names": list(names.values()) if isinstance(names, dict) else list(names),
                "classification_names": list(run.names.values()),
                **{split: data_facts(dataset, len(names)) for split, dataset in run.datasets.items()},
            },
            "image_outputs": output_facts(run.outputs),
            **{key: found[key] for key in ("command", "started", "model") if key in found},
        }

    def on_train_start(self) -> None:
        """Start the clock."""
        balancing = balancing_facts(self.run.criterion.balancer)
        self.facts["balancing"] = {**balancing, "weight_scope": self.run.options.weight_scope}
        self.clock = time.monotonic()
        self._write()

    def on_fit_epoch_end(self, values: list, epoch: int, best_fitness: Any, fitness: Any) -> None:
        """Keep the time up to the checkpoint that upstream writes next."""
        self._write()

    def on_train_end(self, last: Path, best: Path, epoch: int, results: Any) -> None:
        """Note the end."""
        self.facts["finished"] = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write()

    def _write(self) -> None:
        if self.run.options.evolve:  # many runs in one folder
            return
        self.facts["seconds"] = round(self.seconds_before + time.monotonic() - self.clock, 1)
        peak = peak_memory(next(self.run.model.parameters()).device)
        self.facts["peak_memory_mb"] = None if peak is None else max(peak, self.peak_before)
        write_text(Path(self.run.loggers.save_dir) / FACTS_FILE, json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n")
