"""The balancer that the flags describe."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from gradnorm_plugin.balancing import BALANCERS, Balancer, FixedWeights, GradNorm, preset
from gradnorm_plugin.training.flags import AUTO, flag_of, own_settings

_GRADNORM_FLAGS = {
    "gradnorm_alpha": "alpha",
    "weight_sum": "weight_sum",
    "gradnorm_interval": "interval",
    "gradnorm_warmup": "warmup",
    "gradnorm_lr": "lr",
    "gradnorm_start": "start",
}
_GRADNORM_ALONE = ("gradnorm_alpha", "weight_sum", "weight_ranges", "gradnorm_warmup", "gradnorm_lr", "gradnorm_start")


def resolve_balancer(options: argparse.Namespace) -> None:
    """Choose where `--balancer` or `--gradnorm-preset` were left out: by the network, and by what training starts from.

    Raises:
        ValueError: if the one that was asked for needs a layer that both tasks share, and there is none.
    """
    options.gradnorm_preset = _chosen_preset(options)
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


def make_balancer(options: argparse.Namespace, num_tasks: int | None = None) -> Balancer:
    """The balancer that the flags describe, for detection and T - 1 image outputs.

    Args:
        num_tasks: T; None before the data yaml is read, where as many are taken as the flags have values for.

    Raises:
        ValueError: naming the setting that is out of its range, or the flag that the balancer does not have.
    """
    _refuse_foreign_flags(options)
    given = _per_task(options, num_tasks)
    tasks = num_tasks or max([2, *(len(values) for values in given.values())])
    balancer, settings_of_preset = BALANCERS[options.balancer], preset(_chosen_preset(options), tasks)
    if balancer is GradNorm:
        return _make_gradnorm(options, settings_of_preset, given, tasks)
    weights = {name: value for name, value in given.items() if name == "initial_weights"}
    settings = {"interval": settings_of_preset["interval"], **_given(options, gradnorm_interval="interval"), **weights}
    if balancer is FixedWeights:
        return FixedWeights(settings.get("initial_weights", settings_of_preset["initial_weights"]), settings["interval"])
    own = {destination: argument for owner, argument, destination in own_settings() if owner == balancer.name}
    count = {} if tasks == 2 else {"num_tasks": tasks}  # what a balancer is made for by itself
    return balancer(**count, **settings, **_given(options, **own))


def _chosen_preset(options: argparse.Namespace) -> str:
    """A weight sum of 4 quadruples detection's step: a short run from scratch gains by it, trained weights lose. Flags that
    describe a sum mean one."""
    if options.gradnorm_preset != AUTO:
        return str(options.gradnorm_preset)
    of_a_sum = hasattr(options, "weight_sum") or hasattr(options, "weight_ranges")
    return "ratio" if options.weights and not of_a_sum else "report"


def _per_task(options: argparse.Namespace, num_tasks: int | None) -> dict[str, list[Any]]:
    """The flags that have a value for each task: detection's, then one for every image output, or one for each."""
    found: dict[str, list[Any]] = {}
    for name, values in _given(options, initial_weights="initial_weights", weight_ranges="weight_ranges").items():
        flag, numbers = flag_of(name), list(values)
        if name == "weight_ranges":
            if len(numbers) % 2:
                raise ValueError(f"{flag} has {len(numbers)} numbers: give a lowest and a highest for each weight")
            numbers = list(zip(numbers[0::2], numbers[1::2], strict=True))
        if len(numbers) < 2:
            raise ValueError(
                f"{flag} is for detection and the image outputs: give a value for each of both, or one for every task"
            )
        if num_tasks is not None and len(numbers) == 2:
            numbers += [numbers[1]] * (num_tasks - 2)
        if num_tasks is not None and len(numbers) != num_tasks:
            raise ValueError(
                f"{flag} is for {len(numbers)} tasks, but the data have {num_tasks}, detection and {num_tasks - 1} image "
                f"outputs: give a value for each, or two, the second of which is every image output's"
            )
        found[name] = numbers
    return found


def _make_gradnorm(options: argparse.Namespace, preset: dict[str, Any], given: dict[str, Any], num_tasks: int) -> GradNorm:
    settings = {**preset, **_given(options, **_GRADNORM_FLAGS), **given}
    if "reference" in settings and hasattr(options, "weight_sum"):
        raise ValueError(f"--weight-sum: with --gradnorm-preset {options.gradnorm_preset} detection's weight is always 1 instead")
    return GradNorm(num_tasks, **settings)


def _given(options: argparse.Namespace, **names: str) -> dict[str, Any]:
    """The values of the flags that were given, under the balancer's names for them."""
    return {name: getattr(options, flag) for flag, name in names.items() if hasattr(options, flag)}


def _refuse_foreign_flags(options: argparse.Namespace) -> None:
    """A flag that the balancer does not have would be without effect, and that without a word."""
    owners = dict.fromkeys(_GRADNORM_ALONE, GradNorm.name)
    owners |= {destination: name for name, _, destination in own_settings()}
    for destination, owner in owners.items():
        if hasattr(options, destination) and options.balancer != owner:
            raise ValueError(
                f"{flag_of(destination)} belongs to --balancer {owner}; with --balancer {options.balancer} it has no effect"
            )
    balancer = BALANCERS[options.balancer]
    takes = balancer is FixedWeights or "initial_weights" in inspect.signature(balancer).parameters
    if hasattr(options, "initial_weights") and not takes:
        raise ValueError(f"--initial-weights: {options.balancer} sets the weights itself, from its first batch on; leave it out")
