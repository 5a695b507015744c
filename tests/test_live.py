"""T22 in the fast sweep: dead units are left out, nothing else changes, and a unit that comes back is seen at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pmp_ref import CrossEntropy, Iterate, Problem, Stop, lenet5, lenet5_caffe
from pmp_ref import layers as L
from pmp_ref.arrays import Controls
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import map_controls, to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.live import STEPS, LiveParts, multiplications
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.sweep import Sweep


def thinned(network: Network, part: float, seed: int = 0, dtype: str = "float64") -> Controls:
    """Drawn controls of a chain, with that part of the units of each stage but the last dead."""
    generator = np.random.default_rng(seed)
    u = [[a.copy() for a in s] for s in initial_controls(network, seed, np.zeros((1, *network.input_shape)))]
    layers = network.layers()
    for l in layers:
        u[l][1][...] = generator.normal(size=u[l][1].shape)
    for maker, reader in pairwise(layers):
        units = u[maker][0].shape[0]
        gone = generator.permutation(units)[: round(part * units)]
        u[maker][0][gone] = 0
        u[reader][0].reshape(u[reader][0].shape[0], units, -1)[:, gone] = 0
    return map_controls(lambda a: a.astype(dtype), u)


def data(network: Network, samples: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    x = generator.normal(size=(samples, *network.input_shape)).astype(dtype)
    return x, generator.integers(0, network.output_shape[0], samples)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-13), ("float32", 2e-5)])
@pytest.mark.parametrize("build", [lenet5, lenet5_caffe])
def test_a_sweep_without_dead_units_gives_all_of_J_and_g(build: Any, dtype: str, bound: float) -> None:
    network = build((1, 20, 24), 5)
    u, (x, y) = thinned(network, 0.7, dtype=dtype), data(network, 19, dtype)
    fast, clear = FastSweep(network, CrossEntropy()), Sweep(network, CrossEntropy())
    part = fast.parts.at(u, fast.of)
    assert part is not None and multiplications(part.sweep.network) < 0.4 * multiplications(network)
    due = clear.forward_backward(u, x, y)
    g = to_vector(due.switching)
    for e in (fast.forward_backward(u, x, y), fast.backward(u, fast.forward(u, x, y))):
        np.testing.assert_allclose(e.losses, due.losses, rtol=bound, atol=bound)
        np.testing.assert_allclose(to_vector(e.switching), g, rtol=0, atol=bound * abs(g).max())
        assert [[a.dtype for a in s] for s in e.switching] == [[a.dtype for a in s] for s in u]
    np.testing.assert_allclose(fast.trial(u, x, y).losses, due.losses, rtol=bound, atol=bound)


def test_which_units_are_left_out_follows_from_the_controls_alone() -> None:
    network = Network((L.Dense(100), L.Tanh(), L.Dense(3)), (5,))
    parts, step = LiveParts(network), -(-100 // STEPS)
    for dead in (0, 1, 7, 8, 50, 99, 100):
        u = thinned(network, dead / 100)
        part = parts.at(u, lambda smaller: smaller)
        if part is None:
            assert -(-(100 - dead) // step) * step > 90
            continue
        ((joint),) = part.joints
        assert not u[0][0][joint.dead].any() and not u[2][0][:, joint.dead].any()
        assert joint.live.size == (-(-(100 - dead) // step) * step if dead < 100 else 1)
        assert sorted([*joint.live, *joint.dead]) == list(range(100))
        kept = joint.live.size
        assert part.sweep.control_shapes == (((kept, 5), (kept,)), (), ((3, kept), (3,)))
        np.testing.assert_array_equal(joint.constants, np.tanh(u[0][1][joint.dead]))


def test_a_unit_that_comes_back_or_is_not_finite_is_swept() -> None:
    network = Network((L.Dense(40), L.ReLU(), L.Dense(3)), (5,))
    u, (x, y) = thinned(network, 0.8), data(network, 6)
    fast, clear = FastSweep(network, CrossEntropy()), Sweep(network, CrossEntropy())
    part = fast.parts.at(u, fast.of)
    assert part is not None
    back = int(part.joints[0].dead[0])
    for place, value in (((0, 0, (back, 2)), 0.3), ((2, 0, (1, back)), -0.2), ((0, 1, (back,)), np.inf)):
        l, i, entry = place
        v = [[a.copy() for a in s] for s in u]
        v[l][i][entry] = value
        now = fast.parts.at(v, fast.of)
        assert now is not None and back not in now.joints[0].dead
        with np.errstate(all="ignore"):
            e, due = fast.forward_backward(v, x, y), clear.forward_backward(v, x, y)
        np.testing.assert_allclose(e.losses, due.losses, rtol=1e-12)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_takes_the_same_steps_with_and_without_dead_units(threads: int) -> None:
    network = Network((L.Dense(48), L.Tanh(), L.Dense(32), L.ReLU(), L.Dense(3)), (12,))
    (x, y), u = data(network, 90), thinned(network, 0.0)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    how: dict[str, Any] = {"stop": Stop(epochs=20), "batch_size": 30, "method": Method.minibatch()}
    runs, met = [], []
    for live in (True, False):
        sweep = FastSweep(network, CrossEntropy(), chunk=8, threads=threads, live=live)

        def note(it: Iterate, record: Any, sweep: FastSweep = sweep) -> None:
            met.append(sweep.parts.at(it.controls, sweep.of) is not None)

        runs.append(bsqh(Problem(network, rho=0.03, sweep=sweep), u, x, y, **how, callback=note))
    assert any(met) and [r.verdict for r in runs[0].records] == [r.verdict for r in runs[1].records]
    assert [r.nonzeros for r in runs[0].records] == [r.nonzeros for r in runs[1].records]
    np.testing.assert_allclose([r.J for r in runs[0].records], [r.J for r in runs[1].records], rtol=1e-9)


def test_states_kept_by_a_smaller_network_go_back_to_its_own_store() -> None:
    """Else the next sweep of the whole network would find arrays of other shapes."""
    network = Network((L.Dense(64), L.Tanh(), L.Dense(4)), (6,))
    (x, y), fast = data(network, 20), FastSweep(network, CrossEntropy())
    dense, sparse = thinned(network, 0.0), thinned(network, 0.8)
    due = fast.forward_backward(dense, x, y).losses
    for _ in range(3):
        e = fast.forward(sparse, x, y)
        del e
        np.testing.assert_array_equal(fast.forward_backward(dense, x, y).losses, due)
