"""T5, T6, T6b, T15, T16, T17: exact loss change, loss reduction, what acceptance means, relative test, metric."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import WHOLE_LINE, Box
from pmp_ref.app.descent import recheck
from pmp_ref.arrays import Controls, to_floats, to_numpy
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.bounds import ball_bound, certify_step, global_constant, radii_around
from pmp_ref.controls import add, arrays_of, from_vector, inner, map_controls, scaled, subtract, to_vector
from pmp_ref.errors import InputError
from pmp_ref.hamiltonian import increments, squared_increments
from pmp_ref.iterate import Iterate
from pmp_ref.layers import Dense
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, L2, NoPenalty, Polynomial
from pmp_ref.second_order import hessian_vector, largest_eigenvalue
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep
from verification.claim import Case, Check, Context, Curve, Figure, Outcome, Table, claim, holds, survey
from verification.claims import problems, runs
from verification.claims.problems import Setting
from verification.claims.runs import Trial

EXACT = 1e-10  # relative to the terms of T5: quadrature agrees to a tenth of it, sums of some thousand terms to less


# --- T5 ---------------------------------------------------------------------------------------------------------------


def remainder_by_quadrature(s: Setting, u: Controls, w: Controls, agree: float) -> float:
    """∫₀¹ (1 − t) D²L_B(u + tΔ)[Δ, Δ] dt by Gauss–Legendre, nodes doubled until two results differ by ≤ ``agree``."""
    delta = subtract(w, u)

    def curvature(t: float) -> float:
        at = add(u, scaled(t, delta))
        return float(inner(delta, hessian_vector(s.problem, at, s.x, s.y, delta)))

    before, nodes = math.inf, 4
    while nodes <= 256:
        points, weights = np.polynomial.legendre.leggauss(nodes)
        points, weights = (points + 1) / 2, weights / 2
        value = math.fsum(float(a) * (1 - float(t)) * curvature(float(t)) for t, a in zip(points, weights, strict=True))
        if abs(value - before) <= agree:
            return value
        before, nodes = value, 2 * nodes
    return math.nan  # not resolved: a failed check


def terms_of(s: Setting, trial: Trial) -> tuple[float, float, float]:
    """J(u), J(w) by fresh sweeps and Σ_l |ΔH_l|."""
    g = runs.switching(s, trial.u)
    dh = increments(s.problem, g, trial.u, trial.w, trial.record.rho)
    return runs.objective(s, trial.u), runs.objective(s, trial.w), sum(abs(h) for h in to_floats(*arrays_of(dh)))


@claim(
    tag="T5",
    title="Exact loss change",
    statement="J(w) − J(u) = −ΣΔH + ∫₀¹(1 − t) D²L_B(u + tΔ)[Δ, Δ] dt",
    dtypes=("float64",),
)
def exact_loss_change(context: Context) -> Outcome:
    """Statement: for every trial J(w) − J(u) = −ΣΔH + ∫₀¹(1 − t)d(t)dt, d(t) = D²L_B(u + tΔ)[Δ, Δ].
    Hypotheses: L_B ∈ C²: LeNets, residual nets, dense chains with smooth activations, every regulariser, line and box.
    Measured: J(w) − J(u) and ΣΔH as the method recorded them, J also by fresh sweeps, against Gauss–Legendre quadrature
    of Hessian-vector products, nodes doubled until two results agree. Tolerance 1e-10·(|J(u)| + |J(w)| + Σ|ΔH_l| +
    |remainder|), a thousand times what sums of this length round to.
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.smooth(case, spread=0.2, samples=3 if context.profile == "micro" else None)
        steps = context.count(2, 3, 4)
        _, trials = runs.run(s, Method(rule=CurvatureRule(eps0=4.0)), Stop(steps=steps))
        for trial in trials:
            r = trial.record
            before, after, dh = terms_of(s, trial)
            scale = abs(before) + abs(after) + dh
            remainder = remainder_by_quadrature(s, trial.u, trial.w, 0.1 * EXACT * scale)
            bound = EXACT * (scale + abs(remainder))
            yield Check(abs(r.delta_J + r.sum_dh - remainder), bound, s.name)
            yield Check(abs(r.J - after), bound, f"J(w) recorded; {s.name}")
            yield Check(abs(r.J_before - before), bound, f"J(u) recorded; {s.name}")
            yield Check(abs(r.delta_J - (after - before)), bound, f"ΔJ recorded; {s.name}")
            yield Check(abs(r.c_hat * r.tau - remainder), bound, f"Ĉτ; {s.name}")

    return survey(context, one, micro=2, quick=12, full=120)


# --- T6 ---------------------------------------------------------------------------------------------------------------


