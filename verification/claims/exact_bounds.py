"""Bounds and enclosures against exact rationals: what T7 and T7b rest on, operation by operation, rounding included.

A float64 is a dyadic rational, so ``Fraction`` knows sums and products of floats exactly; ``Decimal`` with 50 digits
serves for exp. ``inside`` asks that the exact number lies between the ends, without any tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.admissible import Box
from pmp_ref.bounds.coarse import radii_of_box
from pmp_ref.bounds.intervals import Ball, Point, hull
from pmp_ref.bounds.jets import Jet, Rows, tails
from pmp_ref.bounds.segment import activate, affine, average
from pmp_ref.bounds.step import Interval, StepCertificate, change, mean_interval, squared_length
from pmp_ref.bounds.taylor import suprema
from pmp_ref.bounds.terminal import corner_softmax
from pmp_ref.layers import AveragePool, Dense, Sigmoid, SiLU, Softplus, Tanh
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from verification.claim import Case, Check, holds


def exact_arithmetic(case: Case) -> Iterator[Check]:
    """All of them."""
    for part in (balls, points, sums, stages, activations, jets, softmax_corners, part_changes, quotients, box_radii):
        yield from part(case)


def fractions(a: Any) -> list[Fraction]:
    """The entries of an array, exactly."""
    return [Fraction(float(v)) for v in np.ravel(a)]


def inside(ball: Ball, exact: Iterable[Fraction], name: str) -> Check:
    """How many of the exact numbers lie outside their entry of the ball; NaN counts."""
    mid, rad = (fractions(np.broadcast_to(a, ball.mid.shape)) for a in (ball.mid, ball.rad))
    outside = sum(not (m - r <= x <= m + r) for m, r, x in zip(mid, rad, exact, strict=True))
    return Check(float(outside), 0.0, f"{name}: exact values outside")


def narrow(ball: Ball, least: Iterable[Fraction], name: str) -> Check:
    """The radius over the least one that would do."""
    rad = fractions(np.broadcast_to(ball.rad, ball.mid.shape))
    ratio = max(float(r / m) if m else 1.0 for r, m in zip(rad, least, strict=True))
    return Check(ratio, 1 + 1e-6, f"{name}: radius over the least")


def drawn(case: Case, shape: tuple[int, ...], width: float) -> Ball:
    """A ball with random entries; radius 0 where ``width`` is 0."""
    return Ball(case.rng.standard_normal(shape), width * case.rng.random(shape))


def ends(ball: Ball) -> list[list[Fraction]]:
    """Midpoints, lower and upper ends, exactly."""
    mid, rad = fractions(ball.mid), fractions(ball.rad)
    return [mid, [m - r for m, r in zip(mid, rad, strict=True)], [m + r for m, r in zip(mid, rad, strict=True)]]


def balls(case: Case) -> Iterator[Check]:
    """Sums, products and squares of balls at the ends of both."""
    for width in (0.0, 0.3):
        a, b, c = drawn(case, (8,), width), drawn(case, (8,), width), float(case.rng.standard_normal())
        for x in ends(a):
            for y in ends(b):
                yield inside(a + b, [p + q for p, q in zip(x, y, strict=True)], "ball + ball")
                yield inside(a - b, [p - q for p, q in zip(x, y, strict=True)], "ball − ball")
                yield inside(a * b, [p * q for p, q in zip(x, y, strict=True)], "ball · ball")
            yield inside(a * c, [p * Fraction(c) for p in x], "ball · number")
            yield inside(a.square(), [p * p for p in x], "ball²")
            below, above = fractions(a.lower), fractions(a.upper)
            out = sum(not l <= p <= u for l, p, u in zip(below, x, above, strict=True))
            yield Check(float(out), 0.0, "ends of a ball: exact values outside")
        _, low, high = ends(a)
        around = hull(np.array([float(v) for v in low]), np.array([float(v) for v in high]))
        for x in (low, high):
            yield inside(around, [Fraction(float(v)) for v in x], "hull")


def points(case: Case) -> Iterator[Check]:
    """Sums and products of points, one radius for a row, and the length of a row."""
    for width in (0.0, 0.2):
        a, b = (Point(case.rng.standard_normal((3, 5)), width * case.rng.random(3)) for _ in range(2))
        c = float(case.rng.standard_normal())
        for s in (-1, 1):
            x, y = (
                [m + s * r for m, r in zip(fractions(p.mid), fractions(np.repeat(p.err, 5)), strict=True)]
                for p in (a, b)
            )
            yield inside((a + b).ball(), [p + q for p, q in zip(x, y, strict=True)], "point + point")
            yield inside((a * b).ball(), [p * q for p, q in zip(x, y, strict=True)], "point · point")
            yield inside((a * c).ball(), [p * Fraction(c) for p in x], "point · number")
            for i, length in enumerate(fractions(a.length)):
                square = sum((v * v for v in x[5 * i : 5 * i + 5]), Fraction(0))
                yield Check(float(length * length < square), 0.0, "length of a point: below the exact one")


def sums(case: Case) -> Iterator[Check]:
    """Sums along an axis, with terms that nearly cancel; means of interval ends."""
    big = case.rng.standard_normal((2, 20)) * 1e3
    terms = np.concatenate([big, case.rng.standard_normal((2, 20)) - big], axis=1)
    exact = [sum(fractions(row), Fraction(0)) for row in terms]
    yield inside(Ball(terms, np.zeros(terms.shape)).total(1), exact, "sum of 40 numbers")
    found = mean_interval(terms[0], terms[1])
    for end, total, sign in ((found.lower, exact[0], 1), (found.upper, exact[1], -1)):
        yield Check(float(sign * Fraction(end) > sign * total / 40), 0.0, "end of a mean: on the wrong side")
    for broken in (np.nan, np.inf):
        some = np.array([0.0, broken])
        whole = (mean_interval(some, np.ones(2)), mean_interval(np.zeros(2), some))
        wrong = sum((i.lower, i.upper) != (-math.inf, math.inf) for i in whole)
        yield Check(float(wrong), 0.0, "mean with an end that is not finite")


def stages(case: Case) -> Iterator[Check]:
    """z_0 and z_1 of a dense stage with moving controls, and means of average pooling, of an exactly known state."""
    for size in (1.0, 1e-9):
        yield from dense_stage(case, size, 0.0)
        yield from dense_stage(case, size, 0.5)
    image = case.rng.standard_normal((1, 1, 3, 6))
    pooled = average(AveragePool((3, 3)), Jet((Point(image, np.zeros(1)), None), Ball(image, np.abs(image))))
    exact = [sum(fractions(image[..., 3 * i : 3 * i + 3]), Fraction(0)) / 9 for i in range(2)]
    assert pooled.thin[0] is not None and pooled.top is not None
    yield inside(pooled.thin[0].ball(), exact, "average pooling")
    upper = [sum((v + abs(v) for v in fractions(image[..., 3 * i : 3 * i + 3])), Fraction(0)) / 9 for i in range(2)]
    yield inside(pooled.top, upper, "average pooling of a ball")


def dense_stage(case: Case, size: float, err: float) -> Iterator[Check]:
    """z_0 and z_1 of sums that nearly cancel: controls of that size on the step Δ, a state known up to ``err``."""
    n, c = 40, 0.375
    u, d = case.rng.standard_normal((2, 3, n)), case.rng.standard_normal((2, 3))
    x = np.concatenate([case.rng.standard_normal((1, n // 2)) * 1e3] * 2, axis=1) * np.repeat([1.0, -1.0], n // 2)
    u[:, :, n // 2 :] = u[:, :, : n // 2] * (1 + 1e-9)
    u[0], d[0] = size * u[0], size * d[0]
    rows = Rows(np.array([0]), np.array([c]), np.array([0.125]), 2)
    state = Jet((Point(x, np.array([err])), None), None, moving=False)
    jet = affine(Dense(3), state, (u[0], d[0]), (u[1], d[1]), rows)
    assert jet.thin[0] is not None and jet.thin[1] is not None

    def dot(o: int, m: int) -> Fraction:
        """Output o of control (m = 0) or step (m = 1) for the state that leads furthest up, exactly."""
        signs = np.sign(u[0, o] + c * u[1, o])
        true = [p + Fraction(err) * int(s) for p, s in zip(fractions(x), signs, strict=True)]
        return sum((p * q for p, q in zip(fractions(u[m, o]), true, strict=True)), Fraction(float(d[m, o])))

    still, moving = ([dot(o, m) for o in range(3)] for m in (0, 1))
    name = f"dense, controls of size {size:g} on the step, state known to {err}"
    yield inside(jet.thin[0].ball(), [a + Fraction(c) * b for a, b in zip(still, moving, strict=True)], f"{name}: z_0")
    yield inside(jet.thin[1].ball(), moving, f"{name}: z_1")


def activations(case: Case) -> Iterator[Check]:
    """σ of a state known up to an error: the error goes on as sup|σ′| times it, and no more."""
    for stage in (Tanh(), Sigmoid(), Softplus(), SiLU()):
        z, err = case.rng.standard_normal((1, 3)), 0.1
        rows = Rows(np.array([0]), np.array([0.5]), np.array([0.125]), 2)
        state = Point(z, np.array([err]))
        found = activate(stage, Jet((state, state), Ball(z, np.abs(z))), rows).thin[0]
        assert found is not None
        yield Check(float(found.err[0]), err * suprema(stage)[1] * (1 + 1e-9) + 1e-13, f"error behind {stage}")


def jets(case: Case) -> Iterator[Check]:
    """x_[k] over a part of half width h, by the coefficients above it: met at the end s = h where all are positive."""
    h, order = Fraction(1, 8), 4
    x = [case.rng.uniform(0.5, 2.0, (1, 3)) for _ in range(order + 1)]
    for first in (1, 2):  # coefficients below are zero
        thin = [None if k < first else Ball(x[k], np.zeros((1, 3))) for k in range(order)]
        for top in (None, Ball(x[order], np.zeros((1, 3)))):
            found = tails(thin, top, np.array([float(h)]))
            for k in range(1, order):
                above = [(j, fractions(x[j])) for j in range(k + 1, order + (top is not None))]
                reach = [sum((v[i] * h ** (j - k) for j, v in above), Fraction(0)) for i in range(3)]
                at = [Fraction(0)] * 3 if k < first else fractions(x[k])
                ball, name = found[k], f"x_[{k}] over a part"
                assert ball is not None
                for sign in (1, -1) if k < first else (1,):
                    yield inside(ball, [a + sign * b for a, b in zip(at, reach, strict=True)], name)
                if above:
                    yield narrow(ball, reach, name)


def softmax_corners(case: Case) -> Iterator[Check]:
    """Softmax at the corners of a box, and on a box that is a point, with 50 digits."""
    for width in (0.0, 0.7):
        low = case.rng.standard_normal((2, 4)) * 3
        high = low + width * case.rng.random((2, 4))
        found = corner_softmax(low, high)
        with localcontext() as digits:
            digits.prec = 50
            for own, others in ((low, high), (high, low)):
                exact = []
                for row in range(2):
                    for i in range(4):
                        gaps = [
                            Decimal(float(others[row, j])) - Decimal(float(own[row, i])) for j in range(4) if j != i
                        ]
                        exact.append(Fraction(1 / (1 + sum((g.exp() for g in gaps), Decimal(0)))))
                yield inside(found, exact, "softmax on a box")
                if width:
                    least = [abs(a - b) for a, b in zip(exact, fractions(found.mid), strict=True)]
                    yield narrow(found, least, "softmax on a box")


def part_changes(case: Case) -> Iterator[Check]:
    """φ(c + h) − φ(c − h), exactly, for polynomials; the quotient is mid + rad at one end, mid − rad at the other."""
    h = Fraction(1, 8)
    for order in (2, 3, 4):
        phi = [Ball(case.rng.standard_normal(1), np.zeros(1)) for _ in range(order)]
        for width in (0.0, 0.5):
            phi_n = Ball(case.rng.standard_normal(1), np.array([width]))
            found = change([*phi, phi_n], np.array([float(h)]), order)
            values = [Fraction(float(ball.mid[0])) for ball in phi]
            for ahead, behind in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                ends = []
                for s, sign in ((h, ahead), (-h, behind)):
                    top = Fraction(float(phi_n.mid[0])) + sign * Fraction(width)
                    ends.append(sum((v * s**k for k, v in enumerate(values)), top * s**order))
                yield inside(found, [ends[0] - ends[1]], f"change over a part, order {order}")
            if width:
                yield narrow(found, [2 * h**order * Fraction(width)], f"change over a part, order {order}")


def quotients(case: Case) -> Iterator[Check]:
    """Ĉ, ΣΔH and J(w) − J(u) from their parts; τ."""
    a, b = (((case.rng.standard_normal((3, 4)),),) for _ in range(2))
    tau = squared_length(a, b)
    exact = sum(((q - p) ** 2 for p, q in zip(fractions(a[0][0]), fractions(b[0][0]), strict=True)), Fraction(0))
    yield holds(Fraction(tau.lower) <= exact <= Fraction(tau.upper), "τ: exact value outside")
    zero = Interval(0.0, 0.0)
    for low, high in ((0.3, 0.7), (-0.7, -0.3), (-0.7, 0.3)):
        c = StepCertificate(
            Interval(low, high), Interval(-0.9, -0.8), Interval(0.1, 0.15), zero, Interval(0.4, 0.6), 4, 1.0, 1
        )
        values = [Fraction(x) / Fraction(t) for x in (low, high) for t in (0.4, 0.6)]
        for name, found, wanted in (
            ("Ĉ", c.c_hat, (min(values), max(values))),
            ("ΣΔH", c.sum_dh, (Fraction(0.8) - Fraction(0.15), Fraction(0.9) - Fraction(0.1))),
            (
                "J(w) − J(u)",
                c.delta_J,
                (Fraction(low) - Fraction(0.9) + Fraction(0.1), Fraction(high) - Fraction(0.8) + Fraction(0.15)),
            ),
        ):
            off = max(Fraction(found.lower) - wanted[0], wanted[1] - Fraction(found.upper))
            wide = max(wanted[0] - Fraction(found.lower), Fraction(found.upper) - wanted[1])
            yield Check(float(off > 0), 0.0, f"{name} from its parts: exact values outside")
            yield Check(float(wide), 1e-14, f"{name} from its parts: wider than they are")
        yield holds(math.isfinite(c.looseness) == (low > 0), "looseness where the lower end is not positive")
        if low > 0:
            yield Check(abs(c.looseness - high / low), 1e-14, "looseness")


def box_radii(case: Case) -> Iterator[Check]:
    """‖u_l‖ of float32 controls at a bound that float32 rounds outwards."""
    problem = Problem(Network((Dense(2, bias=False),), (3,)), admissible=Box(-0.1, 0.1), rho=0.0)
    radius = Fraction(float(radii_of_box(problem)[0][0]))
    stored = Fraction(float(np.float32(0.1)))
    yield Check(float(radius**2 < 6 * stored**2), 0.0, "radius of a box: below the norm of float32 controls")
    yield Check(float(radius**2 / (6 * stored**2)), 1 + 1e-6, "radius of a box over the least")
