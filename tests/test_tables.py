"""A run's tables: what is written comes back, a resumed run takes up its rows, and no crash leaves half a file."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest

from gradnorm_plugin.training.tables import RunTable

COLUMNS = ("epoch", "step", "loss")


def filled(path: Path, epochs: int) -> RunTable:
    """A written table with two rows an epoch."""
    table = RunTable(path, COLUMNS)
    for step in range(2 * epochs):
        table.append({"epoch": step // 2, "step": step, "loss": 1 / (step + 3)})
    table.write()
    return table


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Crash(Exception):
    pass


class Unwritable:
    """A value at which writing stops, in the middle of the file."""

    def __str__(self) -> str:
        raise Crash


def test_what_is_written_comes_back(tmp_path):
    filled(tmp_path / "run.csv", 2)
    found = rows(tmp_path / "run.csv")
    assert tuple(found[0]) == COLUMNS
    assert [(int(row["epoch"]), int(row["step"])) for row in found] == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert [float(row["loss"]) for row in found] == pytest.approx([1 / 3, 1 / 4, 1 / 5, 1 / 6], rel=1e-5)


def test_columns_stand_in_their_order_whatever_that_of_the_row(tmp_path):
    table = RunTable(tmp_path / "run.csv", COLUMNS)
    table.append({"loss": 0.5, "step": 1, "epoch": 0})
    table.write()
    assert (tmp_path / "run.csv").read_text().splitlines() == ["epoch,step,loss", "0,1,0.5"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.333333"),
        (123456.789, "123457"),
        (0.000012345678, "1.23457e-05"),
        (np.float64(2 / 3), "0.666667"),
        (4.0, "4"),
        (12345678, "12345678"),  # a count is exact
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(tmp_path, value, text):
    table = RunTable(tmp_path / "run.csv", COLUMNS)
    table.append({"epoch": 0, "step": 0, "loss": value})
    table.write()
    (row,) = rows(tmp_path / "run.csv")
    assert row["loss"] == text
    assert float(row["loss"]) == pytest.approx(float(value), rel=1e-5, nan_ok=True)


def test_a_row_that_lacks_a_column_is_refused(tmp_path):
    with pytest.raises(KeyError, match="loss"):
        RunTable(tmp_path / "run.csv", COLUMNS).append({"epoch": 0, "step": 0})


def test_rows_reach_the_disk_with_write_alone(tmp_path):
    table = filled(tmp_path / "run.csv", 1)
    table.append({"epoch": 1, "step": 2, "loss": 0.1})
    assert len(rows(tmp_path / "run.csv")) == 2
    table.write()
    assert len(rows(tmp_path / "run.csv")) == 3


@pytest.mark.parametrize("epoch", [0, 1, 2, 3, 9])
def test_a_resumed_run_keeps_the_rows_before_its_epoch(tmp_path, epoch):
    filled(tmp_path / "run.csv", 3)
    before = rows(tmp_path / "run.csv")
    table = RunTable(tmp_path / "run.csv", COLUMNS)
    table.resume(epoch)
    kept = min(2 * epoch, 6)
    table.append({"epoch": epoch, "step": 2 * epoch, "loss": 0.25})
    assert rows(tmp_path / "run.csv") == before  # nothing is cut on the disk before there is something to put in its place
    table.write()
    after = rows(tmp_path / "run.csv")
    assert after[:-1] == before[:kept]
    assert after[-1] == {"epoch": str(epoch), "step": str(2 * epoch), "loss": "0.25"}


def test_an_interrupted_run_taken_up_again_equals_one_without_interruption(tmp_path):
    filled(tmp_path / "whole.csv", 4)
    filled(tmp_path / "cut.csv", 3)  # it had written epoch 2, but its last checkpoint is of epoch 1
    table = RunTable(tmp_path / "cut.csv", COLUMNS)
    table.resume(2)
    for step in range(4, 8):
        table.append({"epoch": step // 2, "step": step, "loss": 1 / (step + 3)})
    table.write()
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_new_run_has_nothing_to_resume(tmp_path):
    table = RunTable(tmp_path / "run.csv", COLUMNS)
    table.resume(5)
    assert table.rows == [] and not (tmp_path / "run.csv").exists()


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path):
    table = filled(tmp_path / "run.csv", 2)
    before = (tmp_path / "run.csv").read_bytes()
    table.append({"epoch": 2, "step": 4, "loss": 0.5})
    good, table.rows[1] = table.rows[1], {"epoch": 0, "step": 1, "loss": Unwritable()}
    with pytest.raises(Crash):
        table.write()
    assert (tmp_path / "run.csv").read_bytes() == before
    table.rows[1] = good
    table.write()
    assert len(rows(tmp_path / "run.csv")) == 5
    assert os.listdir(tmp_path) == ["run.csv"]


def test_a_crash_before_the_rename_leaves_the_old_file_whole(tmp_path, monkeypatch):
    table = filled(tmp_path / "run.csv", 1)
    before = (tmp_path / "run.csv").read_bytes()
    table.append({"epoch": 1, "step": 2, "loss": 0.5})

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(Crash):
        table.write()
    assert (tmp_path / "run.csv").read_bytes() == before


def test_a_crash_at_the_first_write_leaves_no_table(tmp_path):
    table = RunTable(tmp_path / "run.csv", COLUMNS)
    table.append({"epoch": 0, "step": 0, "loss": Unwritable()})
    with pytest.raises(Crash):
        table.write()
    assert not (tmp_path / "run.csv").exists()
