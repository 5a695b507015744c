"""What is proven of one accepted step from u to w (T24).

(a) the inequality it was accepted by, J(w) − J(u) ≤ −ητ or J(u) − J(w) ≥ η₁ΣΔH, for the exact numbers u and w;
(b) how far the switching function that was used lies from the enclosure of the exact one;
(c) that w maximises the augmented Hamiltonian for the direction that was used (:mod:`pmp_ref.proofs.maximiser`);
(d) if asked for, the identity of T5: J(w) − J(u) + ΣΔH against its remainder as T7b encloses it.

Nothing that the method computed enters but u, w, the direction, ε, d and ρ. The two sides of an inequality are
enclosures, compared as exact rationals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, Acceptance, RelativeTest
from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.bounds.step import StepCertificate, certify_step, penalty_change
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem
from pmp_ref.proofs.arithmetic import Ball, Interval, U, mean, outward, sum_of
from pmp_ref.proofs.maximiser import Maximised, examine
from pmp_ref.proofs.sweep import Enclosed, IntervalSweep
from pmp_ref.proofs.verdict import Verdict, joint
from pmp_ref.sweep import quiet

PARTS = 32  # of the segment, at most, in (d): of a step so long that this leaves no number the identity is undecided


@dataclass(frozen=True)
class Step:
    """A step as it was made: from u to w along ``direction`` with ε, the metric d (None: 1) and ρ, on a batch.

    ``switching`` is the switching function of the batch that the method had computed; the direction is it or a
    mean.
    """

    u: Controls
    w: Controls
    direction: Controls
    switching: Controls
    metric: Any
    eps: float
    rho: float
    x: Array
    y: Array


@dataclass(frozen=True)
class Descent:
    """(a): the enclosures of both sides, and by how much they would have to be thinner to decide; 0 if they do."""

    verdict: Verdict
    J_before: Interval
    J_after: Interval
    delta_J: Interval
    bound: Interval  # −ητ, or −η₁ΣΔH
    tau: Interval
    missing: float


@dataclass(frozen=True)
class Closeness:
    """(b): the largest distance of an entry from its enclosure, and the largest radius, both relative to the largest
    |g| of the control; ``inside`` if every entry lies in its enclosure."""

    inside: bool
    distance: float
    width: float


@dataclass(frozen=True)
class Identity:
    """(d): J(w) − J(u) + ΣΔH on the samples it was made on, and the remainder of T5 as T7b encloses it."""

    verdict: Verdict
    left: Interval
    remainder: Interval
    samples: int


@dataclass(frozen=True)
class StepProof:
    """All that is proven of a step. ``before`` and ``after`` are the enclosures made on the way."""

    descent: Descent
    closeness: Closeness
    maximised: Maximised
    identity: Identity | None
    before: Enclosed
    after: Enclosed

    @property
    def verdict(self) -> Verdict:
        """That of (a) and (c) together; refuted if (d) is, which by itself says something of the sweeps, not of w."""
        made = [self.descent.verdict, self.maximised.verdict]
        if self.identity is not None and self.identity.verdict is Verdict.REFUTED:
            return Verdict.REFUTED
        return joint(made)


def prove_step(
    problem: Problem,
    test: Acceptance,
    sweep: IntervalSweep,
    step: Step,
    *,
    before: Enclosed | None = None,
    backward: bool = False,
    identity: int = 0,
) -> StepProof:
    """The proof of a step. ``before``: what an earlier proof, made with ``backward``, enclosed at u on this batch.

    ``backward`` asks for the switching function at w too, which the next step of a full-batch run starts from.
    ``identity`` > 0 makes (d) on the first samples of the batch, at most so many. Raises InputError for what has no
    enclosure: a stage, a loss, a regulariser, a control outside its admissible set.
    """
    if before is None or before.switching is None:
        before = sweep.switching(step.u, step.x, step.y)
    after = (sweep.switching if backward else sweep.losses)(step.w, step.x, step.y)
    maximised = examine(problem, step.u, step.w, step.direction, step.metric, step.eps, step.rho)
    with quiet():
        descended, close = descent(problem, test, step, before, after), closeness(step.switching, before.switching)
    return StepProof(
        descent=descended,
        closeness=close,
        maximised=maximised,
        identity=identity_of(problem, sweep, step, identity) if identity else None,
        before=before,
        after=after,
    )


def descent(problem: Problem, test: Acceptance, step: Step, before: Enclosed, after: Enclosed) -> Descent:
    """(a). A run without a test is held against the absolute inequality."""
    u, w = exactly(step.u), exactly(step.w)
    nothing = map_controls(np.zeros_like, u)
    penalty = penalty_change(problem, u, w, step.rho)
    delta = widened(change(before.losses, after.losses), penalty)
    tau = squared_length(u, w, step.metric)
    if isinstance(test, RelativeTest):
        increment = widened(inner(before.switching, u, w), Interval(-penalty.upper, -penalty.lower))
        bound = times(-Fraction(test.eta1), increment)
        verdict = joint([compare(delta, bound), positive(increment)])
    else:
        eta = test.eta if isinstance(test, AbsoluteTest) else AbsoluteTest().eta
        bound = times(-Fraction(eta), tau)
        verdict = compare(delta, bound)
    return Descent(
        verdict=verdict,
        J_before=widened(before.loss, penalty_change(problem, nothing, u, step.rho)),
        J_after=widened(after.loss, penalty_change(problem, nothing, w, step.rho)),
        delta_J=delta,
        bound=bound,
        tau=tau,
        missing=max(0.0, delta.upper - bound.lower) if verdict is Verdict.UNDECIDED else 0.0,
    )


def compare(left: Interval, right: Interval) -> Verdict:
    """left ≤ right, of exact numbers in the two intervals; NaN decides nothing."""
    if left.upper <= right.lower:
        return Verdict.PROVEN
    return Verdict.REFUTED if left.lower > right.upper else Verdict.UNDECIDED


def positive(a: Interval) -> Verdict:
    """a > 0."""
    return Verdict.PROVEN if a.lower > 0 else Verdict.REFUTED if a.upper <= 0 else Verdict.UNDECIDED


def exactly(controls: Controls) -> Controls:
    """The controls in float64, which holds them exactly."""
    return map_controls(lambda a: np.asarray(to_numpy(a), dtype=np.float64), controls)


def change(before: Ball, after: Ball) -> Interval:
    """L(w) − L(u): the mean of Φ_s(w) − Φ_s(u)."""
    mid = after.mid - before.mid
    return mean(Ball(mid, (after.rad + before.rad + U * np.abs(mid)) * (1 + 8 * U)))


def widened(a: Interval, b: Interval) -> Interval:
    """a + b, rounded outwards."""
    ends = (a.lower, a.upper, b.lower, b.upper)
    if not all(map(math.isfinite, ends)):
        return Interval(-math.inf, math.inf)
    low, high = Fraction(a.lower) + Fraction(b.lower), Fraction(a.upper) + Fraction(b.upper)
    return outward(low, high)


def times(factor: Fraction, a: Interval) -> Interval:
    """factor · a, rounded outwards."""
    if not (math.isfinite(a.lower) and math.isfinite(a.upper)):
        return Interval(-math.inf, math.inf)
    ends = sorted(factor * Fraction(v) for v in (a.lower, a.upper))
    return outward(*ends)


def squared_length(u: Controls, w: Controls, metric: Any) -> Interval:
    """τ = Σ d_i(w_i − u_i)²: each term rounds five times at most, their sum once."""
    weights = [1.0] * len(list(arrays_of(u))) if metric is None else list(arrays_of(exactly(metric)))
    terms = [(d * (b - a) ** 2).ravel() for a, b, d in zip(arrays_of(u), arrays_of(w), weights, strict=True)]
    total = sum_of(np.concatenate(terms))
    if not math.isfinite(total):
        return Interval(0.0, math.inf)
    tau = Fraction(total)
    slack = Fraction(8 * U)
    tiny = Fraction(1e-290)  # covers underflow
    return outward(max(Fraction(0), tau * (1 - slack) - tiny), tau * (1 + slack) + tiny)


def inner(g: Any, u: Controls, w: Controls) -> Interval:
    """⟨g, w − u⟩ for all g of the enclosure."""
    middle, radius = [], []
    for ball, a, b in zip(arrays_of(g), arrays_of(u), arrays_of(w), strict=True):
        way = b - a
        term = ball.mid * way
        middle.append(term.ravel())
        radius.append((np.broadcast_to(ball.rad, way.shape) * np.abs(way) + 4 * U * np.abs(term)).ravel())
    sums = sum_of(np.concatenate(middle)), sum_of(np.concatenate(radius))
    if not all(map(math.isfinite, sums)):
        return Interval(-math.inf, math.inf)
    centre, spread = map(Fraction, sums)
    reach = spread * (1 + Fraction(16 * U)) + abs(centre) * Fraction(2 * U) + Fraction(1e-290)
    return outward(centre - reach, centre + reach)


def closeness(used: Controls, enclosed: Any) -> Closeness:
    """(b)."""
    distance, width, inside = 0.0, 0.0, True
    for g, ball in zip(arrays_of(used), arrays_of(enclosed), strict=True):
        g = np.asarray(to_numpy(g), dtype=np.float64)
        size = float(np.max(np.abs(ball.mid), initial=0.0))
        off = np.abs(g - ball.mid) - ball.rad
        inside &= bool(np.all(off <= 0))
        if size > 0:
            distance = max(distance, float(np.max(off)) / size)
            width = max(width, float(np.max(ball.rad)) / size)
    return Closeness(inside, max(distance, 0.0), width)


def identity_of(problem: Problem, sweep: IntervalSweep, step: Step, samples: int) -> Identity | None:
    """(d) on the first samples of the batch; None where T7b has no enclosure (standardisation, kinks).

    Undecided where the segment is too long for the jets of T7b, whose enclosures then end in no number.
    """
    x, y = step.x[:samples, ...], step.y[:samples, ...]
    u, w = exactly(step.u), exactly(step.w)
    try:
        found: StepCertificate = certify_step(problem, u, w, x, y, rho=step.rho, max_parts=PARTS)
    except InputError:
        return None
    before, after = sweep.switching(u, x, y), sweep.losses(w, x, y)
    left = widened(change(before.losses, after.losses), inner(before.switching, u, w))  # the penalty cancels
    right = found.remainder
    apart = left.upper < right.lower or right.upper < left.lower
    finite = all(map(math.isfinite, (left.lower, left.upper, right.lower, right.upper)))
    verdict = Verdict.REFUTED if apart else Verdict.PROVEN if finite else Verdict.UNDECIDED
    return Identity(verdict, left, right, int(x.shape[0]))
