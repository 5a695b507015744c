"""``pmp-ref train --backend cupy``: without a GPU a message and exit 2; and the application's path to a device.

For the path a double stands in for CuPy. It answers the few calls that the application makes and hands out
array-api-strict arrays on a device that refuses ``np.asarray``, so that a value taken to the host past
``to_numpy`` raises. That the run itself is right on a GPU is not shown by it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pmp_ref.app.main import main
from tests.app_data import results, run, summary, write_images
from tests.backends import load
from tests.test_app_resume import Killed, break_after

STUB = """
class ndarray:
    pass

class cuda:
    @staticmethod
    def is_available():
        return False
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


def command(data: Path, directory: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    paths = [str(p) for p in (path, root) if p is not None]
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pmp_ref",
            "train",
            "--data",
            str(data),
            "--backend",
            "cupy",
            "--out",
            str(directory / "run"),
        ],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], directory: Path) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1
    assert "--backend cupy" in lines[0] and "--backend numpy" in lines[0]
    assert not (directory / "run").exists()


def test_cupy_without_a_gpu_is_one_line_and_exit_2(data: Path, tmp_path: Path) -> None:
    """A module named cupy that imports, as CuPy does without a GPU, and finds no device."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "cupy.py").write_text(STUB, encoding="utf-8")
    done = command(data, tmp_path, tmp_path / "stub")
    refused(done, tmp_path)
    assert "no CUDA device" in done.stderr


def test_the_real_cupy_without_a_gpu(data: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    if importlib.import_module("cupy").cuda.is_available():
        pytest.skip("there is a GPU")
    refused(command(data, tmp_path), tmp_path)


def test_no_cupy_at_all(data: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    done = command(data, tmp_path)
    refused(done, tmp_path)
    assert "cannot be imported" in done.stderr


def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``cupy`` whose arrays are array-api-strict's on another device."""
    cupy: Any = types.ModuleType("cupy")
    cupy.__version__, cupy.ndarray = "0.0", type("ndarray", (), {})
    cupy.cuda = types.SimpleNamespace(is_available=lambda: True)
    cupy.asarray = load("array_api_strict:device1").asarray
    monkeypatch.setitem(sys.modules, "cupy", cupy)


OPTIONS = ("--sweep", "clear", "--check-descent", "2", "--held-out", "0.2")


def files(directory: Path) -> dict[str, Any]:
    """All results, ``model.npz`` byte for byte, but for the list of versions."""
    found = results(directory)
    found["summary"].pop("versions")
    return found


def test_a_run_on_another_device_writes_the_same_results(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, descent checks, held-out images, evaluation, certificate, files: all of it passes through the seam."""
    assert run(data, tmp_path / "here", *OPTIONS) == 0
    double(monkeypatch)
    assert run(data, tmp_path / "there", *OPTIONS, "--backend", "cupy") == 0
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert "cupy" in summary(tmp_path / "there")["versions"]


@pytest.mark.parametrize(("begun", "ended"), [("numpy", "cupy"), ("cupy", "numpy")])
def test_a_run_goes_on_on_another_backend(
    begun: str, ended: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy computes underneath both, so the moved run ends like an unbroken one, bit for bit."""
    assert run(data, tmp_path / "whole", *OPTIONS) == 0
    double(monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(Killed):
            run(data, tmp_path / "moved", *OPTIONS, "--backend", begun)
    assert main(["train", "--resume", str(tmp_path / "moved"), "--backend", ended, "--quiet", "--no-figures"]) == 0
    assert files(tmp_path / "moved") == files(tmp_path / "whole")
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["options"]["backend"] == begun


def test_a_restart_takes_no_other_option(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path / "r", *OPTIONS) == 0
    capsys.readouterr()
    for option in (["--seed", "3"], ["--backend", "numpy", "--sweep", "fast"], ["--backend", "cuda"]):
        assert main(["train", "--resume", str(tmp_path / "r"), *option]) == 2
        assert option[-2] in capsys.readouterr().err
