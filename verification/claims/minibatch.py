"""T13: mini-batches. Small data sets, all batches enumerated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.arrays import Controls
from pmp_ref.augmentation import ClassicRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import add, map_controls, scaled, subtract, to_vector
from pmp_ref.hamiltonian import increments
from pmp_ref.layers import Dense
from pmp_ref.loss import SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import NoPenalty
from pmp_ref.result import Status
from pmp_ref.stop import Stop
from verification import oracles
from verification.claim import Case, Check, Context, Outcome, Table, claim, holds, survey
from verification.claims import problems
from verification.claims.forward_maps import host, switching
from verification.claims.problems import Setting


def variance_factor(samples: int, size: int) -> float:
    """(N − B)/(B(N − 1)): the factor of a batch of B drawn without replacement from N."""
    return (samples - size) / (size * (samples - 1))


def full_loss_bound(sum_dh: float, tau: float, constant: float, noise: float) -> float:
    """−ΣΔH_B + C_N τ + ⟨e, Δ⟩ ≤ −(ε − C_N)τ + ⟨e, Δ⟩ bounds J_N(u⁺) − J_N(u)."""
    return -sum_dh + constant * tau + noise


def young(eps: float, tau: float, constant: float, delta: float, square: float) -> float:
    """−(ε − C_N − δ)τ + ‖e‖²/(4δ)."""
    return -(eps - constant - delta) * tau + square / (4 * delta)


def gradient(s: Setting, x: Any, y: Any) -> Controls:
    """g = −∇L_B by the core's sweeps."""
    e = s.problem.sweeper.backward(s.controls, s.problem.sweeper.forward(s.controls, x, y))
    return switching(e)


def objective(s: Setting, controls: Controls, index: Any) -> float:
    """J_B by loops on the samples of the batch, on the host."""
    h = problems.host(s)
    return oracles.objective_by_loops(
        problems.replace(h, controls=map_controls(host, controls), x=h.x[list(index)], y=h.y[list(index)])
    )


@claim(
    tag="T13",
    title="Noise of a batch, all batches enumerated",
    statement="E e = 0, E‖e‖² = ((N − B)/(B(N − 1))) (1/N) Σ_s ‖∇ℓ_s − ∇L_N‖²",
)
def batch_noise(context: Context) -> Outcome:
    """Statement: for B drawn without replacement from N and u independent of the batch, e = ∇L_N(u) − ∇L_B(u) has
    mean 0 and the second moment above.

    Hypotheses: N ≥ 2; any network, here smooth and kinked ones.

    Measured: all binom(N, B) batches, each with its own sweeps: ‖mean of e‖ and the relative difference of the exact
    second moment from the formula, whose right side takes the N gradients of single samples. Bound 10⁴u.
    """
    rows: list[tuple[Any, ...]] = []

    def one(case: Case) -> Iterator[Check]:
        draw = problems.kinked if case.index % 3 == 2 else problems.smooth
        if context.profile == "micro":
            draw = problems.dense
        n = int(case.rng.integers(4, 6))
        size = int(case.rng.integers(1, n))
        s = draw(case, samples=n)
        x, y = host(s.x), np.asarray(problems.host(s).y)
        take = lambda index: (case.asarray(x[list(index)]), case.asarray(y[list(index)]))  # noqa: E731
        full = to_vector(gradient(s, s.x, s.y))
        single = [to_vector(gradient(s, *take((k,)))) for k in range(n)]
        spread = math.fsum(float(np.sum((g - full) ** 2)) for g in single) / n
        errors = [to_vector(gradient(s, *take(index))) - full for index in oracles.all_batches(n, size)]
        second = math.fsum(float(np.sum(e**2)) for e in errors) / len(errors)
        mean = float(np.linalg.norm(np.mean(errors, axis=0)))
        due = variance_factor(n, size) * spread
        rows.append((n, size, len(errors), second, due))
        yield Check(mean / math.sqrt(spread), 1e4 * context.u, f"E e, N = {n}, B = {size}, {s.name}")
        yield Check(abs(second - due) / spread, 1e4 * context.u, f"E‖e‖², N = {n}, B = {size}, {s.name}")

    outcome = survey(context, one, micro=4, quick=24, full=200)
    table = Table(
        "Second moment of a batch's gradient error", ("N", "B", "batches", "E‖e‖²", "formula"), tuple(rows[:12])
    )
    return outcome.with_(tables=[table])


