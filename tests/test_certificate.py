"""Certificates (T10, T11): closed forms against bisection, brute force and the maximiser; gaps, residuals, tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pmp_ref import layers as L
from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.bsqh import bsqh
from pmp_ref.certificate import (
    augmented_gaps,
    by_bisection,
    certify,
    eps_star,
    plain_gap,
    settled,
    stationarity_residual,
)
from pmp_ref.controls import cast, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from pmp_ref.result import Status
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from tests.backends import Backend
from tests.strategies import seeds

POLYNOMIALS = (
    L0(),
    L1(),
    L2(),
    NoPenalty(),
    Polynomial(1.0, 0.5),
    Polynomial(1.0, 0.0, 0.7),
    Polynomial(0.4, 0.3, 1.5),
    Polynomial(0.0, 0.5, 0.7),
)
POWERS = (LHalf(), LTwoThirds())
BOXES = (WHOLE_LINE, Box(-1.5, 2.0), Box(-0.25, 0.5), Box(lo=-1.0), Box(hi=0.75), Box(0.0, 1.0), Box(-2.0, 0.0))
OFF_ZERO = (Box(0.5, 3.0), Box(-2.5, -0.125), Box(lo=0.25))


def slope(r: Regulariser, u: float) -> float:
    """r′(u), u ≠ 0."""
    if isinstance(r, Polynomial):
        return r.a1 * math.copysign(1, u) + r.a2 * u
    q = r.q  # type: ignore[attr-defined]
    return q * math.copysign(1, u) * abs(u) ** (q - 1)


@st.composite
def entries(draw: st.DrawFn, regularisers: Any, boxes: Any) -> tuple[float, float, Regulariser, float, Box]:
    """(u, g, r, ρ, box): u zero, inside, at a bound or a few roundings inside it; g stationary where T11 asks for it,
    anything elsewhere. Within rounding of a bound that is what it is at the bound."""
    r, box, rho = draw(st.sampled_from(regularisers)), draw(st.sampled_from(boxes)), draw(st.floats(0.01, 2.0))
    places = [draw(st.floats(max(box.lo, -3), min(box.hi, 3)))]
    places += [0.0] if box.lo <= 0 <= box.hi else []
    places += [b for b in (box.lo, box.hi) if math.isfinite(b)]
    places += [inwards(b, box, draw(st.integers(1, 4))) for b in (box.lo, box.hi) if math.isfinite(b) and b != 0]
    u = draw(st.sampled_from(places))
    u = 0.0 if abs(u) < 1e-3 and box.lo <= 0 <= box.hi else u
    off = draw(st.integers(-32, 32)) / 8  # never almost, but not quite, stationary
    g = rho * (off if u == 0 else slope(r, u) + (off or 0.125))
    smooth = isinstance(r, Polynomial) and r.a0 == r.a1 == 0
    near = any(b != 0 and abs(u - b) <= 4 * abs(np.spacing(b)) for b in (box.lo, box.hi) if math.isfinite(b))
    if box.lo < u < box.hi and (u != 0 or smooth) and not (near and off):
        g = rho * slope(r, u) if u != 0 else 0.0
    return u, g, r, rho, box


def inwards(bound: float, box: Box, steps: int) -> float:
    """The floating point number ``steps`` places inside the bound."""
    side = math.inf if bound == box.lo else -math.inf
    for _ in range(steps):
        bound = math.nextafter(bound, side)
    return bound


def at(case: Any) -> tuple[np.ndarray, np.ndarray, Regulariser, float, Box]:
    u, g, r, rho, box = case
    return np.array([u]), np.array([g]), r, rho, box


def quotients(case: Any) -> np.ndarray:
    """ΔH(w)/(w − u)² over a grid of the box, dense and refined towards u, 0 and the bounds."""
    u, g, r, rho, box = case
    ends = [b for b in (box.lo, box.hi) if math.isfinite(b)]
    steps = np.concatenate([np.linspace(0, 1, 2001)[1:], np.logspace(-5, 3, 2001)])
    w = np.concatenate([[0.0], ends, *(c + s * steps for c in (u, 0.0, *ends) for s in (1, -1))])
    w = w[(w >= box.lo) & (w <= box.hi) & (np.abs(w - u) >= 1e-5)]
    return (g * (w - u) - rho * (r.pointwise(w) - r.pointwise(np.array([u])))) / (w - u) ** 2


@given(st.one_of(entries(POLYNOMIALS, BOXES + OFF_ZERO), entries(POWERS, BOXES)))
def test_eps_star_is_the_supremum_by_brute_force(case: Any) -> None:
    """Never below a grid's maximum, and reached by it; infinite exactly where the quotient grows without bound at u."""
    star, best = eps_star(*at(case)), max(0.0, float(np.max(quotients(case))))
    # Roundings of ΔH, a few 1e-16, are divided by (w − u)² ≥ 1e-10 next to u; the grid is fine to 1e-3.
    if math.isinf(star):  # at least 0.01/8/|w − u|
        assert best > 100
    else:
        assert best <= star * (1 + 1e-8) + 1e-4
        assert best >= star * (1 - 2e-2) - 1e-4


