"""What all tests share: one thread a process that waits without spinning; `make test` runs a process a core."""

from __future__ import annotations

import os

# Before torch is imported, here and in what tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # noqa: E402 - the variables have to come first


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Limit torch to as many threads as the environment says."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
