"""Bounds: ball arithmetic against exact rationals, enclosures against exact derivatives, the refusals of each bound."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.architectures import residual_net
from pmp_ref.bounds import ball_bound, certified_eps, certify_step, global_constant, radii_around, radii_of_box
from pmp_ref.bounds.constants import overlaps
from pmp_ref.bounds.intervals import Ball, Point, hull
from pmp_ref.bounds.jets import Jet, Rows
from pmp_ref.bounds.segment import affine
from pmp_ref.bounds.step import Interval, change, penalty_change, widest
from pmp_ref.bounds.taylor import coefficients, suprema
from pmp_ref.bounds.terminal import corner_softmax
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import Activation, Dense, Flatten, MaxPool, ReLU, Sigmoid, SiLU, Softplus, Standardise, Tanh
from pmp_ref.layers.windows import Windows
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, Polynomial
from tests.strategies import seeds

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
radius = st.floats(0.0, 10.0, allow_subnormal=False)


def ends(b: Ball) -> tuple[Fraction, Fraction]:
    """The exact ends of a ball of one entry."""
    mid, rad = Fraction(float(b.mid[0])), Fraction(float(b.rad[0]))
    return mid - rad, mid + rad


def ball(mid: float, rad: float) -> Ball:
    return Ball(np.array([mid]), np.array([rad]))


@given(a=finite, r=radius, b=finite, s=radius)
def test_sums_and_products_of_balls_hold_those_of_their_points(a: float, r: float, b: float, s: float) -> None:
    x, y = ball(a, r), ball(b, s)
    corners = [(p, q) for p in ends(x) for q in ends(y)]
    for result, f in ((x + y, lambda p, q: p + q), (x - y, lambda p, q: p - q), (x * y, lambda p, q: p * q)):
        low, high = ends(result)
        assert all(low <= f(p, q) <= high for p, q in corners)
        assert Fraction(float(result.lower[0])) <= low and high <= Fraction(float(result.upper[0]))
    low, high = ends(x.square())
    assert all(low <= p * p <= high for p in (*ends(x), Fraction(a)))
    third = Fraction(1, 3)  # a factor known up to its rounding only
    low, high = ends(x * (1 / 3))
    assert all(low <= p * third <= high for p in ends(x))


@given(low=finite, width=radius)
def test_a_hull_holds_its_ends(low: float, width: float) -> None:
    high = low + width
    a, b = ends(hull(np.array([low]), np.array([high])))
    assert a <= Fraction(low) and Fraction(high) <= b


@given(seed=seeds, n=st.integers(1, 300))
def test_totals_and_points_cover_their_rounding(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 1, n)) * 10.0 ** rng.integers(-8, 8, (2, 1, n))
    exact = sum((Fraction(float(v)) for v in a.ravel()), Fraction(0))
    total = Ball(a, np.zeros_like(a)).total(1)
    assert abs(Fraction(float(total.mid[0])) - exact) <= Fraction(float(total.rad[0]))
    product = Point(a, np.zeros(1)) * Point(b, np.zeros(1))
    worst = max(
        abs(Fraction(float(p)) * Fraction(float(q)) - Fraction(float(v)))
        for p, q, v in zip(a.ravel(), b.ravel(), product.mid.ravel(), strict=True)
    )
    assert worst <= Fraction(float(product.err[0]))
    square = sum((Fraction(float(v)) ** 2 for v in a.ravel()), Fraction(0))
    assert Fraction(float(Point(a, np.zeros(1)).length[0])) ** 2 >= square


def test_numpys_functions_err_less_than_assumed() -> None:
    """tanh and exp within 4 units in the last place, against 50 decimal digits."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.uniform(-20, 20, 200), rng.uniform(-1, 1, 200), 10.0 ** rng.uniform(-12, 0, 100)])
    with localcontext() as context:
        context.prec = 50
        for name, f in (("exp", np.exp(z)), ("tanh", np.tanh(z))):
            for x, value in zip(z.tolist(), f.tolist(), strict=True):
                e = (2 * Decimal(x)).exp() if name == "tanh" else Decimal(x).exp()
                exact = (e - 1) / (e + 1) if name == "tanh" else e
                assert abs(Decimal(value) - exact) <= 4 * Decimal(float(np.spacing(abs(value)))), (name, x)


