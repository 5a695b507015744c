"""Running a network fast, kernels as sparse matrices where that is faster by measurement.

A dense stage is y = K x + β with K in compressed rows (CSR): each nonzero weight stored once with its column. A
convolution is the same over unfolded patches: a column of K is one tap of one channel, and columns without a nonzero
weight are not unfolded. Inside, states have the batch last, (C, H, W, B), so that each weight meets a run of
neighbours in memory; samples come and go with the batch first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from pmp_ref.arrays import Array, Controls
from pmp_ref.compact.fold import channels_read
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Pixels,
    ScaleShift,
    Standardise,
    WeightedSum,
)
from pmp_ref.layers.windows import Windows
from pmp_ref.network import Network, states_like

FORMS = ("dense", "sparse")
GAIN = 0.95  # the sparse form is taken if its time is below this part of the dense one; nearer is a draw
SECONDS = 0.002  # least time of one measurement: far above the resolution of the clock, below a slice of the scheduler
ROUNDS = 30  # measurements of each side, taken in turns; the least is what no other process disturbed
CHUNK = 32  # samples at a time: the unfolded patches of a small image stay in the cache

Step = Callable[[Any], Any]


def forms_of(network: Network) -> tuple[str, ...]:
    """The form "dense" for each dense and convolutional stage, "" for others: what ``runner`` takes, all dense."""
    return tuple("dense" if type(s) in (Dense, Convolution) else "" for s in network.stages)


def runner(network: Network, controls: Controls, forms: tuple[str, ...] | None = None, chunk: int = CHUNK) -> Step:
    """The map x ↦ x_L of a NumPy batch (B, …), each stage in its form ("dense", "sparse"; "" where there is no choice).

    A network that begins with Pixels takes images as they are, bytes, others floats; InputError for the other kind. A
    batch of no samples gives no final states: an empty array of the shape (0, …) and dtype that one of zeros has.
    Stages of other packages run as they are. Raises InputError for forms that do not fit the stages.
    """
    forms = forms_of(network) if forms is None else tuple(forms)
    allowed = [FORMS if f else ("",) for f in forms_of(network)]
    if len(forms) != len(allowed) or not all(f in a for f, a in zip(forms, allowed, strict=True)):
        raise InputError(
            f"forms are {forms}; expected one for each stage: dense or sparse for dense and convolutional "
            "stages, empty for others"
        )
    steps = [stage_step(network, controls, l, form) for l, form in enumerate(forms)]

    def through(x: Array) -> Array:
        x = x.astype(states_like(controls, x).dtype, copy=False)  # bytes become numbers
        return network.propagate(lambda l, entering: steps[l](entering), x, keep=False)[-1]

    def run(x: Array) -> Array:
        network.check_dtype(x)
        if len(x) == 0:
            return run(np.zeros((1, *x.shape[1:]), x.dtype))[:0]
        return np.concatenate([batch_first(through(batch_last(x[i : i + chunk]))) for i in range(0, len(x), chunk)])

    return run


def batch_last(x: Array) -> Array:
    """(B, …) → (…, B), contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, 0, -1))


