"""Bad input: exit code 2, one line that says what was given, what was expected, what to do; nothing is written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.app.main import COMMANDS, main
from tests.app_data import TINY, bad, run, write_images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--rho", "-1"], ["rho is -1", "≥ 0"]),
        (["--eps0", "0"], ["eps0 is 0", "> 0"]),
        (["--rule", "classic", "--sigma", "1"], ["sigma is 1", "> 1"]),
        (["--zeta", "1.5"], ["zeta is 1.5", "(0, 1]"]),
        (["--zeta", "0"], ["zeta is 0"]),
        (["--growth", "0.5"], ["growth is 0.5"]),
        (["--acceptance", "relative", "--eta", "1"], ["eta1 is 1"]),
        (["--batch-size", "0"], ["--batch-size", "'0'"]),
        (["--batch-size", "55"], ["--batch-size 55", "54 images", "full"]),
        (["--batch-size", "full", "--averaging", "0.5"], ["--averaging 0.5", "need mini-batches", "leave"]),
        (["--network", "lenet-5"], ["did you mean 'lenet5'"]),
        (["--activation", "tahn"], ["did you mean 'tanh'"]),
        (["--layer-weights", "0=2"], ["stages [0]", "the stages with controls are"]),
        (["--box", "0.1", "--regulariser", "group-l0"], ["GroupL0", "whole line"]),
        (["--epochs", "none", "--steps", "none"], ["no stop was given"]),
        (["--threads", "0"], ["--threads", "'0'"]),
        (["--rhoo", "1"], ["unknown option '--rhoo'", "did you mean '--rho'"]),
        (["--rho"], ["--rho", "expected one argument"]),
        (["extra"], ["unknown argument 'extra'"]),
        (["--lr", "0.1"], ["unknown option '--lr'", "ε takes the place of a step size", "1/(2ε)", "--eps0", "--rule"]),
        (["--learning-rate=0.1"], ["'--learning-rate=0.1'", "ε takes the place of a step size", "--eps0"]),
    ],
)
def test_options(
    arguments: list[str], parts: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    bad(capsys, ["train", "--data", str(data), "--out", str(out), *TINY, *arguments], *parts)
    assert not out.exists()


def corrupted(tmp_path: Path, kind: str) -> str:
    """The name of data that cannot be used."""
    path = tmp_path / "d.npz"
    good = write_images(path)
    x, y = np.zeros((6, 12, 12), np.uint8), np.arange(6) % 3
    x[0] = 9
    if kind == "unknown name":
        return "minst"
    if kind == "missing file":
        return str(tmp_path / "none.npz")
    if kind == "empty directory":
        return str(tmp_path / "empty")
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-2000])
    elif kind == "not an archive":
        path.write_bytes(b"images")
    elif kind == "wrong magic":
        (tmp_path / "idx").mkdir()
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            (tmp_path / "idx" / name).write_bytes(bytes(100))
        return str(tmp_path / "idx")
    elif kind == "float images":
        np.savez(path, train_images=np.full((6, 12, 12), np.nan), train_labels=y)
    elif kind == "label length":
        np.savez(path, train_images=x, train_labels=y[:5])
    elif kind == "negative label":
        np.savez(path, train_images=x, train_labels=y - 1)
    elif kind == "test label out of range":
        np.savez(path, train_images=x, train_labels=y, test_images=x, test_labels=y + 1)
    elif kind == "text labels":
        np.savez(path, train_images=x, train_labels=np.array(["cat", "dog", "owl"])[y])
    elif kind == "empty":
        np.savez(path, train_images=x[:0], train_labels=y[:0])
    elif kind == "constant":
        np.savez(path, train_images=x * 0, train_labels=y)
    elif kind == "too small for the network":
        np.savez(path, train_images=np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4), train_labels=y)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("unknown name", ["'minst'", "did you mean 'mnist'"]),
        ("missing file", ["no file", "none.npz"]),
        ("empty directory", ["empty"]),
        ("truncated", ["d.npz", "not a readable"]),
        ("not an archive", ["not a readable"]),
        ("wrong magic", ["train-images-idx3-ubyte"]),
        ("float images", ["train_images", "expected"]),
        ("label length", ["6 images and 5 labels"]),
        ("negative label", ["label -1", "expected 0 to"]),
        ("text labels", ["train_labels", "labels are text", "number the classes from 0"]),
        ("test label out of range", ["label 3"]),
        ("empty", ["train_images"]),
        ("constant", ["constant"]),
        (
            "too small for the network",
            ["4×4 pixels", "too small for lenet5", "12×12 and larger", "stage 3", "(6, 2, 2)"],
        ),
    ],
)
def test_data(kind: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = corrupted(tmp_path, kind)
    bad(capsys, ["train", "--data", name, "--out", str(tmp_path / "r"), *TINY], *parts)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("network", "least"), [("lenet5", 12), ("lenet5-caffe", 16), ("residual", 1)])
def test_the_sizes_that_a_network_takes(
    network: str, least: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images one pixel below the size that the error names are refused, images of that size are trained on."""
    y = np.arange(60) % 3
    for side in range(max(least - 1, 1), least + 1):
        x = np.random.default_rng(0).integers(0, 256, (60, side, side + 9), np.uint8)
        np.savez(tmp_path / "d.npz", train_images=x, train_labels=y)
        arguments = ["train", "--data", str(tmp_path / "d.npz"), *TINY, "--network", network]
        if side < least:
            words = (f"{side}×{side + 9} pixels", f"for {network.replace('-', '_')}", f"{least}×{least} and larger")
            bad(capsys, [*arguments, "--out", str(tmp_path / "r")], *words)
        else:
            assert main([*arguments, "--out", str(tmp_path / "r")]) in (0, 1)


