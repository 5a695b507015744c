"""The readers: what they read from files written here, and that damaged or hostile files end in `InputError`."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pmp_ref.data import cifar, idx, load, npz
from pmp_ref.data import files as bounded
from pmp_ref.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def npz_bytes(save: Callable[..., None] = np.savez_compressed, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def binary_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, np.newaxis], images.reshape(len(images), -1)], axis=1).tobytes()


def pickle_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    """As Python 2 and NumPy 1 wrote the official files: protocol 2, byte strings, batched lists."""
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    number = lambda value: b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)  # noqa: E731
    raw = images.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03",
            text(b"labels") + b"q\x04]q\x05(" + b"".join(map(number, labels.tolist())) + b"e",
            text(b"data") + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            number(0) + b"\x85q\x09" + text(b"b") + b"q\x0a\x87q\x0bRq\x0c(" + number(1),
            number(len(labels)) + number(3072) + b"\x86q\x0dcnumpy\ndtype\nq\x0e" + text(b"u1") + b"q\x0f",
            number(0) + number(1) + b"\x87q\x10Rq\x11(" + number(3) + text(b"|") + b"q\x12NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xff" + number(0) + b"tq\x13b\x89",
            b"T" + struct.pack("<i", len(raw)) + raw + b"q\x14tq\x15b",
            text(b"filenames") + b"q\x16]q\x17(" + text(b"a.png") + b"q\x18" + text(b"b.png") + b"r\x19\x00\x00\x00e",
            b"u.",
        ]
    )


def npy_bytes(header: bytes, content: bytes = b"", version: int = 1) -> bytes:
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + content
    )


def archive_of(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # its time is fixed: contents are in the names of tests
            archive.writestr(info, content, method)
    return stream.getvalue()


def npy_header(shape: str, descr: str = "'|u1'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


GOOD = {
    "train_images": npy_bytes(npy_header("(2, 3, 3)"), bytes(18)),
    "train_labels": npy_bytes(npy_header("(2,)"), bytes(2)),
}
CIFAR_IMAGES = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
CIFAR_LABELS = np.array([9, 3], np.uint8)

# name: (parser of a stream, valid bytes). Every reader appears here, and so in every test on damaged bytes below.
READERS: dict[str, tuple[Callable[[Any], Any], bytes]] = {
    "idx images": (lambda stream: idx.parse(stream, "x", 3), idx_bytes(GREY)),
    "idx labels": (lambda stream: idx.parse(stream, "x", 1), idx_bytes(LABELS)),
    "npz": (
        lambda stream: npz.parse(stream, "x"),
        npz_bytes(train_images=GREY, train_labels=LABELS, test_images=GREY, test_labels=LABELS),
    ),
    "npz stored": (
        lambda stream: npz.parse(stream, "x"),
        npz_bytes(np.savez, train_images=COLOUR, train_labels=LABELS),
    ),
    "npz member": (
        lambda stream: npz.parse(io.BytesIO(archive_of(**GOOD | {"train_images": stream.read()})), "x"),
        GOOD["train_images"],
    ),
    "cifar binary": (
        lambda stream: cifar.parse_binary(stream, "x"),
        binary_batch(CIFAR_IMAGES, CIFAR_LABELS),
    ),
    "cifar pickle": (
        lambda stream: cifar.parse_pickle(stream, "x"),
        pickle_batch(CIFAR_IMAGES, CIFAR_LABELS),
    ),
    "cifar pickle 4": (
        lambda stream: cifar.parse_pickle(stream, "x"),
        pickle.dumps({"labels": [9, 3], "data": CIFAR_IMAGES.reshape(2, -1)}, protocol=4),
    ),
}
every_reader = pytest.mark.parametrize("reader", READERS)


def refused(message: str) -> Any:
    """`InputError` whose message is one line and matches."""
    return pytest.raises(InputError, match=rf"\A(?!.*[\n\r]).*{message}.*\Z")


# What is read


def test_idx_directory_plain_gz_and_dots(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx_bytes(GREY))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS)))
    data = load(tmp_path)
    assert np.array_equal(data.train_images, GREY[:, np.newaxis])
    assert np.array_equal(data.train_labels, LABELS)
    assert data.train_labels.dtype == np.int64
    assert not data.train_images.flags.writeable and not data.train_labels.flags.writeable
    assert (data.name, data.classes) == (str(tmp_path), 3)
    assert data.test_images is data.test_labels is data.val_images is data.val_labels is None
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(GREY[:2])))
    with refused("t10k-labels-idx1-ubyte"):
        load(tmp_path)
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx_bytes(LABELS[:2]))
    assert np.array_equal(load(tmp_path).test_images, GREY[:2, np.newaxis])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<u2"])
def test_npz_file(tmp_path: Path, save: Any, order: Any, dtype: str) -> None:
    labels = LABELS[:, np.newaxis].astype(dtype)
    parts = dict(train_images=np.asarray(COLOUR, order=order), train_labels=labels)
    parts |= dict(val_images=COLOUR[:2], val_labels=labels[:2], test_images=COLOUR[:3], test_labels=labels[:3])
    save(tmp_path / "set.npz", extra=np.ones(3), **parts)
    for source in (tmp_path / "set.npz", str(tmp_path)):
        data = load(source)
        assert np.array_equal(data.train_images, COLOUR.transpose(0, 3, 1, 2))
        assert data.train_images.flags.c_contiguous
        assert np.array_equal(data.test_images, COLOUR[:3].transpose(0, 3, 1, 2))
        assert np.array_equal(data.val_images, COLOUR[:2].transpose(0, 3, 1, 2))
        assert data.train_labels.tolist() == LABELS.tolist()
        assert data.val_labels.tolist() == LABELS[:2].tolist() and data.test_labels.tolist() == [0, 1, 2]


def write_cifar(directory: Path, names: tuple[str, ...], write: Any) -> None:
    for k, name in enumerate(names):
        (directory / name).write_bytes(write(CIFAR_IMAGES + np.uint8(k), CIFAR_LABELS))


@pytest.mark.parametrize("form", ["binary", "pickle"])
def test_cifar_directory(tmp_path: Path, form: str) -> None:
    names, write = {
        "binary": (cifar.BINARY_FILES, binary_batch),
        "pickle": (cifar.PICKLE_FILES, pickle_batch),
    }[form]
    write_cifar(tmp_path, names, write)
    data = load(tmp_path)
    assert np.array_equal(data.train_images, np.concatenate([CIFAR_IMAGES + np.uint8(k) for k in range(5)]))
    assert data.train_labels.tolist() == [9, 3] * 5 and data.classes == 10
    assert np.array_equal(data.test_images, CIFAR_IMAGES + np.uint8(5))
    (tmp_path / names[2]).write_bytes(write(CIFAR_IMAGES[:1], CIFAR_LABELS[:1]))
    with refused(r"\[2, 2, 1, 2, 2\] images"):
        load(tmp_path)
    (tmp_path / names[2]).unlink()
    with refused(f"no file .*{names[2]}"):
        load(tmp_path)


@every_reader
def test_valid_bytes_are_read(reader: str) -> None:
    parse, data = READERS[reader]
    content = parse(io.BytesIO(data))
    expected = {"idx images": GREY, "idx labels": LABELS}
    if reader in expected:
        assert np.array_equal(content, expected[reader])
    elif reader == "npz member":
        assert np.array_equal(content["train"].images, np.zeros((2, 1, 3, 3)))
    elif reader == "npz":
        assert np.array_equal(content["test"].images, GREY[:, np.newaxis])
    elif reader == "npz stored":
        assert np.array_equal(content["train"].images, COLOUR.transpose(0, 3, 1, 2))
    else:
        assert np.array_equal(content.images, CIFAR_IMAGES) and content.labels.tolist() == [9, 3]


# What is refused: paths


def test_paths(tmp_path: Path) -> None:
    with refused("unknown data set 'minst': did you mean 'mnist'"):
        load("minst")
    with refused("no file .*nowhere"):
        load(tmp_path / "nowhere.npz")
    with refused("no file .*nowhere"):
        load(str(tmp_path / "nowhere"))
    with refused("holds no data set, expected a .npz file"):
        load(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(GREY))
    with refused("not a file that can be read alone"):
        load(tmp_path / "train-images-idx3-ubyte")
    with refused("no file .*train-labels-idx1-ubyte"):
        load(tmp_path)
    for strange in ("a\0b/c", "x" * 5000, "line\nbreak/x", "\udcff/x"):
        with refused(""):
            load(strange)
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.npz", "b.npz"):
        (two / name).write_bytes(b"")
    with refused("2 .npz files, expected one"):
        load(two)
    (two / "c.npz").mkdir()
    with refused("no data set|holds"):
        load(two / "c.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this platform")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with refused("not a regular file"):
        load(tmp_path / "pipe.npz")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.npz").write_bytes(READERS["npz"][1])
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with refused("Permission denied"):
        load(tmp_path / "set.npz")


# What is refused: damaged bytes


@every_reader
def test_every_truncation_and_trailing_byte(reader: str) -> None:
    parse, data = READERS[reader]
    step = max(1, len(data) // 1500)  # all points of the small files, 1,500 of the two of CIFAR
    for length in [*range(0, len(data), step), *range(max(0, len(data) - 40), len(data))]:
        if reader == "cifar binary" and length and length % 3073 == 0:
            continue  # whole rows: valid bytes, see the test of the directory
        with pytest.raises(InputError):
            parse(io.BytesIO(data[:length]))
    if reader not in (
        "npz",
        "npz stored",
        "cifar pickle",
        "cifar pickle 4",
    ):  # a zip comment; bytes after the end of a pickle
        with refused(""):
            parse(io.BytesIO(data + b"\0"))


IDX_CASES = {
    "wrong magic": (b"\x89PNG" + bytes(20), "starts with 0x89504e47, expected 0x00000803"),
    "labels for images": (idx_bytes(LABELS), "starts with 0x00000801, expected 0x00000803"),
    "signed type": (b"\0\0\x09\x03" + bytes(20), "starts with 0x00000903"),
    "empty": (b"", "truncated: 4 bytes expected here, 0 found"),
    "no images": (idx_bytes(GREY[:0]), r"claims the shape \(0, 5, 4\)"),
    "huge": (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "claims the shape"),
    "below the cap": (struct.pack(">4B3I", 0, 0, 8, 3, 2**11, 2**10, 2**10) + bytes(99), "truncated: 2147483648"),
    "trailing": (idx_bytes(GREY) + b"\0", "bytes after the 120 that its header states"),
}


@pytest.mark.parametrize("case", IDX_CASES)
def test_idx_refusals(case: str) -> None:
    data, message = IDX_CASES[case]
    with refused(message):
        idx.parse(io.BytesIO(data), "x", 3)


NPZ_CASES = {
    "not a zip": (b"hello", "not a readable .npz archive"),
    "empty": (b"", "not a readable .npz archive"),
    "no train_labels": (archive_of(train_images=GOOD["train_images"]), "lacks 'train_labels'"),
    "other names": (npz_bytes(x=GREY, y=LABELS), "lacks 'train_images' .it holds: 'x.npy', 'y.npy'."),
    "half a test part": (archive_of(**GOOD, test_images=GOOD["train_images"]), "lacks 'test_labels'"),
    "float images": (npz_bytes(train_images=GREY / 255, train_labels=LABELS), "expected an integer array"),
    "wide images": (npz_bytes(train_images=GREY.astype("i4"), train_labels=LABELS), "is int32 of shape"),
    "volumes": (npz_bytes(train_images=np.zeros((2, 5, 5, 5), "u1"), train_labels=LABELS[:2]), "C at most 4"),
    "several labels": (npz_bytes(train_images=GREY, train_labels=np.zeros((6, 14), "u1")), "one class per image"),
    "objects": (
        npz_bytes(train_images=np.array([None]), train_labels=LABELS),
        "has the header .*expected an integer array",
    ),
    "structure": (npz_bytes(train_images=np.zeros(2, "u1,u1"), train_labels=LABELS), "expected an integer array"),
    "no images": (npz_bytes(train_images=GREY[:0], train_labels=LABELS[:0]), r"claims the shape \(0, 5, 4\)"),
    "not npy": (archive_of(**GOOD | {"train_images": b"text, not an array"}), "starts with b'text, no'"),
    "bzip2": (archive_of(zipfile.ZIP_BZIP2, **GOOD), "packed by method 12"),
    "long header": (
        archive_of(**GOOD | {"train_images": npy_bytes(npy_header("(2, 3, 3)") + b" " * 20000, bytes(18), 2)}),
        "expected an integer array",
    ),
    "nested header": (
        archive_of(**GOOD | {"train_images": npy_bytes(b"(" * 5000)}),
        "expected an integer array",
    ),
    "short": (
        archive_of(**GOOD | {"train_images": npy_bytes(npy_header("(2, 3, 3)"), bytes(17))}),
        "18 bytes, and holds 17",
    ),
    "trailing": (
        archive_of(**GOOD | {"train_images": npy_bytes(npy_header("(2, 3, 3)"), bytes(19))}),
        "18 bytes, and holds 19",
    ),
    "huge": (
        archive_of(**GOOD | {"train_images": npy_bytes(npy_header("(2000000000, 1000, 1000)"), bytes(18))}),
        "claims the shape .2000000000, 1000, 1000.",
    ),
}


@pytest.mark.parametrize("case", NPZ_CASES)
def test_npz_refusals(case: str) -> None:
    data, message = NPZ_CASES[case]
    with refused(message):
        npz.parse(io.BytesIO(data), "x")


def test_npz_good_members_are_good() -> None:
    """So the refusals above come from what each case changes."""
    assert npz.parse(io.BytesIO(archive_of(**GOOD)), "x")["train"].images.shape == (2, 1, 3, 3)


def test_npz_checksum_of_a_member() -> None:
    data = bytearray(archive_of(**GOOD))
    data[data.index(bytes(18))] = 1
    with refused("BadZipFile"):
        npz.parse(io.BytesIO(data), "x")


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def batch(**changes: Any) -> bytes:
    return pickle.dumps({"labels": [9, 3], "data": CIFAR_IMAGES.reshape(2, -1)} | changes, protocol=4)


PICKLE_CASES = {
    "empty": (b"", "not a readable CIFAR-10 batch"),
    "text": (b"hello", "not a readable CIFAR-10 batch"),
    "no labels": (pickle.dumps({"data": CIFAR_IMAGES}, 4), "KeyError"),
    "not a dictionary": (pickle.dumps([1, 2], 4), "TypeError"),
    "label 10": (batch(labels=[9, 10]), "a label that is not an integer from 0 to 9"),
    "label -1": (batch(labels=[9, -1]), "a label that is not an integer from 0 to 9"),
    "label True": (batch(labels=[9, True]), "a label that is not an integer from 0 to 9"),
    "three labels": (batch(labels=[9, 3, 1]), "one row of 3072 per label"),
    "no images": (batch(labels=[], data=CIFAR_IMAGES[:0].reshape(0, 3072)), "one row of 3072 per label"),
    "wide data": (batch(data=CIFAR_IMAGES.reshape(2, -1).astype("i2")), "uint8 array"),
    "signed data": (batch(data=CIFAR_IMAGES.reshape(2, -1).view("i1")), "uint8 array"),
    "data in columns": (batch(data=np.asfortranarray(CIFAR_IMAGES.reshape(2, -1))), "uint8 array"),
    "objects": (batch(data=np.array([None])), ""),
    "data is a list": (batch(data=[1]), "'data' is not an array"),
    "huge shape": (
        pickle_batch(CIFAR_IMAGES, CIFAR_LABELS).replace(b"K\x02M\x00\x0c\x86", b"J\xff\xff\xff\x7fM\x00\x0c\x86"),
        "one row of 3072 per label",
    ),
    "huge constructor": (batch(extra=Call(np.ndarray, (2**40,))), ""),
    "huge bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", ""),
    "huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "TypeError"),
    "code": (batch(extra=Call(os.system, "true")), "posix.system|nt.system"),
    "eval": (batch(extra=Call(eval, "1")), "builtins.eval.*not allowed"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.", "not allowed"),
    "persistent": (b"\x80\x02Nq\x00Q.", "BINPERSID is not allowed"),
    "extension": (b"\x80\x02\x82\x01.", "EXT1 is not allowed"),
    "instance": (b"(ios\nsystem\n.", "INST is not allowed"),
    "many opcodes": (b"\x80\x02" + b"N" * 1_000_001 + b".", "more than 1000000 opcodes"),
}


@pytest.mark.parametrize("case", PICKLE_CASES)
def test_pickle_refusals(case: str) -> None:
    data, message = PICKLE_CASES[case]
    with refused(message):
        cifar.parse_pickle(io.BytesIO(data), "x")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    bomb = {"labels": [9, 3], "data": CIFAR_IMAGES.reshape(2, -1), "x": Call(os.system, f"echo > '{witness}'")}
    data = pickle.dumps(bomb, protocol)
    with refused(""):
        cifar.parse_pickle(io.BytesIO(data), "x")
    assert not witness.exists()
    pickle.loads(data)
    assert witness.exists()  # so the bomb is one


def test_binary_refusals() -> None:
    for data, message in (
        (b"", "has 0 bytes, expected a positive multiple of 3073"),
        (bytes(3072), "has 3072 bytes"),
        (bytes([10]) + bytes(3072), "has the label 10, expected 0 to 9"),
    ):
        with refused(message):
            cifar.parse_binary(io.BytesIO(data), "x")


# Memory


def peak(action: Callable[[], Any]) -> int:
    """Bytes of memory at most while the action ends in `InputError`."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "reader, data",
    [(0, IDX_CASES["huge"][0]), (0, IDX_CASES["below the cap"][0])]
    + [(1, NPZ_CASES["huge"][0])]
    + [(2, PICKLE_CASES[case][0]) for case in ("huge shape", "huge constructor", "huge bytearray", "huge memo")],
)
def test_no_allocation_from_a_header(reader: int, data: bytes) -> None:
    parse = [READERS[name][0] for name in ("idx images", "npz", "cifar pickle")][reader]
    assert peak(lambda: parse(io.BytesIO(data))) < 4 * 2**20  # each claims 2 GiB or more; a read has pieces of 1 MiB


