"""The coarse global constant C̄ ≥ ½ sup ‖D²L_B‖ on a bounded set of controls (T7).

On {‖kernel_l‖ ≤ R_l, ‖bias_l‖ ≤ R_b} propagate, per sample, X ≥ ‖x_l‖, Z ≥ ‖dx_l‖/‖v‖ and Y ≥ ‖d²x_l‖/‖v‖². A proof
that a finite constant exists; as a number it exceeds ½λ_max by factors of 10³ to 10⁵.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.bounds.constants import (
    activation_constants,
    bias_norm,
    bilinear_norm,
    largest_value,
    linear_norm,
    value_at_zero,
)
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError
from pmp_ref.layers import Activation, AffineStage, Stage, WeightedSum
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem

ROUNDING = 1 + 1e-10  # covers the rounding of a bound that is a product of at most some thousand positive terms


def global_constant(problem: Problem, radii: Any, x: Array, y: Array) -> float:
    """C̄ = ½ mean_s (‖Φ″‖Z² + ‖Φ′‖Y) over the samples, for all controls with ‖u_l‖ ≤ ``radii``.

    ``radii`` is nested like the controls (Frobenius norms), see :func:`radii_of_box` and :func:`radii_around`.
    Raises InputError for standardisation and for stages that are not smooth: they are left out.
    """
    network = problem.network
    known = data(network, to_numpy(x).astype(np.float64))

    def still(x: np.ndarray) -> Any:
        length = np.linalg.norm(x.reshape(x.shape[0], -1), axis=1)
        return length, 0 * length, 0 * length

    def step(l: int, state: Any) -> Any:
        if known[l + 1] is not None:
            return still(known[l + 1])
        return propagate(network.stages[l], network.entering(l, network.shapes), radii[l], state)

    X, Z, Y = network.propagate(step, still(known[0]), keep=False)[-1]
    if isinstance(problem.loss, CrossEntropy):
        bound = 0.5 * Z**2 + math.sqrt(2) * Y
    elif isinstance(problem.loss, SquaredLoss):  # Φ″ = 1, ‖Φ′‖ ≤ ‖x_L‖ + ‖y‖
        bound = Z**2 + (X + np.linalg.norm(to_numpy(y).reshape(y.shape[0], -1), axis=1)) * Y
    else:
        raise InputError(f"no bound for the loss {problem.loss}; expected cross-entropy or squared")
    return 0.5 * float(np.mean(bound)) * ROUNDING


def data(network: Network, x: np.ndarray) -> list[Any]:
    """The states that depend on no control, computed from the images x; None in place of the others."""

    def step(l: int, entering: Any) -> Any:
        return None if network.controlled[l + 1] else network.stages[l].forward(entering, ())

    return network.propagate(step, x)


def propagate(stage: Stage, shape: Any, radius: tuple[float, ...], state: Any) -> Any:
    """(X, Z, Y) behind a stage from the triple of the state that it reads, or a tuple of several."""
    if isinstance(stage, WeightedSum):
        weights = np.abs(stage.weights)
        return tuple(sum(w * a for w, a in zip(weights, each, strict=True)) for each in zip(*state, strict=True))
    X, Z, Y = state
    if isinstance(stage, AffineStage):
        k, beta, R = bilinear_norm(stage, shape), bias_norm(stage, shape), radius[0]
        bias = beta * radius[1] if stage.bias else 0.0
        return k * R * X + bias, k * (R * Z + X) + beta, k * (R * Y + 2 * Z)
    if isinstance(stage, Activation):
        s1, s2, _ = activation_constants(stage)
        root = math.sqrt(math.prod(shape))
        X = np.minimum(s1 * X + value_at_zero(stage) * root, largest_value(stage) * root)
        return X, s1 * Z, s1 * Y + s2 * Z**2
    norm = linear_norm(stage, shape)
    return norm * X, norm * Z, norm * Y


def radii_of_box(problem: Problem) -> Any:
    """max(|lo|, |hi|)√n for each control on a box, whose bounds float32 may round outwards; raises InputError where a
    box is unbounded or a set finite."""

    def radius(admissible: Any, shape: tuple[int, ...]) -> float:
        largest = max(abs(admissible.lo), abs(admissible.hi)) if hasattr(admissible, "lo") else math.inf
        if not math.isfinite(largest):
            raise InputError(f"controls on {admissible}; expected a bounded box")
        return max(largest, float(np.float32(largest))) * math.sqrt(math.prod(shape)) * ROUNDING

    return map_controls(radius, problem.admissible, problem.network.control_shapes)


def radii_around(u: Controls, r: float) -> Any:
    """‖u_l‖ + r: all controls of the ball of radius r around u."""
    return map_controls(lambda a: (float(np.linalg.norm(to_numpy(a).astype(np.float64))) + r) * ROUNDING, u)