@pytest.mark.parametrize("stage", [Tanh(), Sigmoid(), Softplus(), SiLU()])
def test_taylor_coefficients_are_derivatives(stage: Activation) -> None:
    z = np.linspace(-5, 5, 101)[:, None]
    f, errors = coefficients(stage, z, 6)
    step = 1e-30j
    np.testing.assert_allclose(f[0], stage.sigma(z), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(f[1], np.imag(stage.sigma(z + step)) / 1e-30, rtol=0, atol=1e-14)
    np.testing.assert_allclose(2 * f[2], np.imag(stage.slope(z + step)) / 1e-30, rtol=0, atol=1e-14)
    np.testing.assert_allclose(6 * f[3], np.imag(stage.curvature(z + step)) / 1e-30, rtol=0, atol=1e-13)
    for k in range(1, 7):
        assert np.max(np.abs(f[k])) <= suprema(stage)[k] and np.all(errors[k] < 1e-12)


@given(seed=seeds)
def test_corner_softmax_holds_the_softmax_of_the_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal(0, 3, (1, 4))
    high = low + rng.uniform(0, 1, (1, 4))
    p = corner_softmax(low, high)
    for _ in range(20):
        x = np.where(rng.random((1, 4)) < 0.5, low, high)
        e = np.exp(x - x.max())
        assert np.all(p.lower <= e / e.sum()) and np.all(e / e.sum() <= p.upper)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_change_over_a_part(order: int) -> None:
    h = 0.125
    f = np.polynomial.Polynomial([0.3, -1.1, 0.7, 2.0, -0.4][: order + 1])  # in s = t − c
    phi = [Ball(np.array([a]), np.zeros(1)) for a in f.coef]
    found = change(phi, np.array([h]), order)
    assert found.lower[0] <= f(h) - f(-h) <= found.upper[0] and found.rad[0] < 1e-14


def test_the_widest_samples_are_cut_first() -> None:
    width = np.array([1.0, 8.0, 0.1, 4.0])
    assert widest(width, 5.7, 4).tolist() == [1]  # 13.1 − 7.5 = 5.6
    assert sorted(widest(width, 2.0, 4).tolist()) == [1, 3]
    assert sorted(widest(width, 1e-9, 4).tolist()) == [0, 1, 3]  # all at once would not do: those that matter
    assert widest(np.array([1.0, 0.01]), 0.065, 4).tolist() == [0, 1]  # all of them, and that will do
    assert sorted(widest(np.array([1.0, np.inf, np.nan]), 1.0, 4).tolist()) == [1, 2]


def test_overlaps_of_windows() -> None:
    assert overlaps(Windows((3, 3)), 8, 8) == 9
    assert overlaps(Windows((3, 3), stride=(3, 3)), 9, 9) == 1
    assert overlaps(Windows((2, 2), stride=(2, 1)), 6, 6) == 2
    assert overlaps(Windows((5, 1), padding=(2, 0)), 1, 1) == 1


def small(loss: Any = None, regulariser: Any = None) -> tuple[Problem, Any, Any, Any]:
    network = Network((Dense(3), Tanh(), Dense(3)), (2,))
    problem = Problem(network, loss or CrossEntropy(), regulariser or L1(), rho=0.1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 2))
    y = np.array([0, 1, 2, 0]) if loss is None else rng.standard_normal((4, 3))
    return problem, initial_controls(network, 0, x), x, y


@pytest.mark.parametrize("regulariser", [L1(), L2(), LHalf(), Polynomial(1.0, 0.5, 0.25)])
@pytest.mark.parametrize("loss", [None, SquaredLoss()])
def test_a_certificate_holds_the_change_of_the_objective(regulariser: Any, loss: Any) -> None:
    problem, u, x, y = small(loss, regulariser)
    w = map_controls(lambda a: np.where(a > 0.3, 0.0, a + 0.1), u)
    c = certify_step(problem, u, w, x, y)
    value = lambda v: float(np.mean(problem.sweeper.forward(v, x, y).losses)) + 0.1 * float(problem.penalty(v))  # noqa: E731
    change = value(w) - value(u)
    assert c.delta_J.lower - 1e-14 <= change <= c.delta_J.upper + 1e-14
    assert c.proves_descent(-change / c.tau.upper - 1) == (c.delta_J.upper <= change + c.tau.upper)
    assert c.refutes_descent(1e6) and not c.proves_descent(1e6)
    assert 1.0 <= c.looseness <= 1.1


