"""T8, T18: bounded augmentation and finite rejections; the line search is monotone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.arrays import namespace, to_floats
from pmp_ref.augmentation import ClassicRule, CurvatureRule, Rule
from pmp_ref.bounds import ball_bound
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import to_vector, total
from pmp_ref.hamiltonian import augmented_increment, increments, squared_increments
from pmp_ref.layers import Dense
from pmp_ref.loss import CrossEntropy, Loss
from pmp_ref.maximise import maximise
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import NoPenalty
from pmp_ref.stop import Stop
from verification.claim import Case, Check, Context, Outcome, Table, claim, holds, survey
from verification.claims import problems, runs
from verification.claims.problems import Setting
from verification.claims.proven_bounds import lenet_setting
from verification.claims.runs import Trial

WASTE = 1.1  # goal: trial sweeps per accepted step of the curvature rule on a realistic run


def most_rejections(constant: float, eta: float, eps: float, factor: float) -> int:
    """⌈log_s((C + η)/ε)⌉₊, the most rejections in a row from ε on (T8)."""
    return max(0, math.ceil(math.log((constant + eta) / eps) / math.log(factor) - 1e-9))


def largest_eps(eps0: float, eps_min: float, factor: float, constant: float, eta: float) -> float:
    """max(ε₀, ε_min, s(C + η)) (T8)."""
    return max(eps0, eps_min, factor * (constant + eta))


def rejection_factor(rule: ClassicRule | CurvatureRule) -> float:
    """Every rejection multiplies ε by at least this: σ (classic), max(σ_min, θ) (curvature). T8, part 1."""
    return rule.sigma if isinstance(rule, ClassicRule) else max(rule.sigma_min, rule.theta)


def largest_factor(rule: ClassicRule | CurvatureRule) -> float:
    """ε never exceeds this times C + η: σ (classic), max(σ_min, θ growth) (curvature). T8, part 2."""
    return rule.sigma if isinstance(rule, ClassicRule) else max(rule.sigma_min, rule.theta * rule.growth)


def rejections_identity(sigma: float, zeta: float, rejected: int, accepted: int) -> float:
    """r ln σ − a ln(1/ζ) = ln(ε_end/ε₀) of the classic rule (T8)."""
    return rejected * math.log(sigma) - accepted * math.log(1 / zeta)


def most_wasted(sigma: float, zeta: float) -> float:
    """ln(1/ζ)/ln σ, the limit of rejected over accepted trials under the classic rule (T8)."""
    return math.log(1 / zeta) / math.log(sigma)


@claim(
    tag="T8",
    title="Bounded augmentation, finite rejections",
    statement="rejections in a row ≤ ⌈log_s((C_k + η)/ε)⌉₊, s the least factor of a rejection; "
    "ε_k ≤ max(ε_0, ε_min, S(C + η)), S the largest factor",
    dtypes=("float64",),
)
def bounded_augmentation(context: Context) -> Outcome:
    """Statement: with C_k = ½sup λ_max(D²L_B)₊ over the ball of the iterate's first trial, at most ⌈log_s((C_k +
    η)/ε)⌉₊ rejections follow each other and ε_k ≤ max(ε_0, ε_min, S(C + η)), C = max_k C_k. Classic: s = S = σ.
    Curvature: s = max(σ_min, θ) and S = max(σ_min, θ growth), for growth enlarges θ after acceptances only. A rejected
    trial has Ĉ + η > ε, so the curvature rule's jump increases ε. Classic, while nothing clips: r ln σ − a ln(1/ζ) =
    ln(ε_end/ε_0) exactly.
    Hypotheses: L_B ∈ C², controls on a box, exact maximiser, no cap of ε met.
    Measured: least squares, where C_k = ½λ_max is exact, and small chains with C_k from T7a; every trial of runs by
    both rules from a small and a large ε_0, the curvature rule without and with growth. A loss √(u² + 1) that rejects
    twice where log_S allows one rejection. Identity to rounding. The limit of rejected over accepted trials, 1.1 for σ
    = 1.1, ζ = 0.9, on a long classic run. Table: trial sweeps per accepted step of each rule on LeNet-5 and bundled
    images; the curvature rule's is at most 1.1 with mini-batches.
    """
    rows: list[tuple[Any, ...]] = []

    def one(case: Case) -> Iterator[Check]:
        exact = case.index % 3 != 2
        micro = context.profile == "micro"
        if exact:
            s = problems.quadratic(case, admissible=Box(-1.0, 1.0), rho=0.05)
            C = runs.curvature_norm(s, s.controls)[0]
        else:
            s = problems.dress(
                case, runs.plain_chain, loss=CrossEntropy(), admissible=Box(-1.0, 1.0), rho=0.01, samples=4
            )
            C = math.nan
        eta = 1e-3
        for rule in rules(case):
            limit = context.count(5, 60, 200) if exact else context.count(1, 10, 20)
            _, trials = runs.run(s, Method(rule, AbsoluteTest(eta)), Stop(steps=limit))
            yield from rule_checks(s, trials, rule, eta, C, limit)
        if case.index == 0:
            yield from growth_and_rejections(case)
        if case.index == 0 and not micro:
            yield from waste(context, rows)
        if exact and not micro and case.index < 6:
            yield from limit_of_waste(case)

    outcome = survey(context, one, micro=3, quick=12, full=60)
    return outcome.with_(
        tables=[Table("Trial sweeps per accepted step, LeNet-5 on bundled images", SWEEPS, tuple(rows))]
    )


SWEEPS = ("run", "rule", "accepted", "rejected", "trial sweeps per accepted step", "J at the end")


def rules(case: Case) -> tuple[Rule, ...]:
    """The classic and the curvature rule, the latter without and with growth, from a small and a large ε_0 in turn."""
    eps0 = case.cycle(1e-3, 1.0, 20.0)
    classic = ClassicRule(eps0=eps0, sigma=case.cycle(1.1, 2.0), zeta=case.cycle(0.9, 0.5))
    return (
        classic,
        CurvatureRule(eps0=eps0),
        CurvatureRule(eps0=eps0, growth=case.cycle(20.0, 4.0), band=case.cycle(1.0, 10.0), fall=case.cycle(0.0, 1.0)),
    )


class Root(Loss):
    """Φ(x) = √(x² + 1), summed over the scores; Φ″ ≤ 1, and Φ grows like |x|."""

    def values(self, x: Any, y: Any) -> Any:
        xp = namespace(x)
        return xp.sum(xp.sqrt(x * x + 1), axis=1)

    def gradient(self, x: Any, y: Any) -> Any:
        return x / namespace(x).sqrt(x * x + 1)

    def tangent_gradient(self, x: Any, y: Any, dx: Any) -> Any:
        return dx / (x * x + 1) ** 1.5

    def check(self, shape: Any, y: Any) -> None:
        """Any y will do."""


def growth_and_rejections(case: Case) -> Iterator[Check]:
    """L = √(u² + 1) at u = −1.737, ε = 0.01: θ = 3 rejects twice, where θ growth = 60 for s would allow one rejection.

    The ball of the first trial contains 0, where ½L″ = ½, the largest there is.
    """
    eta, eps = 1e-6, 0.01
    rule = CurvatureRule(eps0=eps, theta=3.0, growth=20.0)
    problem = Problem(Network((Dense(1, bias=False),), (1,)), Root(), NoPenalty(), rho=0.0)
    u, one = ((case.asarray(np.array([[-1.737]])),),), case.asarray(np.ones((1, 1)))
    s = Setting(problem, u, one, one, "√(u² + 1)", frozenset())
    _, trials = runs.run(s, Method(rule, AbsoluteTest(eta)), Stop(steps=1))
    rejected = sum(t.record.verdict == "rejected" for t in trials)
    yield Check(float(np.linalg.norm(trials[0].delta)), 1.737, f"{s.name}: the first ball contains 0", ">=")
    yield Check(rejected, most_rejections(0.5, eta, eps, rejection_factor(rule)), f"{s.name}: rejections in a row")
    most = most_rejections(0.5, eta, eps, largest_factor(rule))
    yield Check(rejected, most + 1, f"{s.name}: more rejections than the largest factor allows", ">=")


def rule_checks(
    s: Setting, trials: list[Trial], rule: Rule, eta: float, exact: float, steps: int = 1
) -> Iterator[Check]:
    """Rejections in a row, the bound of ε and the steps of ε of one run of at most ``steps`` steps."""
    assert isinstance(rule, ClassicRule | CurvatureRule)
    growth = (
        f", growth {rule.growth:g}, band {rule.band:g}, fall {rule.fall:g}" if isinstance(rule, CurvatureRule) else ""
    )
    name = f"{type(rule).__name__}(ε₀ = {rule.eps0:g}{growth}); {s.name}"
    largest = 0.0
    for sequence in runs.sequences(trials):
        first, clear = sequence[0], True
        C = exact
        if math.isnan(exact):
            C = ball_bound(s.problem, first.u, s.x, s.y)(float(np.linalg.norm(first.delta)) * (1 + 1e-9))
        largest = max(largest, C)
        rejected = [t for t in sequence if t.record.verdict == "rejected"]
        for t in sequence:
            r = t.record
            clear = clear and abs(r.c_hat * r.tau) > 10 * r.rounding and r.sum_dh > 100 * r.rounding
            if r.verdict == "rejected":
                yield Check(t.eps_next, r.eps * (1 + 1e-12), f"a rejection increases ε; {name}", ">=")
                yield Check(r.c_hat + eta + 2 * r.rounding / r.tau, r.eps, f"rejected: Ĉ + η > ε; {name}", ">=")
                yield from jump_checks(rule, t, eta, name)
        if clear:
            bound = most_rejections(C, eta, first.record.eps, rejection_factor(rule))
            yield Check(len(rejected), bound, f"rejections in a row; {name}")
            top = largest_eps(rule.eps0, rule.eps_min, largest_factor(rule), largest, eta)
            yield Check(max(t.eps_next for t in sequence), top * (1 + 1e-9), f"ε ≤ max(ε₀, ε_min, S(C + η)); {name}")
    yield from identity_checks(rule, trials, name)
    yield from smoothing_checks(rule, trials, eta, name, steps)


def jump_checks(rule: Rule, t: Trial, eta: float, name: str) -> Iterator[Check]:
    """ε after a rejection: σε (classic), max(σ_min ε, θ(Ĉ + η)) (curvature)."""
    r = t.record
    if isinstance(rule, ClassicRule):
        yield Check(abs(t.eps_next - rule.sigma * r.eps), 1e-14 * t.eps_next, f"ε ← σε; {name}")
    elif isinstance(rule, CurvatureRule) and abs(r.c_hat * r.tau) > 10.001 * r.rounding:
        jump = max(rule.sigma_min * r.eps, rule.theta * (r.c_hat + eta))
        yield Check(abs(t.eps_next - jump), 1e-12 * jump, f"ε ← max(σ_min ε, θ(Ĉ + η)); {name}")


def identity_checks(rule: Rule, trials: list[Trial], name: str) -> Iterator[Check]:
    """r ln σ − a ln(1/ζ) = ln(ε_end/ε_0) while nothing clips."""
    if not isinstance(rule, ClassicRule):
        return
    accepted = rejected = 0
    for t in trials:
        if t.record.verdict not in ("accepted", "rejected") or t.eps_next <= rule.eps_min:
            return
        accepted += t.record.accepted
        rejected += not t.record.accepted
        measured = rejections_identity(rule.sigma, rule.zeta, rejected, accepted) - math.log(t.eps_next / rule.eps0)
        yield Check(abs(measured), 1e-12 * (accepted + rejected + 1), f"identity for rejections; {name}")


def smoothing_checks(rule: Rule, trials: list[Trial], eta: float, name: str, steps: int) -> Iterator[Check]:
    """Curvature rule: after acceptance ε ≤ max(ε, c, ε_min) with c = θ_t(C̃ + η), and between c and band·c ε stays.

    C̃ is the running mean of past Ĉ₊; θ_t rises from θ to θ growth, and 1/θ_t falls by the same amount in each step of
    the second half of the run. At ρ = 0 the band is 1; at ρ > 0 ε falls by e at most in the part ``fall`` of the run.
    """
    if not isinstance(rule, CurvatureRule):
        return
    mean = None
    for t in trials:
        r = t.record
        if not r.accepted:
            continue
        clear = abs(r.c_hat * r.tau) > 10 * r.rounding  # else Ĉ is lost in rounding, but below 11ν/τ
        c = max(r.c_hat, 0.0) if clear else 11 * r.rounding / r.tau
        if mean is None:
            mean = c if clear else None
        elif clear or c < mean:
            mean = rule.memory * mean + (1 - rule.memory) * c
        if mean is None:
            yield Check(abs(t.eps_next - r.eps), 0.0, f"ε stays while no Ĉ is known; {name}")
            continue
        late = max(0.0, 2 * (r.step - 1) / steps - 1)  # the progress when the trial was made
        aim = (mean + eta) / ((1 - late) / rule.theta + late / (rule.theta * rule.growth))
        yield Check(t.eps_next, max(r.eps, aim, rule.eps_min) * (1 + 1e-12), f"ε after acceptance is bounded; {name}")
        slow = math.exp(-1 / (steps * rule.fall)) if r.rho > 0 and rule.fall > 0 else 0.0
        top = max(rule.zeta * r.eps, slow * r.eps, (rule.band if r.rho > 0 else 1.0) * aim)
        expected = max(aim, min(r.eps, top), rule.eps_min)
        yield Check(abs(t.eps_next - expected), 1e-12 * expected, f"ε follows C̃ and stays in its band; {name}")


def limit_of_waste(case: Case) -> Iterator[Check]:
    """A long classic run: r/a tends to ln(1/ζ)/ln σ where ε_k stays bounded below. Between the ends ε may differ by the
    factor of T8's bounds, which adds ln(ε_end/ε_0)/(a ln σ)."""
    s = problems.quadratic(case, admissible=Box(-1.0, 1.0), rho=0.0)
    rule = ClassicRule()
    _, trials = runs.run(s, Method(rule, AbsoluteTest(1e-3)), Stop(steps=400))
    clear = [t for t in trials if t.record.verdict in ("accepted", "rejected")]
    a = sum(t.record.accepted for t in clear)
    if a >= 200:
        drift = abs(math.log(clear[-1].eps_next / rule.eps0)) / (a * math.log(rule.sigma))
        limit = most_wasted(rule.sigma, rule.zeta)
        yield Check(abs((len(clear) - a) / a - limit), drift * (1 + 1e-9) + 1e-9, f"rejected over accepted; {s.name}")


