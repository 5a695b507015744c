"""All readers of files and texts that come from elsewhere, each as a function of bytes, with valid inputs.

Checksums would stop nearly every damaged byte at the door, so those of zip, gzip and tar are off here: what lies behind
them is what an attacker reaches, who writes the right checksum.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from pmp_ref import files as archive
from pmp_ref import model
from pmp_ref.app import checkpoint, files, history, inspect, predict, run
from pmp_ref.app.build import build
from pmp_ref.app.options import Options, resolve, to_json
from pmp_ref.app.run import Manner, train
from pmp_ref.controls import map_controls
from pmp_ref.data import cifar, fetch, idx, load, npz, prepare
from pmp_ref.interop import from_onnx
from pmp_ref.interop.onnx_out import Graph
from pmp_ref.layers import Convolution, Dense, Flatten, ReLU
from pmp_ref.network import Network
from verification.conformance import cases as conformance_cases
from verification.conformance import files as conformance
from verification.conformance.record import run as conformance_run
from verification.hardening.interruptions import write_images

Reader = Callable[[bytes], Callable[[], Any]]  # puts the input in place, returns the reading itself
LARGEST = 2**17  # bytes of a fuzzed input; the CIFAR batches are the largest seeds


@dataclass(frozen=True)
class Target:
    """A reader: ``make`` takes a directory of its own and returns the function and its seeds."""

    name: str
    reads: str
    make: Callable[[Path], tuple[Reader, list[bytes]]]
    weight: int = 8  # its share of the inputs


TARGETS: dict[str, Target] = {}


def target(name: str, reads: str, weight: int = 8) -> Callable[[Any], Any]:
    """Registers a target."""

    def register(make: Any) -> Any:
        TARGETS[name] = Target(name, reads, make, weight)
        return make

    return register


@contextlib.contextmanager
def without_checksums() -> Iterator[None]:
    """Zip, gzip and tar accept any checksum."""
    from gzip import _GzipReader  # type: ignore[attr-defined]

    class Anything:
        def __contains__(self, _: object) -> bool:
            return True

    def skip_end(reader: Any) -> None:
        reader._fp.read(8)  # checksum and size, not compared
        byte = b"\x00"
        while byte == b"\x00":
            byte = reader._fp.read(1)
        if byte:
            reader._fp.prepend(byte)

    with (
        mock.patch.object(zipfile.ZipExtFile, "_update_crc", lambda *_: None),
        mock.patch.object(_GzipReader, "_read_eof", skip_end),
        mock.patch.object(tarfile, "calc_chksums", lambda _: Anything()),
    ):
        yield


# Small valid files

GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)
BATCH = np.random.default_rng(2).integers(0, 256, (2, 3072), dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def npz_bytes(save: Any = np.savez, **arrays: np.ndarray) -> bytes:
    """An ``.npz`` archive."""
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """One member of it."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive_of(members: dict[str, bytes]) -> bytes:
    """An archive with these members as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # with the earliest time, so that inputs can be repeated
    return stream.getvalue()


def in_memory(parse: Callable[[Any], Any]) -> Reader:
    """A reader of a stream."""
    return lambda content: lambda: parse(io.BytesIO(content))


def to_file(path: Path, read_it: Callable[[], Any], pack: Callable[[bytes], bytes] = bytes) -> Reader:
    """A reader of the file at ``path``, which holds ``pack(content)``."""

    def reader(content: bytes) -> Callable[[], Any]:
        path.write_bytes(pack(content))
        return read_it

    return reader


# Data sets


@target("idx images", "IDX file with images")
def _(place: Path) -> Any:
    return in_memory(lambda stream: idx.parse(stream, "x", 3)), [idx_bytes(GREY), idx_bytes(GREY[:1, :1, :1])]


@target("idx labels", "IDX file with labels")
def _(place: Path) -> Any:
    return in_memory(lambda stream: idx.parse(stream, "x", 1)), [idx_bytes(LABELS)]


@target("idx gzip", "IDX file packed by gzip, from disk")
def _(place: Path) -> Any:
    path = place / "train-images-idx3-ubyte.gz"
    plain = idx_bytes(GREY[:2])
    return to_file(path, lambda: idx.read(path, 3)), [gzip.compress(plain, 9, mtime=0), gzip.compress(plain, 0), plain]


@target("npz", "MedMNIST archive, from disk to standardised images")
def _(place: Path) -> Any:
    path = place / "set.npz"
    seeds = [
        npz_bytes(np.savez_compressed, train_images=GREY, train_labels=LABELS, test_images=GREY, test_labels=LABELS),
        npz_bytes(train_images=COLOUR, train_labels=LABELS[:, np.newaxis].astype("<i8")),
    ]
    return to_file(path, lambda: prepare(load(path), np.float32)), seeds


@target("npz member", "one array inside a MedMNIST archive")
def _(place: Path) -> Any:
    labels = npy_bytes(LABELS)

    def reader(content: bytes) -> Any:
        stream = io.BytesIO(archive_of({"train_images.npy": content, "train_labels.npy": labels}))
        return lambda: npz.parse(stream, "x")

    return reader, [npy_bytes(GREY), npy_bytes(np.asfortranarray(COLOUR)), npy_bytes(GREY.astype("<i4"))]


@target("cifar binary", "CIFAR-10 batch in binary form")
def _(place: Path) -> Any:
    return in_memory(lambda stream: cifar.parse_binary(stream, "x")), [b"\x09" + BATCH[0].tobytes()]


@target("cifar pickle", "CIFAR-10 batch as a pickle")
def _(place: Path) -> Any:
    content = {"labels": [9], "data": BATCH[:1]}
    seeds = [pickle.dumps(content, protocol) for protocol in (2, 3, 4, 5)]
    seeds += [pickle.dumps({"labels": [9], "data": []}, 2), pickle.dumps([("a", b"b", 1.5, None, True, 2**40)], 4)]
    return in_memory(lambda stream: cifar.parse_pickle(stream, "x")), seeds


@target("package", "archive of a downloaded package: only named members of stated sizes are read, nothing is unpacked")
def _(place: Path) -> Any:
    path, sizes = place / "package.tgz", {"package/a": 24, "package/b": 10}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, size in (*sizes.items(), ("../outside", 3), ("ü" * 120, 1)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return to_file(path, lambda: fetch._read_members(path, sizes), lambda b: gzip.compress(b, 1)), [stream.getvalue()]


# Runs: configuration, checkpoint and model, results, tables


def _a_run(place: Path) -> tuple[Options, Path]:
    """Options and directory of a finished run of one epoch, the same bytes each time: no clock, no path of its own."""
    write_images(place / "data.npz", train=12, test=6, size=12)
    given = {"data": "data.npz", "epochs": "1", "batch_size": "6", "check_descent": "none", "sweep": "clear"}
    resolved = resolve(given)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.chdir(place),
        mock.patch("time.perf_counter", lambda: 0.0),
    ):
        train(resolved, str(place / "run"), Manner(quiet=True, figures=False, threads=1))
    return resolved, place / "run"


def _setup(options: Options, place: Path) -> Any:
    """What a run is built from."""
    with contextlib.chdir(place):
        return build(options, 1)


@target("configuration", "config.json")
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    seed = (directory / files.CONFIG).read_bytes()
    return to_file(directory / files.CONFIG, lambda: run.read_config(directory)), [seed, b"{}", b"[]"]


@target("option values", "texts of the command line")
def _(place: Path) -> Any:
    names = [f.name for f in fields(Options)]
    defaults = to_json(resolve({}))

    def reader(content: bytes) -> Any:
        name, text = names[content[0] % len(names)] if content else names[0], content[1:].decode("latin1")
        return lambda: resolve({name: text})

    seeds = [bytes([i]) + str(defaults[n]).encode() for i, n in enumerate(names) if defaults[n] is not None]
    for name, text in (
        ("regulariser", "l0+0.1*l2"),
        ("layer_weights", "0=0.5,10=2"),
        ("ramp", "0.1:0.5"),
        ("admissible", "-1,0,1"),
        ("admissible", "-1:2"),
        ("box", "3"),
        ("averaging", "none"),
    ):
        seeds.append(bytes([names.index(name)]) + text.encode())
    return reader, seeds


@target("checkpoint archive", "checkpoint.npz, and with it model.npz, which has the same form")
def _(place: Path) -> Any:
    small = archive.pack({"a/00.kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1.5)}, {"n": {}})
    path = place / "x.npz"
    return to_file(path, lambda: archive.unpack(path)), [small, npz_bytes(a=np.zeros(3))]


@target("checkpoint array", "one array of a checkpoint, as far as the run that would go on from it", 1)
def _(place: Path) -> Any:
    options, directory = _a_run(place)
    setup = _setup(options, place)
    arrays = archive.unpack(directory / files.CHECKPOINT)
    name = "controls/01.kernel"
    others = {f"{k}.npy": npy_bytes(a) for k, a in arrays.items() if k != name}
    pack = lambda content: archive_of({**others, f"{name}.npy": content})  # noqa: E731
    read_it = lambda: checkpoint.read(directory, setup)  # noqa: E731
    return to_file(directory / files.CHECKPOINT, read_it, pack), [npy_bytes(arrays[name])]


@target("checkpoint state", "the numbers of a checkpoint, as far as the run that would go on from it", 1)
def _(place: Path) -> Any:
    options, directory = _a_run(place)
    setup = _setup(options, place)
    arrays = archive.unpack(directory / files.CHECKPOINT)
    state = arrays.pop("state").tobytes()
    open_state = json.loads(state)
    open_state |= {"status": None, "evaluation": "backward"}

    def pack(content: bytes) -> bytes:
        return archive.pack(arrays | {"state": np.frombuffer(content, np.uint8)}, {})

    read_it = lambda: checkpoint.read(directory, setup)  # noqa: E731
    return to_file(directory / files.CHECKPOINT, read_it, pack), [state, json.dumps(open_state).encode(), b"{}", b"[]"]


@target("summary", "summary.json of inspect and --resume")
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    path = directory / files.SUMMARY

    def read_it() -> None:
        inspect.show(directory)
        run.ended(directory)

    return to_file(path, read_it), [path.read_bytes(), b"{}", b"[]", b'["ab"]', b"1"]


@target("certificate", "certificate.json of inspect")
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    path = directory / "certificate.json"
    return to_file(path, lambda: inspect.show(directory)), [path.read_bytes(), b"{}", b"[]"]


@target("table", "history.csv, from which the figures are drawn")
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    path = directory / "history.csv"
    return to_file(path, lambda: history.read(path)), [path.read_bytes()]


# Models and images for prediction


def _sparse(directory: Path) -> model.Model:
    """The run's model with most kernel entries set to 0, so that kernels are stored as rows."""
    whole = model.read_model(directory / files.MODEL)
    return replace(whole, controls=map_controls(lambda a: np.where(np.abs(a) < 0.15, 0, a), whole.controls))


