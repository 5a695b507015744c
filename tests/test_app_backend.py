"""The application on arrays that are not NumPy's, and progress on a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from pmp_ref.app.main import main
from pmp_ref.app.progress import Progress
from tests.app_data import TINY, results, run, write_images
from tests.test_app_resume import Killed, break_after

OPTIONS = ("--debug", "--sweep", "clear", "--check-descent", "all", "--dtype", "float64", "--epochs", "1")


def strict(backend: str) -> Any:
    """Moves arrays to a device that is not the default: reading them on the host by accident fails."""
    device = array_api_strict.Device("device1")
    return lambda a: array_api_strict.asarray(np.asarray(a), device=device)


def test_a_run_on_another_device_gives_the_same_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_images(tmp_path / "d.npz")
    assert run(data, tmp_path / "numpy", *OPTIONS) == 0
    with pytest.MonkeyPatch.context() as patch:
        for module in ("build", "checkpoint"):
            patch.setattr(f"pmp_ref.app.{module}.mover", strict)
        assert run(data, tmp_path / "strict", *OPTIONS) == 0
        with pytest.MonkeyPatch.context() as breaking:
            break_after(1, breaking)
            with pytest.raises(Killed):
                run(data, tmp_path / "broken", *OPTIONS)
        assert main(["train", "--resume", str(tmp_path / "broken"), "--quiet"]) == 0  # with figures
    assert results(tmp_path / "strict") == results(tmp_path / "numpy") == results(tmp_path / "broken")


def test_other_versions_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_images(tmp_path / "d.npz"), tmp_path / "r"
    with pytest.MonkeyPatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(Killed):
            run(data, out)
    config = json.loads((out / "config.json").read_text())
    config["versions"]["numpy"] = "1.0"
    (out / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    assert f"numpy 1.0 → {np.__version__}" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    loud = [a for a in TINY if a != "--quiet"]
    data = write_images(tmp_path / "d.npz")
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "r"), *loud]) == 0
    text = terminal.getvalue()
    assert "\r" in text and "100%|" in text and "held_out" in text and "eps" in text


def test_without_a_limit_the_progress_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmp_ref.app.progress.EVERY", 0.0)
    progress = Progress(None, 0, False, "a notice")
    progress.show(3, True, J="1.5")
    progress.show(4, False, J="1.4")
    progress.close()
    assert capsys.readouterr().err == "3/?  [a notice] J 1.5\n"