@claim(
    tag="T13a",
    title="The full loss under a batch's step",
    statement="J_N(u⁺) − J_N(u) ≤ −(ε − C_N)τ + ⟨e, Δ⟩ ≤ −(ε − C_N − δ)τ + ‖e‖²/(4δ)",
)
def full_loss(context: Context) -> Outcome:
    """Statement: a step maximising K_ε on a batch changes the objective on all data by at most the bounds above; the
    batch's own objective decreases as in T6. The full loss need not decrease: how often it rises is reported.

    Hypotheses: L_B quadratic (least squares), where C_N = ½λ_max and C_B are exact; exact maximiser; any regulariser.

    Measured: for every batch, J_N(u⁺) − J_N(u) by loops minus the bound with ΣΔH, and that bound against the bound by
    Young's inequality with δ = 0.1 and 1; J_B(u⁺) − J_B(u) minus −(ε − C_B)τ. Relative to 1 + |J|, bound 2000u.
    """
    rises: list[bool] = []

    def one(case: Case) -> Iterator[Check]:
        n, size = 5, int(case.rng.integers(1, 4))
        s = problems.quadratic(case, samples=n)
        x, y = host(s.x), host(s.y)
        eps = float(case.choose(0.3, 1.0, 3.0))
        everything = tuple(range(n))
        before, c_n, g_n = objective(s, s.controls, everything), half_curvature(s, x), gradient(s, s.x, s.y)
        for index in oracles.all_batches(n, size):
            g = gradient(s, case.asarray(x[list(index)]), case.asarray(y[list(index)]))
            w = maximise(s.problem, s.controls, g, eps, s.problem.rho)
            delta = to_vector(subtract(w, s.controls))
            e = to_vector(g) - to_vector(g_n)
            tau = float(delta @ delta)
            sum_dh = math.fsum(
                float(h) for part in increments(s.problem, g, s.controls, w, s.problem.rho) for h in part
            )
            after = objective(s, w, everything)
            scale = 1 + abs(before) + abs(after) + abs(sum_dh) + float(np.linalg.norm(e)) + tau * (c_n + eps)
            allowed = full_loss_bound(sum_dh, tau, c_n, float(e @ delta))
            where = f"batch {index}, ε = {eps:g}, {s.name}"
            rises.append(after > before)
            yield Check((after - before - allowed) / scale, 2000 * context.u, f"J_N, {where}")
            worst = -(eps - c_n) * tau + float(e @ delta)
            yield Check((allowed - worst) / scale, 2000 * context.u, f"ΣΔH ≥ ετ, {where}")
            for d in (0.1, 1.0):
                yield Check(
                    (worst - young(eps, tau, c_n, d, float(e @ e))) / scale, 2000 * context.u, f"Young, {where}"
                )
            own = objective(s, w, index) - objective(s, s.controls, index)
            c_b = half_curvature(s, x[list(index)])
            yield Check((own + sum_dh - c_b * tau) / scale, 2000 * context.u, f"J_B, {where}")
            yield Check((own + (eps - c_b) * tau) / scale, 2000 * context.u, f"T6 on the batch, {where}")

    outcome = survey(context, one, micro=3, quick=30, full=300)
    share = sum(rises) / len(rises) if rises else 0.0
    return outcome.with_(notes=[f"the full objective rises in {100 * share:.0f} % of the steps: no monotone decrease"])


def half_curvature(s: Setting, x: np.ndarray) -> float:
    """½λ_max(D²L_B) of one dense stage under the squared loss: that of XᵀX/B, with a column of ones for the bias."""
    wide = np.concatenate([x, np.ones((len(x), 1))], axis=1) if len(s.controls[0]) == 2 else x
    return 0.5 * float(np.linalg.eigvalsh(wide.T @ wide / len(x))[-1])


