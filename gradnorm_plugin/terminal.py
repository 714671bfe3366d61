"""Command-line parsing, terminal output, and the exit on errors that the user can fix."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from gradnorm_plugin.names import on_screen

_LONG_USAGE = 500
"""Characters; a longer usage would hide the error after it."""


def fail(message: str) -> NoReturn:
    """End the program with status 1 and the message on stderr, red on a terminal."""
    prefix = "\033[31m\033[1mERROR:\033[0m" if sys.stderr.isatty() else "ERROR:"
    print(f"{prefix} {on_screen(message)}", file=sys.stderr)
    sys.exit(1)


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    namespace: argparse.Namespace | None = None,
    also: argparse.ArgumentParser | None = None,
) -> argparse.Namespace:
    """`parser.parse_args`, but suggests the flag closest to a wrong one and shortens a long usage to one line.

    Flags cannot be abbreviated: the meaning of `--weight` would change with every new flag.

    Args:
        also: a parser whose flags are suggested as well.
    """
    parser.allow_abbrev = False
    if len(parser.format_usage()) > _LONG_USAGE:
        arguments = [str(action.metavar or action.dest) for action in parser._actions if not action.option_strings]
        parser.usage = " ".join(["%(prog)s", *arguments, "[flags]   (--help lists them)"])
    options, unknown = parser.parse_known_args(argv, namespace)
    if unknown:
        flags = [flag for of in (parser, also) if of for action in of._actions for flag in action.option_strings]
        hint = ", ".join(match for word in unknown if word.startswith("-") and (match := _closest(word.partition("=")[0], flags)))
        parser.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {hint}?" if hint else ""))
    return options


def _closest(word: str, flags: Sequence[str]) -> str:
    """The flag that begins with `word`, else one that is spelt nearly so, else ''."""
    longer = [flag for flag in flags if flag.startswith(word) and len(word) > len("--")]
    return next(iter(longer[:1] or get_close_matches(word, flags, 1)), "")


def guard_log() -> None:
    """Escape control characters in YOLOv5's log, which contains names from data sets and checkpoints."""
    for name in ("yolov5", "ultralytics"):  # later versions log under the second name
        logging.getLogger(name).addFilter(_escape)  # once: a logger takes the same filter only once


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = on_screen(record.getMessage()), None
    return True


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the `--precision` flag of `val` and `predict`."""
    parser.add_argument_group("speed").add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of the network: bfloat16 (.pt weights only) is faster on a CPU with instructions for it, and changes the "
        "third digit",
    )


def check_precision(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program if two precisions are requested."""
    if options.half and options.precision == "bfloat16":
        parser.error("--half and --precision bfloat16 are two precisions: choose one")