def batch_first(x: Array) -> Array:
    """(…, B) → (B, …), contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


def stage_step(network: Network, controls: Controls, l: int, form: str) -> Step:
    """Stage l as a function of what enters it, with the batch last."""
    stage, u, shape = network.stages[l], controls[l], network.entering(l, network.shapes)
    if isinstance(stage, Activation):
        return stage.sigma
    kinds: dict[type, Callable[[], Step]] = {
        Dense: lambda: _dense(stage, u, form),
        Convolution: lambda: _convolution(stage, u, form, shape),
        ScaleShift: lambda: _scale(stage, u),
        AveragePool: lambda: _pool(stage, shape),
        MaxPool: lambda: _pool(stage, shape),
        GlobalAveragePool: lambda: lambda x: x.mean(axis=(1, 2)),
        Flatten: lambda: lambda x: x.reshape(-1, x.shape[-1]),
        Standardise: lambda: lambda x: _standardise(stage, x),
        WeightedSum: lambda: lambda x: stage.forward(x, u),
        Pixels: lambda: lambda x: np.moveaxis(stage.forward(np.moveaxis(x, -1, 0), ()), 0, -1),
    }
    if type(stage) in kinds:
        return kinds[type(stage)]()
    if stage.arity > 1:
        return lambda x: batch_last(stage.forward(tuple(map(batch_first, x)), u))
    return lambda x: batch_last(stage.forward(batch_first(x), u))


def _column(b: Array, ndim: int) -> Array:
    return b.reshape(-1, *(1,) * (ndim - 1))


def _dense(stage: Any, u: tuple[Array, ...], form: str) -> Step:
    matrix = sparse.csr_array(u[0]) if form == "sparse" else u[0]
    if not stage.bias:
        return lambda x: matrix @ x
    bias = u[1][:, None]
    return lambda x: matrix @ x + bias


def _scale(stage: Any, u: tuple[Array, ...]) -> Step:
    if not stage.bias:
        return lambda x: _column(u[0], x.ndim) * x
    return lambda x: _column(u[0], x.ndim) * x + _column(u[1], x.ndim)


def _windows(w: Windows, rows: int, columns: int) -> list[list[tuple[slice, slice]]]:
    """For each tap (i, j) the rows and columns of the padded image that it meets."""
    return [
        [
            (
                slice(i * w.dilation[0], i * w.dilation[0] + w.stride[0] * (rows - 1) + 1, w.stride[0]),
                slice(j * w.dilation[1], j * w.dilation[1] + w.stride[1] * (columns - 1) + 1, w.stride[1]),
            )
            for j in range(w.size[1])
        ]
        for i in range(w.size[0])
    ]


def _padded(x: Array, w: Windows, value: float = 0.0) -> Array:
    if w.padding == (0, 0):
        return x
    (top, left), (c, rows, columns, b) = w.padding, x.shape
    z = np.full((c, rows + 2 * top, columns + 2 * left, b), value, x.dtype)
    z[:, top : top + rows, left : left + columns] = x
    return z


def _convolution(stage: Any, u: tuple[Array, ...], form: str, shape: tuple[int, ...]) -> Step:
    k, w = u[0], stage.windows
    outputs, size, kh, kw = k.shape
    rows, columns = w.positions(*shape[1:])
    cuts = _windows(w, rows, columns)

    def biased(y: Array) -> Array:
        y = y.reshape(outputs, rows, columns, -1)
        return y + _column(u[1], 4) if stage.bias else y

    if form == "dense":
        matrix = k.reshape(stage.groups, outputs // stage.groups, size * kh * kw)

        def dense(x: Array) -> Array:
            z = _padded(x, w)
            unfolded = np.empty((shape[0], kh, kw, rows, columns, x.shape[-1]), x.dtype)
            for i, j in np.ndindex(kh, kw):
                unfolded[:, i, j] = z[:, *cuts[i][j]]
            return biased(matrix @ unfolded.reshape(stage.groups, size * kh * kw, -1))

        return dense

    full = np.zeros((outputs, shape[0], kh, kw), k.dtype)  # all input channels, zero outside a group
    full[np.arange(outputs)[:, None], channels_read(stage, k)] = k
    full = full.reshape(outputs, -1)
    used = np.flatnonzero(np.any(full != 0, axis=0))
    thin = sparse.csr_array(full[:, used])
    taken = [(int(c), *cuts[i][j]) for c, i, j in zip(*np.unravel_index(used, (shape[0], kh, kw)), strict=True)]

    def step(x: Array) -> Array:
        z = _padded(x, w)
        unfolded = np.empty((len(taken), rows, columns, x.shape[-1]), x.dtype)
        for row, cut in zip(unfolded, taken, strict=True):
            row[...] = z[cut]
        return biased(thin @ unfolded.reshape(len(taken), rows * columns * x.shape[-1]))

    return step


def _pool(stage: Any, shape: tuple[int, ...]) -> Step:
    w = stage.windows
    cuts = [cut for row in _windows(w, *w.positions(*shape[1:])) for cut in row]
    if type(stage) is MaxPool:

        def largest(x: Array) -> Array:
            x = _padded(x, w, -np.inf)
            y = x[:, *cuts[0]]
            for cut in cuts[1:]:
                y = np.maximum(y, x[:, *cut])
            return y

        return largest

    counted = stage.counted(np.empty((1, *shape)))
    counted = counted if isinstance(counted, int) else counted[0, :, :, :, None]

    def mean(x: Array) -> Array:
        x = _padded(x, w)
        y = x[:, *cuts[0]].copy()
        for cut in cuts[1:]:
            y += x[:, *cut]
        return (y / counted).astype(x.dtype, copy=False)

    return mean


def _standardise(stage: Any, x: Array) -> Array:
    y = x.reshape(stage.groups, -1, x.shape[-1])
    y = y - y.mean(axis=1, keepdims=True)
    return (y / np.sqrt((y * y).mean(axis=1, keepdims=True) + stage.delta)).reshape(x.shape)


@dataclass(frozen=True)
class Timing:
    """Seconds per sample of a dense or convolutional stage in both forms, and the form taken."""

    stage: int
    dense: float
    sparse: float
    form: str


def choose_forms(network: Network, controls: Controls, x: Array) -> tuple[tuple[str, ...], list[Timing]]:
    """The faster form of each stage, measured in turns on the states of the batch ``x``, and what was measured."""
    forms, timings = list(forms_of(network)), []

    def measure(l: int, entering: Any) -> Any:
        step = stage_step(network, controls, l, forms[l])
        if forms[l]:
            thin = stage_step(network, controls, l, "sparse")
            seconds = [t / min(CHUNK, len(x)) for t in paired(lambda: step(entering), lambda: thin(entering))]
            forms[l] = FORMS[seconds[1] < GAIN * seconds[0]]
            timings.append(Timing(l, seconds[0], seconds[1], forms[l]))
        return step(entering)

    few = batch_last(x[:CHUNK])
    network.propagate(measure, few.astype(states_like(controls, few).dtype, copy=False), keep=False)
    return tuple(forms), timings


def paired(*functions: Callable[[], Any]) -> tuple[float, ...]:
    """Least seconds of a call of each function over ``ROUNDS``, measured in turns: a busy moment meets all."""
    repeats = []
    for f in functions:
        f()  # first calls allocate and load
        start = time.perf_counter()
        f()
        repeats.append(max(1, math.ceil(SECONDS / max(time.perf_counter() - start, 1e-9))))
    measured: list[list[float]] = [[] for _ in functions]
    turns = list(zip(functions, repeats, measured, strict=True))
    for _ in range(ROUNDS):
        turns.reverse()
        for f, n, times in turns:
            start = time.perf_counter()
            for _ in range(n):
                f()
            times.append((time.perf_counter() - start) / n)
    return tuple(min(times) for times in measured)
