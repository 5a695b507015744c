"""Files: atomic writes, and arrays without pickle.

An archive is an ``.npz`` file of plain arrays, not compressed, with fixed times and attributes, so that equal contents
give equal bytes. Reading one executes nothing and allocates nothing that the file does not hold.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.data.npz import parse_array
from pmp_ref.errors import InputError
from pmp_ref.network import Network

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can hold


class OutputError(Exception):
    """A file cannot be written. The message is one line, ``fault`` and ``advice``; what was there before is intact."""

    def __init__(
        self, fault: str, advice: str = "what was there is intact; make room or give write permission"
    ) -> None:
        super().__init__(f"{fault}: {advice}")
        self.fault, self.advice = fault, advice


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: a temporary file beside it, fsync, rename. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"cannot write {str(path)!r} ({error.strerror})") from None


def sync_directory(directory: Path) -> None:
    """Make a rename durable where the system lets a directory be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
                content = archive.read(info)
                array = parse_array(io.BytesIO(content), len(content), f"{path}:{info.filename}", "uif", empty=True)
                arrays[info.filename.removesuffix(".npy")] = array.copy()
            return arrays
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no file {str(path)!r}: check the path") from None
    except Exception as error:  # zipfile answers a broken archive with many types; all of them mean the same here
        raise InputError(
            f"{str(path)!r} is damaged ({type(error).__name__}); expected a file written by a run: restore a copy"
        ) from None


def decode(array: np.ndarray) -> Any:
    """The JSON value that :func:`pack` put into an array of bytes."""
    return json.loads(array.tobytes())


def to_arrays(network: Network, nested: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """A nesting like the controls as named host arrays, e.g. ``03.kernel``."""
    return {
        f"{prefix}{l:02}.{name}": np.asarray(to_numpy(a))
        for l, (names, arrays) in enumerate(zip(network.names(), nested, strict=True))
        for name, a in zip(names, arrays, strict=True)
    }


def from_arrays(network: Network, arrays: dict[str, np.ndarray], prefix: str, source: str, move: Any) -> Controls:
    """Inverse of :func:`to_arrays`; InputError for missing arrays or shapes of another network."""
    result = []
    for l, (names, shapes) in enumerate(zip(network.names(), network.control_shapes, strict=True)):
        stage = []
        for name, shape in zip(names, shapes, strict=True):
            a = arrays.get(f"{prefix}{l:02}.{name}")
            if a is None or a.shape not in ((shape, ()) if prefix.startswith("metric") else (shape,)):
                raise InputError(
                    f"{source!r} belongs to another network: {prefix}{l:02}.{name} "
                    f"{'is missing' if a is None else f'has shape {a.shape}'}, expected {shape}; restore a copy"
                )
            stage.append(move(a))
        result.append(tuple(stage))
    return tuple(result)