def waste(context: Context, rows: list[tuple[Any, ...]]) -> Iterator[Check]:
    """Trial sweeps per accepted step on LeNet-5 and bundled images, L0: mini-batches, and full batch on fewer images.

    The goal is judged on mini-batches, the way networks are trained; in full batch the run follows the edge where
    curvature and ε meet, and some more trials are rejected.
    """
    images, size, steps = context.count(0, 300, 2000), context.count(0, 10, 100), context.count(0, 40, 300)
    for name, s, batch in (
        (f"mini-batches of {size}", lenet_setting(images), size),
        (f"full batch of {size}", lenet_setting(size), None),
    ):
        for rule in (CurvatureRule(), ClassicRule()):
            solution = bsqh(
                s.problem, s.controls, s.x, s.y, stop=Stop(steps=steps), method=Method(rule), batch_size=batch
            )
            accepted = len(solution.steps)
            rejected = len(solution.records) - accepted
            last = solution.records[-1]
            ratio = len(solution.records) / accepted if accepted else math.inf
            rows.append((name, repr(rule), accepted, rejected, ratio, last.J if last.accepted else last.J_before))
            if isinstance(rule, CurvatureRule) and batch is not None:
                yield Check(
                    ratio, WASTE, f"trial sweeps per accepted step, curvature rule; {s.name}, {name}, {steps} steps"
                )