def reduction(eps: float, constant: float, tau: float) -> float:
    """−(ε − C)τ, the guaranteed change of J (T6)."""
    return -(eps - constant) * tau


@claim(
    tag="T6",
    title="Loss reduction",
    statement="J(w) − J(u) ≤ −ΣΔH + Cτ ≤ −(ε − C)τ, so every ε ≥ C + η passes",
    dtypes=("float64",),
)
def loss_reduction(context: Context) -> Outcome:
    """Statement: with C ≥ ½λ_max(D²L_B)₊ on [u, w], ΣΔH ≥ ετ and J(w) − J(u) ≤ −(ε − C)τ; ε ≥ C + η is accepted.
    Hypotheses: L_B ∈ C², exact maximiser, true g. Dense chains, LeNets, residual nets without standardisation (the
    bounds leave it out), all regularisers on line and box; one-stage least squares, where C is known exactly.
    Measured: every trial of short runs: Ĉ in the proven interval of T7b, Ĉ ≤ C̄(r) of T7a and ≤ C̄ of T7 where they
    apply, ΣΔH ≥ ετ, the inequality, and the verdict, against the proven intervals; ν, the rounding of ΔJ, is the only
    slack. Least squares along the top eigenvector: accepted just above ε = (C + η)/2 and rejected just below, the
    inequality being an equality there. Slope 2 of the remainder by regression over ‖Δ‖ = 2⁻³ … 2⁻⁹. For a float32 step
    on 2,000 samples ΔJ as recorded, and as the command's second opinion has it without asking the solver's sweep.
    """
    ratios: dict[str, list[float]] = {"T7 global": [], "T7a ball": [], "T7b segment": []}

    def one(case: Case) -> Iterator[Check]:
        if case.index % 4 == 3:
            yield from threshold(case)
            yield from slope_two(case)
            yield from second_opinion(case)
            return
        s = runs.enclosable(case)
        eta = 1e-6
        _, trials = runs.run(s, Method(rule=CurvatureRule(eps0=2.0)), Stop(steps=context.count(1, 3, 4)))
        for trial in trials:
            yield from trial_checks(s, trial, eta, ratios)

    outcome = survey(context, one, micro=4, quick=24, full=160)
    rows = tuple(
        (name, len(r), float(np.min(r)), float(np.median(r)), float(np.max(r))) for name, r in ratios.items() if r
    )
    return outcome.with_(
        tables=[Table("Proven bound over measured Ĉ", ("bound", "trials, Ĉ > 0", "least", "median", "largest"), rows)]
    )


def trial_checks(s: Setting, trial: Trial, eta: float, ratios: dict[str, list[float]] | None = None) -> Iterator[Check]:
    """All that T6 says of one trial."""
    r, nu = trial.record, trial.record.rounding
    proven = certify_step(s.problem, trial.u, trial.w, s.x, s.y, rho=r.rho, max_parts=64, absolute=nu)
    slack = nu / r.tau if r.tau > 0 else 0.0
    C = max(proven.c_hat.upper, 0.0)
    yield Check(r.c_hat, proven.c_hat.upper + slack, f"Ĉ ≤ upper end (T7b); {s.name}")
    yield Check(r.c_hat, proven.c_hat.lower - slack, f"Ĉ ≥ lower end (T7b); {s.name}", ">=")
    yield Check(abs(r.tau - proven.tau.upper), 1e-12 * r.tau, f"τ; {s.name}")
    yield Check(r.sum_dh, r.eps * r.tau * (1 - 1e-9) - nu, f"ΣΔH ≥ ετ; {s.name}", ">=")
    yield Check(r.sum_dh, proven.sum_dh.upper + nu, f"ΣΔH proven; {s.name}")
    yield Check(r.sum_dh, proven.sum_dh.lower - nu, f"ΣΔH proven; {s.name}", ">=")
    yield Check(r.delta_J, -r.sum_dh + C * r.tau + nu, f"J(w) − J(u) ≤ −ΣΔH + Cτ; {s.name}")
    yield Check(r.delta_J, reduction(r.eps, C, r.tau) + nu, f"J(w) − J(u) ≤ −(ε − C)τ; {s.name}")
    if r.verdict in ("accepted", "rejected"):
        need = -eta * r.tau + nu if r.accepted else math.inf
        yield Check(proven.delta_J.lower, need, f"accepted only where J falls; {s.name}")
        need = -eta * r.tau - nu if not r.accepted else -math.inf
        yield Check(proven.delta_J.upper, need, f"rejected only where J does not fall enough; {s.name}", ">=")
        if r.eps >= C + eta and r.sum_dh > 10 * nu:
            yield holds(r.accepted, f"ε ≥ C + η is accepted; {s.name}")
    length = float(np.linalg.norm(trial.delta)) * (1 + 1e-12)
    coarse = global_constant(s.problem, radii_around(trial.u, length), s.x, s.y)
    yield Check(r.c_hat, coarse + slack, f"Ĉ ≤ C̄ (T7); {s.name}")
    found = {"T7 global": coarse, "T7b segment": proven.c_hat.upper}
    try:
        found["T7a ball"] = ball_bound(s.problem, trial.u, s.x, s.y)(length) if r.step <= 1 else math.inf
        yield Check(r.c_hat, found["T7a ball"] + slack, f"Ĉ ≤ C̄(r) (T7a); {s.name}")
    except InputError:
        pass  # T7a takes chains under cross-entropy only; T7 and T7b have spoken
    if ratios is not None and r.c_hat > 100 * slack:
        for name, bound in found.items():
            if math.isfinite(bound):
                ratios[name].append(bound / r.c_hat)


