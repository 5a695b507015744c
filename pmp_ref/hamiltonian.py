"""Hamiltonians and their increments (theory: notation, T2).

    H_l(x, p, w) = ⟨p, Λ_l(x, w)⟩ − ρ ω_l r_l(w)
    K_ε(x, p, w; u) = H_l(x, p, w) − ε‖w − u‖²_D

⟨·,·⟩ sums over the batch; the factor 1/B is inside p. H is affine in w up to r, so H(w) − H(u) = ⟨g, w − u⟩
− ρ(R(w) − R(u)) exactly, with g the switching function.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pmp_ref.arrays import Array, Controls, fused, sum64
from pmp_ref.controls import entrywise, map_controls, product64, total
from pmp_ref.problem import Problem


def hamiltonian(problem: Problem, l: int, x: Any, p: Any, w: tuple[Array, ...], rho: float) -> Array:
    """H_l(x, p, w) by its definition: the stage is applied to w. ``x`` is what enters it: the state that it reads, or a
    tuple of several. 0-d, float64."""
    value = sum64(product64(p, problem.network.stages[l].forward(x, w)))
    for r, omega, a in zip(problem.regulariser[l], problem.weights[l], w, strict=True):
        value = value - rho * omega * r.value(a)
    return value


def increments(problem: Problem, g: Controls, u: Controls, w: Controls, rho: float) -> Controls:
    """ΔH of each control, nested like the controls: ⟨g, w − u⟩ − ρω[r(w) − r(u)] (T2); 0-d, float64."""
    before, after = problem.penalties(u), problem.penalties(w)
    return map_controls(lambda h, a, b: h - rho * (b - a), linear_increments(g, u, w), before, after)


def linear_increments(g: Controls, u: Controls, w: Controls) -> Controls:
    """⟨g, w − u⟩ of each control, nested like the controls; 0-d, float64."""
    return map_controls(sum64, linear_terms(g, u, w))


def linear_terms(g: Controls, u: Controls, w: Controls) -> Controls:
    """g_i (w_i − u_i), in float64."""
    return entrywise(partial(fused, _linear), g, u, w)


def _linear(g: Array, u: Array, w: Array) -> Array:
    return product64(g, w - u)


def squared_increments(u: Controls, w: Controls, metric: Controls | None = None) -> Controls:
    """τ of each control: Σ_i d_i (w_i − u_i)², nested like the controls; d = 1 without metric (T17). 0-d, float64."""
    return map_controls(sum64, squared_terms(u, w, metric))


def squared_terms(u: Controls, w: Controls, metric: Controls | None = None) -> Controls:
    """d_i (w_i − u_i)², in float64."""
    if metric is None:
        return entrywise(partial(fused, _square), u, w)
    return entrywise(partial(fused, _weighted_square), metric, u, w)


def _square(u: Array, w: Array) -> Array:
    delta = w - u
    return product64(delta, delta)


def _weighted_square(d: Array, u: Array, w: Array) -> Array:
    delta = w - u
    return product64(d * delta, delta)


def residual_terms(u: Controls, w: Controls, metric: Controls | None = None) -> Controls:
    """(d_i (w_i − u_i))², in float64."""
    if metric is None:
        return squared_terms(u, w)
    return entrywise(partial(fused, _residual_square), metric, u, w)


def _residual_square(d: Array, u: Array, w: Array) -> Array:
    scaled = d * (w - u)
    return product64(scaled, scaled)


def augmented_increment(
    problem: Problem, g: Controls, u: Controls, w: Controls, eps: float, rho: float, metric: Controls | None = None
) -> Array:
    """Σ_l K_ε(w; u) − K_ε(u; u) = ΣΔH − ετ; non-negative where w maximises K_ε. 0-d, float64."""
    return total(increments(problem, g, u, w, rho)) - eps * total(squared_increments(u, w, metric))
