"""How the program ends on an error that the user can mend."""

from __future__ import annotations

import sys
from typing import NoReturn


def fail(message: str) -> NoReturn:
    """End the program with status 1 and the message on stderr, red on a terminal."""
    prefix = "\033[31m\033[1mERROR:\033[0m" if sys.stderr.isatty() else "ERROR:"
    print(f"{prefix} {message}", file=sys.stderr)
    sys.exit(1)