@given(st.one_of(entries(POLYNOMIALS, BOXES + OFF_ZERO), entries(POWERS, BOXES)))
def test_the_control_is_a_maximiser_exactly_from_eps_star_on(case: Any) -> None:
    u, g, r, rho, box = at(case)
    star = eps_star(u, g, r, rho, box)
    if math.isinf(star):
        assert augmented_gaps(u, g, r, rho, box, 1e6)[0] > 0
        return
    above = r.argmax(u, g, max(star * (1 + 1e-6), 1e-6), rho, box)
    np.testing.assert_allclose(above, u, rtol=1e-9, atol=1e-12)
    if star > 0:
        assert abs(r.argmax(u, g, star * (1 - 1e-6), rho, box) - u)[0] > 1e-9


@example((0.7499999999999999, 0.5, Polynomial(1.0, 0.5), 1.0, Box(hi=0.75)))  # ΔH at 0.75 is rounding, over 1e-32
@example((0.7499999999999999, 0.75, Polynomial(1.0, 0.0, 1.0), 1.0, Box(hi=0.75)))
@example((0.75 - 1e-9, 0.5 * (1 - 1e-16), Polynomial(1.0, 0.5), 1.0, Box(hi=0.75)))
@given(entries(POLYNOMIALS, BOXES + OFF_ZERO))
def test_closed_forms_and_bisection_agree(case: Any) -> None:
    closed, bisected = eps_star(*at(case)), by_bisection(*at(case))
    assert closed == bisected or abs(closed - bisected) <= 1e-8 * closed


@given(st.one_of(entries(POLYNOMIALS, BOXES + OFF_ZERO), entries(POWERS, BOXES)))
def test_within_rounding_of_a_bound_the_certificate_is_that_of_the_bound(case: Any) -> None:
    _, g, r, rho, box = case
    for bound in (b for b in (box.lo, box.hi) if math.isfinite(b) and b != 0):
        expected = [f(*at((bound, g, r, rho, box))) for f in (eps_star, by_bisection, stationarity_residual)]
        for steps in range(1, 4):
            near = at((inwards(bound, box, steps), g, r, rho, box))
            assert [f(*near) for f in (eps_star, by_bisection, stationarity_residual)] == expected
    for bound, u in ((0.75, np.nextafter(np.float32(0.75), np.float32(0))), (0.0, np.float32(1e-30))):
        assert (settled(np.array([u]), Box(-1.0, bound))[0] == bound) == (bound != 0)  # float32 rounds sooner
    assert settled(np.array([0.75 - 1e-14]), Box(hi=0.75))[0] != 0.75


@pytest.mark.parametrize("r", [Polynomial(1.0, 0.5, 1.0), LHalf()], ids=str)
def test_a_slope_that_vanishes_at_an_entry_next_to_a_bound_is_no_fall_towards_it(r: Regulariser) -> None:
    """g = ρr′(u) one place inside the bound is not quite ρr′ of the bound: rounding, not a rise of H into the box."""
    u, box, rho = inwards(0.75, Box(hi=0.75), 1), Box(hi=0.75), 0.3
    near, bound = (np.array([rho * slope(r, v)]) for v in (u, 0.75))
    for g in (near, np.nextafter(bound, -9), np.nextafter(bound, 9)):
        star = eps_star(np.array([u]), g, r, rho, box)
        np.testing.assert_allclose(star, eps_star(np.array([0.75]), bound, r, rho, box), rtol=1e-8)
        assert 0 < star < 10 and by_bisection(np.array([u]), g, r, rho, box) == pytest.approx(star, rel=1e-8)
    assert eps_star(np.array([u]), bound * (1 - 1e-9), r, rho, box) == math.inf


