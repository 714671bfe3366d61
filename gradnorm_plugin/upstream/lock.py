"""One set-up at a time: a lock on the repository's folder that ends with its holder, however that ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradnorm_plugin.upstream.errors import CheckoutError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def folder_lock(folder: Path, wait_seconds: float, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock on `folder` for the length of the block; yields False where the system has no such lock.

    The commands that the holder runs inherit it, so git or pip that outlive a killed set-up are waited for.

    Args:
        folder: an existing folder; nothing is written to it.
        wait_seconds: how long to wait for another holder.
        on_wait: called once if there is another holder.

    Raises:
        CheckoutError: if the other holder does not end in time.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        held = fcntl is not None and _acquire(handle, folder, wait_seconds, on_wait)
        if held:
            os.set_inheritable(handle, True)
        yield held
    finally:
        if handle >= 0:
            os.close(handle)


def _acquire(handle: int, folder: Path, wait_seconds: float, on_wait: Callable[[], None]) -> bool:
    deadline = time.monotonic() + wait_seconds
    waiting = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CheckoutError(
                    f"another set-up has been at work in {folder} for {wait_seconds:.0f} s: end it, run this one again"
                ) from None
            if not waiting:
                on_wait()
            waiting = True
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return False