def test_checksum_mismatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PMP_REF_DATA", str(tmp_path))
    bad(capsys, ["train", "--data", "mnist"], "missing", "pmp-ref fetch mnist", "--data DIR")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"x")
    bad(capsys, ["train", "--data", "mnist"], "checksum mismatch", "pmp-ref fetch mnist")


def test_a_directory_that_holds_a_run_is_not_touched(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "r") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()}
    capsys.readouterr()
    assert run(data, tmp_path / "r") == 2
    err = capsys.readouterr().err
    assert "already holds a run" in err and "--resume" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()} == before


def test_a_directory_that_cannot_be_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    bad(capsys, ["train", "--data", str(data), *TINY, "--out", str(tmp_path / "file")], "cannot make", "--out")
    bad(capsys, ["train", "--data", str(data), *TINY, "--out", str(tmp_path / "file" / "r")], "cannot make")
    bad(capsys, ["train", "--data", str(data), *TINY, "--out", "a\0b"], "cannot make")


def test_a_write_protected_directory(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "r"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:  # the superuser may write everywhere: let the kernel's answer be no
        monkeypatch.setattr("pmp_ref.app.files.os.access", lambda *_: False)
    bad(capsys, ["train", "--data", str(data), *TINY, "--out", str(locked)], "no write permission", "--out")


def test_a_configuration_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pmp_ref.app.files.os.replace", refuse)
    bad(capsys, ["train", "--data", str(data), *TINY, "--out", str(tmp_path / "r")], "Read-only file system")
    assert list((tmp_path / "r").iterdir()) == []


def test_cupy_missing(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    bad(capsys, ["train", "--data", str(data), *TINY, "--backend", "cupy"], "cannot be imported", "--backend numpy")


@pytest.mark.parametrize("answer", [False, RuntimeError("cudaErrorInsufficientDriver")])
def test_cupy_without_a_device(
    answer: Any, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_available() -> bool:
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(is_available=is_available)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    bad(capsys, ["train", "--data", str(data), *TINY, "--backend", "cupy"], "CUDA", "--backend numpy")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean 'train'"]),
        (["fetch"], ["required: NAME"]),
        (["fetch", "minst"], ["'minst'", "did you mean 'mnist'"]),
        (["inspect"], ["required: RUN"]),
        (["inspect", "nowhere"], ["'nowhere' holds no run"]),
        (["--verison"], ["unknown option '--verison'", "did you mean '--version'"]),
    ],
)
def test_commands(arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bad(capsys, arguments, *parts)


def test_inspect_before_the_end_and_damaged(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path / "r") == 0
    (tmp_path / "r" / "certificate.json").write_text("{}")
    bad(capsys, ["inspect", str(tmp_path / "r")], "damaged")
    (tmp_path / "r" / "summary.json").write_text("[]")
    bad(capsys, ["inspect", str(tmp_path / "r")], "damaged")
    (tmp_path / "r" / "summary.json").unlink()
    bad(capsys, ["inspect", str(tmp_path / "r")], "has not ended", "--resume")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["inspect", "-h"], ["fetch", "--help"], []])
def test_help_has_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "pmp-ref " in out and err == ""
    if arguments[:1] == ["train"]:
        assert "exit codes" in out and "--batch-size" in out and "(default: curvature)" in " ".join(out.split())
    assert all(len(line) <= 120 for line in out.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_show_where_an_error_arose(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--debug" in capsys.readouterr().out


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What a command that succeeds prints where stdout has that encoding."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    with monkeypatch.context() as m:
        m.setattr(sys, "stdout", stdout)
        assert main(arguments) == 0
    stdout.flush()
    return stdout.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_of_stdout_will_do(
    encoding: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters that it lacks are shown by number; JSON stays JSON."""
    epsilon = "ε" if encoding == "utf-8" else "\\u03b5"
    out = tmp_path / "läuft"
    assert epsilon in printed(encoding, monkeypatch, "train", "--help")
    printed(encoding, monkeypatch, "train", "--data", str(data), "--out", str(out), *TINY)
    assert f"augmentation {epsilon}* = " in printed(encoding, monkeypatch, "inspect", str(out))
    np.save(tmp_path / "ä.npy", np.zeros((12, 12), np.uint8))
    images = str(tmp_path / "ä.npy")
    answer = json.loads(printed(encoding, monkeypatch, "predict", str(out), images, "--json"))
    assert answer["model"] == str(out) and answer["images"][0]["file"] == images


@pytest.mark.parametrize(
    "command",
    [
        "verification --list",
        "verification.conformance --help",
        "verification.experiments --list",
        "verification.performance --help",
    ],
)
def test_every_encoding_will_do_for_the_verification(command: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", *command.split()],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert found.returncode == 0 and found.stdout and not found.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pmp_ref ")


def test_an_unexpected_error_is_one_line_and_debug_shows_where(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("pmp_ref.app.run.build", fail)
    assert run(data, tmp_path / "r") == 1
    assert capsys.readouterr().err == "pmp-ref: unexpected error: RuntimeError: first second (--debug shows where)\n"
    assert run(data, tmp_path / "r", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_command_line_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom pmp_ref.app.main import main\nmain(['train', '--help'])\n"
        "sys.exit(','.join({'matplotlib', 'cupy', 'tqdm', 'PIL', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: pmp-ref train")
