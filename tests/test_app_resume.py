"""Restarts: a broken run ends in the same controls, tables and counts as an unbroken one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.app import run as application
from pmp_ref.app.main import main
from pmp_ref.files import pack, unpack
from tests.app_data import TINY, results, run, summary, write_images


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would; nothing catches it."""


def break_after(trials: int, monkeypatch: pytest.MonkeyPatch, save: bool = True) -> None:
    """Let a run die in its callback after so many trials, with a checkpoint at each trial before (``save``)."""
    original = application.Recorder.__call__
    count = 0

    def call(self: Any, it: Any, record: Any) -> bool:
        nonlocal count
        count += 1
        stop = original(self, it, record)
        if count > trials:
            raise Killed
        return stop

    monkeypatch.setattr(application.Recorder, "__call__", call)
    monkeypatch.setattr(application, "CHECKPOINT_EVERY", 0.0 if save else 1e9)


CASES = {
    "mini-batch": ("--epochs", "3"),
    "mini-batch, clear path, layer metric": (
        "--epochs",
        "3",
        "--sweep",
        "clear",
        "--metric",
        "layer",
        "--averaging",
        "none",
    ),
    "mini-batch, images mirrored and moved": ("--epochs", "3", "--shift", "1", "--flip", "horizontal"),
    "mini-batch with rejections": ("--rule", "classic", "--eps0", "1e-3", "--sigma", "2", "--max-rejections", "3"),
    "mini-batch to a wished size": ("--keep", "5%", "--epochs", "3"),
    "full batch to a wished size": ("--keep", "200", "--batch-size", "full", "--epochs", "8"),
    "full batch with rejections": ("--batch-size", "full", "--epochs", "5", "--eps0", "1e-3"),
    "full batch, float64, box": (
        "--batch-size",
        "full",
        "--epochs",
        "8",
        "--dtype",
        "float64",
        "--box",
        "0.5",
        "--metric",
        "gradient",
        "--ramp",
        "0:0.5",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.mark.parametrize("case", CASES)
def test_a_run_broken_twice_ends_like_an_unbroken_one(case: str, data: Path, tmp_path: Path) -> None:
    options = (*CASES[case], "--check-descent", "2")
    assert run(data, tmp_path / "whole", *options) == 0
    for trials in (1, 3, 4):
        broken = tmp_path / f"broken-{trials}"
        with pytest.MonkeyPatch.context() as patch:
            break_after(trials, patch)
            with pytest.raises(Killed):
                run(data, broken, *options)
        with pytest.MonkeyPatch.context() as patch:
            break_after(1, patch)
            with pytest.raises(Killed):
                main(["train", "--resume", str(broken), "--quiet"])
        assert main(["train", "--resume", str(broken), "--quiet", "--no-figures", "--threads", "2"]) == 0
        assert results(broken) == results(tmp_path / "whole")
        assert summary(broken)["restarts"] == 2


def test_a_restart_before_the_first_checkpoint_begins_at_step_0(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        break_after(1, patch, save=False)  # an epoch, and with it a checkpoint, takes three
        with pytest.raises(Killed):
            run(data, tmp_path / "broken")
    assert not (tmp_path / "broken" / "checkpoint.npz").exists()
    assert main(["train", "--resume", str(tmp_path / "broken"), "--quiet", "--no-figures"]) == 0
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_run_that_died_while_it_wrote_its_results_writes_them_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> Any:
        raise Killed

    assert run(data, tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmp_ref.app.conclude.test_accuracy", die)
        with pytest.raises(Killed):
            run(data, tmp_path / "broken")
    monkeypatch.setattr("pmp_ref.app.build.bsqh", die)  # training is not repeated
    assert main(["train", "--resume", str(tmp_path / "broken"), "--quiet", "--no-figures"]) == 0
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_finished_run_says_so_and_stays_as_it_is(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "r") == 0
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "r").iterdir()}
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "r")]) == 0
    assert "the run is finished (iteration limit)" in capsys.readouterr().out
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "r").iterdir()} == before


