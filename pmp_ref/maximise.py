"""Layerwise exact maximisation of the augmented Hamiltonian (T4).

w_l = argmax over w ∈ U_l of K_ε(x_l, p_{l+1}, w; u_l), for all layers at once.

All from the same states and costates: no layer waits for another, and nothing is swept again in between. What this
costs is that the curvature between layers counts too, in the constant C of T6.
"""

from __future__ import annotations

from typing import Any

from pmp_ref.arrays import Controls, Scalar
from pmp_ref.controls import entrywise, map_controls
from pmp_ref.problem import Problem


def maximise(
    problem: Problem, u: Controls, g: Controls, eps: float, rho: float, metric: Controls | None = None
) -> Controls:
    """The candidate w for all layers at once, from the control u, the switching functions g and ε.

    With a metric d (T17) ε becomes ε d_i in entry i. ``rho`` is the ρ of this step.
    """
    return candidate(problem, u, g, eps, weighted(problem, u, rho), metric)


def weighted(problem: Problem, u: Controls, rho: float) -> Any:
    """ρω of each control, in the form of u."""
    return map_controls(lambda omega: rho * omega, problem.fitting(u, problem.weights))


def candidate(
    problem: Problem, u: Controls, g: Controls, eps: Scalar, rho: Scalar, metric: Controls | None = None
) -> Controls:
    """:func:`maximise` with ρω given for each control. ε and ρω may be 0-d arrays on the device."""
    regulariser = problem.fitting(u, problem.regulariser)
    admissible = problem.fitting(u, problem.admissible)
    if metric is None:
        return map_controls(
            lambda r, rho, admissible, ul, gl: r.argmax(ul, gl, eps, rho, admissible),
            regulariser,
            rho,
            admissible,
            u,
            g,
        )
    weights = entrywise(lambda d: eps * d, metric)
    return map_controls(
        lambda r, rho, admissible, eps_d, ul, gl: r.argmax(ul, gl, eps_d, rho, admissible),
        regulariser,
        rho,
        admissible,
        weights,
        u,
        g,
    )
