"""Global minimisers by exhaustive search, for the maximum principle (T10, T11).

*Least squares.* One dense stage under the squared loss gives J(u) = ½uᵀHu − bᵀu + const + Σ_i ρ_i r(u_i) with
H = AᵀA/B, b = Aᵀy/B, A the inputs (and a column of ones for the bias), r = a₀|w|₀ + a₁|w| + (a₂/2)w² and u in a box.
Every entry of a global minimiser is 0, at a bound, or free with a known sign. For each such pattern the free entries
solve a linear system; the best feasible point of all patterns is the global minimiser. No sweep is made.

*Ternary networks.* Two dense stages without bias, 2 → 2 → 1, tanh or nothing between them, and controls in
{−1, 0, 1}: all 3⁶ controls are evaluated by ``einsum``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.layers import Dense, Tanh
from pmp_ref.loss import SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import Polynomial
from verification.claim import Case
from verification.claims import problems

TANH_CURVATURE = 4 / (3 * np.sqrt(3))  # sup |tanh″|


@dataclass(frozen=True)
class LeastSquares:
    """J(u) = ½uᵀHu − bᵀu + const + Σ_i ρ_i r(u_i) on the box [lo, hi]ⁿ; entries with ρ_i = 0 are not penalised."""

    H: np.ndarray
    b: np.ndarray
    constant: float
    rho: np.ndarray
    r: Polynomial
    lo: float
    hi: float

    def objective(self, u: np.ndarray) -> float:
        """J(u)."""
        r = self.r.a0 * (u != 0) + self.r.a1 * np.abs(u) + self.r.a2 / 2 * u * u
        return float(u @ self.H @ u / 2 - self.b @ u + self.constant + self.rho @ r)


def minimise(q: LeastSquares) -> tuple[np.ndarray, np.ndarray]:
    """(u, free): a global minimiser of J, and which of its entries lie strictly between 0 and the bounds."""
    best, best_j, best_free = None, np.inf, None
    for pattern in product(*(_states(q, i) for i in range(q.b.size))):
        free = np.array([value is None for value, _ in pattern])
        sign = np.array([s for _, s in pattern], dtype=float)
        u = np.array([0.0 if value is None else value for value, _ in pattern])
        if free.any():
            matrix = (q.H + np.diag(q.rho * q.r.a2))[np.ix_(free, free)]
            right = q.b[free] - q.H[np.ix_(free, ~free)] @ u[~free] - (q.rho * q.r.a1 * sign)[free]
            u[free] = np.linalg.solve(matrix, right)
            inside = (u[free] > q.lo) & (u[free] < q.hi) & (sign[free] * u[free] >= 0) & (u[free] != 0)
            if not inside.all():
                continue
        j = q.objective(u)
        if j < best_j:
            best, best_j, best_free = u, j, free
    assert best is not None and best_free is not None
    return best, best_free


def _states(q: LeastSquares, i: int) -> list[tuple[float | None, int]]:
    """What entry i may be: (value, 0) fixed, (None, sign) free; sign 0 where the sign makes no difference."""
    states: list[tuple[float | None, int]] = [(bound, 0) for bound in (q.lo, q.hi) if np.isfinite(bound)]
    if q.rho[i] == 0 or q.r.a1 == 0:
        states.append((None, 0))
    else:
        states += [(None, 1), (None, -1)]
    return [*states, (0.0, 0)] if q.rho[i] > 0 else states


def critical_rhos(H: np.ndarray, b: np.ndarray, penalised: np.ndarray) -> list[float]:
    """The ρ at which the number of nonzero entries of the pure L0 minimiser on the line changes, in rising order."""
    n = int(penalised.sum())
    least = np.full(n + 1, np.inf)  # least loss with k nonzero penalised entries, without the constant
    for support in product((False, True), repeat=n):
        on = ~penalised
        on[np.flatnonzero(penalised)[list(support)]] = True
        value = -0.5 * b[on] @ np.linalg.solve(H[np.ix_(on, on)], b[on]) if on.any() else 0.0
        least[sum(support)] = min(least[sum(support)], value)
    found, k = [], n
    while k > 0:  # the lower envelope of the lines ρ ↦ least[k] + ρk
        slopes = [(least[j] - least[k]) / (k - j) for j in range(k)]
        k = int(np.argmin(slopes))
        found.append(float(slopes[k]))
    return found


@dataclass(frozen=True)
class Minimiser:
    """A global minimiser u* of a small training problem, as the core takes it.

    ``free`` marks, control by control, the entries strictly inside whose switching function must be ρr′(u_i), here
    ``slope``. ``curvature[l]`` is sup λ_max of the Hessian in layer l while only that layer moves within the convex
    hull of U_l (or a proven bound of it), ``diagonal`` the same for each entry, nested like the controls; None if not
    known entry by entry.
    """

    kind: str
    problem: Problem
    controls: Controls
    x: Any
    y: Any
    free: Any
    slope: Any
    curvature: dict[int, float]
    diagonal: Any = None

    @property
    def zero(self) -> bool:
        """True if every entry is 0."""
        return all(not to_numpy(a).any() for stage in self.controls for a in stage)


LEAST_SQUARES = {
    "none, line": (Polynomial(), WHOLE_LINE),
    "none, box": (Polynomial(), Box(-0.4, 0.6)),
    "L1, line": (Polynomial(a1=1.0), WHOLE_LINE),
    "L1, box": (Polynomial(a1=1.0), Box(-0.4, 0.6)),
    "L2, line": (Polynomial(a2=1.0), WHOLE_LINE),
    "L0, line": (Polynomial(a0=1.0), WHOLE_LINE),
    "L0, box": (Polynomial(a0=1.0), Box(-0.4, 0.6)),
    "L0 + L2, line": (Polynomial(a0=1.0, a2=2.0), WHOLE_LINE),
    "L0 + L2, box": (Polynomial(a0=1.0, a2=2.0), Box(-0.4, 0.6)),
}
TERNARY = ("ternary linear, no regulariser", "ternary linear, L0", "ternary tanh, no regulariser", "ternary tanh, L0")


def least_squares(case: Case, kind: str, orthogonal: bool = False, marginal: float | None = None) -> Minimiser:
    """A least squares network of 2 to 4 entries, with or without bias, at its global minimiser.

    ``orthogonal``: H a multiple of the identity, no bias. ``marginal``: ρ is that multiple of a value at which the
    support of the L0 minimiser changes.
    """
    rng = case.rng
    r, box = LEAST_SQUARES[kind]
    n, samples = int(rng.integers(2, 4)), int(rng.integers(6, 9))
    bias = not orthogonal and bool(rng.integers(2))
    x = rng.standard_normal((samples, n)) * rng.uniform(0.5, 1.5, n)
    if orthogonal:
        x = np.sqrt(samples) * np.linalg.qr(x)[0] * rng.uniform(0.5, 1.5)
    y = x @ rng.standard_normal((n, 1)) * rng.choice([0.2, 1.0]) + 0.3 * rng.standard_normal((samples, 1))
    features = np.hstack([x, np.ones((samples, 1))]) if bias else x
    h, b = features.T @ features / samples, (features.T @ y)[:, 0] / samples
    penalised = np.arange(h.shape[0]) < n
    rho = float(rng.choice([0.01, 0.05, 0.25]))
    if marginal is not None:
        rho = marginal * float(rng.choice(critical_rhos(h, b, penalised)))
    q = LeastSquares(h, b, float(np.mean(y * y) / 2), np.where(penalised, rho, 0.0), r, box.lo, box.hi)
    u, free = minimise(q)
    network = Network((Dense(1, bias=bias),), (n,))
    problem = Problem(network, SquaredLoss(), r, rho=rho, admissible=box)
    slope = q.rho * (r.a1 * np.sign(u) + r.a2 * u)
    split = lambda a: ((a[None, :n], a[n:]),) if bias else ((a[None, :n],),)  # noqa: E731
    controls = tuple(tuple(case.asarray(a) for a in stage) for stage in split(u))
    return Minimiser(
        kind,
        problem,
        controls,
        case.asarray(x),
        case.asarray(y),
        split(free),
        split(slope),
        {0: float(np.linalg.eigvalsh(h)[-1])},
        split(np.diag(h).copy()),
    )


def ternary(case: Case, kind: str) -> list[Minimiser]:
    """All global minimisers of a ternary network (several by symmetry), found among all 729 controls."""
    rng, tanh = case.rng, "tanh" in kind
    stages = (Dense(2, bias=False), Tanh(), Dense(1, bias=False)) if tanh else (Dense(2, bias=False), Dense(1, False))
    a0, rho = (1.0, float(rng.choice([0.01, 0.05, 0.2]))) if "L0" in kind else (0.0, 0.0)
    s = problems.dress(
        case,
        lambda _: (stages, (2,)),
        loss=SquaredLoss(),
        samples=6,
        regulariser=Polynomial(a0=a0),
        rho=rho,
        admissible=FiniteSet((-1.0, 0.0, 1.0)),
    )
    x, y = to_numpy(s.x).astype(float), to_numpy(s.y).astype(float)[:, 0]
    kernels, last = _ternary_controls()
    weights = [w[0] if w else 0.0 for w in s.problem.weights]
    z = np.einsum("kji,si->ksj", kernels, x)
    a = np.tanh(z) if tanh else z
    outputs = np.einsum("kj,ksj->ks", last, a)
    count = weights[0] * np.count_nonzero(kernels, axis=(1, 2)) + weights[-1] * np.count_nonzero(last, axis=1)
    j = np.mean((outputs - y) ** 2, axis=1) / 2 + rho * a0 * count
    found = []
    for k in np.flatnonzero(j <= j.min() + 1e-13):  # equal up to the rounding of a mean of six terms
        inner, outer = kernels[k], last[k][None, :]
        controls = ((case.asarray(inner),), *([()] if tanh else []), (case.asarray(outer),))
        none = tuple(tuple(np.zeros(c.shape, bool) for c in stage) for stage in controls)
        slope = tuple(tuple(np.zeros(c.shape) for c in stage) for stage in controls)
        layers = {0: first_layer_curvature(x, y, outer[0], tanh), len(stages) - 1: last_layer_curvature(a[k])}
        found.append(Minimiser(kind, s.problem, controls, s.x, s.y, none, slope, layers))
    return found


def last_layer_curvature(a: np.ndarray) -> float:
    """λ_max of mean_s a_s a_sᵀ: the Hessian in the last dense layer, which does not depend on that layer."""
    return float(np.linalg.eigvalsh(a.T @ a / a.shape[0])[-1])


def first_layer_curvature(x: np.ndarray, y: np.ndarray, v: np.ndarray, tanh: bool) -> float:
    """sup of λ_max over the first layer of y = vᵀσ(Wx), |W_ij| ≤ 1, the squared loss.

    The Hessian is mean_s[(v∘σ′ ⊗ x)(v∘σ′ ⊗ x)ᵀ + (f − y) diag(v∘σ″) ⊗ xxᵀ]. σ linear: constant, λ_max of the first
    part, computed exactly. σ = tanh: |σ′| ≤ 1, |σ″| ≤ 4/(3√3), |f| ≤ ‖v‖₁ give a bound.
    """
    if not tanh:
        rows = np.einsum("j,si->sji", v, x).reshape(x.shape[0], -1)
        return float(np.linalg.eigvalsh(rows.T @ rows / x.shape[0])[-1])
    residual = np.abs(v).sum() + np.abs(y)
    squares = np.sum(x * x, axis=1)
    return float(np.mean(squares * (v @ v + residual * np.abs(v).max() * TANH_CURVATURE)))


@cache
def _ternary_controls() -> tuple[np.ndarray, np.ndarray]:
    every = np.array(list(product((-1.0, 0.0, 1.0), repeat=6)))
    return every[:, :4].reshape(-1, 2, 2), every[:, 4:]
