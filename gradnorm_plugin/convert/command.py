"""`yolov5-gradnorm convert`: its flags, and how it ends."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.convert.coco import CLASS_KEYS, READINGS
from gradnorm_plugin.convert.conversion import FORMATS, convert
from gradnorm_plugin.convert.oddities import ConversionError
from gradnorm_plugin.convert.split import DEFAULT_VAL_SHARE
from gradnorm_plugin.terminal import fail


def build_parser() -> argparse.ArgumentParser:
    """The parser of `yolov5-gradnorm convert`."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm convert",
        description="Turn Pascal VOC, COCO or YOLO labels, and a class for each image, into a joint data set with its data yaml.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of the data (or COCO's .json, or YOLO's data yaml)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--format", choices=FORMATS, help="default: told by the files' suffixes")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: JPEGImages, or below SOURCE)")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="folder of the annotations, or one file of them")
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME", help="box classes in this order, others are dropped")
    parser.add_argument("--polygons", action="store_true", help="keep COCO's outlines (one part) instead of boxes alone")
    parser.add_argument("--boxes", choices=READINGS, help="what the four numbers of COCO's boxes are (default: told by them)")
    parser.add_argument("--drop-difficult", action="store_true", help="drop the boxes that Pascal VOC marks as difficult")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if convert wrote it")
    _add_classes(parser.add_argument_group("the image's class"))
    _add_split(parser.add_argument_group("split (default: the source's own, else drawn by class)"))
    return parser


def _add_classes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--classes-csv", type=Path, metavar="FILE", help="CSV file with a row for each image")
    group.add_argument("--csv-columns", nargs=2, metavar=("IMAGE", "CLASS"), help="its columns (default: told by their names)")
    group.add_argument("--csv-encoding", metavar="NAME", help="its encoding: cp1252, big5, ... (default: UTF-8, or its mark's)")
    group.add_argument(
        "--classes-from",
        choices=["csv", "folder", "json", "labels"],
        help="folder: the name of the image's folder; json: COCO's images entries; labels: YOLO's one-hot lines "
        "(default: csv with --classes-csv, else json or labels by the format)",
    )
    keys = ", ".join(CLASS_KEYS)
    group.add_argument("--json-key", metavar="KEY", help=f"key of the class in COCO's images entries (default: first of {keys})")
    group.add_argument(
        "--image-class", nargs="+", default=[], metavar="NAME", help="image classes in this order, others are left out"
    )
    group.add_argument("--min-images", type=int, default=2, metavar="N", help="drop image classes with fewer images (default: 2)")


def _add_split(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--split", nargs="+", type=Path, metavar="FILE", help="lists of images: train.txt val.txt [test.txt]")
    group.add_argument(
        "--val-share", type=float, metavar="SHARE", help=f"draw one, this much for val (default: {DEFAULT_VAL_SHARE})"
    )
    group.add_argument("--test-share", type=float, metavar="SHARE", help="draw one, this much for test (default: 0)")
    group.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    group.add_argument(
        "--link",
        nargs="?",
        const="symlink",
        choices=["symlink", "hardlink"],
        help="link the images instead of copying them (symlink if nothing follows)",
    )


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line. Errors end the program as argparse does: one line, status 2."""
    parser = build_parser()
    options = parser.parse_args(argv)
    for flag, names in (("--names", options.names), ("--image-class", options.image_class)):
        if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
            parser.error(f"{flag} must be different names, found {' '.join(names)!r}")
    if options.split and len(options.split) not in (2, 3):
        parser.error(f"--split takes two or three files: train.txt val.txt [test.txt], found {len(options.split)}")
    if options.split and (options.val_share is not None or options.test_share is not None):
        parser.error("--split gives a split, --val-share and --test-share draw one: leave one out")
    val_share, test_share = options.val_share, options.test_share or 0.0
    val_share = DEFAULT_VAL_SHARE if val_share is None else val_share
    if not (0 < val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        parser.error(f"--val-share {val_share} and --test-share {test_share} must leave something to train on, and to validate")
    if options.min_images < 1:
        parser.error(f"--min-images must be at least 1, found {options.min_images}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be from 0 to {2**32 - 1}, found {options.seed}")
    if options.classes_from == "csv" and not options.classes_csv:
        parser.error("--classes-from csv needs the file: --classes-csv FILE")
    try:
        codecs.lookup(options.csv_encoding or "utf-8")
    except LookupError:
        parser.error(f"--csv-encoding {options.csv_encoding} is no encoding that Python knows: cp1252, big5, utf-16, ...")
    if options.classes_csv and options.classes_from not in (None, "csv"):
        parser.error(f"--classes-csv and --classes-from {options.classes_from} are two sources of the class: leave one out")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Convert with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        report = convert(options)
    except ConversionError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or options.out}: {error.strerror or error}: nothing was converted")
    encoding = sys.stdout.encoding or "utf-8"
    print(report.encode(encoding, "backslashreplace").decode(encoding))
