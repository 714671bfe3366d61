"""Run commands of upstream YOLOv5 one after another in one process, as `python SCRIPT ARGS` would, and report each.

Usage: upstream_driver.py COMMANDS.json, a list of {"name", "script", "arguments"}; if `arguments` is null, the script
is only imported. One process, because loading PyTorch for each takes longer than all of them together. It has no
network and no packages `ultralytics` and `pkg_resources`; with `--without-plugin` it has no `gradnorm_plugin` either.
After each command stands a line "@@ NAME ok" or "@@ NAME failed".
"""

from __future__ import annotations

import importlib
import json
import runpy
import socket
import sys
import traceback
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class Absent(MetaPathFinder):
    """Makes top-level packages impossible to import, whether installed or not."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: Any) -> None:
        """Refuse the packages, leave all others to the next finder."""
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r} (absent in this test)", name=name)


def cut_network() -> None:
    """Make every connection and every look-up of a host fail at once."""

    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror("no network in this test")

    socket.getaddrinfo = socket.create_connection = fail  # type: ignore[assignment]


def run(script: str, arguments: list[str] | None) -> bool:
    """Run or import one script, return whether it ended well."""
    sys.argv = [script, *(arguments or [])]
    try:
        runpy.run_path(script, run_name="__main__" if arguments is not None else "imported")
    except SystemExit as end:
        return not end.code
    except Exception:
        traceback.print_exc()
        return False
    return True


def main() -> None:
    """Run the commands."""
    commands = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    without_plugin = "--without-plugin" in sys.argv
    cut_network()
    sys.meta_path.insert(0, Absent("ultralytics", "pkg_resources", *(["gradnorm_plugin"] if without_plugin else [])))
    try:
        importlib.import_module("gradnorm_plugin")
    except ModuleNotFoundError:
        imported = False
    else:
        imported = True
    assert imported != without_plugin, f"gradnorm_plugin imported: {imported}"
    for command in commands:
        ended_well = run(command["script"], command["arguments"])
        sys.stdout.flush()
        print(f"\n@@ {command['name']} {'ok' if ended_well else 'failed'}", flush=True)


if __name__ == "__main__":
    main()
