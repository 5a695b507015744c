"""The rows of CIFAR-10 (``verification/experiments/cifar10.py``), on a few drawn images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from verification.experiments import __main__, cifar10
from verification.experiments.cifar10 import Cifar10
from verification.experiments.store import Store


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve colour images of 9×8 pixels, four of them for the test."""
    rng = np.random.default_rng(0)
    file = tmp_path / "images.npz"
    images, labels = rng.integers(0, 256, (16, 9, 8, 3), dtype=np.uint8), np.arange(16)[:, None] % 3
    np.savez(file, train_images=images[:12], train_labels=labels[:12], test_images=images[12:], test_labels=labels[12:])
    monkeypatch.setattr(
        cifar10, "QUICK_DATA", cifar10.QUICK_DATA | {"data": str(file), "held_out": "0", "batch_size": "5"}
    )


def test_every_kind_of_row(tiny: None, tmp_path: Path) -> None:
    """Both methods keep what is wished, on the same budget; descent holds; a row names the command that makes it."""
    assert __main__.main(["cifar10", "--quick", "--out", str(tmp_path), "--threads", "1"]) == 0
    store, rows = Store(tmp_path, "cifar10"), Cifar10().rows(quick=True)
    found = [store.stored(row) for row in rows]
    for row, stored in zip(rows, found, strict=True):
        assert stored is not None
        s, r = row.settings, stored["result"]
        assert r["command"] == f"python -m verification.experiments cifar10 --quick --rows {row.key}"
        assert r["kept_percent"] == 100 if s["keep"] == "all" else 0 < r["kept_percent"] <= 10
        assert 0 <= r["test_low"] <= r["test_percent"] <= r["test_high"] <= 100
        assert r["seconds_per_epoch"] == pytest.approx(stored["seconds"] / s["epochs"], abs=0.01)
        assert r.get("descent_violations", 0) == 0
    assert {row.settings["method"] for row in rows} == {"bSQH", "Adam"}


def test_rows_of_one_setting_differ_by_the_method_alone() -> None:
    """Images, network, epochs and seed are the same for both; the depths are compared at equal epochs."""
    rows = Cifar10().rows(quick=False)
    shared = ("data", "network", "epochs", "seed", "batch_size", "held_out", "shift", "flip")
    ours, theirs = (
        [tuple(row.settings["options"][name] for name in shared) for row in rows if row.settings["method"] == method]
        for method in ("bSQH", "Adam")
    )
    assert ours == theirs and len(ours) == len(rows) // 2
    depths = {row.settings["layers"] for row in rows if row.settings["epochs"] == cifar10.EQUAL}
    assert depths == {8, 14, 20, 32}
    assert all(row.settings["options"]["held_out"] == "0" for row in rows)


def test_the_figure_shows_sizes_and_depths() -> None:
    """Left the rows of the longest runs over what they keep, right the others over their depth."""
    stored = [
        {
            "settings": {"method": method, "layers": layers, "epochs": epochs},
            "result": {"kept_percent": kept, "test_percent": kept / 2 + layers},
        }
        for method in ("bSQH", "Adam")
        for layers, epochs, kept in ((20, 30, 100.0), (20, 30, 10.0), (8, 10, 100.0), (14, 10, 100.0))
    ]
    left, right = Cifar10().figures(stored)["cifar10"].axes
    assert [list(line.get_xdata()) for line in left.lines] == [[10.0, 100.0]] * 2
    assert [list(line.get_ydata()) for line in right.lines] == [[58.0, 64.0]] * 2
