"""`yolov5-gradnorm predict`: all flags of upstream's `detect.py` plus ours, and the exit on bad input."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gradnorm_plugin.files import explain
from gradnorm_plugin.labels import LabelError
from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.terminal import add_precision, check_precision, fail, parse
from gradnorm_plugin.upstream.checkout import WORKSPACE
from gradnorm_plugin.upstream.gateway import parser_of, shown


def main(argv: Sequence[str] | None = None) -> None:
    """Predict with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    # Imported late: it loads PyTorch, which takes seconds that --help and wrong flags need not wait for.
    from gradnorm_plugin.predict.pipeline import predict

    try:
        predict(options)
    except (PredictError, LabelError) as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))


def build_parser() -> argparse.ArgumentParser:
    """Upstream's parser with our defaults and our flags."""
    parser = parser_of("detect")
    parser.conflict_handler = "resolve"  # later versions have a --save-csv of their own, and no --visualize
    parser.prog = "yolov5-gradnorm predict"
    parser.description = (
        "Detect boxes in images, videos and camera streams, and predict the class or other outputs of each image."
    )
    parser.epilog = (
        "Defaults that differ from YOLOv5: --weights and --source have none; --imgsz is the size the weights were trained or "
        f"exported with, else {DEFAULT_SIZE}; --line-thickness scales with the image. --save-conf is refused: joint labels have "
        "no sixth column, and --save-json and --save-csv contain the confidences."
    )
    parser._optionals.title = "YOLOv5's own options (as in its detect.py)"
    project = shown(WORKSPACE / "runs" / "predict")
    parser.set_defaults(weights=None, source=None, data=None, imgsz=None, line_thickness=None, project=project, visualize=False)
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--save-json", action="store_true", help="save predictions.json: boxes, class and probabilities, image outputs"
    )
    group.add_argument(
        "--save-csv", action="store_true", help="save images.csv (one row per image) and boxes.csv (one row per box)"
    )
    group.add_argument(
        "--explain",
        action="store_true",
        help="save explained/NAME: the image next to heat maps that show why each output was predicted (.pt only)",
    )
    add_precision(parser)
    group = parser.add_argument_group("class of the image")
    group.add_argument(
        "--clip-class",
        action="store_true",
        help="for videos, also one prediction over all frames, drawn as it settles; with --save-json and --save-csv in "
        "clips.json and clips.csv",
    )
    group.add_argument(
        "--abstain",
        type=float,
        default=0.0,
        metavar="THRESHOLD",
        help="say `unsure` if the class's probability is below this, from 0 to 1",
    )
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; errors end the program as argparse does: one line, status 2."""
    parser = build_parser()
    options = parse(parser, argv)
    if not options.weights:
        parser.error("--weights is missing: name a checkpoint, such as runs/train/exp/weights/best.pt, or an exported file")
    if not options.source:
        parser.error("--source is missing: name a picture, a video, a folder, a glob, a list, a camera or a URL")
    if options.save_conf:
        parser.error(
            "--save-conf would write a sixth column, which joint labels do not have: --save-json and --save-csv hold them"
        )
    check_precision(parser, options)
    if options.vid_stride < 1:
        parser.error(f"--vid-stride must be at least 1, found {options.vid_stride}")
    if options.line_thickness is not None and options.line_thickness < 1:
        parser.error(f"--line-thickness must be at least 1, found {options.line_thickness}")
    return options
