"""Sources made into kernels, and how they are launched. CuPy is imported when the first kernel is asked for."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import numpy as np

from pmp_ref.arrays import Array
from pmp_ref.cupy_kernels import cupy
from pmp_ref.errors import InputError

REALS = {"float32": "float", "float64": "double"}
ENTRIES = 2**31 - 1  # of any one array: the kernels count in 32 bits
THREADS = 256  # of a block, where every thread makes one entry by itself


@functools.lru_cache(maxsize=4096)
def kernel(source: str, name: str, called: str = "", **defines: int | str) -> Any:
    """The kernel ``name`` of ``source``.cu with these defines; compiled here, kept by CuPy on disk.

    ``source`` may name several files, which follow one another; ``called`` is the kernel's name in a profile.
    """
    head = "".join(f"#define {key} {value}\n" for key, value in defines.items())
    files = [resources.files(__package__).joinpath(f"{part}.cu") for part in source.split()]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    options = ("--std=c++17",) + (("--maxrregcount=128",) if defines.get("REAL") == "float" else ())  # see tiles.py
    text = text.replace(f"void {name}(", f"void {called or name}(")
    return cupy().RawModule(code=head + text, options=options).get_function(called or name)


def applies(*arrays: Array) -> bool:
    """True for CuPy arrays of one dtype, float32 or float64, which are not empty."""
    return all(
        type(a).__module__ == "cupy" and a.dtype == arrays[0].dtype and str(a.dtype) in REALS and a.size for a in arrays
    )


def real(a: Array) -> str:
    """The dtype of ``a`` in C."""
    return REALS[str(a.dtype)]


def contiguous(a: Array) -> Array:
    """``a`` in C order; itself if it is."""
    return cupy().ascontiguousarray(a)


def empty(shape: tuple[int, ...], a: Array, dtype: Any = None) -> Array:
    """A new array with the dtype of ``a`` unless given; InputError if it has too many entries to count."""
    made = cupy().empty(shape, a.dtype if dtype is None else dtype)
    if made.size > ENTRIES:
        raise InputError(f"a state or workspace of shape {shape} has more than {ENTRIES} entries; use smaller chunks")
    return made


def launch(function: Any, blocks: int, threads: int, *args: Any) -> None:
    """One launch; integers are passed as 32 bits without sign."""
    function((blocks,), (threads,), tuple(np.uint32(a) if isinstance(a, int) else a for a in args))


def launch_entries(function: Any, entries: int, *args: Any) -> None:
    """One launch with a thread for each of ``entries`` entries."""
    launch(function, ceil(entries, THREADS), THREADS, *args)


def ceil(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()
