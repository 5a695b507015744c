"""T20: the nearest control of a wished size, and runs that end there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE
from pmp_ref.augmentation import ClassicRule, FixedRule
from pmp_ref.bsqh import bsqh
from pmp_ref.cardinality import PRICE, AtMost, nearest
from pmp_ref.controls import map_controls, to_vector
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric
from pmp_ref.regulariser import L0
from pmp_ref.result import Verdict
from pmp_ref.stop import Stop
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims import problems
from verification.claims.problems import Setting


def kernel_mask(s: Setting) -> np.ndarray:
    """True at the entries of kernels, in the order of ``to_vector``."""
    parts = [
        np.full(math.prod(shape), name == "kernel")
        for names, shapes in zip(s.problem.network.names(), s.problem.network.control_shapes, strict=True)
        for name, shape in zip(names, shapes, strict=True)
    ]
    return np.concatenate(parts)


@claim(
    tag="T20",
    title="The nearest control of a wished size",
    statement="u on the k entries of P with the largest d_i u_i², 0 on the rest of P: ‖w − u‖_D ≤ ‖v − u‖_D, v ∈ U_k",
)
def nearest_of_a_size(context: Context) -> Outcome:
    """Statement: the projection has at most k nonzero kernel entries, leaves all other controls alone, and no control
    with at most k nonzero kernel entries is nearer in ‖·‖_D.

    Hypotheses: 0 is admissible in every kernel entry.

    Measured: small dense chains with entries that tie and entries that are 0, with and without a metric: the squared
    distance against the least over all supports of k entries, found one by one; bound 100u, relative. The number of
    nonzero entries and the controls outside P are compared exactly, and among ties the first stay.
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.dense(case, samples=2)
        mask, names = kernel_mask(s), s.problem.network.names()
        size = int(mask.sum())
        u = map_controls(lambda a: case.asarray(case.rng.integers(-3, 4, a.shape) / 4), s.controls)
        d = None
        if case.index % 2:
            d = map_controls(lambda a: case.asarray(case.rng.choice([0.5, 1.0, 2.0], a.shape)), u)
        before, weights = to_vector(u), np.ones(mask.size) if d is None else to_vector(d)
        squares = (weights * before**2)[mask]
        for k in {1, 2, size - 1, size}:
            after = to_vector(nearest(names, u, d, k))
            distance = math.fsum(weights * (after - before) ** 2)
            if math.comb(size, k) <= 20_000:
                off = (math.fsum(np.delete(squares, list(kept))) for kept in itertools.combinations(range(size), k))
                yield Check(distance - min(off), 100 * context.u * (1 + distance), f"distance, k = {k}, {s.name}")
            yield holds(np.count_nonzero(after[mask]) <= k, f"at most {k} entries, {s.name}")
            yield holds(np.array_equal(after[~mask], before[~mask]), f"controls outside P, {s.name}")
            gone = np.flatnonzero(squares * (after[mask] == 0) * (squares > 0))
            kept = np.flatnonzero(after[mask])
            tie = [i for i in gone for j in kept if squares[i] == squares[j] and i < j]
            yield holds(not tie, f"ties, k = {k}, {s.name}")

    return survey(context, one, micro=6, quick=24, full=200)


@claim(
    tag="T20a",
    title="A run to a wished size",
    statement="at most k nonzero kernel entries at the end; every step accepted by J of its own ρ, one ρ for a control",
    dtypes=("float64",),
)
def runs_to_a_size(context: Context) -> Outcome:
    """Statement: a run with a wish k ends with at most k nonzero kernel entries. Between two projections each accepted
    step has J(w) − J(u) ≤ −ητ for the J of its own ρ; ρ is the same in all trials of a control, is 0 before ``start``,
    follows the law of the section from the numbers of nonzero entries, and stays from ``hold`` on while n ≤ k.

    Hypotheses: every kernel entry is penalised by a regulariser that gives zeros; the run has a known length.

    Measured: full-batch and mini-batch runs with rejections, identity and gradient metric, several k, and runs that end
    early. The law is
    evaluated anew here, from the records alone, bound 10⁻⁹; the rest by comparing numbers.
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.dense(case, samples=12, admissible=WHOLE_LINE, rho=0.0, regulariser=L0())
        size = int(kernel_mask(s).sum())
        s = replace(s, problem=replace(s.problem, rho=float(case.choose(0.0, 0.05))))
        wish = AtMost(float(case.choose(2, 5, 0.4)), start=0.1, stop=0.4, hold=0.6)
        k = wish.at_end(size)
        batch = None if case.index % 2 else 4
        metric: dict[str, Any] = {"metric": GradientMetric()} if case.index % 3 else {}
        method = Method(rule=ClassicRule(eps0=0.01, sigma=2.0, zeta=0.5), wish=wish, **metric)
        length = 40
        stop = Stop(steps=length) if batch is None else Stop(epochs=length)
        result = bsqh(s.problem, s.controls, s.x, s.y, stop=stop, method=method, batch_size=batch, seed=case.index)
        end = to_vector(result.controls)[kernel_mask(s)]
        yield holds(np.count_nonzero(end) <= k, f"k = {k} of {size}, {s.name}")
        for r in result.steps:
            yield Check(r.delta_J + method.acceptance.eta * r.tau, 0.0, f"descent at step {r.step}, {s.name}")
        early = Method(rule=FixedRule(eps0=1e-9)).wishing(wish.keep)  # its first failed trial ends the run
        broken = bsqh(s.problem, s.controls, s.x, s.y, stop=stop, method=early, batch_size=None)
        end = to_vector(broken.controls)[kernel_mask(s)]
        yield holds(np.count_nonzero(end) <= k, f"a run that ends early, k = {k} of {size}, {s.name}")
        given = Method.minibatch().wishing(wish.keep)
        yield holds(given.wish == AtMost(wish.keep) and given.ramp is None, "a wish in place of the ramp")
        last = method.last_rho(s.problem.rho, result.iterate, 1.0)
        yield holds(last == [r.rho for r in result.records][-1], f"the last ρ, {s.name}")
        yield from law(wish, s, result, k, size, length, 1 if batch is None else -(-12 // batch))

    return survey(context, one, micro=6, quick=18, full=60)


def law(wish: AtMost, s: Setting, result: Any, k: int, size: int, length: int, batches: int) -> Iterator[Check]:
    """ρ of each record against the law, from the numbers of nonzero entries before it."""
    n, kappa, last, rho = size, s.problem.rho * k or PRICE, 0.0, 0.0
    for r in result.records:
        if r.verdict is Verdict.PROJECTED:
            yield holds(n > k and r.nonzeros == k, f"projection from {n} to {r.nonzeros}, k = {k}, {s.name}")
            n = k
            continue
        done = r.step - r.accepted if batches == 1 else r.epoch + r.position / batches
        t = done / length
        if t >= wish.start and not (t >= wish.hold and n <= k and rho > 0):
            a = min(1.0, (t - wish.start) / (wish.stop - wish.start))
            wanted = size if a * size <= k else k / a
            e = a * float(np.clip(math.log(max(n, 1)) - math.log(wanted), -2, 2))
            kappa *= math.exp(wish.rate * (t - last) * e)
            rho = kappa * math.exp(wish.gain * e) / wanted
        last = t
        yield Check(abs(r.rho - rho), 1e-9 * (1 + rho), f"ρ at t = {t:.3f}, {s.name}")
        if r.accepted:
            n = r.nonzeros