def threshold(case: Case) -> Iterator[Check]:
    """Least squares without penalty from a control along the top eigenvector v of H: every term of T6 is an equality.

    g = −Hu = −λu, so w = (1 − λ/(2ε))u, Ĉ = λ/2 = C, ΔH = 2ετ: accepted iff ε ≥ (C + η)/2.
    """
    eta = 0.1
    s, lam = eigenvector_setting(case)
    for factor, expected in ((1.001, True), (0.999, False)):
        eps = factor * (lam / 2 + eta) / 2
        _, trials = runs.run(s, Method(FixedRule(eps), AbsoluteTest(eta)), Stop(steps=1))
        r = trials[0].record
        yield Check(abs(r.c_hat - lam / 2), 1e-8 * lam, f"Ĉ = ½λ_max; {s.name}")
        yield Check(abs(r.sum_dh - 2 * eps * r.tau), 1e-9 * r.sum_dh, f"ΔH = 2ετ; {s.name}")
        yield holds(r.accepted == expected, f"ε = {factor}·(C + η)/2; {s.name}")
    s = problems.quadratic(case, regulariser=case.choose(L0, L2, lambda: Polynomial(1.0, 0.5, 0.0))(), rho=0.05)
    C = runs.curvature_norm(s, s.controls)[0]
    _, trials = runs.run(s, Method(FixedRule((C + eta) * (1 + 1e-9)), AbsoluteTest(eta)), Stop(steps=3))
    for trial in trials:
        if trial.record.verdict in ("accepted", "rejected"):
            yield holds(trial.record.accepted, f"ε = C + η passes; {s.name}")


@dataclass(frozen=True)
class Asked(Sweep):
    """A sweep that breaks down if it is asked again."""

    def forward(self, controls: Controls, x: Any, y: Any) -> Evaluation:
        """Raises ValueError."""
        raise ValueError("the second opinion asks the sweep that it is to judge")

    trial = forward_backward = forward


def second_opinion(case: Case) -> Iterator[Check]:
    """ΔJ of a float32 step, from differences sample by sample in float64: recorded, and judged anew (``app.descent``).

    Two float32 means of 2,000 losses differ by their own rounding, some 1e-7, where L falls by 1e-5.
    """
    s = problems.dense(case, loss=CrossEntropy(), regulariser=L1(), rho=0.0, admissible=WHOLE_LINE, samples=2000)
    h = problems.host(s)
    x, u = h.x.astype(np.float32), map_controls(lambda a: a.astype(np.float32), h.controls)
    problem = replace(h.problem, sweep=Sweep(h.network, CrossEntropy()))
    it = prepare(problem, Method(FixedRule(2e3)), Iterate(u, 2e3), x, h.y)
    after, record = step(problem, Method(FixedRule(2e3), NoTest()), it, x, h.y)
    before, found = it.current.evaluation, after.current.evaluation
    assert record.accepted and before is not None and found is not None
    each = found.losses.astype(np.float64) - before.losses.astype(np.float64)
    yield Check(abs(record.delta_J / float(np.mean(each)) - 1), 1e-9, f"ΔJ recorded in float32; {s.name}")
    wide = [map_controls(lambda a: a.astype(np.float64), v) for v in (u, after.controls)]
    values = [h.problem.loss.values(h.network.forward_sweep(v, x.astype(np.float64))[-1], h.y) for v in wide]
    due = float(np.mean(values[1] - values[0]))
    judged = replace(problem, sweep=Asked(h.network, CrossEntropy()))
    reading = recheck(judged, AbsoluteTest(), u, after.controls, None, x, h.y, 0.0)
    yield Check(abs(reading.delta_j / due - 1), 1e-9, f"second opinion on ΔJ; {s.name}")
    yield Check(float(reading.violated), 0.0, f"second opinion: the step passes; {s.name}")


