"""The launcher's flags: every one of upstream's `train.py`, taken from its own parser, and ours in a group of their own."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import requests
import torch

from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.model.dual import BACKBONES
from gradnorm_plugin.model.joint import HEADS
from gradnorm_plugin.terminal import parse
from gradnorm_plugin.training.balancers import add_balancing, make_balancer, resolve_balancer
from gradnorm_plugin.training.start import adopt_network
from gradnorm_plugin.upstream.checkout import REPOSITORY, WORKSPACE
from gradnorm_plugin.upstream.gateway import parser_of, shown, upstream

PRETRAINED = "yolov5s.pt"
FROM_SCRATCH = "yolov5s.yaml"


def upstream_parser() -> argparse.ArgumentParser:
    """The parser that upstream's `train.parse_opt` builds, with every flag it knows."""
    return parser_of("train")


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
        imgsz=DEFAULT_SIZE,
        epochs=5,
        batch_size=8,
        project=shown(WORKSPACE / "runs" / "train"),
    )
    told = {
        "quad": "not with image classes: refused",
        "device": "auto (a GPU if there is one), cpu, or numbers of GPUs: 0 or 0,1,2,3",
        "resume": "go on with an interrupted run, the latest or that of the last.pt named, with the settings that it was started "
        "with",
    }
    for action in parser._actions:
        action.help = told.get(action.dest, action.help)
    _add_network(parser.add_argument_group("network"))
    add_balancing(parser.add_argument_group("balancing of the two tasks"))
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
        help="shared: one backbone serves both tasks; dual: a second one serves classification, and nothing is shared (left out: "
        "that of the joint checkpoint that --weights names, else shared)",
    )
    group.add_argument(
        "--head",
        choices=HEADS,
        help="what tells the image's class. pooled: the whole image, in the backbone's last layer; guided: the whole image and "
        "what is inside the detected boxes, both in fine cells; both: the whole image as pooled, the boxes as guided (left out: "
        "that of the joint checkpoint that --weights names, else both from trained weights, pooled from scratch)",
    )
    group.add_argument(
        "--shared-layer",
        type=int,
        metavar="N",
        help="layer of the model's yaml that feeds the head; with --head both it shows the boxes (left out: that of the joint "
        "checkpoint that --weights names, else the backbone's last layer, for --head guided and both its last one with the "
        "finest cells that the detector uses)",
    )
    group.add_argument(
        "--channels-last",
        action="store_true",
        help="train in the channels-last memory format: the same network, faster on most processors, with other last digits",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="what the layers compute in while training; losses, weights and balancing stay in float32. auto: on a GPU YOLOv5's "
        "AMP, on a CPU float32; bfloat16 takes --channels-last with it, and half the time of a step on a CPU that has "
        "instructions for it (AVX512-BF16, AMX)",
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
        nargs="+",
        default=0.25,
        metavar="SHARE",
        help="share of balanced accuracy in the fitness that chooses best.pt; the rest is YOLOv5's own fitness. With several "
        "image outputs: of all of them together, or one for each",
    )


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; `--device auto` becomes upstream's ''.

    The head and backbone of a joint checkpoint are taken over where `--weights` names one and no flag says otherwise.
    Errors end the program as argparse does: one line, status 2.
    """
    parser = build_parser()
    options = parse(parser, argv)
    if options.device.strip().lower() == "auto":
        options.device = ""
    if options.quad:
        parser.error("--quad makes one image out of four, whose classes differ: leave it out with image classes")
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, found {options.epochs}")
    if options.batch_size < 1 and options.batch_size != -1:
        parser.error(f"--batch-size must be at least 1, or -1 to have it estimated on a GPU, found {options.batch_size}")
    for name, least, most in (("imgsz", 1, math.inf), ("workers", 0, math.inf), ("seed", 0, (1 << 32) - 1)):
        if not least <= getattr(options, name) <= most:
            limit = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            parser.error(f"--{name} must be {limit}, found {getattr(options, name)}")
    if not 0 <= options.label_smoothing <= 1:
        parser.error(f"--label-smoothing must be from 0 to 1, found {options.label_smoothing}")
    if options.device.strip("cuda: ")[:1].isdigit() and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no CUDA GPU here; use --device auto or --device cpu")
    if options.weights == "" and not options.cfg and not options.resume:
        parser.error("--weights '' trains from scratch and needs a model: add --cfg yolov5s.yaml")
    if options.log_interval < 1:
        parser.error(f"--log-interval must be at least 1, found {options.log_interval}")
    shares = options.fitness_share if isinstance(options.fitness_share, list) else [options.fitness_share]
    if len(shares) == 1:
        (options.fitness_share,) = shares
    if not (min(shares) >= 0 and sum(shares) <= 1):
        shown = " ".join(f"{share:g}" for share in shares)
        parser.error(f"--fitness-share must be from 0 to 1, and sum to 1 at most, found {shown}")
    options.channels_last |= options.precision == "bfloat16"  # in the other format most of the gain is lost
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
    """Choose the network, the balancer and its preset where they were left out, once it is clear what training starts from.

    Raises:
        ValueError: if a balancer was asked for that the network cannot have.
    """
    adopt_network(options)
    resolve_balancer(options)


def choices(options: argparse.Namespace, given: Collection[str]) -> dict[str, str]:
    """What was left to the program, and why it chose as it did: by flag, for the log and `run.json`.

    Args:
        options: settled.
        given: the flags that the command line sets.
    """
    trained = "training starts from trained weights" if options.weights else "training starts from scratch"
    reasons = {
        "head": f"{options.head}: {trained}",
        "gradnorm_preset": f"{options.gradnorm_preset}: {trained}",
        "epochs": f"{options.epochs}: enough for the demo set; for data of your own give more",
    }
    if options.balancer != "gradnorm":
        del reasons["gradnorm_preset"]
    return {name: reason for name, reason in reasons.items() if name not in given}


def given_flags(argv: Sequence[str]) -> set[str]:
    """The names of the options that a command line sets; ends the program where one is unknown or has a bad value."""
    parser, unset = build_parser(), object()
    namespace = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([])), unset))
    found = vars(parse(parser, argv, namespace))
    return {name for name, value in found.items() if value is not unset}


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
