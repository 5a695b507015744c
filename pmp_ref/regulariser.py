"""Regularisers r: the value Σ_i r(w_i) and the exact pointwise maximiser of K_ε, side by side (T4).

For a control u with switching function g, ``argmax`` returns, entry by entry,

    argmax over w ∈ U of  φ(w) = g w − ρ r(w) − ε (w − u)²,      c = u + g/(2ε) its unpenalised maximiser.

``eps`` is ε, or ε d_i entry by entry under a metric (T17); ``rho`` is ρ times the control's weight. Candidates are
compared by their gain φ(w) − φ(0), in which u² cancels; ties go to 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any

from pmp_ref.admissible import Admissible, Box, FiniteSet, clip
from pmp_ref.arrays import Array, as_floats, fused, namespace, sum64
from pmp_ref.errors import InputError


class Regulariser(ABC):
    """r(w) ≥ 0 with r(0) = 0."""

    convex: bool = False  # of T6b; on a convex set, w maximises K_ε with ΔH ≥ 2ετ
    separable: bool = True  # r(w) = Σ r(w_i)

    @abstractmethod
    def value(self, w: Array) -> Array:
        """Σ r over all entries (or groups), in float64; 0-d."""

    def terms(self, w: Array) -> Array:
        """An array, in float64 or Boolean, whose entries add up to r(w): r entry by entry, or the value as it is."""
        return self.value(w)

    @abstractmethod
    def on_line(self, u: Array, g: Array, eps: Any, rho: float, box: Box) -> Array:
        """The maximiser on a box (its ends may be infinite)."""

    @abstractmethod
    def pointwise(self, w: Array) -> Array:
        """r(w_i), entry by entry; raises InputError where r does not separate over entries."""

    def argmax(self, u: Array, g: Array, eps: Any, rho: float, admissible: Admissible) -> Array:
        """Entry by entry argmax of g w − ρ r(w) − ε(w − u)² over U; u, g of one shape, so is the result."""
        free = isinstance(rho, Real) and rho == 0  # a ρ on the device is not 0
        if isinstance(admissible, FiniteSet):
            zero = not free and self.penalises(admissible)
            return fused(self.on_finite_set, u, g, eps, rho, admissible=admissible, zero=zero)
        assert isinstance(admissible, Box)
        if free:
            return fused(unpenalised, u, g, eps, box=admissible)
        if not self.separable:
            return self.on_line(u, g, eps, rho, admissible)
        return fused(self.on_line, u, g, eps, rho, box=admissible)

    def on_finite_set(self, u: Array, g: Array, eps: Any, rho: float, admissible: FiniteSet, zero: bool) -> Array:
        """Best of the values; ties go to 0 if ``zero`` (0 is penalised less), then to the value closest to u, then to
        the smallest |v|, then to the smaller v."""
        xp = namespace(u, g)
        best, best_phi, keep = None, None, None
        for v in sorted(admissible.values, key=lambda v: (abs(v), v)):
            w = 0 * u + v
            phi = g * (w - u) - eps * (w - u) * (w - u) - rho * self.pointwise(w)  # φ(v) − g u: no large ε u² cancels
            if best is None:
                best, best_phi = w, phi
                keep = zero and v == 0  # 0 wins its ties
            else:
                closer = xp.abs(w - u) < xp.abs(best - u)
                if keep:
                    closer = closer & (best != 0)
                better = (phi > best_phi) | ((phi == best_phi) & closer)
                best, best_phi = xp.where(better, w, best), xp.where(better, phi, best_phi)
        return best

    def penalises(self, admissible: FiniteSet) -> bool:
        """True if r is positive off 0, so that 0 is penalised less than every other value."""
        return True


@dataclass(frozen=True)
class Polynomial(Regulariser):
    """r(w) = a₀|w|₀ + a₁|w| + (a₂/2) w², any sum of L0, L1 and L2; a₀, a₁, a₂ ≥ 0 (InputError otherwise).

    With b = 2εu + g the candidates are w± = (b ∓ ρa₁)/(2ε + ρa₂) clipped to the box's positive and negative part.
    The gain of w is w(b ∓ ρa₁ − (ε + ρa₂/2)w); the better candidate is kept iff its gain exceeds ρa₀. Pure L0 on
    the line: keep c iff εc² > ρa₀, the threshold |c| > √(ρa₀/ε).
    """

    a0: float = 0.0
    a1: float = 0.0
    a2: float = 0.0

    def __post_init__(self) -> None:
        as_floats(self, "a0", "a1", "a2")
        if not all(math.isfinite(a) and a >= 0 for a in (self.a0, self.a1, self.a2)):
            raise InputError(f"regulariser coefficients {self.a0}, {self.a1}, {self.a2}; expected numbers ≥ 0")

    @property
    def convex(self) -> bool:  # type: ignore[override]
        return self.a0 == 0

    def pointwise(self, w: Array) -> Array:
        xp = namespace(w)
        return self.a0 * xp.astype(w != 0, w.dtype) + self.a1 * xp.abs(w) + (self.a2 / 2) * w * w

    def value(self, w: Array) -> Array:
        return sum64(self.terms(w))

    def terms(self, w: Array) -> Array:
        return w != 0 if (self.a0, self.a1, self.a2) == (1, 0, 0) else fused(self._pointwise64, w)

    def _pointwise64(self, w: Array) -> Array:
        return self.pointwise(namespace(w).astype(w, namespace(w).float64))

    def on_line(self, u: Array, g: Array, eps: Any, rho: float, box: Box) -> Array:
        xp = namespace(u, g)
        b = 2 * eps * u + g
        if self.a1 == self.a2 == 0:
            above = below = free_maximiser(u, g, eps)
        else:
            rising, falling = b - rho * self.a1, b + rho * self.a1
            above, below = rising / (2 * eps + rho * self.a2), falling / (2 * eps + rho * self.a2)
        positive = clip(above, max(box.lo, 0.0), max(box.hi, 0.0))
        negative = clip(below, min(box.lo, 0.0), min(box.hi, 0.0))
        if box.lo > 0:
            return positive
        if box.hi < 0:
            return negative
        w = positive + negative  # at most one of them is not 0
        slope = b if self.a1 == 0 else xp.where(positive > 0, rising, falling)
        gain = w * (slope - (eps + rho * self.a2 / 2) * w)
        return xp.where(gain > rho * self.a0, w, 0.0)

    def penalises(self, admissible: FiniteSet) -> bool:
        return self.a0 + self.a1 + self.a2 > 0


def L0() -> Polynomial:
    """r(w) = |w|₀, the number of nonzero entries."""
    return Polynomial(a0=1.0)


def L1() -> Polynomial:
    """r(w) = |w|."""
    return Polynomial(a1=1.0)


def L2() -> Polynomial:
    """r(w) = ½w²."""
    return Polynomial(a2=1.0)


def NoPenalty() -> Polynomial:
    """r = 0."""
    return Polynomial()


class _Power(Regulariser):
    """r(w) = |w|^q, 0 < q < 1; with λ = ρ/ε, φ is maximal at 0 or at the local maximiser of its closed form."""

    q: float

    @abstractmethod
    def local_maximiser(self, c: Array, lam: Array) -> tuple[Array, Array]:
        """(keep, w): where 0 loses on the whole line, and the local maximiser there (any finite value elsewhere)."""

    def pointwise(self, w: Array) -> Array:
        xp = namespace(w)
        return xp.where(w == 0, 0.0, xp.abs(w) ** self.q)

    def value(self, w: Array) -> Array:
        return sum64(self.terms(w))

    def terms(self, w: Array) -> Array:
        return fused(self._pointwise64, w)

    def _pointwise64(self, w: Array) -> Array:
        return self.pointwise(namespace(w).astype(w, namespace(w).float64))

    def on_line(self, u: Array, g: Array, eps: Any, rho: float, box: Box) -> Array:
        if not box.lo <= 0 <= box.hi:
            raise InputError(f"{type(self).__name__} on the box [{box.lo}, {box.hi}]; expected a box containing 0")
        xp = namespace(u, g)
        c = free_maximiser(u, g, eps)
        lam = rho / eps + 0 * u  # an array in every library: NumPy's scalars have roots of their own
        keep, w = self.local_maximiser(c, lam)
        w = xp.where(keep, w, 0.0)
        if box == Box():
            return w
        w = box.project(w)
        gain = w * (2 * c - w) - lam * self.pointwise(w)  # divided by ε
        return xp.where(gain > 0, w, 0.0)


@dataclass(frozen=True)
class LHalf(_Power):
    """r(w) = |w|^½. Keep iff |c| > (54^{1/3}/4) λ^{2/3}, then w = ⅔c(1 + cos(2π/3 − ⅔ arccos((λ/8)(|c|/3)^{−3/2})))."""

    q = 0.5

    def local_maximiser(self, c: Array, lam: Array) -> tuple[Array, Array]:
        xp = namespace(c)
        keep = xp.abs(c) > (54 ** (1 / 3) / 4) * lam ** (2 / 3)
        a = xp.where(keep, xp.abs(c), 1.0)
        angle = xp.acos(clip((lam / 8) * (a / 3) ** -1.5, 0.0, 1.0))
        return keep, (2 / 3) * c * (1 + xp.cos(2 * math.pi / 3 - (2 / 3) * angle))


@dataclass(frozen=True)
class LTwoThirds(_Power):
    """r(w) = |w|^⅔. Keep iff |c| > ⅔(3λ³)^¼, then w = sgn(c)((A + √(2|c|/A − A²))/2)³ with
    A = (2/√3) λ^¼ √cosh(⅓ arcosh(27c²/(16 λ^{3/2}))).

    With s = |c|/λ^¾ arcosh(27s²/16) = 2 arcosh √(27s²/32 + ½): float32 holds s where it does not hold s²."""

    q = 2 / 3

    def local_maximiser(self, c: Array, lam: Array) -> tuple[Array, Array]:
        xp = namespace(c)
        keep = xp.abs(c) > (2 / 3) * 3**0.25 * lam**0.75
        s = xp.where(keep, xp.abs(c) / lam ** (3 / 4), 1.0)
        half = xp.hypot(math.sqrt(27 / 32) * s, math.sqrt(0.5))
        a = (2 / math.sqrt(3)) * lam**0.25 * xp.sqrt(xp.cosh(xp.acosh(half) * (2 / 3)))
        inner = 2 * xp.abs(c) / a - a * a
        root = xp.sqrt(xp.where(inner > 0, inner, 0.0))
        return keep, xp.copysign(((a + root) / 2) ** 3, c)


@dataclass(frozen=True)
class GroupL0(Regulariser):
    """r(w) = ω · (number of nonzero groups); a group holds all entries with one index along ``axis``.

    Axis 0 of a kernel are its filters or neurons, axis 1 its input channels. Keep the group iff Σ ε d_i c_i² > ρω,
    so ε‖c‖² > ρω without metric; needs the whole line (InputError otherwise). In a control without that axis each entry
    is a group. Raises InputError for an axis that is not an integer ≥ 0.
    """

    axis: int = 0
    omega: float = 1.0
    separable = False

    def __post_init__(self) -> None:
        as_floats(self, "omega")
        if not isinstance(self.axis, int) or isinstance(self.axis, bool) or self.axis < 0:
            raise InputError(f"axis is {self.axis!r}; expected an integer ≥ 0, such as 0 for filters and neurons")
        if not (math.isfinite(self.omega) and self.omega >= 0):
            raise InputError(f"omega is {self.omega}; expected a number ≥ 0")

    def norms(self, w: Array) -> Array:
        """Σ of the entries of each group."""
        others = tuple(a for a in range(w.ndim) if a != self.axis)
        return namespace(w).sum(w, axis=others, keepdims=True) if self.axis < w.ndim else w

    def pointwise(self, w: Array) -> Array:
        raise InputError("GroupL0 does not separate over entries; use it on the whole line, not on a finite set")

    def value(self, w: Array) -> Array:
        return sum64(self.terms(w))

    def terms(self, w: Array) -> Array:
        xp = namespace(w)
        return self.omega * xp.astype(self.norms(xp.astype(w != 0, xp.float64)) != 0, xp.float64)

    def on_line(self, u: Array, g: Array, eps: Any, rho: float, box: Box) -> Array:
        if box != Box():
            raise InputError(f"GroupL0 on the box [{box.lo}, {box.hi}]; it has a closed form on the whole line only")
        xp = namespace(u, g)
        c = free_maximiser(u, g, eps)
        return xp.where(self.norms(eps * c * c) > rho * self.omega, c, 0.0)


def free_maximiser(u: Array, g: Array, eps: Any) -> Array:
    """c = u + g/(2ε), the maximiser without penalty and bounds; exactly u where g is 0."""
    return u + g / (2 * eps)


def unpenalised(u: Array, g: Array, eps: Any, box: Box) -> Array:
    """c clipped to the box: the maximiser where ρω = 0."""
    return box.project(free_maximiser(u, g, eps))


REGULARISERS = {
    "l0": L0, "l1": L1, "l2": L2, "l1/2": LHalf, "l2/3": LTwoThirds, "group-l0": GroupL0, "none": NoPenalty,
}  # fmt: skip
