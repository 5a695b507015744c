"""Admissible sets U_l for the entries of a control: the whole line, a box, a finite set.

The maximum principle differentiates nothing in the control, so that a set of three values is as good as the line. A box
is what keeps L0 bounded: a penalty that only counts does not mind how large a weight becomes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, isfinite

from pmp_ref.arrays import Array, as_floats, clip, namespace
from pmp_ref.errors import InputError


class Admissible(ABC):
    """A closed set U ⊂ ℝ; a control is admissible if every entry lies in U."""

    @abstractmethod
    def project(self, w: Array) -> Array:
        """The closest admissible point, entry by entry."""

    @abstractmethod
    def contains(self, w: Array) -> Array:
        """True where an entry lies in U; boolean array of the shape of w."""

    def widened(self, w: Array) -> Array:
        """w in float64. An entry at a bound or value of U as the dtype of w stores it gets that of U itself."""
        return self.project(namespace(w).astype(w, namespace(w).float64))


@dataclass(frozen=True)
class Box(Admissible):
    """U = [lo, hi]; an end may be infinite. Raises InputError unless lo < hi."""

    lo: float = -inf
    hi: float = inf

    def __post_init__(self) -> None:
        as_floats(self, "lo", "hi")
        if not self.lo < self.hi:
            raise InputError(f"box [{self.lo}, {self.hi}] is empty or a point; expected lo < hi")

    @property
    def bounded(self) -> bool:
        """True if both ends are finite."""
        return isfinite(self.lo) and isfinite(self.hi)

    def project(self, w: Array) -> Array:
        return w if self == WHOLE_LINE else clip(w, self.lo, self.hi)

    def contains(self, w: Array) -> Array:
        return (w >= self.lo) & (w <= self.hi)

    def widened(self, w: Array) -> Array:
        xp = namespace(w)
        wide = self.project(xp.astype(w, xp.float64))  # float32 has 0.7 as 0.69999999, which lies inside
        for end in (self.lo, self.hi):
            wide = xp.where(w == end, end, wide)
        return wide


WHOLE_LINE = Box()


@dataclass(frozen=True)
class FiniteSet(Admissible):
    """U = {v_1, …, v_m}, e.g. ``FiniteSet((-1.0, 0.0, 1.0))``; at least two different finite values."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        values = tuple(sorted({float(v) for v in self.values}))
        if len(values) < 2 or not all(isfinite(v) for v in values):
            raise InputError(f"finite set {self.values}; expected at least two different finite values")
        object.__setattr__(self, "values", values)

    @property
    def gap(self) -> float:
        """Smallest distance δ of two values (T12)."""
        return min(b - a for a, b in zip(self.values, self.values[1:], strict=False))

    def project(self, w: Array) -> Array:
        xp = namespace(w)
        best = xp.full_like(w, self.values[0])
        for v in self.values[1:]:
            best = xp.where(xp.abs(w - v) < xp.abs(w - best), v, best)
        return best

    def contains(self, w: Array) -> Array:
        # A value is stored in the dtype of the control: 0.1 is admissible as the float32 nearest to 0.1.
        found = w == self.values[0]
        for v in self.values[1:]:
            found = found | (w == v)
        return found
