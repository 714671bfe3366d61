"""The launcher's flags: every one of upstream's `train.py`, taken from its own parser, and ours in a group of their own.

Nothing here needs PyTorch, which takes seconds to load: --help and mistakes in the flags need not wait for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any

from gradnorm_plugin.model import BACKBONES, DEFAULT_SIZE, HEADS
from gradnorm_plugin.presets import PRESETS, SETTINGS, STARTS
from gradnorm_plugin.terminal import parse
from gradnorm_plugin.upstream.checkout import REPOSITORY, WORKSPACE
from gradnorm_plugin.upstream.gateway import parser_of, shown

AUTO = "auto"
"""The choice that is left to what training starts from."""


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


def _add_balancing(group: argparse._ArgumentGroup) -> None:
    """Add the flags; those that presets set are absent from the options unless they are given."""
    report = PRESETS["report"]
    group.add_argument(
        "--balancer",
        choices=tuple(SETTINGS),
        help="what sets the task weights (docs/balancers.md); pcgrad, cagrad and bisector act on the gradients instead; left "
        "out: gradnorm, with --backbone dual fixed weights 1 1",
    )
    group.add_argument(
        "--gradnorm-preset",
        choices=(AUTO, *sorted(PRESETS)),
        default=AUTO,
        help="settings that the flags below change one by one: report (sum 4, ranges, every 10 batches), paper (weights 1, "
        "sum 2, every batch, no ranges), ratio (detection's weight is always 1, the classification's starts where the measured "
        "gradients are equal, every 10 batches); auto: ratio from trained weights, report from scratch",
    )
    unset: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--gradnorm-alpha", type=float, **unset, help=f"pull towards equal training rates (preset report: {report['alpha']})"
    )
    group.add_argument(
        "--initial-weights",
        type=float,
        nargs="+",
        metavar="WEIGHT",
        **unset,
        help="weights of detection and of each image output (one for all, or one each) in the first batches, and in the whole "
        "run with --balancer fixed, pcgrad, cagrad or bisector (preset report: 1.0 0.01; uncertainty, pcgrad, cagrad, bisector: "
        "1 1)",
    )
    group.add_argument("--weight-sum", type=float, **unset, help=f"sum of the weights (preset report: {report['weight_sum']})")
    group.add_argument(
        "--weight-ranges",
        type=float,
        nargs="+",
        metavar="MIN MAX",
        **unset,
        help="ranges of the weights: detection's, and that of the image outputs, one for all or one each (preset report: 1 4 "
        "0.01 0.4; preset ratio: 1 1 0.0001 1)",
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
    for name, argument, destination in own_settings():
        default, told = SETTINGS[name][argument]
        group.add_argument(flag_of(destination), type=float, **unset, help=f"{told} (default: {default:g})")
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
        nargs="+",
        default=0.25,
        metavar="SHARE",
        help="share of balanced accuracy in the fitness that chooses best.pt; the rest is YOLOv5's own fitness. With several "
        "image outputs: of all of them together, or one for each",
    )


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the flags say, each checked by itself; `--device auto` becomes upstream's ''.

    Errors end the program as argparse does: one line, status 2.
    """
    options = parse(parser, argv)
    if options.device.strip().lower() == "auto":
        options.device = ""
    if options.quad:
        parser.error("--quad makes one image out of four, whose classes differ: leave it out with image classes")
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, found {options.epochs}")
    if options.batch_size < 1 and options.batch_size != -1:
        parser.error(f"--batch-size must be at least 1, or -1 to have it estimated on a GPU, found {options.batch_size}")
    from_0 = ((name, 0, math.inf) for name in ("workers", "patience", "freeze"))
    for name, least, most in (("imgsz", 1, math.inf), *from_0, ("seed", 0, (1 << 32) - 1)):
        found = getattr(options, name)
        if not least <= (min(found) if isinstance(found, list) else found) <= most:
            limit = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            parser.error(f"--{name} must be {limit}, found {found}")
    if not 0 <= options.label_smoothing <= 1:
        parser.error(f"--label-smoothing must be from 0 to 1, found {options.label_smoothing}")
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
    return options


def given_flags(argv: Sequence[str]) -> set[str]:
    """The names of the options that a command line sets; ends the program where one is unknown or has a bad value."""
    parser, unset = build_parser(), object()
    namespace = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([])), unset))
    found = vars(parse(parser, argv, namespace))
    return {name for name, value in found.items() if value is not unset}


def own_settings() -> Iterator[tuple[str, str, str]]:
    """Each balancer's own settings: its name, the argument, and where the flag's value stands among the options."""
    for name, settings in SETTINGS.items():
        for argument in settings:
            yield name, argument, f"{name}_{argument}".replace("-", "_")


def flag_of(destination: str) -> str:
    """The flag whose value stands there among the options."""
    return "--" + destination.replace("_", "-")
