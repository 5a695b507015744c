"""Loss reduction (T6) as a property: drawn networks, data, ρ and ε, on NumPy and array-api-strict.

For every trial, with C from a proven enclosure of the segment (T7b): ΣΔH ≥ ετ, J(w) − J(u) ≤ −(ε − C)τ, and a trial
with ε ≥ C + η is accepted. The property is also run with faults planted in the code it tests, and must fail then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pmp_ref import bsqh
from pmp_ref import trial as trial_module
from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.arrays import to_floats
from pmp_ref.augmentation import FixedRule
from pmp_ref.bounds import certify_step
from pmp_ref.controls import map_controls, subtract, to_vector, total
from pmp_ref.hamiltonian import increments
from pmp_ref.layers import AffineStage, Sigmoid, Tanh
from pmp_ref.method import Method
from pmp_ref.regulariser import L0, L1, L2, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from tests.strategies import seeds
from verification import problems, runs
from verification.claim import Case, Context
from verification.libraries import load
from verification.problems import Setting

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

# Faults must be found in every run, so the examples do not depend on chance; one failure is enough, however large.
planted = settings(
    derandomize=True, max_examples=40, database=None, phases=[Phase.generate], report_multiple_bugs=False
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


def wrong_sign(self: Sweep, x: Any, y: Any, samples: int) -> Any:
    return self.loss.gradient(x, y) / samples


def without_mean(self: Sweep, x: Any, y: Any, samples: int) -> Any:
    return -self.loss.gradient(x, y)


def half_eps(problem: Any, u: Any, g: Any, eps: float, rho: Any, metric: Any = None) -> Any:
    return TRUE_CANDIDATE(problem, u, g, eps / 2, rho, metric)


def stale_costates(problem: Any, method: Any, it: Any, *rest: Any) -> Any:
    new, record = TRUE_STEP(problem, method, it, *rest)
    if record.accepted:
        e = replace(new.current.evaluation, switching=it.current.evaluation.switching)
        new = replace(new, current=replace(new.current, evaluation=e))
    return new, record


def without_penalty(problem: Any, u: Any, g: Any, eps: float, rho: Any, metric: Any = None) -> Any:
    return TRUE_CANDIDATE(problem, u, g, eps, map_controls(lambda r: 0.0, rho), metric)


TRUE_CANDIDATE, TRUE_STEP = trial_module.candidate, bsqh.step
FAULTS: dict[str, tuple[Any, str, Any]] = {
    "sign of p_L": (Sweep, "terminal_costate", wrong_sign),
    "1/B missing": (Sweep, "terminal_costate", without_mean),
    "slope of tanh at the wrong argument": (Tanh, "slope", lambda self, z: 1 - z * z),
    "slope of the logistic function": (Sigmoid, "slope", lambda self, z: self.sigma(z)),
    "costate without the kernel's transpose": (AffineStage, "costate", lambda self, x, u, p: 0 * x),
    "maximiser at ε/2": (trial_module, "candidate", half_eps),
    "maximiser without the penalty": (trial_module, "candidate", without_penalty),
    "stale costates": (bsqh, "step", stale_costates),
    "acceptance reversed": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: delta_j > -self.eta * tau),
    "everything accepted": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: True),
    "nothing accepted": (AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_property_fails_under_a_planted_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, replacement = FAULTS[name]
    monkeypatch.setattr(owner, attribute, replacement)

    @planted
    @given(draw=draws)
    def property_(draw: Draw) -> None:
        reduces_the_loss(draw, "numpy")

    with pytest.raises(AssertionError):
        property_()


def test_settings_reach_every_kind_of_network() -> None:
    kinds = {Draw(i, i, 0, 0.0, 1.0).setting("numpy").network.stages for i in range(12)}
    assert len(kinds) >= 9
    activations = {type(stage) for stages in kinds for stage in stages} & {type(a) for a in problems.SMOOTH_ACTIVATIONS}
    assert len(activations) == 4