def test_pure_l0_on_the_line_is_the_formula_of_t11() -> None:
    u, g, rho = np.array([0.5, -2.0, 0.0, 0.0]), np.array([1e-3, 0.0, 0.1, -0.3]), 0.01
    expected = max(rho / 0.25, 0.3**2 / (4 * rho))
    np.testing.assert_allclose(eps_star(u, g, L0(), rho, WHOLE_LINE), expected, rtol=1e-15)
    np.testing.assert_allclose(eps_star(u[:2], g[:2], L0(), rho, WHOLE_LINE), rho / 0.25, rtol=1e-15)
    np.testing.assert_array_equal(stationarity_residual(u, g, L0(), rho, WHOLE_LINE), [1e-3, 0, 0, 0])


@pytest.mark.parametrize(
    ("u", "g", "expected"),
    [
        (1.0, -0.5, math.inf),  # at a bound, pulled inside
        (1.0, 0.05, 0.05),  # (ρ − g u)/u²
        (1.0, 0.5, 0.0),
        (-0.5, -0.1, 0.2),  # (0.1 − 0.05)/0.25
        (0.0, 0.3, 0.225),  # |g||b| = 0.3 ≥ 2ρ: g²/(4ρ)
        (0.0, 0.15, 0.05),  # |g||b| = 0.15 < 2ρ: (|g||b| − ρ)/b²
        (0.0, -0.3, 0.2),  # b = −0.5: (0.15 − 0.1)/0.25
        (0.0, 0.05, 0.0),
    ],
)
def test_pure_l0_on_a_box_is_the_formula_of_t11(u: float, g: float, expected: float) -> None:
    np.testing.assert_allclose(eps_star(np.array([u]), np.array([g]), L0(), 0.1, Box(-0.5, 1.0)), expected, rtol=1e-12)


@pytest.mark.parametrize("r", [L1(), L2(), NoPenalty(), Polynomial(0, 0.5, 1.0)], ids=str)
@given(seed=seeds)
def test_convex_problems_have_0_or_infinity(r: Polynomial, seed: int) -> None:
    generator = np.random.default_rng(seed)
    u = np.where(generator.random(6) < 0.5, 0.0, generator.uniform(-1, 1, 6))
    u = np.where(generator.random(6) < 0.2, 1.0, u)
    g = 0.2 * generator.standard_normal(6)
    star = eps_star(u, g, r, 0.1, Box(-1, 1))
    assert star in (0.0, math.inf)
    violated = (u == 0) & (np.abs(g) > 0.1 * r.a1) if r.a1 > 0 else np.zeros(6, bool)
    violated |= (u == 1) & (g < 0.1 * (r.a1 + r.a2))
    assert (star == math.inf) == bool(violated.any())


@given(seeds, st.lists(st.integers(-16, 16), min_size=2, max_size=5, unique=True))
def test_finite_sets_are_maxima_over_the_other_values(seed: int, eighths: list[int]) -> None:
    generator, values = np.random.default_rng(seed), [k / 8 for k in eighths]
    for r, rho in ((L0(), 0.3), (LHalf(), 0.3), (L2(), 0.0)):
        u, g = generator.choice(values, 4), generator.standard_normal(4)
        rs = lambda v: rho * float(r.pointwise(np.array([v]))[0])  # noqa: B023, E731
        ratios = [(g[i] * (v - a) - rs(v) + rs(a)) / (v - a) ** 2 for i, a in enumerate(u) for v in values if v != a]
        star = eps_star(u, g, r, rho, FiniteSet(tuple(values)))
        np.testing.assert_allclose(star, max(0.0, max(ratios)), rtol=1e-12)
        moved = r.argmax(u, g, star * (1 + 1e-9) + 1e-12, rho, FiniteSet(tuple(values)))
        np.testing.assert_array_equal(moved, u)
    assert not stationarity_residual(u, g, r, rho, FiniteSet(tuple(values))).any()


