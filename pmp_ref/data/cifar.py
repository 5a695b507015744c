"""CIFAR-10 in its two official forms: binary files and Python pickles.

Binary: rows of 3073 bytes, the label and then the image as (3, 32, 32). Pickle: a dictionary with `labels`, a
list, and `data`, an array of shape (N, 3072). Pickles are not unpickled: their opcodes are read one by one,
only those that the CIFAR files need are understood, and what would be a call becomes an inert record. So no
code from a file can run, and no array exists before its shape has been compared with its bytes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pmp_ref.data.dataset import Part
from pmp_ref.data.files import opened, read_all
from pmp_ref.errors import InputError

__all__ = ["BINARY_FILES", "PICKLE_FILES", "is_directory", "parse_binary", "parse_pickle", "read_directory"]

CLASSES = 10
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
BINARY_FILES = tuple([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"])
PICKLE_FILES = tuple(name.removesuffix(".bin") for name in BINARY_FILES)

_PIXELS = 3 * 32 * 32
_MAX_PICKLE = 2**26  # bytes; an official batch has 31 million
_MAX_OPCODES = 10**6  # an official batch has about 40,000; each may cost some 100 bytes of memory


def is_directory(names: Collection[str]) -> bool:
    """Whether a directory with these file names holds a CIFAR-10 batch in one of the two forms."""
    return any(name in names for name in BINARY_FILES + PICKLE_FILES)


def read_directory(directory: Path, names: Collection[str]) -> dict[str, Part]:
    """The five training batches as one part, and the test batch; binary files go before pickles."""
    binary = any(name in names for name in BINARY_FILES)
    batches = []
    for name in BINARY_FILES if binary else PICKLE_FILES:
        with opened(directory / name) as stream:
            batches.append((parse_binary if binary else parse_pickle)(stream, str(directory / name)))
    counts = [len(batch.labels) for batch in batches[:5]]
    if len(set(counts)) > 1:  # as in the official files; finds one that was cut at the end of a row
        raise InputError(
            f"{str(directory)!r}: its training batches hold {counts} images, expected equal numbers: "
            f"get the files again"
        )
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:5], strict=True))
    return {"train": Part(images, labels), "test": batches[5]}


def parse_binary(stream: IO[bytes], source: str) -> Part:
    """One batch in binary form."""
    data = read_all(stream, source)
    if not data or len(data) % (_PIXELS + 1):
        raise InputError(
            f"{source!r} has {len(data)} bytes, expected a positive multiple of {_PIXELS + 1}: give a CIFAR-10 batch"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, _PIXELS + 1)
    return _part(rows[:, 1:], rows[:, 0], source)


def _part(pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], source: str) -> Part:
    if labels.max() >= CLASSES:
        raise InputError(f"{source!r} has the label {labels.max()}, expected 0 to 9: give a CIFAR-10 batch")
    return Part(np.ascontiguousarray(pixels).reshape(-1, *SHAPE), labels)


def parse_pickle(stream: IO[bytes], source: str) -> Part:
    """One batch in pickle form."""
    data = bytes(read_all(stream, source, _MAX_PICKLE))
    try:
        content = _interpret(data)
        labels, (_, shape, dtype, fortran, raw) = content["labels"], _array_state(content["data"])
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not (
            dtype.call == "numpy.dtype"
            and dtype.arguments[0] in ("u1", "|u1")
            and fortran is False
            and isinstance(raw, bytes)
            and shape == (len(labels), _PIXELS)
            and len(raw) == len(labels) * _PIXELS > 0
        ):
            raise _Unexpected(f"not labels with a uint8 array of one row of {_PIXELS} per label")
        if not all(type(label) is int and 0 <= label < CLASSES for label in labels):
            raise _Unexpected("a label that is not an integer from 0 to 9")
    except _Unexpected as error:
        raise InputError(f"{source!r} is not a CIFAR-10 batch ({error}): get the official file") from None
    except Exception as error:  # whatever a broken pickle does to the lines above, it is broken
        raise InputError(
            f"{source!r} is not a readable CIFAR-10 batch ({type(error).__name__}): get the official file"
        ) from None
    return _part(np.frombuffer(raw, np.uint8).reshape(shape), np.array(labels, np.uint8), source)


class _Unexpected(Exception):
    """A well-formed pickle that no CIFAR-10 file is."""


@dataclass
class _Record:
    """What a pickle asked to be called or set, recorded and not done."""

    call: str
    arguments: tuple[Any, ...]
    state: Any = None


_CALLS = {
    "numpy.dtype": "numpy.dtype",
    "numpy.core.multiarray._reconstruct": "array",  # written by NumPy 1, as in the official files
    "numpy._core.multiarray._reconstruct": "array",  # written by NumPy 2
}


def _array_state(record: Any) -> tuple[Any, ...]:
    if not (isinstance(record, _Record) and record.call == "array" and isinstance(record.state, tuple)):
        raise _Unexpected("its 'data' is not an array")
    return record.state


def _global(name: str) -> _Record:
    if name not in (*_CALLS, "numpy.ndarray"):
        raise _Unexpected(f"it asks for {name[:80]!r}, which is not allowed")
    return _Record(name, ())


def _interpret(data: bytes) -> Any:
    """The value of a pickle of dictionaries with text keys, lists, tuples, texts, numbers, NumPy arrays."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(data)
    for count, (opcode, argument, _) in enumerate(operations):
        if count > _MAX_OPCODES:
            raise _Unexpected(f"more than {_MAX_OPCODES} opcodes")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "BININT" | "BININT1" | "BININT2" | "SHORT_BINSTRING" | "BINSTRING":
                stack.append(argument)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "SHORT_BINBYTES" | "BINBYTES":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                target = _expect(stack[-1], dict)
                target.update({_expect(key, str): value for key, value in zip(items[::2], items[1::2], strict=True)})
            case "GLOBAL":
                stack.append(_global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_global(f"{_expect(stack.pop(), str)}.{_expect(name, str)}"))
            case "REDUCE":
                arguments = _expect(stack.pop(), tuple)
                stack.append(_Record(_CALLS[_expect(stack.pop(), _Record).call], arguments))
            case "BUILD":
                state = stack.pop()
                _expect(stack[-1], _Record).state = state
            case _:
                raise _Unexpected(f"its opcode {opcode.name} is not allowed")
    raise _Unexpected("it has no end")


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise _Unexpected(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value
