"""What all tests share: one thread a process that waits without spinning; `make test` runs a process a core."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before torch is imported, here and in what tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # noqa: E402 - the variables have to come first


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Limit torch to as many threads as the environment says."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def in_float32() -> Iterator[None]:
    """Train as on a processor without bfloat16, whatever this one has: many tests compare digits."""
    from gradnorm_plugin.training import options

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(options, "computes_in_bfloat16", lambda: False)
        yield
