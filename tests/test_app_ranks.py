"""``pmp-ref train`` on several MPI ranks: results, resumption, deaths, refusals."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pmp_ref.app import ranks, run
from pmp_ref.app.main import main, without
from pmp_ref.app.options import resolve
from pmp_ref.errors import InputError
from tests.app_data import bad, results, write_images
from tests.test_ranks import ROOT, launch, mpiexec, needs_mpi

OPTIONS = ["--batch-size", "40", "--steps", "40", "--no-figures", "--quiet", "--threads", "1"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz", train=120, size=28)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process, without MPI, makes of the data."""
    out = tmp_path_factory.mktemp("alone") / "r"
    assert main(["train", "--data", str(data), "--out", str(out), *OPTIONS]) == 0
    return results(out)


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command in the background; it is ended with the test."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()


def begin(data: Path, out: Path, *options: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A run in the background, with ``--processes`` among the options."""
    return started(
        [sys.executable, "-m", "pmp_ref", "train", "--data", str(data), "--out", str(out), *OPTIONS, *options]
    )


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def steps_in(out: Path, least: int) -> bool:
    """Whether the history has so many rows."""
    history = out / "history.csv"
    return history.is_file() and history.read_text().count("\n") > least


@needs_mpi
def test_four_ranks_write_what_one_process_writes(data: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    """By mpiexec: model, certificate, summary and tables, bit for bit; rank 0 alone prints."""
    out = tmp_path / "r"
    done = launch("-m", "pmp_ref", "train", "--data", str(data), "--out", str(out), *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert results(out) == alone
    assert done.stdout.count(f"run directory: {out}\n") == 2 and done.stderr == ""


@needs_mpi
def test_interrupted_on_four_ranks_resumed_on_one_two_and_three(
    data: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    """Ctrl-C ends all ranks with a checkpoint and code 130; the run ends on others in the same bits."""
    out = tmp_path / "r"
    with begin(data, out, "--processes", "4") as running:
        until(lambda: steps_in(out, 3) or running.poll() is not None)
        running.send_signal(signal.SIGINT)
        said, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert f"go on with: pmp-ref train --resume {out}" in said
    assert errors.count("stopping after this trial") == 1
    assert not steps_in(out, 40)
    for processes in ("3", "2"):
        command = [sys.executable, "-m", "pmp_ref", "train", "--resume", str(out), "--quiet", "--no-figures"]
        length = (out / "history.csv").stat().st_size
        with started([*command, "--processes", processes]) as again:
            until(lambda n=length, p=again: (out / "history.csv").stat().st_size > n or p.poll() is not None)
            again.send_signal(signal.SIGINT)
            assert again.wait(120) in (0, 130)
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    assert results(out) == alone


@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc")
def test_a_killed_rank_takes_all_down_and_the_checkpoint_stands(
    data: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    """Within seconds, with one line of ours and code 1; then one process goes on to the same results."""
    out = tmp_path / "r"
    with begin(data, out, "--processes", "3") as running:
        until(lambda: (steps_in(out, 4) and (out / "checkpoint.npz").exists()) or running.poll() is not None)
        os.kill(rank_of(out, 2), signal.SIGKILL)
        _, errors = running.communicate(timeout=120)  # one or two seconds; a machine with other load takes its time
    assert running.returncode == 1
    ours = [line for line in errors.splitlines() if "pmp-ref" in line]  # a rank that waits for the dead one may see it
    assert [line.startswith("pmp-ref: error: a rank died") for line in ours] == [True], errors  # first: MPI then speaks
    assert not steps_in(out, 40)
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    assert results(out) == alone


def rank_of(out: Path, rank: int) -> int:
    """The process of a rank of the run in that directory."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command, environment = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            except OSError:  # ended meanwhile, or another user's
                continue
            if str(out).encode() in command and f"PMI_RANK={rank}".encode() in environment:
                return int(process.name)
    raise AssertionError(f"rank {rank} is not there")


@needs_mpi
@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("versions", "has numpy 1.0, rank 0 has numpy "),
        ("data", "reads other training data than rank 0"),
        ("files", "no file "),
    ],
)
def test_a_rank_that_differs_is_refused_before_the_first_step(how: str, line: str, data: Path, tmp_path: Path) -> None:
    """One line that names it, code 2, and nothing is written."""
    out = tmp_path / "r"
    arguments = ["train", "--data", str(data), "--out", str(out), *OPTIONS]
    done = launch("-m", "tests.ranks_unlike", how, *arguments, ranks=3)
    assert done.returncode == 2
    assert done.stderr.startswith("pmp-ref: error: rank 1 (on ") and line in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not out.exists()