@given(seed=seeds)
def test_a_stage_that_moves_far_encloses_the_rounding_of_its_step(seed: int) -> None:
    """Sums of the step that nearly cancel, controls that are nothing beside it, a state known up to an error."""
    rng, n, c = np.random.default_rng(seed), 30, 0.375
    u, delta = 1e-9 * rng.standard_normal((2, n)), rng.standard_normal((2, n))
    half = 1e3 * rng.standard_normal(n // 2)
    delta[:, n // 2 :] = delta[:, : n // 2] * (1 + 1e-9)
    x = np.concatenate([half, -half])
    for err in (0.0, 0.5):
        state = Jet((Point(x[None], np.array([err])), None), None, moving=False)
        rows = Rows(np.array([0]), np.array([c]), np.array([0.125]), 2)
        z = affine(Dense(2, bias=False), state, (u,), (delta,), rows).thin[0]
        assert z is not None
        for o in range(2):
            true = [Fraction(v) + Fraction(err) * int(np.sign(d)) for v, d in zip(x, delta[o], strict=True)]
            kernel = [Fraction(a) + Fraction(c) * Fraction(d) for a, d in zip(u[o], delta[o], strict=True)]
            exact = sum((a * b for a, b in zip(kernel, true, strict=True)), Fraction(0))
            assert abs(exact - Fraction(float(z.mid[0, o]))) <= Fraction(float(z.err[0]))


@pytest.mark.parametrize("stage", [Tanh(), Sigmoid(), Softplus(), SiLU()], ids=str)
@pytest.mark.parametrize("loss", [None, SquaredLoss()])
def test_the_width_of_a_remainder_falls_with_the_order_of_the_jets(stage: Activation, loss: Any) -> None:
    """A step of length 1: the remainder from values of the loss in every interval; widths like 1/Mⁿ."""
    network = Network((Dense(20), stage, Dense(10)), (10,))
    rng = np.random.default_rng(3)
    x = rng.standard_normal((16, 10))
    y = rng.integers(0, 10, 16) if loss is None else rng.standard_normal((16, 10))
    problem = Problem(network, loss or CrossEntropy(), rho=0.0)
    u = initial_controls(network, 0, x)
    v = map_controls(lambda a: rng.standard_normal(a.shape), u)
    length = np.sqrt(sum(float(np.sum(a * a)) for a in arrays_of(v)))
    w = map_controls(lambda a, b: a + b / length, u, v)
    widths = {}
    for order in (2, 3, 4):
        for parts in (1, 2, 4):
            c = certify_step(problem, u, w, x, y, order=order, parts=parts, max_parts=parts)
            low, high = c.direct.lower - c.slope.upper, c.direct.upper - c.slope.lower
            assert c.remainder.lower <= high and low <= c.remainder.upper
            widths[order, parts] = c.remainder.width
        assert widths[order, 4] < 0.3**order * widths[order, 1]
    assert widths[2, 1] > 4 * widths[3, 1] and widths[3, 1] > 4 * widths[4, 1]


def test_an_enclosure_of_a_step_that_overflows_proves_nothing() -> None:
    problem, u, x, y = small()
    w = map_controls(lambda a: a + 1e6, u)
    c = certify_step(problem, u, w, x, y, max_parts=2)
    assert not c.proves_descent(1e-6) and c.looseness == np.inf


def test_the_same_control_is_certified_as_no_change() -> None:
    problem, u, x, y = small()
    c = certify_step(problem, u, u, x, y, max_parts=2)
    assert 0.0 in c.remainder and c.remainder.width < 1e-12 and c.penalty.width < 1e-12


def test_intervals() -> None:
    total = Interval(0.0, 1.0) + Interval(-1.0, 2.0)
    assert -1.0 in total and 3.0 in total and 3.1 not in total


def test_single_and_double_precision_controls_are_taken_exactly() -> None:
    problem, u, x, y = small()
    u32 = map_controls(lambda a: a.astype(np.float32), u)
    w32 = map_controls(lambda a: (a + np.float32(0.125)).astype(np.float32), u32)
    wide = [map_controls(lambda a: a.astype(np.float64), v) for v in (u32, w32)]
    assert certify_step(problem, u32, w32, x, y) == certify_step(problem, *wide, x, y)


@pytest.mark.parametrize("stage", [ReLU(), Standardise()])
def test_stages_without_bounds_are_refused(stage: Any) -> None:
    network = Network((Dense(4), stage, Dense(2)), (3,))
    x, y = np.ones((2, 3)), np.array([0, 1])
    u = initial_controls(network, 0, x)
    problem = Problem(network, admissible=Box(-9.0, 9.0), rho=0.0)
    for attempt in (
        lambda: global_constant(problem, radii_around(u, 1.0), x, y),
        lambda: ball_bound(problem, u, x, y),
        lambda: certify_step(problem, u, u, x, y),
    ):
        with pytest.raises(InputError):
            attempt()


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.7])
def test_float32_controls_at_the_bounds_lie_within_the_radii_of_the_box(bound: float) -> None:
    problem, u, _, _ = small()
    boxed = Problem(problem.network, admissible=Box(-bound, bound), rho=0.0)
    corner = map_controls(lambda a: np.full(a.shape, np.float32(bound)), u)
    for a, radius in zip(arrays_of(boxed.project(corner)), arrays_of(radii_of_box(boxed)), strict=True):
        assert np.linalg.norm(a.astype(np.float64)) <= radius <= (1 + 1e-7) * bound * a.size**0.5 + 1e-15


