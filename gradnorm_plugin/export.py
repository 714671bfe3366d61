"""`yolov5-gradnorm export`: upstream's `export.py`, and with `--nms` an ONNX file with built-in NMS."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

from gradnorm_plugin.files import explain, is_a_matter_of_place, whole_file
from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.terminal import fail, parse
from gradnorm_plugin.upstream.gateway import parser_of, upstream

_WITH_NMS = {"onnx", "coreml", "saved_model", "pb", "tflite", "edgetpu", "tfjs"}  # all but the first are upstream's
_OLDEST_OPSET = 12  # the first with batched GatherND

# Upstream's `non_max_suppression` as an ONNX graph: the best class of each prediction, boxes offset by class, sorted by
# confidence. The predictions are padded with max_det empty rows, so that there are always enough to pick from.
_GRAPH = Template("""
suppression (float[batch, predictions, columns] output0) => (float[batch, $max_det, 6] boxes)
<int64[6] below = {0, 0, 0, 0, $max_det, 0}, int64[2] xy = {0, 1}, int64[2] wh = {2, 3}, int64[1] fifth = {4},
 int64[1] first = {5}, int64[1] end = {2147483647}, int64[1] last_axis = {2}, int64[1] one = {1}, int64[1] most = {$max_det},
 int64[2] ends = {0, 2}, int64[2] flat = {0, -1}, int64[3] column = {0, -1, 1}, float two = {2.0}, float zero = {0.0},
 float apart = {$apart}, float[1] iou = {$iou_thres}, float[1] least = {$conf_thres}>
{
    single = Cast <to = 1> (output0)
    rows = Pad (single, below)
    centre = Gather <axis = 2> (rows, xy)
    side = Gather <axis = 2> (rows, wh)
    objectness = Gather <axis = 2> (rows, fifth)
    kinds = Slice (rows, first, end, last_axis)
    half = Div (side, two)
    low = Sub (centre, half)
    high = Add (centre, half)
    corners = Concat <axis = 2> (low, high)
    scores = Mul (objectness, kinds)
    score, index = TopK <axis = 2> (scores, one)
    kind = Cast <to = 1> (index)
    shift = Mul (kind, apart)
    moved = Add (corners, shift)
    turned = Transpose <perm = [0, 2, 1]> (score)
    kept = NonMaxSuppression (moved, turned, most, iou, least)
    where = Gather <axis = 1> (kept, ends)
    every = Reshape (score, flat)
    found = GatherND (every, where)
    size = Shape (every)
    none = ConstantOfShape (size)
    left = ScatterND (none, where, found)
    confidence, order = TopK <axis = 1> (left, most)
    certain = Reshape (confidence, column)
    place = Reshape (order, column)
    whole = Concat <axis = 2> (corners, score, kind)
    picked = GatherND <batch_dims = 1> (whole, place)
    full = Greater (certain, zero)
    boxes = Where (full, picked, zero)
}
""")


class ExportError(ValueError):
    """A checkpoint cannot be exported as asked."""


@dataclass(frozen=True)
class Suppression:
    """NMS settings, with the names and defaults of upstream's `detect.py`."""

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300
    agnostic: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Export with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        for file in options.weights:
            export(file, options)
    except (ExportError, AssertionError) as error:  # the latter is upstream's way to say what is wrong with its input
        if not str(error):
            raise
        fail(str(error).removeprefix("ERROR: "))
    except OSError as error:
        if not is_a_matter_of_place(error):
            raise
        fail(explain(error))


