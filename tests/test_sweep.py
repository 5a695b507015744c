"""Sweeps over a batch: g = −∇L_B with its 1/B, chunks, kept states, counts, float64 sums."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref import layers as L
from pmp_ref.controls import arrays_of, from_vector, map_controls, to_vector
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.summation import ALONE, Alone
from pmp_ref.sweep import Sweep, mean_loss
from tests import oracles
from tests.backends import Backend
from tests.strategies import images_for, networks, seeds

NET = Network(
    (L.Convolution(2, (2, 1)), L.Tanh(), L.residual(L.Convolution(2, 1), L.Tanh()), L.Flatten(), L.Dense(3)), (1, 3, 4)
)


def data(network: Network, seed: int, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = images_for(network, generator, batch)
    return initial_controls(network, seed, x, "float64"), x, generator.integers(0, network.output_shape[0], batch)


@given(networks(heads=True), seeds, st.integers(1, 4), st.integers(1, 3))
def test_switching_is_minus_the_gradient_of_the_mean_loss(network: Network, seed: int, batch: int, chunk: int) -> None:
    """Against the complex step of a mean of losses from the definition, not from the sweep."""
    u, x, y = data(network, seed, batch)
    sweep = Sweep(network, CrossEntropy(), chunk=chunk)
    g = to_vector(sweep.backward(u, sweep.forward(u, x, y)).switching)
    v = np.random.default_rng(seed).standard_normal(g.size)
    moved = map_controls(lambda a, b: a + 1e-30j * b, u, from_vector(v, u))
    scores = network.forward_sweep(moved, x)[-1]
    mean = sum(oracles.loss(CrossEntropy(), s, t) for s, t in zip(scores, y, strict=True)) / batch
    assert abs(-(g @ v) - mean.imag / 1e-30) <= 1e-12 * np.linalg.norm(g) * np.linalg.norm(v)


@given(seeds, st.integers(1, 9), st.integers(1, 10))
def test_chunks_and_memory_change_nothing(seed: int, batch: int, chunk: int) -> None:
    """Chunk sizes up to rounding; kept or recomputed states bit for bit; every sweep is counted."""
    u, x, y = data(NET, seed, batch)
    whole, parts = Sweep(NET, CrossEntropy(), chunk=64), Sweep(NET, CrossEntropy(), chunk=chunk)
    kept = parts.forward(u, x, y)
    recomputed = replace(parts, memory=0).forward(u, x, y)
    assert kept.states is not None and len(kept.states) == -(-batch // chunk) and recomputed.states is None
    for a, b in ((kept.losses, recomputed.losses), (kept.largest, recomputed.largest)):
        np.testing.assert_array_equal(a, b)
    assert kept.losses.shape == kept.largest.shape == (batch,)
    kept, recomputed = parts.backward(u, kept), replace(parts, memory=0).backward(u, recomputed)
    np.testing.assert_array_equal(to_vector(kept.switching), to_vector(recomputed.switching))
    assert (kept.forward_sweeps, kept.backward_sweeps) == (1, 1) and kept.states is None
    assert (recomputed.forward_sweeps, recomputed.backward_sweeps) == (2, 1)
    once = whole.backward(u, whole.forward(u, x, y))
    np.testing.assert_allclose(kept.losses, once.losses, rtol=1e-13)
    scale = np.linalg.norm(to_vector(once.switching))
    np.testing.assert_allclose(to_vector(kept.switching), to_vector(once.switching), rtol=0, atol=1e-13 * scale)


@given(seeds)
def test_a_batch_repeated_twice_has_the_same_mean_loss_and_switching(seed: int) -> None:
    u, x, y = data(NET, seed, 3)
    sweep = Sweep(NET, CrossEntropy())
    once = sweep.backward(u, sweep.forward(u, x, y))
    twice = sweep.backward(u, sweep.forward(u, np.concatenate([x, x]), np.concatenate([y, y])))
    np.testing.assert_allclose(float(mean_loss(twice)), float(mean_loss(once)), rtol=1e-14)
    scale = np.linalg.norm(to_vector(once.switching))
    np.testing.assert_allclose(to_vector(twice.switching), to_vector(once.switching), rtol=0, atol=1e-14 * scale)


def test_states_are_kept_up_to_the_stated_memory() -> None:
    u, x, y = data(NET, 0, 5)
    need = 5 * Sweep(NET, CrossEntropy()).bytes_per_sample(x)
    states = NET.forward_sweep(u, x)
    assert need == sum(s.nbytes for s in states[1:])
    assert Sweep(NET, CrossEntropy(), memory=need).forward(u, x, y).states is not None
    assert Sweep(NET, CrossEntropy(), memory=need - 1).forward(u, x, y).states is None


def test_squared_loss_and_largest_entry() -> None:
    network = Network((L.Dense(2),), (3,))
    u, x, _ = data(network, 0, 4)
    y = np.zeros((4, 2))
    e = Sweep(network, SquaredLoss(), chunk=3).forward(u, x, y)
    scores = x @ u[0][0].T
    np.testing.assert_allclose(e.losses, 0.5 * np.sum(scores**2, axis=1), rtol=1e-14)
    np.testing.assert_allclose(e.largest, np.max(np.abs(scores), axis=1), rtol=1e-15)


def test_the_mean_loss_is_summed_in_float64() -> None:
    u, x, y = data(NET, 0, 1)
    e = Sweep(NET, CrossEntropy()).forward(u, x, y)
    e = replace(e, losses=np.array([1e8, 1.0, 1.0, 1.0], np.float32))  # float32 would lose the ones
    assert float(mean_loss(e)) == (1e8 + 3) / 4


def test_overflow_gives_values_that_are_not_finite_and_no_warning() -> None:
    network = Network((L.Dense(2), L.Dense(2)), (2,))
    big = np.full((2, 2), 1e200)
    u, x = ((big, np.zeros(2)), (big, np.zeros(2))), np.full((1, 2), 1e200)
    sweep = Sweep(network, CrossEntropy())
    e = sweep.backward(u, sweep.forward(u, x, np.array([0])))
    assert not np.isfinite(e.losses).any() and not np.isfinite(e.switching[0][0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_library_device_and_dtype_go_out_as_they_came_in(backend: Backend, dtype: Any) -> None:
    u, x, y = data(NET, 1, 5)
    u, x = map_controls(lambda a: backend.asarray(a.astype(dtype)), u), backend.asarray(x.astype(dtype))
    sweep = Sweep(NET, CrossEntropy(), chunk=2)
    e = sweep.backward(u, sweep.forward(u, x, backend.asarray(y)))
    for a in (e.losses, e.largest, *arrays_of(e.switching)):
        assert a.dtype == x.dtype and a.device == backend.device


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunks_have_at_least_one_sample(chunk: int) -> None:
    with pytest.raises(InputError, match=f"chunk is {chunk}"):
        Sweep(NET, CrossEntropy(), chunk=chunk)


def test_a_process_alone_is_equal_to_its_copy_in_another_process() -> None:
    class Others(Alone):
        """Ranks of another kind."""

    again = pickle.loads(pickle.dumps(ALONE))
    assert again == ALONE and hash(again) == hash(ALONE) and Others() != ALONE