def eigenvector_setting(case: Case) -> tuple[Setting, float]:
    """Least squares with targets 0 and u along the top eigenvector of H, no penalty, no box; and λ_max."""
    s = problems.quadratic(case, regulariser=NoPenalty(), rho=0.0, admissible=WHOLE_LINE)
    s = replace(s, y=0 * s.y)
    H = runs.symmetric(hessian_of(s))
    values, vectors = np.linalg.eigh(H)
    return replace(s, controls=from_vector(vectors[:, -1], s.controls)), float(values[-1])


def hessian_of(s: Setting) -> np.ndarray:
    """D²L_B of a quadratic problem from its definition: (1/B) Σ [x;1][x;1]ᵀ for each output."""
    x = to_numpy(s.x).astype(np.float64)
    B, outputs = x.shape[0], s.network.output_shape[0]
    bias = len(s.network.control_shapes[0]) > 1
    order = [(o, i) for o in range(outputs) for i in range(x.shape[1])] + [(o, None) for o in range(outputs) if bias]
    design = np.concatenate([x, np.ones((B, 1))], axis=1)
    column = lambda i: design[:, -1] if i is None else design[:, i]  # noqa: E731
    return np.array([[(column(i) @ column(j)) / B if o == p else 0.0 for p, j in order] for o, i in order])


def slope_two(case: Case) -> Iterator[Check]:
    """log|remainder| against log‖Δ‖ along one direction has slope 2 where d(0) ≠ 0."""
    s = runs.enclosable(case, rho=0.0)
    v = problems.direction(case, s.controls)
    for _ in range(2):  # two power iterations: a direction of large curvature, so that d(0) ≠ 0
        v = hessian_vector(s.problem, s.controls, s.x, s.y, v)
        v = scaled(1 / float(np.linalg.norm(to_vector(v))), v)
    g = runs.switching(s, s.controls)
    base = runs.objective(s, s.controls)
    h = 2.0 ** -np.arange(3.0, 10.0)
    rest = [runs.objective(s, add(s.controls, scaled(t, v))) - base + t * float(inner(g, v)) for t in h.tolist()]
    slope = np.polyfit(np.log(h), np.log(np.abs(rest)), 1)[0]
    yield Check(abs(float(slope) - 2), 0.1, f"slope of the remainder; {s.name}")


# --- T6b --------------------------------------------------------------------------------------------------------------


def factor_q(regulariser: Any, admissible: Any, weight: float) -> float:
    """q_l of T6b: 2 where the layer is convex (an unpenalised control on a box is), else 1."""
    return 2.0 if isinstance(admissible, Box) and (weight == 0 or regulariser.convex) else 1.0


@claim(
    tag="T6b",
    title="Convex layers gain twice",
    statement="ΔH_l ≥ q_l ετ_l and J(w) − J(u) ≤ −Σ(q_l ε − C)τ_l, q_l = 2 for convex layers, 1 otherwise",
    dtypes=("float64",),
)
def convex_layers(context: Context) -> Outcome:
    """Statement: where r_l and U_l are convex an exact maximiser has ΔH_l ≥ 2ετ_l, elsewhere ΔH_l ≥ ετ_l; if all are
    convex every ε ≥ (C + η)/2 passes.
    Hypotheses: exact maximiser; L0, L1, L2 and sums, on line and box; biases unpenalised, hence convex.
    Measured: ΔH_l/(ετ_l) of each control of each trial against q_l, and J(w) − J(u) against −Σ(q_lε − C)τ_l with C from
    T7b. The least ratio of a single entry over a fine set of (u, g): 2.000 for L1, and 1.000 for L0, reached where g =
    0 and ρ = εu² (dropping costs exactly what it gains), so q = 2 is false for L0. Least squares with convex penalties:
    ε = (C + η)/2 is accepted.
    """
    least: dict[str, float] = {"L0": math.inf, "L1": math.inf, "no penalty": math.inf}

    def one(case: Case) -> Iterator[Check]:
        regulariser = case.cycle(L0(), L1(), L2(), Polynomial(0.5, 0.25, 0.0))
        s = runs.enclosable(case, regulariser=regulariser)
        _, trials = runs.run(s, Method(), Stop(steps=context.count(2, 3, 4)))
        for trial in trials:
            yield from layer_checks(s, trial)
        yield from entry_checks(least)
        eta = 0.1
        q = problems.quadratic(case, regulariser=case.choose(L1, L2, NoPenalty)(), rho=0.1)
        C = runs.curvature_norm(q, q.controls)[0]
        _, trials = runs.run(q, Method(FixedRule((C + eta) / 2 * (1 + 1e-9)), AbsoluteTest(eta)), Stop(steps=3))
        for trial in trials:
            if trial.record.verdict in ("accepted", "rejected"):
                yield holds(trial.record.accepted, f"convex: ε = (C + η)/2 passes; {q.name}")

    outcome = survey(context, one, micro=2, quick=16, full=120)
    rows = tuple((name, value) for name, value in least.items() if math.isfinite(value))
    return outcome.with_(tables=[Table("Least ΔH/(ετ) of one entry", ("regulariser", "min ΔH/(ετ)"), rows)])


