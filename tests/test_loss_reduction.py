"""Loss reduction (T6) as a property: drawn networks, data, ρ and ε, on NumPy and array-api-strict.

For every trial, with C from a proven enclosure of the segment (T7b): ΣΔH ≥ ετ, J(w) − J(u) ≤ −(ε − C)τ, and a trial
with ε ≥ C + η is accepted. The property is also run with faults planted in the code it tests, and must fail then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.arrays import to_floats
from pmp_ref.augmentation import FixedRule
from pmp_ref.bounds import certify_step
from pmp_ref.controls import subtract, to_vector, total
from pmp_ref.hamiltonian import increments
from pmp_ref.method import Method
from pmp_ref.regulariser import L0, L1, L2, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from pmp_ref.stop import Stop
from tests.planted import fails_under
from tests.strategies import seeds
from verification.claim import Case, Context
from verification.claims import problems, runs
from verification.claims.problems import Setting
from verification.libraries import load

LIBRARIES = ("numpy", "array_api_strict")
ETA = 1e-3
REGULARISERS: tuple[Callable[[], Regulariser], ...] = (
    L0,
    L1,
    L2,
    LHalf,
    LTwoThirds,
    NoPenalty,
    lambda: Polynomial(0.5, 0.25, 0.75),
)


@dataclass(frozen=True)
class Draw:
    """A network (chain, LeNet, residual block; activation), a seed for data and controls, a regulariser, ρ and ε."""

    index: int
    seed: int
    regulariser: int
    rho: float
    eps: float

    def setting(self, library: str) -> Setting:
        case = Case(Context(library=load(library)), self.index, np.random.default_rng(self.seed))
        return runs.enclosable(case, regulariser=REGULARISERS[self.regulariser](), rho=self.rho, samples=3)


draws = st.builds(
    Draw,
    index=st.integers(0, 11),
    seed=seeds,
    regulariser=st.integers(0, len(REGULARISERS) - 1),
    rho=st.just(0.0) | st.floats(1e-3, 0.3),
    eps=st.floats(0.05, 20.0),
)


def reduces_the_loss(draw: Draw, library: str) -> None:
    """T6 for the first trials of a run with fixed ε; a rejection ends it."""
    s = draw.setting(library)
    _, trials = runs.run(s, Method(FixedRule(draw.eps), AbsoluteTest(ETA)), Stop(steps=2))
    for trial in trials:
        r, nu = trial.record, trial.record.rounding
        if r.verdict not in ("accepted", "rejected"):
            continue
        found = certify_step(s.problem, trial.u, trial.w, s.x, s.y, rho=r.rho, max_parts=64, absolute=nu)
        tau, C = found.tau.upper, max(found.c_hat.upper, 0.0)
        change = runs.objective(s, trial.w) - runs.objective(s, trial.u)
        assert found.sum_dh.upper >= r.eps * tau * (1 - 1e-9) - nu
        slack = nu + 1e-12 * (r.eps + C) * tau  # τ and ε are known to the last places only
        assert change <= -(r.eps - C) * tau + slack
        assert abs(r.c_hat * tau - found.remainder.lower) <= found.remainder.width + nu
        assert not r.accepted or change <= -ETA * tau + slack
        assert r.accepted or r.eps < (C + ETA) * (1 + 1e-12) or r.sum_dh < 10 * nu


@pytest.mark.parametrize("library", LIBRARIES)
@given(draw=draws)
def test_every_trial_reduces_the_loss_as_the_theorem_says(draw: Draw, library: str) -> None:
    reduces_the_loss(draw, library)


@given(draw=draws, factor=st.floats(0.5, 1.0))
def test_numpy_and_strict_record_the_same_trial(draw: Draw, factor: float) -> None:
    method = Method(FixedRule(factor * draw.eps), AbsoluteTest(ETA))
    first, second = (runs.run(draw.setting(library), method, Stop(steps=1))[1][0] for library in LIBRARIES)
    assert first.record.verdict == second.record.verdict
    assert np.array_equal(to_vector(first.w), to_vector(second.w))


def test_increments_of_a_trial_are_those_of_the_theory() -> None:
    s = Draw(1, 3, 0, 0.1, 1.0).setting("numpy")
    _, trials = runs.run(s, Method(FixedRule(8.0), AbsoluteTest(ETA)), Stop(steps=1))
    g = runs.switching(s, trials[0].u)
    (expected,) = to_floats(total(increments(s.problem, g, trials[0].u, trials[0].w, 0.1)))
    assert trials[0].record.sum_dh == pytest.approx(expected, rel=1e-12)
    assert trials[0].record.tau == pytest.approx(float(np.sum(to_vector(subtract(trials[0].w, trials[0].u)) ** 2)))


@pytest.mark.parametrize(
    "name",
    [
        "wrong sign of p_L",
        "missing 1/B in p_L",
        "activation derivative at the wrong argument (tanh)",
        "derivative of the logistic function: s for s(1 − s)",
        "W for Wᵀ in the costate of square dense stages",
        "½ in the augmentation",
        "penalty ignored by the maximiser",
        "stale costates after acceptance",
        "acceptance reversed",
        "everything accepted",
        "nothing accepted",
    ],
)
def test_the_property_fails_under_a_planted_fault(name: str) -> None:
    fails_under(name, reduces_the_loss, draws, st.just("numpy"))


def test_settings_reach_every_kind_of_network() -> None:
    kinds = {Draw(i, i, 0, 0.0, 1.0).setting("numpy").network.stages for i in range(12)}
    assert len(kinds) >= 9
    activations = {type(stage) for stages in kinds for stage in stages} & {type(a) for a in problems.SMOOTH_ACTIVATIONS}
    assert len(activations) == 4
