"""Atomic writes, arrays without pickle, numbered directories, the lock."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.app.files import check_free, locked, new_directory, read_json, write_json
from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, decode, pack, unpack, write_atomically

ARRAYS = {
    "a/00.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(1.5),
    "c": np.arange(3),
    "d": np.zeros((0, 2)),
    "e": np.array([np.nan, np.inf, -0.0, 5e-324]),
}


def test_arrays_come_back_bit_for_bit_and_writeable(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(pack(ARRAYS, {"note": {"x": 0.1, "none": None}}))
    back = unpack(path)
    for name, a in ARRAYS.items():
        assert back[name].dtype == a.dtype and back[name].shape == a.shape and back[name].tobytes() == a.tobytes()
        assert back[name].flags.writeable
    assert decode(back["note"]) == {"x": 0.1, "none": None}


def test_numpy_reads_the_file_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(pack(ARRAYS, {}))
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["a/00.kernel"], ARRAYS["a/00.kernel"])


def test_equal_contents_give_equal_bytes_whatever_the_layout() -> None:
    a = np.arange(6.0).reshape(2, 3)
    assert pack({"a": a}, {}) == pack({"a": np.asfortranarray(a)}, {}) == pack({"a": a.astype(">f8")}, {})


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_damaged_file_raises_the_documented_error_or_reads_as_arrays(at: int, bytes_: bytes, cut: bool) -> None:
    import tempfile

    content = pack(ARRAYS, {"note": 1})
    at %= len(content)
    broken = content[:at] if cut else content[:at] + bytes_ + content[at + len(bytes_) :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.npz"
        path.write_bytes(broken)
        try:
            assert all(type(a) is np.ndarray for a in unpack(path).values())
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="expected an array of numbers"):
        unpack(path)


def test_a_header_cannot_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8))
    with pytest.raises(
        InputError, match=r"claims the shape \(999999999999,\) of float64, 7999999999992 bytes, and holds 8"
    ):
        unpack(path)


def test_a_compressed_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(100_000))
    with pytest.raises(InputError, match="claims more than"):
        unpack(path)
    np.savez_compressed(path, a=np.random.default_rng(0).random(5))
    with pytest.raises(InputError):
        unpack(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*x\.npz"):
        unpack(tmp_path / "x.npz")


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b'{"a": 1'])
def test_damaged_json_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match="no valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as if the disk were full after 1000 bytes
    try:
        with pytest.raises(OutputError, match="what was there is intact"):
            write_atomically(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_directories_are_numbered_after_the_largest(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert new_directory(None, root) == root / "001"
    (root / "041").mkdir()
    (root / "notes").mkdir()
    assert new_directory(None, root) == root / "042"


def test_a_directory_with_anything_in_it_is_not_free(tmp_path: Path) -> None:
    check_free(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="not empty"):
        check_free(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        check_free(tmp_path)


def test_a_directory_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="cannot make the directory"):
        new_directory(str(tmp_path / "x" / "y"), tmp_path)


def test_the_lock_refuses_another_process_and_dies_with_it(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\nfrom pmp_ref.app.files import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process is working"), locked(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []  # no file is left behind
