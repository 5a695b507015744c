"""Killed processes, full disks, read-only targets, hostile files: the short forms of ``verification.hardening``."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app_data import TINY, rows, run, write_images
from verification.hardening import interruptions

ROOT = Path(__file__).parents[1]
MIB = 2**20


def test_killed_runs_end_like_the_unbroken_one(tmp_path: Path) -> None:
    """Four kills, two of them in a write; the documented run has a hundred."""
    counts = interruptions.campaign(tmp_path, 4, 1, lambda _: None)
    assert counts.kills == counts.equal == 4 and counts.unequal == []
    assert counts.kinds == {"any moment": 2, "in a write": 2}
    assert counts.of_a_killed_run > 0


def test_the_campaign_sees_a_difference(tmp_path: Path) -> None:
    """A resumed run whose history or model differs in one place is reported."""
    data = interruptions.write_images(tmp_path / "d.npz", train=12, test=6)
    assert run(data, tmp_path / "a", "--epochs", "1", "--batch-size", "6") == 0
    whole = interruptions.results(tmp_path / "a")
    assert interruptions.differences(tmp_path / "a", whole) == []
    path = tmp_path / "a" / "model.npz"
    content = bytearray(path.read_bytes())
    content[-400] ^= 1
    path.write_bytes(content)
    (tmp_path / "a" / ".summary.json.part").touch()
    assert interruptions.differences(tmp_path / "a", whole) == ["model.npz", ".summary.json.part"]
    table = (tmp_path / "a" / "history.csv").read_text().splitlines()
    (tmp_path / "a" / "history.csv").write_text("\n".join(table[:-1]) + "\n")
    assert interruptions.differences(tmp_path / "a", whole) == ["history.csv", "model.npz", ".summary.json.part"]


# A file system of our own: user and mount namespaces


@functools.cache
def no_namespaces() -> str | None:
    """None if this user may mount a tmpfs in namespaces of its own, else the reason."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return "needs unshare of Linux"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"no user namespaces here: {' '.join(done.stderr.split())}"


def in_a_small_disk(place: Path, size: int, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A shell script in namespaces where ``place`` is a tmpfs of that many bytes; ``train …`` is ``pmp-ref train``."""
    if reason := no_namespaces():
        pytest.skip(reason)
    place.mkdir()
    head = (
        f'set -u\nmount -t tmpfs -o size={size} none "$PLACE" || exit 99\n'
        f'train() {{ "{sys.executable}" -W error -m pmp_ref train "$@"; }}\n'
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PLACE": str(place), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", head + script, "sh", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """Data, an unbroken run of six epochs, and the bytes of its checkpoint."""
    place = tmp_path_factory.mktemp("whole")
    data = write_images(place / "d.npz")
    assert run(data, place / "whole", "--epochs", "6") == 0
    return data, place / "whole", (place / "whole" / "checkpoint.npz").stat().st_size


def arguments_of(data: Path) -> list[str]:
    return ["--data", str(data), *TINY, "--epochs", "6"]


def equal(out: Path, whole: Path) -> None:
    assert (out / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
    assert rows(out / "history.csv") == rows(whole / "history.csv")


def test_a_disk_that_is_full_in_a_checkpoint(whole: tuple[Path, Path, int], tmp_path: Path) -> None:
    """Room for one checkpoint and a half: the second write fails. With more room the run goes on."""
    data, unbroken, size = whole
    script = (
        'train --out "$PLACE/r" "$@"; code=$?\n'
        'echo "code $code"; ls -A "$PLACE/r" | tr "\\n" " "; echo\n'
        'mount -o remount,size=64m "$PLACE" || exit 98\n'
        'train --resume "$PLACE/r" --quiet --no-figures >/dev/null || exit 97\n'
        f'cp -r "$PLACE/r" "{tmp_path}/copy"\n'
    )
    done = in_a_small_disk(tmp_path / "disk", int(1.5 * size), script, *arguments_of(data))
    assert done.returncode == 0, done.stderr
    assert "code 1" in done.stdout
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr and "--resume" in done.stderr
    names = done.stdout.splitlines()[-1].split()
    assert "checkpoint.npz" in names and not [n for n in names if n.endswith(".part")], names
    equal(tmp_path / "copy", unbroken)


def test_a_disk_without_room_for_anything(whole: tuple[Path, Path, int], tmp_path: Path) -> None:
    """Not even the configuration: bad input, one line."""
    data, _, _ = whole
    script = 'head -c 100k /dev/zero >"$PLACE/fill" 2>/dev/null; train --out "$PLACE/r" "$@"; echo "code $?"'
    done = in_a_small_disk(tmp_path / "disk", 8192, script, *arguments_of(data))
    assert "code 2" in done.stdout or "code 1" in done.stdout, done.stdout
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr, done.stderr


def test_a_target_that_becomes_read_only(whole: tuple[Path, Path, int], tmp_path: Path) -> None:
    """A new run and a resumed one are refused in one line; what is there stays; writeable again, the run goes on."""
    data, unbroken, _ = whole
    half = write_half(tmp_path / "half", data)
    before = {p.name: p.read_bytes() for p in half.iterdir()}
    script = (
        f'cp -r "{half}" "$PLACE/r"; mount -o remount,ro "$PLACE" || exit 98\n'
        'train --out "$PLACE/new" "$@"; echo "code $?"\n'
        'train --resume "$PLACE/r" --quiet --no-figures; echo "code $?"\n'
        f'cp -r "$PLACE/r" "{tmp_path}/untouched"; mount -o remount,rw "$PLACE" || exit 97\n'
        'train --resume "$PLACE/r" --quiet --no-figures >/dev/null || exit 96\n'
        f'cp -r "$PLACE/r" "{tmp_path}/copy"\n'
    )
    done = in_a_small_disk(tmp_path / "disk", 64 * MIB, script, *arguments_of(data))
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes[0] == "code 2" and codes[1] in ("code 1", "code 2"), codes
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and all("Read-only file system" in line for line in lines), lines
    assert {p.name: p.read_bytes() for p in (tmp_path / "untouched").iterdir()} == before
    equal(tmp_path / "copy", unbroken)


def write_half(out: Path, data: Path) -> Path:
    """The run, interrupted after its third epoch by SIGTERM to itself."""
    script = (
        "import os, signal, sys\nfrom pmp_ref.app import run\nfrom pmp_ref.app.main import main\n"
        "call = run.Recorder.__call__\n"
        "def stop(self, it, record):\n"
        "    if it.epoch == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return call(self, it, record)\n"
        "run.Recorder.__call__ = stop\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "--out", str(out), *arguments_of(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    return out


def test_the_lock_is_the_kernels(tmp_path: Path) -> None:
    """No file stands for the lock: it is on the directory, is seen in /proc/locks, and is gone with its holder."""
    if not Path("/proc/locks").exists():
        pytest.skip("needs /proc/locks of Linux")
    from pmp_ref.app.files import locked

    def held() -> bool:
        inode = f":{tmp_path.stat().st_ino} "
        return any(inode in line and "FLOCK" in line for line in Path("/proc/locks").read_text().splitlines())

    assert not held()
    with locked(tmp_path):
        assert held() and list(tmp_path.iterdir()) == []
    assert not held()
