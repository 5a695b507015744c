"""Machine-checked steps: proven intervals for the remainder, the slope and the loss change of one step (T6, T7b).

Proven, under the assumptions on arithmetic stated in ``intervals``: for the step from u to w

    ∫₀¹(1 − t) φ″(t) dt ∈ [remainder],   φ′(0) = −⟨g, w − u⟩ ∈ [slope],   ρ(R(w) − R(u)) ∈ [penalty],

hence J(w) − J(u) = slope + remainder + penalty, and Ĉ = remainder/τ. The remainder is Σ over parts of φ(c + h) −
φ(c − h), from derivatives at c and the quotient of the part, less φ′(0). None of these uses the sweeps of the run, the
switching functions it computed, or a value of J. ``direct`` encloses L_B(w) − L_B(u) by its two values instead: the
check of all the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.bounds.intervals import UP, Ball, U, gamma
from pmp_ref.bounds.segment import Rows, enclose_rows, in_chunks
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem


@dataclass(frozen=True)
class Interval:
    """All numbers from ``lower`` to ``upper``."""

    lower: float
    upper: float

    def __add__(self, other: Interval) -> Interval:
        return Interval(_down(self.lower + other.lower), _up(self.upper + other.upper))

    def __contains__(self, number: float) -> bool:
        return self.lower <= number <= self.upper

    @property
    def width(self) -> float:
        """upper − lower."""
        return self.upper - self.lower


@dataclass(frozen=True)
class StepCertificate:
    """What is proven of the step from u to w on one batch, see the module's docstring.

    ``parts`` of the segment per sample (mean and largest), ``order`` of the jets. ``c_hat`` holds Ĉ, ``delta_J``
    holds J(w) − J(u), ``sum_dh`` holds ΣΔH, ``tau`` holds ‖w − u‖².
    """

    remainder: Interval
    slope: Interval
    penalty: Interval
    direct: Interval
    tau: Interval
    order: int
    parts: float
    most_parts: int

    @property
    def delta_J(self) -> Interval:
        """J(w) − J(u) = φ′(0) + ∫(1 − t)φ″ dt + ρ(R(w) − R(u)) (T5)."""
        return self.slope + self.remainder + self.penalty

    @property
    def sum_dh(self) -> Interval:
        """ΣΔH = −φ′(0) − ρ(R(w) − R(u)) (T2)."""
        negative = self.slope + self.penalty
        return Interval(-negative.upper, -negative.lower)

    @property
    def c_hat(self) -> Interval:
        """Ĉ = remainder/τ."""
        low, high = self.remainder.lower, self.remainder.upper
        return Interval(
            _down(low / (self.tau.upper if low >= 0 else self.tau.lower)),
            _up(high / (self.tau.lower if high >= 0 else self.tau.upper)),
        )

    @property
    def looseness(self) -> float:
        """Upper end of the remainder over its lower end, an upper bound of upper end over true value; ∞ if not > 0."""
        return self.remainder.upper / self.remainder.lower if self.remainder.lower > 0 else math.inf

    def proves_descent(self, eta: float) -> bool:
        """True if J(w) − J(u) ≤ −ητ is proven (T6)."""
        return self.delta_J.upper <= _down(-eta * self.tau.upper)

    def refutes_descent(self, eta: float) -> bool:
        """True if J(w) − J(u) > −ητ is proven."""
        return self.delta_J.lower > _up(-eta * self.tau.lower)


def certify_step(
    problem: Problem,
    u: Controls,
    w: Controls,
    x: Array,
    y: Array,
    *,
    rho: float | None = None,
    order: int = 4,
    parts: int = 1,
    max_parts: int = 256,
    target: float = 1.1,
    absolute: float = 0.0,
    eta: float | None = None,
    rows: int = 64,
) -> StepCertificate:
    """Proven intervals for the step from u to w on the batch (x, y), L_B its mean loss; order 2, 3 or 4.

    Every sample starts with ``parts`` equal parts of the segment; samples with the widest enclosures get twice as many
    until upper/lower of the remainder is at most ``target``, or its width at most ``absolute``, or a sample
    would need more than ``max_parts`` (powers of two); with ``eta`` also until J(w) − J(u) ≤ −ητ is proven, or its
    reverse. Networks and losses as :func:`enclose_stage` takes them, and regularisers that state their ``error_bound``;
    InputError for others. Float64 on the host; controls of another library or dtype are converted exactly.
    """
    if order not in (2, 3, 4):
        raise InputError(f"order is {order}; expected 2, 3 or 4")
    if any(n < 1 or n & (n - 1) for n in (parts, max_parts)) or max_parts < parts:
        raise InputError(f"parts {parts}, max_parts {max_parts}; expected powers of two, the second not smaller")
    hx, hy = to_numpy(x).astype(np.float64), to_numpy(y)
    hu, hw = (map_controls(lambda a: to_numpy(a).astype(np.float64), a) for a in (u, w))
    delta = map_controls(lambda a, b: b - a, hu, hw)

    def enclose(r: Rows) -> list[Any]:
        return in_chunks(lambda cut: enclose_rows(problem.network, problem.loss, hu, delta, hx, hy, cut), r, rows)

    samples = hx.shape[0]
    every = np.arange(samples)
    before, slope = enclose(Rows(every, np.zeros(samples), np.zeros(samples), 2, wide=False))
    (after,) = enclose(Rows(every, np.ones(samples), np.zeros(samples), 1, wide=False))
    direct = after - before
    found = StepCertificate(
        remainder=Interval(-math.inf, math.inf),
        slope=mean_interval(slope.lower, slope.upper),
        penalty=penalty_change(problem, hu, hw, problem.rho if rho is None else rho),
        direct=mean_interval(direct.lower, direct.upper),
        tau=squared_length(hu, hw),
        order=order,
        parts=float(parts),
        most_parts=parts,
    )
    many = np.full(samples, parts)
    low, high, cut = np.empty(samples), np.empty(samples), np.empty(samples)
    todo = every
    while True:
        low[todo], high[todo], cut[todo] = changes(enclose, todo, many[todo], order)
        with np.errstate(invalid="ignore"):
            remainder = mean_interval(_down(low - slope.upper), _up(high - slope.lower))
        found = replace(found, remainder=remainder, parts=float(many.mean()), most_parts=int(many.max()))
        tight = remainder.upper <= target * max(remainder.lower, 0.0) or remainder.width <= absolute
        if tight and (eta is None or found.proves_descent(eta) or found.refutes_descent(eta)):
            return found
        wanted = 0.0 if tight else max((target - 1) * max(remainder.lower, 0.0), absolute)
        rounding = cut < 0.25 * (high - low)  # what is left does not shrink with the parts
        free = np.flatnonzero((many < max_parts) & ~rounding)
        if free.size == 0:
            return found
        todo = free[widest(cut[free], samples * wanted, order)]
        many[todo] *= 2


def widest(width: Any, wanted: float, order: int) -> Any:
    """Which samples to cut into twice as many parts: the fewest, widest first, that bring the sum of widths down to
    ``wanted`` if each is divided by 2ⁿ; else those above a twentieth of the largest. Endless ones before all others."""
    endless = ~np.isfinite(width)
    if np.any(endless):
        return np.flatnonzero(endless)
    first = np.argsort(-width, kind="stable")
    saved = np.cumsum(width[first]) * (1 - 0.5**order)
    enough = int(np.searchsorted(saved, width.sum() - wanted)) + 1
    if wanted > 0 and enough <= width.size:
        return first[:enough]
    return np.flatnonzero(width > 0.05 * np.max(width))


def changes(enclose: Any, samples: Any, parts: Any, order: int) -> tuple[Any, Any, Any]:
    """Lower and upper ends of φ_s(1) − φ_s(0) for the samples given, each with its number of parts, and how much of the
    width comes from the quotients φ_[n]."""
    sample = np.repeat(samples, parts)
    starts = np.concatenate([np.arange(n) for n in parts])
    count = np.repeat(parts, parts)
    c, h = (2 * starts + 1) / (2 * count), 1 / (2 * count)  # dyadic, hence exact
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what overflows is infinite or NaN: not proven
        phi = enclose(Rows(sample, c, h, order))
        part = change(phi, h, order)
        position = np.repeat(np.arange(len(samples)), parts)
        columns = (part.lower, part.upper, part.magnitude, 4 * h**order * phi[order].rad)
        low, high, size, cut = (np.bincount(position, weights=a, minlength=len(samples)) for a in columns)
        slack = np.array([gamma(int(n)) for n in parts]) * size
        return low - slack, high + slack, cut


def change(phi: list[Ball], h: Any, order: int) -> Ball:
    """φ(c + h) − φ(c − h) from thin φ_1 … φ_{n−1} at c and φ_[n] over the part, row by row.

    The even terms cancel: 2hφ_1 + 2h³φ_3 + hⁿ(φ_[n](h) − (−1)ⁿφ_[n](−h)), and the last is of two numbers of one ball.
    """
    total = phi[1] * (2 * h)
    if order == 4:
        total = total + phi[3] * (2 * h**3)
    mid = phi[order].mid if order % 2 else np.zeros_like(h)
    return total + Ball(mid, phi[order].rad) * (2 * h**order)


def mean_interval(low: Any, high: Any) -> Interval:
    """(1/B) Σ over samples, rounded outwards (``fsum`` rounds once)."""
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        return Interval(-math.inf, math.inf)
    return Interval(_down(math.fsum(low) / len(low), 2), _up(math.fsum(high) / len(high), 2))


def penalty_change(problem: Problem, u: Controls, w: Controls, rho: float) -> Interval:
    """ρ(R(w) − R(u)), summed over the entries that moved, or over all groups where r does not separate. Each r(w_i)
    errs by the ``error_bound`` that its regulariser states; InputError where it states none."""
    low = high = 0.0
    for r, omega, a, b in zip(*(arrays_of(n) for n in (problem.regulariser, problem.weights, u, w)), strict=True):
        if rho == 0 or omega == 0:
            continue
        ends = [v[a != b] if r.separable else v for v in (a, b)]
        before, after = (to_numpy(r.terms(v)).astype(np.float64).ravel() for v in ends)
        error = math.fsum(np.concatenate([to_numpy(r.error_bound(v)).ravel() for v in ends]))
        moves, factor = after - before, rho * omega
        change, error = math.fsum(moves), (error + 4 * U * math.fsum(np.abs(moves))) * UP
        low = _down(low + _down(factor * (change - error), 4))
        high = _up(high + _up(factor * (change + error), 4))
    return Interval(low, high)


def squared_length(u: Controls, w: Controls) -> Interval:
    """τ = ‖w − u‖²."""
    terms = np.concatenate([(b - a).ravel() ** 2 for a, b in zip(arrays_of(u), arrays_of(w), strict=True)])
    tau = math.fsum(terms)
    return Interval(_down(tau * (1 - 8 * U)), _up(tau * (1 + 8 * U)))


def _down(a: Any, ulps: int = 1) -> Any:
    return a - 2 * ulps * U * abs(a) - 1e-300


def _up(a: Any, ulps: int = 1) -> Any:
    return a + 2 * ulps * U * abs(a) + 1e-300
