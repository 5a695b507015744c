"""Results on disk: one file for each finished row, written atomically; rows that are there are not run again.

OUT/NAME/rows/KEY.json        a finished row
OUT/NAME/work/KEY/            its scratch directory, kept so that an interrupted row goes on
OUT/NAME/results.json, .csv   all finished rows
OUT/NAME/figures/             figures of them
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib.metadata
import io
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pmp_ref
from pmp_ref.app.files import locked, read_json, write_json
from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, write_atomically
from pmp_ref.kernels.workers import available_cores
from verification.experiments.experiment import Context, Experiment, Row, draw, lookup


class Store:
    """The directory of one experiment."""

    def __init__(self, out: Path, name: str) -> None:
        self.name, self.directory = name, out / name
        try:
            for part in ("rows", "work"):
                (self.directory / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {str(out)!r} cannot be made ({error.strerror}); give another directory") from None

    def stored(self, row: Row) -> dict[str, Any] | None:
        """The finished row, or None if it is not there, is damaged or was made with other settings."""
        path = self.directory / "rows" / f"{row.key}.json"
        if not path.is_file():
            return None
        try:
            found = read_json(path)
            return found if found["key"] == row.key and found["settings"] == row.settings else None
        except (InputError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def scratch(self, row: Row) -> Iterator[Path]:
        """The row's scratch directory, emptied first if it was left by a row with other settings.

        Raises InputError if another process is at this row.
        """
        work = self.directory / "work" / row.key
        work.mkdir(exist_ok=True)
        with locked(work):
            note, directory = work / "settings.json", work / "scratch"
            if not (note.is_file() and read_json(note) == row.settings):
                shutil.rmtree(directory, ignore_errors=True)
                write_json(note, row.settings)
            directory.mkdir(exist_ok=True)
            yield directory

    def run(
        self, experiment: Experiment, row: Row, threads: int | None, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run the row and store it. ``seconds`` is the result's own where it counts time over interruptions."""
        with self.scratch(row) as directory:
            if (found := self.stored(row)) is not None:  # another process has finished it meanwhile
                return found
            began = time.perf_counter()
            result = finite(experiment.run(row, Context(directory, threads, progress)))
            seconds = result.pop("seconds", None)
            stored = {
                "experiment": self.name,
                "key": row.key,
                "settings": row.settings,
                "result": result,
                "seconds": round(time.perf_counter() - began, 3) if seconds is None else seconds,
                "date": datetime.date.today().isoformat(),
                "versions": versions(),
                "machine": machine(),
            }
            write_json(self.directory / "rows" / f"{row.key}.json", stored)
            return stored

    def collect(self, experiment: Experiment, rows: list[Row], quick: bool) -> list[Path]:
        """Write results.json, results.csv and the figures of the finished rows; the files."""
        results = [stored for row in rows if (stored := self.stored(row)) is not None]
        write_json(
            self.directory / "results.json",
            {
                "experiment": self.name,
                "title": experiment.title,
                "summary": experiment.summary,
                "quick": quick,
                "asked": len(rows),
                "rows": results,
            },
        )
        write_atomically(self.directory / "results.csv", table(experiment, results).encode())
        figures = self.directory / "figures"
        shutil.rmtree(figures, ignore_errors=True)  # what is no longer drawn does not stay
        drawn = draw(experiment, results, figures) if results else []
        return [self.directory / "results.json", self.directory / "results.csv", *drawn]


def table(experiment: Experiment, results: list[dict[str, Any]]) -> str:
    """The rows as CSV: key, the experiment's columns, seconds, date."""
    columns = list(dict.fromkeys(("key", *experiment.columns, "seconds", "date")))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for stored in results:
        writer.writerow(["" if (v := lookup(stored, name)) is None else v for name in columns])
    return text.getvalue()


def finite(value: Any) -> Any:
    """The value as strict JSON: numbers that are not finite become null, tuples lists, NumPy scalars numbers."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Versions of what makes the numbers."""
    found = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    return {"pmp_ref": pmp_ref.__version__, "python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Size and kind of the machine: cores that may be used, memory in GiB, processor family."""
    size = None
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        size = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {"cores": available_cores(), "memory_GiB": size, "processor": platform.machine()}


__all__ = ["OutputError", "Store", "finite", "machine", "table", "versions"]
