"""Images as they are: bytes go in, Pixels standardises them chunk by chunk; all paths find what floats would give."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref.app.descent import recheck
from pmp_ref.bounds import ball_bound, certify_step, global_constant, radii_around
from pmp_ref.bounds.intervals import Point
from pmp_ref.bounds.segment import Jet, Rows, enclose_stage
from pmp_ref.certificate import certify
from pmp_ref.compact import compact, constant_output, constants, runner, unread_inputs
from pmp_ref.controls import arrays_of, map_controls, to_vector
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep, make_sweep
from pmp_ref.kernels.gpu import GpuSweep
from pmp_ref.kernels.sweep import applies
from pmp_ref.layers import Pixels
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network, headed
from pmp_ref.problem import Problem
from pmp_ref.second_order import hessian_vector
from pmp_ref.sweep import Sweep
from tests.backends import Backend

HEAD = Pixels((0.2, 0.6), (0.25, 0.125))
CONV = Network((pr.Convolution(3, (3, 2)), pr.Tanh(), pr.AveragePool(2), pr.Flatten(), pr.Dense(4)), (2, 7, 6))
SKIPS = Network((pr.residual(pr.Convolution(2, 3, padding=1), pr.Tanh()), pr.Flatten(), pr.Dense(4)), (2, 5, 4))
DENSE = Network((pr.Flatten(), pr.Dense(3), pr.Tanh(), pr.Dense(4)), (2, 2, 3))
NETWORKS = {"convolution": CONV, "skip from the images": SKIPS, "dense": DENSE}


def setting(network: Network, dtype: str = "float64", samples: int = 11, seed: int = 0) -> Any:
    """The network behind its head, bytes, the floats that they stand for, labels in bytes too, controls of both."""
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, (samples, *network.input_shape)).astype(np.uint8)
    mean, std = (np.reshape(a, (1, -1, 1, 1)) for a in (HEAD.mean, HEAD.std))
    x = ((raw / 255 - mean) / std).astype(dtype)
    u = map_controls(lambda a: a + generator.normal(0, 0.2, a.shape).astype(dtype), initial_controls(network, seed, x))
    return headed(HEAD, network), raw, x, generator.integers(0, 4, samples).astype(np.uint8), u


def close(a: Any, b: Any, dtype: str) -> None:
    scale = max(float(np.max(np.abs(y))) for y in arrays_of(b))
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        assert x.dtype == y.dtype == dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=2e3 * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [Sweep, FastSweep, GpuSweep])
@pytest.mark.parametrize("name", NETWORKS)
def test_sweeps_of_bytes_are_those_of_floats(name: str, kind: Any, dtype: str) -> None:
    network, raw, x, y, u = setting(NETWORKS[name], dtype)
    expected = Sweep(NETWORKS[name], CrossEntropy()).forward_backward(u, x, y)
    loss = CrossEntropy()
    for sweep in (kind(network, loss, chunk=4), kind(network, loss, chunk=4, memory=0)):
        v = ((), *u)
        for e in (sweep.forward_backward(v, raw, y), sweep.backward(v, sweep.forward(v, raw, y))):
            assert e.x is raw and e.switching[0] == ()
            close(((e.losses, e.largest),), ((expected.losses, expected.largest),), dtype)
            close(e.switching[1:], expected.switching, dtype)
        close(((sweep.trial(v, raw, y).losses,),), ((expected.losses,),), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_library_takes_bytes(backend: Backend, dtype: str) -> None:
    network, raw, x, y, u = setting(CONV, dtype)
    expected = Sweep(CONV, CrossEntropy()).forward_backward(u, x, y)
    v = ((), *map_controls(backend.asarray, u))
    bx, by = backend.asarray(raw), backend.asarray(y.astype(np.int64))
    for sweep in (Sweep(network, CrossEntropy()), make_sweep(network, CrossEntropy(), example=bx)):
        e = sweep.forward_backward(v, bx, by)
        assert e.switching is not None
        close(map_controls(backend.to_numpy, e.switching[1:]), expected.switching, dtype)
    problem = Problem(network, rho=0.0)
    assert problem.check(v, bx, by) == pytest.approx(float(np.max(np.abs(x))), rel=0.2)
    for batch_size in (None, 4):
        how: Any = {"method": pr.Method(), "steps": 3, "batch_size": batch_size}
        there = pr.solve(Problem(network, rho=1e-3), bx, by, controls=v, **how)
        here = pr.solve(Problem(CONV, rho=1e-3), x, y, controls=u, **how)
        pairs = [[r.J for r in solution.steps] for solution in (there, here)]
        np.testing.assert_allclose(*pairs, rtol=1e4 * np.finfo(dtype).eps)
    start = initial_controls(network, 3, bx)
    for a, b in zip(arrays_of(start), arrays_of(initial_controls(CONV, 3, np.zeros(1, np.float32))), strict=True):
        assert a.device == backend.device
        np.testing.assert_array_equal(backend.to_numpy(a), b, strict=True)


def test_the_first_state_has_the_dtype_of_the_controls_and_needs_no_costate() -> None:
    network, raw, x, _, u = setting(CONV, "float32")
    states = network.forward_sweep(((), *u), raw)
    assert [s.dtype for s in states] == [np.float32] * len(states) and network.takes_bytes
    np.testing.assert_allclose(states[1], x, rtol=1e-5, atol=1e-6)
    costates, _ = network.backward_sweep(((), *u), states, states[-1])
    assert costates[0] is costates[1] is None and network.controlled[:3] == (False, False, True)
    complex_ = network.forward_sweep(((), *map_controls(lambda a: a.astype(complex), u)), raw)
    assert all(s.dtype == complex for s in complex_)
    assert not CONV.takes_bytes and not SKIPS.takes_bytes


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("fast", [True, False])
def test_a_run_on_bytes_is_a_run_on_floats(fast: bool, batch_size: int | None) -> None:
    network, raw, x, y, u = setting(CONV)
    how: Any = {"batch_size": batch_size, "stop": pr.Stop(steps=6)}
    loss = CrossEntropy()
    floats = pr.solve(
        Problem(CONV, rho=1e-3, sweep=make_sweep(CONV, loss, fast, example=x)),
        x,
        y,
        controls=u,
        method=pr.Method(),
        **how,
    )
    problem = Problem(network, rho=1e-3, sweep=make_sweep(network, loss, fast, example=raw))
    bytes_ = pr.solve(problem, raw, y, controls=((), *u), method=pr.Method(), **how)
    assert [r.verdict for r in bytes_.records] == [r.verdict for r in floats.records]
    np.testing.assert_allclose(to_vector(bytes_.controls), to_vector(floats.controls), atol=1e-9)
    mine = certify(problem, bytes_.controls, raw, y, 1.0)
    theirs = certify(Problem(CONV, rho=1e-3), floats.controls, x, y, 1.0)
    assert mine.J == pytest.approx(theirs.J, rel=1e-9) and mine.residual_unpenalised == pytest.approx(
        theirs.residual_unpenalised, rel=1e-6
    )


def test_a_certificate_of_float32_controls_is_in_float64() -> None:
    network, raw, _, y, u = setting(CONV, "float32")
    mine = certify(Problem(network, rho=1e-3), ((), *u), raw, y, 1.0)
    wide = map_controls(lambda a: a.astype(float), u)
    mean, std = (np.reshape(a, (1, -1, 1, 1)) for a in (HEAD.mean, HEAD.std))
    theirs = certify(Problem(CONV, rho=1e-3), wide, (raw / 255 - mean) / std, y, 1.0)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-13)


@pytest.mark.parametrize("test", [pr.AbsoluteTest(), pr.RelativeTest(0.1)])
def test_the_second_opinion_takes_bytes(test: Any) -> None:
    network, raw, x, y, u = setting(CONV, "float32")
    w = map_controls(lambda a: a * np.float32(0.9), u)
    found = recheck(Problem(network, rho=0.0), test, ((), *u), ((), *w), None, raw, y, 1e-3)
    expected = recheck(Problem(CONV, rho=0.0), test, u, w, None, x, y, 1e-3)
    assert found.slack == pytest.approx(expected.slack, rel=1e-4) and found.slack > 1e-8  # of float32, as the run is
    assert found.delta_j == pytest.approx(expected.delta_j, rel=1e-4)
    assert found.bound == pytest.approx(expected.bound, rel=1e-4)


def test_the_largest_value_is_that_of_standardised_images() -> None:
    network, raw, _, y, u = setting(CONV)
    ends = np.broadcast_to(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), (2, *raw.shape[1:]))
    raw = np.concatenate([raw, ends])  # each channel has its least and its largest value
    largest = Problem(network, rho=0.0).check(((), *u), raw, np.concatenate([y, y[:2]]))
    assert largest == pytest.approx(max(0.2 / 0.25, 0.8 / 0.25, 0.6 / 0.125, 0.4 / 0.125))


def test_second_order_sweeps_take_bytes() -> None:
    network, raw, x, y, u = setting(SKIPS)
    v = map_controls(np.cos, u)
    found = hessian_vector(Problem(network, rho=0.0), ((), *u), raw, y, ((), *v))
    close(found[1:], hessian_vector(Problem(SKIPS, rho=0.0), u, x, y, v), "float64")


def test_bounds_begin_with_the_standardised_images() -> None:
    """The constants are those of floats; the proven intervals hold what the floats give, and are hardly wider."""
    network, raw, x, y, u = setting(DENSE, samples=3)
    y = y.astype(np.int64)
    bytes_, floats = Problem(network, rho=1e-3), Problem(DENSE, rho=1e-3)
    v = ((), *u)
    radii = radii_around(u, 0.5)
    mine = global_constant(bytes_, ((), *radii), raw, y)
    assert mine == pytest.approx(global_constant(floats, radii, x, y), rel=1e-12)
    around, there = ball_bound(bytes_, v, raw, y), ball_bound(floats, u, x, y)
    assert around(0.25) == pytest.approx(there(0.25), rel=1e-9)
    assert len(around.layers) == 3  # the head and flatten are data
    w = map_controls(lambda a: 0.9 * a, u)
    step, other = certify_step(bytes_, v, ((), *w), raw, y), certify_step(floats, u, w, x, y)
    for name in ("remainder", "slope", "direct"):
        one, two = getattr(step, name), getattr(other, name)
        assert one.lower <= two.upper and two.lower <= one.upper and one.width <= two.width + 1e-12


def test_the_enclosure_of_the_first_state_holds_the_exact_one() -> None:
    """In rational numbers; the error is of the size of the roundings, and some state needs it."""
    raw = np.arange(256, dtype=float).reshape(1, 1, 16, 16).repeat(2, axis=1)
    first = Jet((Point(raw, np.zeros(1)), None), None, moving=False)
    rows = Rows(np.zeros(1, int), np.full(1, 0.5), np.full(1, 0.5), 2)
    jet = enclose_stage(HEAD, first, (), (), rows)
    assert jet.top is None and jet.thin[1] is None and not jet.moving
    found, needed = jet.thin[0], Fraction(0)
    for place in np.ndindex(raw.shape):
        mean, std = (Fraction(values[place[1]]) for values in (HEAD.mean, HEAD.std))
        exact = (Fraction(raw[place]) / 255 - mean) / std
        needed = max(needed, abs(exact - Fraction(float(found.mid[place]))))
    assert 0 < needed <= Fraction(float(found.err[0])) <= 64 * needed


def test_compaction_knows_that_pixels_lie_between_0_and_255() -> None:
    network = headed(Pixels((0.5,), (0.25,)), Network((pr.Dense(3), pr.ReLU(), pr.Dense(2)), (1,)))
    kernel = np.array([[1.0], [-1.0], [1.0]])
    u: Any = ((), (kernel, np.array([-2.5, -3.0, 0.0])), (), (np.ones((2, 3)), np.zeros(2)))
    states = constants(network, u)
    assert states[1].low.item() == -2 and states[1].high.item() == 2 and not states[1].known.any()
    assert states[3].known[0].tolist() == [True, True, False]  # never positive for pixels from 0 to 255
    smaller, fewer = compact(network, u)
    assert fewer[1][0].shape == (1, 1) and smaller.stages[0] == network.stages[0]
    raw = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    before, after = (runner(n, c)(raw) for n, c in ((network, u), (smaller, fewer)))
    np.testing.assert_allclose(after, before, atol=1e-12)
    np.testing.assert_allclose(before, network.forward_sweep(u, raw)[-1], atol=1e-12)
    assert constant_output(network, u) is None and not unread_inputs(network, u).any()
    with pytest.raises(InputError, match="expected bytes"):
        runner(network, u)(raw / 255)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"x": s[2]}, ["images are float64", "expected bytes, uint8", "Pixels"]),
        (lambda s: {"x": s[1].astype(np.int64)}, ["images are int64", "expected bytes"]),
        (lambda s: {"x": s[1][:, :1]}, ["(11, 1, 7, 6)"]),
        (
            lambda s: {"u": ((), *map_controls(lambda a: a.astype(np.float32), s[4][:1]), *s[4][1:])},
            ["other controls are float32", "kernel of stage 5 is float64"],
        ),
        (lambda s: {"u": ((), *map_controls(lambda a: a.astype(int), s[4]))}, ["images are uint8", "is int64"]),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, words: list[str]) -> None:
    s = setting(CONV)
    given = {"u": ((), *s[4]), "x": s[1]} | change(s)
    with pytest.raises(InputError) as error:
        Problem(s[0], rho=0.0).check(given["u"], given["x"], s[3])
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_controls_of_two_dtypes_take_the_clear_path() -> None:
    network, raw, _, y, u = setting(CONV)
    mixed = ((), *map_controls(lambda a: a.astype(np.float32), u[:1]), *u[1:])
    assert applies(network, ((), *u), raw, y) and not applies(network, mixed, raw, y)
    assert not applies(CONV, u, raw, y) and not applies(network, ((), *u), raw.astype(np.int64), y)


def test_bytes_need_pixels_at_the_head() -> None:
    _, raw, _, y, u = setting(CONV)
    with pytest.raises(InputError, match=r"images are uint8.*or put Pixels at the head"):
        Problem(CONV, rho=0.0).check(u, raw, y)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pixels((), ()), ["for each channel"]),
        (lambda: Pixels((0.5,), (0.0,)), ["deviation > 0"]),
        (lambda: Pixels((0.5, 0.5), (0.1,)), ["for each channel"]),
        (lambda: Pixels((float("nan"),), (0.1,)), ["finite"]),
        (lambda: Pixels(("0.5",), (0.1,)), ["mean is '0.5'", "number"]),
        (lambda: headed(Pixels((0.5,), (0.1,)), CONV), ["1 channels", "(2, 7, 6)"]),
        (
            lambda: Network((HEAD, pr.Flatten(), pr.Flatten(), pr.WeightedSum()), (2, 3, 3), [[0], [1], [0], [2, 3]]),
            ["stage 2 (Flatten()) reads the states (0,)", "alone"],
        ),
        (lambda: headed(HEAD, headed(HEAD, CONV)), ["stage 1", "reads the states (1,)", "stage 0"]),
    ],
)
def test_bad_heads(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words)


def test_squared_loss_takes_targets_in_the_dtype_of_the_controls() -> None:
    network, raw, x, _, u = setting(CONV, "float32")
    y = np.ones((11, 4), np.float32)
    problem = Problem(network, SquaredLoss(), rho=0.0)
    problem.check(((), *u), raw, y)
    with pytest.raises(InputError, match="targets are float64"):
        problem.check(((), *u), raw, y.astype(float))
    assert certify(problem, ((), *u), raw, y, 1.0).loss == pytest.approx(
        certify(
            Problem(CONV, SquaredLoss(), rho=0.0),
            u,
            x,
            y,
            1.0,
        ).loss,
        rel=1e-5,
    )
