"""Metrics ‖Δ‖²_D = Σ d_i Δ_i² in K_ε, in the test, in τ and in Ĉ alike (T17).

Without a metric one ε must do for all entries, and the layer in which the loss is steepest decides it: everywhere else
steps are shorter than they need be. A metric lets an entry pay for moving by its own d_i. Descent needs nothing of it,
since the test asks J itself; but the same norm must stand in all four places, or the inequality that makes a large ε
safe (T6) compares two lengths that are not the same.

A metric may change between iterates, never between the rejections of one iterate, which belong to one line search. It
is scaled to mean(d) = 1 over all entries and clipped to [d_min, d_max] before that, so the Ĉ of successive metrics stay
comparable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from pmp_ref.arrays import Array, Controls, as_floats, clip, fused, namespace
from pmp_ref.averaging import corrected, running
from pmp_ref.controls import arrays_of, entry_sums, entrywise, in_blocks, layout_of, map_controls
from pmp_ref.errors import InputError


class Metric(ABC):
    """How the weights d follow the switching functions."""

    # memory and d have an entry for each of g; no control, and beside sums of all entries no other entry, plays a part
    entrywise: bool = False

    @abstractmethod
    def update(self, memory: Controls | None, count: int, g: Controls) -> tuple[Controls | None, Controls | None]:
        """(memory, d) for an iterate with switching functions g; ``count`` iterates came before. d None: identity."""


@dataclass(frozen=True)
class IdentityMetric(Metric):
    """d = 1."""

    entrywise = True

    def update(self, memory: Controls | None, count: int, g: Controls) -> tuple[Controls | None, Controls | None]:
        return None, None


@dataclass(frozen=True)
class _Scaled(Metric):
    """d from m, the running mean of squared switching functions with factor ``beta``, corrected for its start at 0."""

    beta: float = 0.99
    floor: float = 1e-3  # d before scaling is at least floor times its mean, so that no entry moves without bound
    ceiling: float = 1e3

    def __post_init__(self) -> None:
        as_floats(self, "beta", "floor", "ceiling")
        if not (0 <= self.beta < 1 and 0 < self.floor <= 1 <= self.ceiling):
            raise InputError(
                f"metric with beta {self.beta}, floor {self.floor}, ceiling {self.ceiling}; expected "
                "0 ≤ beta < 1 and 0 < floor ≤ 1 ≤ ceiling"
            )

    def update(self, memory: Controls | None, count: int, g: Controls) -> tuple[Controls | None, Controls | None]:
        layout = layout_of(g)
        size = sum(prod(b.shape) for b in arrays_of(g)) if layout is None else layout.size

        def root(g: Any, memory: Any) -> Any:
            squares = entrywise(self.square, g) if self.entrywise else map_controls(self.square, g)
            if memory is None:
                memory = entrywise(lambda s: (1 - self.beta) * s, squares)
            else:
                memory = entrywise(lambda m, s: fused(running, m, s, beta=self.beta), memory, squares)
            d = entrywise(lambda m: fused(_root, m, count + 1, beta=self.beta), memory)
            return (memory, d), [each_entry(d, g)]

        def clipped(total: Array, g: Any, d: Any) -> Any:
            d = entrywise(lambda a: fused(self._clipped, a, total, size=size), d)
            return (d,), [each_entry(d, g)]

        def scaled(total: Array, d: Any) -> Any:
            return (entrywise(lambda a: fused(_quotient, a, total, size=size), d),), ()

        (memory, d), terms = in_blocks(root, g, memory)
        (d,), terms = in_blocks(partial(clipped, entry_sums(terms, g)[0]), g, d)
        (d,), _ = in_blocks(partial(scaled, entry_sums(terms, g)[0]), d)
        return memory, d

    @abstractmethod
    def square(self, g: Array) -> Array:
        """What is averaged."""

    def _clipped(self, d: Array, total: Array, size: int) -> Array:
        """d clipped to [floor, ceiling]·total/size; ones where every switching function is 0."""
        xp = namespace(d)
        unit = xp.astype(total / size, d.dtype)
        least = xp.where(unit > 0, self.floor * unit, 1.0)
        most = xp.where(unit > 0, self.ceiling * unit, 1.0)
        return clip(d, least, most)


def each_entry(d: Controls, g: Controls) -> Iterable[Array]:
    """d of each entry, as arrays in the shapes of g: d may be constant on a control."""

    def one(d: Array, g: Array) -> Array:
        return d if d.shape == g.shape else namespace(d).broadcast_to(d, g.shape)

    return arrays_of(map_controls(one, d, g))


def _root(m: Array, count: Any, beta: float) -> Array:
    """√(m/(1 − βⁿ)), the running mean of n = ``count`` terms corrected for its start at 0."""
    return namespace(m).sqrt(corrected(m, count, beta))


def _quotient(d: Array, total: Array, size: int) -> Array:
    """d divided by total/size, in the dtype of d."""
    return d / namespace(d).astype(total / size, d.dtype)


@dataclass(frozen=True)
class LayerMetric(_Scaled):
    """One d for each control: the root mean square of its switching function."""

    def square(self, g: Array) -> Array:
        return namespace(g).mean(g * g)


@dataclass(frozen=True)
class GradientMetric(_Scaled):
    """d_i = √(running mean of g_i²): an entry with small switching functions takes longer steps and meets a higher
    L0 threshold √(ρ/(ε d_i))."""

    entrywise = True

    def square(self, g: Array) -> Array:
        return g * g


METRICS = {"identity": IdentityMetric, "layer": LayerMetric, "gradient": GradientMetric}
