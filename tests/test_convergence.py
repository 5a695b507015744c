"""Bounded augmentation (T8) and convergence (T9) as properties: drawn networks, data, ρ and ε, on two libraries.

T8 is asserted with computed constants, on least squares over a box, where ½λ_max is known exactly. T9 on all smooth
networks. Both are also run with faults planted in the code they test, and must fail then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.admissible import Box
from pmp_ref.augmentation import ClassicRule, CurvatureRule, Rule
from pmp_ref.method import Method
from pmp_ref.regulariser import L0, L1, L2, LHalf, Polynomial, Regulariser
from pmp_ref.stop import Stop
from tests.planted import fails_under
from tests.strategies import seeds
from verification.claim import Case, Context
from verification.claims import problems, runs
from verification.claims.augmentation_rules import rule_checks
from verification.claims.convergence import descent_checks, entry_checks
from verification.claims.problems import Setting
from verification.libraries import load

LIBRARIES = ("numpy", "array_api_strict")
BOX = Box(-1.0, 1.0)
REGULARISERS: tuple[Callable[[], Regulariser], ...] = (L0, L1, L2, LHalf, lambda: Polynomial(0.5, 0.25, 0.75))


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


@pytest.mark.parametrize(
    "name",
    [
        "ε shrunk on rejection (classic)",
        "classic rule: ε doubled on rejection",
        "classic rule: ε kept after acceptance",
        "ε shrunk on rejection (curvature)",
        "curvature rule: ε grows after acceptance",
        "a trial must reduce J by half of ΣΔH too",
        "missing 1/B in p_L",
    ],
)
def test_bounded_augmentation_fails_under_a_planted_fault(name: str) -> None:
    fails_under(name, bounds_the_augmentation, draws, st.just("numpy"))


@pytest.mark.parametrize(
    "name",
    [
        "everything accepted",
        "acceptance reversed",
        "accepted without sufficient decrease",
        "threshold of half the size",
    ],
)
def test_convergence_fails_under_a_planted_fault(name: str) -> None:
    fails_under(name, converges, draws, st.just("numpy"))
