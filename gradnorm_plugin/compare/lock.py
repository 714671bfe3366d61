"""One `compare` at a time in a comparison's folder: two would delete each other's running runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradnorm_plugin.compare.folders import CompareError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def alone_in(root: Path) -> Iterator[tuple[int, ...]]:
    """Hold a lock on the folder `root` for the length of the block; nothing is written to it.

    Yields:
        The file descriptors that the runs have to inherit: a run that outlives a killed `compare` keeps the lock.

    Raises:
        CompareError: if another process holds it.
    """
    if fcntl is None:
        yield ()
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompareError(
                f"{root} is being worked on, by another `compare` or by a run that a killed one left behind: wait until it has "
                f"ended, or end it (`pgrep -af {root}` shows it)"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield (handle,)
    finally:
        os.close(handle)