def test_no_allocation_from_a_header_of_a_file(tmp_path: Path) -> None:
    """On disk too, where one read of 2 GiB would allocate them."""
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(IDX_CASES["below the cap"][0])
    assert peak(lambda: idx.read(path, 3)) < 4 * 2**20


def test_gzip_bombs(tmp_path: Path) -> None:
    """What is unpacked follows the header of the IDX file and not the size of what is packed."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(GREY) + bytes(2**26)))
    assert peak(lambda: idx.read(path, 3)) < 4 * 2**20
    path.write_bytes(gzip.compress(bytes(2**26)))
    assert peak(lambda: idx.read(path, 3)) < 4 * 2**20


def test_zip_bomb() -> None:
    """A member that unpacks to more than its directory entry says is refused; so is one above the cap."""
    content = npy_bytes(npy_header("(2, 3, 3)"), bytes(18))
    data = archive_of(zipfile.ZIP_DEFLATED, **GOOD | {"train_images": content + bytes(2**26)})
    entry = struct.pack("<I", len(content) + 2**26)
    assert data.count(entry) == 2  # local header and central directory
    lying = data.replace(entry, struct.pack("<I", len(content)))
    assert peak(lambda: npz.parse(io.BytesIO(lying), "x")) < 4 * 2**20


def test_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounded.read_all(io.BytesIO(b"12345"), "x", 5) == b"12345"
    with refused("'x' holds more than 4 bytes"):
        bounded.read_all(io.BytesIO(b"12345"), "x", 4)
    monkeypatch.setattr(idx, "MAX_BYTES", GREY.size - 1)
    monkeypatch.setattr(npz, "MAX_BYTES", GREY.size - 1)
    with refused("expected 1 to 119 bytes"):
        idx.parse(io.BytesIO(idx_bytes(GREY)), "x", 3)
    with refused("expected 1 to 119"):
        npz.parse(io.BytesIO(READERS["npz"][1]), "x")


@pytest.mark.parametrize("damage", ["flip", "cut", "tail"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(idx_bytes(GREY)))
    if damage == "flip":
        packed[40] ^= 255
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes({"cut": packed[:-9], "tail": packed + b"tail"}.get(damage, packed))
    with refused("damaged or not readable"):
        idx.read(path, 3)


# Any bytes whatever

PLACE = st.integers(0, 2**16)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), PLACE, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("delete"), PLACE, st.integers(1, 300)),
        st.tuples(st.just("repeat"), PLACE, st.integers(1, 300)),
    ),
    min_size=1,
    max_size=5,
)


def mutated(data: bytes, mutations: list[tuple[str, int, Any]]) -> bytes:
    for kind, place, value in mutations:
        # half of the places lie in the first or last 200 bytes, where headers and directories are
        at = place // 2 % (len(data) + 1) if place % 2 else (place // 2) % 400 - 200
        at = at % (len(data) + 1)
        match kind:
            case "set":
                data = data[:at] + value + data[at + len(value) :]
            case "insert":
                data = data[:at] + value + data[at:]
            case "delete":
                data = data[:at] + data[at + value :]
            case _:
                data = data[: at + value] + data[at:]
    return data


@every_reader
@given(mutations=MUTATIONS)
@example(mutations=[("set", 0, b"PK\x05\x06")])
def test_mutations_end_in_input_error(reader: str, mutations: list[tuple[str, int, Any]]) -> None:
    parse, data = READERS[reader]
    try:
        parse(io.BytesIO(mutated(data, mutations)))
    except InputError as error:
        assert "\n" not in str(error)  # any other type fails the test; a mutation may leave the file valid


@every_reader
@given(data=st.binary(max_size=400))
def test_random_bytes_end_in_input_error(reader: str, data: bytes) -> None:
    parse, valid = READERS[reader]
    with pytest.raises(InputError):
        parse(io.BytesIO(data if data != valid else b""))
    try:
        parse(io.BytesIO(valid[:8] + data))  # the shortest forms may be completed by chance
    except InputError as error:
        assert "\n" not in str(error)


@given(mutations=MUTATIONS)
def test_mutated_gzip_ends_in_input_error(tmp_path_factory: Any, mutations: list[tuple[str, int, Any]]) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.gz"
    path.write_bytes(mutated(gzip.compress(idx_bytes(GREY)), mutations))
    try:
        idx.read(path, 3)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.slow
@every_reader
def test_many_mutations(reader: str) -> None:
    """50,000 damaged files per reader from a seeded generator; the fuzzing of the documented run goes further."""
    parse, data = READERS[reader]
    rng = np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(50_000):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(damaged)) if rng.random() < 0.5 else rng.integers(min(400, len(damaged))))
            damaged[at] = rng.integers(256)
        if rng.random() < 0.2:
            del damaged[int(rng.integers(len(damaged))) :]
        try:
            parse(io.BytesIO(damaged))
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 0, outcomes
