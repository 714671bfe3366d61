"""What all tests share: one thread a process that waits without spinning; the processes of pytest-xdist use the cores."""

from __future__ import annotations

import os

# Before torch is imported, here and in what tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # noqa: E402 - the variables have to come first

# Slowest first, about: xdist hands whole files out in this order, and one of these begun last would keep a single core busy
SLOWEST = (
    "test_upstream_still_works", "test_resume", "test_compare_run", "test_convert", "test_training", "test_export", "test_val",
    "test_balancers_train", "test_distributed", "test_dual", "test_facts", "test_predict", "test_bad_input", "test_trust",
    "test_places", "test_checkpoint", "test_phantom", "test_checkout", "test_gateway", "test_patches", "test_report",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first; within a file, and among the others, the order stays."""
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Limit torch to as many threads as the environment says."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
