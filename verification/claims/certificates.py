"""Certificates of whole networks (T11): every field of ``certify`` against independent sums, and trained networks.

The formulas for single entries are checked in ``maximum_principle.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.architectures import lenet5
from pmp_ref.arrays import namespace, to_numpy
from pmp_ref.bsqh import bsqh
from pmp_ref.certificate import DECADES, Certificate, certify
from pmp_ref.controls import map_controls, to_vector
from pmp_ref.data import load
from pmp_ref.data import prepare as prepare_data
from pmp_ref.hamiltonian import augmented_increment
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.layers import AveragePool, Dense, Flatten, Tanh
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0
from pmp_ref.result import Record
from pmp_ref.second_order import largest_eigenvalue
from pmp_ref.stop import Stop
from verification.claim import Case, Check, Context, Outcome, Table, claim, holds, survey
from verification.claims import problems


def off(g: np.ndarray, rho: float) -> float:
    """ε* of a group of zeros: ‖g‖²/(4ρω)."""
    return float(np.sum(g * g)) / (4 * rho)


def close(value: float, expected: float, problem: str) -> Check:
    if value == expected:
        return Check(0.0, 1e-6, problem)
    return Check(abs(value - expected) / max(abs(expected), 0.1), 1e-6, problem)


def whole_network(case: Case) -> Iterator[Check]:
    """``certify`` on a smooth network with a layer weight 2, unpenalised biases and an emptied kernel now and then."""
    net = problems.dense_chain if case.context.profile == "micro" else case.choose(*problems.SMOOTH_NETWORKS)
    s = problems.dress(case, net, regulariser=L0(), admissible=WHOLE_LINE)
    first = s.network.layers()[0]
    if case.index % 4:
        emptied = tuple(
            0.0 * a if name == "kernel" else a
            for a, name in zip(s.controls[first], s.network.names()[first], strict=True)
        )
        s = replace(s, controls=(*s.controls[:first], emptied, *s.controls[first + 1 :]))
    eps = float(case.rng.uniform(0.1, 2.0))
    found = certify(s.problem, s.controls, s.x, s.y, eps)
    h = problems.host(s)
    loss, g = complex_step(h)
    parts = [
        (l, name, u, gl, h.problem.rho * w)
        for l, names in enumerate(h.network.names())
        for name, u, gl, w in zip(names, h.controls[l], g[l], h.problem.weights[l], strict=True)
    ]
    penalty = sum(rho * np.count_nonzero(u) for _, _, u, _, rho in parts)
    tolerance = 1e-9 * (1 + float(np.max(np.abs(to_vector(g)))) ** 2)  # g to 1e-12 by complex steps, squared and /ρ
    yield Check(abs(found.J - loss - penalty) + abs(found.loss - loss), 1e-12 * (1 + abs(found.J)), "certify: J, loss")
    stars, squares, augmented_total, plain_total = [0.0], {True: 0.0, False: 0.0}, 0.0, 0.0
    for row, (l, name, u, gl, rho) in zip(found.controls, parts, strict=True):
        on = (u != 0) | (rho == 0)
        threshold = rho if rho > 0 else 0.0
        w = np.where(eps * (u + gl / (2 * eps)) ** 2 > threshold, u + gl / (2 * eps), 0.0)
        gain = gl * (w - u) - eps * (w - u) ** 2 - rho * ((w != 0).astype(float) - (u != 0))
        star = max(0.0, *entry_stars(u, gl, rho)) if rho else 0.0
        plain = 0.0 if not gl.any() else math.inf
        live = int(sum(bool(k.any()) for k in u)) if name == "kernel" else 0
        rows = len(u) if name == "kernel" else 0
        exact = (
            row.stage == l
            and row.name == name
            and row.penalised == (rho > 0)
            and row.size == u.size
            and row.nonzeros == np.count_nonzero(u)
            and row.rows == rows
            and row.dead == rows - live
            and row.emptied == (name == "kernel" and not u.any())
            and row.plain_gap == plain
        )
        yield holds(exact, f"certify: counts of stage {l} {name}")
        yield Check(
            abs(row.eps_star - star) + abs(row.augmented_gap - gain.sum()) + abs(row.largest_gap - gain.max()),
            tolerance * (1 + star),
            f"certify: ε*, gaps of stage {l} {name}",
        )
        share = [float(np.mean(gain <= 10.0**-k)) for k in DECADES]
        near = [bool(np.any(np.abs(gain - 10.0**-k) <= 10 * tolerance)) for k in DECADES]
        wrong = sum(a != b for a, b, skip in zip(share, row.gap_fractions, near, strict=True) if not skip)
        yield Check(float(wrong), 0.0, f"certify: gap table of stage {l} {name}")
        squares[rho > 0] += float(np.sum(np.where(on, gl, 0.0) ** 2))
        stars.append(star)
        augmented_total, plain_total = augmented_total + float(gain.sum()), plain_total + plain
    yield Check(
        abs(found.residual_support - math.sqrt(squares[True]))
        + abs(found.residual_unpenalised - math.sqrt(squares[False])),
        tolerance,
        "certify: residuals",
    )
    yield Check(
        abs(found.eps_star - max(stars)) + abs(found.augmented_gap - augmented_total),
        tolerance * (1 + max(stars)),
        "certify: ε* and augmented gap",
    )
    empty = tuple(l for l, name, u, _, _ in parts if name == "kernel" and not u.any())
    whole = found.emptied_layers == empty and found.plain_gap == plain_total
    whole = whole and (found.eps, found.rho) == (eps, h.problem.rho)
    yield holds(whole, "certify: emptied layers, plain gap, ε, ρ")
    yield from stored_in_float32(case)


def stored_in_float32(case: Case) -> Iterator[Check]:
    """Controls at a bound or value that float32 does not have: g > 0 holds them there, so the residual is exactly 0.

    float32 rounds 0.1 outwards and 0.7 inwards.
    """
    make = case.context.library.asarray
    x, y = np.abs(case.rng.standard_normal((4, 3))), np.full((4, 2), 9.0)
    for b, admissible in ((0.1, Box(-0.1, 0.1)), (0.7, Box(-0.7, 0.7)), (0.7, FiniteSet((-0.7, 0.0, 0.7)))):
        problem = Problem(Network((Dense(2, bias=False),), (3,)), SquaredLoss(), L0(), rho=0.01, admissible=admissible)
        exact, stored = (
            certify(problem, ((make(np.full((2, 3), b, dtype)),),), make(x.astype(dtype)), make(y.astype(dtype)), 0.5)
            for dtype in ("float64", "float32")
        )
        yield Check(stored.residual_support, 0.0, f"certify: residual of float32 controls at {b}, {admissible}")
        yield close(stored.eps_star, exact.eps_star, f"certify: ε* of float32 controls at {b}, {admissible}")


def entry_stars(u: np.ndarray, g: np.ndarray, rho: float) -> list[float]:
    """ε* of each entry under pure L0 on the line: ρω/u², or g²/(4ρω) at a zero."""
    return [float(rho / a**2 if a else b**2 / (4 * rho)) for a, b in zip(u.flat, g.flat, strict=True)]


def complex_step(h: problems.Setting) -> tuple[float, Any]:
    """(L_B, g = −∇L_B) of an analytic network on the host, one complex step for each entry (T1)."""
    controls = map_controls(lambda a: a.astype(complex), h.controls)
    mean = lambda u: complex(np.mean(h.problem.loss.values(h.network.forward_sweep(u, h.x.astype(complex))[-1], h.y)))  # noqa: E731
    g = map_controls(lambda a: np.zeros(a.shape), h.controls)
    for l, stage in enumerate(controls):
        for k, a in enumerate(stage):
            for i in np.ndindex(*a.shape):
                a[i] += 1e-30j
                g[l][k][i] = -mean(controls).imag / 1e-30
                a[i] = a[i].real
    return mean(controls).real, g


# --- trained networks -------------------------------------------------------------------------------------------------


@claim(
    tag="T11b",
    title="Certificates of trained networks",
    dtypes=("float64",),
    statement="after an accepted L0 step: ρω_i/u_i² < ε_k on the support, |g_i| ≤ 2√(ερω_i) + 2ε|Δ_i| + |δg_i| off it",
)
def trained(context: Context) -> Outcome:
    """Statement: the last accepted step of bSQH bounds ε* of the trained network: on the support by its ε, off the
    support through |g_i(u⁺)| ≤ 2√(ερω_i) + 2ε|Δ_i| + |g_i(u⁺) − g_i(u)| (T12, T19). Training without regard to the
    maximum principle gives no such bound.

    Hypotheses: pure L0 on the line, full batch, exact maximiser. Images of the bundled set (micro: random data).

    Measured: ε* on and off the support from the core's g against those bounds; the certificate's ε* against its closed
    form by loops; its augmented gap at ε against ΣΔH − ετ of the trial that the method would make next. Beside it the
    same network trained by subgradient steps on L + ρ₁‖u‖₁, pruned by magnitude to the same number of weights and
    trained on with the pruned weights held at 0: same data, same ρ, same number of sweeps.
    """
    rows: list[tuple[Any, ...]] = []

    def one(case: Case) -> Iterator[Check]:
        problem, start, x, y, steps = _task(case)
        before = [start]
        last: list[tuple[Any, Any, float]] = []

        def note(it: Iterate, record: Record) -> None:
            if record.accepted:
                last[:] = [(before[0], it.controls, record.eps)]
                before[0] = it.controls

        solution = bsqh(problem, start, x, y, stop=Stop(steps=steps), callback=note)
        u, u_new, eps = last[0]
        g, g_new = switching_functions(problem, u, x, y), switching_functions(problem, u_new, x, y)
        found = certify(problem, u_new, x, y, eps)
        on, beyond, by_loops = 0.0, 0.0, 0.0
        for l, weights in enumerate(problem.weights):
            for k, weight in enumerate(weights):
                rho = problem.rho * weight
                if rho == 0:
                    continue
                a, b, h, h_new = (to_numpy(v[l][k]) for v in (u, u_new, g, g_new))
                kept = b != 0
                on = max(on, float(np.max(rho / b[kept] ** 2, initial=0.0)) / eps)
                reach = off_reach(eps, rho, b - a, h_new - h)
                beyond = max(beyond, float(np.max((np.abs(h_new) - reach)[~kept], initial=0.0)))
                by_loops = max(by_loops, *entry_stars(b, h_new, rho))
        yield Check(on, 1.0, "bSQH: ρω/u² over ε on the support")
        yield Check(beyond, 1e-13, "bSQH: |g| off the support beyond its bound")  # 1e-13: rounding of g
        yield close(found.eps_star, by_loops, "bSQH: ε* against loops")
        w = maximise(problem, u_new, g_new, eps, problem.rho)
        ahead = float(augmented_increment(problem, g_new, u_new, w, eps, problem.rho))
        tolerance = 1e-12 * (1 + abs(found.J))  # rounding of a sum of a thousand gaps
        yield Check(abs(found.augmented_gap - ahead), tolerance, "bSQH: augmented gap against ΣΔH − ετ")
        kept_weights = sum(c.nonzeros for c in found.controls if c.penalised)
        pruned = _subgradient_and_pruning(problem, start, x, y, steps, kept_weights)
        for name, status, v in (
            ("bSQH, L0", str(solution.status), u_new),
            ("subgradient, pruned", f"{steps} steps", pruned),
        ):
            half = largest_eigenvalue(problem, v, x, y, 1e-3) / 2  # 1e-3: three digits are printed
            rows.append((name, status, *_row(certify(problem, v, x, y, eps)), f"{half:.3g}"))

    outcome = survey(context, one, micro=1, quick=1, full=2)
    note = "plain gap inf: without bounds H is unbounded in every zero entry with g_i ≠ 0 (T10b), for both trainings"
    title = "Certificates of trained networks: same data, ρ, ε, number of weights and number of sweeps"
    return outcome.with_(notes=[note], tables=[Table(title, COLUMNS, tuple(rows))])


COLUMNS = (
    "training",
    "ended by",
    "nonzero weights",
    "loss",
    "J",
    "ε",
    "ε*",
    "‖g‖ on the support",
    "‖g‖ unpenalised",
    "augmented gap at ε",
    "plain gap",
    "½λ_max at u",
)


def _row(c: Certificate) -> tuple[Any, ...]:
    return (
        sum(r.nonzeros for r in c.controls if r.penalised),
        f"{c.loss:.4f}",
        f"{c.J:.4f}",
        f"{c.eps:.3g}",
        f"{c.eps_star:.3g}",
        f"{c.residual_support:.2e}",
        f"{c.residual_unpenalised:.2e}",
        f"{c.augmented_gap:.2e}",
        f"{c.plain_gap:.3g}",
    )


def off_reach(eps: float, rho: float, delta: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Bound of |g_i(u⁺)| at an entry that the step left at 0: 2√(ερω_i) + 2ε|Δ_i| + |δg_i|."""
    return 2 * math.sqrt(eps * rho) + 2 * eps * np.abs(delta) + np.abs(change)


