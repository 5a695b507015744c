"""Regularisers r: the value Σ_i r(w_i) and the exact pointwise maximiser of K_ε, side by side (T4).

Both stand in one class because both must mean the same r. A threshold for another penalty than the one that J counts
still gives descent most of the time, so that nobody would see it who looks at one of them alone.

For a control u with switching function g, ``argmax`` returns, entry by entry,

    argmax over w ∈ U of  φ(w) = g w − ρ r(w) − ε (w − u)²,

where c = u + g/(2ε) is the maximiser without penalty and bounds. This is a problem in one real variable, and it is
solved, not approximated: that is where the exact zeros come from. ``eps`` is ε, or ε d_i entry by entry under a metric
(T17); ``rho`` is ρ times the control's weight. Candidates are compared by their gain φ(w) − φ(0), in which εu² cancels
before it can hide a small difference; ties go to 0, since of two weights that are worth the same the one that is not
there is cheaper to keep.

Training needs the value and the maximiser. The certificate (T10, T11) and proven steps (T7b) ask for more: r′, its
growth at infinity, the rounding of its value. A regulariser states these too, or what needs them is refused by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Array, as_floats, clip, fused, namespace, sum64
from pmp_ref.errors import InputError

ROUNDOFF = 2.0**-53  # unit roundoff of float64
Augmentation: TypeAlias = float | Array  # ε, or ε d entry by entry under a metric


class Regulariser(ABC):
    """r(w) ≥ 0 with r(0) = 0.

    Training needs ``value``, ``pointwise`` and ``on_line``. A certificate (T11) needs ``derivative``, on an unbounded
    set ``asymptotic_slope`` too; a proven step (T7b) needs ``error_bound``; a certificate of an r that does not
    separate needs ``terms`` and ``group_sums``. What is not stated raises InputError, and is never taken for 0.
    ``eps_star`` is a closed form where there is one.
    """

    convex: bool = False  # of T6b; on a convex set, w maximises K_ε with ΔH ≥ 2ετ
    separable: bool = True  # r(w) = Σ r(w_i)

    @abstractmethod
    def value(self, w: Array) -> Array:
        """Σ r over all entries (or groups), in float64; 0-d."""

    def terms(self, w: Array) -> Array:
        """An array, in float64 or Boolean, whose entries add up to r(w): r entry by entry, or the value as it is."""
        return self.value(w)

    @abstractmethod
    def on_line(self, u: Array, g: Array, eps: Augmentation, rho: float, box: Box) -> Array:
        """The maximiser on a box (its ends may be infinite)."""

    @abstractmethod
    def pointwise(self, w: Array) -> Array:
        """r(w_i), entry by entry; raises InputError where r does not separate over entries."""

    def check(self, admissible: Admissible) -> None:
        """Raise InputError for a set on which there is no maximiser; every set is taken unless a class says so."""
        return None

    def derivative(self, w: Array) -> Array:
        """r′(w_i), entry by entry, NaN at entries where r has no derivative, such as 0 under L0 and L1 (T11).

        Where it is a number a local maximum of H has g_i = ρr′(w_i); g_i − ρr′(w_i) is the residual and is left out of
        ε*. At a NaN it is not: ε* there is its definition. Where r does not separate, ∂r/∂w_i. Called with
        NumPy arrays in float64. Raises InputError unless a class states it.
        """
        raise self._unstated(
            "derivative(self, w)", "a certificate needs it", "r′(w_i) entry by entry, NaN where r has no derivative"
        )

    def asymptotic_slope(self) -> float:
        """lim r(w)/|w| as |w| → ∞, from 0 (L0) to ∞ (L2); asked for on unbounded sets (T10).

        H(w) = g w − ρr(w) has no maximum on the line where |g| is larger than ρ times this number. Raises InputError
        unless a class states it.
        """
        raise self._unstated(
            "asymptotic_slope(self)",
            "the plain gap on an unbounded set needs it",
            "lim r(w)/|w| as |w| → ∞, such as 0.0 for L0 and math.inf for L2",
        )

    def error_bound(self, w: Array) -> Array:
        """A bound of the rounding error of each entry of ``terms(w)``, w in float64 on the host (T7b).

        0 where they are exact; a sum or product of n roundings of non-negative numbers errs by (n + 1)·2⁻⁵³ relatively.
        Raises InputError unless a class states it.
        """
        raise self._unstated(
            "error_bound(self, w)", "a proven step needs it", "a bound of the rounding error of each entry of terms(w)"
        )

    def group_sums(self, a: Array) -> Array:
        """Σ of a over the entries that r takes together, in the shape of ``terms``: a itself where r separates (T11).

        Raises InputError where r does not separate, unless a class states it.
        """
        if self.separable:
            return a
        raise self._unstated(
            "group_sums(self, a)",
            "it does not separate over entries, and a certificate needs it",
            "the sums of a over the groups, in the shape of terms(w)",
        )

    def eps_star(self, u: Array, g: Array, rho: float, box: Box) -> float | None:
        """Closed form of max(0, sup_w ΔH(w)/‖w − u‖²) on a box, NumPy arrays (T11); None: found by bisection.

        Where ``derivative`` is a number and u_i lies strictly inside the box, g_i is ρr′(u_i): its residual has been
        taken out. At a bound H does not rise from u_i into the box: such an entry makes ε* infinite before this.
        """
        return None

    def _unstated(self, method: str, why: str, what: str) -> InputError:
        name = type(self).__name__
        return InputError(f"{name} states no {method.split('(')[0]}, and {why}; write def {method} in {name}: {what}")

    def argmax(self, u: Array, g: Array, eps: Augmentation, rho: float, admissible: Admissible) -> Array:
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

    def on_finite_set(
        self, u: Array, g: Array, eps: Augmentation, rho: float, admissible: FiniteSet, zero: bool
    ) -> Array:
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

    def on_line(self, u: Array, g: Array, eps: Augmentation, rho: float, box: Box) -> Array:
        xp = namespace(u, g)
        # On either side of 0 the gain without L0 is a concave parabola. Its top is moved towards 0 by L1 and flattened
        # by L2; on a box it is the end next to the top that counts. At most one side has a top of its own.
        b = 2 * eps * u + g
        if self.a1 == 0:  # w+ and w− are the same
            free = free_maximiser(u, g, eps) if self.a2 == 0 else b / (2 * eps + rho * self.a2)
            w, slope = box.project(free), b
        else:
            rising, falling = b - rho * self.a1, b + rho * self.a1
            positive = clip(rising / (2 * eps + rho * self.a2), max(box.lo, 0.0), max(box.hi, 0.0))
            negative = clip(falling / (2 * eps + rho * self.a2), min(box.lo, 0.0), min(box.hi, 0.0))
            w, slope = positive + negative, xp.where(positive > 0, rising, falling)  # one of them is 0
        if box.lo > 0 or box.hi < 0:
            return w
        # Only now is the gain compared with the price ρa₀: at a bound it is smaller than at the top of the parabola,
        # and the threshold √(ρa₀/ε) would be wrong.
        curvature = eps if self.a2 == 0 else eps + rho * self.a2 / 2
        gain = w * (slope - curvature * w)
        # A product, since where takes ten times as long in NumPy; + 0 makes +0 of −0.
        return w * xp.astype(gain > rho * self.a0, w.dtype) + 0.0

    def penalises(self, admissible: FiniteSet) -> bool:
        return self.a0 + self.a1 + self.a2 > 0

    def derivative(self, w: Array) -> Array:
        """a₁ sgn w + a₂w; at 0 it is 0 under pure L2 and without penalty, and there is none otherwise."""
        xp = namespace(w)
        at_zero = 0.0 if self.a0 == self.a1 == 0 else math.nan
        return xp.where(w == 0, at_zero, xp.where(w > 0, self.a1, -self.a1) + self.a2 * w)

    def asymptotic_slope(self) -> float:
        """a₁, or ∞ if a₂ > 0."""
        return math.inf if self.a2 > 0 else self.a1

    def error_bound(self, w: Array) -> Array:
        """0 for multiples of L0 and for L1, whose values are exact; else three roundings, (4 + 1)·2⁻⁵³ r(w_i)."""
        exact = self.a2 == 0 and (self.a1 == 0 or (self.a0 == 0 and self.a1 == 1))
        return (0.0 if exact else 5 * ROUNDOFF) * self._pointwise64(w)

    def eps_star(self, u: Array, g: Array, rho: float, box: Box) -> float | None:
        """Largest, over the entries, of three suprema of ΔH(w)/(w − u)². On the side of u the Hamiltonian is concave
        and u_i is its maximum there, so nothing on that side counts.

        Nonzero entries: w = 0 is best, with (ρr(u) − g u)/u²; strictly inside the box that is ρ(a₀/u² − a₂/2). Zero
        entries with β = |g| − ρa₁ > 0, b the bound on the side of g: β²/(4ρa₀) − ρa₂/2 at |w| = 2ρa₀/β if that is
        at most |b|, else (|g||b| − ρr(b))/b²; infinite without L0. A box without 0: r is convex there.
        """
        if box.lo > 0 or box.hi < 0:
            return 0.0
        beta, room = np.abs(g) - rho * self.a1, np.where(g > 0, box.hi, -box.lo)
        gains = (u == 0) & (beta > 0) & (room > 0)
        if self.a0 == 0:  # convex
            return math.inf if gains.any() else 0.0
        kept = u != 0
        square = np.where(kept, u, 1.0) ** 2
        drop = np.where(kept, (rho * self.pointwise(u) - g * u) / square, 0.0)
        beta, room = beta[gains], room[gains]
        reached = 2 * rho * self.a0 <= beta * room
        bound = np.where(reached, 1.0, room)
        short = (np.abs(g)[gains] * bound - rho * self.pointwise(bound)) / bound**2
        zeros = np.where(reached, beta**2 / (4 * rho * self.a0) - rho * self.a2 / 2, short)
        return max(0.0, float(np.max(drop, initial=0.0)), float(np.max(zeros, initial=0.0)))


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

    def derivative(self, w: Array) -> Array:
        """q sgn w |w|^{q−1}; none at 0."""
        xp = namespace(w)
        slope = xp.copysign(self.q * xp.abs(xp.where(w == 0, 1.0, w)) ** (self.q - 1), w)
        return xp.where(w == 0, math.nan, slope)

    def asymptotic_slope(self) -> float:
        """0."""
        return 0.0

    def error_bound(self, w: Array) -> Array:
        """Four units in the last place of the power, and half a rounding of q: (8 + |ln|w||)·2⁻⁵³ relatively."""
        xp = namespace(w)
        size = xp.abs(xp.log(xp.abs(xp.where(w == 0, 1.0, w))))
        return (8 + size) * ROUNDOFF * self._pointwise64(w)

    def check(self, admissible: Admissible) -> None:
        if isinstance(admissible, Box) and not admissible.lo <= 0 <= admissible.hi:
            box = admissible
            raise InputError(f"{type(self).__name__} on the box [{box.lo}, {box.hi}]; expected a box containing 0")

    def on_line(self, u: Array, g: Array, eps: Augmentation, rho: float, box: Box) -> Array:
        self.check(box)
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

    def check(self, admissible: Admissible) -> None:
        if isinstance(admissible, FiniteSet):
            self.pointwise(None)
        if isinstance(admissible, Box) and admissible != Box():
            box = admissible
            raise InputError(f"GroupL0 on the box [{box.lo}, {box.hi}]; it has a closed form on the whole line only")

    def group_sums(self, a: Array) -> Array:
        return self.norms(a)

    def derivative(self, w: Array) -> Array:
        """0 in a nonzero group; a zero group has none."""
        xp = namespace(w)
        kept = self.norms(xp.astype(w != 0, xp.float64)) > 0
        return xp.where(kept, 0 * w, math.nan)

    def asymptotic_slope(self) -> float:
        """0."""
        return 0.0

    def error_bound(self, w: Array) -> Array:
        """0: ω or 0."""
        return 0 * self.terms(w)

    def on_line(self, u: Array, g: Array, eps: Augmentation, rho: float, box: Box) -> Array:
        self.check(box)
        xp = namespace(u, g)
        c = free_maximiser(u, g, eps)
        return xp.where(self.norms(eps * c * c) > rho * self.omega, c, 0.0)


def free_maximiser(u: Array, g: Array, eps: Augmentation) -> Array:
    """c = u + g/(2ε), the maximiser without penalty and bounds; exactly u where g is 0."""
    return u + g / (2 * eps)


def unpenalised(u: Array, g: Array, eps: Augmentation, box: Box) -> Array:
    """c clipped to the box: the maximiser where ρω = 0."""
    return box.project(free_maximiser(u, g, eps))


REGULARISERS = {
    "l0": L0,
    "l1": L1,
    "l2": L2,
    "l1/2": LHalf,
    "l2/3": LTwoThirds,
    "group-l0": GroupL0,
    "none": NoPenalty,
}
