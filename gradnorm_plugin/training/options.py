"""The launcher's flags: every one of upstream's `train.py`, taken from its own parser, and ours in a group of their own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import requests
import torch

from gradnorm_plugin.balancing import PRESETS, Balancer, FixedWeights, GradNorm
from gradnorm_plugin.model.dual import BACKBONES
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.flags import parser_of, shown
from gradnorm_plugin.upstream.gateway import upstream

PRETRAINED = "yolov5s.pt"
FROM_SCRATCH = "yolov5s.yaml"
MEASURING = ("gradnorm",)
"""Balancers that measure both tasks' gradients at a layer that they share."""


def upstream_parser() -> argparse.ArgumentParser:
    """The parser that upstream's `train.parse_opt` builds, with every flag it knows."""
    return parser_of(upstream("train").parse_opt)


def build_parser() -> argparse.ArgumentParser:
    """Upstream's parser with our defaults, and our flags."""
    parser = upstream_parser()
    parser.prog = "train_joint_gradnorm_fixed.py"
    parser.description = "Train YOLOv5 on boxes and image classes together, balanced by GradNorm."
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser._optionals.title = "YOLOv5's own options (as in its train.py)"
    parser.set_defaults(
        weights=None,
        data=shown(REPOSITORY / "data" / "joint.yaml"),
        hyp=shown(REPOSITORY / "data" / "hyp.joint.yaml"),
        imgsz=320,
        epochs=5,
        batch_size=8,
        project=shown(REPOSITORY / "runs" / "train"),
    )
    _add_network(parser.add_argument_group("network"))
    _add_balancing(parser.add_argument_group("balancing of the two tasks"))
    _add_classification(parser.add_argument_group("image classification"))
    parser.add_argument_group("data").add_argument(
        "--allow-download",
        action="store_true",
        help="where images are missing, run the code that the data yaml has under `download`, whoever wrote it",
    )
    parser.add_argument_group("screen").add_argument(
        "--log-interval", type=int, default=10, metavar="N", help="batches between two lines of losses and weights"
    )
    return parser


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--backbone",
        choices=BACKBONES,
        default="shared",
        help="shared: one backbone serves both tasks; dual: a second one serves classification, and nothing is shared",
    )


def _add_balancing(group: argparse._ArgumentGroup) -> None:
    report = PRESETS["report"]
    group.add_argument(
        "--balancer",
        choices=["gradnorm", "fixed"],
        help="what sets the task weights; left out: gradnorm, with --backbone dual fixed weights 1 1",
    )
    group.add_argument(
        "--gradnorm-preset",
        choices=sorted(PRESETS),
        default="report",
        help="settings that the flags below change one by one: report (sum 4, ranges, every 10 batches), paper (weights 1, "
        "sum 2, every batch, no ranges)",
    )
    unset = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--gradnorm-alpha",
        type=float,
        **unset,
        help=f"pull towards equal training rates (preset report: {report['alpha']})",
    )
    group.add_argument(
        "--initial-weights",
        type=float,
        nargs=2,
        metavar=("DET", "CLS"),
        **unset,
        help="weights of the first batches, and of the whole run with --balancer fixed (preset report: 1.0 0.01)",
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
        "--gradnorm-interval", type=int, **unset, help=f"batches between two updates (preset report: {report['interval']})"
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
        "--weight-scope",
        choices=["loss", "shared"],
        default="loss",
        help="loss: a weight multiplies its task's loss; shared: only what the task sends into the shared layers",
    )


def _add_classification(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--class-weights",
        choices=["balanced", "none"],
        default="balanced",
        help="weigh the image's classes in the loss by the inverse of their frequency, or all alike",
    )
    group.add_argument(
        "--fitness-share",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="share of balanced accuracy in the fitness that chooses best.pt; the rest is YOLOv5's own fitness",
    )


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; `--device auto` becomes upstream's ''.

    Errors end the program as argparse does: one line, status 2.
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.device.strip().lower() == "auto":
        options.device = ""
    if options.backbone == "dual" and options.balancer in MEASURING:
        parser.error(
            "--backbone dual shares no layer, so there is nothing to balance: leave --balancer out or use --balancer fixed"
        )
    _resolve_balancer(options)
    if options.quad:
        parser.error("--quad makes one image out of four, whose classes differ: leave it out with image classes")
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, found {options.epochs}")
    if options.batch_size < 1 and options.batch_size != -1:
        parser.error(f"--batch-size must be at least 1, or -1 to have it estimated on a GPU, found {options.batch_size}")
    if options.device.strip("cuda: ")[:1].isdigit() and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no CUDA GPU here; use --device auto or --device cpu")
    if options.weights == "" and not options.cfg and not options.resume:
        parser.error("--weights '' trains from scratch and needs a model: add --cfg yolov5s.yaml")
    if options.log_interval < 1:
        parser.error(f"--log-interval must be at least 1, found {options.log_interval}")
    if not 0 <= options.fitness_share <= 1:
        parser.error(f"--fitness-share must be from 0 to 1, found {options.fitness_share}")
    try:
        make_balancer(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def _resolve_balancer(options: argparse.Namespace) -> None:
    if options.balancer is not None:
        return
    options.balancer = "fixed" if options.backbone == "dual" else "gradnorm"
    if options.backbone == "dual" and not hasattr(options, "initial_weights"):
        options.initial_weights = [1.0, 1.0]


def make_balancer(options: argparse.Namespace) -> Balancer:
    """The balancer that the flags describe.

    Raises:
        ValueError: naming the setting that is out of its range.
    """
    settings = dict(PRESETS[options.gradnorm_preset])
    for flag, name in (
        ("gradnorm_alpha", "alpha"),
        ("initial_weights", "initial_weights"),
        ("weight_sum", "weight_sum"),
        ("gradnorm_interval", "interval"),
        ("gradnorm_warmup", "warmup"),
        ("gradnorm_lr", "lr"),
    ):
        settings[name] = getattr(options, flag, settings[name])
    if hasattr(options, "weight_ranges"):
        low, high = options.weight_ranges[0::2], options.weight_ranges[1::2]
        settings["weight_ranges"] = tuple(zip(low, high, strict=True))
    if options.balancer == "fixed":
        return FixedWeights(settings["initial_weights"])
    return GradNorm(**settings)


def resolve_weights(options: argparse.Namespace) -> str | None:
    """Where `--weights` was left out: pretrained weights if they can be had, else training from scratch.

    Returns:
        A line for the log that says which, or None if the user chose.
    """
    if options.weights is not None or options.resume:
        options.weights = options.weights or ""
        return None
    if options.cfg or not _fetch_pretrained():
        reason = f"--cfg {options.cfg} without --weights" if options.cfg else f"{PRETRAINED} is not here and cannot be fetched"
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
