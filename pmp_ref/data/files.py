"""Bounded reading: every byte that a reader sees passes through here.

Nothing is allocated because a header asks for it: bytes are read in pieces, so memory follows what the file
really holds, and never passes a stated cap.
"""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pmp_ref.errors import InputError

__all__ = ["MAX_BYTES", "opened", "read_all", "read_exactly"]

MAX_BYTES = 2**31
"""Most bytes of one array or file after decompression. The largest sets meant for this program stay below
(EMNIST by class: 0.55 GB; PathMNIST at 64×64: 1.1 GB); as float64 this cap is already 16 GiB of memory. A
compressed file that unpacks to more is refused, whether it is a bomb or just too large."""

_PIECE = 2**20  # bytes per read: small beside the cap, large beside the cost of a call


@contextmanager
def opened(path: Path, unpack: bool = False) -> Iterator[IO[bytes]]:
    """The regular file `path` as a binary stream; with `unpack`, gzip content (seen by its first bytes) is
    unpacked.

    Raises `InputError` for a missing or unreadable file and for broken gzip data met while the stream is
    read.
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise InputError(f"no file {str(path)!r}: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"cannot read {str(path)!r} ({_reason(error)}): check the path") from None
    if not regular:  # a pipe would block, a directory cannot be read
        raise InputError(f"{str(path)!r} is not a regular file: give a file that can be read")
    try:
        with path.open("rb") as stream:
            packed = unpack and stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if packed else stream
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {str(path)!r} ({_reason(error)}): the file is damaged or not readable") from None


def _reason(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


def read_all(stream: IO[bytes], source: str, cap: int = MAX_BYTES) -> bytearray:
    """The rest of the stream; `InputError` if that is more than `cap` bytes."""
    data = _read_up_to(stream, cap + 1)
    if len(data) > cap:
        raise InputError(f"{source!r} holds more than {cap} bytes, the most that is read: give a smaller file")
    return data


def read_exactly(stream: IO[bytes], count: int, source: str) -> bytearray:
    """The next `count` bytes; `InputError` if the stream ends before."""
    data = _read_up_to(stream, count)
    if len(data) < count:
        raise InputError(f"{source!r} is truncated: {count} bytes expected here, {len(data)} found: get the file again")
    return data


def _read_up_to(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(_PIECE, count - len(data)))):
        data += piece
    return data
