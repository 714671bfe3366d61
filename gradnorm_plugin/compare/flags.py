"""The flags of `compare`, without what they need PyTorch for: --help and mistakes need not wait for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gradnorm_plugin.terminal import parse
from gradnorm_plugin.training import flags as training
from gradnorm_plugin.upstream.checkout import WORKSPACE
from gradnorm_plugin.upstream.flags import shown

_SETTLED = {"methods": "--methods", "method": "--method", "seeds": "--seeds", "name": "--name", "exist_ok": "--exist-ok"}
"""Flags that are settled already for a comparison that is resumed."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `yolov5-gradnorm compare`; flags it does not know are training flags."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm compare",
        usage="%(prog)s [--methods NAME ...] [--seeds K ...] [options] [training flags]",
        description="Train several methods on the same seeds, all else alike, and write their figures side by side. "
        "Every run is a normal training in a folder of its own.",
        epilog="Everything else (--data, --epochs, --imgsz, --weights, --device, ...) is handed on to every run: see "
        "`train --help`. With --jobs on a GPU all runs share that of --device; if it names several, every run uses them all.",
        allow_abbrev=False,  # --seed is a training flag, not short for --seeds
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="methods to compare (--list shows them; default: all)")
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME=FLAGS",
        help='one more method of your own, e.g. --method alpha0="--balancer gradnorm --gradnorm-alpha 0"; repeatable',
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="seeds to train each method with (default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of a run (default: those it was started with, else cores / jobs)"
    )
    project = shown(WORKSPACE / "runs" / "compare")
    parser.add_argument("--project", default=project, metavar="FOLDER", help=f"where comparisons are kept (default: {project})")
    parser.add_argument("--name", metavar="NAME", help="folder of this one in --project (default: exp, exp2, ...)")
    parser.add_argument("--exist-ok", action="store_true", help="add methods or seeds to the comparison of that --name")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="resume a comparison as it was planned: train what is not finished (default: the newest in --project)",
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="let the runs execute the code that the data yaml has under `download`, whoever wrote it, and fetch addresses "
        "among the flags of a resumed comparison; needed again with --resume, for compare.yaml may be somebody else's",
    )
    parser.add_argument(
        "--original-predictions",
        action="store_true",
        help="also say whether the six predictions of the report that this project started from hold on this data",
    )
    parser.add_argument("--list", action="store_true", help="show the methods, with --data those for its image outputs, and exit")
    return parser


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What `compare`'s own flags say, each checked by itself; the others, known and of the right kind, are in `flags`, a tuple.

    Errors end the program as argparse does: one line, status 2.
    """
    options, rest = parser.parse_known_args(argv)
    options.flags = tuple(rest)
    if options.resume is not None:
        given = [flag for name, flag in _SETTLED.items() if getattr(options, name)] + rest[:1]
        if given:
            parser.error(f"--resume goes on as compare.yaml says: leave out {' '.join(given)} (to add to it: --exist-ok)")
    of_runs = training.build_parser()
    of_runs.prog, of_runs.usage = parser.prog, parser.usage
    parse(of_runs, rest, also=parser)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, found {options.jobs}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, found {options.threads}")
    return options