# --- T18 --------------------------------------------------------------------------------------------------------------

REGULARISERS = problems.ENTRYWISE


@claim(
    tag="T18",
    title="The line search is monotone",
    statement="for ε′ > ε: τ(ε′) ≤ τ(ε), ΣΔH(ε′) ≤ ΣΔH(ε), and u ∈ argmax K_ε implies u ∈ argmax K_ε′",
)
def monotone_search(context: Context) -> Outcome:
    """Statement: fix u; w(ε) any maximiser of K_ε. As ε grows τ and ΣΔH do not increase, and a fixed point stays one.
    Hypotheses: exact maximiser; no compactness, no smoothness: kinked networks too, line, box and finite set.
    Measured: every rejection sequence of runs from a small ε_0; ladders of ε over six decades at one control, for every
    regulariser, with ties among the draws; augmented increments ΣΔH − ετ ≥ 0 at every rung. Slack: rounding of τ and
    ΣΔH, c·u times the sums of their moduli.
    """

    def one(case: Case) -> Iterator[Check]:
        regulariser = case.cycle(*REGULARISERS)()
        admissible = case.choose(WHOLE_LINE, Box(-1.0, 1.0), FiniteSet((-1.0, -0.25, 0.0, 0.5)))
        build = problems.kinked if case.index % 4 == 3 else problems.smooth
        s = build(case, regulariser=regulariser, admissible=admissible)
        yield from ladder(s, context.u, context.count(5, 18, 40))
        steps = context.count(1, 5, 20)
        _, trials = runs.run(s, Method(CurvatureRule(eps0=0.01)), Stop(steps=steps))
        for sequence in runs.sequences(trials):
            for a, b in itertools.pairwise(sequence):
                if b.record.eps > a.record.eps and not a.record.averaged:
                    slack = 1e3 * context.u
                    size = float(np.linalg.norm(to_vector(a.u))) ** 2
                    yield Check(b.record.tau, a.record.tau * (1 + slack) + slack * slack * size, f"τ falls; {s.name}")
                    yield Check(
                        b.record.sum_dh, a.record.sum_dh * (1 + slack) + 10 * b.record.rounding, f"ΣΔH falls; {s.name}"
                    )
            if len(sequence) > 1:
                same = all(np.array_equal(to_vector(t.u), to_vector(sequence[0].u)) for t in sequence)
                yield holds(same, f"a rejected trial leaves u as it was; {s.name}")
                rising = all(b.record.eps > a.record.eps for a, b in itertools.pairwise(sequence))
                yield holds(rising, f"ε rises along rejections; {s.name}")

    return survey(context, one, micro=3, quick=21, full=140)