@claim(
    tag="T13b",
    title="Averaged switching functions",
    statement="J_B(w) − J_B(u) ≤ −(ε − C)τ + ⟨m − g_B, w − u⟩; m = (1 − β) Σ_k β^k g_{−k}/(1 − β^n)",
)
def averaged(context: Context) -> Outcome:
    """Statement: with an average m in the maximiser the batch's objective obeys the bound above; rejections need not
    end (J = u²/2, u = 1, m = +1), which is why the method returns to the plain switching function.

    Hypotheses: least squares; m any mean of earlier switching functions, also one that points the wrong way.

    Measured: the bound by loops, relative, 2000u; the mean against its definition as a weighted sum, 200u; in the
    counterexample the number of ε = 2^k, k = −5 … 40, that pass the test (bound 0), and a run of ``solve`` with
    averaging on the same batches, which must go on (steps made ≥ 1).
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.quadratic(case, samples=5)
        x = host(s.x)
        eps = float(case.choose(0.5, 2.0))
        rule = Averaging(float(case.choose(0.5, 0.9)), 2)
        history = [
            map_controls(lambda a: case.asarray(case.rng.standard_normal(a.shape)), s.controls) for _ in range(4)
        ]
        memory = None
        for g in history:
            memory = rule.update(memory, g)
        assert memory is not None
        m = rule.mean(memory, len(history))
        weights = [(1 - rule.beta) * rule.beta**k for k in range(4)][::-1]
        exact = sum(w * to_vector(g) for w, g in zip(weights, history, strict=True)) / sum(weights)
        error = float(np.linalg.norm(to_vector(m) - exact)) / float(np.linalg.norm(exact))
        yield Check(error, 200 * context.u, f"m by its definition, β = {rule.beta}")
        g = gradient(s, s.x, s.y)
        for taken in (m, scaled(-1.0, g), add(g, scaled(0.1, m))):
            w = maximise(s.problem, s.controls, taken, eps, s.problem.rho)
            delta = to_vector(subtract(w, s.controls))
            tau, extra = float(delta @ delta), float((to_vector(taken) - to_vector(g)) @ delta)
            change = objective(s, w, range(5)) - objective(s, s.controls, range(5))
            bound = averaged_bound(eps, half_curvature(s, x), tau, extra)
            scale = 1 + abs(change) + abs(bound) + abs(extra) + eps * tau
            yield Check((change - bound) / scale, 2000 * context.u, f"J_B with m, ε = {eps:g}, {s.name}")
        yield from counterexample(case)
        problem = Problem(Network((Dense(1, bias=False),), (1,)), SquaredLoss(), NoPenalty(), rho=0.0)
        u = ((case.asarray(np.ones((1, 1))),),)
        xs, ys = (
            case.asarray(np.array([[1.0], [1.0], [3.0], [0.5]])),
            case.asarray(np.array([[0.0], [2.0], [3.0], [-4.0]])),
        )
        method = Method(ClassicRule(eps0=5.0, sigma=2.0, zeta=1.0), AbsoluteTest(), averaging=Averaging(0.9, 2))
        run = bsqh(problem, u, xs, ys, stop=Stop(epochs=4), method=method, batch_size=1, seed=case.index)
        yield Check(float(len(run.steps)), 8.0, "steps of 16 batches under averaging", ">=")
        dropped = [r for r in run.records if r.verdict == "average dropped"]
        yield Check(float(all(r.averaged for r in dropped)), 1.0, "dropped where it was used", ">=")
        yield holds(run.status is Status.ITERATION_LIMIT, f"{run.status}")

    return survey(context, one, micro=3, quick=30, full=300)


def averaged_bound(eps: float, constant: float, tau: float, extra: float) -> float:
    """−(ε − C)τ + ⟨m − g_B, w − u⟩."""
    return -(eps - constant) * tau + extra


def counterexample(case: Case) -> Iterator[Check]:
    """J = u²/2 at u = 1 with m = +1: w = 1 + 1/(2ε), and J rises for every ε."""
    problem = Problem(Network((Dense(1, bias=False),), (1,)), SquaredLoss(), NoPenalty(), rho=0.0)
    one = ((case.asarray(np.ones((1, 1))),),)
    passed = 0
    for k in range(-5, 19 if case.context.dtype == "float32" else 41):
        w = float(host(maximise(problem, one, one, 2.0**k, 0.0)[0][0])[0, 0])
        passed += AbsoluteTest(1e-6).accepts(0.5 * w * w - 0.5, (w - 1) ** 2, w - 1)
    yield Check(float(passed), 0.0, "trials that pass with an average pointing upwards")
