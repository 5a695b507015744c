"""Rules for ε (T8, T15) and acceptance tests (T6, T16): formulas, bounds, the identity of T8, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.acceptance import ACCEPTANCES, AbsoluteTest, NoTest, RelativeTest
from pmp_ref.augmentation import RULES, ClassicRule, CurvatureRule, FixedRule
from pmp_ref.errors import InputError
from verification.claims.augmentation_rules import largest_eps, largest_factor, most_rejections, rejection_factor

positive = st.floats(1e-6, 1e6)


@given(positive, st.floats(-10, 10), st.floats(0, 1))
def test_classic_grows_by_sigma_and_shrinks_by_zeta(eps: float, c_hat: float, progress: float) -> None:
    rule = ClassicRule(sigma=1.5, zeta=0.75, eps_min=0.25)
    assert rule.rejected(eps, c_hat, 0.1) == 1.5 * eps == rule.rejected(eps, None, 0.1)
    assert rule.accepted(eps, c_hat, None, 0.1, progress) == (max(0.75 * eps, 0.25), None)


@given(positive, st.one_of(st.none(), st.floats(-10, 1e4)), st.floats(0, 1))
def test_curvature_jumps_above_the_measured_curvature(eps: float, c_hat: float | None, eta: float) -> None:
    """T8: a rejected trial has Ĉ + η > ε; the jump always increases, at least by σ_min."""
    rule = CurvatureRule(theta=1.25, sigma_min=1.125, sigma=3.0)
    new = rule.rejected(eps, c_hat, eta)
    if c_hat is None:
        assert new == 3.0 * eps
    else:
        assert new == max(1.125 * eps, 1.25 * (c_hat + eta)) and new > eps


@given(positive, st.floats(-10, 1e4), st.one_of(st.none(), st.floats(0, 1e4)), st.floats(0, 1))
def test_curvature_follows_a_smoothed_estimate(
    eps: float, c_hat: float, smoothed: float | None, progress: float
) -> None:
    rule = CurvatureRule(theta=1.25, zeta=0.5, memory=0.75, growth=4.0, eps_min=1e-3)
    new, estimate = rule.accepted(eps, c_hat, smoothed, 0.01, progress)
    c = max(c_hat, 0.0)
    assert estimate == pytest.approx(c if smoothed is None else 0.75 * smoothed + 0.25 * c)
    assert estimate is not None and estimate >= 0
    theta = 1.25 if progress <= 0.5 else 1.25 * 4.0 / (4.0 - 3.0 * (2 * progress - 1))
    assert new == pytest.approx(max(0.5 * eps, theta * (estimate + 0.01), 1e-3))
    assert new <= max(eps, theta * (estimate + 0.01), 1e-3) * (1 + 1e-15)  # T8's condition after acceptance


def test_curvature_keeps_what_it_knows_where_the_measurement_is_lost() -> None:
    rule = CurvatureRule(theta=2.0, growth=4.0, zeta=1e-6)
    assert rule.accepted(2.0, None, None, 0.1, 1.0) == (2.0, None)  # nothing is known: ε stays
    assert rule.accepted(2.0, None, 0.5, 0.25, 0.0) == (1.5, 0.5)  # ε follows the estimate there is
    assert rule.accepted(2.0, None, 0.5, 0.25, 1.0) == (6.0, 0.5)  # and θ_t goes on growing


def test_growth_starts_at_half_of_the_run() -> None:
    rule = CurvatureRule(theta=2.0, growth=9.0, zeta=1e-6)
    eps = [rule.accepted(1.0, 1.0, None, 0.0, t)[0] for t in (0.0, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(eps, [2.0, 2.0, 3.6, 18.0])  # 1/ε falls from 1/2 to 1/18, at 0.75 it is 5/18


@given(positive, st.floats(0, 1e4), st.floats(1, 100), st.floats(0, 1))
def test_epsilon_stays_inside_its_band(eps: float, c: float, band: float, progress: float) -> None:
    """T8's condition after acceptance holds for every band; inside it ε does not move, outside it goes to the border,
    downwards by ζ at most."""
    rule = CurvatureRule(theta=1.25, zeta=0.5, growth=4.0, band=band, eps_min=1e-3)
    new, estimate = rule.accepted(eps, None, c, 0.01, progress)
    least = 1.25 / (1 - 0.75 * max(0.0, min(2 * progress - 1, 1.0))) * (c + 0.01)
    assert estimate == c and new <= max(eps, least, 1e-3)
    if least <= eps <= band * least:
        assert new == max(eps, 1e-3)
    elif eps < least:
        assert new == max(least, 1e-3)
    else:
        assert new == max(0.5 * eps, band * least, 1e-3)


def test_a_band_of_one_follows_the_estimate() -> None:
    rule, held = CurvatureRule(theta=2.0, zeta=0.5), CurvatureRule(theta=2.0, zeta=0.5, band=8.0)
    path = [rule.accepted(8.0, None, c, 0.0, 0.0)[0] for c in (8.0, 4.0, 3.0, 1.0, 0.25)]
    assert path == [16.0, 8.0, 6.0, 4.0, 4.0]
    path = [held.accepted(8.0, None, c, 0.0, 0.0)[0] for c in (8.0, 4.0, 1.0, 0.4, 0.1)]
    assert path == [16.0, 8.0, 8.0, pytest.approx(6.4), 4.0]


def test_only_the_band_depends_on_the_penalty() -> None:
    rule = CurvatureRule(theta=2.0, growth=3.0, band=8.0)
    assert rule.unpenalised() == CurvatureRule(theta=2.0, growth=3.0)
    assert ClassicRule(2.0).unpenalised() == ClassicRule(2.0)


@given(positive, st.floats(0, 1), st.sampled_from((0.0, 0.05, 1.0)), st.floats(0, 1))
def test_epsilon_falls_by_e_at_most_in_the_part_of_the_run_that_fall_says(
    eps: float, zeta: float, fall: float, part: float
) -> None:
    rule = CurvatureRule(zeta=max(zeta, 1e-3), fall=fall, eps_min=1e-300)
    least = max(rule.zeta, math.exp(-part / fall)) if fall > 0 and part > 0 else rule.zeta
    new, _ = rule.slowed(part).accepted(eps, None, 0.0, 0.0, 0.0)
    assert new == pytest.approx(least * eps, rel=1e-12) and new <= eps
    steps = 40  # a run of so many steps, each as low as it may go
    for _ in range(steps):
        eps, before = rule.slowed(1 / steps).accepted(eps, None, 0.0, 0.0, 0.0)[0], eps
        assert eps >= before * math.exp(-1 / steps / fall) * (1 - 1e-12) if fall > 0 else eps >= before * rule.zeta
    assert ClassicRule(2.0).slowed(part) == ClassicRule(2.0)


def test_fixed_is_constant_and_gives_up() -> None:
    rule = FixedRule(3.0)
    assert rule.rejected(3.0, 1.0, 0.1) is None and rule.accepted(3.0, 1.0, None, 0.1, 0.5) == (3.0, None)


@given(st.lists(st.booleans(), max_size=60), st.floats(1.01, 3), st.floats(0.3, 1))
def test_accepted_and_rejected_trials_balance(trials: list[bool], sigma: float, zeta: float) -> None:
    """T8: r ln σ − a ln(1/ζ) = ln(ε_end/ε₀) while nothing clips."""
    rule = ClassicRule(eps0=1.0, sigma=sigma, zeta=zeta, eps_min=1e-300)
    eps = rule.eps0
    for accepted in trials:
        eps = rule.accepted(eps, 0.0, None, 0.1, 0.0)[0] if accepted else rule.rejected(eps, 0.0, 0.1)
    a, r = trials.count(True), trials.count(False)
    balance = r * math.log(sigma) - a * math.log(1 / zeta)
    assert abs(balance - math.log(eps)) <= 1e-14 * (len(trials) + abs(balance)) * 4


def test_growth_plays_no_part_in_the_count_of_rejections() -> None:
    """T8: L = √(u² + 1) rejects twice. The least factor of a rejection, θ = 3, allows four; θ growth = 60 would allow
    one, and is the factor in the bound of ε after acceptances. C = ½: the ball of the first trial contains 0."""
    rule, eta, u, eps, rejections = CurvatureRule(eps0=0.01, theta=3.0, growth=20.0), 1e-6, -1.737, 0.01, 0
    while True:
        g = -u / math.hypot(u, 1)
        w = u + g / (2 * eps)
        rise, tau = math.hypot(w, 1) - math.hypot(u, 1), (w - u) ** 2
        if rejections == 0:
            assert tau >= u * u
        if AbsoluteTest(eta).accepts(rise, tau, g * (w - u)):
            break
        grown = rule.rejected(eps, (rise + g * (w - u)) / tau, eta)
        assert grown is not None and grown >= rejection_factor(rule) * eps
        eps, rejections = grown, rejections + 1
    assert rejections == 2 <= most_rejections(0.5, eta, 0.01, rejection_factor(rule)) == 4
    assert most_rejections(0.5, eta, 0.01, largest_factor(rule)) == 1
    assert rejection_factor(rule) == 3 and largest_factor(rule) == 60
    assert rejection_factor(ClassicRule(sigma=1.5)) == largest_factor(ClassicRule(sigma=1.5)) == 1.5
    assert rejection_factor(CurvatureRule(theta=0.5, sigma_min=1.25)) == 1.25


@given(
    st.floats(1e-4, 1e3),
    st.floats(0.1, 100),
    st.floats(1e-3, 1),
    st.floats(1, 30),
    st.floats(1, 100),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 1)), max_size=40),
)
def test_epsilon_stays_below_the_largest_factor(
    eps: float, c: float, eta: float, growth: float, band: float, trials: list[tuple[bool, float, float]]
) -> None:
    """T8, part 2, whatever Ĉ ≤ C acceptances find, wherever in the run: ε ≤ max(ε₀, ε_min, S(C + η))."""
    rule = CurvatureRule(eps0=eps, growth=growth, band=band)
    top, smoothed = largest_eps(eps, rule.eps_min, largest_factor(rule), c, eta), None
    for accepted, share, progress in trials:
        if accepted or eps >= c + eta:  # such a trial passes
            eps, smoothed = rule.accepted(eps, c * share, smoothed, eta, progress)
        else:
            eps = rule.rejected(eps, eps - eta + share * (c + eta - eps), eta) or math.nan
        assert eps <= top * (1 + 1e-12)


def test_a_rejection_by_the_relative_test_needs_an_exact_maximiser_to_exceed_epsilon() -> None:
    """T16.2: L = ½u², u = 1, η₁ = ½, so Ĉ = ½. With q ≥ 1 a rejected trial has Ĉ/(1 − η₁) = 1 > ε; a maximiser that
    goes nineteen times too far has q = 0.1, and is rejected at ε = 8, far above 1."""
    test = RelativeTest(eta1=0.5)

    def trial(eps: float, length: float) -> tuple[bool, float, float]:
        w = 1 - length / (2 * eps)  # g = −1
        rise, tau, dh = (w * w - 1) / 2, (w - 1) ** 2, 1 - w
        c_hat, q = (rise + dh) / tau, dh / (eps * tau)
        assert test.accepts(rise, tau, dh) == (c_hat <= 0.5 * q * eps)  # whatever the maximiser
        return test.accepts(rise, tau, dh), c_hat, q

    for eps in np.geomspace(0.05, 20, 60):
        accepted, c_hat, q = trial(float(eps), 1.0)
        assert math.isclose(q, 2) and (accepted or c_hat / 0.5 > eps)
    accepted, c_hat, q = trial(8.0, 20.0)
    assert not accepted and q < 1 and c_hat / 0.5 < 8.0


@given(
    st.floats(1e-4, 1e3),
    st.floats(0.1, 100),
    st.floats(1e-3, 1),
    st.sampled_from([ClassicRule(), CurvatureRule()]),
    st.lists(st.floats(0, 1), min_size=40, max_size=40),
)
def test_line_searches_end_within_t8(eps: float, c: float, eta: float, rule: Any, noise: list[float]) -> None:
    """Every ε ≥ C + η passes. Rejections in a row ≤ ⌈log_s((C + η)/ε)⌉ and ε ≤ max(ε, s(C + η))."""
    s = rule.sigma if isinstance(rule, ClassicRule) else max(rule.sigma_min, rule.theta)
    start, rejections = eps, 0
    while eps < c + eta:  # the worst case: every smaller ε is rejected
        # a rejected trial has Ĉ + η > ε, and Ĉ ≤ C
        c_hat = eps - eta + noise[rejections % 40] * (c + eta - eps)
        eps, rejections = rule.rejected(eps, c_hat, eta), rejections + 1
    steps = math.log((c + eta) / start) / math.log(s if isinstance(rule, ClassicRule) else rule.sigma_min)
    assert rejections <= max(0, math.ceil(steps + 1e-9))
    assert eps <= max(start, s * (c + eta)) * (1 + 1e-12)


def test_absolute_test() -> None:
    test = AbsoluteTest(eta=0.5)
    assert test.accepts(-1.0, 2.0, 9.0) and not test.accepts(-0.999, 2.0, 9.0)  # equality passes
    assert not test.accepts(math.nan, 2.0, 9.0) and not test.accepts(-1.0, math.nan, 9.0)
    assert not test.accepts(math.inf, 2.0, 9.0)


def test_relative_test() -> None:
    test = RelativeTest(eta1=0.25)
    assert test.accepts(-1.0, 2.0, 4.0) and not test.accepts(-0.999, 2.0, 4.0)
    assert not test.accepts(-1.0, 2.0, 0.0) and not test.accepts(-1.0, 2.0, -1.0)  # needs ΣΔH > 0
    assert not test.accepts(math.nan, 2.0, 4.0) and not test.accepts(-1.0, 2.0, math.nan)
    assert test.eta == 0.0


def test_no_test() -> None:
    assert NoTest().accepts(100.0, 1.0, 1.0) and not NoTest().accepts(math.nan, 1.0, 1.0)
    assert not NoTest().accepts(math.inf, 1.0, 1.0)


def test_names() -> None:
    assert RULES == {"classic": ClassicRule, "curvature": CurvatureRule, "fixed": FixedRule}
    assert ACCEPTANCES == {"absolute": AbsoluteTest, "relative": RelativeTest, "none": NoTest}


@pytest.mark.parametrize("rule", [ClassicRule, CurvatureRule, FixedRule])
def test_numpy_numbers_become_python_floats(rule: Any) -> None:
    assert type(rule(eps0=np.float64(2.0)).eps0) is float and type(rule(eps0=2).eps0) is float


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((rule, "eps0", bad) for rule in RULES.values() for bad in (0.0, -1.0, math.nan, math.inf, "1", True)),
        *((rule, "sigma", bad) for rule in (ClassicRule, CurvatureRule) for bad in (1.0, 0.5, math.nan, math.inf)),
        *((rule, "zeta", bad) for rule in (ClassicRule, CurvatureRule) for bad in (0.0, -0.1, 1.1, math.nan)),
        *((rule, "eps_min", bad) for rule in (ClassicRule, CurvatureRule) for bad in (0.0, -1.0)),
        (CurvatureRule, "theta", 0.0),
        (CurvatureRule, "sigma_min", 1.0),
        (CurvatureRule, "memory", 1.0),
        (CurvatureRule, "memory", -0.1),
        (CurvatureRule, "growth", 0.9),
        (CurvatureRule, "band", 0.9),
        (CurvatureRule, "fall", 1.1),
        *((AbsoluteTest, "eta", bad) for bad in (0.0, -1.0, math.nan, math.inf)),
        *((RelativeTest, "eta1", bad) for bad in (0.0, 1.0, math.nan)),
    ],
)
def test_bad_constants(make: Any, name: str, value: Any) -> None:
    with pytest.raises(InputError) as error:
        make(**{name: value})
    assert f"{name} is {value!r}" in str(error.value) and "expected" in str(error.value)


@pytest.mark.parametrize("rule", [ClassicRule, CurvatureRule])
def test_the_ends_of_the_ranges_are_allowed(rule: Any) -> None:
    assert rule(zeta=1.0).zeta == 1.0
