"""A directory of `.npy` files with MedMNIST naming: train_images.npy, train_labels.npy, and val_… and test_….

Images are mapped into memory, not read: the system fetches the pages that a batch needs, so that a data set may be
larger than memory. Shapes and dtypes as in `pmp_ref.data.npz`; the header is matched by the same pattern.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmp_ref.data.dataset import PARTS, Part
from pmp_ref.data.files import opened
from pmp_ref.data.npz import channels_first, one_column, parse_array, parse_header
from pmp_ref.errors import InputError

__all__ = ["is_directory", "read_directory"]

_LARGEST = 2**48  # bytes of an array that is mapped and never held


def is_directory(names: Set[str]) -> bool:
    """Whether the training images are among the file names."""
    return "train_images.npy" in names


def read_directory(directory: Path, names: Set[str]) -> dict[str, Part]:
    """The parts that are there. Raises `InputError` for missing or damaged files."""
    parts = {}
    for part in PARTS:
        images, labels = f"{part}_images.npy", f"{part}_labels.npy"
        if images in names or labels in names:
            parts[part] = Part(_mapped(directory / images), _read(directory / labels))
    return parts


def _mapped(path: Path) -> NDArray[Any]:
    """The images as a view of the file."""
    with opened(path) as stream:
        length = path.stat().st_size
        dtype, shape, fortran = parse_header(stream, length, str(path), most=_LARGEST)
        start = stream.tell()
    try:
        whole = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot map {str(path)!r} into memory ({error}): check the file") from None
    return channels_first(np.asarray(whole), str(path))


def _read(path: Path) -> NDArray[Any]:
    with opened(path) as stream:
        return one_column(parse_array(stream, path.stat().st_size, str(path)), str(path))