def switching_functions(problem: Problem, u: Any, x: Any, y: Any) -> Any:
    """g = −∇L_B at u on (x, y)."""
    return problem.sweeper.backward(u, problem.sweeper.forward(u, x, y)).switching


def _task(case: Case) -> tuple[Problem, Any, Any, Any, int]:
    """(problem, start, images, labels, steps): micro random data; quick 200 images pooled to 7 × 7; full LeNet-5."""
    if case.context.profile == "micro":
        network, rho, steps = Network((Dense(5), Tanh(), Dense(3)), (6,)), 0.01, 20
        x, y = case.rng.standard_normal((12, 6)), case.rng.integers(0, 3, 12)
    else:
        data = prepare_data(load("mnist-subset"))
        full = case.context.profile == "full"
        network = Network((AveragePool(4), Flatten(), Dense(12), Tanh(), Dense(10)), (1, 28, 28))
        network = lenet5() if full and case.index else network
        samples, steps = ((1000, 2000) if case.index == 0 else (500, 150)) if full else (200, 300)
        rho = 1e-4 if full and case.index else 1e-3
        x, y = data.train_images[:samples], np.asarray(data.train_labels[:samples], dtype=np.int64)
    x, y = case.asarray(x), case.asarray(y)
    problem = Problem(network, CrossEntropy(), L0(), rho=rho)
    return problem, initial_controls(network, int(case.rng.integers(2**31)), x), x, y, steps