@given(seeds, st.integers(0, 1))
def test_groups_have_their_own_formula(seed: int, axis: int) -> None:
    """ρω/‖u_g‖² for kept groups, ‖g_g‖²/(4ρω) for dropped ones; zeros inside a kept group are no groups."""
    generator, rho, omega = np.random.default_rng(seed), 0.1, 0.5
    u, g = generator.standard_normal((2, 3, 4))
    alive = generator.random(3 if axis == 0 else 4) < 0.6
    mask = alive[:, None] if axis == 0 else alive[None, :]
    u = np.where(mask, u, 0.0)
    u[0, 0] = 0.0
    norm = lambda a: np.sum(a * a, axis=1 - axis)  # noqa: E731
    kept = norm(u) > 0
    expected = max(0.0, *(rho * omega / norm(u)[kept]), *(norm(g)[~kept] / (4 * rho * omega)))
    np.testing.assert_allclose(eps_star(u, g, GroupL0(axis, omega), rho, WHOLE_LINE), expected, rtol=1e-8)
    residual = stationarity_residual(u, g, GroupL0(axis, omega), rho, WHOLE_LINE)
    np.testing.assert_array_equal(residual, np.where(np.expand_dims(kept, 1 - axis), g, 0.0))
    gaps = augmented_gaps(u, g, GroupL0(axis, omega), rho, WHOLE_LINE, 2.0)
    c = u + g / 4
    best = np.maximum(2 * norm(c) - rho * omega, 0) - 2 * norm(u) - np.sum(g * u, axis=1 - axis) + rho * omega * kept
    np.testing.assert_allclose(gaps, best, atol=1e-13)


@given(seeds)
def test_groups_in_a_metric_have_the_formula_of_t17(seed: int) -> None:
    """A zero group stays 0 from Σ g_i²/d_i/(4ρω) on, a kept one with g = 0 stays as it is from ρω/Σ d_i u_i² on."""
    generator, rho, r = np.random.default_rng(seed), 0.1, GroupL0(0, 0.5)
    d, zero = generator.uniform(0.2, 5, (1, 4)), np.zeros((1, 4))
    u, g = generator.standard_normal((2, 1, 4))
    for start, slope, star in (
        (zero, g, np.sum(g * g / d) / (4 * rho * 0.5)),
        (u, zero, rho * 0.5 / np.sum(d * u * u)),
    ):
        above, below = (r.argmax(start, slope, star * f * d, rho, WHOLE_LINE) for f in (1 + 1e-9, 1 - 1e-9))
        np.testing.assert_array_equal(above, start)
        assert np.abs(below - start).max() > 1e-6


def test_unpenalised_controls_count_with_the_residual_only() -> None:
    u, g = np.array([0.0, 1.0, -1.0, 0.5]), np.array([0.3, 0.4, 0.5, 0.6])
    assert eps_star(u, g, L0(), 0.0, WHOLE_LINE) == 0.0
    np.testing.assert_array_equal(stationarity_residual(u, g, L0(), 0.0, WHOLE_LINE), g)
    # at a bound only the part that points inwards
    np.testing.assert_array_equal(stationarity_residual(u, g, L0(), 0.0, Box(-1, 1)), [0.3, 0.0, 0.5, 0.6])


@given(entries(POLYNOMIALS + POWERS, [b for b in BOXES if b.bounded]))
def test_gaps_are_those_of_a_grid(case: Any) -> None:
    """Augmented gap at ε and plain gap (ε = 0) against the best of a grid; both are never negative."""
    u, g, r, rho, box = case
    w = np.concatenate([np.linspace(box.lo, box.hi, 4001), [0.0, u]])
    rise = g * (w - u) - rho * (r.pointwise(w) - r.pointwise(np.array([u])))
    for eps, gap in ((0.5, augmented_gaps(*at(case), 0.5)[0]), (0.0, plain_gap(*at(case)))):
        best = float(np.max(rise - eps * (w - u) ** 2))
        assert best - 1e-12 <= gap <= best + 1e-2 * rho  # the grid's step is 1e-3, slopes are up to 4ρ and more at 0


