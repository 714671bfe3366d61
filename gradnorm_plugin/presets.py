"""What `--help` needs to know about the balancers, without loading PyTorch, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS: dict[str, Mapping[str, tuple[float, str]]] = {
    "gradnorm": {},
    "fixed": {},
    "uncertainty": {"lr": (0.025, "step size on the log variances")},
    "dwa": {"temperature": (2.0, "higher values make the weights more equal")},
    "uw-so": {"temperature": (1.0, "higher values make the weights more equal")},
    "log": {},
    "pcgrad": {},
    "cagrad": {"c": (0.4, "maximum distance from the mean gradient, as a share of its norm")},
    "bisector": {},
}
"""By balancer, in the order of the help: the constructor arguments that have a flag `--NAME-ARGUMENT`, each with its default and
the flag's help. GradNorm's are in `PRESETS`."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "report": {
        "alpha": 1.5,
        "initial_weights": (1.0, 0.01),
        "weight_sum": 4.0,
        "weight_ranges": ((1.0, 4.0), (0.01, 0.4)),
        "interval": 10,
        "warmup": 10,
        "lr": 0.1,
    },
    "paper": {
        "alpha": 1.5,
        "initial_weights": (1.0, 1.0),
        "weight_sum": 2.0,
        "weight_ranges": None,
        "interval": 1,
        "warmup": 1,
        "lr": 0.025,
    },
    "ratio": {
        "alpha": 1.5,
        "initial_weights": (1.0, 0.01),
        "reference": 0,
        "weight_ranges": ((1.0, 1.0), (1e-4, 1.0)),
        "start": "measured",
        "interval": 10,
        "warmup": 10,
        "lr": 0.1,
    },
}
"""Settings for two tasks, detection first: those of the report this project started from, the paper's, and those that keep
detection's weight at 1. `preset` extends them to more tasks."""
STARTS = ("given", "measured")
"""How the weights before the first update are chosen."""
