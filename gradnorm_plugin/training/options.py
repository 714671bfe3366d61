"""The options that the flags come to: with what `--weights` holds, and what was left to the program."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

import requests
import torch

from gradnorm_plugin.training.balancers import make_balancer, resolve_balancer
from gradnorm_plugin.training.flags import LONG, build_parser, default_hyp, parse_flags
from gradnorm_plugin.training.start import adopt_network
from gradnorm_plugin.upstream.gateway import upstream

PRETRAINED = "yolov5s.pt"
FROM_SCRATCH = "yolov5s.yaml"


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; `--device auto` becomes upstream's ''.

    The head and backbone of a joint checkpoint are taken over where `--weights` names one and no flag says otherwise.
    Errors end the program as argparse does: one line, status 2.
    """
    parser = build_parser()
    options = parse_flags(parser, argv)
    if options.device.strip("cuda: ")[:1].isdigit() and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no CUDA GPU here; use --device auto or --device cpu")
    left_open = {"head": options.head, "gradnorm_preset": options.gradnorm_preset}
    try:
        settle(options)
        make_balancer(options)
    except ValueError as error:
        parser.error(str(error))
    if options.weights is None and not options.cfg and not options.resume:  # `train` sees whether there are trained weights
        vars(options).update(left_open)
    return options


def settle(options: argparse.Namespace) -> None:
    """Choose the network, the balancer, its preset and the hyperparameters where they were left out, once it is clear what
    training starts from.

    Raises:
        ValueError: if a balancer was asked for that the network cannot have.
    """
    adopt_network(options)
    resolve_balancer(options)
    options.hyp = options.hyp or default_hyp(options.epochs)


def choices(options: argparse.Namespace, given: Collection[str]) -> dict[str, str]:
    """What was left to the program, and why it chose as it did: by flag, for the log and `run.json`.

    Args:
        options: settled.
        given: the flags that the command line sets.
    """
    trained = "training starts from trained weights" if options.weights else "training starts from scratch"
    augmented = "no mosaics or flips"
    if options.epochs >= LONG:
        augmented = f"with mosaics and flips against overfitting; {default_hyp(1)} if left and right matter to your classes"
    reasons = {
        "hyp": f"{options.hyp}: {options.epochs} epochs, {augmented}",
        "head": f"{options.head}: {trained}",
        "gradnorm_preset": f"{options.gradnorm_preset}: {trained}",
        "epochs": f"{options.epochs}: enough for the demo set; for data of your own give more",
    }
    if options.balancer != "gradnorm":
        del reasons["gradnorm_preset"]
    return {name: reason for name, reason in reasons.items() if name not in given}


def resolve_weights(options: argparse.Namespace) -> str | None:
    """Where `--weights` was left out: pretrained weights if they can be had, else training from scratch.

    Returns:
        A line for the log that says which, or None if the user chose.
    """
    if options.weights is not None or options.resume:
        options.weights = options.weights or ""
        return None
    if options.cfg or not _fetch_pretrained():
        reason = f"--cfg {options.cfg} without --weights" if options.cfg else f"{PRETRAINED} cannot be found or downloaded"
        options.weights, options.cfg = "", options.cfg or FROM_SCRATCH
        return f"{reason}: training {options.cfg} from scratch"
    options.weights = PRETRAINED
    return f"starting from {PRETRAINED}"


def _fetch_pretrained() -> bool:
    if Path(PRETRAINED).is_file():
        return True
    if upstream("train").RANK != -1:  # several processes must not fetch it at once, nor choose differently
        return False
    try:
        # Upstream's download retries for minutes without a network: look first whether there is one.
        requests.head("https://github.com", timeout=5)
        upstream("utils.downloads").attempt_download(PRETRAINED)
    except Exception:  # whatever kept the file away, training from scratch is the answer
        return False
    return Path(PRETRAINED).is_file()