def _model_target(place: Path, content: bytes, name: str) -> Any:
    """The file ``content`` with its array ``name`` replaced by the input: JSON for the notes, else an .npy member."""
    path = place / "model.npz"
    path.write_bytes(content)
    arrays = archive.unpack(path)
    mine = arrays.pop(name)
    others = {f"{k}.npy": npy_bytes(a) for k, a in arrays.items()}
    note = name in ("network", "compact")

    def pack(content: bytes) -> bytes:
        return archive_of({**others, f"{name}.npy": npy_bytes(np.frombuffer(content, np.uint8)) if note else content})

    return to_file(path, lambda: model.read_model(path), pack), [mine.tobytes() if note else npy_bytes(mine)]


@target("model", "the description of the network in model.npz", 1)
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    return _model_target(place, (directory / files.MODEL).read_bytes(), "network")


@target("compact model", "the description of the network in compact.npz", 1)
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    return _model_target(place, model.to_bytes(_sparse(directory)), "compact")


@target("compact array", "an array of a sparse kernel in compact.npz", 1)
def _(place: Path) -> Any:
    _, directory = _a_run(place)
    content = model.to_bytes(_sparse(directory))
    (place / "model.npz").write_bytes(content)
    name = next(k for k in archive.unpack(place / "model.npz") if k.endswith(".count"))
    return _model_target(place, content, name)


