"""Small data and runs for the tests of the application."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.main import main

TINY = ["--epochs", "2", "--batch-size", "18", "--no-figures", "--quiet", "--threads", "1"]


def write_images(path: Path, train: int = 60, test: int = 21, size: int = 12, seed: int = 0, **extra: Any) -> Path:
    """An ``.npz`` file with MedMNIST naming: three classes, a bright stripe at a place of its own on noise."""
    generator = np.random.default_rng(seed)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % 3
        images = generator.integers(0, 90, (n, size, size))
        for i, k in enumerate(labels):
            images[i, 4 * k : 4 * k + 3] += 150
        return images.astype(np.uint8), labels.astype(np.uint8)

    (x, y), (tx, ty) = part(train), part(test)
    arrays: dict[str, Any] = {"train_images": x, "train_labels": y}
    if test:
        arrays |= {"test_images": tx, "test_labels": ty}
    np.savez(path, **(arrays | extra))
    return path


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
