"""IDX files, the form of MNIST, Fashion-MNIST, KMNIST: plain or gzip.

A big-endian header (two zero bytes, type code 8 for unsigned bytes, number of dimensions, then each dimension
as 32 bits) and the values in C order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pmp_ref.data.dataset import Part
from pmp_ref.data.files import MAX_BYTES, opened, read_exactly
from pmp_ref.errors import InputError

__all__ = ["is_directory", "parse", "read", "read_directory"]


def parse(stream: IO[bytes], source: str, dimensions: int) -> NDArray[Any]:
    """The uint8 array of an IDX stream with this number of dimensions; `source` is named in errors."""
    magic = bytes(read_exactly(stream, 4, source))
    expected = bytes([0, 0, 8, dimensions])
    if magic != expected:
        raise InputError(
            f"{source!r} starts with 0x{magic.hex()}, expected 0x{expected.hex()} (IDX, unsigned bytes, "
            f"dimensions: {dimensions}): give {'images' if dimensions == 3 else 'labels'} in IDX form"
        )
    shape = struct.unpack(f">{dimensions}I", read_exactly(stream, 4 * dimensions, source))
    size = math.prod(shape)
    if not 0 < size <= MAX_BYTES:
        raise InputError(f"{source!r} claims the shape {shape}, expected 1 to {MAX_BYTES} bytes: get the file again")
    values = read_exactly(stream, size, source)
    if stream.read(1):
        raise InputError(f"{source!r} has bytes after the {size} that its header states: get the file again")
    return np.frombuffer(values, np.uint8).reshape(shape)


def read(path: Path, dimensions: int) -> NDArray[Any]:
    """The uint8 array of an IDX file, plain or gzip."""
    with opened(path, unpack=True) as stream:
        return parse(stream, str(path), dimensions)


def is_directory(names: Collection[str]) -> bool:
    """Whether a directory with these file names holds training images or labels in IDX form."""
    return _find(names, "train-images", 3) in names or _find(names, "train-labels", 1) in names


def read_directory(directory: Path, names: Collection[str]) -> dict[str, Part]:
    """The training part of a directory with the official file names, and the test part if it is there."""
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = _find(names, f"{prefix}-images", 3), _find(names, f"{prefix}-labels", 1)
        if part == "train" or images in names or labels in names:  # half a part is a missing file
            parts[part] = Part(read(directory / images, 3)[:, np.newaxis], read(directory / labels, 1))
    return parts


def _find(names: Collection[str], stem: str, dimensions: int) -> str:
    """The first spelling that is there (plain before .gz), else the official one, so that errors name it."""
    spellings = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
    return next((name for name in spellings if name in names), spellings[0])
