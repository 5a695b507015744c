"""What the method computes on a GPU between two decisions, recorded once as a CUDA graph and repeated.

A small network is a hundred short kernels, and starting them one by one takes longer than they run. So a function of
arrays, such as ``bsqh.attempt``, is run as it stands the first time, recorded the second time, and from then on the
record is launched: one call for all kernels. A record reads and writes fixed places in memory. Arguments are copied
there and results copied out, each in one kernel, so that a recorded function is a function still: what it returned
stays what it was. Numbers (ε, ρω, counts) become 0-d arrays, for a record would repeat the number it was made with;
a number that is 0 stays one, and belongs to the record.

For CuPy arrays. The function may launch kernels and nothing else: no value taken from the device, no table sent there,
no cuBLAS (CuPy does not record it). One that does is run as it stands, with a warning.
"""

from __future__ import annotations

import importlib
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from pmp_ref.arrays import Array
from pmp_ref.controls import Packed, Vectors
from pmp_ref.sweep import Evaluation

THREADS = 256
BLOCKS = 1024  # at most, in a copy: enough to keep the memory of any GPU busy


class Replays:
    """Records of functions, one for each form of their arguments; the ``limit`` used last are kept."""

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.records: OrderedDict[Any, Record] = OrderedDict()
        self.pool: Any = None

    def __call__(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments)."""
        leaves: list[Any] = []
        key = (f, *(_form(a, leaves, True) for a in arguments))
        record = self.records.get(key)
        if record is None:
            if self.pool is None:
                self.pool = importlib.import_module("cupy").cuda.MemoryPool()
            record = self.records[key] = Record(f, arguments, leaves, self.pool)
            if len(self.records) > self.limit:
                self.records.popitem(last=False)
        else:
            self.records.move_to_end(key)
        return record(arguments, leaves)


class Record:
    """One function with arguments of one form."""

    def __init__(self, f: Callable[..., Any], arguments: tuple[Any, ...], leaves: list[Any], pool: Any) -> None:
        cupy = importlib.import_module("cupy")
        self.f, self.pool = f, pool  # and what the form names by its identity, lest another takes its place:
        known = float | int | tuple | Packed | Evaluation
        self.constants = [a for a in arguments if not (isinstance(a, known) or _is_array(a))]
        arrays = [a for a in leaves if not isinstance(a, float)]
        self.places = [cupy.empty(a.shape, a.dtype) for a in arrays]
        dtype = next((a.dtype for a in arrays if a.dtype.kind == "f"), cupy.dtype("float64"))
        self.numbers = cupy.empty(len(leaves) - len(arrays), dtype)
        numbers = iter([self.numbers[i] for i in range(self.numbers.size)])
        places = iter(self.places)
        self.arguments = _mapped(arguments, lambda a: next(numbers if isinstance(a, float) else places), True)
        self.inputs = Copies(self.places, self.numbers)
        self.graph: Any = None
        self.result: Any = None
        self.copied: list[Array] = []
        self.origin: list[int | None] = []
        self.calls, self.refused = 0, False

    def __call__(self, arguments: tuple[Any, ...], leaves: list[Any]) -> Any:
        if self.refused:
            return self.f(*arguments)
        arrays = [a for a in leaves if not isinstance(a, float)]
        self.inputs(arrays, [a for a in leaves if isinstance(a, float)])
        self.calls += 1
        if self.calls == 2:
            try:
                self.record()
            except Exception as error:
                self.refused = True
                warnings.warn(f"{self.f.__qualname__} cannot be recorded as a CUDA graph ({type(error).__name__}: "
                              f"{error}); it is run as it stands", RuntimeWarning, stacklevel=2)  # fmt: skip
                return self.f(*arguments)
        if self.graph is None:
            self.found(self.f(*self.arguments))
        else:
            self.graph.launch()
        return self.results(arrays)

    def record(self) -> None:
        """Record the function. Its memory comes from a pool that nothing else takes from: the addresses stay valid."""
        cupy = importlib.import_module("cupy")
        self.result, self.copied = None, []
        cupy.get_default_memory_pool().free_all_blocks()
        stream = cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.using_allocator(self.pool.malloc), stream:
            stream.begin_capture()
            try:
                self.found(self.f(*self.arguments))
            finally:
                graph = stream.end_capture()
        self.graph, self.stream = graph, stream

    def found(self, result: Any) -> None:
        """Take note of where the results lie; those that are arguments are handed back as they came."""
        self.result, self.copied, self.origin = result, [], []
        where = {a.data.ptr: i for i, a in enumerate(self.places) if a.size}
        for a in _arrays(result):
            i = where.get(a.data.ptr) if a.size else None
            if i is not None and self.places[i].shape == a.shape:
                self.origin.append(i)
            else:
                self.origin.append(None)
                self.copied.append(a)
        self.outputs = Copies(self.copied)

    def results(self, arrays: list[Array]) -> Any:
        """The result with arrays of its own."""
        cupy = importlib.import_module("cupy")
        fresh = [cupy.empty(a.shape, a.dtype) for a in self.copied]
        self.outputs(fresh)
        rest = iter(fresh)
        each = iter([next(rest) if i is None else arrays[i] for i in self.origin])
        return _mapped(self.result, lambda a: next(each) if _is_array(a) else a, False)


class Copies:
    """Copies of many arrays in one kernel: into ``places`` (from elsewhere, with numbers), or out of them."""

    def __init__(self, places: list[Array], numbers: Array | None = None) -> None:
        self.places, self.numbers = places, numbers
        words = tuple((a.nbytes // (w := _word(a.nbytes)), w) for a in places)
        count = 0 if numbers is None else numbers.size
        self.kernel = _copying(words, count, "double" if numbers is None else _REAL[str(numbers.dtype)],
                               numbers is not None)  # fmt: skip
        self.blocks = min(BLOCKS, max(1, -(-max((n for n, _ in words), default=1) // THREADS)))

    def __call__(self, others: list[Array], values: list[float] | None = None) -> None:
        """Copy ``others`` into the places, or the places into ``others`` if there are no numbers."""
        if not self.places and not values:
            return
        arguments: list[Any] = []
        held = []  # copies live until the kernel is launched
        for a, place in zip(others, self.places, strict=True):
            if self.numbers is not None and (not a.flags.c_contiguous or a.data.ptr % _word(a.nbytes)):
                a = a.copy(order="C")
                held.append(a)
            arguments += (a, place) if self.numbers is not None else (place, a)
        if self.numbers is not None:
            arguments += [self.numbers, *map(self.numbers.dtype.type, values or ())]
        self.kernel((self.blocks,), (THREADS,), tuple(arguments))


_REAL = {"float32": "float", "float64": "double"}
_WORDS = {16: "int4", 4: "int", 1: "char"}


def _word(size: int) -> int:
    """Bytes moved at once in an array of ``size`` bytes."""
    return next(w for w in _WORDS if size % w == 0)


@lru_cache(maxsize=256)
def _copying(words: tuple[tuple[int, int], ...], numbers: int, real: str, inwards: bool) -> Any:
    """The kernel: a loop for each array, with its length in words, and an assignment for each number."""
    parameters = [f"const {_WORDS[w]}* a{k}, {_WORDS[w]}* z{k}" for k, (_, w) in enumerate(words)]
    body = [
        f"  for (size_t j = i; j < {n}u; j += step) z{k}[j] = a{k}[j];" if n < 2**32 else
        f"  for (size_t j = i; j < {n}ull; j += step) z{k}[j] = a{k}[j];"
        for k, (n, _) in enumerate(words)
    ]  # fmt: skip
    if inwards:
        parameters += [f"{real}* numbers", *(f"{real} n{k}" for k in range(numbers))]
        body += [f"  if (i == 0) numbers[{k}] = n{k};" for k in range(numbers)]
    source = "\n".join([
        f'extern "C" __global__ void pmp_ref_copies({", ".join(parameters)}) {{',
        "  const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x, step = gridDim.x * (size_t)blockDim.x;",
        *body,
        "}",
    ])  # fmt: skip
    return importlib.import_module("cupy").RawKernel(source, "pmp_ref_copies")


def _is_array(a: Any) -> bool:
    return type(a).__module__ == "cupy"


def _form(tree: Any, leaves: list[Any], top: bool = False) -> Any:
    """What a record depends on: nesting, shapes, dtypes, constants. Arrays and numbers are appended to ``leaves``.

    An integer is a number where it is an argument itself, and a constant inside one. Other objects go by identity.
    """
    if tree is None or isinstance(tree, bool):
        return tree
    if _is_array(tree):
        leaves.append(tree)
        return tree.shape, tree.dtype.char
    if isinstance(tree, float) or (top and isinstance(tree, int)):
        if tree == 0:
            return 0
        leaves.append(float(tree))
        return float
    if isinstance(tree, int):
        return tree
    if isinstance(tree, Packed):
        return Packed, _form(tree.vectors, leaves)
    if isinstance(tree, Vectors):
        return id(tree.layout), _form(tree.whole, leaves)
    if isinstance(tree, tuple):
        return tuple([_form(part, leaves) for part in tree])
    if isinstance(tree, Evaluation):
        return tuple([_form(getattr(tree, f.name), leaves) for f in fields(tree)])
    return id(tree)


def _mapped(tree: Any, f: Callable[[Any], Any], top: bool) -> Any:
    """The tree with f of each leaf in its place, in the order of :func:`_form`. ``top``: the tuple of arguments."""
    if _is_array(tree) or (isinstance(tree, float) and tree != 0):
        return f(tree)
    if top:
        return tuple(f(float(a)) if _is_integer(a) else _mapped(a, f, False) for a in tree)
    if isinstance(tree, Packed):
        return Packed(_mapped(tree.vectors, f, False))
    if isinstance(tree, Vectors):
        return tree.layout.over(_mapped(tree.whole, f, False))
    if isinstance(tree, tuple):
        return tuple(_mapped(part, f, False) for part in tree)
    if is_dataclass(tree) and isinstance(tree, Evaluation):
        return replace(tree, **{x.name: _mapped(getattr(tree, x.name), f, False) for x in fields(tree)})
    return tree


def _is_integer(a: Any) -> bool:
    return isinstance(a, int) and not isinstance(a, bool) and a != 0


def _arrays(tree: Any) -> list[Array]:
    """The arrays of a result, in order."""
    leaves: list[Any] = []
    _form(tree, leaves)
    return [a for a in leaves if _is_array(a)]
