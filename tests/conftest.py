"""What all tests share: few threads, so that a run does not take over the machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch is imported, here and in what tests start

import pytest  # noqa: E402 - the variable has to come first


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Limit torch to two threads."""
    import torch

    torch.set_num_threads(2)