@pytest.mark.parametrize(
    ("u", "g", "r", "box", "expected"),
    [
        ([0.0, 0.3], [1e-9, 0.0], L0(), WHOLE_LINE, math.inf),  # off the support g ≠ 0
        ([0.0, 0.3, -2.0], [0.0, 0.0, 0.0], L0(), WHOLE_LINE, 0.2),  # T10b: ρ for each nonzero
        ([0.0], [0.05], L1(), WHOLE_LINE, 0.0),
        ([0.0], [0.15], L1(), WHOLE_LINE, math.inf),
        ([0.0], [0.15], LHalf(), WHOLE_LINE, math.inf),
        ([0.0], [0.2], L2(), WHOLE_LINE, 0.2),  # g²/(2ρ)
        ([0.0], [-0.2], L0(), Box(lo=-1.0), 0.1),  # bounded on the side of g
        ([0.0], [0.2], L0(), Box(lo=-1.0), math.inf),
        ([0.0], [0.2], L0(), FiniteSet((-1.0, 0.0, 1.0)), 0.1),
    ],
)
def test_plain_gaps(u: Any, g: Any, r: Regulariser, box: Admissible, expected: float) -> None:
    np.testing.assert_allclose(plain_gap(np.array(u), np.array(g), r, 0.1, box), expected, rtol=1e-12, atol=1e-15)


# --- regularisers of one's own


@dataclass(frozen=True)
class Own(Regulariser):
    """r(w) = ½w², written anew: what a class outside the package states. No closed form of ε*."""

    def value(self, w: Any) -> Any:
        return np.sum(self.pointwise(w))

    def pointwise(self, w: Any) -> Any:
        return w * w / 2

    def on_line(self, u: Any, g: Any, eps: Any, rho: float, box: Box) -> Any:
        return box.project((2 * eps * u + g) / (2 * eps + rho))

    def derivative(self, w: Any) -> Any:
        return w

    def asymptotic_slope(self) -> float:
        return math.inf


class OwnL0(Regulariser):
    """r(w) = |w|₀, and nothing that a certificate needs."""

    def value(self, w: Any) -> Any:
        return np.sum(self.pointwise(w))

    def pointwise(self, w: Any) -> Any:
        return (w != 0) * 1.0

    def on_line(self, u: Any, g: Any, eps: Any, rho: float, box: Box) -> Any:
        return L0().on_line(u, g, eps, rho, box)


class OwnGroups(OwnL0):
    """Taken together, without saying what is summed."""

    separable = False

    def derivative(self, w: Any) -> Any:
        return 0 * w


@pytest.mark.parametrize("admissible", [WHOLE_LINE, Box(-0.3, 0.25), Box(lo=-0.2)], ids=str)
def test_a_class_of_ones_own_that_equals_l2_gets_the_certificate_of_l2(admissible: Admissible) -> None:
    """Trained to a small residual: ε* of L2 is 0 there. A slope taken for 0 gave ε* = 1.8e12 and a residual of 0.1."""
    generator, found = np.random.default_rng(0), []
    network = Network((L.Dense(4), L.Tanh(), L.Dense(3)), (5,))
    x, y = generator.standard_normal((30, 5)), generator.integers(0, 3, 30)
    for r in (L2(), Own()):
        problem = Problem(network, regulariser=r, rho=0.05, admissible=admissible)
        u = problem.project(initial_controls(network, 0, x))
        solution = bsqh(problem, u, x, y, stop=Stop(steps=3000, residual=1e-6))
        assert solution.status is Status.CONVERGED_RESIDUAL
        found.append(certify(problem, solution.controls, x, y, 0.5))
    ours, theirs = found
    assert ours.eps_star == theirs.eps_star == 0.0 and ours.residual_support < 1e-5
    for name in ("J", "loss", "residual_support", "residual_unpenalised", "augmented_gap", "plain_gap"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-9, atol=1e-14)


@given(entries([L2()], BOXES + OFF_ZERO))
def test_it_gets_that_certificate_entry_by_entry_too(case: Any) -> None:
    u, g, r, rho, box = at(case)
    expected = [f(u, g, r, rho, box) for f in (eps_star, by_bisection, plain_gap)]
    np.testing.assert_allclose([f(u, g, Own(), rho, box) for f in (eps_star, by_bisection, plain_gap)], expected)
    np.testing.assert_array_equal(
        stationarity_residual(u, g, Own(), rho, box), stationarity_residual(u, g, r, rho, box)
    )


