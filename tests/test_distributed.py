"""Promise 4, ranks: two processes hold bit-identical weights at every step, and measure what one process would."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_steps import joined, on_ranks, skewed_batch, steps
from joint_data import write_joint_dataset

EVERY_BATCH = {"interval": 1, "warmup": 0}
STEPS = 24


def on_one_rank(extra_boxes: bool, settings: dict[str, Any], frozen: bool, count: int, rank: int) -> dict[str, Any]:
    batches = [skewed_batch(seed, rank, extra_boxes=extra_boxes) for seed in range(count)]
    return steps(batches, settings, frozen, world=2)


def both_cases(rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """In one process: it takes longer to start."""
    return on_one_rank(False, EVERY_BATCH, True, STEPS, rank), on_one_rank(True, {"interval": 2, "warmup": 3}, False, 16, rank)


@pytest.fixture(scope="module")
def ranks() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return on_ranks(both_cases)


@pytest.fixture
def same_boxes(ranks) -> list[dict[str, Any]]:
    """Where one process would find the same: as many boxes on each rank, and batch statistics that are not a rank's own."""
    return [same for same, _ in ranks]


def test_weights_are_bit_identical_on_both_ranks(same_boxes):
    first, second = same_boxes
    assert first["weights"] == second["weights"]  # lists of float64: equal to the last bit
    assert first["norms"] == second["norms"]
    assert first["losses"] == second["losses"]
    assert torch.equal(first["parameters"], second["parameters"])
    assert len({tuple(weights) for weights in first["weights"]}) > STEPS // 2  # they did move


def test_two_ranks_train_as_one_process_on_the_joined_batch(same_boxes):
    """The first batch is measured too: a probe there must not be taken for DDP's own backward pass."""
    batches = [joined([skewed_batch(seed, rank) for rank in (0, 1)]) for seed in range(STEPS)]
    alone = steps(batches, EVERY_BATCH, frozen_statistics=True)
    two = same_boxes[0]
    for step in range(STEPS):
        assert two["losses"][step] == pytest.approx(alone["losses"][step], rel=1e-4), step
        assert two["norms"][step] == pytest.approx(alone["norms"][step], rel=1e-3), step
        assert two["weights"][step] == pytest.approx(alone["weights"][step], rel=1e-3), step
    assert torch.allclose(two["parameters"], alone["parameters"], rtol=1e-3, atol=1e-5)


def test_weights_are_bit_identical_where_one_process_would_differ(ranks):
    """Unequal numbers of boxes (upstream's box loss is a mean of its own on each rank) and each rank's own batch statistics."""
    first, second = [different for _, different in ranks]
    assert first["weights"] == second["weights"]
    assert [norms is None for norms in first["norms"]] == [norms is None for norms in second["norms"]]
    assert sum(norms is not None for norms in first["norms"]) == 7  # batches 4, 6, ... 16


def test_the_real_launcher_trains_two_processes(tmp_path):
    """`torch.distributed.run` and upstream's own train.py around ours, on the CPU (patches/0009)."""
    repository = Path(__file__).parents[1]
    data = write_joint_dataset(tmp_path / "joint", images=16)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += [str(repository / "train_joint_gradnorm_fixed.py"), "--device", "cpu"]
    flags = f"--data {data} --cfg yolov5n.yaml --imgsz 64 --epochs 2 --batch-size 4 --workers 0 --noplots --project {tmp_path}"
    balancing = "--gradnorm-interval 1 --gradnorm-warmup 1 --name run --weights"
    environment = {**os.environ, "PYTHONPATH": str(repository)}

    command = [*launch, *flags.split(), *balancing.split(), ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "run/gradnorm.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    for row in rows[1:]:
        assert float(row["detection_weight"]) + float(row["classification_weight"]) == pytest.approx(4, abs=1e-4)
    assert (tmp_path / "run/weights/best.pt").is_file()