def layer_checks(s: Setting, trial: Trial) -> Iterator[Check]:
    """ΔH_l ≥ q_l ετ_l for each control, and the inequality summed over them."""
    r = trial.record
    g = runs.switching(s, trial.u)
    dh = to_floats(*arrays_of(increments(s.problem, g, trial.u, trial.w, r.rho)))
    tau = to_floats(*arrays_of(squared_increments(trial.u, trial.w)))
    parts = zip(*(arrays_of(n) for n in (s.problem.regulariser, s.problem.admissible, s.problem.weights)), strict=True)
    q = [factor_q(*part) for part in parts]
    proven = certify_step(s.problem, trial.u, trial.w, s.x, s.y, rho=r.rho, max_parts=64, absolute=r.rounding)
    C = max(proven.c_hat.upper, 0.0)
    for h, t, f in zip(dh, tau, q, strict=True):
        yield Check(h, f * r.eps * t * (1 - 1e-9) - 1e-13 * sum(map(abs, dh)), f"ΔH_l ≥ {f:g}ετ_l; {s.name}", ">=")
    bound = -sum((f * r.eps - C) * t for f, t in zip(q, tau, strict=True))
    yield Check(r.delta_J, bound + r.rounding, f"J(w) − J(u) ≤ −Σ(q_lε − C)τ_l; {s.name}")


def entry_checks(least: dict[str, float]) -> Iterator[Check]:
    """ΔH/(ετ) entry by entry over a grid of (u, g), ε = 1, ρ = 1/4, with the tie ρ = εu² at u = ½ on it."""
    eps, rho = 1.0, 0.25
    u, g = (a.ravel() for a in np.meshgrid(np.arange(-16, 17) / 8, np.arange(-32, 33) / 8))
    for name, r, q in (("L0", L0(), 1.0), ("L1", L1(), 2.0), ("no penalty", NoPenalty(), 2.0)):
        w = r.argmax(u, g, eps, rho, WHOLE_LINE)
        moved = w != u
        dh = g * (w - u) - rho * (r.pointwise(w) - r.pointwise(u))
        ratio = float(np.min(dh[moved] / (eps * (w - u)[moved] ** 2)))
        least[name] = min(least[name], ratio)
        yield Check(ratio, q - 1e-12, f"least ΔH/(ετ), {name}", ">=")
        yield Check(ratio, q + 1e-12, f"least ΔH/(ετ) is reached, {name}")


# --- T15 --------------------------------------------------------------------------------------------------------------


def needed(c_hat: float, eta: float, q: float) -> float:
    """(Ĉ + η)/q: the ε at which a trial just passes (T15)."""
    return (c_hat + eta) / q


@claim(
    tag="T15",
    title="What acceptance means",
    statement="with q = ΣΔH/(ετ) a trial is accepted iff Ĉ + η ≤ qε; q = 2 for interior unpenalised entries",
    dtypes=("float64",),
)
def meaning_of_acceptance(context: Context) -> Outcome:
    """Statement: accepted iff Ĉ + η ≤ qε, q = ΣΔH/(ετ) ≥ 1; q = 2 exactly without penalty and box, ≥ 2 where convex.
    The classic rule pushes ε down to about (Ĉ + η)/q, the curvature rule aims at Ĉ.
    Hypotheses: full batch, exact maximiser.
    Measured: the verdict of every trial of runs by the classic and the curvature rule; q; the median of ε/((Ĉ + η)/q)
    over the second half of the classic run, which lies in [1, σ/ζ²], and of ε/(Ĉ + η) for the curvature rule, in [½,
    2θ] on least squares. Figure: ε_k, Ĉ_k, Ĉ_k/q_k and ½λ_max(D²L_B(u^k)) along a run.
    """
    figures: list[Figure] = []

    def one(case: Case) -> Iterator[Check]:
        plain = case.index % 2 == 0
        choices: dict[str, Any] = {"regulariser": NoPenalty(), "admissible": WHOLE_LINE} if plain else {}
        s = runs.enclosable(case, **choices)
        classic = ClassicRule()
        for rule in (classic, CurvatureRule()):
            _solution, trials = runs.run(s, Method(rule, AbsoluteTest(1e-4)), Stop(steps=context.count(6, 40, 200)))
            yield from verdict_checks(s, trials, plain)
            if rule is classic and context.profile != "micro":
                late = [t.record for t in solution_half(trials) if t.record.accepted]
                pushed = [r.eps / needed(r.c_hat, 1e-4, r.sum_dh / (r.eps * r.tau)) for r in late if r.c_hat > 0]
                if len(pushed) >= 10 and not clipped(trials, classic):
                    yield Check(float(np.median(pushed)), 1.0, f"classic rule: ε ≥ (Ĉ + η)/q; {s.name}", ">=")
        if case.index == 0 and context.profile != "micro":
            figures.append(curvature_figure(s, context.count(0, 40, 200)))

    return survey(context, one, micro=2, quick=6, full=30).with_(figures=figures)


