"""Bounded augmentation (T8) and convergence (T9) as properties: drawn networks, data, ρ and ε, on two libraries.

T8 is asserted with computed constants, on least squares over a box, where ½λ_max is known exactly. T9 on all smooth
networks. Both are also run with faults planted in the code they test, and must fail then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.admissible import Box
from pmp_ref.augmentation import ClassicRule, CurvatureRule, Rule
from pmp_ref.method import Method
from pmp_ref.regulariser import L0, L1, L2, LHalf, Polynomial, Regulariser
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from tests.strategies import seeds
from verification import problems, runs
from verification.augmentation import rule_checks
from verification.claim import Case, Context
from verification.convergence import descent_checks, entry_checks
from verification.libraries import load
from verification.problems import Setting

LIBRARIES = ("numpy", "array_api_strict")
BOX = Box(-1.0, 1.0)
REGULARISERS: tuple[Callable[[], Regulariser], ...] = (L0, L1, L2, LHalf, lambda: Polynomial(0.5, 0.25, 0.75))

# Faults must be found in every run, so the examples do not depend on chance; one failure is enough, however large.
planted = settings(
    derandomize=True, max_examples=40, database=None, phases=[Phase.generate], report_multiple_bugs=False
)


@dataclass(frozen=True)
class Draw:
    """A network, a seed for data and controls, a regulariser, ρ, the first ε, the rule's constants, η."""

    index: int
    seed: int
    regulariser: int
    rho: float
    eps: float
    classic: bool
    sigma: float
    zeta: float
    eta: float

    @property
    def rule(self) -> Rule:
        if self.classic:
            return ClassicRule(eps0=self.eps, sigma=self.sigma, zeta=self.zeta)
        return CurvatureRule(eps0=self.eps, theta=self.sigma, zeta=self.zeta)

    def setting(self, library: str, build: Callable[..., Setting]) -> Setting:
        case = Case(Context(library=load(library)), self.index, np.random.default_rng(self.seed))
        return build(case, regulariser=REGULARISERS[self.regulariser](), rho=self.rho, admissible=BOX)


draws = st.builds(
    Draw,
    index=st.integers(0, 5),
    seed=seeds,
    regulariser=st.integers(0, len(REGULARISERS) - 1),
    rho=st.just(0.0) | st.floats(1e-3, 0.2),
    eps=st.floats(1e-3, 20.0),
    classic=st.booleans(),
    sigma=st.floats(1.05, 3.0),
    zeta=st.floats(0.4, 1.0),
    eta=st.floats(1e-3, 0.2),
)


def bounds_the_augmentation(draw: Draw, library: str) -> None:
    """T8: rejections in a row, ε, the rule's steps, the identity for rejections; C = ½λ_max exactly."""
    s = draw.setting(library, problems.quadratic)
    constant = runs.curvature_norm(problems.host(s), problems.host(s).controls)[0]
    _, trials = runs.run(s, Method(draw.rule, AbsoluteTest(draw.eta)), Stop(steps=6))
    for check in rule_checks(s, trials, draw.rule, draw.eta, constant):
        assert check.holds, check


def converges(draw: Draw, library: str) -> None:
    """T9: J falls by ητ at least in every accepted step; sums and rates; T12 under L0."""
    s = draw.setting(library, problems.smooth)
    _, trials = runs.run(s, Method(draw.rule, AbsoluteTest(draw.eta)), Stop(steps=4))
    for check in descent_checks(s, trials, draw.eta):
        assert check.holds, check
    if draw.regulariser == 0 and draw.rho > 0:
        accepted = [t for t in trials if t.record.accepted]
        for check in entry_checks(problems.host(s), accepted, draw.eta):
            assert check.holds, check


@pytest.mark.parametrize("library", LIBRARIES)
@given(draw=draws)
def test_augmentation_and_rejections_are_bounded(draw: Draw, library: str) -> None:
    bounds_the_augmentation(draw, library)


@pytest.mark.parametrize("library", LIBRARIES)
@given(draw=draws)
def test_the_objective_falls_and_the_increments_are_summable(draw: Draw, library: str) -> None:
    converges(draw, library)


def without_mean(self: Sweep, x: Any, y: Any, samples: int) -> Any:
    return -self.loss.gradient(x, y)


def double_threshold(self: Any, u: Any, g: Any, eps: float, rho: float, box: Any) -> Any:
    return TRUE_ON_LINE(self, u, g, eps, rho / 4, box)


def curvature_falls(self: Any, eps: float, c_hat: float | None, eta: float) -> float:
    return eps / self.sigma_min


def curvature_forgets(self: Any, eps: float, c_hat: Any, smoothed: Any, eta: float, progress: float) -> Any:
    return 4 * eps, smoothed


TRUE_ON_LINE = Polynomial.on_line
T8: dict[str, tuple[Any, str, Any]] = {
    "classic: ε shrunk on rejection": (ClassicRule, "rejected", lambda self, eps, c_hat, eta: eps / self.sigma),
    "classic: ε doubled on rejection": (ClassicRule, "rejected", lambda self, eps, c_hat, eta: 2 * self.sigma * eps),
    "classic: ε kept after acceptance": (ClassicRule, "accepted", lambda self, eps, *rest: (eps, None)),
    "curvature: ε shrunk on rejection": (CurvatureRule, "rejected", curvature_falls),
    "curvature: ε grows after acceptance": (CurvatureRule, "accepted", curvature_forgets),
    "everything rejected once more": (
        AbsoluteTest,
        "accepts",
        lambda self, delta_j, tau, sum_dh: delta_j <= -2 * self.eta * tau - 0.5 * sum_dh,
    ),
    "1/B missing": (Sweep, "terminal_costate", without_mean),
}
T9: dict[str, tuple[Any, str, Any]] = {
    "everything accepted": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: True),
    "acceptance reversed": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: delta_j > -self.eta * tau),
    "η forgotten": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: delta_j <= 0),
    "half the L0 threshold": (Polynomial, "on_line", double_threshold),
}


@pytest.mark.parametrize("name", T8)
def test_bounded_augmentation_fails_under_a_planted_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(bounds_the_augmentation, *T8[name], monkeypatch)


@pytest.mark.parametrize("name", T9)
def test_convergence_fails_under_a_planted_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(converges, *T9[name], monkeypatch)


def fails(check: Any, owner: Any, attribute: str, replacement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property does not survive the replacement."""
    monkeypatch.setattr(owner, attribute, replacement)

    @planted
    @given(draw=draws)
    def property_(draw: Draw) -> None:
        check(draw, "numpy")

    with pytest.raises(AssertionError):
        property_()
