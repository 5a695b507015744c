"""`.npz` archives with MedMNIST naming: train_images, train_labels, and val_… and test_… if present.

Images are uint8 of shape (N, H, W) or (N, H, W, C), labels integers of shape (N,) or (N, 1). Stricter than
`np.load(allow_pickle=False)`, which allocates what a header claims: here the header of an array is matched
against one pattern (nothing is evaluated, objects and structures cannot match) and its size against that of
the archive's member.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pmp_ref.data.dataset import PARTS, Part
from pmp_ref.data.files import MAX_BYTES, opened, read_exactly
from pmp_ref.errors import InputError

__all__ = ["array_of", "channels_first", "names_of", "one_column", "parse", "parse_array", "parse_header", "read"]

_MAX_HEADER = 10_000  # bytes; NumPy's own limit for the header of one array
_MAX_CHANNELS = 4  # grey to RGB with alpha; a longer last axis is a volume (MedMNIST 3D) or not channels-last
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks the others without bound
_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*'([<>|=]?(?:[ui][1248]|f[248]|b1))'\s*,\s*'fortran_order'\s*:\s*(True|False)\s*,"
    rb"\s*'shape'\s*:\s*\(((?:\s*\d{1,18}L?\s*,)*(?:\s*\d{1,18}L?)?\s*)\)\s*,?\s*\}\s*"
)  # one way only to split a row of digits: with optional commas the time is exponential in their number

_TEXT = re.compile(rb"\{\s*'descr'\s*:\s*'[<>|=]?[USO]")  # strings, or objects: what NumPy makes of mixed lists


def read(path: Path) -> dict[str, Part]:
    """The parts of a `.npz` file."""
    with opened(path) as stream:
        return parse(stream, str(path))


def parse(stream: IO[bytes], source: str) -> dict[str, Part]:
    """The parts of a `.npz` archive in a seekable stream; `source` is named in errors."""
    try:
        with zipfile.ZipFile(stream) as archive:
            return _parts(archive, source)
    except InputError:
        raise
    except Exception as error:
        # zipfile answers a broken archive with many types: BadZipFile, struct.error, zlib.error,
        # NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError, …; all of them mean the same here
        raise InputError(
            f"{source!r} is not a readable .npz archive ({type(error).__name__}): get or write the file again"
        ) from None


def _parts(archive: zipfile.ZipFile, source: str) -> dict[str, Part]:
    names = {info.filename for info in archive.infolist()}
    parts = {}
    for part in PARTS:
        images, labels = f"{part}_images.npy", f"{part}_labels.npy"
        if part == "train" or images in names or labels in names:
            if missing := [name[:-4] for name in (images, labels) if name not in names]:
                held = ", ".join(sorted(repr(name) for name in names)[:8])[:200]
                raise InputError(
                    f"{source!r} lacks {missing[0]!r} (it holds: {held or 'nothing'}): write it with "
                    f"MedMNIST naming (train_images, train_labels; test_images, test_labels if there are any)"
                )
            parts[part] = Part(
                np.ascontiguousarray(channels_first(array_of(archive, images, source), f"{source}:{images}")),
                one_column(array_of(archive, labels, source), f"{source}:{labels}"),
            )
    return parts


def names_of(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an archive."""
    return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def array_of(archive: zipfile.ZipFile, name: str, source: str, kinds: str = "ui") -> NDArray[Any]:
    """The array in a member of an archive; `kinds` as in `parse_array`."""
    info, source = archive.getinfo(name), f"{source}:{name}"
    if info.compress_type not in _COMPRESSIONS:
        raise InputError(f"{source!r} is packed by method {info.compress_type}, expected 0 or 8: use np.savez")
    with archive.open(info) as member:
        return parse_array(member, info.file_size, source, kinds)


def parse_array(stream: IO[bytes], length: int, source: str, kinds: str = "ui", empty: bool = False) -> NDArray[Any]:
    """The array in NumPy's format (`.npy`) that a stream of `length` bytes holds.

    `kinds`: the kinds of dtype that are read, of "u", "i", "f", "b" (NumPy's letters); by default integers.
    `empty`: whether an array may be without entries.
    """
    dtype, shape, fortran = parse_header(stream, length, source, kinds, empty)
    size = math.prod(shape) * dtype.itemsize
    values = np.frombuffer(read_exactly(stream, size, source), dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def parse_header(
    stream: IO[bytes], length: int, source: str, kinds: str = "ui", empty: bool = False, most: int | None = None
) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """(dtype, shape, column by column?) of such an array; the stream then stands at its first number.

    Raises `InputError` unless the numbers take what is left of `length`, and at most `most` bytes (None: `MAX_BYTES`).
    """
    most = MAX_BYTES if most is None else most
    magic = bytes(read_exactly(stream, 8, source))
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise InputError(f"{source!r} starts with {magic!r}, expected a NumPy array: write the file with np.savez")
    width, form = (2, "<H") if magic[6] == 1 else (4, "<I")
    (header_length,) = struct.unpack(form, read_exactly(stream, width, source))
    header = bytes(read_exactly(stream, min(header_length, _MAX_HEADER), source))
    match = _HEADER.fullmatch(header)
    if not match or header_length > _MAX_HEADER or np.dtype(match[1].decode()).kind not in kinds:
        if _TEXT.match(header) and "labels" in source.rpartition(":")[2]:
            raise InputError(
                f"{source!r}: labels are text; number the classes from 0, as np.unique(labels, "
                "return_inverse=True)[1] does, and write these integers"
            )
        expected = "an integer array: write uint8 images" if kinds == "ui" else "an array of numbers"
        raise InputError(f"{source!r} has the header {header[:80]!r}, expected {expected}")
    dtype = np.dtype(match[1].decode())
    shape = tuple(int(size.rstrip(b"L")) for size in re.findall(rb"\d+L?", match[3]))
    size = math.prod(shape) * dtype.itemsize
    held = length - 8 - width - header_length
    if not (0 < size <= most or (empty and size == 0)) or size != held:
        raise InputError(
            f"{source!r} claims the shape {shape} of {dtype}, {size} bytes, and holds {held}; "
            f"expected 1 to {most}: get or write the file again"
        )
    return dtype, shape, match[2] == b"True"


def channels_first(array: NDArray[Any], source: str) -> NDArray[Any]:
    """Images (N, H, W) or (N, H, W, C) as a view (N, C, H, W); `InputError` for other dtypes and shapes."""
    channels = array.shape[3] if array.ndim == 4 else 1
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or channels > _MAX_CHANNELS:
        raise InputError(
            f"{source!r} is {array.dtype} of shape {array.shape}, expected uint8 (0 to 255) of shape "
            f"(N, H, W) or (N, H, W, C) with C at most {_MAX_CHANNELS}: convert the images"
        )
    return array[:, np.newaxis] if array.ndim == 3 else array.transpose(0, 3, 1, 2)


def one_column(array: NDArray[Any], source: str) -> NDArray[Any]:
    """Labels (N,) or (N, 1) as (N,); `InputError` for other shapes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{source!r} has shape {array.shape}, expected (N,) or (N, 1): give one class per image")
    return array