def test_ctrl_c_saves_and_the_run_goes_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path / "whole") == 0
    original = application.Recorder.__call__

    def call(self: Any, it: Any, record: Any) -> bool:
        if it.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, it, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application.Recorder, "__call__", call)
        assert run(data, tmp_path / "r") == 130
    s = summary(tmp_path / "r")
    assert s["status"] == "interrupted" and s["accepted_steps"] == 2
    assert s["test_accuracy"] is None and "interrupted" in s["reasons"]["test_accuracy"]  # no look at test images
    assert "--resume" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["inspect", str(tmp_path / "r")]) == 0
    assert main(["train", "--resume", str(tmp_path / "r"), "--quiet", "--no-figures"]) == 0
    assert results(tmp_path / "r") == results(tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "whole") == 0
    original = application.Recorder.__call__

    def call(self: Any, it: Any, record: Any) -> bool:
        if it.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, it, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application.Recorder, "__call__", call)
        assert run(data, tmp_path / "r") == 130
    assert not (tmp_path / "r" / "summary.json").exists()
    assert main(["train", "--resume", str(tmp_path / "r"), "--quiet", "--no-figures"]) == 0
    assert results(tmp_path / "r") == results(tmp_path / "whole")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """``pmp-ref train`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pmp_ref", "train", *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_when(process: subprocess.Popen[bytes], ready: Any) -> None:
    """SIGKILL as soon as ``ready()``; fails if the process ends before."""
    with process:
        while not ready():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.002)
        process.kill()


def test_sigkill_at_several_moments(data: Path, tmp_path: Path) -> None:
    options = ("--epochs", "150", "--check-descent", "40")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(data, whole, *options) == 0
    history, config = broken / "history.csv", broken / "config.json"
    size = (whole / "history.csv").stat().st_size
    arguments = ["--data", str(data), "--out", str(broken), *TINY, *options]
    kill_when(start(*arguments), config.exists)
    for part in (0.1, 0.35, 0.7):
        kill_when(
            start("--resume", str(broken), "--quiet"),
            lambda part=part: history.exists() and history.stat().st_size > part * size,
        )
    assert not (broken / "summary.json").exists()
    assert main(["train", "--resume", str(broken), "--quiet", "--no-figures"]) == 0
    assert results(broken) == results(whole)
    assert summary(broken)["restarts"] > 0


def test_a_second_process_on_a_run_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    first = start("--data", str(data), "--out", str(out), *TINY, "--epochs", "100000")
    with first:
        while not (out / "history.csv").exists():
            assert first.poll() is None
            time.sleep(0.002)
        assert main(["train", "--resume", str(out)]) == 2
        assert run(data, out) == 2
        assert first.poll() is None
        first.kill()


def interrupted(data: Path, out: Path, *options: str) -> None:
    """A run killed after its third trial."""
    with pytest.MonkeyPatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(Killed):
            run(data, out, *options)


def refused(out: Path, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """``--resume`` ends with exit code 2, one line, and the directory as it was."""
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    capsys.readouterr()
    assert main(["train", "--resume", str(out), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(part in error for part in parts), error
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_checkpoint_of_another_network(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    other = write_images(tmp_path / "other.npz", size=16)
    interrupted(other, tmp_path / "b")
    (tmp_path / "a" / "checkpoint.npz").write_bytes((tmp_path / "b" / "checkpoint.npz").read_bytes())
    refused(tmp_path / "a", capsys, "belongs to another network", "has shape", "expected")


def test_a_checkpoint_of_other_settings(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    interrupted(data, tmp_path / "b", "--seed", "1")
    (tmp_path / "a" / "checkpoint.npz").write_bytes((tmp_path / "b" / "checkpoint.npz").read_bytes())
    refused(tmp_path / "a", capsys, "other settings or data")


def test_other_training_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "d.npz")
    interrupted(images, tmp_path / "a")
    write_images(images, seed=1)
    refused(tmp_path / "a", capsys, "are not those")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint(damage: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    path = tmp_path / "a" / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[content.index(b"\x93NUMPY") + 300] ^= 1  # in the first array
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"checkpoint"
    path.write_bytes(content)
    refused(tmp_path / "a", capsys, "is damaged", "restore")


@pytest.mark.parametrize(
    "change",
    [
        {"iterate": {}},
        {"lengths": None},
        {"tally": {"x": 1}},
        {"format": 1},  # of the version before iterates had parts
        {"format": 2},  # of the version whose controls lack the stage of the images
        {"format": 4},
        {"iterate": {"eps": 1.0, "smoothed": None, "current": {}, "memory": {}, "place": {}, "counts": {}}},
        {"seconds": "x"},
        {"status": "x"},
        {"repeated": []},
        {"groups": None},
    ],
)
def test_a_checkpoint_with_a_wrong_note(
    change: dict[str, Any], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(data, tmp_path / "a")
    path = tmp_path / "a" / "checkpoint.npz"
    arrays = unpack(path)
    note = json.loads(arrays.pop("state").tobytes()) | change
    path.write_bytes(pack(arrays, {"state": note}))
    refused(tmp_path / "a", capsys, "checkpoint.npz")


@pytest.mark.parametrize("eps", [1, "1", None])
def test_a_checkpoint_whose_epsilon_is_no_float(
    eps: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(data, tmp_path / "a")
    path = tmp_path / "a" / "checkpoint.npz"
    arrays = unpack(path)
    note = json.loads(arrays.pop("state").tobytes())
    note["iterate"]["eps"] = eps
    path.write_bytes(pack(arrays, {"state": note}))
    refused(tmp_path / "a", capsys, "checkpoint.npz", "eps is")


def test_controls_that_are_not_finite(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    path = tmp_path / "a" / "checkpoint.npz"
    arrays = unpack(path)
    note = json.loads(arrays.pop("state").tobytes())
    arrays["controls/01.kernel"][0] = np.nan
    path.write_bytes(pack(arrays, {"state": note}))
    refused(tmp_path / "a", capsys, "NaN")


def test_a_table_shorter_than_the_checkpoint_needs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(data, tmp_path / "a")
    (tmp_path / "a" / "history.csv").write_text("step\n")
    refused(tmp_path / "a", capsys, "history.csv", "the checkpoint needs")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1, "options": {}, "data_sha256": ""}'])
def test_a_damaged_configuration(content: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(content)
    refused(tmp_path / "a", capsys, "config.json")


def test_a_configuration_of_another_format(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    refused(tmp_path / "a", capsys, "config.json", "format 2, expected 1")


def test_resume_takes_no_other_settings(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(data, tmp_path / "a")
    for extra in (["--rho", "1"], ["--out", str(tmp_path / "b")]):
        assert main(["train", "--resume", str(tmp_path / "a"), *extra]) == 2
        assert f"leave {extra[0]} out" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "no run there" in capsys.readouterr().err
