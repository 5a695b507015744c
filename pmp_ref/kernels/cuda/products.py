"""The products of convolutions and dense stages: one launch of ``products.cu`` or, straight from images, of
``correlation.cu`` or ``switching.cu``; two where blocks share a sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pmp_ref.arrays import Array
from pmp_ref.cupy_kernels import cupy
from pmp_ref.errors import InputError
from pmp_ref.kernels.cuda.direct import Axis, Direct, Problem, correlation, matrix_cost, preferred, switching
from pmp_ref.kernels.cuda.source import ENTRIES, REALS, ceil, empty, kernel, launch
from pmp_ref.kernels.cuda.tiles import Tiles, tiles
from pmp_ref.layers import Convolution, Dense
from pmp_ref.layers.windows import Windows

APPLY, STATE, KERNEL = "APPLY", "STATE", "KERNEL"  # A(x, k), A(·, k)*p and A(x, ·)*p


class Matrices(NamedTuple):
    """A product as C[m, n] = Σ_k A(m, k) B(k, n), as in ``products.cu``."""

    m: int
    n: int
    k: int
    groups: int
    a_along_k: bool  # neighbours in memory are neighbours along k
    b_along_k: bool


@dataclass(frozen=True)
class Affine:
    """A convolution or dense stage for states of per-sample shape ``entering``: its products as matrices."""

    stage: Convolution | Dense
    entering: tuple[int, ...]

    @property
    def leaving(self) -> tuple[int, ...]:
        """Per-sample shape of the states leaving."""
        return tuple(self.stage.output_shape(self.entering))

    @property
    def channels(self) -> int:
        """Output channels or neurons."""
        return self.leaving[0]

    @property
    def taps(self) -> int:
        """Entries of the kernel for one output channel."""
        return math.prod(self.stage.control_shapes(self.entering)[0][1:])

    def matrices(self, which: str, batch: int, bias: bool) -> Matrices:
        """The product ``which`` of a batch; ``bias``: with KERNEL, one more column, of ones."""
        if isinstance(self.stage, Dense):
            return {
                APPLY: Matrices(batch, self.channels, self.taps, 1, True, True),
                STATE: Matrices(batch, self.taps, self.channels, 1, True, False),
                KERNEL: Matrices(self.channels, self.taps + bias, batch, 1, False, False),
            }[which]
        groups, positions = self.stage.groups, batch * math.prod(self.leaving[1:])
        inputs, outputs = self.entering[0] // groups, self.channels // groups
        return {
            APPLY: Matrices(outputs, positions, self.taps, groups, True, False),
            STATE: Matrices(
                inputs, batch * math.prod(self.entering[1:]), outputs * self.taps // inputs, groups, True, False
            ),
            KERNEL: Matrices(outputs, self.taps + bias, positions, groups, True, True),
        }[which]

    def defines(self) -> dict[str, int]:
        """Macros of the source."""
        if isinstance(self.stage, Dense):
            return {"NEURONS": self.channels, "INPUTS": self.taps, "GROUPS": 1}
        w = self.stage.windows
        made = {"GROUPS": self.stage.groups, "IN_CHANNELS": self.entering[0], "OUT_CHANNELS": self.channels}
        for i, axis in enumerate(("ROW", "COLUMN")):
            made |= {
                f"IN_{axis}S": self.entering[1 + i],
                f"OUT_{axis}S": self.leaving[1 + i],
                f"KERNEL_{axis}S": w.size[i],
                f"{axis}_STRIDE": w.stride[i],
                f"{axis}_PADDING": w.padding[i],
                f"{axis}_DILATION": w.dilation[i],
            }
        return made

    def result(self, which: str, batch: int, bias: bool) -> tuple[int, int]:
        """Entries of the result and, after them in a partial sum, of the sums with the column of ones."""
        if which == KERNEL:
            return self.channels * self.taps, self.channels * bias
        return batch * math.prod(self.leaving if which == APPLY else self.entering), 0

    def tiles(self, which: str, batch: int, bias: bool, itemsize: int) -> Tiles:
        """The blocks of the product."""
        return tiles(*self.matrices(which, batch, bias), itemsize=itemsize, gradient=which == KERNEL)

    def direct(self, which: str, batch: int, itemsize: int) -> Direct | None:
        """The blocks of the product straight from images; None if it is made as a product of matrices."""
        if isinstance(self.stage, Dense):
            return None
        problem = self.problem(which)
        found = switching(problem, batch, itemsize) if which == KERNEL else correlation(problem, batch, itemsize)
        t, (entries, _) = self.tiles(which, batch, False, itemsize), self.result(which, batch, False)
        matrix = matrix_cost(t, problem.groups, entries, itemsize)
        return found if found is not None and preferred(found, matrix) else None

    def problem(self, which: str) -> Problem:
        """The product of a convolution as a correlation."""
        groups, m, k = self.stage.groups, self.channels, self.entering[0]  # type: ignore[union-attr]
        m, k = (k, m) if which == STATE else (m, k)
        return Problem(m // groups, k // groups, groups, self.axis(0, which), self.axis(1, which), which == STATE)

    def axis(self, i: int, which: str) -> Axis:
        """Its rows (0) or columns (1)."""
        w: Windows = self.stage.windows  # type: ignore[union-attr]
        start, end = self.entering[1 + i], self.leaving[1 + i]
        size, stride, padding, dilation = w.size[i], w.stride[i], w.padding[i], w.dilation[i]
        if which == STATE:
            return Axis(end, start, size, 1, stride, dilation, dilation * (size - 1) - padding)
        return Axis(start, end, size, stride, 1, dilation, padding)

    def workspace(self, which: str, batch: int, itemsize: int) -> int:
        """Entries of the partial sums that a batch needs."""
        direct = self.direct(which, batch, itemsize)
        splits = (direct or self.tiles(which, batch, self.stage.bias, itemsize)).splits
        return splits * sum(self.result(which, batch, self.stage.bias)) if splits > 1 else 0


@dataclass(frozen=True)
class Product:
    """A product of a batch, ready to run."""

    multiply: Any  # kernels
    add: Any
    tiles: Tiles
    batch: int
    groups: int
    entries: tuple[int, int]  # of the result, of the sums with the column of ones

    def __call__(self, a: Array, b: Array, bias: Array | None, out: Array, ones: Array | None = None) -> None:
        """Write A B into ``out``, plus ``bias``, and the sums with the column of ones into ``ones``.

        Arrays that the product does not have are not read or written; any pointer stands in for them.
        """
        t, (first, more) = self.tiles, self.entries
        bias, ones = out if bias is None else bias, out if ones is None else ones
        target = empty((t.splits, first + more), out) if t.splits > 1 else out
        blocks = t.m_tiles * t.n_tiles * self.groups * t.splits
        launch(
            self.multiply,
            blocks,
            t.threads,
            a,
            b,
            bias,
            target,
            ones,
            self.batch,
            t.chunk,
            t.m_tiles,
            t.n_tiles,
            wide(first + more),
        )
        if t.splits > 1:
            add_partials(self.add, t.splits, target, bias, out, ones, self.entries)


@dataclass(frozen=True)
class DirectProduct:
    """A product of a batch straight from images, ready to run; called as a :class:`Product`."""

    multiply: Any  # kernels
    add: Any
    direct: Direct
    which: str
    batch: int
    entries: tuple[int, int]

    def __call__(self, a: Array, b: Array, bias: Array | None, out: Array, ones: Array | None = None) -> None:
        d, (first, more) = self.direct, self.entries
        if self.which != KERNEL:
            launch(self.multiply, d.blocks, d.threads, a, b, out if bias is None else bias, out, self.batch)
            return
        ones = out if ones is None else ones
        target = empty((d.splits, first + more), out) if d.splits > 1 else out
        launch(self.multiply, d.blocks, d.threads, a, b, target, ones, self.batch, d.units, d.chunk, wide(first + more))
        if d.splits > 1:
            add_partials(self.add, d.splits, target, out, out, ones, (first, more))


def add_partials(
    add: Any, splits: int, partials: Array, bias: Array, out: Array, ones: Array, entries: tuple[int, int]
) -> None:
    """The second launch: write the sums of the partial sums into ``out`` and, after the first entries, ``ones``."""
    first, more = entries
    threads = 32 * rows_adding(splits)
    launch(add, ceil(first + more, 32), threads, partials, bias, out, ones, first + more, first, splits)


@lru_cache(maxsize=4096)
def product(affine: Affine, which: str, batch: int, dtype: str, bias: bool) -> Product | DirectProduct:
    """The product ``which`` with its kernels compiled for the shapes; the batch is an argument of the kernel."""
    itemsize, real = (8 if dtype == "float64" else 4), REALS[dtype]
    matrices, entries = affine.matrices(which, batch, bias), affine.result(which, batch, bias)
    if max(matrices[:3]) > ENTRIES:
        raise InputError(f"a batch of {batch} samples makes matrices of {matrices[:3]} rows; use smaller chunks")
    called = f"{'dense' if isinstance(affine.stage, Dense) else 'convolution'}_{which.lower()}"
    direct = affine.direct(which, batch, itemsize)
    if direct is not None:
        name, split = "switching" if which == KERNEL else "correlation", int(direct.splits > 1)
        multiply = kernel(f"images {name}", name, called, REAL=real, BIAS=int(bias), SPLIT=split, **dict(direct.macros))
        add = partial_sums(real, real, direct.splits, False) if split else None
        return DirectProduct(multiply, add, direct, which, batch, entries)
    t = affine.tiles(which, batch, bias, itemsize)
    defines = {**affine.defines(), **t.defines(matrices.a_along_k, matrices.b_along_k), "BIAS": int(bias)}
    multiply = kernel("products", "product", called, REAL=real, **{called.upper(): 1}, **defines)
    add = None
    if t.splits > 1:
        inner = math.prod(affine.leaving[1:])
        add = partial_sums(real, real, t.splits, which == APPLY and bias, affine.channels, inner)
    return Product(multiply, add, t, batch, matrices.groups, entries)


def compile_ahead(layers: Sequence[tuple[Affine, bool]], batches: Iterable[int], dtype: str) -> None:
    """Compile the products of all layers, (affine, whether a costate leaves it), side by side: each takes a second or
    so the first time, and a network has dozens."""
    jobs = dict.fromkeys(  # each once
        (affine, which, batch, dtype, affine.stage.bias and which != STATE)
        for batch in batches
        for affine, inner in layers
        for which in (APPLY, KERNEL, *([STATE] if inner else []))
    )
    device = cupy().cuda.Device()

    def work(job: tuple[Affine, str, int, str, bool]) -> None:
        with device:
            product(*job)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, jobs))


def partial_sums(partial: str, real: str, splits: int, bias: bool, channels: int = 1, inner: int = 1) -> Any:
    """The kernel that adds ``splits`` partial sums, numbers of type ``partial``, and a bias."""
    return kernel(
        "partials",
        "sum_partials",
        PARTIAL=partial,
        REAL=real,
        ROWS=rows_adding(splits),
        BIAS=int(bias),
        CHANNELS=channels,
        INNER=inner,
    )


def rows_adding(splits: int) -> int:
    """Threads that share the partial sums of one entry: at least eight each where there are many."""
    return 4 if splits <= 32 else 32


def wide(n: int) -> Any:
    """An integer of 64 bits, as the kernel takes it."""
    return np.uint64(n)