def build_parser() -> argparse.ArgumentParser:
    """Upstream's parser with our defaults and our flags."""
    parser = parser_of("export")
    parser.prog = "yolov5-gradnorm export"
    parser.description = "Export a checkpoint to other formats, and with --nms to an ONNX file with built-in NMS."
    parser._optionals.title = "YOLOv5's own options (as in its export.py)"
    parser.set_defaults(weights=None, imgsz=None, include=["onnx"])
    helps = {
        "imgsz": f"height and width, or one for both, in pixels (default: as in training, else {DEFAULT_SIZE})",
        "nms": "ONNX: also write NAME_nms.onnx, which outputs the boxes after NMS; TF, CoreML: add NMS",
        "agnostic_nms": "with --nms: boxes of different classes suppress each other",
        "iou_thres": "NMS: drop boxes that overlap a better one by more than this",
        "conf_thres": "NMS: drop boxes below this confidence",
    }
    for action in parser._actions:
        action.help = helps.get(action.dest, action.help)
    parser.add_argument_group("boxes after NMS").add_argument(
        "--max-det", type=int, default=Suppression.max_det, metavar="N", help="ONNX: rows per image, boxes first"
    )
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; errors end the program as argparse does: one line, status 2."""
    parser = build_parser()
    options = parse(parser, argv)
    if not options.weights:
        parser.error("--weights is missing: name a checkpoint, for instance --weights runs/train/exp/weights/best.pt")
    for name in ("conf_thres", "iou_thres"):
        if not 0 <= getattr(options, name) <= 1:
            parser.error(f"--{name.replace('_', '-')} must be from 0 to 1, found {getattr(options, name)}")
    if options.max_det < 1:
        parser.error(f"--max-det must be at least 1, found {options.max_det}")
    options.include = [name.lower() for name in options.include]
    if options.nms and not _WITH_NMS.intersection(options.include):
        parser.error("--nms is for ONNX: add onnx to --include")
    if options.nms and "onnx" in options.include and options.opset < _OLDEST_OPSET:
        parser.error(f"--nms needs --opset {_OLDEST_OPSET} or later, found {options.opset}")
    return options


def export(file: str, options: argparse.Namespace) -> None:
    """Write the formats of `options.include` next to the checkpoint `file`, as upstream's `export.py` does, and that of `--nms`.

    Raises:
        ExportError: if `file` is not the checkpoint of a detector.
        SystemExit: upstream's, if a format could not be written.
    """
    from gradnorm_plugin.model.checkpoint import CheckpointError, check_detector, image_size, read_checkpoint, training_flags

    try:
        contents = read_checkpoint(file)
        check_detector(contents.get("ema") or contents["model"])
    except CheckpointError as error:
        raise ExportError(str(error) if file in str(error) else f"{file}: {error}") from None
    size = options.imgsz or list(image_size(training_flags(contents).get("imgsz")) or (DEFAULT_SIZE,))
    own = {name: value for name, value in vars(options).items() if name != "max_det"}
    upstream("export").main(argparse.Namespace(**{**own, "weights": [file], "imgsz": size}))
    if options.nms and "onnx" in options.include:
        source = Path(file).with_suffix(".onnx")
        target = source.with_name(f"{source.stem}_nms.onnx")
        suppression = Suppression(options.conf_thres, options.iou_thres, options.max_det, options.agnostic_nms)
        with whole_file(target) as partial:
            suppress(source, partial, suppression)
        print(f"{target}: `boxes` (B, {suppression.max_det}, 6): x1, y1, x2, y2, confidence, class; rows without a box are 0")


def suppress(source: Path, target: Path, suppression: Suppression) -> None:
    """Write the exported file `source` to `target` with NMS appended: `boxes` (B, max_det, 6) replaces `output0`."""
    import onnx
    from onnx.compose import add_prefix_graph
    from onnx.parser import parse_graph

    model = onnx.load(source)
    predictions, *others = sorted(model.graph.output, key=lambda output: output.name != "output0")
    batch = predictions.type.tensor_type.shape.dim[0]
    apart = 0.0 if suppression.agnostic else 7680.0  # pixels, as upstream
    graph = parse_graph(_GRAPH.substitute(**asdict(suppression), apart=apart))
    add_prefix_graph(graph, "nms/", rename_inputs=False, rename_outputs=False, inplace=True)
    graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(batch)
    del model.graph.output[:]
    model.graph.output.extend([*graph.output, *others])
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    model.metadata_props.add(key="nms", value=json.dumps(asdict(suppression)))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
