"""What the method computes on a GPU between two decisions, recorded once as a CUDA graph and repeated.

A small network is a hundred short kernels, and starting them one by one takes longer than they run. So a function of
arrays, such as ``trial.attempt``, is run as it stands the first time, recorded the second time, and from then on the
record is launched: one call for all kernels. A record reads and writes fixed places in memory. Arguments are copied
there and results copied out, each in one kernel, so that a recorded function is a function still: what it returned
stays what it was. Numbers (ε, ρω, counts) become 0-d arrays, for a record would repeat the number it was made with;
a number that is 0 stays one, and belongs to the record.

For CuPy arrays. The function may launch kernels and nothing else: no value taken from the device, no table sent there,
no cuBLAS (CuPy does not record it). One that does is run as it stands, with a warning.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter
from typing import Any

from pmp_ref.arrays import Array
from pmp_ref.controls import Packed, Vectors
from pmp_ref.cupy_kernels import cupy
from pmp_ref.sweep import Evaluation

THREADS = 256
BLOCKS = 1024  # at most, in a copy: enough to keep the memory of any GPU busy
FIELDS = tuple(f.name for f in fields(Evaluation))
Build = Callable[[list[Any]], Any]


class Replays:
    """Records of functions, one for each form of their arguments; the ``limit`` used last are kept.

    Threads may share it; what one call puts on the stream is not mixed with another's.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.records: OrderedDict[Any, Record] = OrderedDict()
        self.pool: Any = None
        self.lock = threading.RLock()

    def __call__(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments)."""
        with self.lock:
            return self._call(f, arguments)

    def __reduce__(self) -> Any:
        return Replays, (self.limit,)  # a copy has no records: they are made once more

    def _call(self, f: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        leaves: list[Any] = []
        key = (f, *[_form(a, leaves, True) for a in arguments])
        record = self.records.get(key)
        if record is None:
            if self.pool is None:
                self.pool = cupy().cuda.MemoryPool()
            record = self.records[key] = Record(f, arguments, leaves, self.pool)
            if len(self.records) > self.limit:
                self.records.popitem(last=False)
        else:
            self.records.move_to_end(key)
        return record(arguments, leaves)


class Record:
    """One function with arguments of one form."""

    def __init__(self, f: Callable[..., Any], arguments: tuple[Any, ...], leaves: list[Any], pool: Any) -> None:
        self.cupy = cupy()
        self.f, self.pool = f, pool  # and what the form names by its identity, lest another takes its place:
        known = float | int | tuple | Packed | Vectors | Evaluation
        self.constants = [a for a in arguments if not (isinstance(a, known) or _is_array(a))]
        self.places = [self.cupy.empty(a.shape, a.dtype) for a in leaves if _is_array(a)]
        dtype = next((a.dtype for a in self.places if a.dtype.kind == "f"), self.cupy.dtype("float64"))
        self.numbers = self.cupy.empty(len(leaves) - len(self.places), dtype)
        places, numbers = iter(self.places), iter([self.numbers[i] for i in range(self.numbers.size)])
        self.arguments = _builder(arguments, [0], True)([next(places if _is_array(a) else numbers) for a in leaves])
        self.inputs = Copies(self.places, self.numbers)
        self.graph: Any = None
        self.results: Results
        self.calls, self.refused = 0, False

    def __call__(self, arguments: tuple[Any, ...], leaves: list[Any]) -> Any:
        if self.refused:
            return self.f(*arguments)
        arrays = [a for a in leaves if type(a) is not float]
        self.inputs.inwards(arrays, [a for a in leaves if type(a) is float])
        self.calls += 1
        if self.calls == 2:
            try:
                self.record()
            except Exception as error:
                self.refused = True
                warnings.warn(
                    f"{self.f.__qualname__} cannot be recorded as a CUDA graph ({type(error).__name__}: "
                    f"{error}); it is run as it stands",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return self.f(*arguments)
        if self.graph is None:
            self.results = Results(self.f(*self.arguments), self.places)
        else:
            self.graph.launch()
        return self.results(arrays)

    def record(self) -> None:
        """Record the function. Its memory comes from a pool that nothing else takes from: the addresses stay valid."""
        del self.results
        self.cupy.get_default_memory_pool().free_all_blocks()
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with self.cupy.cuda.using_allocator(self.pool.malloc), stream:
            stream.begin_capture()
            try:
                self.results = Results(self.f(*self.arguments), self.places)
            finally:
                graph = stream.end_capture()
        self.graph, self.stream = graph, stream


class Results:
    """What a function returned, and where: in an argument's place, which is handed back as it came, or elsewhere."""

    def __init__(self, result: Any, places: list[Array]) -> None:
        self.leaves: list[Any] = []
        _form(result, self.leaves)
        self.build = _builder(result, [0])
        where = {(a.data.ptr, a.shape): i for i, a in enumerate(places) if a.size}
        self.origin = [where.get((a.data.ptr, a.shape)) if _is_array(a) else None for a in self.leaves]
        self.moved = [j for j, a in enumerate(self.leaves) if _is_array(a) and self.origin[j] is None]
        self.given = [(j, i) for j, i in enumerate(self.origin) if i is not None]
        self.shapes = [(self.leaves[j].shape, self.leaves[j].dtype) for j in self.moved]
        self.outputs = Copies([self.leaves[j] for j in self.moved])
        self.empty = cupy().empty

    def __call__(self, arrays: list[Array]) -> Any:
        """The result with arrays of its own, and those of the call's ``arrays`` that it hands back."""
        fresh = [self.empty(shape, dtype) for shape, dtype in self.shapes]
        self.outputs.outwards(fresh)
        leaves = list(self.leaves)
        for j, a in zip(self.moved, fresh, strict=True):
            leaves[j] = a
        for j, i in self.given:
            leaves[j] = arrays[i]
        return self.build(leaves)


