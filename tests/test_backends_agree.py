"""Whole runs on every backend: bit for bit where NumPy computes underneath, within rounding elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pmp_ref import layers as L
from pmp_ref.acceptance import RelativeTest
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.augmentation import ClassicRule, CurvatureRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L1, GroupL0, LHalf, LTwoThirds, Polynomial
from pmp_ref.result import Run
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from tests.backends import Backend, load

BLOCK = L.residual(L.Convolution(2, 3, padding=1), L.Standardise(2), L.ScaleShift(), L.ReLU(), step=0.5)
NET = Network(
    (L.Convolution(2, 3, padding=1), L.Tanh(), BLOCK, L.MaxPool(2), L.Flatten(), L.Dense(4), L.SiLU(), L.Dense(3)),
    (1, 5, 4),
)

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full batch": ({"rho": 1e-3}, {"method": Method(ClassicRule(0.1, sigma=2.0)), "stop": Stop(steps=4)}),
    "relative": (
        {"rho": 1e-3, "regulariser": Polynomial(1.0, 0.5, 0.1), "admissible": Box(-2.0, 2.0)},
        {"method": Method(CurvatureRule(0.1), RelativeTest()), "stop": Stop(steps=4)},
    ),
    "mini-batches": (
        {"rho": 0.01, "regulariser": LHalf()},
        {
            "method": Method(
                CurvatureRule(0.3), metric=GradientMetric(), averaging=Averaging(0.5), ramp=Ramp(0.0, 0.5)
            ),
            "stop": Stop(epochs=2, residual=1e-9),
            "batch_size": 3,
        },
    ),
    "groups": (
        {"rho": 0.01, "regulariser": GroupL0()},
        {"method": Method(metric=LayerMetric()), "stop": Stop(steps=4)},
    ),
    "finite set": (
        {"rho": 1e-3, "admissible": FiniteSet(tuple(k / 8 for k in range(-9, 10, 3))), "regulariser": L1()},
        {"method": Method(ClassicRule(0.03, sigma=2.0)), "stop": Stop(steps=2)},
    ),
    "recomputed": (
        {"rho": 1e-3, "regulariser": LTwoThirds(), "sweep": Sweep(NET, CrossEntropy(), chunk=3, memory=0)},
        {"stop": Stop(steps=3)},
    ),
    "squared": ({"rho": 0.0, "loss": SquaredLoss()}, {"stop": Stop(steps=3)}),
}


def run(name: str, backend: Backend, dtype: Any) -> Run:
    options, settings = RUNS[name]
    generator = np.random.default_rng(5)
    x = generator.standard_normal((7, 1, 5, 4)).astype(dtype)
    y = generator.integers(0, 3, 7) if name != "squared" else generator.standard_normal((7, 3)).astype(dtype)
    problem = Problem(NET, **options)
    u = problem.project(initial_controls(NET, 2, x))
    return bsqh(problem, map_controls(backend.asarray, u), backend.asarray(x), backend.asarray(y), **settings)


@pytest.mark.parametrize("name", RUNS)
def test_runs_agree(backend: Backend, name: str) -> None:
    for dtype in (np.float64, np.float32):
        here, there = run(name, load("numpy"), dtype), run(name, backend, dtype)
        exact = backend.name.startswith(("numpy", "array_api_strict"))
        assert here.steps
        for a, b in zip(arrays_of(here.controls), arrays_of(there.controls), strict=True):
            assert b.dtype == getattr(backend.xp, dtype.__name__) and b.device == backend.device
            if exact:
                np.testing.assert_array_equal(backend.to_numpy(b), a)
            else:  # other orders of summation; a few steps multiply them by the network's condition
                np.testing.assert_allclose(backend.to_numpy(b), a, rtol=0, atol=1e4 * np.finfo(dtype).eps)
        if exact:
            assert here.status is there.status and repr(here.records) == repr(there.records)
        held = there.iterate
        for nest in (held.current.metric, held.memory.metric, held.memory.average):
            for a in () if nest is None else arrays_of(nest):
                assert a.dtype == getattr(backend.xp, dtype.__name__) and a.device == backend.device


def test_the_runs_reject_average_skip_nothing_and_differ() -> None:
    """The comparison covers rejected trials and averages, and the runs are not all the same."""
    solutions = {name: run(name, load("numpy"), np.float64) for name in RUNS}
    verdicts = {r.verdict for s in solutions.values() for r in s.records}
    assert {"accepted", "rejected"} <= verdicts
    assert any(r.averaged for r in solutions["mini-batches"].records)
    assert len({s.records[-1].J for s in solutions.values()}) == len(RUNS)
