"""Small data and runs for the tests of the application."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pmp_ref.app.main import main
from verification.hardening.interruptions import write_images

__all__ = ["TINY", "bad", "results", "rows", "run", "summary", "write_images"]

TINY = ["--epochs", "2", "--batch-size", "18", "--no-figures", "--quiet", "--threads", "1"]


def run(data: Path, out: Path, *options: str) -> int:
    """``pmp-ref train`` on ``data``; the exit code."""
    return main(["train", "--data", str(data), "--out", str(out), *TINY, *options])


def summary(out: Path) -> dict[str, Any]:
    """``summary.json``, read strictly: NaN and infinity are errors."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} in summary.json")

    return json.loads((out / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)


def rows(path: Path, without: tuple[str, ...] = ("seconds",)) -> list[dict[str, str]]:
    """The rows of a table, without columns that differ between equal runs."""
    with open(path, newline="", encoding="utf-8") as stream:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(stream)]


def results(out: Path) -> dict[str, Any]:
    """All that must agree between a broken and an unbroken run."""
    left_out = ("seconds", "restarts", "sweeps_repeated_after_restarts")
    return {
        "model": (out / "model.npz").read_bytes(),
        "certificate": (out / "certificate.json").read_bytes(),
        "summary": {k: v for k, v in summary(out).items() if k not in left_out},
        **{name: rows(out / name) for name in ("history.csv", "trials.csv", "accuracy.csv")},
    }


def bad(capsys: pytest.CaptureFixture[str], arguments: list[str], *parts: str) -> str:
    """Exit code 2 and one line with the parts; that line."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("pmp-ref: error: ") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err
    assert out == ""
    return err
