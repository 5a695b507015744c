"""Image data: the bundled MNIST subset, readers for IDX, `.npz`, `.npy` and CIFAR-10 files and for folders of pictures,
full sets from the cache.

`load("mnist-subset")` needs nothing else; `pmp_ref.data.fetch.fetch("mnist")` fills the cache for
`load("mnist")`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pmp_ref.data import cifar, fetch, idx, npy, npz, pictures
from pmp_ref.data.dataset import Dataset, Prepared, assemble, prepare, standardise, statistics
from pmp_ref.errors import InputError, nearest

__all__ = ["DEFAULT", "NAMES", "Dataset", "Prepared", "fetch", "load", "prepare", "standardise", "statistics"]

DEFAULT = "mnist-subset"
NAMES = (DEFAULT, *fetch.SOURCES)

_NO_PICTURES = "resize and colour are for folders of pictures; {!r} is none: leave them out"
_SUBSET = Path(__file__).with_name("mnist_subset.npz")
_EXPECTED = (
    "a .npz file with train_images and train_labels, or a directory with one of: MNIST files in IDX form "
    "(train-images-idx3-ubyte, train-labels-idx1-ubyte, …), CIFAR-10 batches (data_batch_1.bin or "
    "data_batch_1, …), one .npz file, train_images.npy and train_labels.npy, a folder of pictures for each class"
)


def load(
    source: str | os.PathLike[str] = DEFAULT,
    *,
    classes: int | None = None,
    resize: tuple[int, int] | None = None,
    colour: str | None = None,
) -> Dataset:
    """The data set of that name (one of `NAMES`), or from a directory or file.

    Directory: IDX files (plain or .gz, official names), CIFAR-10 batches (binary or pickle), one `.npz`, `.npy`
    files with the same naming (`pmp_ref.data.npy`: mapped into memory, not read), or a folder of pictures for each
    class (`pmp_ref.data.pictures`); the first of these that is there. File: `.npz` with MedMNIST naming. A name
    goes before a path; write ./mnist for a directory called mnist. `classes` defaults to 10 for CIFAR-10, to the
    number of folders for pictures, else to the largest training label + 1. `resize` (rows, columns) and `colour`
    ("grey" or "rgb") are for pictures alone.

    Raises `InputError` for an unknown name, missing, damaged or inconsistent files; nothing else.
    """
    name = os.fspath(source)
    if isinstance(source, str) and name in NAMES:
        if resize is not None or colour is not None:
            raise InputError(_NO_PICTURES.format(name))
        if name == DEFAULT:
            return assemble(name, npz.read(_SUBSET), classes)
        return _from_directory(name, fetch.cached(name), classes)
    path = Path(name)
    try:
        if path.is_dir():
            return _from_directory(name, path, classes, resize, colour)
        if resize is not None or colour is not None:
            raise InputError(_NO_PICTURES.format(name))
        exists = path.exists()
    except OSError as error:
        raise InputError(f"cannot read {name!r} ({error.strerror}): check the path and its permissions") from None
    if exists and path.suffix != ".npz":
        raise InputError(f"{name!r} is not a file that can be read alone, expected {_EXPECTED}")
    if exists or len(path.parts) > 1 or path.suffix:
        return assemble(name, npz.read(path), classes)
    raise InputError(f"unknown data set {name!r}: {nearest(name, NAMES)}; or give {_EXPECTED}")


def _from_directory(
    name: str,
    directory: Path,
    classes: int | None,
    resize: tuple[int, int] | None = None,
    colour: str | None = None,
) -> Dataset:
    names = {entry.name for entry in os.scandir(directory) if entry.is_file()}
    archives = sorted(entry for entry in names if entry.endswith(".npz"))
    files = (idx.is_directory(names), cifar.is_directory(names), npy.is_directory(names), bool(archives))
    if not any(files) and pictures.is_directory(directory):
        parts, class_names = pictures.read_directory(directory, resize, colour)
        return assemble(name, parts, classes, class_names)
    if resize is not None or colour is not None:
        raise InputError(_NO_PICTURES.format(name))
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
    if npy.is_directory(names):
        return assemble(name, npy.read_directory(directory, names), classes)
    raise InputError(f"{name!r} holds no data set, expected {_EXPECTED}")
