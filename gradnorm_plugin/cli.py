"""The command line: lists the commands, dispatches to them, and turns expected errors into one line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from gradnorm_plugin.files import explain, is_a_matter_of_place
from gradnorm_plugin.terminal import fail, guard_log
from gradnorm_plugin.upstream.gateway import put_first
from gradnorm_plugin.upstream.record import CheckoutError

# command -> (module, function of the rest of the line, help); imported when called: `setup` needs no other library.
_COMMANDS = {
    "train": (
        "gradnorm_plugin.training.run",
        "main",
        "train on both tasks (flags: train --help)",
    ),
    "val": (
        "gradnorm_plugin.evaluation.command",
        "main",
        "evaluate both tasks of a checkpoint or exported model (flags: val --help)",
    ),
    "predict": (
        "gradnorm_plugin.predict.command",
        "main",
        "predict boxes and class in images, videos, camera streams (flags: predict --help)",
    ),
    "export": (
        "gradnorm_plugin.export",
        "main",
        "export to ONNX (optionally with NMS), TorchScript, OpenVINO, ... (flags: export --help)",
    ),
    "report": ("gradnorm_plugin.report.compose", "main", "write a run's report.md and report.html (flags: report --help)"),
    "compare": (
        "gradnorm_plugin.compare.command",
        "main",
        "train and compare methods over several seeds (flags: compare --help)",
    ),
    "strip": ("gradnorm_plugin.strip", "main", "write the detection half as a stock YOLOv5 checkpoint (flags: strip --help)"),
    "convert": (
        "gradnorm_plugin.convert.command",
        "main",
        "convert Pascal VOC, COCO, YOLO, ... labels to joint labels (flags: convert --help)",
    ),
    "demo-data": ("gradnorm_demo", "main", "generate the demo data set (flags: demo-data --help)"),
}
_FLAGS = {"train": "gradnorm_plugin.training.flags", "compare": "gradnorm_plugin.compare.flags"}
"""Modules that parse a command's flags before its own module, and PyTorch with it, is imported."""
_STOPPED_BY_THEMSELVES = {"train", "compare"}
"""A training leaves a checkpoint to resume from; a comparison stops its runs first."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 on success, 1 with one line on stderr for an expected error, 2 for wrong usage.

    Without a command, shows the help.
    """
    line = list(sys.argv[1:] if argv is None else argv)
    guard_log()
    try:
        if line and line[0] in _COMMANDS:  # before argparse: these parse their own flags, --help among them
            if not sys.stderr.isatty():  # a log keeps every state of a progress bar: one per ten seconds is enough
                os.environ.setdefault("TQDM_MININTERVAL", "10")
            if line[0] not in _STOPPED_BY_THEMSELVES:
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished files and folders are removed
            put_first()  # `python -m` puts the working folder first, whatever it contains
            if line[0] in _FLAGS:
                flags = import_module(_FLAGS[line[0]])
                flags.parse_flags(flags.build_parser(), line[1:])
            module, function, _ = _COMMANDS[line[0]]
            getattr(import_module(module), function)(line[1:])
        elif not line:
            _parser().print_help()
        else:
            close = get_close_matches(line[0], [*_COMMANDS, "setup"], 1)
            if close and close != line[:1]:
                _parser().error(f"there is no command {line[0]}; did you mean {close[0]}?")
            _parser().parse_args(line)
            _setup()
    except CheckoutError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gradnorm_plugin"):
            raise
        fail(f"{error.name} is not installed here: use .venv/bin/python after `make setup`, or `pip install -e .`")
    except OSError as error:
        if not is_a_matter_of_place(error):
            raise
        fail(explain(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _setup() -> None:
    from gradnorm_plugin.upstream.install import setup

    setup()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm",
        description="Joint detection and image classification for YOLOv5, balanced by GradNorm.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    commands.add_parser("setup", help="fetch YOLOv5 into yolov5/ and patch it (standard library and git only)")
    for name, (_, _, text) in _COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _version() -> str:
    try:
        return version("yolov5-gradnorm")
    except PackageNotFoundError:
        return "not installed: running from its folder"
