"""T23: ranges of Taylor quotients, and the chain rule that carries them, against 80 digits and exact rationals."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from math import factorial
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import Ball, Point, U
from pmp_ref.bounds.jets import Jet, Rows, quotient
from pmp_ref.bounds.quotients import NEAR, activation_range, exp_range, log_range
from pmp_ref.bounds.taylor import coefficients, suprema
from pmp_ref.bounds.terminal import loss_coefficients, moves
from pmp_ref.layers import Activation, Sigmoid, SiLU, Softplus, Tanh
from pmp_ref.loss import CrossEntropy, SquaredLoss
from verification.claim import Case, Check, Context, Outcome, claim, survey
from verification.claims.exact_bounds import inside

DIGITS = 80
ORDERS = (2, 3, 4)
INSIDE = (-1.0, -0.7, -0.2, 0.0, 0.3, 0.7, 1.0)  # where in the reach a quotient is looked at


# --- functions in 80 digits -------------------------------------------------------------------------------------------


def product(a: list[Decimal], b: list[Decimal], k: int) -> Decimal:
    """Coefficient k of the product of two power series."""
    return sum((a[i] * b[k - i] for i in range(k + 1)), Decimal(0))


def series(name: Any, z: Decimal, count: int) -> list[Decimal]:
    """Taylor coefficients f_0 … f_count at z, from the differential equation of each function."""
    if name == "exp":
        return [z.exp() / factorial(k) for k in range(count + 1)]
    if name == "log":
        return [z.ln(), *(-((-1 / z) ** k) / k for k in range(1, count + 1))]
    if isinstance(name, Tanh):  # t′ = 1 − t²
        t = [1 - 2 / ((2 * z).exp() + 1)]
        for k in range(count):
            t.append(((1 if k == 0 else 0) - product(t, t, k)) / (k + 1))
        return t
    s = [1 / (1 + (-z).exp())]  # s′ = s − s²
    for k in range(count):
        s.append((s[k] - product(s, s, k)) / (k + 1))
    if isinstance(name, Sigmoid):
        return s
    if isinstance(name, Softplus):
        return [(1 + z.exp()).ln(), *(s[k] / (k + 1) for k in range(count))]
    assert isinstance(name, SiLU)
    return [z * s[0], *(z * s[k] + s[k - 1] for k in range(1, count + 1))]


def exact_quotient(name: Any, z: Decimal, y: Decimal, n: int) -> Decimal:
    """q_n(z; y) by its definition."""
    f = series(name, z, n)
    if y == 0:
        return f[n]
    return (series(name, z + y, 0)[0] - sum((f[k] * y**k for k in range(n)), Decimal(0))) / y**n


# --- ranges -----------------------------------------------------------------------------------------------------------


def activation_checks(case: Case, stage: Activation, n: int) -> Iterator[Check]:
    """Quotients at seven places of the reach lie in the range; it is hardly wider than what they run through."""
    reaches = (1e-7, 0.9 * NEAR, 1.1 * NEAR, 0.4, 2.5)
    for err in (0.0, 0.01):
        z = np.concatenate([np.zeros(1), case.rng.uniform(-2.5, 2.5, 2)])[None, :]
        for reach in reaches:
            f, errors = coefficients(stage, z, n + 1)
            point = Point(z, np.array([err]))
            found = activation_range(stage, point, f, errors, np.full(z.shape, reach), n)
            columns = [places(stage, Decimal(v), Decimal(reach), Decimal(err), n) for v in z[0].tolist()]
            name = f"q_{n} of {stage}, reach {reach:.3g}, centre known to {err}"
            for row in zip(*columns, strict=True):
                yield inside(found, [Fraction(v) for v in row], name)
            if err == 0.0:
                half = np.array([float(max(c) - min(c)) / 2 for c in columns])
                bends, rounding = (2.0, 2e-13) if reach <= NEAR else (0.26, 1e-8)
                more = bends * suprema(stage)[n + 2] * reach**2 + rounding
                yield Check(float(np.max(found.rad - half)), more, f"{name}: radius beyond half the range")


def places(name: Any, z: Decimal, reach: Decimal, err: Decimal, n: int) -> list[Decimal]:
    """q_n at places of the reach, for centres at both ends of what is known."""
    shifts = (-err, err) if err else (err,)
    return [exact_quotient(name, z + shift, Decimal(s) * reach, n) for shift in shifts for s in INSIDE]


def scalar_checks(n: int) -> Iterator[Check]:
    """The quotients of exp about 0 over a reach, and of log about 1 over an interval, monotone both."""
    for reach in (1e-7, 0.9 * NEAR, 1.1 * NEAR, 3.0):
        exact = [exact_quotient("exp", Decimal(0), Decimal(s) * Decimal(reach), n) for s in INSIDE]
        more = 2.1 * min(reach, NEAR) ** 2 / factorial(n + 2)
        yield from monotone(exp_range(np.array([reach]), n), exact, more, f"q_{n} of exp, reach {reach:.3g}")
    for low, high in ((-1e-7, 1e-7), (-0.5, 0.01), (-0.001, 2.0), (-0.9, -0.3), (0.2, 30.0), (0.0, 0.0)):
        at = [Decimal(low) + Decimal(s + 1) / 2 * (Decimal(high) - Decimal(low)) for s in INSIDE]
        exact = [exact_quotient("log", Decimal(1), v, n) for v in at]
        more = 2.6 * min(max(-low, high), NEAR) ** 2 / (n + 2)
        name = f"q_{n} of log on [{low}, {high}]"
        yield from monotone(log_range(np.array([low]), np.array([high]), n), exact, more, name)


def monotone(found: Ball, exact: list[Decimal], more: float, name: str) -> Iterator[Check]:
    """All values inside, and no more of a radius than half their range and ``more``."""
    for value in exact:
        yield inside(found, [Fraction(value)], name)
    half = float(max(exact) - min(exact)) / 2
    yield Check(float(found.rad[0]) - half, more + 1e-8, f"{name}: radius beyond half the range")


# --- the chain rule ---------------------------------------------------------------------------------------------------


def chain_rule(case: Case, n: int) -> Iterator[Check]:
    """x_[n](s) of x = σ(z), σ and z polynomials of degree 5 with rational coefficients, at both ends of a part."""
    h, top = Fraction(1, 4), 5
    a, z = ([Fraction(int(v), 8) for v in case.rng.integers(-9, 10, top + 1)] for _ in range(2))
    z[1] = Fraction(case.choose(-7, 5), 8)
    for zero in (False, True):
        z[0], z[2] = Fraction(0), Fraction(0) if zero else z[2]
        x = composition(a, z)
        for s in (h, -h):
            tail = [sum((z[k + i] * s**i for i in range(top + 1 - k)), Fraction(0)) for k in range(n + 1)]
            y = s * tail[1]
            q = sum((a[j] * y ** (j - n) for j in range(n, top + 1)), Fraction(0))
            found = quotient(
                n,
                [*map(thin, a[:n]), thin(q)],
                [None if v == 0 else thin(v) for v in z[:n]],
                [None, *(None if v == 0 else thin(v) for v in tail[1:])],
                np.array([float(h)]),
            )
            exact = sum((v * s ** (k - n) for k, v in enumerate(x) if k >= n), Fraction(0))
            yield inside(found, [exact], f"x_[{n}] of a composition at s = {s}")
            e = abs(h * tail[2])
            wide = abs(a[3] * tail[2]) * (3 * abs(z[1]) * e + e**2) if n == 4 else Fraction(0)
            yield Check(float(found.rad[0]), float(wide) + 1e-12, f"x_[{n}] of a composition: radius")


def thin(value: Fraction) -> Ball:
    """A number, known up to rounding."""
    mid = float(value)
    return Ball(np.array([mid]), np.array([2 * U * abs(mid)]))


def composition(a: list[Fraction], z: list[Fraction]) -> list[Fraction]:
    """The coefficients of Σ_j a_j (z(s) − z_0)^j."""
    total, power = [Fraction(0)], [Fraction(1)]
    inner = [Fraction(0), *z[1:]]
    for v in a:
        total = [p + v * q for p, q in zip(padded(total, power), padded(power, total), strict=True)]
        power = [
            sum((power[i] * inner[k - i] for i in range(len(power)) if 0 <= k - i < len(inner)), Fraction(0))
            for k in range(len(power) + len(inner) - 1)
        ]
    return total


def padded(a: list[Fraction], like: list[Fraction]) -> list[Fraction]:
    """With zeros up to the length of the longer one."""
    return a + [Fraction(0)] * (len(like) - len(a))


# --- losses -----------------------------------------------------------------------------------------------------------


def losses(case: Case, n: int, h: float, squared: bool) -> Iterator[Check]:
    """φ_1 … φ_{n−1} and φ_[n] of a loss behind scores that are polynomials of degree n, in 80 digits."""
    classes, rows = 3, 2
    x = case.rng.standard_normal((n + 1, rows, classes)) * np.array([2.0, *[1.0] * n])[:, None, None]
    y = case.rng.standard_normal((rows, classes)) if squared else case.rng.integers(0, classes, rows)
    still = np.zeros(rows)
    jet = Jet(tuple(Point(v, still) for v in x[:n]), Ball(x[n], np.zeros((rows, classes))))
    loss = SquaredLoss() if squared else CrossEntropy()
    found = loss_coefficients(loss, y, jet, Rows(np.arange(rows), still + 0.5, still + h, n))
    phi = [score_series(x[:, r].tolist(), y[r], n, squared) for r in range(rows)]
    name = f"{type(loss).__name__}, h = {h:.3g}"
    for k in range(1, n):
        yield inside(found[k - 1], [Fraction(p[k]) for p in phi], f"φ_{k}, {name}")
        yield Check(float(np.max(found[k - 1].rad)), 1e-11, f"φ_{k}, {name}: radius")
    for s in INSIDE:
        if s:
            at = Decimal(s) * Decimal(h)
            exact = [
                (loss_at(x[:, r].tolist(), y[r], at, squared) - sum((p[k] * at**k for k in range(n)), Decimal(0)))
                / at**n
                for r, p in enumerate(phi)
            ]
            yield inside(found[n - 1], [Fraction(v) for v in exact], f"φ_[{n}], {name}")


def sums_of_exp(case: Case) -> Iterator[Check]:
    """S − 1 for S(s) = ½(e^{as} + e^{−as}) or ½(e^{as} + 1), |s| ≤ h: ends by S_1 and S_[2], and by the reach alone."""
    a, h = Decimal(float(case.rng.uniform(0.5, 3.0))), Decimal("0.5")
    p, still = Ball(np.full((1, 2), 0.5), np.zeros((1, 2))), np.zeros(1)
    endless = Ball(still, still + 1e9)
    for other, first in ((-a, Decimal(0)), (Decimal(0), a / 2)):
        ahead, behind = (((a * s).exp() + (other * s).exp()) / 2 - 1 for s in (h, -h))
        reach = np.array([[float(a * h), float(abs(other) * h)]]) * (1 + 4 * U)
        second = Ball(still + float((ahead - first * h) / h**2), np.full(1, 1e-14))
        for known, sharp in ((second, True), (endless, False)):
            low, high = moves(p, reach, Ball(still + float(first), still + 1e-16), known, still + float(h))
            for value in (ahead, behind):
                outside = not Fraction(float(low[0])) <= Fraction(value) <= Fraction(float(high[0]))
                yield Check(float(outside), 0.0, f"S − 1 over a part, S_[2] {'known' if sharp else 'unknown'}: outside")
            most = ahead if sharp else ((a * h).exp() + (abs(other) * h).exp()) / 2 - 1
            yield Check(float(high[0]), float(most) + 1e-12, "S − 1 over a part: upper end")
            least = -first * h if sharp else ((-a * h).exp() + (-abs(other) * h).exp()) / 2 - 1
            yield Check(float(low[0]), float(least) - 1e-12, "S − 1 over a part: lower end", ">=")


def loss_at(x: list[list[float]], y: Any, s: Decimal, squared: bool) -> Decimal:
    """Φ(x(s)) of one sample."""
    scores = [sum((Decimal(c) * s**k for k, c in enumerate(each)), Decimal(0)) for each in zip(*x, strict=True)]
    if squared:
        return sum(((a - Decimal(float(b))) ** 2 for a, b in zip(scores, y, strict=True)), Decimal(0)) / 2
    return sum((a.exp() for a in scores), Decimal(0)).ln() - scores[int(y)]


def score_series(x: list[list[float]], y: Any, n: int, squared: bool) -> list[Decimal]:
    """The coefficients of Φ(x(s)), by the recurrences of power series: E′ = x′E, S φ′ = S′."""
    scores = [[Decimal(c) for c in each] for each in zip(*x, strict=True)]
    if squared:
        rest = [[a[0] - Decimal(float(b)), *a[1:]] for a, b in zip(scores, y, strict=True)]
        return [sum((product(a, a, k) for a in rest), Decimal(0)) / 2 for k in range(n)]
    sums = [Decimal(0)] * n
    for a in scores:
        e = [a[0].exp()]
        for k in range(1, n):
            e.append(sum((j * a[j] * e[k - j] for j in range(1, k + 1)), Decimal(0)) / k)
        sums = [p + q for p, q in zip(sums, e, strict=True)]
    log = [sums[0].ln()]
    for k in range(1, n):
        inner = sum((j * log[j] * sums[k - j] for j in range(1, k)), Decimal(0)) / k
        log.append((sums[k] - inner) / sums[0])
    return [v - scores[int(y)][k] for k, v in enumerate(log)]


# --- the claim --------------------------------------------------------------------------------------------------------


@claim(
    tag="T23",
    title="Taylor remainders by their range",
    statement="σ(z + y) − T_{n−1}(y) ∈ yⁿ·[range of q_n], and x_[n] of a composition from thin coefficients and tails",
    dtypes=("float64",),
)
def ranges(context: Context) -> Outcome:
    """Statement: the enclosures of q_n over a reach hold it, for every centre of a point; the chain rule for quotients
    holds x_[n] of x = σ(z); so does that of the losses.
    Hypotheses: tanh, logistic, softplus, SiLU, exp about 0, log about 1; n = 2, 3, 4; reaches from 1e-7, where the
    quotient itself has no digit left, to 3, where it is not monotone; squared loss and cross-entropy.
    Measured: values in 80 decimal digits at seven places of the reach, inside without tolerance; the radius beyond half
    of what they run through, at most what the statement allows; compositions of polynomials in exact rationals at both
    ends of a part; losses behind polynomial scores.
    """

    def one(case: Case) -> Iterator[Check]:
        with localcontext() as digits:
            digits.prec = DIGITS
            stages = (Tanh(), Sigmoid(), Softplus(), SiLU())
            for n in ORDERS:
                yield from activation_checks(case, stages[(case.index + n) % 4], n)
                yield from scalar_checks(n) if case.index == 0 else ()
                yield from chain_rule(case, n)
                yield from sums_of_exp(case)
                for h in (0.25, 1.5) if context.profile == "micro" else (2.0**-6, 0.25, 1.5):
                    for squared in (False, True):
                        yield from losses(case, n, h, squared)

    return survey(context, one, micro=1, quick=12, full=200)
