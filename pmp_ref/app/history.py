"""The tables of a run: ``history.csv`` (accepted steps), ``trials.csv`` (all other trials), ``accuracy.csv``.

Rows are appended as they come. A checkpoint notes the lengths of the files; a restart cuts them back to it, so that
after the run they read as if it had never been broken (but for ``seconds``).
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmp_ref.errors import InputError
from pmp_ref.files import OutputError
from pmp_ref.result import Record

STEPS = (
    "step",
    "epoch",
    "J",
    "loss",
    "rho",
    "nonzeros",
    "eps",
    "c_hat",
    "tau",
    "rejections",
    "forward_sweeps",
    "backward_sweeps",
    "seconds",
    "position",
    "J_before",
    "loss_before",
    "delta_J",
    "sum_dh",
    "rounding",
    "residual",
    "averaged",
)
TRIALS = ("verdict", *STEPS)
ACCURACY = ("step", "epoch", "nonzeros", "correct", "images", "accuracy")
FILES = {"history.csv": STEPS, "trials.csv": TRIALS, "accuracy.csv": ACCURACY}


class Table:
    """One CSV file, written row by row without a buffer."""

    def __init__(self, path: Path, columns: Sequence[str], length: int | None) -> None:
        """A new table, or with ``length`` an old one cut to that many bytes."""
        self.path, self.columns = path, columns
        try:
            if length is not None and path.stat().st_size < length:
                raise InputError(
                    f"{str(path)!r} holds {path.stat().st_size} bytes, the checkpoint needs {length}: "
                    "restore it from a copy, or start a new run"
                )
            self.stream = open(path, "wb" if length is None else "r+b", buffering=0)
            if length is not None:
                self.stream.truncate(length)
                self.stream.seek(length)
        except FileNotFoundError:
            raise InputError(f"no file {str(path)!r}, which the checkpoint needs: restore it from a copy") from None
        except OSError as error:
            raise self._failed(error) from None
        if length is None:
            self.append(columns)

    def append(self, values: Sequence[Any]) -> None:
        """One row; floats with all their digits, undefined values empty."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([cell(v) for v in values])
        content = text.getvalue().encode()
        try:
            if self.stream.write(content) != len(content):
                raise OSError(28, "no space left on the device")
        except OSError as error:
            raise self._failed(error) from None

    def sync(self) -> int:
        """Make the rows durable; the file's length."""
        try:
            os.fsync(self.stream.fileno())
            return self.stream.tell()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {str(self.path)!r} ({error.strerror})", "the last checkpoint is intact; make room"
        )


class History:
    """The three tables of a run."""

    def __init__(self, directory: Path, lengths: dict[str, int] | None = None) -> None:
        """New tables, or with ``lengths`` the old ones as they were at a checkpoint."""
        self.tables: dict[str, Table] = {}
        try:
            for name, columns in FILES.items():
                self.tables[name] = Table(directory / name, columns, None if lengths is None else lengths[name])
        except BaseException:
            self.close()
            raise

    def start(self, values: dict[str, Any]) -> None:
        """Row 0: the initial controls."""
        self.tables["history.csv"].append([values.get(name) for name in STEPS])

    def record(self, record: Record, accepted: bool, seconds: float) -> None:
        """One trial."""
        values = {**vars(record), "seconds": round(seconds, 3), "averaged": int(record.averaged)}
        name = "history.csv" if accepted else "trials.csv"
        self.tables[name].append([values[column] for column in FILES[name]])

    def accuracy(self, *values: Any) -> None:
        """One row of ``accuracy.csv``."""
        self.tables["accuracy.csv"].append(values)

    def sync(self) -> dict[str, int]:
        """Make all rows durable; the files' lengths."""
        return {name: table.sync() for name, table in self.tables.items()}

    def close(self) -> None:
        """Close the files."""
        for table in self.tables.values():
            table.stream.close()


class NoHistory(History):
    """The tables of a rank that writes none."""

    def __init__(self) -> None:
        self.tables = {}

    def start(self, values: dict[str, Any]) -> None:
        """Nothing."""

    def record(self, record: Record, accepted: bool, seconds: float) -> None:
        """Nothing."""

    def accuracy(self, *values: Any) -> None:
        """Nothing."""


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a table as floats (NaN where empty); text columns are left out. InputError if it is damaged."""
    columns: dict[str, list[float]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if name != "verdict":
                        columns.setdefault(name, []).append(float(value) if value else math.nan)
    except (OSError, ValueError, TypeError, csv.Error) as error:  # TypeError: a row with more cells than columns
        raise InputError(
            f"cannot read the table {str(path)!r} ({' '.join(str(error).split())[:100]}): restore it from a copy"
        ) from None
    return columns


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Some columns of a table as texts. InputError if it is damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {name: [row[name] for row in rows] for name in names}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise InputError(
            f"cannot read the table {str(path)!r} ({' '.join(str(error).split())[:100]}): restore it from a copy"
        ) from None


def numbers(texts: dict[str, list[str]]) -> dict[str, list[float]]:
    """The columns as floats, NaN where empty."""
    return {name: [float(text or "nan") for text in column] for name, column in texts.items()}


def cell(value: Any) -> Any:
    """A value as it stands in a table: floats with all their digits, undefined ones empty."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return "" if value is None else value
