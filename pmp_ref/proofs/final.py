"""(e) of the controls that a run ends with: ε*(u) on all training data as a proven interval (T11, T24).

By T11 ε* is the largest of numbers that single entries give, and each of them is a monotone function of its g_i: so the
two ends of the enclosure of g_i give the two ends of its interval. As there, g_i of an entry that should be stationary
counts as ρr′(u_i), and the norm of what was left out, the residual, is enclosed beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Array, Controls
from pmp_ref.bounds.step import penalty_change
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem
from pmp_ref.proofs.arithmetic import Ball, Interval, U, sum_of
from pmp_ref.proofs.maximiser import inside
from pmp_ref.proofs.step import exactly, widened
from pmp_ref.proofs.sweep import IntervalSweep
from pmp_ref.regulariser import GroupL0, Polynomial, Regulariser

SLACK = 32 * U  # of expressions with at most 15 roundings of terms that do not cancel, or whose size is added


@dataclass(frozen=True)
class Final:
    """ε*(u), the residual ‖g_i − ρr′(u_i)‖ of the entries it leaves out, L and J, all enclosed."""

    eps_star: Interval
    residual: Interval
    loss: Interval
    J: Interval
    samples: int


def prove_final(problem: Problem, sweep: IntervalSweep, controls: Controls, x: Array, y: Array, rho: float) -> Final:
    """(e) at the ρ that the run has come to. Raises InputError where a regulariser has no closed form of ε*."""
    u = exactly(controls)
    flat = [list(arrays_of(n)) for n in (problem.regulariser, problem.weights, problem.admissible, u)]
    for r, omega, admissible, a in zip(*flat, strict=True):
        inside(admissible, a)
        stated(r, rho * omega, admissible)
    found = sweep.switching(controls, x, y)
    low = high = 0.0
    squares: list[tuple[float, float]] = []
    with np.errstate(all="ignore"):
        for r, omega, admissible, a, g in zip(*flat, arrays_of(found.switching), strict=True):
            wide = Ball(g.mid, np.broadcast_to(g.rad, g.mid.shape))
            own, left_out = control_numbers(r, rho * omega, admissible, a, wide)
            low, high = max(low, own.lower), max(high, own.upper)
            squares.append(norm_interval(left_out))
    nothing = map_controls(np.zeros_like, u)
    total = [math.sqrt(sum(s)) for s in zip(*squares, strict=True)]
    return Final(
        eps_star=Interval(low, high),
        residual=Interval(total[0] * (1 - SLACK), total[1] * (1 + SLACK)),
        loss=found.loss,
        J=widened(found.loss, penalty_change(problem, nothing, u, rho)),
        samples=int(x.shape[0]),
    )


def stated(r: Regulariser, rho: float, admissible: Admissible) -> None:
    """InputError unless ε* of this control has a closed form here."""
    known = rho == 0 or type(r) is Polynomial or (isinstance(r, GroupL0) and admissible == Box())
    if not known and not isinstance(admissible, FiniteSet):
        raise InputError(f"no interval of ε* for {r} on {admissible}: T11 states a closed form for sums of L0, L1, L2")


def norm_interval(g: Ball) -> tuple[float, float]:
    """(Σ low², Σ high²) of |g| over an enclosure."""
    low = np.maximum(np.abs(g.mid) - g.rad, 0.0) * (1 - 4 * U)
    high = (np.abs(g.mid) + g.rad) * (1 + 4 * U)
    return sum_of(low * low) * (1 - 8 * U), sum_of(high * high) * (1 + 8 * U)


def control_numbers(r: Any, rho: float, admissible: Any, u: Array, g: Ball) -> tuple[Interval, Ball]:
    """ε* of one control, and g − ρr′(u) of the entries that it leaves out."""
    none = Ball(np.zeros(0), np.zeros(0))
    if isinstance(admissible, FiniteSet):
        return of_values(r, rho, admissible, u, g), none
    if rho == 0:
        return Interval(0.0, 0.0), inward(admissible, u, g)
    if isinstance(r, GroupL0):
        kept = np.broadcast_to(r.norms((u != 0).astype(float)) > 0, u.shape)
        return of_groups(r, rho, u, g), Ball(g.mid[kept], g.rad[kept])
    slope = rho * (np.where(u > 0, r.a1, -r.a1) + r.a2 * u)
    should = ((u != 0) | ((r.a0 == 0) & (r.a1 == 0))) & (u > admissible.lo) & (u < admissible.hi)
    rest = g.mid - slope
    left_out = Ball(rest[should], g.rad[should] + SLACK * (np.abs(g.mid) + np.abs(slope))[should])
    ends = list(of_polynomial(r, rho, admissible, u, g, should))
    return Interval(max([0.0, *(e.lower for e in ends)]), max([0.0, *(e.upper for e in ends)])), left_out


def inward(box: Box, u: Array, g: Ball) -> Ball:
    """The part of g that points into the box, of a control without penalty."""
    pulled = (u <= box.lo) & (g.mid + g.rad <= 0) | (u >= box.hi) & (g.mid - g.rad >= 0)
    return Ball(g.mid[~pulled], g.rad[~pulled])


def of_polynomial(r: Polynomial, rho: float, box: Box, u: Array, g: Ball, should: Array) -> Iterator[Interval]:
    """The numbers of T11 for a sum of L0, L1 and L2: on the support, at the bounds, and of the zeros."""
    low, high = g.mid - g.rad, g.mid + g.rad
    size = SLACK * (np.abs(g.mid) + g.rad)
    a0, a1, a2 = rho * r.a0, rho * r.a1, rho * r.a2
    slope = np.where(u > 0, a1, -a1) + a2 * u
    room = (u != 0) | (a0 == 0) & (a1 == 0)
    for at, sign in ((room & (u >= box.hi), -1.0), (room & (u <= box.lo), 1.0)):  # may H rise from the bound?
        rise = sign * (g.mid - slope)[at]
        doubt = (g.rad + size + SLACK * np.abs(slope))[at]
        if np.any(rise - doubt > 0):
            yield Interval(math.inf, math.inf)
        elif np.any(rise + doubt > 0):
            yield Interval(0.0, math.inf)
    zeros = (u == 0) & ~should
    reach = np.where(g.mid > 0, box.hi, -box.lo)
    crossing = np.abs(g.mid) <= g.rad
    reach = np.where(crossing, max(box.hi, -box.lo), reach)
    least = np.maximum(np.abs(g.mid) - g.rad - size, 0.0) * (np.abs(g.mid) > g.rad)
    most = np.abs(g.mid) + g.rad + size
    if box.lo > 0 or box.hi < 0:
        return
    if a0 == 0:
        gains = zeros & (reach > 0)
        if np.any(gains & (least > a1 * (1 + SLACK))):
            yield Interval(math.inf, math.inf)
        elif np.any(gains & (most > a1 * (1 - SLACK))):
            yield Interval(0.0, math.inf)
        return
    inner = should & (u != 0)
    if np.any(inner):
        first, second = a0 / u[inner] ** 2, 0.5 * a2
        yield Interval(*(float(np.max(first - second + t * SLACK * (first + second))) for t in (-1, 1)))
    bound = (u != 0) & ~should
    if np.any(bound):
        v, penalty = np.abs(u[bound]), rho * np.asarray(r.pointwise(u[bound]))
        pull = np.where(u > 0, low, -high)[bound], np.where(u > 0, high, -low)[bound]  # least and largest g sgn u
        terms = SLACK * (penalty + most[bound] * v)
        yield Interval(*(float(np.max((penalty - p * v + t * terms) / v**2)) for p, t in ((pull[1], -1), (pull[0], 1))))
    wanted = zeros & (reach > 0)
    if np.any(wanted):
        yield Interval(
            float(np.max(vertex(least[wanted], reach[wanted], r, rho, -1))),
            float(np.max(vertex(most[wanted], reach[wanted], r, rho, 1))),
        )


def vertex(size: Array, reach: Array, r: Polynomial, rho: float, sign: int) -> Array:
    """max over 0 < |w| ≤ b of (β|w| − ρa₀ − ρa₂w²/2)/w², β = |g| − ρa₁, from below (sign −1) or above.

    It rises with |g|. Any |w| gives a lower bound, and the vertex of the parabola an upper one.
    """
    a0, a1, a2 = rho * r.a0, rho * r.a1, rho * r.a2
    beta = np.maximum(size - a1 + sign * SLACK * (size + a1), 0.0)
    free = beta**2 / (4 * a0) * (1 + sign * SLACK)
    b = np.where(np.isfinite(reach), reach, 1.0)
    short = (beta * b - a0 + sign * SLACK * (beta * b + a0)) / b**2
    top = np.where(beta * reach >= 2 * a0 * (1 - sign * SLACK), free, short)
    return top - 0.5 * a2 + sign * SLACK * (np.abs(top) + a2)


def of_values(r: Any, rho: float, values: FiniteSet, u: Array, g: Ball) -> Interval:
    """The largest of (g(v − u) − ρ(r(v) − r(u)))/(v − u)², linear in g."""
    low = high = 0.0
    own = rho * np.asarray(r.pointwise(u))
    for value in values.values:
        v = np.full(u.shape, value)
        way = v - u
        other = rho * np.asarray(r.pointwise(v))
        slack = rho * (np.asarray(r.error_bound(v)) + np.asarray(r.error_bound(u))) if rho > 0 else 0.0
        top = g.mid * way - (other - own)
        doubt = g.rad * np.abs(way) + SLACK * (np.abs(g.mid * way) + other + own) + slack
        moves = way != 0
        if moves.any():
            square = np.where(moves, way, 1.0) ** 2
            low = max(low, float(np.max(((top - doubt) / square)[moves])) * (1 - SLACK))
            high = max(high, float(np.max(((top + doubt) / square)[moves])) * (1 + SLACK))
    return Interval(low, high)


def of_groups(r: GroupL0, rho: float, u: Array, g: Ball) -> Interval:
    """ρω/‖u‖² of a nonzero group, ‖g‖²/(4ρω) of a zero one."""
    cost = rho * r.omega
    kept = r.norms((u != 0).astype(float)) > 0
    wide = 2 * u.size * U
    low = high = 0.0
    if kept.any():
        on = float(np.max((cost / np.where(kept, r.norms(u * u), 1.0))[kept]))
        low, high = on * (1 - wide - SLACK), on * (1 + wide + SLACK)
    if not kept.all():
        least = r.norms(np.maximum(np.abs(g.mid) - g.rad, 0.0) ** 2)[~kept] / (4 * cost)
        most = r.norms((np.abs(g.mid) + g.rad) ** 2)[~kept] / (4 * cost)
        low = max(low, float(np.max(least)) * (1 - wide - SLACK))
        high = max(high, float(np.max(most)) * (1 + wide + SLACK))
    return Interval(low, high)
