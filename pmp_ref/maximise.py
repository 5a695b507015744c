"""Layerwise exact maximisation of the augmented Hamiltonian (T4).

w_l = argmax over w ∈ U_l of K_ε(x_l, p_{l+1}, w; u_l), for all layers at once.
"""

from __future__ import annotations

from typing import Any

from pmp_ref.arrays import Controls
from pmp_ref.controls import map_controls
from pmp_ref.problem import Problem


def maximise(problem: Problem, u: Controls, g: Controls, eps: float, rho: float, metric: Any = None) -> Controls:
    """The candidate w for all layers at once, from the control u, the switching functions g and ε.

    With a metric d (T17) ε becomes ε d_i in entry i. ``rho`` is the ρ of this step.
    """
    if metric is None:
        return map_controls(
            lambda r, omega, admissible, ul, gl: r.argmax(ul, gl, eps, rho * omega, admissible),
            problem.regulariser, problem.weights, problem.admissible, u, g,
        )  # fmt: skip
    return map_controls(
        lambda r, omega, admissible, d, ul, gl: r.argmax(ul, gl, eps * d, rho * omega, admissible),
        problem.regulariser, problem.weights, problem.admissible, metric, u, g,
    )  # fmt: skip
