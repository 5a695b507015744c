"""CuPy over a CUDA that computes on the CPU: its command here, the library itself by name (-m slow)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from verification.cuda_on_cpu import __main__ as command
from verification.cuda_on_cpu import build

CHECKOUT = Path(__file__).parents[1]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0 and "example: python -m verification.cuda_on_cpu --" in capsys.readouterr().out


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert stopped.value.code == 2 and "write it after --" in capsys.readouterr().err


def test_without_a_compiler_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["--folder", str(tmp_path / "cuda"), "--step"]) == 2
    assert "needs Linux on x86-64 with g++" in capsys.readouterr().err
    assert not (tmp_path / "cuda").exists()


def test_a_failed_build_says_what_the_command_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := build.unavailable():
        pytest.skip(reason)
    monkeypatch.setattr(build, "build", lambda *_: build.run("ls", tmp_path / "nothing here"))
    assert command.main(["--folder", str(tmp_path / "cuda"), "--step"]) == 2
    said = capsys.readouterr().err
    assert "failed while CUDA on the CPU was built" in said and "nothing here" in said
    assert not (tmp_path / "cuda").exists()


def test_files_of_others_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := build.unavailable():
        pytest.skip(reason)
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    assert command.main(["--folder", str(tmp_path), "--step"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "kept"


def test_a_command_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "environment", lambda *_: {"PATH": str(tmp_path)})
    assert command.main(["--", "pyton", "-V"]) == 2
    assert "no command 'pyton'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_synchronises_once_and_cupy_computes_what_numpy_does() -> None:
    """Builds the library if it is not there. The synchronisation test then runs on CuPy's own arrays."""
    if reason := build.unavailable():
        pytest.skip(reason)
    run = [sys.executable, "-m", "verification.cuda_on_cpu"]
    step = subprocess.run([*run, "--step"], cwd=CHECKOUT, text=True, capture_output=True)
    assert step.returncode == 0, step.stderr
    counts = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"^(\S.*?) +(\d+) +(\d+)$", step.stdout, re.M)}
    assert counts["copy device to host"] == (0, 1) and counts["synchronise"] == (0, 1)
    assert sum(counts["launch"]) < 400
    files = ["tests/test_backend_synchronisation.py", "tests/test_backends_agree.py", "tests/test_regulariser.py"]
    tests = subprocess.run([*run, "--", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "cupy",
                            *files], cwd=CHECKOUT, text=True, capture_output=True)  # fmt: skip
    assert tests.returncode == 0, tests.stdout[-3000:]