class Copies:
    """Copies of many arrays in one kernel: with ``numbers`` into ``places`` from elsewhere, without out of them."""

    def __init__(self, places: list[Array], numbers: Array | None = None) -> None:
        self.places, self.numbers = places, numbers
        words = [_word(a.nbytes) for a in places]
        lengths = tuple((a.nbytes // w, w) for a, w in zip(places, words, strict=True))
        real = "" if numbers is None else _REAL[str(numbers.dtype)]
        self.kernel = _copying(lengths, 0 if numbers is None else numbers.size, real)
        self.grid = (min(BLOCKS, max(1, -(-max((n for n, _ in lengths), default=1) // THREADS))),)
        self.words = words
        self.real = float if numbers is None else numbers.dtype.type

    def inwards(self, arrays: list[Array], values: list[float]) -> None:
        """Copy the arrays and numbers to their places."""
        arguments: list[Any] = []
        for a, place, word in zip(arrays, self.places, self.words, strict=True):
            if not a.flags.c_contiguous or a.data.ptr % word:
                a = a.copy(order="C")
            arguments += (a, place)
        arguments.append(self.numbers)
        arguments += [self.real(v) for v in values]
        self.kernel(self.grid, (THREADS,), tuple(arguments))

    def outwards(self, arrays: list[Array]) -> None:
        """Copy what lies in the places to the arrays."""
        if arrays:
            pairs = [x for pair in zip(self.places, arrays, strict=True) for x in pair]
            self.kernel(self.grid, (THREADS,), tuple(pairs))


_REAL = {"float32": "float", "float64": "double"}
_WORDS = {16: "int4", 4: "int", 1: "char"}


def _word(size: int) -> int:
    """Bytes moved at once in an array of ``size`` bytes."""
    return next(w for w in _WORDS if size % w == 0)


@lru_cache(maxsize=256)
def _copying(lengths: tuple[tuple[int, int], ...], numbers: int, real: str) -> Any:
    """The kernel: a loop for each array, with its length in words, and an assignment for each number."""
    parameters = [f"const {_WORDS[w]}* a{k}, {_WORDS[w]}* z{k}" for k, (_, w) in enumerate(lengths)]
    body = [f"  for (size_t j = i; j < {n}ull; j += step) z{k}[j] = a{k}[j];" for k, (n, _) in enumerate(lengths)]
    if real:
        parameters += [f"{real}* numbers", *(f"{real} n{k}" for k in range(numbers))]
        body += [f"  if (i == 0) numbers[{k}] = n{k};" for k in range(numbers)]
    source = "\n".join(
        [
            f'extern "C" __global__ void pmp_ref_copies({", ".join(parameters)}) {{',
            "  const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x, step = gridDim.x * (size_t)blockDim.x;",
            *body,
            "}",
        ]
    )
    return cupy().RawKernel(source, "pmp_ref_copies")


def _is_array(a: Any) -> bool:
    return type(a).__module__ == "cupy"


def _form(tree: Any, leaves: list[Any], top: bool = False) -> Any:
    """What a record depends on: nesting, shapes, dtypes, constants. Arrays and numbers are appended to ``leaves``.

    An integer is a number where it is an argument itself, and a constant inside one. Other objects go by identity.
    """
    kind = type(tree)
    if tree is None or kind is bool:
        return tree
    if kind.__module__ == "cupy":
        leaves.append(tree)
        return tree.shape, tree.dtype.char
    if kind is float or (top and kind is int):
        if tree == 0:
            return 0
        leaves.append(float(tree))
        return float
    if kind is int:
        return tree
    if kind is Packed:
        return Packed, _form(tree.vectors, leaves)
    if kind is Vectors:
        return id(tree.layout), _form(tree.whole, leaves)
    if kind is Evaluation:
        return tuple([_form(getattr(tree, name), leaves) for name in FIELDS])
    if kind is tuple:
        return tuple([_form(part, leaves) for part in tree])
    return id(tree)


def _builder(tree: Any, count: list[int], top: bool = False) -> Build:
    """The function that makes such a tree of other leaves, in the order of :func:`_form`; ``count[0]``: the leaves so
    far; ``top``: the tree is the tuple of arguments."""
    kind = type(tree)
    number = kind is float and tree != 0
    if number or _is_array(tree):
        count[0] += 1
        return itemgetter(count[0] - 1)
    if kind is tuple:
        parts = [_builder(float(a) if top and type(a) is int else a, count) for a in tree]
        return lambda leaves: tuple([part(leaves) for part in parts])
    if kind is Packed:
        inner = _builder(tree.vectors, count)
        return lambda leaves: Packed(inner(leaves))
    if kind is Vectors:
        layout, place = tree.layout, _builder(tree.whole, count)
        return lambda leaves: Vectors(layout, place(leaves))
    if kind is Evaluation:
        entries = [_builder(getattr(tree, name), count) for name in FIELDS]
        return lambda leaves: Evaluation(*[entry(leaves) for entry in entries])
    return lambda leaves: tree
