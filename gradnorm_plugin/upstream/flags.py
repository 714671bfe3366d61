"""The flags of upstream's scripts, taken from their own parsers, so that none is typed again."""

from __future__ import annotations

import argparse
import ast
import os
from pathlib import Path
from typing import Any

from gradnorm_plugin.upstream.gateway import swapped, upstream_root

_SHORT = {"--batch-size": "--batch", "--conf-thres": "--conf", "--iou-thres": "--iou"}
"""The abbreviations that YOLOv5's own guides and habits have; all others have to be written out."""


class _Built(Exception):
    """Upstream's parser has all its flags; the rest of `parse_opt` is not wanted."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that the `parse_opt` of a script ("train", "val", "detect") builds, with every flag it knows; nothing is parsed.

    Only that function of the script runs: the script itself would import PyTorch, for seconds, before `--help` can answer.

    Raises:
        CheckoutError: if YOLOv5 is missing or not patched.
        RuntimeError: if it builds none.
    """
    file = upstream_root() / f"{script}.py"
    functions = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if getattr(node, "name", "") == "parse_opt"]
    # What the function takes from its module
    scope: dict[str, Any] = {"argparse": argparse, "ROOT": Path(os.path.relpath(file.parent))}
    exec(compile(ast.Module(functions, []), str(file), "exec"), scope)
    built: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        built.append(parser)
        raise _Built

    with swapped(argparse.ArgumentParser, parse_args=stop):
        try:
            scope["parse_opt"]()
        except _Built:
            return _with_short_names(built[0])
        except (KeyError, NameError):
            pass
    raise RuntimeError(f"parse_opt of {file} does not parse its flags as the pinned YOLOv5 does: this version is not supported")


def _with_short_names(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    known = parser._option_string_actions
    for flag, short in _SHORT.items():
        if flag in known and short not in known:
            known[flag].option_strings = [*known[flag].option_strings, short]
            known[short] = known[flag]
    return parser


def shown(path: Path) -> str:
    """`path` relative to the working folder where that is shorter to read."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
