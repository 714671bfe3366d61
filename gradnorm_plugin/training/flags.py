"""The launcher's flags: all of upstream's `train.py`, from its own parser, plus ours in separate groups.

Nothing here imports PyTorch, so --help and wrong flags are answered without the seconds it takes to load.
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
"""Depends on whether training starts from trained weights or from scratch."""
LONG = 50
"""From this many epochs on, unaugmented images are memorised."""


def default_hyp(epochs: int) -> str:
    """The hyperparameters of a run without `--hyp`."""
    return shown(REPOSITORY / "data" / ("hyp.joint.yaml" if epochs < LONG else "hyp.joint-long.yaml"))


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of flags that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "") else super()._get_help_string(action)


def upstream_parser() -> argparse.ArgumentParser:
    """The parser built by upstream's `train.parse_opt`, with all of its flags."""
    return parser_of("train")


def build_parser() -> argparse.ArgumentParser:
    """Upstream's parser with our defaults and our flags."""
    parser = upstream_parser()
    parser.prog = "train_joint_gradnorm_fixed.py"
    parser.description = "Train YOLOv5 jointly on boxes and image classes, balanced by GradNorm."
    parser.formatter_class = _Help
    parser._optionals.title = "YOLOv5's own options (as in its train.py)"
    parser.set_defaults(
        weights=None,
        data=shown(REPOSITORY / "data" / "joint.yaml"),
        hyp=None,
        imgsz=DEFAULT_SIZE,
        epochs=5,
        batch_size=8,
        project=shown(WORKSPACE / "runs" / "train"),
    )
    told = {
        "quad": "refused: it cannot be combined with image classes",
        "hyp": f"hyperparameters (if omitted: {default_hyp(1)} below {LONG} epochs, else {default_hyp(LONG)}, with mosaics "
        "and flips)",
        "device": "auto (a GPU if there is one), cpu, or GPU indices: 0 or 0,1,2,3",
        "resume": "resume an interrupted run, the latest or that of the given last.pt, with its original settings",
    }
    for action in parser._actions:
        action.help = told.get(action.dest, action.help)
    _add_network(parser.add_argument_group("network"))
    _add_balancing(parser.add_argument_group("task balancing"))
    _add_classification(parser.add_argument_group("image classification"))
    parser.add_argument_group("data").add_argument(
        "--allow-download",
        action="store_true",
        help="if images are missing, run the code under `download` in the data yaml, whoever wrote it",
    )
    parser.add_argument_group("screen").add_argument(
        "--log-interval", type=int, default=10, metavar="N", help="batches between printed lines of losses and weights"
    )
    return parser


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--backbone",
        choices=BACKBONES,
        help="shared: one backbone for both tasks; dual: a second one for the classification, nothing is shared (default: from a "
        "joint checkpoint given by --weights, else shared)",
    )
    group.add_argument(
        "--head",
        choices=HEADS,
        help="which features the head uses. pooled: the whole image, from the backbone's last layer; guided: the whole image and "
        "the detected boxes, both on the fine grid; both: the whole image as in pooled, the boxes as in guided (default: from a "
        "joint checkpoint given by --weights, else both from trained weights, pooled from scratch)",
    )
    group.add_argument(
        "--shared-layer",
        type=int,
        metavar="N",
        help="layer of the model yaml that feeds the head; for --head both, the layer of its box features (default: from a joint "
        "checkpoint given by --weights, else the backbone's last layer; for --head guided and both, the last one at the finest "
        "stride the detector uses)",
    )
    group.add_argument(
        "--channels-last",
        action="store_true",
        help="train in the channels-last memory format: the same network, faster on most CPUs, with different rounding",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="precision of the layers in training; losses, weights and balancing stay in float32. auto: YOLOv5's AMP on a GPU, "
        "float32 on a CPU; bfloat16 implies --channels-last and halves the time per step on a CPU with instructions for it "
        "(AVX512-BF16, AMX)",
    )