@pytest.mark.parametrize("r", [L0(), L1(), LTwoThirds(), GroupL0()], ids=str)
def test_the_penalty_of_a_tiny_step_is_enclosed_to_its_own_size(r: Any) -> None:
    """R(w) and R(u) agree in 12 digits; their difference has to be proven to better than what they lose."""
    problem, u, _, _ = small()
    problem = Problem(problem.network, regulariser=r, rho=1.0)
    w = map_controls(lambda a: a + 1e-12 * np.sign(a), u)
    found = penalty_change(problem, u, w, 1.0)
    kernels = [(a, b) for (a, b) in zip(arrays_of(u), arrays_of(w), strict=True) if a.ndim > 1]
    exact = sum((slope_of(r, a) * (b - a)).sum() for a, b in kernels)
    assert found.lower <= exact + 1e-20 and exact - 1e-20 <= found.upper
    assert found.width <= {L0(): 1e-298, L1(): 1e-24}.get(r, 2e-13)


def slope_of(r: Any, a: np.ndarray) -> np.ndarray:
    """r′ off 0."""
    if r == L1():
        return np.sign(a)
    return 2 / 3 * np.sign(a) * np.abs(a) ** (-1 / 3) if r == LTwoThirds() else 0 * a


def test_other_refusals() -> None:
    problem, u, x, y = small()
    g = problem.sweeper.forward_backward(u, x, y).switching
    with pytest.raises(InputError, match=r"eta is 0\.0"):
        certified_eps(problem, ball_bound(problem, u, x, y), u, g, 0.0)
    with pytest.raises(InputError, match="order"):
        certify_step(problem, u, u, x, y, order=5)
    with pytest.raises(InputError, match="powers of two"):
        certify_step(problem, u, u, x, y, parts=3)
    for unbounded in (Box(), FiniteSet((0.0, 1.0))):
        with pytest.raises(InputError, match="bounded box"):
            radii_of_box(Problem(problem.network, admissible=unbounded, rho=0.0))
    with pytest.raises(InputError):
        ball_bound(Problem(problem.network, SquaredLoss(), rho=0.0), u, x, np.zeros((4, 3)))
    net = residual_net((1, 4, 4), classes=2, width=4, blocks=(1,), groups=2)
    image = np.ones((1, 1, 4, 4))
    with pytest.raises(InputError):
        ball_bound(Problem(net, rho=0.0), initial_controls(net, 0, image), image, np.array([0]))
    pooled = Network((MaxPool(2), Flatten(), Dense(2)), (1, 4, 4))
    with pytest.raises(InputError):
        certify_step(Problem(pooled, rho=0.0), *2 * (initial_controls(pooled, 0, image),), image, np.array([0]))