def _onnx(place: Path) -> Any:
    import onnx

    path, network = place / "x.onnx", Network([Convolution(2, 3), ReLU(), Flatten(), Dense(3)], (1, 5, 4))
    generator = np.random.default_rng(3)
    controls = tuple(
        tuple(generator.standard_normal(s, np.float32) for s in shapes) for shapes in network.control_shapes
    )
    thin = map_controls(lambda a: np.where(np.abs(a) < 1.5, np.float32(0), a), controls)
    whole = model.behind_pixels(model.Model(network, controls), (0.1,), (0.3,))
    seeds = [Graph(whole).build(onnx), Graph(model.Model(network, thin)).build(onnx, sparse=True)]
    return to_file(path, lambda: from_onnx(path)), seeds


if importlib.util.find_spec("onnx") is not None:
    target("onnx", "an ONNX file, parsed by the package onnx", 4)(_onnx)


@target("array of images", "a .npy file for prediction")
def _(place: Path) -> Any:
    path = place / "x.npy"
    return to_file(path, lambda: predict.images(path, (1, 5, 4), None)), [npy_bytes(GREY), npy_bytes(GREY[0])]


@target("picture", "a PNG or PGM file for prediction, decoded by Pillow")
def _(place: Path) -> Any:
    from PIL import Image

    path, seeds = place / "x.png", []
    for array, form in ((GREY[0], "PNG"), (COLOUR[0, :, :, :3], "PNG")):
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, form)
        seeds.append(stream.getvalue())
    return to_file(path, lambda: predict.images(path, (1, 5, 4), None)), seeds