@needs_mpi
def test_ranks_with_other_options_are_refused(data: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "pmp_ref", "train", "--data", str(data), "--out", str(tmp_path / "r"), *OPTIONS]
    command = [str(mpiexec()), "-n", "2", *program, ":", "-n", "1", *program, "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "rank 2 (on " in done.stderr and "was given seed 7, rank 0 seed 0" in done.stderr
    assert not (tmp_path / "r").exists()


@needs_mpi
def test_an_error_of_one_rank_ends_all(data: Path, tmp_path: Path) -> None:
    """It is told once, by the rank that met it."""
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "r"), *OPTIONS]
    done = launch("-m", "tests.ranks_unlike", "error", *arguments, ranks=3)
    assert done.returncode == 1
    assert done.stderr.count("pmp-ref: rank 1: unexpected error: RuntimeError: planted") == 1
    assert done.stderr.count("pmp-ref:") == 1


@needs_mpi
def test_an_error_that_all_ranks_meet_is_told_once(tmp_path: Path) -> None:
    """Bad options and bad data, with or without MPI begun, and a directory that only rank 0 has looked at."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments in (["--rho", "x"], ["--data", "/nowhere/d.npz"], ["--steps", "1", "--out", str(tmp_path / "full")]):
        done = launch("-m", "pmp_ref", "train", "--quiet", *arguments, ranks=2)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("pmp-ref: error: "), done.stderr


# Without MPI


def test_a_signal_after_the_ranks_have_agreed_is_for_the_next_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the rank that got it would stop alone, and the others wait for it for ever."""
    recorders: list[Any] = []

    class Late(ranks.World):
        def agreed(self, *flags: bool) -> list[bool]:
            recorders[0].stopping = True
            return list(flags)

    monkeypatch.setattr(run.Recorder, "__enter__", lambda self: recorders.append(self) or self)
    given = {"data": str(data), "batch_size": "40", "steps": "40"}
    assert run.train(resolve(given), str(tmp_path / "r"), run.Manner(True, False, 1, Late())) == 130
    trials = sum((tmp_path / "r" / name).read_text().count("\n") - 1 for name in ("history.csv", "trials.csv"))
    assert trials - 1 == 2  # without the row of the initial controls


def test_processes_need_mpi4py(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mpi4py" else find(name))
    bad(capsys, ["train", "--processes", "2"], "--processes 2: mpi4py is not there", "pmp_ref[mpi]")
    bad(capsys, ["train", "--processes", "0"], "--processes")
    monkeypatch.setenv("PMI_RANK", "0")
    bad(capsys, ["train", "--processes", "2"], "a run that mpiexec has started")


def test_mpiexec_without_mpi4py_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four runs that do not know of each other would write over each other. Rank 0 says so."""
    for name, value in (("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    arguments = ["train", "--out", str(tmp_path / "r")]
    bad(capsys, arguments, "mpi4py cannot be imported", "pmp_ref[mpi]")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", "")


def test_an_mpiexec_of_another_mpi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        class COMM_WORLD:
            Get_size = staticmethod(lambda: 1)

    monkeypatch.setitem(sys.modules, "mpi4py.MPI", Module)  # type: ignore[arg-type]
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(InputError, match="started 4 processes, and mpi4py sees 1"):
        ranks.world()
    monkeypatch.setenv("PMI_SIZE", "1")
    assert type(ranks.world()) is ranks.World


def test_ranks_are_compared_with_rank_0() -> None:
    same = {"host": "a", "options": {"rho": 1.0}, "data": "x", "versions": {"numpy": "2"}, "controls": "c"}
    ranks.compare([same, same | {"host": "b"}])
    with pytest.raises(InputError, match=r"^rank 1 \(on b\) was given rho 2\.0, rank 0 rho 1\.0: "):
        ranks.compare([same, same | {"host": "b", "options": {"rho": 2.0}}, same])
    with pytest.raises(InputError, match=r"^rank 2 \(on a\) starts from other controls"):
        ranks.compare([same, same, same | {"controls": "d"}])
    with pytest.raises(InputError, match=r"^rank 1 \(on b\): no file"):
        ranks.compare([same, {"host": "b", "error": "no file"}])
    with pytest.raises(InputError, match=r"^no file$"):
        ranks.compare([{"host": "a", "error": "no file"}, {"host": "b", "error": "no file"}])


def test_arguments_without_an_option() -> None:
    assert without(["--a", "1", "--processes", "4", "--b=2"], "--processes") == ["--a", "1", "--b=2"]
    assert without(["--processes=4", "--a"], "--processes") == ["--a"]


def test_what_mpi_says_of_a_lost_rank_is_left_to_the_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lost(Exception):
        pass

    def dispatch(given: list[str]) -> int:
        raise Lost("process_vm_readv failed")

    monkeypatch.setattr("pmp_ref.app.main.dispatch", dispatch)
    assert main(["train"]) == 1 and "unexpected error: Lost" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", SimpleNamespace(Exception=Lost))
    assert main(["train"]) == ranks.LOST and not capsys.readouterr().err
