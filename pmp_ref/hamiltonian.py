"""Hamiltonians and their increments (theory: notation, T2).

    H_l(x, p, w) = ⟨p, Λ_l(x, w)⟩ − ρ ω_l r_l(w)
    K_ε(x, p, w; u) = H_l(x, p, w) − ε‖w − u‖²_D

⟨·,·⟩ sums over the batch; the factor 1/B is inside p. H is affine in w up to r, so H(w) − H(u) = ⟨g, w − u⟩
− ρ(R(w) − R(u)) exactly, with g the switching function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pmp_ref.arrays import Array, Controls, product64, sum64, wide
from pmp_ref.controls import entrywise, map_controls, multiply, products, subtract, total
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
    return map_controls(sum64, products(g, subtract(w, u)))


def squared_increments(u: Controls, w: Controls, metric: Controls | None = None) -> Controls:
    """τ of each control: Σ_i d_i (w_i − u_i)², nested like the controls; d = 1 without metric (T17). 0-d, float64."""
    delta = subtract(w, u)
    return map_controls(sum64, products(scaled_step(delta, metric), delta))


def scaled_step(delta: Controls, metric: Controls | None) -> Controls:
    """d_i Δ_i, or Δ itself without metric."""
    return delta if metric is None else multiply(metric, delta)


def step_terms(g: Controls, u: Controls, w: Controls, metric: Controls | None = None) -> Iterator[Controls]:
    """What is to be summed for ⟨g, w − u⟩, τ = ‖w − u‖²_D, ‖D(w − u)‖² and ‖g‖², in float64."""
    delta = subtract(w, u)
    g, delta, scaled = (entrywise(wide, a) for a in (g, delta, scaled_step(delta, metric)))
    yield products(g, delta)
    yield products(scaled, delta)
    yield products(scaled, scaled)
    yield products(g, g)


def augmented_increment(
    problem: Problem, g: Controls, u: Controls, w: Controls, eps: float, rho: float, metric: Controls | None = None
) -> Array:
    """Σ_l K_ε(w; u) − K_ε(u; u) = ΣΔH − ετ; non-negative where w maximises K_ε. 0-d, float64."""
    return total(increments(problem, g, u, w, rho)) - eps * total(squared_increments(u, w, metric))
