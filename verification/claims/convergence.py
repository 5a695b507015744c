"""T9, T12, T19: convergence, structure of L0 iterates, when a small step means stationarity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.arrays import to_numpy
from pmp_ref.augmentation import ClassicRule, CurvatureRule
from pmp_ref.bounds import ball_bound
from pmp_ref.certificate import certify
from pmp_ref.controls import arrays_of, to_vector
from pmp_ref.layers import Dense, Tanh
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.regulariser import L0, GroupL0, Polynomial
from pmp_ref.result import Status
from pmp_ref.second_order import hessian
from pmp_ref.stop import Stop
from verification.claim import Case, Check, Context, Curve, Figure, Outcome, Table, claim, holds, survey
from verification.claims import problems, runs
from verification.claims.problems import Setting
from verification.claims.runs import Trial

# --- T9 ---------------------------------------------------------------------------------------------------------------


def total_increment(fall: float, eta: float) -> float:
    """(J_0 − J_inf)/η ≥ Στ_k (T9)."""
    return fall / eta


def smallest_increment(fall: float, eta: float, steps: int) -> float:
    """(J_0 − J_inf)/(ηK) ≥ min_{k<K} τ_k (T9)."""
    return fall / (eta * steps)


def ramped_fall(fall: float, rho0: float, rho1: float, sup_penalty: float) -> float:
    """J_0 − J_inf + (ρ_∞ − ρ_0) sup R, for ρ rising from ρ_0 to ρ_∞ (T9)."""
    return fall + (rho1 - rho0) * sup_penalty


@claim(
    tag="T9",
    title="Convergence",
    statement="J(u^k) falls; Στ_k ≤ (J_0 − J_inf)/η; min τ_k ≤ (J_0 − J_inf)/(ηK); ε*(ū) ≤ ε̄ at limits",
    dtypes=("float64",),
)
def convergence(context: Context) -> Outcome:
    """Statement: J(u^k) decreases by at least ητ_k; Στ_k ≤ (J_0 − J_inf)/η; min_{k<K}τ_k ≤ (J_0 − J_inf)/(ηK); fewer
    than (J_0 − J_inf)/(ηκ) steps have τ_k > κ; limits are fixed points at a limit of ε_k, so ε*(ū) ≤ ε̄. With ρ rising,
    Στ ≤ [J_0 − J_inf + (ρ_∞ − ρ_0) sup R]/η.
    Hypotheses: full batch, ρ fixed (or rising), J_inf = 0, box, exact maximiser.
    Measured: J by fresh sweeps at every accepted step; the sums with η large enough to bite (η = 0.05; the sum's bound
    with J_inf replaced by the J that the run reached is met with equality in the sum of its own inequalities); least
    squares with L0 run to a residual of 1e-7: ε*(ū) of the certificate against the largest ε of the last steps.
    """
    rows: list[tuple[Any, ...]] = []

    def one(case: Case) -> Iterator[Check]:
        micro = context.profile == "micro"
        eta = float(case.choose(0.02, 0.05, 0.2))
        s = problems.smooth(case, admissible=Box(-1.0, 1.0))
        rule = case.cycle(CurvatureRule(), ClassicRule(sigma=1.5, zeta=0.8))
        _solution, trials = runs.run(s, Method(rule, AbsoluteTest(eta)), Stop(steps=context.count(3, 25, 100)))
        yield from descent_checks(s, trials, eta)
        ramp = Ramp(0.0, 1.0)
        _, trials = runs.run(s, Method(rule, AbsoluteTest(eta), ramp=ramp), Stop(steps=context.count(2, 10, 40)))
        accepted = [t for t in trials if t.record.accepted]
        if accepted:
            largest = max(float(s.problem.penalty(t.w)) for t in accepted)
            fall = ramped_fall(trials[0].record.J_before, trials[0].record.rho, accepted[-1].record.rho, largest)
            yield Check(sum(t.record.tau for t in accepted), total_increment(fall, eta), f"Στ with rising ρ; {s.name}")
            for t in accepted:
                expected = ramp(s.problem.rho, (t.record.step - 1) / context.count(2, 10, 40))
                yield Check(abs(t.record.rho - expected), 1e-15, f"ρ of the step; {s.name}")
                at = replace(s, problem=replace(s.problem, rho=t.record.rho))
                fall = runs.objective(at, t.w) - runs.objective(at, t.u)
                yield Check(fall, -eta * t.record.tau + t.record.rounding, f"J falls at the ρ of the step; {s.name}")
                yield Check(
                    abs(fall - t.record.delta_J), 1e-12 + t.record.rounding, f"ΔJ at the ρ of the step; {s.name}"
                )
        if not micro or case.index == 0:
            yield from limit_checks(case, micro, rows)

    outcome = survey(context, one, micro=2, quick=10, full=60)
    return outcome.with_(tables=[Table("Runs to a fixed point (least squares, L0, box)", LIMITS, tuple(rows))])


LIMITS = ("problem", "status", "steps", "residual", "ε*(ū)", "largest ε late")


def descent_checks(s: Setting, trials: list[Trial], eta: float) -> Iterator[Check]:
    """J falls by ητ_k or more; sums and rates."""
    yield runs.ends_well(trials, s.name)
    accepted = [t for t in trials if t.record.accepted]
    if not accepted:
        return
    values = [runs.objective(s, t.u) for t in accepted] + [runs.objective(s, accepted[-1].w)]
    taus = [float(np.sum(t.delta**2)) for t in accepted]
    for t, before, after, tau in zip(accepted, values, values[1:], taus, strict=False):
        yield Check(after - before, -eta * tau + t.record.rounding, f"J falls by ητ; {s.name}")
        yield Check(abs(t.record.tau - tau), 1e-10 * tau, f"τ; {s.name}")
        yield Check(float(tau == 0), 0.0, f"an accepted step moves; {s.name}")
        yield Check(abs(t.record.J - after), 1e-12 * (1 + abs(after)), f"J recorded; {s.name}")
    rounding = sum(t.record.rounding for t in accepted) / eta
    total, fall = sum(taus), values[0]
    yield Check(total, total_increment(fall - values[-1], eta) + rounding, f"Στ ≤ (J_0 − J_K)/η; {s.name}")
    yield Check(total, total_increment(fall, eta), f"Στ ≤ (J_0 − J_inf)/η; {s.name}")
    yield Check(min(taus), smallest_increment(fall, eta, len(taus)), f"min τ; {s.name}")
    kappa = float(np.median(taus))
    yield Check(float(sum(t > kappa for t in taus)), fall / (eta * kappa), f"steps with τ > κ; {s.name}")


def limit_checks(case: Case, micro: bool, rows: list[tuple[Any, ...]]) -> Iterator[Check]:
    """A run to a fixed point ū: ε*(ū) ≤ ε̄, taken as the largest ε of the last tenth of the steps."""
    s = problems.quadratic(case, regulariser=L0(), admissible=Box(-2.0, 2.0), rho=0.02, samples=8)
    tolerance = 1e-3 if micro else 1e-7
    solution, trials = runs.run(
        s, Method(CurvatureRule(), AbsoluteTest(1e-3)), Stop(steps=30 if micro else 4000, residual=tolerance)
    )
    steps = [t.record for t in trials if t.record.accepted]
    if (
        solution.status not in (Status.CONVERGED_RESIDUAL, Status.CONTROL_UNCHANGED, Status.PRECISION_LIMIT)
        or not steps
    ):
        return
    late = max([r.eps for r in steps[-max(1, len(steps) // 10) :]] + [trials[-1].record.eps])
    found = certify(s.problem, solution.controls, s.x, s.y, late)
    if solution.status is Status.CONVERGED_RESIDUAL:
        yield Check(found.residual_support, 10 * tolerance, f"residual at the limit; {s.name}")
    yield Check(found.eps_star, late * (1 + 1e-6), f"ε*(ū) ≤ ε̄; {s.name}")
    rows.append((s.name, str(solution.status), len(steps), found.residual_support, found.eps_star, late))


# --- T12 --------------------------------------------------------------------------------------------------------------


def least_square(rho: float, a0: float, a2: float, eps: float, admissible: Admissible) -> float:
    """m(ε) = min(ρa₀/(ε + ρa₂/2), lo², hi²) over nonzero bounds: a nonzero entry after a step has u_i² ≥ m(ε) (T12)."""
    assert isinstance(admissible, Box)
    ends = [b * b for b in (admissible.lo, admissible.hi) if b != 0 and math.isfinite(b)]
    return min([rho * a0 / (eps + rho * a2 / 2), *ends])


def finite_cost(gap: float, d_min: float) -> float:
    """d_min δ² ≤ τ_D of a step on a set whose values differ by δ or more (T12.5; with a metric T17.2)."""
    return d_min * gap**2


def most_changes(fall: float, eta: float, least: float) -> float:
    """1 + (J_0 − J_inf)/(η m(ε_max)) accepted steps at most change the support (T12)."""
    return 1 + fall / (eta * least)


@claim(
    tag="T12",
    title="Structure of L0 iterates",
    statement="nonzeros have u_i² ≥ m(ε) after a step; from the second on a change of support costs τ ≥ m(ε_max)",
    dtypes=("float64",),
)
def structure(context: Context) -> Outcome:
    """Statement: after a step at ε a nonzero strictly inside the box has u_i² > ρa₀/(ε + ρa₂/2); a change of support
    costs τ ≥ m(ε_max) from the second accepted step on; at most 1 + (J_0 − J_inf)/(ηm(ε_max)) steps change it. Groups:
    ‖w_g‖² > ρω/ε. Finite sets with gap δ: every change costs τ ≥ δ², and at most (J_0 − J_inf)/(ηδ²) steps are made.
    With a metric (T17): Σ d_i w_i² > ρω/ε, τ_D ≥ d_min δ².
    Hypotheses: full batch, fixed ρ, exact maximiser, ties to 0; no metric but for groups and finite sets.
    Measured: every nonzero penalised entry (group) after every accepted step; τ of every step that changes the support;
    the number of changes; least squares to convergence: once the support has settled and ε is held, the increments
    shrink by a factor of at most 1 − λ_min/(2ε) per step on the support, λ_min of the restricted Hessian.
    """
    rows: list[tuple[Any, ...]] = []
    figures: list[Figure] = []

    def one(case: Case) -> Iterator[Check]:
        kind = case.cycle("l0", "group", "finite", "l0 + l2")
        steps, eta = context.count(3, 30, 150), 1e-3
        regulariser = {"l0 + l2": Polynomial(1.0, 0.0, 0.5), "group": GroupL0(), "finite": L0()}.get(kind, L0())
        admissible: Admissible = {"group": WHOLE_LINE, "finite": FiniteSet((-1.0, -0.5, 0.0, 0.5, 1.0))}.get(
            kind, case.choose(Box(-1.0, 1.0), WHOLE_LINE)
        )
        s = problems.smooth(case, regulariser=regulariser, admissible=admissible, rho=0.02)
        s = replace(s, controls=s.problem.project(s.controls))
        scaled = kind in ("group", "finite") and (case.index % 8 >= 4 or context.profile == "micro")
        metric = case.choose(GradientMetric(0.5), LayerMetric(0.5)) if scaled else IdentityMetric()
        _, trials = runs.run(s, Method(CurvatureRule(), AbsoluteTest(eta), metric), Stop(steps=steps))
        yield runs.ends_well(trials, s.name)
        accepted = [t for t in trials if t.record.accepted]
        if kind == "finite":
            yield from finite_checks(s, accepted, eta)
        elif kind == "group":
            yield from group_checks(s, accepted)
        else:
            yield from entry_checks(s, accepted, eta)
        if kind == "l0" and context.profile != "micro":
            yield from settled(case, rows, figures)

    outcome = survey(context, one, micro=4, quick=16, full=80)
    return outcome.with_(tables=[Table("After the support has settled", SETTLED, tuple(rows))], figures=figures[:1])


SETTLED = ("problem", "accepted steps", "last change of support at", "rate of ‖Δ‖", "1 − λ_min/(2ε)", "condition")


def entry_checks(s: Setting, accepted: list[Trial], eta: float) -> Iterator[Check]:
    """Penalised entries on line or box, a₀ > 0."""
    changes, largest = 0, max((t.record.eps for t in accepted), default=0.0)
    least = math.inf
    parts = list(
        zip(
            *(list(arrays_of(n)) for n in (s.problem.regulariser, s.problem.admissible, s.problem.weights)), strict=True
        )
    )
    for k, t in enumerate(accepted):
        changed = False
        for (r, box, omega), u, w in zip(parts, arrays_of(t.u), arrays_of(t.w), strict=True):
            if omega == 0:
                continue
            hu, hw = to_numpy(u), to_numpy(w)
            rho = t.record.rho * omega
            inside = (hw != 0) & (hw > box.lo) & (hw < box.hi)
            bound = rho * r.a0 / (t.record.eps + rho * r.a2 / 2)
            if inside.any():
                yield Check(
                    float(np.min(hw[inside] ** 2)), bound * (1 - 1e-9), f"u_i² > ρa₀/(ε + ρa₂/2); {s.name}", ">="
                )
            if (hw != 0).any():
                smallest = least_square(rho, r.a0, r.a2, t.record.eps, box)
                yield Check(float(np.min(hw[hw != 0] ** 2)), smallest * (1 - 1e-9), f"u_i² ≥ m(ε); {s.name}", ">=")
            least = min(least, least_square(rho, r.a0, r.a2, largest, box))
            changed = changed or bool(np.any((hu != 0) != (hw != 0)))
        changes += changed
        if changed and k > 0:
            yield Check(t.record.tau, least * (1 - 1e-9), f"a change of support costs τ ≥ m(ε_max); {s.name}", ">=")
    if accepted:
        yield Check(changes, most_changes(accepted[0].record.J_before, eta, least), f"changes of support; {s.name}")


def group_checks(s: Setting, accepted: list[Trial]) -> Iterator[Check]:
    """‖w_g‖² > ρω/ε for the groups that stay; Σ d_i w_i² with a metric."""
    for t in accepted:
        for r, omega, w, d in zip(
            arrays_of(s.problem.regulariser), arrays_of(s.problem.weights), arrays_of(t.w), metric_of(t), strict=True
        ):
            if omega == 0 or not isinstance(r, GroupL0):
                continue
            hw = to_numpy(w) * np.sqrt(d)
            square = np.sum(np.reshape(np.moveaxis(hw, r.axis, 0), (hw.shape[r.axis], -1)) ** 2, axis=1)
            if (square > 0).any():
                bound = t.record.rho * omega * r.omega / t.record.eps
                yield Check(float(np.min(square[square > 0])), bound * (1 - 1e-9), f"‖w_g‖² > ρω/ε; {s.name}", ">=")


def metric_of(t: Trial) -> list[np.ndarray]:
    """d of each control in the shape of the control; ones without a metric."""
    ones = [np.ones(w.shape) for w in arrays_of(t.w)]
    return ones if t.metric is None else [a * to_numpy(d) for a, d in zip(ones, arrays_of(t.metric), strict=True)]


def finite_checks(s: Setting, accepted: list[Trial], eta: float) -> Iterator[Check]:
    """Every step on a finite set costs τ_D ≥ d_min δ², and stays in the set; so there are not many."""
    least = math.inf
    for t in accepted:
        sets = list(arrays_of(s.problem.admissible))
        cost = finite_cost(min(a.gap for a in sets), min(float(np.min(d)) for d in metric_of(t)))
        least = min(least, cost)
        yield Check(t.record.tau, cost * (1 - 1e-9), f"τ_D ≥ d_min δ²; {s.name}", ">=")
        inside = all(bool(np.all(a.contains(to_numpy(w)))) for a, w in zip(sets, arrays_of(t.w), strict=True))
        yield holds(inside, f"w ∈ U; {s.name}")
    if accepted:
        most = accepted[0].record.J_before / (eta * least)
        yield Check(len(accepted), most, f"accepted steps ≤ (J_0 − J_inf)/(η d_min δ²); {s.name}")


def settled(case: Case, rows: list[tuple[Any, ...]], figures: list[Figure]) -> Iterator[Check]:
    """Least squares with L0 and ε held at C + η: after the last change of support u⁺ = u + g/(2ε) on the support S, so
    Δ⁺_S = (I − H_SS/(2ε))Δ_S, and with ½λ_max ≤ ε the norm shrinks by a factor between 1 − λ_max/(2ε) ≥ 0 and
    1 − λ_min/(2ε)."""
    s = problems.quadratic(case, regulariser=L0(), admissible=WHOLE_LINE, rho=0.01, samples=9)
    eta = 1e-6
    eps = (runs.curvature_norm(s, s.controls)[0] + eta) * (1 + 1e-9)
    _, trials = runs.run(s, Method(ClassicRule(eps0=eps, zeta=1.0), AbsoluteTest(eta)), Stop(steps=300))
    accepted = [t for t in trials if t.record.accepted]
    supports = [to_vector(t.w) != 0 for t in accepted]
    weights = np.concatenate(
        [np.full(a.size, w) for a, w in zip(arrays_of(s.controls), arrays_of(s.problem.weights), strict=True)]
    )
    supports = [a | (weights == 0) for a in supports]
    last = max([k for k in range(1, len(supports)) if not np.array_equal(supports[k], supports[k - 1])], default=0)
    tail = accepted[last + 1 :]
    norms = [float(np.linalg.norm(t.delta)) for t in tail]
    if len(norms) < 3 or norms[0] == 0 or not supports[-1].any():
        return
    H = runs.symmetric(hessian(s.problem, s.controls, s.x, s.y))[np.ix_(supports[-1], supports[-1])]
    values = np.linalg.eigvalsh(H)
    rate = 1 - float(values[0]) / (2 * eps)
    for a, b in itertools.pairwise(norms):
        if a > 1e-9 * max(1.0, float(np.linalg.norm(to_vector(tail[0].u)))):  # above the rounding of w − u
            yield Check(b, a * rate * (1 + 1e-6), f"linear rate after the support has settled; {s.name}")
    k = min(len(norms) - 1, next((i for i, a in enumerate(norms) if a < 1e-9), len(norms) - 1))
    measured = (norms[k] / norms[0]) ** (1 / k) if k > 0 and norms[k] > 0 else 0.0
    condition = float(values[-1] / values[0]) if values[0] > 0 else math.inf
    rows.append((s.name, len(accepted), last + 1, measured, rate, condition))
    steps = tuple(float(last + 2 + i) for i in range(len(norms)))
    figures.append(
        Figure(
            "‖w − u‖ after the support has settled (T12)",
            "accepted step",
            "‖w − u‖",
            (
                Curve("measured", steps, tuple(norms), "points"),
                Curve("rate 1 − λ_min/(2ε)", steps, tuple(norms[0] * rate**i for i in range(len(norms)))),
            ),
            log_y=True,
        )
    )


# --- T19 --------------------------------------------------------------------------------------------------------------


def residual_bound(eps: float, constant: float, tau: float) -> float:
    """2(ε_k + C)√τ_k ≥ ‖g_S(u⁺)‖, C two-sided: ½ sup ‖D²L_B‖ on [u, u⁺] (T19)."""
    return 2 * (eps + constant) * math.sqrt(tau)


def off_support_bound(eps: float, rho: float, constant: float, tau: float) -> float:
    """2√(ε_kρ) + 2(ε_k + C)√τ_k ≥ |g_i(u⁺)| off the support (T19)."""
    return 2 * math.sqrt(eps * rho) + residual_bound(eps, constant, tau)


@claim(
    tag="T19",
    title="When a small step means stationarity",
    statement="‖g_S(u⁺)‖ ≤ 2(ε_k + C)√τ_k, and |g_i(u⁺)| ≤ 2√(ε_kρ) + 2(ε_k + C)√τ_k off S",
    dtypes=("float64",),
)
def small_steps(context: Context) -> Outcome:
    """Statement: after an accepted step, S the support of u⁺ and the unpenalised entries, no box: ‖g_S(u⁺)‖ ≤ 2(ε_k +
    C)√τ_k with C = ½sup‖D²L_B‖ on [u, u⁺]; off S |g_i(u⁺)| ≤ 2√(ε_kρω_i) + 2(ε_k + C)√τ_k.
    Hypotheses: pure L0, whole line, exact maximiser, L_B ∈ C².
    Measured: g(u⁺) by fresh sweeps at every accepted step; C exact on least squares, and on dense chains ½(‖D²L_B(u)‖ +
    mean_s Δ_s(√τ)) by T7a. Also at a large ε: a step with τ < 1e-12 whose residual is not small shows that τ alone
    proves nothing.
    """
    shares: list[float] = []

    def one(case: Case) -> Iterator[Check]:
        exact = case.index % 3 != 2
        if exact:
            s = problems.quadratic(case, regulariser=L0(), admissible=WHOLE_LINE, rho=0.02)
            constant = runs.curvature_norm(s, s.controls)[1]
        else:
            s = problems.dress(
                case, tiny_chain, regulariser=L0(), admissible=WHOLE_LINE, loss=CrossEntropy(), rho=0.01, samples=4
            )
        _, trials = runs.run(s, Method(CurvatureRule(), AbsoluteTest(1e-6)), Stop(steps=context.count(5, 25, 100)))
        yield runs.ends_well(trials, s.name)
        for t in trials:
            if not t.record.accepted:
                continue
            if not exact:
                constant = two_sided(s, t)
            yield from residual_checks(s, t, constant, shares)
        large = Method(CurvatureRule(eps0=1e9), AbsoluteTest(1e-6))
        _, trials = runs.run(s, large, Stop(steps=1, increment=1e-12))
        r = trials[0].record
        if r.accepted:
            yield Check(r.tau, 1e-12, f"a large ε makes τ small; {s.name}")
            g = to_vector(runs.switching(s, trials[0].w))
            free = np.concatenate(
                [np.full(a.size, w) for a, w in zip(arrays_of(s.controls), arrays_of(s.problem.weights), strict=True)]
            )
            on = (to_vector(trials[0].w) != 0) | (free == 0)
            yield Check(float(np.linalg.norm(g[on])), 1e-3, f"while the residual stays; {s.name}", ">=")

    outcome = survey(context, one, micro=3, quick=18, full=90)
    if not shares:
        return outcome
    return outcome.with_(notes=[f"‖g_S(u⁺)‖ over its bound: median {np.median(shares):.3f}, largest {max(shares):.3f}"])


def tiny_chain(case: Case) -> tuple[Any, tuple[int, ...]]:
    """Two dense stages, 27 weights."""
    return (Dense(3), Tanh(), Dense(3)), (4,)


def two_sided(s: Setting, t: Trial) -> float:
    """½sup‖D²L_B‖ on [u, u⁺] ≤ ½(‖D²L_B(u)‖ + mean_s Δ_s(‖u⁺ − u‖)) by T7a."""
    bound = ball_bound(s.problem, t.u, s.x, s.y)
    change = float(np.mean(bound.growth(float(np.linalg.norm(t.delta)))[1]))
    return 0.5 * (float(np.linalg.norm(bound.hessian, 2)) + change)


def residual_checks(s: Setting, t: Trial, constant: float, shares: list[float]) -> Iterator[Check]:
    """Both bounds after one accepted step, g(u⁺) by fresh sweeps."""
    r, g = t.record, runs.switching(s, t.w)
    on: list[np.ndarray] = []
    rounding = 1e-12 * (1 + float(np.linalg.norm(to_vector(g))))
    for a, w, omega in zip(arrays_of(g), arrays_of(t.w), arrays_of(s.problem.weights), strict=True):
        hg, hw = to_numpy(a), to_numpy(w)
        kept = (hw != 0) | (omega == 0)
        on.append(hg[kept])
        if not kept.all():
            bound = off_support_bound(r.eps, r.rho * omega, constant, r.tau)
            yield Check(float(np.max(np.abs(hg[~kept]))), bound + rounding, f"|g_i(u⁺)| off the support; {s.name}")
    norm = float(np.linalg.norm(np.concatenate(on)))
    bound = residual_bound(r.eps, constant, r.tau)
    shares.append(norm / bound)
    yield Check(norm, bound + rounding, f"‖g_S(u⁺)‖ ≤ 2(ε + C)√τ; {s.name}")
