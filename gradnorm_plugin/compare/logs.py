"""Why a run failed, told from what it printed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

TAIL = 64 * 1024
"""Bytes of a log that are looked at: progress bars make it long, the reason stands at its end."""

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def reason(log: Path, status: int) -> str:
    """One line: the error that the log tells, else the signal that ended the process, else the last line of the log.

    Args:
        log: all that the run printed.
        status: of its process; negative for a signal.
    """
    lines = _lines(log)
    errors = [line for line in lines if line.startswith("ERROR:")]
    if errors:
        return errors[-1].removeprefix("ERROR:").strip()
    if status < 0:
        name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
        return f"ended by signal {name}" + (" (short of memory?)" if name == "SIGKILL" else "")
    last = lines[-1] if lines else "it printed nothing"
    return last if status else f"it ended without its results; its last line: {last}"


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL), os.SEEK_SET)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in re.split(r"[\r\n]+", _COLOURS.sub("", text)) if line.strip()]
