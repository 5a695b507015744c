"""A run's directory: atomic writes, arrays without pickle, the lock that dies with its process."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows; there a second process is not refused
    fcntl = None  # type: ignore[assignment]

CONFIG, CHECKPOINT, SUMMARY, MODEL = "config.json", "checkpoint.npz", "summary.json", "model.npz"
COMPACT, COMPACT_REPORT = "compact.npz", "compact.json"  # made from MODEL
MAX_JSON = 2**24  # bytes; a configuration or summary takes some kilobytes
_MAX_HEADER = 4096  # bytes of the header of one array; ours take 128
_DTYPES = {"<f4", "<f8", "<i4", "<i8", "<u2", "|u1"}
_HEADER = re.compile(  # one way only to split a row of digits: with optional commas the time is exponential
    r"\{'descr': '([<|][fiu][1-8])', 'fortran_order': False, 'shape': \(((?:\d{1,15}, ?)*(?:\d{1,15})?)\), \}\s*"
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can hold: equal contents give equal files


class OutputError(Exception):
    """A file of the run cannot be written. The message is one line; what was there before is intact."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: a temporary file beside it, fsync, rename. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"cannot write {str(path)!r} ({error.strerror}): what was saved before is intact; make room or give "
            f"write permission, then go on with --resume {str(path.parent)!r}"
        ) from None


def remove(*paths: Path) -> None:
    """Remove files that may be there, for good before anything else is written. Raises OutputError."""
    for path in paths:
        try:
            path.unlink()
            _sync_directory(path.parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot remove {str(path)!r} ({error.strerror}), which is out of date: remove it, then "
                f"go on with --resume {str(path.parent)!r}"
            ) from None


def _sync_directory(directory: Path) -> None:
    """Make a rename durable where the system lets a directory be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: no NaN, no infinity."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file; InputError if it is missing, too large or damaged."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise InputError(f"{str(path)!r} holds more than {MAX_JSON} bytes; expected a small JSON file")
        return json.loads(content)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r} ({error.strerror}): check the path") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(path)!r} is no valid JSON ({' '.join(str(error).split())[:120]}): restore it from a copy"
        ) from None


def pack(arrays: Mapping[str, np.ndarray], text: Mapping[str, Any]) -> bytes:
    """An ``.npz`` archive of plain arrays; the values of ``text`` go in as JSON in arrays of bytes.

    Not compressed, with fixed times and attributes: equal contents give equal bytes.
    """
    encoded = {
        name: np.frombuffer(json.dumps(value, allow_nan=False, sort_keys=True).encode(), np.uint8)
        for name, value in text.items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {**encoded, **arrays}.items():
            array = np.asarray(array)
            plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            member = io.BytesIO()
            np.lib.format.write_array(member, plain, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def unpack(path: Path, content: bytes | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file made by :func:`pack`, writeable copies; InputError if it is anything else.

    ``content``: what the file will hold, where it is not written yet. Nothing is executed, and nothing is
    allocated that the file does not hold.
    """
    try:
        size = path.stat().st_size if content is None else len(content)
        with open(path, "rb") if content is None else io.BytesIO(content) as stream, zipfile.ZipFile(stream) as archive:
            arrays, members = {}, archive.infolist()
            if sum(info.file_size for info in members) > size:  # members that overlap
                raise InputError(f"{str(path)!r} claims more than its {size} bytes: restore a copy of the file")
            for info in members:
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise InputError(f"{str(path)!r} holds {info.filename!r}, which no run writes: restore a copy")
                arrays[info.filename.removesuffix(".npy")] = _array(archive.read(info), f"{path}:{info.filename}")
            return arrays
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no file {str(path)!r}: check the path") from None
    except Exception as error:  # zipfile answers a broken archive with many types; all of them mean the same here
        raise InputError(
            f"{str(path)!r} is damaged ({type(error).__name__}); expected a file written by a run: restore a copy"
        ) from None


def _array(content: bytes, source: str) -> np.ndarray:
    """One array in NumPy's format 1.0, its header matched against one pattern and its size against the member's."""
    (length,) = struct.unpack("<H", content[8:10])
    match = _HEADER.fullmatch(content[10 : 10 + min(length, _MAX_HEADER)].decode("latin1"))
    if content[:8] != b"\x93NUMPY\x01\x00" or match is None or match[1] not in _DTYPES:
        raise InputError(f"{source!r} is no plain array of numbers: restore a copy of the file")
    shape, dtype = tuple(int(n) for n in re.findall(r"\d+", match[2])), np.dtype(match[1])
    if len(content) - 10 - length != math.prod(shape) * dtype.itemsize:
        raise InputError(
            f"{source!r} holds {len(content) - 10 - length} bytes for the shape {shape} of {dtype}: "
            "restore a copy of the file"
        )
    return np.frombuffer(content, dtype, offset=10 + length).reshape(shape).copy()


def decode(array: np.ndarray) -> Any:
    """The JSON value that :func:`pack` put into an array of bytes."""
    return json.loads(array.tobytes())


def new_directory(out: str | None, root: Path) -> Path:
    """The directory of a new run: ``out``, or the next free number below ``root``. InputError if it is not free."""
    try:
        if out is None:
            root.mkdir(parents=True, exist_ok=True)
            number = max((int(e.name) for e in root.iterdir() if e.name.isdecimal()), default=0) + 1
            while True:
                with contextlib.suppress(FileExistsError):  # another run took the number meanwhile
                    (root / f"{number:03}").mkdir()
                    return root / f"{number:03}"
                number += 1
        directory = Path(out)
        directory.mkdir(parents=True, exist_ok=True)
        return directory
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot make the directory {out or str(root)!r} ({reason}): give another one with --out, "
            "in a place with write permission"
        ) from None


def check_free(directory: Path) -> None:
    """InputError unless a new run may begin in the directory: it is empty and can be written to."""
    try:
        held = sorted(e.name for e in directory.iterdir() if not e.name.endswith(".part"))
    except OSError as error:
        raise InputError(f"cannot read {str(directory)!r} ({error.strerror}): give another directory") from None
    if CONFIG in held:
        raise InputError(
            f"--out {str(directory)!r} already holds a run; give another directory, or go on with it: "
            f"--resume {str(directory)!r}"
        )
    if held:
        raise InputError(f"--out {str(directory)!r} is not empty (it holds {held[0]!r}); give a new directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"no write permission in {str(directory)!r}; give another directory with --out")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """A kernel lock on the directory itself: no file is left behind, and it ends with its process.

    Raises InputError if another process holds it.
    """
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot open the run {str(directory)!r} ({error.strerror}): check the path") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is working on {str(directory)!r}; wait for it or stop it") from None
        except OSError as error:
            raise InputError(
                f"cannot lock {str(directory)!r} ({error.strerror}): give a directory on a file system with locks"
            ) from None
        yield
    finally:
        os.close(descriptor)
