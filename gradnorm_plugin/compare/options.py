"""The flags of `compare`. All others on the line are training flags, handed on to every run."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import NoReturn

from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.upstream.checkout import WORKSPACE
from gradnorm_plugin.upstream.flags import shown

_SETTLED = {"methods": "--methods", "method": "--method", "seeds": "--seeds", "name": "--name", "exist_ok": "--exist-ok"}
"""Flags that a comparison has when it goes on."""


class _List(argparse.Action):
    """Print the methods and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        wide = max(map(len, METHODS))
        for method in METHODS.values():
            print(f"{method.name:{wide}}  {method.label}: {method.note}\n{'':{wide}}  {' '.join(method.flags)}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of `yolov5-gradnorm compare`; flags it does not know are training flags."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm compare",
        usage="%(prog)s [--methods NAME ...] [--seeds K ...] [options] [training flags]",
        description="Train several methods on several seeds, all else alike, and write the figures beside each other. "
        "Every run is a normal training in a folder of its own.",
        epilog="Everything else (--data, --epochs, --imgsz, --weights, --device, ...) is handed on to every run: see "
        "`train --help`. With --jobs on a GPU all runs share that of --device; if it names several, every run uses them all.",
        allow_abbrev=False,  # --seed is a training flag, not short for --seeds
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="methods to compare (default: all that --list shows)")
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME=FLAGS",
        help='one more method of your own, e.g. --method alpha0="--balancer gradnorm --gradnorm-alpha 0"; repeatable',
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="seeds to train each method with (default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of a run (default: cores / jobs)")
    project = shown(WORKSPACE / "runs" / "compare")
    parser.add_argument("--project", default=project, metavar="FOLDER", help=f"where comparisons are (default: {project})")
    parser.add_argument("--name", metavar="NAME", help="folder of this one in --project (default: exp, exp2, ...)")
    parser.add_argument("--exist-ok", action="store_true", help="add methods or seeds to the comparison of that --name")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="go on with a comparison as it was planned: train what is not finished (default: the newest in --project)",
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="let the runs execute the code that the data yaml has under `download`, whoever wrote it, and fetch what the flags "
        "of a resumed comparison name by an address; said anew for --resume, for compare.yaml may come from somebody else",
    )
    parser.add_argument(
        "--original-predictions",
        action="store_true",
        help="also say whether the six predictions of the report that this project started from hold on this data",
    )
    parser.add_argument("--list", nargs=0, action=_List, help="show the methods and end")
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check `compare`'s own flags; the others are in `flags`, a tuple, not looked at yet.

    `methods` is a tuple of `Method`, `seeds` one of numbers, `resume` None, '' (the newest) or a folder.
    Errors end the program as argparse does: usage and one line, status 2.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(argv)
    options.flags = tuple(rest)
    if options.resume is not None:
        given = [flag for name, flag in _SETTLED.items() if getattr(options, name)] + rest[:1]
        if given:
            parser.error(f"--resume goes on as compare.yaml says: leave out {' '.join(given)} (to add to it: --exist-ok)")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, found {options.jobs}")
    if options.threads is None:
        options.threads = max(1, _cores() // options.jobs)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, found {options.threads}")
    options.name = options.name or "exp"
    options.seeds = tuple(dict.fromkeys(options.seeds if options.seeds is not None else (0, 1, 2)))
    if min(options.seeds) < 0:
        parser.error(f"--seeds must not be negative, found {min(options.seeds)}")
    try:
        options.methods = choose_methods(options.methods, [own_method(text) for text in options.method or ()])
    except ValueError as error:
        parser.error(str(error))
    return options


def own_method(text: str) -> Method:
    """The method that `--method NAME=FLAGS` defines; the flags are split as a shell does.

    Raises:
        ValueError: if it cannot be one.
    """
    name, equals, flags = text.partition("=")
    if not equals or not flags.strip().startswith("-"):
        raise ValueError(f'--method {text!r}: expected NAME="FLAGS", e.g. alpha0="--balancer gradnorm --gradnorm-alpha 0"')
    if name in METHODS:
        raise ValueError(f"--method {name}: there is one of this name already (see --list), take another name")
    return Method(name, name, tuple(shlex.split(flags)), note="your own")


def choose_methods(names: Sequence[str] | None, own: Sequence[Method]) -> tuple[Method, ...]:
    """The named methods in that order, all of the registry if none are named; then those of the user's own not yet among them.

    Raises:
        ValueError: if a name is unknown, or two methods of the user's have one name.
    """
    of_user = {method.name: method for method in own}
    if len(of_user) < len(own):
        raise ValueError("--method: two methods have the same name, give each its own")
    known = {**METHODS, **of_user}
    chosen = list(names if names is not None else METHODS)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f'no method {unknown[0]}: take {", ".join(METHODS)}, or define it with --method {unknown[0]}="FLAGS"')
    return tuple(known[name] for name in dict.fromkeys([*chosen, *of_user]))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