def test_what_a_regulariser_does_not_state_is_refused_by_name() -> None:
    """Never taken for 0: the error names the class and the method to write; what is not needed is not asked for."""
    u, g = np.array([[0.5, 0.0]]), np.array([[0.1, 0.2]])
    for f in (eps_star, by_bisection, stationarity_residual):
        with pytest.raises(InputError, match=r"OwnL0 states no derivative.*write def derivative\(self, w\) in OwnL0"):
            f(u, g, OwnL0(), 0.1, Box(-1, 1))
    with pytest.raises(InputError, match=r"OwnL0 states no asymptotic_slope.*write def asymptotic_slope\(self\)"):
        plain_gap(u, g, OwnL0(), 0.1, WHOLE_LINE)
    with pytest.raises(InputError, match=r"OwnGroups states no group_sums.*write def group_sums\(self, a\)"):
        augmented_gaps(u, g, OwnGroups(), 0.1, WHOLE_LINE, 1.0)
    assert plain_gap(u, g, OwnL0(), 0.1, Box(-1, 1)) == plain_gap(u, g, L0(), 0.1, Box(-1, 1))
    assert eps_star(u, g, OwnL0(), 0.1, FiniteSet((0.0, 0.5))) == eps_star(u, g, L0(), 0.1, FiniteSet((0.0, 0.5)))
    assert eps_star(u, g, OwnL0(), 0.0, WHOLE_LINE) == 0 and plain_gap(0 * u, 0 * g, OwnL0(), 0.0, WHOLE_LINE) == 0
    problem, controls, x, y = setting(regulariser=OwnL0())
    with pytest.raises(InputError, match="OwnL0 states no"):
        certify(problem, controls, x, y, 1.0)


# --- certificates of networks

NET = Network((L.Convolution(2, (2, 1)), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 3, 2))


def setting(seed: int = 0, **options: Any) -> tuple[Problem, Any, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((7, 1, 3, 2)), generator.integers(0, 3, 7)
    return Problem(NET, **{"rho": 0.01, **options}), initial_controls(NET, seed, x), x, y


def test_certificate_of_a_network() -> None:
    problem, u, x, y = setting()
    kernel = u[0][0].copy()
    kernel[1] = 0.0
    u = ((kernel, u[0][1]), (), (), (np.zeros_like(u[3][0]), u[3][1]))
    c = certify(problem, u, x, y, 0.05)
    sweep = Sweep(NET, problem.loss)
    g = sweep.backward(u, sweep.forward(u, x, y)).switching
    assert [(r.stage, r.name, r.penalised, r.size) for r in c.controls] == [
        (0, "kernel", True, 4),
        (0, "bias", False, 2),
        (3, "kernel", True, 24),
        (3, "bias", False, 3),
    ]
    first, bias, last, _ = c.controls
    assert (first.nonzeros, first.rows, first.dead, first.emptied) == (2, 2, 1, False)
    assert (last.nonzeros, last.rows, last.dead, last.emptied) == (0, 3, 3, True)
    assert (bias.rows, bias.dead, bias.emptied) == (0, 0, False) and c.emptied_layers == (3,)
    np.testing.assert_allclose(c.loss, math.log(3), rtol=1e-12)  # all scores are equal
    np.testing.assert_allclose(c.J, math.log(3) + 0.01 * 2, rtol=1e-12)
    stars = [max(0.01 / np.min(kernel[0] ** 2), np.max(g[0][0][1] ** 2) / 0.04), np.max(g[3][0] ** 2) / 0.04]
    np.testing.assert_allclose([first.eps_star, last.eps_star, c.eps_star], [*stars, max(stars)], rtol=1e-12)
    np.testing.assert_allclose(c.residual_support, np.linalg.norm(g[0][0][0]), atol=1e-15)
    both = np.concatenate([g[0][1], g[3][1]])
    np.testing.assert_allclose(c.residual_unpenalised, np.linalg.norm(both), rtol=1e-12)
    assert c.plain_gap == math.inf and c.eps == 0.05 and c.rho == 0.01
    np.testing.assert_allclose(c.augmented_gap, sum(r.augmented_gap for r in c.controls))
    gaps = augmented_gaps(u[3][0], g[3][0], L0(), 0.01, WHOLE_LINE, 0.05)
    np.testing.assert_allclose(last.largest_gap, gaps.max())
    assert last.gap_fractions == tuple(float(np.mean(gaps <= 10.0**-k)) for k in range(1, 11))
    assert len(set(last.gap_fractions)) > 1 and 0 < last.gap_fractions[1] <= 1


def test_the_sweep_of_the_problem_gives_the_same_certificate() -> None:
    problem, u, x, y = setting(loss=CrossEntropy())
    clear = certify(problem, u, x, y, 0.05)
    fast = certify(
        replace(problem, sweep=FastSweep(NET, problem.loss)), cast(u, "float32"), x.astype(np.float32), y, 0.05
    )
    single = certify(problem, cast(u, "float32"), x.astype(np.float32), y, 0.05)
    for a, b in zip((single, *single.controls), (fast, *fast.controls), strict=True):
        for name in ("eps_star", "augmented_gap"):
            np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-11)
    assert single.eps_star != clear.eps_star  # float32 controls are other numbers: 1e-11 tells float64 from float32


