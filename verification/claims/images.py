"""Images as they are: a network behind ``Pixels`` finds for bytes what it finds without that stage for the images that
loops standardise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE
from pmp_ref.bounds.ball import ball_bound
from pmp_ref.bounds.coarse import global_constant, radii_around
from pmp_ref.bounds.intervals import Point
from pmp_ref.bounds.segment import Jet, Rows, enclose_stage
from pmp_ref.bounds.step import certify_step
from pmp_ref.certificate import certify
from pmp_ref.controls import add, scaled, to_vector
from pmp_ref.kernels import FastSweep
from pmp_ref.layers import Pixels
from pmp_ref.loss import CrossEntropy
from pmp_ref.network import headed
from pmp_ref.problem import Problem
from pmp_ref.proofs import arithmetic as ar
from pmp_ref.proofs.stages import rule as rule_of
from pmp_ref.regulariser import L0
from pmp_ref.second_order import hessian_vector
from pmp_ref.sweep import Sweep
from verification import oracles
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims import problems, runs
from verification.claims.fast_path import far
from verification.claims.forward_maps import host, switching
from verification.claims.problems import Setting


def as_they_are(case: Case, s: Setting) -> tuple[Setting, Setting]:
    """The problem behind Pixels with bytes for images; and itself with the images that loops make of the bytes, float64
    on the host."""
    mean, std = case.rng.uniform(0.25, 0.75, (2, s.network.input_shape[0])).tolist()
    head, raw = Pixels(mean, std), case.rng.integers(0, 256, s.x.shape, np.uint8)
    p = s.problem
    problem = Problem(
        headed(head, s.network),
        p.loss,
        ((), *p.regulariser),
        rho=p.rho,
        admissible=((), *p.admissible),
        weights=((), *p.weights),
        sweep=Sweep(headed(head, s.network), p.loss, chunk=2),
    )
    there = replace(s, problem=problem, controls=((), *s.controls), x=case.asarray(raw))
    return there, replace(problems.host(s), x=oracles.forward_by_loops(head, raw, ()))


def close(found: Any, due: Any, bound: float, what: str) -> Check:
    """‖found − due‖/(1 + ‖due‖)."""
    found, due = np.asarray(found, np.float64), np.asarray(due, np.float64)
    return Check(float(np.linalg.norm(found - due)) / (1 + float(np.linalg.norm(due))), bound, what)


def sweeps(case: Case, there: Setting, here: Setting) -> Iterator[Check]:
    """Losses, switching functions, second derivatives, certificate: in the run's dtype, the certificate in float64."""
    bound, exactly = 3200 * case.context.u, 3200 * 2.0**-53
    found = there.problem.sweeper.forward_backward(there.controls, there.x, there.y)
    due = here.problem.sweeper.forward_backward(here.controls, here.x, here.y)
    yield close(host(found.losses), due.losses, bound, f"Φ_s, {here.name}")
    yield close(to_vector(switching(found)), to_vector(switching(due)), bound, f"g, {here.name}")
    v = problems.direction(case, there.controls)
    curved = to_vector(hessian_vector(there.problem, there.controls, there.x, there.y, v))
    along = problems.host(replace(there, controls=v)).controls[1:]
    due_curved = to_vector(hessian_vector(here.problem, here.controls, here.x, here.y, along))
    yield close(curved, due_curved, bound, f"D²L_B v, {here.name}")
    c = certify(there.problem, there.controls, there.x, there.y)
    d = certify(here.problem, here.controls, here.x, here.y)
    yield Check(abs(c.J - d.J) / (1 + abs(d.J)), exactly, f"J of the certificate, {here.name}")
    yield Check(abs(c.eps_star - d.eps_star) / (1 + d.eps_star), 1e3 * exactly, f"ε*, {here.name}")
    largest = there.problem.check(there.controls, there.x, there.y)
    yield Check(abs(largest - float(np.max(np.abs(here.x)))), 16 * case.context.u, f"the largest value, {here.name}")


def fast_path(there: Setting, here: Setting) -> Iterator[Check]:
    """The fast sweep, its workspace used for two batches, in float64."""
    there, bound = problems.host(there), 1e4 * 2.0**-53
    fast = FastSweep(there.network, there.problem.loss, threads=1, chunk=2)
    head = there.network.stages[0]
    for raw in (there.x, 255 - there.x):
        e = fast.forward_backward(there.controls, raw, there.y)
        x = oracles.forward_by_loops(head, raw, ())
        due = here.problem.sweeper.forward_backward(here.controls, x, here.y)
        yield Check(far(e.losses, due.losses) / (1 + float(np.max(due.largest))), bound, f"fast Φ_s, {here.name}")
        g, exact = to_vector(switching(e)), to_vector(switching(due))
        yield Check(far(g, exact) / (1 + float(np.max(np.abs(exact)))), bound, f"fast g, {here.name}")


