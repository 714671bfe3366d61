"""`yolov5-gradnorm val`: all flags of upstream's `val.py` plus ours, and the exit on bad input."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.evaluation import SPLITS, EvaluationError
from gradnorm_plugin.evaluation.intervals import Bootstrap
from gradnorm_plugin.files import explain, is_a_matter_of_place
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.terminal import add_precision, check_precision, fail, parse
from gradnorm_plugin.upstream.checkout import REPOSITORY, WORKSPACE
from gradnorm_plugin.upstream.gateway import parser_of, shown, upstream

BENCHMARKS = ("speed", "study")
"""What upstream's `--task` takes besides a split."""


def main(argv: Sequence[str] | None = None) -> None:
    """Validate with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    try:
        options = parse_options(argv)
    except EvaluationError as error:
        fail(str(error))
    # These need PyTorch, for which --help and mistakes need not wait
    from gradnorm_plugin.data.description import DescriptionError
    from gradnorm_plugin.evaluation.one_pass import evaluate

    try:
        evaluate(options)
    except (LabelErrors, DescriptionError, EvaluationError) as error:
        fail(str(error))
    except OSError as error:
        if not is_a_matter_of_place(error):
            raise
        fail(explain(error))
    except AssertionError as error:  # upstream reports bad input this way
        if not str(error):
            raise
        fail(str(error))


def upstream_parser() -> argparse.ArgumentParser:
    """The parser that upstream's `val.parse_opt` builds, with every flag it knows."""
    return parser_of("val")


def build_parser() -> argparse.ArgumentParser:
    """Upstream's parser with our defaults, and our flags."""
    parser = upstream_parser()
    parser.prog = "yolov5-gradnorm val"
    parser.description = "Evaluate detection and classification of a joint model in one pass."
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser._optionals.title = "YOLOv5's own options (as in its val.py)"
    parser.set_defaults(weights=None, data=None, imgsz=None, project=shown(WORKSPACE / "runs" / "val"))
    (data,) = (action for action in parser._actions if action.dest == "data")
    demo = shown(REPOSITORY / "data" / "joint.yaml")
    data.help = f"data yaml (default: the one the weights were trained on, or {demo} if not recorded)"
    (size,) = (action for action in parser._actions if action.dest == "imgsz")
    size.help = f"pixels (default: as the weights were trained or exported, or {DEFAULT_SIZE} if not recorded)"
    parser.add_argument_group("data").add_argument(
        "--allow-download",
        action="store_true",
        help="if images are missing, run the code under `download` in the data yaml, whoever wrote it",
    )
    add_precision(parser)
    group = parser.add_argument_group("intervals")
    group.add_argument(
        "--bootstrap",
        type=int,
        default=Bootstrap().resamples,
        metavar="N",
        help="image resamples for the 95%% intervals of both tasks' metrics; 0 turns intervals off",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the resampling")
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line as upstream does; `--device auto` becomes its ''.

    Errors end the program as argparse does: one line, status 2.

    Raises:
        EvaluationError: if a file that is named is not there.
    """
    parser = build_parser()
    options = parse(parser, argv)
    if options.device.strip().lower() == "auto":
        options.device = ""
    if not options.weights:
        parser.error("--weights is missing: name a joint checkpoint, for instance --weights runs/train/exp/weights/best.pt")
    if options.task not in (*SPLITS, *BENCHMARKS):
        parser.error(f"--task {options.task}: choose one of {', '.join((*SPLITS, *BENCHMARKS))}")
    if options.bootstrap < 0 or options.seed < 0:
        parser.error("--bootstrap and --seed are whole numbers from 0")
    check_precision(parser, options)
    for name, least in (("batch_size", 1), ("max_det", 1), ("workers", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, found {getattr(options, name)}")
    if options.imgsz is not None and options.imgsz < 1:
        parser.error(f"--imgsz must be at least 1, found {options.imgsz}")
    if options.dnn:
        parser.error("--dnn: OpenCV reads no names of the image's classes; leave it out, ONNX Runtime reads them")
    for weights in options.weights:
        if "://" not in weights and not Path(weights).exists():
            raise EvaluationError(f"--weights {weights} is not there")
    try:
        options.data = options.data and upstream("utils.general").check_yaml(options.data)
    except (AssertionError, OSError, ValueError) as error:  # ValueError: an address that is none
        raise EvaluationError(f"--data {options.data}: {error}") from None
    options.save_txt |= options.save_hybrid  # as upstream does
    return options
