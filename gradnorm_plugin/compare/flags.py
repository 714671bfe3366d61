"""The flags of `compare`, without PyTorch, so that --help and wrong flags are answered at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gradnorm_plugin.convert.flags import add_group_flags, add_table_flags, check_group_flags
from gradnorm_plugin.terminal import parse
from gradnorm_plugin.training import flags as training
from gradnorm_plugin.upstream.checkout import WORKSPACE
from gradnorm_plugin.upstream.gateway import shown

MOST_FOLDS = 1000
GROUPS = ("group", "group_pattern", "classes_csv", "csv_columns", "csv_image", "csv_encoding")
"""Options that determine the folds, which are drawn once."""
_SETTLED = ("methods", "method", "seeds", "folds", "name", "exist_ok", *GROUPS)
"""Options that a resumed comparison takes from its plan."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `yolov5-gradnorm compare`; flags it does not know are training flags."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm compare",
        usage="%(prog)s [--methods NAME ...] [--seeds K ... | --folds K] [options] [training flags]",
        description="Train several methods with the same seeds or folds, everything else equal, and compare their results. "
        "Every run is a normal training in its own folder.",
        epilog="All other flags (--data, --epochs, --imgsz, --weights, --device, ...) are passed to every run: see `train "
        "--help`. With --jobs on a GPU, all runs share the one given by --device; if several are given, every run uses them all.",
        allow_abbrev=False,  # --seed is a training flag, not short for --seeds
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="methods to compare (--list shows them; default: all)")
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME=FLAGS",
        help='add your own method, e.g. --method alpha0="--balancer gradnorm --gradnorm-alpha 0"; repeatable',
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="seeds to train each method with (default: 0 1 2)")
    parser.add_argument(
        "--folds", type=int, metavar="K", help="instead of seeds: cross-validation over the images of train and val together"
    )
    groups = parser.add_argument_group("groups of images kept in one fold")
    add_group_flags(groups)
    add_table_flags(groups)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs in parallel (default: 1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads per run (default: cores / jobs; with --resume the original value)"
    )
    project = shown(WORKSPACE / "runs" / "compare")
    parser.add_argument("--project", default=project, metavar="FOLDER", help=f"parent folder of comparisons (default: {project})")
    parser.add_argument("--name", metavar="NAME", help="folder of this comparison in --project (default: exp, exp2, ...)")
    parser.add_argument("--exist-ok", action="store_true", help="add methods or seeds to the existing comparison --name")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="resume a comparison as planned: train the unfinished runs (default: the newest in --project)",
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="let the runs execute the code under `download` in the data yaml, whoever wrote it, and fetch URLs among the flags "
        "of a resumed comparison; needed again with --resume, because compare.yaml may come from someone else",
    )
    parser.add_argument(
        "--original-predictions",
        action="store_true",
        help="also check the six predictions of the report this project started from on this data",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the methods (with --data also those for its image outputs) and exit"
    )
    return parser


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """`compare`'s own flags, each checked on its own; valid training flags are in the tuple `flags`.

    Errors end the program as argparse does: one line, status 2.
    """
    options, rest = parser.parse_known_args(argv)
    options.flags = tuple(rest)
    if options.resume is not None:
        given = [_flag(name) for name in _SETTLED if getattr(options, name)] + rest[:1]
        if given:
            parser.error(f"--resume goes on as compare.yaml says: leave out {' '.join(given)} (to add to it: --exist-ok)")
    of_runs = training.build_parser()
    of_runs.prog, of_runs.usage = parser.prog, parser.usage
    parse(of_runs, rest, also=parser)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, found {options.jobs}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, found {options.threads}")
    _settle_folds(parser, options)
    return options


def _settle_folds(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """With --folds, the seeds are the fold numbers."""
    given = [_flag(name) for name in GROUPS if getattr(options, name)]
    if options.folds is None:
        if given:
            parser.error(f"{given[0]} is for folds: add --folds K")
        return
    if options.seeds is not None:
        parser.error("--folds takes the place of --seeds: give one of them")
    if not 2 <= options.folds <= MOST_FOLDS:
        parser.error(f"--folds must be from 2 to {MOST_FOLDS}, found {options.folds}")
    if options.exist_ok and given:
        parser.error(f"{given[0]}: an existing comparison keeps its folds; leave it out with --exist-ok")
    check_group_flags(parser, options)
    table = next((flag for flag in given if flag.startswith(("--classes", "--csv"))), None)
    if table and not options.group:
        parser.error(f"{table} is read for --group COLUMN: add that")
    options.seeds = range(options.folds)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
