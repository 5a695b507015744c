"""Which entries of the states do not depend on the input, and bounds of the others.

A state's entry is *known* if it has the same value for every input. Through a stage y = A(x, k) + b an entry of y is
known if every nonzero weight that it uses meets a known entry of x; a dead unit, whose weights are all zero, has the
value b. Entries of the zero padding are no entries of x: they are known, and 0.

Beside this go bounds low ≤ x ≤ high, so that units behind a ReLU are found whose input is never positive. Everything
is computed in float64; a bound may be off by the rounding of its own sum, which is what adding in another order
changes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pixels,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.layers.layer import Shape
from pmp_ref.network import Network

Range = tuple[Any, Any] | None
SILU_LEAST = -0.2784645428  # just below min z s(z)


@dataclass(frozen=True, eq=False)
class Entries:
    """Of a state of one sample, arrays (1, …): where it is known, its value there (else 0), bounds everywhere."""

    known: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def constants(network: Network, controls: Controls, input_range: Range = None) -> list[Entries]:
    """:class:`Entries` of each state x_0, …, x_L.

    ``input_range`` is (low, high), numbers or arrays that broadcast to the input shape, if the inputs are bounded;
    bytes are, by 0 and 255.
    """
    first = _unknown(network.input_shape)
    if input_range is None and network.takes_bytes:
        input_range = 0, 255
    if input_range is not None:
        low, high = (np.broadcast_to(np.asarray(a, float), (1, *network.input_shape)) for a in input_range)
        if not np.all(low <= high):
            raise InputError(f"input_range is {input_range}; expected low ≤ high")
        first = _entries(first.known, first.value, low, high)

    def step(l: int, e: Any) -> Entries:
        return propagate(network.stages[l], controls[l], e, network.shapes[l + 1])

    with np.errstate(invalid="ignore", over="ignore"):
        return network.propagate(step, first)


def propagate(stage: Stage, u: Any, e: Any, leaving: Shape) -> Entries:
    """What is known behind a stage, from what is known of the state that it reads, or a tuple of several; nothing
    behind a stage of another package."""
    if type(stage) is WeightedSum:
        return _weighted_sum(stage, e)
    if type(stage) in (Dense, Convolution, ScaleShift):
        return _affine(stage, u, e)
    if isinstance(stage, Activation):
        never_positive = (e.high <= 0) if isinstance(stage, LeakyReLU) and stage.leak == 0 else False
        value = np.where(e.known, stage.sigma(e.value), 0.0)
        return _entries(e.known | never_positive, value, *_monotone(stage, e.low, e.high))
    if type(stage) in (AveragePool, GlobalAveragePool, Flatten, MaxPool):
        known = stage.forward((~e.known) * 1.0, ()) == 0
        return _entries(known, *(stage.forward(a, ()) for a in (e.value, e.low, e.high)))
    if type(stage) is Standardise:
        return _standardise(stage, e)
    if type(stage) is Pixels:  # an affine map that rises
        return _entries(e.known, *(stage.forward(a, ()) for a in (e.value, e.low, e.high)))
    return _unknown(leaving)


def _entries(known: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Entries:
    """Known entries have themselves as bounds; a bound that became NaN (∞ − ∞) is none."""
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    value = np.where(known, value, 0.0)
    return Entries(known, value, np.where(known, value, low), np.where(known, value, high))


def _unknown(shape: Shape) -> Entries:
    full = np.full((1, *shape), np.inf)
    return Entries(np.zeros(full.shape, bool), np.zeros(full.shape), -full, full)


def _affine(stage: Any, u: Any, e: Entries) -> Entries:
    """Sums of zeros and ones are exact, so counts of unknown or unbounded entries met are, too."""
    k = u[0]
    known = stage.apply((~e.known) * 1.0, (k != 0) * 1.0) == 0
    up, down = np.maximum(k, 0), np.minimum(k, 0)
    shift = stage.forward(np.zeros_like(e.value), u)

    def bound(above: np.ndarray, below: np.ndarray, end: float) -> np.ndarray:
        above_free, below_free = np.isinf(above), np.isinf(below)
        free = stage.apply(above_free * 1.0, (up > 0) * 1.0) + stage.apply(below_free * 1.0, (down < 0) * 1.0) > 0
        total = stage.apply(np.where(above_free, 0, above), up) + stage.apply(np.where(below_free, 0, below), down)
        return np.where(free, end, total + shift)

    return _entries(known, stage.forward(e.value, u), bound(e.low, e.high, -np.inf), bound(e.high, e.low, np.inf))


def _monotone(stage: Activation, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds behind an activation."""
    if isinstance(stage, LeakyReLU) and stage.leak >= 0:
        flat = stage.leak == 0  # 0·(−∞) is NaN
        return tuple(np.where(z > 0, z, 0.0 if flat else stage.leak * z) for z in (low, high))  # type: ignore[return-value]
    if type(stage) in (Tanh, Sigmoid, Softplus):
        return stage.sigma(low), stage.sigma(high)
    if type(stage) is SiLU:
        return np.full_like(low, SILU_LEAST), np.maximum(high, 0)
    return np.full_like(low, -np.inf), np.full_like(high, np.inf)


def _standardise(stage: Standardise, e: Entries) -> Entries:
    """A group is known if all its entries are; |y| ≤ √(entries of a group), since their mean square is below 1."""
    grouped = (~e.known).reshape(1, stage.groups, -1)
    free = np.broadcast_to(grouped.any(axis=2, keepdims=True), grouped.shape).reshape(e.known.shape)
    reach = np.full(e.value.shape, np.sqrt(grouped.shape[2]))
    return _entries(~free, stage.forward(e.value, ()), -reach, reach)


def _weighted_sum(stage: WeightedSum, states: tuple[Entries, ...]) -> Entries:
    ends = [(w * e.low, w * e.high) for w, e in zip(stage.weights, states, strict=True)]
    low, high = (np.sum([end(*pair) for pair in ends], axis=0) for end in (np.minimum, np.maximum))
    known = np.all([e.known for e in states], axis=0)
    return _entries(known, stage.forward(tuple(e.value for e in states), ()), low, high)