def solution_half(trials: list[Trial]) -> list[Trial]:
    """The second half of the trials."""
    return trials[len(trials) // 2 :]


def clipped(trials: list[Trial], rule: ClassicRule) -> bool:
    """True if ε met its lower bound."""
    return any(t.eps_next <= rule.eps_min for t in trials)


def verdict_checks(s: Setting, trials: list[Trial], plain: bool) -> Iterator[Check]:
    """Accepted iff Ĉ + η ≤ qε, where rounding leaves no doubt; and q."""
    for trial in trials:
        r = trial.record
        if r.verdict not in ("accepted", "rejected"):
            continue
        q = r.sum_dh / (r.eps * r.tau)
        gap, doubt = r.eps - needed(r.c_hat, 1e-4, q), r.rounding / r.tau
        if abs(gap) > doubt:
            yield holds(r.accepted == (gap > 0), f"accepted iff Ĉ + η ≤ qε; {s.name}")
        yield Check(q, 1 - 1e-9, f"q ≥ 1; {s.name}", ">=")
        if plain:  # w = u + g/(2ε) + δ with |δ| ≤ roundoff·|w|: q = 2 − 2⟨δ, w − u⟩/τ
            near = 1e-12 + 4 * np.finfo(float).eps * math.sqrt(inner(trial.w, trial.w) / r.tau)
            yield Check(abs(q - 2), near, f"q = 2; {s.name}")


def curvature_figure(s: Setting, steps: int) -> Figure:
    """ε_k, Ĉ_k, Ĉ_k/q_k and ½λ_max along a run by the curvature rule."""
    _, trials = runs.run(s, Method(), Stop(steps=steps))
    accepted = [t for t in trials if t.record.accepted]
    k = tuple(float(t.record.step) for t in accepted)
    half = tuple(0.5 * largest_eigenvalue(s.problem, t.u, s.x, s.y, tolerance=1e-3) for t in accepted)
    q = [t.record.sum_dh / (t.record.eps * t.record.tau) for t in accepted]
    c = [t.record.c_hat for t in accepted]
    return Figure(
        "ε, Ĉ and the curvature along a run (T15)",
        "accepted step k",
        "",
        (
            Curve("ε_k", k, tuple(t.record.eps for t in accepted)),
            Curve("Ĉ_k", k, tuple(c)),
            Curve("Ĉ_k/q_k", k, tuple(a / b for a, b in zip(c, q, strict=True))),
            Curve("½λ_max", k, half),
        ),
        log_y=True,
    )


# --- T16 --------------------------------------------------------------------------------------------------------------


def relative_threshold(constant: float, eta1: float) -> float:
    """C/(1 − η₁): every ε from here on passes the relative test (T16)."""
    return constant / (1 - eta1)


@claim(
    tag="T16",
    title="Relative test",
    statement="J(u) − J(w) ≥ η₁ΣΔH: every ε ≥ C/(1 − η₁) passes, Σε_kτ_k ≤ (J_0 − J_inf)/η₁, scale-free",
    dtypes=("float64",),
)
def relative_test(context: Context) -> Outcome:
    """Statement: with 0 < η₁ < 1 every ε ≥ C/(1 − η₁) passes (half of it if all is convex); Σε_kτ_k ≤ (J_0 − J_inf)/η₁;
    the test does not change when J is scaled.
    Hypotheses: L_B ∈ C², exact maximiser, J_inf = 0.
    Measured: the inequality on every accepted step of runs, J by fresh sweeps; the sum; least squares along the top
    eigenvector accepted just above ε = C/(2(1 − η₁)) and rejected just below; two runs of one problem, one with J, ε
    and ρ scaled by 2⁻¹⁰: the same controls and verdicts bit for bit.
    """

    def one(case: Case) -> Iterator[Check]:
        eta1 = float(case.choose(0.1, 0.25, 0.5))
        s = problems.smooth(case)
        solution, trials = runs.run(s, Method(acceptance=RelativeTest(eta1)), Stop(steps=context.count(3, 20, 60)))
        for trial in trials:
            r = trial.record
            fall = runs.objective(s, trial.u) - runs.objective(s, trial.w)
            if r.accepted:
                yield Check(fall, eta1 * r.sum_dh - r.rounding, f"J(u) − J(w) ≥ η₁ΣΔH; {s.name}", ">=")
            elif r.verdict == "rejected":
                yield Check(fall, eta1 * r.sum_dh + r.rounding, f"rejected below η₁ΣΔH only; {s.name}")
        spent = sum(r.eps * r.tau for r in solution.steps)
        yield Check(spent, trials[0].record.J_before / eta1, f"Σε_kτ_k ≤ (J_0 − J_inf)/η₁; {s.name}")
        q, lam = eigenvector_setting(case)
        for factor, expected in ((1.001, True), (0.999, False)):
            eps = factor * relative_threshold(lam / 2, eta1) / 2
            _, trials = runs.run(q, Method(FixedRule(eps), RelativeTest(eta1)), Stop(steps=1))
            yield holds(trials[0].record.accepted == expected, f"ε = {factor}·C/(2(1 − η₁)); {q.name}")
        yield from scale_free(case, eta1)

    return survey(context, one, micro=2, quick=9, full=60)


def scale_free(case: Case, eta1: float) -> Iterator[Check]:
    """x and y scaled by 2⁻⁵ in a dense stage without bias scale L_B, g and D²L_B by 2⁻¹⁰; so are ρ and ε₀."""
    s = problems.quadratic(case, rho=0.0625, regulariser=L0())
    dense = s.network.stages[0]
    assert isinstance(dense, Dense)
    net = replace(s.network, stages=(replace(dense, bias=False),))
    problem = Problem(net, s.problem.loss, L0(), rho=s.problem.rho)
    one = replace(s, problem=problem, controls=((s.controls[0][0],),))
    f = 2.0**-5
    two = replace(one, problem=replace(problem, rho=f * f * problem.rho), x=f * s.x, y=f * s.y)
    records = []
    for setting, scale in ((one, 1.0), (two, f * f)):
        rule = CurvatureRule(eps0=0.25 * scale, eps_min=1e-8 * scale)
        solution, trials = runs.run(setting, Method(rule, RelativeTest(eta1)), Stop(steps=4))
        records.append((solution.controls, [t.record.verdict for t in trials]))
    (u1, v1), (u2, v2) = records
    yield holds(v1 == v2, f"the same verdicts; {one.name}")
    yield Check(float(np.max(np.abs(to_vector(u1) - to_vector(u2)))), 0.0, f"the same controls; {one.name}")


# --- T17 --------------------------------------------------------------------------------------------------------------


def expected_metric(metric: Any, squares: list[list[np.ndarray]]) -> list[np.ndarray]:
    """d after the switching functions whose squares are given, from the definition: d = √(Σβ^j(1−β)s/(1−β^n)), clipped
    to [floor, ceiling] times its mean over all entries, then divided by its mean."""
    n, beta = len(squares), metric.beta
    weights = [(1 - beta) * beta ** (n - 1 - j) / (1 - beta**n) for j in range(n)]
    d = [np.sqrt(sum(a * s[i] for a, s in zip(weights, squares, strict=True))) for i in range(len(squares[0]))]
    if isinstance(metric, LayerMetric):
        d = [np.full_like(a, math.sqrt(float(np.mean(a**2)))) for a in d]
    entries = sum(a.size for a in d)
    mean = sum(float(a.sum()) for a in d) / entries
    d = [np.clip(a, metric.floor * mean, metric.ceiling * mean) for a in d]
    mean = sum(float(a.sum()) for a in d) / entries
    return [a / mean for a in d]


def metric_constant(constant: float, smallest: float) -> float:
    """C_D ≤ C/d_min."""
    return constant / smallest


@claim(
    tag="T17",
    title="Variable metric",
    statement="‖Δ‖²_D in K, test, τ and Ĉ alike; C_D ≤ C/d_min; D fixed within an iterate; Στ_D ≤ (J_0 − J_inf)/η",
)
def variable_metric(context: Context) -> Outcome:
    """Statement: with weights d in K_ε, the maximiser has c_i = u_i + g_i/(2εd_i) and thresholds √(ρω_i/(εd_i)); ΔH
    needs no D; C_D ≤ C/d_min; if D changes only between iterates, Στ_D ≤ (J_0 − J_inf)/η and ε_k ≤ max(ε_0, ε_min,
    s(C/d_min + η)), s = max(σ_min, θ, σ).
    Hypotheses: L0, whole line, least squares for the constant (C exact), smooth nets for the rest; LayerMetric,
    GradientMetric and IdentityMetric.
    Measured: d against its definition from the history of g, summed afresh; the candidate entry by entry; the recorded
    τ against Σd_iΔ_i²; d equal among the rejections of one iterate; the sums; Ĉ ≤ C/d_min; ε.
    """
    tolerance = 1e3 * context.u  # sums of at most some hundred terms, and a root

    def one(case: Case) -> Iterator[Check]:
        metric = case.cycle(
            GradientMetric(beta=0.5), LayerMetric(beta=0.5), GradientMetric(beta=0.9, floor=0.1), IdentityMetric()
        )
        exact = case.index % 2 == 1
        build = problems.quadratic if exact else problems.smooth
        s = build(case, regulariser=L0(), admissible=WHOLE_LINE, rho=0.02)
        rule, eta = CurvatureRule(eps0=0.02), 1e-3
        C = runs.curvature_norm(problems.host(s), problems.host(s).controls)[0] if exact else math.inf
        solution, trials = runs.run(s, Method(rule, AbsoluteTest(eta), metric), Stop(steps=context.count(3, 15, 40)))
        squares: list[list[np.ndarray]] = []
        top = rule.eps0
        for sequence in runs.sequences(trials):
            g = runs.switching(s, sequence[0].u)
            hg = [to_numpy(a).astype(np.float64) for a in arrays_of(g)]
            mean_square = lambda a: np.full(a.shape, np.mean(a * a)) if isinstance(metric, LayerMetric) else a * a  # noqa: E731
            squares.append([mean_square(a) for a in hg])
            d = [np.ones_like(a) for a in hg]
            if not isinstance(metric, IdentityMetric):
                d = expected_metric(metric, squares)
            for trial in sequence:
                yield from metric_checks(s, trial, d, hg, tolerance)
                if exact and trial.record.verdict in ("accepted", "rejected"):
                    smallest = min(float(a.min()) for a in d)
                    bound = metric_constant(C, smallest)
                    slack = trial.record.rounding / trial.record.tau
                    yield Check(trial.record.c_hat, bound * (1 + tolerance) + slack, f"Ĉ ≤ C/d_min; {s.name}")
                    top = max(top, rule.eps_min, max(rule.sigma_min, rule.theta) * (bound + eta))
                    if trial.record.rounding * 100 < trial.record.sum_dh:
                        yield Check(trial.eps_next, top * (1 + tolerance), f"ε ≤ max(ε₀, s(C/d_min + η)); {s.name}")
        spent = sum(r.tau for r in solution.steps)
        yield Check(spent, trials[0].record.J_before / eta, f"Στ_D ≤ (J_0 − J_inf)/η; {s.name}")

    return survey(context, one, micro=4, quick=16, full=80)


def metric_checks(
    s: Setting, trial: Trial, d: list[np.ndarray], g: list[np.ndarray], tolerance: float
) -> Iterator[Check]:
    """The metric of a trial, its candidate, its τ and ΣΔH."""
    r = trial.record
    used = [np.ones_like(a) for a in d]
    if trial.metric is not None:
        used = [np.broadcast_to(to_numpy(a), b.shape) for a, b in zip(arrays_of(trial.metric), d, strict=True)]
    worst = max(float(np.max(np.abs(a - b) / b)) for a, b in zip(used, d, strict=True))
    yield Check(worst, tolerance, f"d; {s.name}")
    tau = dh = 0.0
    weights = list(arrays_of(s.problem.weights))
    for u, w, a, b, omega in zip(arrays_of(trial.u), arrays_of(trial.w), d, g, weights, strict=True):
        hu, hw = to_numpy(u).astype(np.float64), to_numpy(w).astype(np.float64)
        tau += float(np.sum(a * (hw - hu) ** 2))
        dh += float(np.sum(b * (hw - hu))) - r.rho * omega * (np.count_nonzero(hw) - np.count_nonzero(hu))
        c = hu + b / (2 * r.eps * a)
        gain, cost = r.eps * a * c**2, r.rho * omega
        clear = np.abs(gain - cost) > 1e3 * tolerance * cost
        expected = np.where(gain > cost, c, 0.0) if cost > 0 else c
        size = np.abs(hu) + np.abs(b / (2 * r.eps * a)) + 1e-300
        yield Check(float(np.max(np.abs(hw - expected) / size, where=clear, initial=0.0)), tolerance, f"w; {s.name}")
    # τ from w − u loses digits where w is close to u; each difference errs by u|w|
    length = float(np.linalg.norm(to_vector(trial.w)))
    loss = tolerance * (tau + length * math.sqrt(tau) + 1e-3 * tolerance * length**2) * max(float(a.max()) for a in d)
    yield Check(abs(r.tau - tau), loss, f"τ = Σd_iΔ_i²; {s.name}")
    spread = sum(float(np.sum(np.abs(b))) for b in g) * length
    yield Check(abs(r.sum_dh - dh), tolerance * (abs(dh) + spread + r.rho * length), f"ΣΔH; {s.name}")