def _subgradient_and_pruning(problem: Problem, u: Any, x: Any, y: Any, steps: int, keep: int) -> Any:
    """Steps u ← u − t(∇L + ρ₁ sgn u), ρ₁ = ρ, t falling from ½ like 1/(1 + 4k/steps); after two thirds of them all
    penalised weights but the ``keep`` largest are set to 0 and stay there, and the L1 term is left out."""
    penalised = map_controls(lambda w: float(w > 0), problem.weights)
    mask, sign = map_controls(lambda a: a * 0 + 1, u), namespace(x).sign
    for k in range(steps):
        pull = problem.rho if k < 2 * steps // 3 else 0.0
        if k == 2 * steps // 3:
            mask = _largest(u, penalised, keep)
            u = map_controls(lambda a, m: a * m, u, mask)
        t = 0.5 / (1 + 4 * k / steps)
        g = switching_functions(problem, u, x, y)
        u = map_controls(lambda a, h, m, p: a + t * m * (h - pull * p * sign(a)), u, g, mask, penalised)  # noqa: B023
    return u


def _largest(u: Any, penalised: Any, keep: int) -> Any:
    """1 at the ``keep`` largest penalised entries and at all others that are not penalised, else 0."""
    sizes = [np.abs(to_numpy(a)).ravel() for a, p in zip(_flat(u), _flat(penalised), strict=True) if p]
    cut = float(np.sort(np.concatenate(sizes))[-keep]) if keep else math.inf
    chosen = lambda a, p: namespace(a).astype((namespace(a).abs(a) >= cut) | (p == 0), a.dtype)  # noqa: E731
    return map_controls(chosen, u, penalised)


def _flat(nested: Any) -> list[Any]:
    return [a for stage in nested for a in stage]
