"""A network put together operation by operation, from the graph of another program.

A value of that graph is a state seen through an index: its entry j is the entry ``index[j]`` of the state, flattened.
A transposition or a reshape changes the index and makes no stage; the stage that reads the value takes the index into
its weights. So networks whose channels come last, or are flattened in another order, need no stages of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from pmp_ref.compact.description import check_size
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    ScaleShift,
    Sigmoid,
    SiLU,
    Stage,
    Standardise,
    WeightedSum,
)
from pmp_ref.model import Model, behind_pixels
from pmp_ref.network import Network

LARGEST = 2**24  # entries of a state of one image: its index takes four bytes for each
TOGETHER = 2**27  # entries of all states of one image, and of all weights: a file may name one array many times
MOST = 10_000  # stages
NONE = (0, 0, 0, 0)
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """factor · x_state[index], with ``pads`` zeros around it (top, left, bottom, right); shapes without the batch."""

    state: int
    index: np.ndarray
    factor: float = 1.0
    pads: tuple[int, int, int, int] = NONE

    @property
    def shape(self) -> Shape:
        """Per-sample shape of the value."""
        if not any(self.pads):
            return self.index.shape
        (channels, rows, columns), (top, left, bottom, right) = self.index.shape, self.pads
        return channels, rows + top + bottom, columns + left + right

    def transposed(self, axes: Sequence[int]) -> Value:
        """The value with its axes, counted without the batch, in this order."""
        return replace(self.unpadded(), index=self.index.transpose(axes))

    def reshaped(self, shape: Sequence[int]) -> Value:
        """The value in another shape; one of its lengths may be −1."""
        known = prod(n for n in shape if n != -1)
        if sum(n == -1 for n in shape) > 1 or min(shape, default=1) < -1 or (known == 0 and self.index.size):
            raise InputError(f"it makes the shape {tuple(shape)} of {self.shape}")
        if (self.index.size % known if -1 in shape else self.index.size != known) != 0:
            raise InputError(
                f"it makes {tuple(shape)} of {self.shape} in each sample; a sample must keep its own entries"
            )
        return replace(self.unpadded(), index=self.index.reshape(tuple(shape)))

    def unpadded(self) -> Value:
        """Itself; InputError if zeros stand around it, which only a convolution or a mean takes up."""
        if any(self.pads):
            raise InputError("it reads padded values; padding is taken by convolutions and means only")
        return self


class Assembly:
    """Stages, what they read and their controls, so far."""

    def __init__(self, input_shape: Shape) -> None:
        self.stages: list[Stage] = []
        self.reads: list[tuple[int, ...]] = []
        self.controls: list[tuple[np.ndarray, ...]] = []
        self.shapes: list[Shape] = [input_shape]
        self.sizes = [prod(input_shape), 0]  # entries of states and of controls
        self.shifts: set[int] = set()  # stages that only add a constant, for whom the stage before may have a bias

    def value(self, state: int) -> Value:
        """A state as it is."""
        shape = self.shapes[state]
        return Value(state, np.arange(prod(shape), dtype=np.int32).reshape(shape))

    def add(self, stage: Stage, controls: Sequence[np.ndarray], *states: int) -> Value:
        """The state that leaves the stage. Raises InputError where shapes do not fit or are very large."""
        if len(self.stages) >= MOST:
            raise InputError(f"it is one of more than {MOST} stages")
        shapes = tuple(self.shapes[i] for i in states)
        shape = stage.output_shape(shapes if stage.arity > 1 else shapes[0])
        if prod(shape) > LARGEST:
            raise InputError(f"it makes states of shape {shape}; expected at most {LARGEST} numbers for one image")
        self.sizes = [self.sizes[0] + prod(shape), self.sizes[1] + sum(a.size for a in controls)]
        if max(self.sizes) > TOGETHER:
            raise InputError(f"states or weights have more than {TOGETHER} entries with it; expected a smaller network")
        expected = stage.control_shapes(shapes[0])
        if tuple(a.shape for a in controls) != expected:
            given = " and ".join(str(a.shape) for a in controls)
            raise InputError(f"its weights have the shapes {given}; expected {expected} for states of {shapes[0]}")
        self.stages.append(stage)
        self.reads.append(states)
        self.controls.append(tuple(np.ascontiguousarray(a) for a in controls))
        self.shapes.append(shape)
        return self.value(len(self.stages))

    def plain(self, x: Value) -> Value:
        """The value without a factor, which becomes a ``ScaleShift``."""
        x.unpadded()
        if x.factor == 1:
            return x
        kernel = np.full(self.shapes[x.state][:1], x.factor, self.dtype())
        scaled = self.add(ScaleShift(bias=False), [kernel], x.state)
        return replace(scaled, index=x.index)

    def natural(self, x: Value) -> int:
        """The state of which the value is all entries, in their own shape and order; InputError if it is not."""
        x = self.plain(x)
        shape = self.shapes[x.state]
        if x.shape != shape or not np.array_equal(x.index, self.value(x.state).index):
            raise InputError(
                f"it reads values of shape {x.shape}, made of a state of shape {shape} by transposing or reshaping; "
                "expected images as they leave the stage before, channels first"
            )
        return x.state

    def vector(self, x: Value) -> Value:
        """A value of shape (n,) over a state that is a vector, too."""
        x = self.plain(x)
        if len(x.shape) != 1:
            raise InputError(f"it reads values of shape {x.shape}; expected a vector for each sample")
        if len(self.shapes[x.state]) == 1:
            return x
        return replace(self.add(Flatten(), (), x.state), index=x.index)

    def dtype(self) -> Any:
        """Of the weights so far."""
        return next((a.dtype for u in self.controls for a in u), np.dtype(np.float32))

    # Operations

    def convolution(
        self,
        x: Value,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        stride: Sequence[int],
        pads: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Value:
        """Σ k·x + β over windows; ``pads`` as in :class:`Value`. Padding that is not the same at both ends is made so
        by zeros at one end of the kernel, which reach over what was not padded: the outputs are the same."""
        if kernel.ndim != 4 or not len(stride) == len(dilation) == 2 or len(pads) != 4:
            raise InputError(f"its kernel has the shape {kernel.shape}; expected a convolution of images, four axes")
        before, after = ([a + b for a, b in zip(x.pads[i : i + 2], pads[i : i + 2], strict=True)] for i in (0, 2))
        if min(*before, *after) < 0 or max(*before, *after, *kernel.shape[2:], *dilation) > LARGEST:
            raise InputError(f"its padding is {(*before, *after)}; expected numbers from 0 on")
        padding = rows, columns = max(before[0], after[0]), max(before[1], after[1])
        grown = [(0, 0), (0, 0)]
        for a, b, p, d in zip(before, after, padding, dilation, strict=True):
            if (p - a) % d or (p - b) % d:
                raise InputError(f"its padding is {a} before and {b} behind, which a dilation of {d} does not divide")
            grown.append(((p - a) // d, (p - b) // d))
        if prod(n + sum(g) for n, g in zip(kernel.shape, grown, strict=True)) > max(LARGEST, kernel.size):
            raise InputError(f"its padding is {(*before, *after)}, too far from the same at both ends")
        kernel = np.pad(kernel, grown)
        size = (kernel.shape[2], kernel.shape[3])
        stage = Convolution(
            kernel.shape[0],
            size,
            (stride[0], stride[1]),
            (rows, columns),
            (dilation[0], dilation[1]),
            groups,
            bias is not None,
        )
        state = self.natural(replace(x, pads=NONE))
        return self.add(stage, [kernel] if bias is None else [kernel, bias], state)

    def dense(self, x: Value, kernel: np.ndarray, bias: np.ndarray | None) -> Value:
        """x Kᵀ + β with the kernel (neurons, n); its columns follow the order of the state."""
        x = self.vector(x)
        if kernel.ndim != 2 or kernel.shape[1] != x.index.size:
            raise InputError(f"its weights have the shape {kernel.shape}; expected (neurons, {x.index.size})")
        columns = np.empty_like(kernel)
        columns[:, x.index] = kernel
        return self.add(
            Dense(kernel.shape[0], bias is not None), [columns] if bias is None else [columns, bias], x.state
        )

    def by_channel(self, x: Value, a: np.ndarray) -> np.ndarray:
        """A constant that broadcasts to the value, as one number for each channel of the state."""
        shape = self.shapes[x.state]
        if a.dtype.kind != "f":
            raise InputError(f"its constant is {a.dtype}; expected floats")
        try:
            wide = np.broadcast_to(a, x.shape)
        except ValueError:
            raise InputError(f"its constant of shape {a.shape} does not fit values of shape {x.shape}") from None
        full = np.empty(prod(shape), a.dtype)
        full[x.index] = wide
        rows = full.reshape(shape[0], -1)
        if not np.array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape), equal_nan=True):
            raise InputError("its constant changes within a channel; expected one number for each channel")
        return rows[:, 0]

    def scaled(self, x: Value, a: np.ndarray) -> Value:
        """a ⊙ x; a single number stays a factor, which a sum takes as its weight."""
        if a.size == 1 and a.dtype.kind == "f":
            return replace(x.unpadded(), factor=x.factor * float(a.reshape(())))
        x = self.plain(x)
        return replace(self.add(ScaleShift(bias=False), [self.by_channel(x, a)], x.state), index=x.index)

    def shifted(self, x: Value, b: np.ndarray) -> Value:
        """x + b."""
        x = self.plain(x)
        shift = self.by_channel(x, b)
        self.shifts.add(len(self.stages))
        return replace(self.add(ScaleShift(), [np.ones_like(shift), shift], x.state), index=x.index)

    def scale_shift(self, x: Value, a: np.ndarray, b: np.ndarray) -> Value:
        """a ⊙ x + b, by channel of the value (its first axis)."""
        x = self.plain(x)
        along = (-1, *(1,) * (len(x.shape) - 1))
        pair = [self.by_channel(x, c.reshape(along)) for c in (a, b)]
        return replace(self.add(ScaleShift(), pair, x.state), index=x.index)

    def batch_norm(self, x: Value, scale: Any, shift: Any, mean: np.ndarray, var: np.ndarray, eps: float) -> Value:
        """γ(x − μ)/√(σ² + ε) + β as scale and shift, computed in float64 and rounded once."""
        gamma = 1.0 if scale is None else scale.astype(np.float64)
        beta = 0.0 if shift is None else shift.astype(np.float64)
        a = gamma / np.sqrt(var.astype(np.float64) + eps)
        return self.scale_shift(x, a.astype(var.dtype), (beta - mean.astype(np.float64) * a).astype(var.dtype))

    def standardised(self, x: Value, eps: float) -> Value:
        """Zero mean and unit variance over each group, the first axis of the value."""
        x = self.plain(x)
        shape, groups = self.shapes[x.state], x.shape[0]
        own = np.arange(x.index.size).reshape(groups, -1)
        if shape[0] % groups or not np.array_equal(np.sort(x.index.reshape(groups, -1), axis=1), own):
            raise InputError(f"its groups, {groups} of {x.shape}, are not groups of the channels of {shape}")
        return replace(self.add(Standardise(groups, float(eps)), (), x.state), index=x.index)

    def apply(self, stage: Stage, x: Value) -> Value:
        """An activation, entry by entry."""
        x = self.plain(x)
        return replace(self.add(stage, (), x.state), index=x.index)

    def pooled(
        self, kind: Any, x: Value, size: Sequence[int], stride: Sequence[int], pads: Any, ceil: bool, **more: Any
    ) -> Value:
        """Average or maximum over windows; ``pads`` as in :class:`Value`. A mean takes up zeros around the value."""
        if kind is AveragePool and not any(pads):
            x, pads, more = replace(x, pads=NONE), x.pads, {"count_include_pad": True} if any(x.pads) else more
        before, after = tuple(pads[:2]), tuple(pads[2:])
        if before != after:
            raise InputError(f"its padding is {before} before and {after} behind; expected the same at both ends")
        state = self.natural(x)
        stage = kind(tuple(size), tuple(stride), before, **more)
        need = zip(self.shapes[state][1:], size, stride, before, strict=True)
        if ceil and any((n + 2 * p - k) % s for n, k, s, p in need):
            raise InputError("ceil_mode makes a window reach over the edge there; expected ceil_mode 0")
        return self.add(stage, (), state)

    def mean(self, x: Value, axes: Sequence[int], keep: bool) -> Value:
        """The mean over axes of the value, which must be all pixels of each channel."""
        x = self.plain(x)
        shape, pixels = self.shapes[x.state], prod(self.shapes[x.state][1:])
        axes = tuple(sorted({a % len(x.shape) for a in axes}))
        channel = x.index // pixels
        first = channel[tuple(slice(0, 1) if a in axes else slice(None) for a in range(channel.ndim))]
        if len(shape) != 3 or first.size != shape[0] or not np.array_equal(channel, np.broadcast_to(first, x.shape)):
            raise InputError(
                f"it is the mean of {x.shape} over the axes {axes}; expected that of all pixels by channel"
            )
        index = first if keep else first.reshape([n for a, n in enumerate(x.shape) if a not in axes])
        return replace(self.add(GlobalAveragePool(), (), x.state), index=index)

    def sum(self, values: Sequence[Value]) -> Value:
        """Σ of values, each with its factor."""
        for x in values:
            x.unpadded()
        first = values[0]
        if len(values) == 1:
            return first
        same = (
            self.shapes[x.state] == self.shapes[first.state] and np.array_equal(x.index, first.index) for x in values
        )
        if not all(same):
            shapes = " and ".join(str(x.shape) for x in values)
            raise InputError(f"it adds values of shapes {shapes}; expected equal shapes, entries in the same order")
        stage = WeightedSum(tuple(x.factor for x in values))
        return replace(self.add(stage, (), *(x.state for x in values)), index=first.index)

    def product(self, x: Value, y: Value) -> Value:
        """x ⊙ s(x), the one product of values that is a stage."""
        for a, b in ((x, y), (y, x)):
            sigmoid = (
                b.state > 0 and type(self.stages[b.state - 1]) is Sigmoid and self.reads[b.state - 1] == (a.state,)
            )
            if sigmoid and a.factor == b.factor == 1 and np.array_equal(a.index, b.index):
                return self.apply(SiLU(), a)
        raise InputError(
            "it multiplies values with each other; expected x times the sigmoid of x (SiLU), or a constant"
        )

    # The end

    def model(self, output: Value, takes_bytes: bool, names: Any, mean: Any = (), std: Any = ()) -> Model:
        """The stages that lead to ``output``, a vector for each sample, as a model."""
        output = self.vector(output)
        if output.state == 0:
            raise InputError("the output is the input: there is no stage between")
        if not np.array_equal(output.index, np.arange(output.index.size)):
            raise InputError("the output is a permutation of a state; expected its own order")
        end = self._merge_shifts(output.state)
        if takes_bytes:
            if mean or std:
                raise InputError("the network takes bytes, uint8, so it has its own mean and std: leave them out")
            mean, std, end = self._head(end)
        order = self._needed(end)
        place = {0: 0} | {l + 1: k + 1 for k, l in enumerate(order)}
        network = Network(
            [self.stages[l] for l in order],
            self.shapes[0],
            [tuple(place[i] for i in self.reads[l]) for l in order],
        )
        for l in range(len(network.stages)):
            check_size(network, l)
        model = Model(network, tuple(self.controls[l] for l in order), names)
        return behind_pixels(model, mean, std) if mean or std else model

    def _needed(self, end: int) -> list[int]:
        """The stages that lead to the state ``end``, in order."""
        wanted = {end}
        for l in range(end - 1, -1, -1):
            if l + 1 in wanted:
                wanted.update(self.reads[l])
        return [i - 1 for i in sorted(wanted) if i > 0]

    def _merge_shifts(self, end: int) -> int:
        """x + b behind a stage without a bias that nobody else reads becomes its bias. Returns the end then."""
        needed = self._needed(end)
        readers: dict[int, int] = {}
        for l in needed:
            for i in self.reads[l]:
                readers[i] = readers.get(i, 0) + 1
        moved: dict[int, int] = {}
        for l in needed:
            self.reads[l] = tuple(moved.get(i, i) for i in self.reads[l])
            before = self.reads[l][0] - 1
            if l not in self.shifts or before < 0 or readers[before + 1] != 1:
                continue
            stage = self.stages[before]
            if isinstance(stage, Convolution | Dense | ScaleShift) and not stage.bias:
                self.stages[before] = replace(stage, bias=True)
                self.controls[before] = (self.controls[before][0], self.controls[l][1])
                moved[l + 1] = before + 1
        return moved.get(end, end)

    def _head(self, end: int) -> tuple[tuple[float, ...], tuple[float, ...], int]:
        """Mean and deviation of (x/255 − mean)/std, and the end. A scale and shift that is the one reader of the bytes
        says them, and goes; else they are 0 and 1/255, so that the network gets the bytes as numbers."""
        first = [l for l in self._needed(end) if 0 in self.reads[l]]
        l, channels = first[0], self.shapes[0][0]
        stage = self.stages[l]
        scale = self.controls[l][0].astype(np.float64) if isinstance(stage, ScaleShift) else np.zeros(1)
        if len(first) > 1 or not np.all(scale > 0) or end == l + 1:
            return (0.0,) * channels, (1 / 255,) * channels, end
        assert isinstance(stage, ScaleShift)
        shift = self.controls[l][1].astype(np.float64) if stage.bias else np.zeros(channels)
        self.reads = [tuple(0 if i == l + 1 else i for i in states) for states in self.reads]
        return tuple((-shift / (255 * scale)).tolist()), tuple((1 / (255 * scale)).tolist()), end
