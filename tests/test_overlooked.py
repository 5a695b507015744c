"""Places that nothing looked at: the second use of a workspace, ties, scores far below zero, an older evaluation, an ε
beyond its cap, differences of losses in float32, the second opinion's own sweep and precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pmp_ref import layers as L
from pmp_ref.acceptance import AbsoluteTest, Acceptance, NoTest
from pmp_ref.app import descent
from pmp_ref.augmentation import ClassicRule, FixedRule
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import FastSweep
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep

NETS = {
    "dilated rows, strided": (L.Convolution(3, (3, 2), stride=(2, 1), dilation=(2, 1), padding=(2, 1)), L.Tanh()),
    "overlapping means": (L.Convolution(3, 3), L.Tanh(), L.AveragePool((3, 2), (2, 1))),
    "overlapping maxima": (L.Convolution(3, 3), L.Tanh(), L.MaxPool((3, 2), (2, 1))),
    "dilated columns": (L.Convolution(3, (1, 3), dilation=(1, 2), padding=(0, 2)), L.Tanh()),
    "strided, padded": (L.Convolution(4, (3, 3), stride=(3, 2), padding=(1, 2), groups=2), L.Tanh()),
    "rows between the windows": (L.Convolution(3, (1, 2), stride=(3, 1)), L.Tanh()),
    "stride remainder": (L.Convolution(3, (2, 3), stride=(2, 2), padding=(0, 1)), L.ReLU()),
    "residual": (L.residual(L.Convolution(2, 3, padding=1), L.Standardise(2), L.ScaleShift()), L.MaxPool(2)),
}


def network(name: str) -> Network:
    """The stages behind one with a control, so that their costates are asked for."""
    return Network((L.ScaleShift(), *NETS[name], L.Flatten(), L.Dense(3)), (2, 9, 8))


def data(seed: int, samples: int = 20, dtype: Any = np.float64) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((samples, 2, 9, 8)).astype(dtype), generator.integers(0, 3, samples)


def close(a: Any, b: Any) -> None:
    """Equal but for the order of sums: float64, a few hundred terms."""
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_a_workspace_is_used_again_after_other_data(name: str) -> None:
    """What another control and other images left behind shows nowhere; batches of other sizes come between."""
    net = network(name)
    fast = FastSweep(net, CrossEntropy(), threads=1, chunk=20)
    for seed, samples in ((0, 20), (1, 20), (2, 7), (3, 20)):
        x, y = data(seed, samples)
        u = initial_controls(net, seed, x)
        e, clear = fast.forward_backward(u, x, y), Sweep(net, CrossEntropy()).forward_backward(u, x, y)
        close(e.switching, clear.switching)
        np.testing.assert_allclose(e.losses, clear.losses, rtol=1e-10)
        fast.forward_backward(u, np.full_like(x, np.nan), y)  # as a trial may that is not finite


@pytest.mark.parametrize("name", NETS)
def test_an_older_evaluation_keeps_its_switching_functions(name: str) -> None:
    net = network(name)
    fast = FastSweep(net, CrossEntropy(), threads=1)
    x, y = data(0, 6)  # one chunk
    u = initial_controls(net, 0, x)
    e = fast.forward_backward(u, x, y)
    before = [a.copy() for a in arrays_of(e.switching)]
    other = data(1, 6)
    fast.forward_backward(map_controls(lambda a: 2 * a, u), *other)
    fast.backward(u, fast.forward(u, *other))
    for a, b in zip(arrays_of(e.switching), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NETS)
def test_constant_images_tie(name: str) -> None:
    """Before a maximum all entries of a window tie; the first of them carries the costate, on either path."""
    net = network(name)
    x, y = data(0, 8)
    x = np.broadcast_to(x[:, :1, :1, :1], x.shape).copy()
    u = initial_controls(net, 0, x)
    fast, clear = FastSweep(net, CrossEntropy(), threads=1), Sweep(net, CrossEntropy())
    close(fast.forward_backward(u, x, y).switching, clear.forward_backward(u, x, y).switching)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_scores_far_from_zero_have_finite_losses(dtype: Any, shift: float) -> None:
    """Cross-entropy does not see a shift of all scores, by a bias of the last stage."""
    net = network("overlapping means")
    x, y = data(0, 20, dtype)
    u = initial_controls(net, 0, x)
    moved = (*u[:-1], (u[-1][0], u[-1][1] + dtype(shift)))
    for sweep in (FastSweep(net, CrossEntropy(), threads=1), Sweep(net, CrossEntropy())):
        here, there = sweep.forward_backward(u, x, y), sweep.forward_backward(moved, x, y)
        rounding = 4 * abs(shift) * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(there.losses, here.losses, atol=rounding)
        assert all(np.isfinite(a).all() for a in arrays_of(there.switching))


def test_the_change_of_the_loss_is_the_mean_of_differences() -> None:
    """In float32 two means of 2,000 losses differ by their own rounding; differences sample by sample do not."""
    net = Network((L.Flatten(), L.Dense(3)), (2, 9, 8))
    x, y = data(0, 2000, np.float32)
    problem, method = Problem(net, rho=0.0), Method(FixedRule(1e3), acceptance=NoTest())
    it = prepare(problem, method, Iterate(initial_controls(net, 0, x), 1e3), x, y)
    after, record = step(problem, method, it, x, y)
    assert record.accepted and it.current.evaluation is not None and after.current.evaluation is not None
    later, now = (a.current.evaluation.losses.astype(np.float64) for a in (after, it))  # type: ignore[union-attr]
    exact = np.mean(later - now)
    assert record.delta_J == pytest.approx(float(exact), rel=1e-12)


class Never(Acceptance):
    """A test that nothing passes."""

    eta, share = 1e-6, 1.0

    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        return False


def test_a_skipped_batch_leaves_eps_at_its_cap() -> None:
    net = network("overlapping means")
    x, y = data(0)
    method = Method(ClassicRule(1.0, sigma=7.0), acceptance=Never(), eps_max=50.0)
    found: list[float] = []
    u = initial_controls(net, 0, x)
    s = bsqh(
        Problem(net, rho=1e-3),
        u,
        x,
        y,
        method=method,
        batch_size=5,
        stop=Stop(epochs=3),
        callback=lambda it, record: found.append(it.eps) if it.place.position else None,
    )
    assert s.iterate.counts.skipped > 0 and max(found) > 7.0
    after_skips = [it for it in found if it == 50.0]
    assert s.iterate.eps <= 50.0 and after_skips


def test_the_second_opinion_has_its_own_sweep_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faulty sweep of the solver's does not judge itself, and float32 does not judge float32."""
    net = network("overlapping means")
    x, y = data(0, 20, np.float32)
    u = initial_controls(net, 0, x)
    w = map_controls(lambda a: a * np.float32(0.9), u)
    problem = Problem(net, rho=1e-3, sweep=FastSweep(net, CrossEntropy(), threads=1))
    wide = [map_controls(lambda a: a.astype(np.float64), c) for c in (u, w)]
    x64 = x.astype(np.float64)
    clear = Sweep(net, CrossEntropy())
    before, after = (clear.forward(c, x64, y).losses for c in wide)
    change = float(np.mean(after - before)) + 1e-3 * float(problem.penalty(w) - problem.penalty(u))

    def lies(self: Any, *arguments: Any) -> Any:
        raise AssertionError("the solver's own sweep was asked")

    for name in ("forward", "trial", "forward_backward"):
        monkeypatch.setattr(FastSweep, name, lies)
    reading = descent.recheck(problem, AbsoluteTest(), u, w, None, x, y, 1e-3)
    assert reading.delta_j == pytest.approx(change, rel=1e-12)
