"""What `--help` says of the balancers: facts that the flags can tell before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS: dict[str, Mapping[str, tuple[float, str]]] = {
    "gradnorm": {},
    "fixed": {},
    "uncertainty": {"lr": (0.025, "step size on the log variances")},
    "dwa": {"temperature": (2.0, "larger makes the weights more equal")},
    "uw-so": {"temperature": (1.0, "larger makes the weights more equal")},
    "log": {},
    "pcgrad": {},
    "cagrad": {"c": (0.4, "how far from the mean gradient, as a share of it")},
    "bisector": {},
}
"""By balancer, in the order of the help: those numbers among its constructor's arguments that have a flag `--NAME-ARGUMENT` of
their own, each with its default there and the flag's help. GradNorm's are in `PRESETS`."""

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
"""Settings for two tasks, detection first: those of the report that this project started from, the paper's, and those that keep
detection's weight at 1. `preset` gives them for more."""
STARTS = ("given", "measured")
"""Where the weights come from before the first update."""
