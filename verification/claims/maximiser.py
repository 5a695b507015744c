"""T4: the pointwise maximiser of the augmented Hamiltonian is exact, for every regulariser and admissible set."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.controls import map_controls
from pmp_ref.layers import Dense
from pmp_ref.loss import SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import L0, L1, L2, REGULARISERS, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from verification import oracles
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims.forward_maps import host

SETS: tuple[Admissible, ...] = (
    WHOLE_LINE,
    Box(-1.0, 1.5),
    Box(-0.5, 2.0),
    Box(0.0, 1.0),
    Box(0.25, 2.0),
    Box(-2.0, -0.5),
    Box(0.0, math.inf),
    Box(-math.inf, 0.5),
    Box(-1.0, 0.0),
    FiniteSet((-1.0, 0.0, 1.0)),
    FiniteSet((-1.0, -0.5, 0.5, 1.0)),
    FiniteSet((0.0, 0.25, 2.0)),
)
POLYNOMIALS = (
    L0(),
    L1(),
    L2(),
    NoPenalty(),
    Polynomial(0.5, 0.25, 0.0),
    Polynomial(1.0, 0.0, 2.0),
    Polynomial(1.0, 1.0, 1.0),
    Polynomial(0.5, 0.5, 1.0),
)


@claim(
    tag="T4", title="Exact maximiser in rationals", statement="w = argmax over U of g w − ρ r(w) − ε(w − u)², ties to 0"
)
def exact_maximiser(context: Context) -> Outcome:
    """Statement: for r = a₀|w|₀ + a₁|w| + (a₂/2)w² the maximiser on the line, a box (with or without 0) or a finite set
    is the closed form of T4; ties go to 0, on finite sets by the order of T4.

    Hypotheses: a₀, a₁, a₂ ≥ 0. Dyadic draws u, g ∈ {k/8}, so that thresholds are met exactly and ties occur.

    Measured: the result against the maximum over the full candidate set in exact rationals. Bound 4u relative to
    1 + |w| for rounding in the division by 2ε + ρa₂; where that is no power of 2, a tie is rounding and is left out.
    The same through ``maximise`` with penalty weights and a metric, whose entries are powers of 2.
    """

    def one(case: Case) -> Iterator[Check]:
        rng = case.rng
        admissible = SETS[case.index % len(SETS)]
        r = POLYNOMIALS[(case.index + case.index // len(SETS)) % len(POLYNOMIALS)]
        eps, rho = float(rng.choice([0.25, 0.5, 1.0, 2.0])), float(rng.choice([0.0, 0.125, 0.5, 1.0, 2.0]))
        u, g = rng.integers(-12, 13, 18) / 8, rng.integers(-24, 25, 18) / 8
        g[:7] = _on_thresholds(u[:7], rng, eps, rho, r)
        u = host(admissible.project(u))
        if isinstance(admissible, FiniteSet):
            u[7:15] = rng.integers(-12, 13, 8) / 8  # ties in distance need a control between the values
            g[7:15] = _tied(u[7:15], rng, eps, rho, r, admissible)
            u[15:], g[15:] = 0.0, 0.0  # −v and v tie
        found = host(r.argmax(case.asarray(u), case.asarray(g), eps, rho, admissible))
        yield worst_entry(found, u, g, np.full(18, eps), rho, r, admissible, context)
        if context.profile == "micro" and case.index % 3:
            return
        d = 2.0 ** rng.integers(-1, 2, 18)  # a metric, T17
        found = host(r.argmax(case.asarray(u), case.asarray(g), eps * case.asarray(d), rho, admissible))
        yield worst_entry(found, u, g, eps * d, rho, r, admissible, context)

    return survey(context, one, micro=2 * len(SETS), quick=12 * len(SETS), full=350 * len(SETS))


def _on_thresholds(u: np.ndarray, rng: np.random.Generator, eps: float, rho: float, r: Polynomial) -> np.ndarray:
    """Switching functions with c = u + g/(2ε) at ±(ρa₁/(2ε) + a rational threshold of L0), where that is dyadic."""
    root = math.sqrt(rho * r.a0 * (2 * eps + rho * r.a2) * 2)  # the threshold of |2εc| − ρa₁
    root = root if root == round(root * 64) / 64 else 0.25
    return rng.choice([-1.0, 1.0], len(u)) * (rho * r.a1 + root) - 2 * eps * u


def _tied(
    u: np.ndarray, rng: np.random.Generator, eps: float, rho: float, r: Polynomial, finite: FiniteSet
) -> np.ndarray:
    """Switching functions at which two values of the set tie: g = ε(v + w − 2u) + ρ(r(v) − r(w))/(v − w)."""
    pairs = [(v, w) for v in finite.values for w in finite.values if v != w]
    value = lambda v: r.a0 * (v != 0) + r.a1 * abs(v) + r.a2 / 2 * v * v  # noqa: E731
    chosen = [pairs[k] for k in rng.integers(0, len(pairs), len(u))]
    return np.array(
        [eps * (v + w - 2 * a) + rho * (value(v) - value(w)) / (v - w) for a, (v, w) in zip(u, chosen, strict=True)]
    )


def worst_entry(
    found: np.ndarray,
    u: np.ndarray,
    g: np.ndarray,
    eps: np.ndarray,
    rho: float,
    r: Polynomial,
    admissible: Admissible,
    context: Context,
) -> Check:
    """The check of the entry that differs most from the exact maximiser."""
    worst, at = 0.0, ""
    for w, a, b, e in zip(found, u, g, eps, strict=True):
        exact = oracles.exact_argmax(a, b, e, rho, r, admissible)
        error = abs(Fraction(float(w)) - exact) / (1 + abs(exact))
        rounded = isinstance(admissible, Box) and math.frexp(2 * e + rho * r.a2)[0] != 0.5
        if rounded and (w == 0) != (exact == 0) and _nearly_tied(float(exact or w), a, b, e, rho, r):
            continue
        if error >= worst:
            worst, at = float(error), f"u = {a:g}, g = {b:g}, ε = {e:g}: {w:g}, exactly {float(exact):g}"
    return Check(worst, 4 * context.u, f"{r} on {admissible}, ρ = {rho:g}; {at}")


def _nearly_tied(w: float, u: float, g: float, eps: float, rho: float, r: Polynomial) -> bool:
    gain = g * w + 2 * eps * u * w - eps * w * w - rho * (r.a0 * (w != 0) + r.a1 * abs(w) + r.a2 / 2 * w * w)
    return abs(gain) < 1e-5 * (1 + abs(g * w))


@claim(
    tag="T4a",
    title="No challenger beats the maximiser",
    statement="K_ε(w) ≥ K_ε(v) for every structured challenger v ∈ U",
)
def challengers(context: Context) -> Outcome:
    """Statement: no admissible v has a larger K_ε than the result, for every regulariser, box and finite set.

    Hypotheses: entries with any real u, g, ε from 10⁻² to 10², ρ from 10⁻³ to 10¹.

    Measured: the largest K_ε(v) − K_ε(w) over *structured* challengers: 0, the unpenalised maximiser, the bounds or
    values, the previous control, the L0 threshold ± one ulp, neighbours of the result, and points between them. Random
    challengers alone would miss a wrong threshold in 98–99 % of draws. Bound 40u relative to the sum of the terms of
    K. The result is admissible, and its dtype is that of the control.
    """

    def one(case: Case) -> Iterator[Check]:
        r: Regulariser = case.cycle(
            *(make() for name, make in REGULARISERS.items() if name != "group-l0"), Polynomial(0.3, 0.2, 0.7)
        )
        boxes = [s for s in SETS if isinstance(s, Box) and (not isinstance(r, LHalf | LTwoThirds) or s.lo <= 0 <= s.hi)]
        finite = [s for s in SETS if isinstance(s, FiniteSet)]
        for admissible in (boxes[case.index % len(boxes)], finite[case.index % len(finite)]):
            yield from challenge(case, r, admissible)
            positive = [oracles.penalty_by_loops(r, np.array([v])) > 0 for v in (-1.0, 0.5, 2.0)]
            yield holds(r.penalises(finite[0]) == all(positive), f"{r} is positive off 0")
        yield holds(r.convex == midpoint_convex(r), f"convexity of {r}")
        w = case.rng.standard_normal(9) * (case.rng.random(9) < 0.7)
        builders = {**REGULARISERS, "L0()": L0, "L1()": L1, "L2()": L2, "NoPenalty()": NoPenalty}
        for name, formula in NAMED.items():
            due = formula(host(case.asarray(w)))
            for key in (name, ALIASES.get(name, name)):
                found = float(builders[key]().value(case.asarray(w)))
                yield Check(abs(found - due) / (1 + due), 20 * context.u, f"value of {key}")
        yield from stated(case)

    return survey(context, one, micro=14, quick=300, full=6000)


def stated(case: Case) -> Iterator[Check]:
    """What a regulariser says of itself: its terms err by at most ``error_bound``, against rationals and decimals of
    forty digits, and r(w)/|w| tends to ``asymptotic_slope``."""
    w = case.rng.standard_normal((3, 4)) * 10.0 ** case.rng.integers(-8, 3, (3, 4)) * (case.rng.random((3, 4)) < 0.6)
    sums = (L0(), L1(), L2(), Polynomial(0.3, 0.2, 0.7), Polynomial(0.3, 0.2, 0.0))
    for r in (*sums, LHalf(), LTwoThirds(), GroupL0(0, 0.7)):
        terms, allowed = np.asarray(r.terms(w), np.float64), np.asarray(r.error_bound(w))
        exact = np.reshape([exactly(r, a) for a in (w if isinstance(r, GroupL0) else w.ravel())], terms.shape)
        errors = [abs(Fraction(float(t)) - e) for t, e in zip(terms.ravel(), exact.ravel(), strict=True)]
        excess = max(float(error) - float(a) for error, a in zip(errors, allowed.ravel(), strict=True))
        yield Check(excess, 0.0, f"rounding of {r} beyond its bound")
        far, slope = float(r.value(np.full((1, 1), 1e150))) / 1e150, r.asymptotic_slope()
        missed = float(far < 1e100) if math.isinf(slope) else abs(far - slope)
        yield Check(missed, 1e-14, f"{r} far out")


def exactly(r: Regulariser, w: Any) -> Fraction:
    """r of one entry, or of one group."""
    if isinstance(r, GroupL0):
        return Fraction(r.omega) * int(np.any(w != 0))
    size = abs(Fraction(float(w)))
    if isinstance(r, Polynomial):
        return Fraction(r.a0) * (size != 0) + Fraction(r.a1) * size + Fraction(r.a2) / 2 * size**2
    with decimal.localcontext() as context:
        context.prec = 40
        q = decimal.Decimal(1) / 2 if isinstance(r, LHalf) else decimal.Decimal(2) / 3
        return Fraction(decimal.Decimal(abs(float(w))) ** q) if size else Fraction(0)


# The regularisers by name, by their formulas.
NAMED: dict[str, Callable[[np.ndarray], float]] = {
    "l0": lambda w: float(np.sum(w != 0)),
    "l1": lambda w: float(np.sum(np.abs(w))),
    "l2": lambda w: 0.5 * float(w @ w),
    "l1/2": lambda w: float(np.sum(np.sqrt(np.abs(w)))),
    "l2/3": lambda w: float(np.sum(np.cbrt(w * w))),
    "none": lambda w: 0.0,
}


ALIASES = {"l0": "L0()", "l1": "L1()", "l2": "L2()", "none": "NoPenalty()"}


def midpoint_convex(r: Regulariser) -> bool:
    """Whether r((a + b)/2) ≤ (r(a) + r(b))/2 on a grid around 0."""
    value = lambda v: oracles.penalty_by_loops(r, np.array([v]))  # noqa: E731
    grid = np.arange(-8, 9) / 4
    return all(value((a + b) / 2) <= (value(a) + value(b)) / 2 + 1e-12 for a in grid for b in grid)


def challenge(case: Case, r: Regulariser, admissible: Admissible) -> Iterator[Check]:
    """One draw of controls, switching functions, ε and ρ against all structured challengers."""
    rng = case.rng
    eps, rho = 10.0 ** float(rng.uniform(-2, 2)), 10.0 ** float(rng.uniform(-3, 1))
    n = 40
    u = case.asarray(rng.standard_normal(n) * (rng.random(n) < 0.7))
    u = admissible.project(u)
    g = case.asarray(rng.standard_normal(n) * 2 * eps)
    threshold = math.sqrt(rho / eps)  # half of the draws have c near the threshold of L0
    hg = np.where(
        rng.random(n) < 0.5,
        host(g),
        2 * eps * (rng.choice([-1, 1], n) * threshold * (1 + 0.02 * rng.standard_normal(n)) - host(u)),
    )
    g = case.asarray(hg)
    w = r.argmax(u, g, eps, rho, admissible)
    hu, hg, hw = host(u), host(g), host(w)
    yield Check(float(np.sum(~host(admissible.contains(w)).astype(bool))), 0.0, f"{r} leaves {admissible}")
    yield holds(w.dtype == u.dtype, f"{r} changes the dtype")
    best, size = gain(hw, hu, hg, eps, rho, r)
    worst = 0.0
    for v in structured(hw, hu, hg, eps, rho, admissible, case.context.dtype):
        value, scale = gain(v, hu, hg, eps, rho, r)
        worst = max(worst, float(np.max((value - best) / (scale + size))))
    yield Check(worst, 40 * case.context.u, f"{r} on {admissible}, ε = {eps:.3g}, ρ = {rho:.3g}")


def gain(w: np.ndarray, u: np.ndarray, g: np.ndarray, eps: float, rho: float, r: Regulariser) -> Any:
    """(K_ε(w) − K_ε(0) entry by entry, the sum of the absolute values of its terms), by the definition of r."""
    penalty = np.array([oracles.penalty_by_loops(r, np.array([v])) for v in w])
    linear = w * (g + 2 * eps * u)
    size = np.abs(w * g) + 2 * eps * np.abs(u * w) + eps * w * w + rho * penalty + np.finfo(float).tiny
    return linear - eps * w * w - rho * penalty, size


def structured(
    w: np.ndarray, u: np.ndarray, g: np.ndarray, eps: float, rho: float, admissible: Admissible, dtype: str
) -> list[np.ndarray]:
    """Admissible challengers, entry by entry; on a box clipped to it, on a finite set its values."""
    if isinstance(admissible, FiniteSet):
        return [np.full_like(w, v) for v in admissible.values]
    assert isinstance(admissible, Box)
    c, threshold = u + g / (2 * eps), math.sqrt(rho / eps)
    points = [np.zeros_like(w), c, u, 0.5 * (u + c), 0.5 * (w + c), 0.5 * w, 1.01 * w, 0.99 * w, -w]
    points += [np.full_like(w, s * np.nextafter(threshold, to)) for s in (1, -1) for to in (0, math.inf)]
    points += [np.full_like(w, end) for end in (admissible.lo, admissible.hi) if math.isfinite(end)]
    step = np.finfo(dtype).eps * np.abs(w)
    points += [w + step, w - step, w + 0.001 * (1 + np.abs(w)), w - 0.001 * (1 + np.abs(w))]
    return [np.clip(v, admissible.lo, admissible.hi) for v in points]


@claim(
    tag="T4b",
    title="Powers ½ and ⅔ by Newton's equation",
    statement="closed forms of |w|^½, |w|^⅔ = root of the stationarity equation",
)
def powers(context: Context) -> Outcome:
    """Statement: for |w|^q, q = ½ and ⅔, the closed forms give the maximiser, and the thresholds tell when it is not 0.

    Hypotheses: the line or a box containing 0; λ = ρ/ε from 10⁻³ to 10².

    Measured: the root of 2(c − w) = λq w^{q−1} by bisection and the comparison of its gain with 0. |w − root| relative
    to 1 + |c|, bound 10⁴u: the trigonometric and hyperbolic forms lose up to (u·10⁴) near the threshold, where the
    root is double on the scale of the argument. Entries within 10⁻⁴ of the threshold may fall on either side.
    """

    def one(case: Case) -> Check:
        rng = case.rng
        r: Any = case.cycle(LHalf(), LTwoThirds())
        box = (WHOLE_LINE, Box(-1.0, 0.75))[case.index // 2 % 2]
        eps = float(rng.choice([0.25, 1.0, 3.0]))
        lam = 10.0 ** float(rng.uniform(-3, 2))
        edge = {0.5: 54 ** (1 / 3) / 4, 2 / 3: 2.0 / 3 * 3**0.25}[r.q] * (lam ** (1 / (2 - r.q)))
        c = edge * rng.uniform(-2, 2, 24)
        u = host(case.asarray(box.project(rng.standard_normal(24))))
        g = host(case.asarray(2 * eps * (c - u)))
        found = host(r.argmax(case.asarray(u), case.asarray(g), eps, eps * lam, box))
        worst, at = 0.0, ""
        for w, a, b in zip(found, u, g, strict=True):
            centre = a + b / (2 * eps)
            exact, _ = oracles.power_maximum(centre, lam, r.q, box.lo, box.hi)
            near = [oracles.power_maximum(centre * f, lam, r.q, box.lo, box.hi)[0] == 0 for f in (1 - 1e-4, 1 + 1e-4)]
            if near[0] != near[1]:
                continue
            error = abs(w - exact) / (1 + abs(centre))
            if error >= worst:
                worst, at = error, f"c = {centre:.6g}: {w:.8g}, exactly {exact:.8g}"
        return Check(worst, 1e4 * context.u, f"{r} on {box}, λ = {lam:.3g}; {at}")

    return survey(context, one, micro=6, quick=60, full=2000)


@claim(tag="T4c", title="Group L0", statement="keep the group iff Σ ε d_i c_i² > ρω; r counts nonzero groups")
def groups(context: Context) -> Outcome:
    """Statement: under group L0 a group is kept as a whole iff ε‖c‖² > ρω (Σ ε d_i c_i² with a metric), else set to 0.

    Hypotheses: the whole line; groups along either axis of a kernel.

    Measured: both choices of each group compared by K_ε in exact rationals: the number of groups where the other
    choice is better, ties going to 0 (bound 0; draws k/8, ε and d powers of 2), and |w − c| of kept groups (bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        rng = case.rng
        r = GroupL0(axis=case.index % 2, omega=float(case.choose(0.5, 2.0)))
        shape = (3, 4, 2)
        eps, rho = float(rng.choice([0.25, 1.0, 2.0])), float(rng.choice([0.25, 1.0, 4.0]))
        u, g = rng.integers(-8, 9, shape) / 8, rng.integers(-8, 9, shape) / 8
        if case.index % 4 < 2:  # an exact tie in group 0: ε‖c‖² = ρω with one entry c = √(ρω/ε)
            root = math.sqrt(rho * r.omega / eps)
            if root == round(8 * root) / 8:
                np.moveaxis(u, r.axis, 0)[0] = 0
                np.moveaxis(g, r.axis, 0)[0] = 0
                np.moveaxis(g, r.axis, 0)[0].flat[0] = 2 * eps * root
        metric = 2.0 ** rng.integers(-1, 2, shape) if case.index % 3 == 0 else np.ones(shape)
        weights: Any = eps if case.index % 3 else eps * case.asarray(metric)
        w = host(r.argmax(case.asarray(u), case.asarray(g), weights, rho, WHOLE_LINE))
        exact = exact_groups(u, g, eps * metric, rho, r)
        yield Check(float(np.sum(w != exact)), 0.0, f"{r}, ε = {eps:g}, ρ = {rho:g}")
        count = float(r.value(case.asarray(w)))
        yield Check(abs(count - oracles.penalty_by_loops(r, w)), 0.0, f"{r} counts groups")
        norms = host(r.norms(case.asarray(w))).ravel()
        sums = np.moveaxis(w, r.axis, 0).reshape(shape[r.axis], -1).sum(axis=1)
        yield Check(float(np.max(np.abs(norms - sums))), 0.0, f"{r} sums each group")
        yield holds(r.penalises(FiniteSet((0.0, 1.0))), f"{r} is positive off 0")

    return survey(context, one, micro=12, quick=120, full=2000)


def exact_groups(u: np.ndarray, g: np.ndarray, eps: np.ndarray, rho: float, r: GroupL0) -> np.ndarray:
    """The maximiser group by group: K_ε of keeping c against K_ε of 0, in exact rationals."""
    w = np.zeros(u.shape)
    views = (np.moveaxis(a, r.axis, 0) for a in (u, g, eps, w))
    for gu, gg, ge, gw in zip(*views, strict=True):
        kept, none, values = Fraction(0), Fraction(0), []
        for a, b, e in zip(gu.ravel(), gg.ravel(), ge.ravel(), strict=True):
            fa, fb, fe = Fraction(float(a)), Fraction(float(b)), Fraction(float(e))
            c = fa + fb / (2 * fe)
            values.append(float(c))
            kept += fb * c - fe * (c - fa) ** 2
            none += -fe * fa**2
        if kept - Fraction(rho) * Fraction(r.omega) > none:
            gw[...] = np.array(values).reshape(gw.shape)
    return w


@claim(tag="T4d", title="Layerwise maximisation", statement="w_l = argmax K_ε with ρω_l, U_l and D of each control")
def layerwise(context: Context) -> Outcome:
    """Statement: ``maximise`` treats each control with its own weight ω_l, regulariser, admissible set and metric, and
    penalises exactly the parameters that the objective penalises.

    Hypotheses: separable problem; two dense stages with different regularisers, sets and weights, biases unpenalised.

    Measured: the candidate against the exact maximiser in rationals, entry by entry (bound 4u), and the objective's
    penalties against ω_l r_l by loops (bound 4u): the penalty counted is the penalty thresholded.
    """

    def one(case: Case) -> Iterator[Check]:
        rng = case.rng
        network = Network((Dense(3), Dense(2)), (4,))
        regularisers: Any = ((L0(), L1()), (Polynomial(0.5, 0.5, 0.0), L0()))
        sets: Any = ((Box(-1.0, 1.0), WHOLE_LINE), (WHOLE_LINE, Box(-2.0, 2.0)))
        weights = layer_weights(network, biases=float(case.choose(0.0, 0.5)), by_stage={1: 2.0})
        problem = Problem(network, SquaredLoss(), regularisers, rho=0.5, admissible=sets, weights=weights)
        draw = lambda shape: case.asarray(rng.integers(-8, 9, shape) / 8)  # noqa: E731
        u = problem.project(tuple(tuple(draw(s) for s in shapes) for shapes in network.control_shapes))
        g = map_controls(lambda a: draw(a.shape), u)
        d = map_controls(lambda a: case.asarray(2.0 ** rng.integers(-1, 2, a.shape)), u)
        for metric in (None, d):
            w = maximise(problem, u, g, 0.5, 1.0, metric)
            scale = map_controls(lambda a: np.ones(a.shape), u) if metric is None else map_controls(host, metric)
            for l in (0, 1):
                for i in (0, 1):
                    yield worst_entry(
                        host(w[l][i]).ravel(),
                        host(u[l][i]).ravel(),
                        host(g[l][i]).ravel(),
                        0.5 * scale[l][i].ravel(),
                        weights[l][i],
                        regularisers[l][i],
                        sets[l][i],
                        context,
                    )
        counted = problem.penalties(u)
        for l in (0, 1):
            for i in (0, 1):
                due = weights[l][i] * oracles.penalty_by_loops(regularisers[l][i], host(u[l][i]))
                yield Check(abs(float(counted[l][i]) - due) / (1 + due), 4 * context.u, f"penalty of control {l}, {i}")

    return survey(context, one, micro=4, quick=40, full=400)


@claim(tag="T4e", title="Projections", statement="project(w) is the closest point of U; contains(w) iff project(w) = w")
def projections(context: Context) -> Outcome:
    """Statement: the projection on a box or finite set is the closest admissible point; membership means w = P(w).

    Hypotheses: none.

    Measured: |P(w) − w| against the smallest distance over the values, or over the box by cases (bound 0, dyadic
    draws), and the number of wrong answers of ``contains`` (bound 0); the gap of a finite set against all its pairs.
    """

    def one(case: Case) -> Iterator[Check]:
        admissible = case.cycle(*SETS)
        w = case.rng.integers(-24, 25, 30) / 8
        p = host(admissible.project(case.asarray(w)))
        if isinstance(admissible, FiniteSet):
            distance = np.min([np.abs(w - v) for v in admissible.values], axis=0)
            inside = np.any([w == v for v in admissible.values], axis=0)
            gap = min(abs(a - b) for a in admissible.values for b in admissible.values if a != b)
            yield Check(abs(admissible.gap - gap), 0.0, f"gap of {admissible}")
        else:
            assert isinstance(admissible, Box)
            distance = np.maximum(np.maximum(admissible.lo - w, w - admissible.hi), 0.0)
            inside = distance == 0
            bounded = math.isfinite(admissible.lo) and math.isfinite(admissible.hi)
            yield holds(admissible.bounded == bounded, f"bounded, {admissible}")
        yield Check(float(np.max(np.abs(np.abs(p - w) - distance))), 0.0, f"projection on {admissible}")
        found = host(admissible.contains(case.asarray(w))).astype(bool)
        yield Check(float(np.sum(found != inside)), 0.0, f"membership in {admissible}")
        landed = host(admissible.contains(case.asarray(p))).astype(bool)
        yield Check(float(np.sum(~landed)), 0.0, f"the projection lies in {admissible}")

    return survey(context, one, micro=len(SETS), quick=4 * len(SETS), full=40 * len(SETS))
