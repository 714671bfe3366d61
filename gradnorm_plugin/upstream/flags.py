"""The flags of upstream's scripts, taken from their own parsers, so that none is typed again."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from gradnorm_plugin.upstream.gateway import swapped


class _Built(Exception):
    """Upstream's parser has all its flags; the rest of `parse_opt` is not wanted."""


def parser_of(parse_opt: Callable[[], object]) -> argparse.ArgumentParser:
    """The parser that a script's `parse_opt` builds, with every flag it knows; nothing is parsed.

    Raises:
        RuntimeError: if it builds none.
    """
    built: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        built.append(parser)
        raise _Built

    with swapped(argparse.ArgumentParser, parse_args=stop):
        try:
            parse_opt()
        except _Built:
            return built[0]
    raise RuntimeError(f"YOLOv5's {parse_opt.__module__}.parse_opt no longer parses its flags: this version is not supported")


def shown(path: Path) -> str:
    """`path` relative to the working folder where that is shorter to read."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
