"""The flags of the balancers, and the balancer that they describe."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from typing import Any

from gradnorm_plugin.balancing import BALANCERS, PRESETS, STARTS, Balancer, FixedWeights, GradNorm

_GRADNORM_FLAGS = {
    "gradnorm_alpha": "alpha",
    "initial_weights": "initial_weights",
    "weight_sum": "weight_sum",
    "gradnorm_interval": "interval",
    "gradnorm_warmup": "warmup",
    "gradnorm_lr": "lr",
    "gradnorm_start": "start",
}
_GRADNORM_ALONE = ("gradnorm_alpha", "weight_sum", "weight_ranges", "gradnorm_warmup", "gradnorm_lr", "gradnorm_start")


def add_balancing(group: argparse._ArgumentGroup) -> None:
    """Add the flags; those that presets set are absent from the options unless they are given."""
    report = PRESETS["report"]
    group.add_argument(
        "--balancer",
        choices=tuple(BALANCERS),
        help="what sets the task weights (docs/balancers.md); pcgrad, cagrad and bisector act on the gradients instead; left "
        "out: gradnorm, with --backbone dual fixed weights 1 1",
    )
    group.add_argument(
        "--gradnorm-preset",
        choices=sorted(PRESETS),
        default="report",
        help="settings that the flags below change one by one: report (sum 4, ranges, every 10 batches), paper (weights 1, "
        "sum 2, every batch, no ranges), ratio (detection's weight is always 1, the classification's starts where the measured "
        "gradients are equal, every 10 batches)",
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
        help="weights of the first batches, and of the whole run with --balancer fixed, pcgrad, cagrad or bisector (preset "
        "report: 1.0 0.01; uncertainty, pcgrad, cagrad, bisector: 1 1)",
    )
    group.add_argument("--weight-sum", type=float, **unset, help=f"sum of the weights (preset report: {report['weight_sum']})")
    group.add_argument(
        "--weight-ranges",
        type=float,
        nargs=4,
        metavar=("DET_MIN", "DET_MAX", "CLS_MIN", "CLS_MAX"),
        **unset,
        help="range of each weight (preset report: 1 4 0.01 0.4; preset ratio: 1 1 0.0001 1)",
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
    group.add_argument(
        "--gradnorm-start",
        choices=STARTS,
        **unset,
        help="given: the warm-up runs at the initial weights; measured: only its first batch does, then at the weights that make "
        "the gradients measured so far equal (presets report and paper: given; preset ratio: measured)",
    )
    for balancer, argument, destination in _own_settings():
        default = inspect.signature(balancer).parameters[argument].default
        help_text = f"{balancer.settings[argument]} (default: {default:g})"
        group.add_argument(_flag(destination), type=float, **unset, help=help_text)
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
    if options.balancer and BALANCERS[options.balancer].needs_shared_layer:
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
    balancer, preset = BALANCERS[options.balancer], PRESETS[options.gradnorm_preset]
    if balancer is GradNorm:
        return _make_gradnorm(options)
    settings = {
        "interval": preset["interval"],
        **_given(options, gradnorm_interval="interval", initial_weights="initial_weights"),
    }
    if balancer is FixedWeights:
        return FixedWeights(settings.get("initial_weights", preset["initial_weights"]), settings["interval"])
    own = {destination: argument for owner, argument, destination in _own_settings() if owner is balancer}
    return balancer(**settings, **_given(options, **own))


def _make_gradnorm(options: argparse.Namespace) -> GradNorm:
    settings = {**PRESETS[options.gradnorm_preset], **_given(options, **_GRADNORM_FLAGS)}
    if "reference" in settings and hasattr(options, "weight_sum"):
        raise ValueError(f"--weight-sum: with --gradnorm-preset {options.gradnorm_preset} detection's weight is always 1 instead")
    if hasattr(options, "weight_ranges"):
        low, high = options.weight_ranges[0::2], options.weight_ranges[1::2]
        settings["weight_ranges"] = tuple(zip(low, high, strict=True))
    return GradNorm(**settings)


def _own_settings() -> Iterator[tuple[type[Balancer], str, str]]:
    """Each balancer's own settings: the class, its argument, and where the flag's value stands among the options."""
    for name, balancer in BALANCERS.items():
        for argument in balancer.settings:
            yield balancer, argument, f"{name}_{argument}".replace("-", "_")


def _flag(destination: str) -> str:
    return "--" + destination.replace("_", "-")


def _given(options: argparse.Namespace, **names: str) -> dict[str, Any]:
    """The values of the flags that were given, under the balancer's names for them."""
    return {name: getattr(options, flag) for flag, name in names.items() if hasattr(options, flag)}


def _refuse_foreign_flags(options: argparse.Namespace) -> None:
    """A flag that the balancer does not have would be without effect, and that without a word."""
    owners = dict.fromkeys(_GRADNORM_ALONE, GradNorm.name)
    owners |= {destination: balancer.name for balancer, _, destination in _own_settings()}
    for destination, owner in owners.items():
        if hasattr(options, destination) and options.balancer != owner:
            raise ValueError(
                f"{_flag(destination)} belongs to --balancer {owner}; with --balancer {options.balancer} it has no effect"
            )
    balancer = BALANCERS[options.balancer]
    takes = balancer is FixedWeights or "initial_weights" in inspect.signature(balancer).parameters
    if hasattr(options, "initial_weights") and not takes:
        raise ValueError(f"--initial-weights: {options.balancer} sets the weights itself, from its first batch on; leave it out")