def test_at_eps_star_nothing_moves_and_the_gap_is_the_residuals() -> None:
    problem, u, x, y = setting()
    c = certify(problem, u, x, y, 1.0)
    at_star = certify(problem, u, x, y, 1e6)
    assert at_star.eps_star == c.eps_star
    # far above ε* all that is left is g²/(4ε) of kept and unpenalised entries
    left = (c.residual_support**2 + c.residual_unpenalised**2) / 4e6
    np.testing.assert_allclose(at_star.augmented_gap, left, rtol=1e-6)


def test_everything_is_computed_in_float64_on_every_backend(backend: Backend) -> None:
    problem, u, x, y = setting()
    u32, x32 = cast(u, "float32"), x.astype(np.float32)
    expected = certify(problem, cast(u32, "float64"), x32.astype(np.float64), y, 0.5)
    ub, xb, yb = map_controls(backend.asarray, u32), backend.asarray(x32), backend.asarray(y)
    actual = certify(problem, ub, xb, yb, 0.5)
    np.testing.assert_allclose(
        [actual.J, actual.eps_star, actual.augmented_gap, actual.residual_support],
        [expected.J, expected.eps_star, expected.augmented_gap, expected.residual_support],
        rtol=1e-10,
    )


@pytest.mark.parametrize("admissible", [FiniteSet((-0.1, 0.0, 0.1)), Box(-0.1, 0.1)], ids=str)
def test_float32_controls_at_values_that_float64_writes_otherwise(admissible: Admissible) -> None:
    """float32(0.1) is a value of the set; in float64 it must become 0.1, or a gap of 1.5e-9 stands in ε*'s divisor."""
    problem, u, x, y = setting(admissible=admissible)
    u = problem.project(u)
    exact = certify(problem, u, x, y, 0.5)
    problem32, x32 = problem, x.astype(np.float32)
    rounded = certify(problem32, problem.project(cast(u, "float32")), x32, y, 0.5)
    np.testing.assert_allclose([rounded.eps_star, rounded.J], [exact.eps_star, exact.J], rtol=1e-4)


@pytest.mark.parametrize("bound", [0.1, 0.7])  # float32 rounds the first outwards, the second inwards
def test_float32_controls_at_a_bound_are_at_the_bound(bound: float) -> None:
    """All targets lie far above, so g > 0 and every entry belongs at its upper bound: a residual of exactly 0."""
    network = Network((L.Dense(2, bias=False),), (3,))
    problem = Problem(network, SquaredLoss(), L0(), rho=0.01, admissible=Box(-bound, bound))
    x, y, u = np.ones((4, 3)), np.full((4, 2), 9.0), ((np.full((2, 3), bound),),)
    exact = certify(problem, u, x, y, 0.5)
    rounded = certify(problem, problem.project(cast(u, "float32")), x.astype(np.float32), y.astype(np.float32), 0.5)
    assert exact.residual_support == rounded.residual_support == 0
    np.testing.assert_allclose(rounded.eps_star, exact.eps_star, rtol=1e-6)


def test_squared_loss_in_float32_is_certified_in_float64() -> None:
    problem, u, x, _ = setting(loss=SquaredLoss())
    y = np.random.default_rng(1).standard_normal((7, 3))
    exact = certify(problem, u, x, y, 0.5)
    rounded = certify(problem, cast(u, "float32"), x.astype(np.float32), y.astype(np.float32), 0.5)
    np.testing.assert_allclose(rounded.loss, exact.loss, rtol=1e-6)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
def test_gaps_need_a_positive_augmentation(eps: float) -> None:
    with pytest.raises(InputError, match="eps is"):
        certify(*setting(), eps)


def test_bad_data_is_refused() -> None:
    problem, u, x, y = setting()
    with pytest.raises(InputError, match="NaN"):
        certify(problem, u, np.full_like(x, np.nan), y, 1.0)
    with pytest.raises(InputError, match="labels"):
        certify(replace(problem, rho=0.0), u, x, y[:-1], 1.0)
