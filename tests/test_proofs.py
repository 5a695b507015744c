"""Proofs as a library: refusals, chunks and threads, dtypes; what the claims of T24 do not ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pmp_ref.admissible import Box
from pmp_ref.controls import arrays_of
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import Block, Dense, Tanh, WeightedSum, residual
from pmp_ref.loss import CrossEntropy
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.proofs import IntervalSweep, Verdict, prove_final
from pmp_ref.proofs.functions import exp, tanh
from pmp_ref.proofs.maximiser import examine_control
from pmp_ref.proofs.verdict import joint
from pmp_ref.regulariser import LHalf, Regulariser
from pmp_ref.sweep import Sweep

NET = Network((Dense(4), Tanh(), Dense(3)), (5,))


@dataclass(frozen=True)
class Own(Tanh):
    """A stage of the user's own."""


@dataclass(frozen=True)
class OwnLoss(CrossEntropy):
    """A loss of the user's own."""


def data(samples: int = 7, dtype: str = "float64") -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 5)).astype(dtype)
    return initial_controls(NET, 0, x), x, rng.integers(0, 3, samples)


@pytest.mark.parametrize("stages", [(Dense(4), Own(), Dense(3)), (Dense(5), residual(Own(), Dense(5)), Dense(3))])
def test_a_stage_of_ones_own_is_refused_by_name(stages: Any) -> None:
    with pytest.raises(InputError, match=r"stage [12], .*Own.*RULES\[Own\]"):
        IntervalSweep(Network(stages, (5,)), CrossEntropy())


def test_a_loss_of_ones_own_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="OwnLoss"):
        IntervalSweep(NET, OwnLoss()).losses(*data())


def test_a_regulariser_without_a_closed_form_is_refused_by_name() -> None:
    class Mine(Regulariser):
        """A regulariser of the user's own."""

        def value(self, w: Any) -> Any:
            return np.sum(self.pointwise(w))

        def pointwise(self, w: Any) -> Any:
            return np.abs(w)

        def on_line(self, u: Any, g: Any, eps: Any, rho: float, box: Box) -> Any:
            return u

    u = np.ones((2, 2))
    with pytest.raises(InputError, match="Mine"):
        examine_control(Mine(), 0.1, Box(), u, u, u, 1.0, 1.0)
    with pytest.raises(InputError, match=r"LHalf.*whole line"):
        examine_control(LHalf(), 0.1, Box(-1.0, 1.0), u, u, u, 1.0, 1.0)
    controls, x, y = data()
    problem = Problem(NET, rho=0.1, regulariser=LHalf())
    with pytest.raises(InputError, match=r"no interval of ε.*LHalf"):
        prove_final(problem, IntervalSweep(NET, CrossEntropy()), controls, x, y, 0.1)


def test_enclosures_do_not_depend_on_threads_and_hardly_on_chunks() -> None:
    u, x, y = data(21)
    first = IntervalSweep(NET, CrossEntropy(), threads=1, chunk=4).switching(u, x, y)
    again = IntervalSweep(NET, CrossEntropy(), threads=3, chunk=4).switching(u, x, y)
    other = IntervalSweep(NET, CrossEntropy(), threads=1, chunk=50).switching(u, x, y)
    for a, b, c in zip(*(arrays_of(e.switching) for e in (first, again, other)), strict=True):
        np.testing.assert_array_equal(a.mid, b.mid)
        np.testing.assert_array_equal(a.rad, b.rad)
        assert np.all(np.abs(a.mid - c.mid) <= a.rad + c.rad)
    assert first.loss == again.loss and first.loss.width < 1e-12


def test_float32_numbers_are_taken_as_they_are() -> None:
    u, x, y = data(5, "float32")
    wide = tuple(tuple(a.astype(np.float64) for a in stage) for stage in u)
    sweep = IntervalSweep(NET, CrossEntropy(), threads=1)
    assert sweep.losses(u, x, y).loss == sweep.losses(wide, x.astype(np.float64), y).loss


def test_what_overflows_proves_nothing() -> None:
    u, x, y = data()
    u = tuple(tuple(1e200 * a for a in stage) for stage in u)
    found = IntervalSweep(NET, CrossEntropy(), threads=1).switching(u, 1e200 * x, y)
    assert found.loss.lower == -np.inf and found.loss.upper == np.inf
    assert all(not np.isfinite(b.rad).all() for b in arrays_of(found.switching))


def test_functions_at_the_ends() -> None:
    np.testing.assert_array_equal(tanh(np.array([0.0, 30.0, -1e300])), [0.0, 1.0, -1.0])
    np.testing.assert_array_equal(exp(np.array([0.0])), [1.0])
    assert 0 < exp(np.array([-1e9]))[0] < 1e-300
    with np.errstate(invalid="ignore"):
        assert np.isnan(tanh(np.array([np.nan]))[0])


def test_joint_verdicts() -> None:
    p, o, r = Verdict.PROVEN, Verdict.UNDECIDED, Verdict.REFUTED
    assert (joint([p, p]), joint([p, o]), joint([o, r]), joint([])) == (p, o, r, p)


def test_a_state_that_several_stages_read() -> None:
    """A residual block inside a residual block, and a sum that reads one state twice, against the clear sweep."""
    twice = Block((Dense(5), WeightedSum((0.5, -1.0, 2.0))), ((0,), (1, 1, 0)))
    net = Network((residual(Dense(5), residual(Dense(5), Tanh()), step=0.25), twice, Dense(3)), (5,))
    x, y = np.random.default_rng(1).standard_normal((3, 5)), np.array([0, 1, 2])
    u = initial_controls(net, 0, x)
    found = IntervalSweep(net, CrossEntropy(), threads=1).switching(u, x, y)
    exact = Sweep(net, CrossEntropy()).forward_backward(u, x, y)
    assert exact.switching is not None
    np.testing.assert_allclose(found.losses.mid, exact.losses, rtol=1e-13)
    for ball, g in zip(arrays_of(found.switching), arrays_of(exact.switching), strict=True):
        np.testing.assert_allclose(ball.mid, g, rtol=1e-9, atol=1e-13)
        assert np.all(ball.rad < 1e-11)
    assert found.loss.width < 1e-12