def bounds(case: Case, there: Setting, here: Setting) -> Iterator[Check]:
    """T7, T7a and T7b begin with x_1: the same constants, and intervals that meet, wider by roundings of x_1 alone."""
    there, u = problems.host(there), here.controls
    radii = radii_around(u, 0.5)
    found = global_constant(there.problem, ((), *radii), there.x, there.y)
    due = global_constant(here.problem, radii, here.x, here.y)
    yield Check(abs(found / due - 1), 1e-9, f"C̄ on a set, {here.name}")
    if here.network.is_chain and isinstance(here.problem.loss, CrossEntropy):
        found = ball_bound(there.problem, there.controls, there.x, there.y)(0.25)
        due = ball_bound(here.problem, u, here.x, here.y)(0.25)
        yield Check(abs(found / due - 1), 1e-6, f"C̄ on a ball, {here.name}")
    w = add(u, scaled(0.01, problems.direction(case, u)))
    one = certify_step(there.problem, there.controls, ((), *w), there.x, there.y, order=4, max_parts=16)
    two = certify_step(here.problem, u, w, here.x, here.y, order=4, max_parts=16)
    for name in ("remainder", "slope", "direct"):
        a, b = getattr(one, name), getattr(two, name)
        yield holds(a.lower <= b.upper and b.lower <= a.upper, f"the two enclosures of the {name} meet, {here.name}")
        yield Check(a.width, 2 * b.width + 1e-12, f"width of the {name}, {here.name}")


def rounding(case: Case) -> Iterator[Check]:
    """The enclosures of x_1 in T7b and T24 against rationals, for all bytes: they hold it, and are not far too wide."""
    mean, std = case.rng.uniform(0.1, 0.9, (2, 2)).tolist()
    stage, raw = Pixels(mean, std), np.arange(256.0).reshape(1, 1, 256).repeat(2, axis=1)
    exact = [
        [(Fraction(x) / 255 - Fraction(m)) / Fraction(s) for x in range(256)] for m, s in zip(mean, std, strict=True)
    ]
    rows = Rows(np.zeros(1, int), np.full(1, 0.5), np.full(1, 0.5), 2)
    jet = enclose_stage(stage, Jet((Point(raw, np.zeros(1)), None), None, moving=False), (), (), rows)
    ball, _ = rule_of(stage, 0).forward(stage, ar.exact(raw), (), None)
    entry = jet.thin[0]
    assert entry is not None
    needed = max(abs(a) for a in apart(exact, entry.mid))
    yield Check(float(needed / Fraction(float(entry.err[0]))), 1.0, "T7b: roundings of x_1, in radii")
    yield Check(float(entry.err[0]), 256 * 2.0**-53 / min(std), "T7b: radius of x_1")
    length = float(sum(a * a for a in apart(exact, ball.mid))) ** 0.5
    yield Check(length / float(ball.rad[0]), 1.0, "T24: roundings of x_1, in radii")
    yield Check(float(ball.rad[0]), 16 * length, "T24: radius of x_1")


def apart(exact: list[list[Fraction]], found: np.ndarray) -> list[Fraction]:
    """exact − found, entry by entry."""
    flat = [a for channel in exact for a in channel]
    return [a - Fraction(b) for a, b in zip(flat, found.ravel().tolist(), strict=True)]


@claim(
    tag="T0f",
    title="Images as they are",
    statement="Λ_0(x) = (x/255 − m)/s of bytes x: J, g, D²L_B v, ε* and bounds are those of the standardised images",
)
def images(context: Context) -> Outcome:
    """Statement: a network behind Pixels finds for bytes what the network finds for the images that loops standardise.

    Hypotheses: none for the sweeps; networks without standardisation for the bounds, which are computed on the host.
    Measured: Φ_s, g, D²L_B v of the clear sweep, all relative to 1 + their norm; J and ε* of the certificate, to
    roundings of float64 in every dtype; Φ_s and g of the fast sweep in a used workspace; the constants of T7 and T7a;
    that the intervals of T7b meet and are at most twice as wide; the roundings of x_1 in T7b and T24 against rationals.
    """

    def one(case: Case) -> Iterator[Check]:
        draw = problems.kinked if case.index % 4 == 3 else runs.enclosable
        loss = CrossEntropy() if case.index % 2 == 0 else None
        s = draw(case, regulariser=L0(), admissible=WHOLE_LINE, loss=loss, samples=3)
        there, here = as_they_are(case, s)
        yield from sweeps(case, there, here)
        yield from fast_path(there, here)
        if draw is runs.enclosable:
            yield from bounds(case, there, here)
        yield from rounding(case)

    return survey(context, one, micro=4, quick=16, full=80)
