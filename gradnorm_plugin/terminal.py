"""What the program says on the terminal."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

from gradnorm_plugin.names import on_screen


def fail(message: str) -> NoReturn:
    """End the program with status 1 and the message on stderr, red on a terminal."""
    prefix = "\033[31m\033[1mERROR:\033[0m" if sys.stderr.isatty() else "ERROR:"
    print(f"{prefix} {on_screen(message)}", file=sys.stderr)
    sys.exit(1)


def guard_log() -> None:
    """Write control characters in YOLOv5's log, which has names from data sets and checkpoints in it, as escapes."""
    logging.getLogger("yolov5").addFilter(_escape)  # once: a logger takes the same filter only once


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = on_screen(record.getMessage()), None
    return True