def _add_balancing(group: argparse._ArgumentGroup) -> None:
    """Add the flags; those set by presets are missing from the options unless given."""
    report = PRESETS["report"]
    group.add_argument(
        "--balancer",
        choices=tuple(SETTINGS),
        help="what sets the task weights (docs/balancers.md); pcgrad, cagrad and bisector act on the gradients instead (default: "
        "gradnorm; fixed weights 1 1 with --backbone dual)",
    )
    group.add_argument(
        "--gradnorm-preset",
        choices=(AUTO, *sorted(PRESETS)),
        default=AUTO,
        help="values for the flags below, each of which overrides it: report (sum 4, ranges, every 10 batches), paper (weights "
        "1, sum 2, every batch, no ranges), ratio (detection's weight is always 1, the classification's starts where the "
        "measured gradients are equal, every 10 batches); auto: ratio from trained weights, report from scratch",
    )
    unset: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--gradnorm-alpha",
        type=float,
        **unset,
        help=f"strength of the pull towards equal training rates (preset report: {report['alpha']})",
    )
    group.add_argument(
        "--initial-weights",
        type=float,
        nargs="+",
        metavar="WEIGHT",
        **unset,
        help="weights of detection and of the image outputs (one for all, or one each): for the first batches, or for the whole "
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
        help="weight ranges of detection and of the image outputs, one for all or one each (preset report: 1 4 0.01 0.4; preset "
        "ratio: 1 1 0.0001 1)",
    )
    group.add_argument(
        "--gradnorm-interval",
        type=int,
        **unset,
        help=f"batches between weight updates; for other balancers between gradient measurements, 0 for none (preset report: "
        f"{report['interval']})",
    )
    group.add_argument(
        "--gradnorm-warmup",
        type=int,
        **unset,
        help=f"batches at the initial weights; their mean losses are L(0) (preset report: {report['warmup']})",
    )
    group.add_argument(
        "--gradnorm-lr", type=float, **unset, help=f"relative step size of the weights (preset report: {report['lr']})"
    )
    group.add_argument(
        "--gradnorm-start",
        choices=STARTS,
        **unset,
        help="given: the warm-up uses the initial weights; measured: only its first batch does, the others use the weights that "
        "equalise the gradients measured so far (presets report and paper: given; preset ratio: measured)",
    )
    for name, argument, destination in own_settings():
        default, told = SETTINGS[name][argument]
        group.add_argument(flag_of(destination), type=float, **unset, help=f"{told} (default: {default:g})")
    group.add_argument(
        "--weight-scope",
        choices=["loss", "shared"],
        default="loss",
        help="loss: a weight scales its task's whole loss; shared: only the task's gradient into the shared layers",
    )


def _add_classification(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--class-weights",
        choices=["balanced", "none"],
        default="balanced",
        help="weight image classes in the loss by inverse frequency, or all equally",
    )
    group.add_argument(
        "--fitness-share",
        type=float,
        nargs="+",
        default=0.25,
        metavar="SHARE",
        help="share of balanced accuracy in the fitness that selects best.pt; the rest is YOLOv5's own fitness. With several "
        "image outputs: the share of all together, or one each",
    )


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed flags, each checked on its own; `--device auto` becomes upstream's ''.

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
    options.channels_last |= options.precision == "bfloat16"  # without it most of the gain is lost
    return options


def given_flags(argv: Sequence[str]) -> set[str]:
    """The options that a command line sets; ends the program if one is unknown or has a bad value."""
    parser, unset = build_parser(), object()
    namespace = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([])), unset))
    found = vars(parse(parser, argv, namespace))
    return {name for name, value in found.items() if value is not unset}


def own_settings() -> Iterator[tuple[str, str, str]]:
    """Each balancer's own settings: its name, the argument, and the option's attribute name."""
    for name, settings in SETTINGS.items():
        for argument in settings:
            yield name, argument, f"{name}_{argument}".replace("-", "_")


def flag_of(destination: str) -> str:
    """The flag of an option's attribute name."""
    return "--" + destination.replace("_", "-")
