"""Image data: the bundled MNIST subset, readers for IDX, `.npz` and CIFAR-10 files, full sets from the cache.

`load("mnist-subset")` needs nothing else; `pmp_ref.data.fetch.fetch("mnist")` fills the cache for
`load("mnist")`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pmp_ref.data import cifar, fetch, idx, npz
from pmp_ref.data.dataset import Dataset, Prepared, assemble, prepare, standardise, statistics
from pmp_ref.errors import InputError, nearest

__all__ = ["DEFAULT", "NAMES", "Dataset", "Prepared", "fetch", "load", "prepare", "standardise", "statistics"]

DEFAULT = "mnist-subset"
NAMES = (DEFAULT, *fetch.SOURCES)

_SUBSET = Path(__file__).with_name("mnist_subset.npz")
_EXPECTED = (
    "a .npz file with train_images and train_labels, or a directory with one of: MNIST files in IDX form "
    "(train-images-idx3-ubyte, train-labels-idx1-ubyte, …), CIFAR-10 batches (data_batch_1.bin or "
    "data_batch_1, …), one .npz file"
)


def load(source: str | os.PathLike[str] = DEFAULT, *, classes: int | None = None) -> Dataset:
    """The data set of that name (one of `NAMES`), or from a directory or file.

    Directory: IDX files (plain or .gz, official names), CIFAR-10 batches (binary or pickle), or one `.npz`;
    the first of these that is there. File: `.npz` with MedMNIST naming. A name goes before a path; write
    ./mnist for a directory called mnist. `classes` defaults to 10 for CIFAR-10, else to the largest training
    label + 1.

    Raises `InputError` for an unknown name, missing, damaged or inconsistent files; nothing else.
    """
    name = os.fspath(source)
    if isinstance(source, str) and name in NAMES:
        if name == DEFAULT:
            return assemble(name, npz.read(_SUBSET), classes)
        return _from_directory(name, fetch.cached(name), classes)
    path = Path(name)
    try:
        if path.is_dir():
            return _from_directory(name, path, classes)
        exists = path.exists()
    except OSError as error:
        raise InputError(f"cannot read {name!r} ({error.strerror}): check the path and its permissions") from None
    if exists and path.suffix != ".npz":
        raise InputError(f"{name!r} is not a file that can be read alone, expected {_EXPECTED}")
    if exists or len(path.parts) > 1 or path.suffix:
        return assemble(name, npz.read(path), classes)
    raise InputError(f"unknown data set {name!r}: {nearest(name, NAMES)}; or give {_EXPECTED}")


def _from_directory(name: str, directory: Path, classes: int | None) -> Dataset:
    names = {entry.name for entry in os.scandir(directory) if entry.is_file()}
    archives = sorted(entry for entry in names if entry.endswith(".npz"))
    if idx.is_directory(names):
        return assemble(name, idx.read_directory(directory, names), classes)
    if cifar.is_directory(names):
        parts = cifar.read_directory(directory, names)
        if classes in (None, cifar.CLASSES):
            return assemble(name, parts, cifar.CLASSES, cifar.CLASS_NAMES)
        return assemble(name, parts, classes)
    if len(archives) == 1:
        return assemble(name, npz.read(directory / archives[0]), classes)
    if archives:
        raise InputError(f"{name!r} holds {len(archives)} .npz files, expected one: give the file itself")
    raise InputError(f"{name!r} holds no data set, expected {_EXPECTED}")
