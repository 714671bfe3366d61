"""The flags of the balancers, and the balancer that they describe."""

from __future__ import annotations

import argparse
from typing import Any

from gradnorm_plugin.balancing import (
    PRESETS,
    Balancer,
    CAGrad,
    DynamicWeightAverage,
    FixedWeights,
    GradNorm,
    PCGrad,
    UncertaintyWeights,
)

BALANCERS = ("gradnorm", "fixed", "uncertainty", "dwa", "pcgrad", "cagrad")
"""What `--balancer` takes."""
_GRADNORM_FLAGS = {
    "gradnorm_alpha": "alpha",
    "initial_weights": "initial_weights",
    "weight_sum": "weight_sum",
    "gradnorm_interval": "interval",
    "gradnorm_warmup": "warmup",
    "gradnorm_lr": "lr",
}
_OF_SHARED_LAYERS = ("gradnorm", "pcgrad", "cagrad")
_GRADNORM_ALONE = ("gradnorm_alpha", "weight_sum", "weight_ranges", "gradnorm_warmup", "gradnorm_lr")


def add_balancing(group: argparse._ArgumentGroup) -> None:
    """Add the flags; those that presets set are absent from the options unless they are given."""
    report = PRESETS["report"]
    group.add_argument(
        "--balancer",
        choices=BALANCERS,
        help="what sets the task weights (docs/balancers.md); pcgrad and cagrad act on the gradients instead; left out: "
        "gradnorm, with --backbone dual fixed weights 1 1",
    )
    group.add_argument(
        "--gradnorm-preset",
        choices=sorted(PRESETS),
        default="report",
        help="settings that the flags below change one by one: report (sum 4, ranges, every 10 batches), paper (weights 1, "
        "sum 2, every batch, no ranges)",
    )
    unset: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--gradnorm-alpha", type=float, **unset, help=f"pull towards equal training rates (preset report: {report['alpha']})"
    )
    group.add_argument(
        "--initial-weights",
        type=float,
        nargs=2,
        metavar=("DET", "CLS"),
        **unset,
        help="weights of the first batches, and of the whole run with --balancer fixed, pcgrad or cagrad (preset report: 1.0 "
        "0.01; uncertainty, pcgrad, cagrad: 1 1)",
    )
    group.add_argument("--weight-sum", type=float, **unset, help=f"sum of the weights (preset report: {report['weight_sum']})")
    group.add_argument(
        "--weight-ranges",
        type=float,
        nargs=4,
        metavar=("DET_MIN", "DET_MAX", "CLS_MIN", "CLS_MAX"),
        **unset,
        help="range of each weight (preset report: 1 4 0.01 0.4)",
    )
    group.add_argument(
        "--gradnorm-interval",
        type=int,
        **unset,
        help=f"batches between two updates; with another balancer between two looks at the gradients, 0 for none (preset "
        f"report: {report['interval']})",
    )
    group.add_argument(
        "--gradnorm-warmup",
        type=int,
        **unset,
        help=f"batches at the initial weights; their mean losses are L(0) (preset report: {report['warmup']})",
    )
    group.add_argument(
        "--gradnorm-lr", type=float, **unset, help=f"size of a relative step of the weights (preset report: {report['lr']})"
    )
    group.add_argument("--uncertainty-lr", type=float, **unset, help="step size on the log variances (default: 0.025)")
    group.add_argument("--dwa-temperature", type=float, **unset, help="larger makes the weights more equal (default: 2)")
    group.add_argument("--cagrad-c", type=float, **unset, help="how far from the mean gradient, as a share of it (default: 0.4)")
    group.add_argument(
        "--weight-scope",
        choices=["loss", "shared"],
        default="loss",
        help="loss: a weight multiplies its task's loss; shared: only what the task sends into the shared layers",
    )


def resolve_balancer(options: argparse.Namespace) -> None:
    """Choose where `--balancer` was left out, by the network.

    Raises:
        ValueError: if the one that was asked for needs a layer that both tasks share, and there is none.
    """
    if options.backbone == "shared":
        options.balancer = options.balancer or "gradnorm"
        return
    if options.balancer in _OF_SHARED_LAYERS:
        raise ValueError(
            "--backbone dual shares no layer, so there is nothing to balance: leave --balancer out or use --balancer fixed"
        )
    options.balancer = options.balancer or "fixed"
    if options.balancer == "fixed" and not hasattr(options, "initial_weights"):
        options.initial_weights = [1.0, 1.0]


def make_balancer(options: argparse.Namespace) -> Balancer:
    """The balancer that the flags describe.

    Raises:
        ValueError: naming the setting that is out of its range, or the flag that the balancer does not have.
    """
    _refuse_foreign_flags(options)
    interval = getattr(options, "gradnorm_interval", PRESETS[options.gradnorm_preset]["interval"])
    start = getattr(options, "initial_weights", None)
    if options.balancer == "fixed":
        return FixedWeights(PRESETS[options.gradnorm_preset]["initial_weights"] if start is None else start, interval)
    if options.balancer == "uncertainty":
        return UncertaintyWeights(initial_weights=start, interval=interval, **_given(options, uncertainty_lr="lr"))
    if options.balancer == "dwa":
        return DynamicWeightAverage(interval=interval, **_given(options, dwa_temperature="temperature"))
    if options.balancer == "pcgrad":
        return PCGrad(start, interval=interval)
    if options.balancer == "cagrad":
        return CAGrad(start, interval=interval, **_given(options, cagrad_c="c"))
    settings = {**PRESETS[options.gradnorm_preset], **_given(options, **_GRADNORM_FLAGS)}
    if hasattr(options, "weight_ranges"):
        low, high = options.weight_ranges[0::2], options.weight_ranges[1::2]
        settings["weight_ranges"] = tuple(zip(low, high, strict=True))
    return GradNorm(**settings)


def _given(options: argparse.Namespace, **names: str) -> dict[str, Any]:
    """The values of the flags that were given, under the balancer's names for them."""
    return {name: getattr(options, flag) for flag, name in names.items() if hasattr(options, flag)}


def _refuse_foreign_flags(options: argparse.Namespace) -> None:
    """A flag that the balancer does not have would be without effect, and that without a word."""
    owners = {
        **dict.fromkeys(_GRADNORM_ALONE, "gradnorm"),
        "uncertainty_lr": "uncertainty",
        "dwa_temperature": "dwa",
        "cagrad_c": "cagrad",
    }
    for flag, owner in owners.items():
        if hasattr(options, flag) and options.balancer != owner:
            name = flag.replace("_", "-")
            raise ValueError(f"--{name} belongs to --balancer {owner}; with --balancer {options.balancer} it has no effect")
    if options.balancer == "dwa" and hasattr(options, "initial_weights"):
        raise ValueError("--initial-weights: dwa starts with 1 and 1 by its definition; leave it out")