# Files of another program, to compare with the reference


def _conformance(place: Path, name: str, pack: Callable[[bytes], bytes] = bytes) -> tuple[Reader, bytes]:
    """The reader of the exported case with the file of that name replaced, and the file's content."""
    case = conformance_cases.chosen(["dense-float32"])["dense-float32"]
    trials = conformance_run(case)[:1]  # the others are read in the same way
    conformance.write(place, case, trials)
    conformance_path = place / name

    def read_it() -> None:
        with mock.patch.object(conformance, "run", lambda _: trials):  # the reference is the same each time
            conformance.compare(place, case, partial=True)

    return to_file(conformance_path, read_it, pack), conformance_path.read_bytes()


@target("conformance archive", "input.npz of another program")
def _(place: Path) -> Any:
    reader, seed = _conformance(place, "input.npz")
    return reader, [seed, npz_bytes(np.savez_compressed, x=np.ones(3), y=np.arange(3))]


@target("conformance array", "an array of trial-000.npz of another program", 4)
def _(place: Path) -> Any:
    _, seed = _conformance(place, "trial-000.npz")
    (place / "x.npz").write_bytes(seed)
    arrays = conformance._read_npz(place / "x.npz")
    mine = arrays.pop("x4")
    others = {f"{k}.npy": npy_bytes(arrays[k]) for k in list(arrays)[:2]}  # a few; all would take most of the time
    reader, _ = _conformance(place, "trial-000.npz", lambda content: archive_of({**others, "x4.npy": content}))
    return reader, [npy_bytes(mine), npy_bytes(np.asfortranarray(mine.astype(">f8")))]


@target("conformance numbers", "trials.json of another program", 4)
def _(place: Path) -> Any:
    reader, seed = _conformance(place, "trials.json")
    return reader, [seed, b"[]", b"{}", b'[{"J": [[1], [1, 2]]}]']
