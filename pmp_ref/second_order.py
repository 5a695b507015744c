"""Second-order sweeps (T14): Hessian-vector products D²L_B v and the largest curvature λ_max.

Along a direction v the tangent of the forward sweep gives dx_l, the tangent of the backward sweep dp_l and dg_l, and
D²L_B v = −dg.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from pmp_ref.arrays import Array, Controls, zeros
from pmp_ref.controls import add, from_vector, scaled, to_vector
from pmp_ref.problem import Problem
from pmp_ref.sweep import Sweep, quiet


def hessian_vector(problem: Problem, controls: Controls, x: Array, y: Array, v: Controls) -> Controls:
    """D²L_B(u) v on the batch (x, y), L_B the mean loss; nested like the controls. Chunk by chunk, clear path."""
    network, loss, sweep = problem.network, problem.loss, Sweep(problem.network, problem.loss)
    samples, result = x.shape[0], None
    with quiet():
        for cut in sweep.chunks(x):
            states = network.forward_sweep(controls, x[cut, ...])
            p = sweep.terminal_costate(states[-1], y[cut, ...], samples)
            costates, _ = network.backward_sweep(controls, states, p)
            tangents = tangent_sweep(problem, controls, states, v)
            dp = -loss.tangent_gradient(states[-1], y[cut, ...], tangents[-1]) / samples
            dg = tangent_costate_sweep(problem, controls, states, costates, tangents, v, dp)
            result = dg if result is None else add(result, dg)
    assert result is not None
    return scaled(-1.0, result)


def tangent_sweep(problem: Problem, controls: Controls, states: list[Any], v: Controls) -> list[Any]:
    """dx_{l+1} = ∂_xΛ dx + ∂_uΛ v_l from dx_0 = 0, x and dx those entering stage l: the derivative of x along v."""
    network = problem.network

    def step(l: int, dx: Any) -> Any:
        return network.stages[l].tangent(network.entering(l, states), controls[l], dx, v[l])

    return network.propagate(step, zeros(states[0].shape, states[0]))


def tangent_costate_sweep(
    problem: Problem,
    controls: Controls,
    states: list[Any],
    costates: list[Any],
    tangents: list[Any],
    v: Controls,
    dp: Any,
) -> Controls:
    """dg, the derivative of the switching functions along v, from dp_L = ``dp``."""
    network = problem.network
    moved: list[Any] = [None] * len(network.stages) + [dp]  # dp_l
    dg: list[tuple[Array, ...]] = [()] * len(network.stages)
    for l in range(len(network.stages) - 1, -1, -1):
        x, dx = network.entering(l, states), network.entering(l, tangents)
        at = (x, controls[l], costates[l + 1], dx, v[l], moved[l + 1])
        if network.controlled[l + 1]:
            dg[l] = network.stages[l].tangent_switching(*at)
        if any(network.controlled[i] for i in network.reads[l]):
            network.hand_back(l, network.stages[l].tangent_costate(*at), moved)
    return tuple(dg)


def hessian(problem: Problem, controls: Controls, x: Array, y: Array) -> np.ndarray:
    """The full D²L_B(u), column by column, as a float64 matrix on the host; for small networks only."""
    n = to_vector(controls).size
    columns = [to_vector(hessian_vector(problem, controls, x, y, from_vector(row, controls))) for row in np.eye(n)]
    return np.stack(columns, axis=1)


def largest_eigenvalue(problem: Problem, controls: Controls, x: Array, y: Array, tolerance: float = 1e-6) -> float:
    """λ_max(D²L_B(u)) by Lanczos (SciPy ``eigsh``); a Ritz value, so a lower bound up to ``tolerance``."""
    n = to_vector(controls).size

    def product(vector: np.ndarray) -> np.ndarray:
        return to_vector(hessian_vector(problem, controls, x, y, from_vector(vector.ravel(), controls)))

    if n <= 2:  # eigsh needs more unknowns than that
        return float(np.linalg.eigvalsh(hessian(problem, controls, x, y))[-1])
    start = np.random.default_rng(0).standard_normal(n)
    if not product(start).any():
        return 0.0  # the Hessian is 0, which ARPACK does not take
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", tol=tolerance, v0=start, return_eigenvectors=False)[0])
