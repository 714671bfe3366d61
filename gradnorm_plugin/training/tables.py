"""A CSV of a run that grows with it, is never half-written, and is cut back to the checkpoint when the run resumes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradnorm_plugin.files import whole_file


class RunTable:
    """Rows with an `epoch` column, kept in memory and written whole to a temporary name, then renamed."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, Any]] = []

    def resume(self, epoch: int) -> None:
        """Take over the rows that an earlier start of this run wrote before `epoch`."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numbers keep 6 significant digits. It reaches the disk with the next `write`."""
        self.rows.append({name: f"{v:.6g}" if isinstance(v := row[name], float) else v for name in self.columns})

    def write(self) -> None:
        """Bring the file up to date.

        Raises:
            WriteError: if it cannot be written; the old one is untouched.
        """
        with whole_file(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