def ladder(s: Setting, u_mach: float, rungs: int) -> Iterator[Check]:
    """τ(ε), ΣΔH(ε) and the augmented increment for rising ε at one control."""
    u, problem = s.controls, s.problem
    g = runs.switching(s, u)
    size = float(np.sum(np.abs(to_vector(g) * to_vector(u))))
    before: tuple[float, float] | None = None
    fixed = False
    for eps in np.geomspace(1e-3, 1e3, rungs):
        w = maximise(problem, u, g, float(eps), problem.rho)
        tau, dh, gain = to_floats(
            total(squared_increments(u, w)),
            total(increments(problem, g, u, w, problem.rho)),
            augmented_increment(problem, g, u, w, float(eps), problem.rho),
        )
        slack = 1e3 * u_mach * (abs(dh) + size + eps * tau + problem.rho * float(problem.penalty(u)))
        yield Check(gain, -slack, f"K_ε(w) ≥ K_ε(u); {s.name}", ">=")
        yield Check(abs(gain - (dh - float(eps) * tau)), slack, f"K_ε(w) − K_ε(u) = ΣΔH − ετ; {s.name}")
        if before is not None:
            yield Check(tau, before[0] * (1 + 1e3 * u_mach) + slack / eps, f"τ(ε′) ≤ τ(ε); {s.name}")
            yield Check(dh, before[1] + slack, f"ΣΔH(ε′) ≤ ΣΔH(ε); {s.name}")
        if fixed:
            yield Check(tau, slack / eps, f"a fixed point stays one; {s.name}")
        fixed = fixed or tau == 0
        before = (tau, dh)
