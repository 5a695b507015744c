"""Second-order sweeps (T14): Hessian-vector products against complex step and differences, symmetry, λ_max."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pmp_ref import layers as L
from pmp_ref.controls import add, arrays_of, from_vector, map_controls, scaled, to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.second_order import hessian, hessian_vector, largest_eigenvalue
from pmp_ref.sweep import Sweep
from tests.backends import Backend
from tests.strategies import images_for, networks, seeds

SMALL = Network(
    (
        L.Convolution(2, (2, 1)),
        L.Tanh(),
        L.residual(L.Convolution(2, 1), L.SiLU(), step=0.5),
        L.Standardise(2),
        L.Flatten(),
        L.Dense(2),
    ),
    (1, 3, 2),
)


def setting(network: Network, seed: int, loss: Loss | None = None, batch: int = 3) -> tuple[Problem, Any, Any, Any]:
    generator = np.random.default_rng(seed)
    x = images_for(network, generator, batch)
    u = initial_controls(network, seed, x, "float64")
    u = map_controls(lambda a: a + 0.1 * generator.standard_normal(a.shape), u)
    if isinstance(loss, SquaredLoss):
        return Problem(network, loss, rho=0.0), u, x, generator.standard_normal((batch, *network.output_shape))
    return Problem(network, CrossEntropy(), rho=0.0), u, x, generator.integers(0, network.output_shape[0], batch)


def direction(u: Any, seed: int) -> Any:
    n = to_vector(u).size
    return from_vector(np.random.default_rng(seed).standard_normal(n), u)


def gradient(problem: Problem, u: Any, x: Any, y: Any) -> np.ndarray:
    sweep = Sweep(problem.network, problem.loss)
    return -to_vector(sweep.backward(u, sweep.forward(u, x, y)).switching)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredLoss()], ids=str)
@given(network=networks(heads=True), seed=seeds)
def test_hessian_vector_product_is_the_complex_step_of_the_switching_function(
    loss: Loss, network: Network, seed: int
) -> None:
    problem, u, x, y = setting(network, seed, loss)
    v = direction(u, seed)
    moved = map_controls(lambda a, b: a + 1e-30j * b, u, v)
    states = network.forward_sweep(moved, x)
    _, g = network.backward_sweep(moved, states, -problem.loss.gradient(states[-1], y) / x.shape[0])
    expected = -np.concatenate([a.imag.ravel() for a in arrays_of(g)]) / 1e-30
    actual = to_vector(hessian_vector(problem, u, x, y, v))
    # Standardisation amplifies roundings up to a thousandfold, see test_stages.
    assert np.linalg.norm(actual - expected) <= 1e-10 * np.linalg.norm(expected) + 1e-14


@given(networks(heads=True), seeds)
def test_hessian_vector_product_is_a_difference_of_switching_functions(network: Network, seed: int) -> None:
    """A second path, without complex numbers; the error is h² times a fourth derivative of the loss."""
    problem, u, x, y = setting(network, seed)
    v, h = direction(u, seed), 1e-5
    plus, minus = (gradient(problem, add(u, scaled(s * h, v)), x, y) for s in (1, -1))
    actual = to_vector(hessian_vector(problem, u, x, y, v))
    scale = np.linalg.norm(actual) + np.linalg.norm(gradient(problem, u, x, y))
    assert np.linalg.norm(actual - (plus - minus) / (2 * h)) <= 1e-3 * scale


@given(networks(heads=True), seeds)
def test_hessians_are_symmetric(network: Network, seed: int) -> None:
    """⟨v, Hw⟩ = ⟨w, Hv⟩."""
    problem, u, x, y = setting(network, seed)
    v, w = direction(u, seed), direction(u, seed + 1)
    hv, hw = (to_vector(hessian_vector(problem, u, x, y, d)) for d in (v, w))
    scale = np.linalg.norm(to_vector(v)) * np.linalg.norm(hw) + np.linalg.norm(to_vector(w)) * np.linalg.norm(hv)
    assert abs(to_vector(v) @ hw - to_vector(w) @ hv) <= 1e-10 * scale + 1e-14


def test_a_dense_squared_network_has_the_hessian_of_least_squares() -> None:
    network = Network((L.Dense(1),), (3,))
    problem, u, x, y = setting(network, 0, SquaredLoss(), batch=5)
    design = np.concatenate([x, np.ones((5, 1))], axis=1)
    np.testing.assert_allclose(hessian(problem, u, x, y), design.T @ design / 5, rtol=1e-13, atol=1e-15)


@settings(max_examples=5)
@given(seeds)
def test_largest_eigenvalue_is_that_of_the_full_hessian(seed: int) -> None:
    problem, u, x, y = setting(SMALL, seed)
    full = hessian(problem, u, x, y)
    np.testing.assert_allclose(full, full.T, atol=1e-10 * np.max(np.abs(full)))
    largest = np.linalg.eigvalsh(full)[-1]
    np.testing.assert_allclose(largest_eigenvalue(problem, u, x, y, tolerance=1e-10), largest, rtol=1e-8)


def test_largest_eigenvalue_with_two_unknowns_or_without_curvature() -> None:
    network = Network((L.Dense(1),), (1,))
    problem, u, x, y = setting(network, 0, SquaredLoss())
    largest = np.linalg.eigvalsh(hessian(problem, u, x, y))[-1]
    np.testing.assert_allclose(largest_eigenvalue(problem, u, x, y), largest, rtol=1e-12)
    network = Network((L.Dense(3, bias=False),), (2,))
    problem, u, x, y = setting(network, 0)
    assert largest_eigenvalue(problem, u, np.zeros_like(x), y) == 0.0


def test_chunks_of_the_batch_add_up() -> None:
    """A batch longer than a chunk: twice the same samples, the same mean, so the same product."""
    problem, u, x, y = setting(SMALL, 0, batch=50)
    v = direction(u, 1)
    once = to_vector(hessian_vector(problem, u, x, y, v))
    twice = to_vector(hessian_vector(problem, u, np.concatenate([x, x]), np.concatenate([y, y]), v))
    np.testing.assert_allclose(twice, once, rtol=0, atol=1e-12 * np.max(np.abs(once)))
    assert x.shape[0] < Sweep(SMALL, CrossEntropy()).chunk < 2 * x.shape[0]


def test_backends_agree(backend: Backend) -> None:
    problem, u, x, y = setting(SMALL, 3)
    v = direction(u, 1)
    ub, vb = (map_controls(backend.asarray, c) for c in (u, v))
    there = hessian_vector(problem, ub, backend.asarray(x), backend.asarray(y), vb)
    for a, b in zip(arrays_of(hessian_vector(problem, u, x, y, v)), arrays_of(there), strict=True):
        assert b.device == backend.device and b.dtype == backend.xp.float64
        np.testing.assert_allclose(backend.to_numpy(b), a, rtol=0, atol=1e-12 * (1 + np.max(np.abs(a))))
    expected = largest_eigenvalue(problem, u, x, y)
    np.testing.assert_allclose(largest_eigenvalue(problem, ub, backend.asarray(x), backend.asarray(y)), expected)
