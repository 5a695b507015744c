"""What a run promises on every array library: the same decisions, the same batches, errors that name what was mixed.

Values are compared in ``test_backends_agree``; the maps one by one in the tests of their modules.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import layers as L
from pmp_ref.acceptance import RelativeTest
from pmp_ref.arrays import library
from pmp_ref.augmentation import ClassicRule
from pmp_ref.averaging import Averaging
from pmp_ref.batches import FlipsAndShifts, take_batch
from pmp_ref.bsqh import bsqh
from pmp_ref.certificate import certify
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, LTwoThirds
from pmp_ref.result import Record
from pmp_ref.stop import Stop
from tests.backends import Backend, load

NET = Network((L.Convolution(2, 3), L.Tanh(), L.AveragePool(2), L.Flatten(), L.Dense(3)), (1, 6, 5))
GENERATOR = np.random.default_rng(3)
X, Y = GENERATOR.standard_normal((9, *NET.input_shape)), GENERATOR.integers(0, 3, 9)
U = initial_controls(NET, 0, X)
NUMBERS = [f.name for f in dataclasses.fields(Record) if f.type in ("float", "int")]

RUNS: dict[str, tuple[Problem, dict[str, Any]]] = {
    "full batch": (
        Problem(NET, rho=1e-3, regulariser=L0()),
        {"method": Method(ClassicRule(0.05, sigma=2.0)), "stop": Stop(steps=8)},
    ),
    "mini-batches": (
        Problem(NET, rho=1e-3, regulariser=LTwoThirds()),
        {
            "method": Method(
                ClassicRule(1e-3, sigma=2.0, zeta=0.7), RelativeTest(0.3), GradientMetric(), Averaging(0.5)
            ),
            "stop": Stop(epochs=3),
            "batch_size": 3,
        },
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_same_trials_are_accepted(backend: Backend, name: str) -> None:
    """In float64 every verdict is that of NumPy, and the numbers of each trial differ by rounding only."""
    problem, how = RUNS[name]
    here = bsqh(problem, U, X, Y, **how)
    there = bsqh(problem, map_controls(backend.asarray, U), backend.asarray(X), backend.asarray(Y), **how)
    assert [r.verdict for r in there.records] == [r.verdict for r in here.records] and there.status is here.status
    assert len({r.verdict for r in here.records}) > 1
    for a, b in zip(here.records, there.records, strict=True):
        scale = abs(a.J) + 1
        for field in NUMBERS:
            # ΔJ, ΣΔH and Ĉτ are differences of numbers of the size of J; Ĉ divides by τ
            size = scale / a.tau if field in ("c_hat", "eps") and a.tau > 0 else scale
            assert getattr(b, field) == pytest.approx(getattr(a, field), rel=1e-9, abs=1e-11 * size, nan_ok=True), field


def test_the_same_seed_gives_the_same_batches(backend: Backend) -> None:
    xb, yb = backend.asarray(X), backend.asarray(Y)
    for epoch in (0, 1):
        for position in (0, 1):
            bx, by = take_batch(xb, yb, 2, position, 7, epoch)
            hx, hy = take_batch(X, Y, 2, position, 7, epoch)
            assert bx.device == backend.device and by.dtype == yb.dtype
            np.testing.assert_array_equal(backend.to_numpy(bx), hx)
            np.testing.assert_array_equal(backend.to_numpy(by), hy)


def test_the_same_seed_moves_the_same_images(backend: Backend) -> None:
    images = np.random.default_rng(3).normal(size=(9, 2, 4, 5))
    vary = FlipsAndShifts(shift=2, flip=True)
    for position in (0, 1):
        bx, _ = take_batch(backend.asarray(images), backend.asarray(np.arange(9)), 2, position, 7, 1, vary=vary)
        hx, _ = take_batch(images, np.arange(9), 2, position, 7, 1, vary=vary)
        assert bx.device == backend.device
        np.testing.assert_array_equal(backend.to_numpy(bx), hx)


def test_an_iterate_moves_between_libraries(backend: Backend) -> None:
    """A run begun in NumPy goes on elsewhere: the arrays of its iterate are moved, nothing else is needed."""
    problem, how = RUNS["mini-batches"]
    first = bsqh(problem, U, X, Y, **(how | {"stop": Stop(epochs=1)}))
    held = first.iterate.moved(backend.asarray)
    there = bsqh(problem, held.controls, backend.asarray(X), backend.asarray(Y), resume=held, **how)
    here = bsqh(problem, None, X, Y, resume=first.iterate.at_rest(), **how)
    assert [r.verdict for r in there.records] == [r.verdict for r in here.records]
    np.testing.assert_allclose([r.J for r in there.records], [r.J for r in here.records], rtol=1e-9)


@pytest.mark.parametrize("entry", ["solve", "certify"])
def test_mixed_libraries_are_named(backend: Backend, entry: str) -> None:
    other = load("array_api_strict" if backend.name.startswith("numpy") else "numpy")
    u, x, y = map_controls(backend.asarray, U), backend.asarray(X), backend.asarray(Y)
    v, z, t = map_controls(other.asarray, U), other.asarray(X), other.asarray(Y)
    problem, how = RUNS["full batch"]

    def call(*arguments: Any) -> None:
        bsqh(problem, *arguments, **how) if entry == "solve" else certify(problem, *arguments, 1.0)

    for arguments, names in (((u, x, t), ("images", "labels")), ((v, x, y), ("images", "kernel of stage 0"))):
        with pytest.raises(InputError) as error:
            call(*arguments)
        assert all(word in str(error.value) for word in (*names, library(x), library(z))), str(error.value)


def test_jax_without_float64_is_refused() -> None:
    """In a process of its own: the switch is global."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    script = (
        "import jax.numpy as jnp, numpy as np\n"
        "from tests.test_backend_libraries import U, X, Y, RUNS\n"
        "from pmp_ref.bsqh import bsqh\nfrom pmp_ref.controls import map_controls\n"
        "problem, how = RUNS['full batch']\n"
        "a = lambda h: jnp.asarray(h.astype(np.float32))\n"
        "bsqh(problem, map_controls(a, U), a(X), jnp.asarray(Y.astype(np.int32)), **how)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "InputError" in done.stderr and "jax_enable_x64" in done.stderr
