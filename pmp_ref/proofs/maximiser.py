"""Does w maximise the augmented Hamiltonian, entry by entry, for the g that was used? Decided with error bounds (T24).

For every entry φ(v) = g v − ρ r(v) − e(v − u)², e = ε d_i, is a function of one real variable whose maximiser T4 gives
in closed form. The *deficit* of w is sup φ − φ(w) over the admissible set. A method that computes in floating point can
make it zero up to rounding only: it is measured in units, the roundoff of the run's dtype times the size S of the
terms that make up the gain. The *distance* of w from the maximiser on its own side of 0 is measured in units as well,
for near a maximum the gain hardly feels it. Up to ``LIMIT`` units, w is proven to be the maximiser at the
resolution of the dtype; more is refuted. Entries whose deciding comparison lies within the limit are
counted as ties.

Everything is computed in float64 from the exact inputs with a bound of its rounding; entries that this leaves open are
computed again in exact rationals where the maximiser is rational.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.controls import arrays_of
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem
from pmp_ref.proofs.arithmetic import Array, U
from pmp_ref.proofs.verdict import Verdict, joint
from pmp_ref.regulariser import GroupL0, LHalf, LTwoThirds, Polynomial, Regulariser

LIMIT = 32  # units; the maximisers make up to some twenty roundings (|w|^⅔)
OWN = 12 * U  # relative error of the quantities below, each of at most 11 roundings of non-negative terms


@dataclass(frozen=True)
class Found:
    """Entry by entry, in units: bounds of the deficit and of the distance, and where two gains tie."""

    low: Array
    high: Array
    least: Array
    distance: Array
    tie: Array

    @property
    def proven(self) -> Array:
        """Where w is the maximiser at the resolution of the dtype."""
        return (self.high <= LIMIT) & (self.distance <= LIMIT)

    @property
    def refuted(self) -> Array:
        """Where it is not."""
        return (self.low > LIMIT) | (self.least > LIMIT)


@dataclass(frozen=True)
class Maximised:
    """What is proven of the maximisation of one step. ``deficit`` and ``distance`` are the largest, in units."""

    verdict: Verdict
    deficit: float
    distance: float
    ties: int
    entries: int
    exactly: int  # entries decided in exact rationals

    @classmethod
    def of(cls, parts: Iterable[Maximised]) -> Maximised:
        """All controls together."""
        every = list(parts)
        return cls(
            joint(p.verdict for p in every),
            max(p.deficit for p in every),
            max(p.distance for p in every),
            sum(p.ties for p in every),
            sum(p.entries for p in every),
            sum(p.exactly for p in every),
        )


def examine(problem: Problem, u: Controls, w: Controls, g: Controls, metric: Any, eps: float, rho: float) -> Maximised:
    """All entries of all controls. Raises InputError for a regulariser whose maximiser is not known here."""
    nested = (problem.regulariser, problem.weights, problem.admissible, u, w, g)
    flat = [list(arrays_of(n)) for n in nested]
    weights: list[Any] = [1.0] * len(flat[0]) if metric is None else list(map(to_numpy, arrays_of(metric)))
    return Maximised.of(
        examine_control(r, rho * omega, admissible, to_numpy(ul), to_numpy(wl), to_numpy(gl), eps, d)
        for r, omega, admissible, ul, wl, gl, d in zip(*flat, weights, strict=True)
    )


def examine_control(
    r: Regulariser, rho: float, admissible: Admissible, u: Array, w: Array, g: Array, eps: float, d: Any
) -> Maximised:
    """One control; ``rho`` is ρ times its weight, ``d`` its metric."""
    unit = float(np.finfo(w.dtype).eps) / 2
    e = np.broadcast_to(eps * np.asarray(d, dtype=np.float64), w.shape)
    hu, hw, hg = (np.asarray(a, dtype=np.float64) for a in (u, w, g))
    inside(admissible, hw)
    exactly = 0
    with np.errstate(all="ignore"):
        if isinstance(admissible, FiniteSet):
            found = on_finite_set(r, rho, admissible.values, hu, hw, hg, e, unit)
        elif isinstance(r, GroupL0) and rho > 0:
            found = in_groups(r, rho, hu, hw, hg, e, unit)
        elif isinstance(r, LHalf | LTwoThirds) and rho > 0:
            found = of_power(r, rho, admissible, hu, hw, hg, e, unit)
        elif type(r) is Polynomial or rho == 0:
            a = (r.a0, r.a1, r.a2) if isinstance(r, Polynomial) else (0.0, 0.0, 0.0)
            found = of_polynomial(a, rho, admissible, hu, hw, hg, e, unit)
            known = np.isfinite(hu) & np.isfinite(hw) & np.isfinite(hg)
            open_ = np.argwhere(~found.proven & ~found.refuted & known)
            for at in map(tuple, open_[:1000]):  # more of them are no rounding: the verdict stands without
                exactly += 1
                here, there, pull = (Fraction(float(v[at])) for v in (hu, hw, hg))
                weight = Fraction(eps) * Fraction(float(np.broadcast_to(d, w.shape)[at]))
                deficit, distance = rational(a, Fraction(rho), admissible, here, there, pull, weight, unit)
                found.low[at] = found.high[at] = deficit
                found.least[at] = found.distance[at] = distance
        else:
            raise InputError(
                f"nothing can be proven of the maximiser of {r}: it needs a closed form in pmp_ref.proofs.maximiser"
            )
    return concluded(found, exactly)


def concluded(found: Found, exactly: int) -> Maximised:
    """The verdict on a control."""
    verdict = Verdict.UNDECIDED
    if found.proven.all():
        verdict = Verdict.PROVEN
    elif found.refuted.any():
        verdict = Verdict.REFUTED
    return Maximised(
        verdict,
        largest(found.high),
        largest(found.distance),
        int(np.count_nonzero(found.tie)),
        found.high.size,
        exactly,
    )


def largest(a: Array) -> float:
    """The largest entry; ∞ if one is NaN."""
    top = float(np.max(a, initial=0.0))
    return math.inf if math.isnan(top) else top


def inside(admissible: Admissible, w: Array) -> None:
    """Raise InputError unless w lies in the admissible set as the real numbers that they are."""
    outside = ~np.asarray(admissible.contains(w))
    if outside.any():
        value = float(w[outside].ravel()[0])
        raise InputError(
            f"nothing can be proven of a control that holds {value!r}, outside {admissible}: float32 does not hold the "
            "bound or value; train with --dtype float64, or take one that float32 holds, such as 0.125"
        )


def of_polynomial(
    a: tuple[float, float, float], rho: float, box: Any, u: Array, w: Array, g: Array, e: Array, unit: float
) -> Found:
    """r = a₀|v|₀ + a₁|v| + a₂v²/2 on a box. Gains G(v) = s v − q v² − ρa₀, s = 2eu + g ∓ ρa₁, q = e + ρa₂/2.

    On one side of 0 the best v has G(v) − G(w) = (v − w)(s − 2qv + q(v − w)): no cancellation, and s − 2qv is 0 unless
    v was clipped. Against 0 it is G(v) that counts.
    """
    l0, l1, q = rho * a[0], rho * a[1], e + rho * a[2] / 2
    b, size = 2 * e * u + g, 2 * e * np.abs(u) + np.abs(g) + l1
    crossing = box.lo <= 0 <= box.hi
    positive = b > 0 if crossing else np.full(w.shape, box.lo > 0)
    s = np.where(positive, b - l1, b + l1)
    low, high = np.where(positive, max(box.lo, 0.0), box.lo), np.where(positive, box.hi, min(box.hi, 0.0))
    free = s / (2 * q)
    v = np.clip(free, low, high)
    terms = np.abs(v) * size + q * v * v + l0
    terms = np.maximum(terms, np.abs(w) * size + q * w * w + np.where(w != 0, l0, 0.0))
    doubt, gain_doubt = OWN * size / (2 * q), OWN * terms  # of v and of gains
    gain = v * (s - q * v) - l0
    slope = np.where(v == free, 0.0, np.abs(s - 2 * q * v) + OWN * (size + 2 * q * np.abs(v)))
    way = np.where((v == w) & (v != free), 0.0, np.abs(v - w) + doubt)
    behind = way * (slope + q * way)  # at least G(v) − G(w) on the same side
    same = (np.sign(w) == np.sign(v)) & (w != 0)
    own = w * (b - np.where(w > 0, l1, -l1) - q * w) - np.where(w != 0, l0, 0.0)  # G(w)
    if crossing:
        over = np.where(same, np.maximum(behind, behind - gain + gain_doubt), np.maximum(gain + gain_doubt, 0.0) - own)
        under = np.where(same, -gain - gain_doubt, np.maximum(gain - gain_doubt, 0.0) - own)
        over = np.where(same | (w == 0), over, over + gain_doubt)
        under = np.where(same | (w == 0), under, under - gain_doubt)
    else:
        over, under = behind, np.zeros(w.shape)
    one = np.where(terms > 0, unit * terms, 1.0)
    step = unit * np.maximum(size / (2 * q), np.abs(w))
    step = np.where(step > 0, step, 1.0)
    distance = np.where(w != 0, way / step, 0.0)
    least = np.where(same, np.maximum(way - 2 * doubt, 0.0) / step, 0.0)
    tie = crossing & (l0 > 0) & (v != 0) & (np.abs(gain) <= LIMIT * unit * terms)
    return Found(np.maximum(under, 0.0) / one, np.maximum(over, 0.0) / one, least, distance, tie)


def rational(
    a: tuple[float, float, float],
    rho: Fraction,
    box: Any,
    u: Fraction,
    w: Fraction,
    g: Fraction,
    e: Fraction,
    unit: float,
) -> tuple[float, float]:
    """(deficit, distance) of one entry in units, in exact rationals; the formulas of :func:`of_polynomial`."""
    l0, l1, q = (rho * Fraction(a[0]), rho * Fraction(a[1]), e + rho * Fraction(a[2]) / 2)

    def gain(v: Fraction) -> Fraction:
        return v * (2 * e * u + g) - l1 * abs(v) - q * v * v - (l0 if v else 0)

    def clipped(v: Fraction, low: float, high: float) -> Fraction:
        v = v if low == -math.inf else max(v, Fraction(low))
        return v if high == math.inf else min(v, Fraction(high))

    b = 2 * e * u + g
    sides = []
    if box.hi > 0:
        sides.append(clipped((b - l1) / (2 * q), max(box.lo, 0.0), box.hi))
    if box.lo < 0:
        sides.append(clipped((b + l1) / (2 * q), box.lo, min(box.hi, 0.0)))
    candidates = sides + ([Fraction(0)] if box.lo <= 0 <= box.hi else [])
    best = max(candidates, key=gain)
    size = 2 * e * abs(u) + abs(g) + l1
    terms = max(abs(v) * size + q * v * v + (l0 if v else 0) for v in (*sides, w))
    deficit = (gain(best) - gain(w)) / terms if terms else Fraction(0)
    near = min(sides, key=lambda v: abs(v - w))
    step = max(size / (2 * q), abs(w))
    distance = abs(near - w) / step if w and step else Fraction(0)
    return float(deficit / Fraction(unit)), float(distance / Fraction(unit))


def on_finite_set(
    r: Regulariser, rho: float, values: tuple[float, ...], u: Array, w: Array, g: Array, e: Array, unit: float
) -> Found:
    """φ(v) − φ(w) = (v − w)(g − e((v − u) + (w − u))) − ρ(r(v) − r(w)) for every value v."""
    low, high, tie = np.zeros(w.shape), np.zeros(w.shape), np.zeros(w.shape, bool)
    own = np.asarray(r.pointwise(w))
    for value in values:
        v = np.full(w.shape, value)
        other = np.asarray(r.pointwise(v))
        rise = (v - w) * (g - e * ((v - u) + (w - u))) - rho * (other - own)
        terms = np.abs(v - w) * (np.abs(g) + e * (np.abs(v - u) + np.abs(w - u))) + rho * (other + own)
        doubt = OWN * terms
        if rho > 0:
            doubt = doubt + rho * (np.asarray(r.error_bound(v)) + np.asarray(r.error_bound(w)))
        one = np.where(terms > 0, unit * terms, 1.0)
        low, high = np.maximum(low, (rise - doubt) / one), np.maximum(high, (rise + doubt) / one)
        tie |= (v != w) & (np.abs(rise) <= LIMIT * one)
    return Found(low, high, np.zeros(w.shape), np.zeros(w.shape), tie)


def in_groups(r: GroupL0, rho: float, u: Array, w: Array, g: Array, e: Array, unit: float) -> Found:
    """A group: c = u + g/(2e) with the gain Σ e c² − ρω, or 0 with none; kept, it lacks Σ e(w − c)²."""
    c, size = u + g / (2 * e), np.abs(u) + np.abs(g) / (2 * e)
    gain = r.norms(e * c * c) - rho * r.omega
    terms = r.norms(2 * e * np.abs(c) * size) + rho * r.omega
    doubt = (OWN + 2 * (w.size // gain.size) * U) * terms
    way = np.abs(w - c) + OWN * size
    lost = r.norms(e * way * way) * (1 + 2 * w.size * U)
    kept = r.norms((w != 0).astype(float)) > 0
    over = np.where(kept, np.maximum(lost, lost - gain + doubt), np.maximum(gain + doubt, 0.0))
    under = np.where(kept, -gain - doubt, gain - doubt)
    one, spread = unit * terms, np.zeros(w.shape)
    step = unit * np.where(size > 0, size, 1.0)
    distance = np.where(kept & (size > 0), way / step, 0.0)
    least = np.where(kept, np.maximum(way - 2 * OWN * size, 0.0) / step, 0.0)
    tie = (np.abs(gain) <= LIMIT * one) & (r.norms(np.abs(c)) > 0)
    return Found(np.maximum(under, 0.0) / one + spread, over / one + spread, least, distance, tie)


def of_power(r: Any, rho: float, box: Any, u: Array, w: Array, g: Array, e: Array, unit: float) -> Found:
    """r = |v|^q on the line: G(v) = 2e c v − e v² − ρ|v|^q; c > 0 without loss.

    w ≠ 0: on [0.7w, ∞), right of the point of inflection, G is concave with curvature at least κ = 2e −
    ρq(1 − q)(0.7w)^{q−2}. If |G′(w)| ≤ 0.3κw the maximiser lies there, within |G′(w)|/κ of w and at most
    G′(w)²/(2κ) above it. w = 0: by T4 no v has a positive gain if |c| ≤ c_*; else the largest one lies between
    2e w_*(|c| − c_*) and 2e|c|(|c| − c_*), for its derivative by c is 2e times the maximiser, which lies in [w_*, |c|].
    """
    if box != Box():
        raise InputError(f"nothing can be proven of the maximiser of {r} on {box}; it is known here on the whole line")
    q, lam = r.q, rho / e
    c = u + g / (2 * e)
    size = np.abs(u) + np.abs(g) / (2 * e)
    if isinstance(r, LHalf):
        star = np.cbrt(lam / 2) ** 2
        threshold = 1.5 * star
        x = np.abs(w)
        power, slope, bend = np.sqrt(x), 0.5 / np.sqrt(x), 0.25 / (0.7 * x * np.sqrt(0.7 * x))
    else:
        star = np.sqrt(lam / 3) * np.sqrt(np.sqrt(lam / 3))
        threshold = 2 * star
        x = np.abs(w)
        root = np.cbrt(x)
        power, slope, bend = root * root, (2 / 3) / root, (2 / 9) / (0.7 * x * np.cbrt(0.7 * x))
    doubt = 40 * U + cube_error(lam) + cube_error(np.abs(w))
    toward = np.abs(c) * np.sign(c) * np.sign(w)
    derivative = 2 * e * (toward - np.abs(w)) - rho * slope
    derivative_error = doubt * (2 * e * (size + np.abs(w)) + rho * slope)
    kappa = (2 * e - rho * bend) * (1 - 1e-9)
    steep = np.abs(derivative) + derivative_error
    caught = (kappa > 0) & (steep <= 0.3 * kappa * np.abs(w))
    behind = np.where(caught, steep**2 / (2 * kappa), np.inf)
    gain = np.abs(w) * (2 * e * toward - e * np.abs(w)) - rho * power
    rival = r.argmax(u, g, e, rho, box)  # any v gives a lower bound of the deficit; this one is a guess
    other = rival * (2 * e * c - e * rival) - rho * root_of(r, np.abs(rival))
    one = np.maximum(np.abs(w), np.maximum(np.abs(rival), star)) * 2 * e * size + e * (w * w + rival * rival)
    one = unit * (one + rho * (power + root_of(r, np.abs(rival)) + star**q))
    above = np.abs(c) - threshold
    kept = w != 0
    high = np.where(kept, np.maximum(behind, -gain), np.maximum(2 * e * np.abs(c) * above, 0.0)) / one
    low = (
        np.maximum(np.where(kept, np.maximum(-gain, other - gain), np.maximum(2 * e * star * above, other)), 0.0) / one
    )
    away = np.where(kept, np.where(caught, steep / kappa, np.inf) / (unit * np.maximum(size, np.abs(w))), 0.0)
    error = 2 * (doubt + cube_error(np.abs(rival))) / unit
    tie = np.abs(above) <= LIMIT * unit * np.maximum(size, threshold)
    return Found(low - error, high + error, np.zeros(w.shape), away, tie & (kept | (size > 0)))


def root_of(r: Any, x: Array) -> Array:
    """x^q by roots: x^{1/2}, or x^{2/3} as the square of a cube root."""
    return np.sqrt(x) if isinstance(r, LHalf) else np.cbrt(x) ** 2


def cube_error(x: Array) -> Array:
    """The relative error of NumPy's cube root of x, from its cube: ((1 + δ)³ − 1 = 3δ + …)."""
    root = np.cbrt(x)
    return np.where(x > 0, np.abs(root * root * root / np.where(x > 0, x, 1.0) - 1.0) + 4 * U, 0.0)
