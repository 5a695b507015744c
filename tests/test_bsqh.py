"""The method: acceptance on drawn networks, monotone J, sweep counts, rollback, statuses, mini-batches, resume."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmp_ref import bsqh as loop_module
from pmp_ref import layers as L
from pmp_ref import one_step
from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule, Rule
from pmp_ref.averaging import Averaging
from pmp_ref.batches import FlipsAndShifts, take_batch
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, cast, from_vector, map_controls, to_vector
from pmp_ref.errors import InputError, LabelWarning
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate, Place
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf, NoPenalty, Polynomial
from pmp_ref.result import Record, Run, Status, Verdict
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep
from tests.backends import load
from tests.strategies import images_for, networks, seeds

NET = Network((L.Convolution(2, (2, 1)), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 3, 2))
FEW = settings(max_examples=10)


def data(seed: int = 0, samples: int = 12, network: Network = NET) -> tuple[Any, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = images_for(network, generator, samples)
    return initial_controls(network, seed, x, "float64"), x, generator.integers(0, network.output_shape[0], samples)


def run(problem: Problem, seed: int = 0, samples: int = 12, **options: Any) -> Run:
    options = {"stop": Stop(steps=15), **options}
    u, x, y = data(seed, samples, problem.network)
    return bsqh(problem, None if "resume" in options else u, x, y, **options)


def objective(problem: Problem, u: Any, x: Any, y: Any, rho: float) -> float:
    """J from scratch, in float64."""
    e = Sweep(problem.network, problem.loss).forward(u, x, y)
    return float(np.mean(e.losses.astype(np.float64))) + rho * float(problem.penalty(u))


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays_of(a), arrays_of(b), strict=True))


METHODS = (
    Method(),
    Method(ClassicRule()),
    Method(ClassicRule(1e-3, sigma=2.0)),
    Method(CurvatureRule(1e-3), RelativeTest(0.3)),
    Method(metric=GradientMetric()),
    Method(ClassicRule(1e-2), metric=LayerMetric(beta=0.5)),
)
REGULARISERS = (L0(), L1(), Polynomial(1.0, 0.1, 0.5), LHalf(), GroupL0(), NoPenalty())


# --- acceptance


@dataclass
class Trials:
    """Callback that keeps every trial: the control before it, the control after it, the record, the iterate."""

    start: Any
    controls: list[Any] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    iterates: list[Iterate] = field(default_factory=list)

    def __call__(self, it: Iterate, record: Record) -> None:
        self.controls.append(it.controls)
        self.records.append(record)
        self.iterates.append(it)

    def pairs(self) -> list[tuple[Any, Any, Record]]:
        return list(zip([self.start, *self.controls], self.controls, self.records, strict=False))


@FEW
@given(
    networks(heads=True),
    seeds,
    st.sampled_from(METHODS),
    st.sampled_from(REGULARISERS),
    st.sampled_from([0.0, 1e-3, 0.05]),
)
def test_accepted_steps_satisfy_the_inequality_and_rejected_ones_never(
    network: Network, seed: int, method: Method, regulariser: Any, rho: float
) -> None:
    """T6, T16 by fresh sweeps: J(w) − J(u) ≤ −ητ (relative: ≤ −η₁ΣΔH) iff the trial became the control."""
    problem = Problem(network, regulariser=regulariser, rho=rho)
    u, x, y = data(seed, 6, network)
    trials = Trials(u)
    bsqh(problem, u, x, y, stop=Stop(steps=6), method=method, callback=trials)
    assert any(r.accepted for r in trials.records)
    for before, after, record in trials.pairs():
        j = objective(problem, before, x, y, rho)
        assert abs(j - record.J_before) <= 1e-13 * (1 + abs(j))
        bound = -method.acceptance.eta * record.tau  # η of the absolute test
        if isinstance(method.acceptance, RelativeTest):
            bound = -method.acceptance.eta1 * record.sum_dh
        if record.accepted:
            change = objective(problem, after, x, y, rho) - j
            # Two sums of B losses are rounded apart: their difference to a few 1e-16 of J.
            assert change <= bound + 1e-14 * (1 + abs(j)) and abs(record.J - j - change) <= 1e-13 * (1 + abs(j))
            assert record.nonzeros == sum(np.count_nonzero(stage[0]) for stage in after if stage)
        else:
            assert same(before, after)
            if record.verdict == "rejected":
                assert record.delta_J > bound


@FEW
@given(networks(smooth=False, heads=True), seeds, st.sampled_from(METHODS), st.sampled_from(REGULARISERS))
def test_full_batch_objective_never_rises(network: Network, seed: int, method: Method, regulariser: Any) -> None:
    """Kinks included: the test is made on the true J."""
    problem = Problem(network, regulariser=regulariser, rho=0.01)
    u, x, y = data(seed, 6, network)
    trials = Trials(u)
    bsqh(problem, u, x, y, stop=Stop(steps=8), method=method, callback=trials)
    values = [objective(problem, c, x, y, 0.01) for c in (u, *trials.controls)]
    assert np.all(np.diff(values) <= 1e-14 * (1 + np.abs(values[1:])))
    assert len({*values}) > 1


def test_increments_curvature_and_gains_are_those_of_the_theory() -> None:
    """τ, ΣΔH ≥ ετ, Ĉ = [ΔJ + ΣΔH]/τ and the residual 2ε‖D(w − u)‖ from the controls themselves, under a metric."""
    problem, method = Problem(NET, rho=0.01), Method(metric=GradientMetric())
    u, x, y = data()
    trials = Trials(u)
    bsqh(problem, u, x, y, stop=Stop(steps=5), method=method, callback=trials)
    accepted = [(b, a, r) for b, a, r in trials.pairs() if r.accepted]
    memory = None
    for count, (before, after, r) in enumerate(accepted):
        e = problem.sweeper.backward(before, problem.sweeper.forward(before, x, y))
        memory, d = method.metric.update(memory, count, e.switching)
        delta, d = to_vector(after) - to_vector(before), to_vector(d)
        np.testing.assert_allclose(r.tau, d @ delta**2, rtol=1e-12)
        np.testing.assert_allclose(r.residual, 2 * r.eps * np.linalg.norm(d * delta), rtol=1e-12)
        penalties = 0.01 * (float(problem.penalty(after)) - float(problem.penalty(before)))
        np.testing.assert_allclose(r.sum_dh, to_vector(e.switching) @ delta - penalties, rtol=1e-9)
        np.testing.assert_allclose(r.c_hat, (r.delta_J + r.sum_dh) / r.tau, rtol=1e-6)
        assert r.sum_dh >= r.eps * r.tau * (1 - 1e-9)
    assert len(accepted) == 5


@pytest.mark.parametrize("regulariser", [L0(), L1()], ids=["L0", "L1"])
def test_line_search_is_monotone(regulariser: Any) -> None:
    """T18: along the rejections of one control τ and ΣΔH fall."""
    u, x, y = data()
    trials = Trials(u)
    problem, method = Problem(NET, regulariser=regulariser, rho=0.01), Method(ClassicRule(1e-4, 1.5))
    bsqh(problem, u, x, y, stop=Stop(steps=3), method=method, callback=trials)
    rows = trials.records
    sequences = [(a, b) for a, b in pairwise(rows) if b.rejections == a.rejections + 1]
    assert len(sequences) > 5
    for a, b in sequences:
        assert b.eps > a.eps and b.tau <= a.tau * (1 + 1e-12) and b.sum_dh <= a.sum_dh * (1 + 1e-12)


def test_without_a_test_every_finite_trial_is_accepted() -> None:
    s = run(Problem(NET, rho=0.01), method=Method(FixedRule(1e-4), NoTest()))
    assert len(s.steps) == len(s.records) == 15
    assert max(r.delta_J for r in s.records) > 0  # J does rise at this ε


# --- work and rollback


class Counting(Sweep):
    """A sweep that reports every call to a list."""

    def __init__(self, calls: list[str], **options: Any) -> None:
        super().__init__(NET, CrossEntropy(), **options)
        object.__setattr__(self, "calls", calls)

    def forward(self, controls: Any, x: Any, y: Any) -> Evaluation:
        self.calls.append("forward")  # type: ignore[attr-defined]
        return super().forward(controls, x, y)

    def trial(self, controls: Any, x: Any, y: Any) -> Evaluation:
        self.calls.append("forward")  # type: ignore[attr-defined]
        return super().trial(controls, x, y)

    def backward(self, controls: Any, e: Evaluation) -> Evaluation:
        self.calls.append("backward")  # type: ignore[attr-defined]
        return super().backward(controls, e)


def test_a_step_without_rejection_costs_one_sweep_each_way() -> None:
    calls: list[str] = []
    problem = Problem(NET, rho=1e-3, sweep=Counting(calls))
    s = run(problem, method=Method(ClassicRule(10.0, zeta=1.0)), stop=Stop(steps=7))
    assert [r.verdict for r in s.records] == ["accepted"] * 7
    assert Counter(calls) == {"forward": 8, "backward": 7}  # one more forward sweep for the start
    assert (s.iterate.counts.forward_sweeps, s.iterate.counts.backward_sweeps) == (8, 7)


@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"batch_size": 5, "stop": Stop(epochs=3, residual=1e-9)}])
def test_every_sweep_is_counted(options: dict[str, Any]) -> None:
    calls: list[str] = []
    s = run(Problem(NET, rho=1e-3, sweep=Counting(calls)), method=Method(ClassicRule(1e-3, sigma=2.0)), **options)
    assert s.iterate.counts.rejections > 0
    assert Counter(calls) == {"forward": s.iterate.counts.forward_sweeps, "backward": s.iterate.counts.backward_sweeps}


def test_recomputed_states_change_the_count_and_nothing_else() -> None:
    kept = run(Problem(NET, rho=0.01))
    again = run(Problem(NET, rho=0.01, sweep=Sweep(NET, CrossEntropy(), memory=0)))
    assert same(kept.controls, again.controls)
    assert [r.J for r in kept.records] == [r.J for r in again.records]
    assert (
        again.iterate.counts.forward_sweeps == kept.iterate.counts.forward_sweeps + kept.iterate.counts.backward_sweeps
    )


def test_chunk_sizes_change_the_run_by_rounding_only() -> None:
    whole, parts = (run(Problem(NET, rho=0.01, sweep=Sweep(NET, CrossEntropy(), chunk=c))) for c in (64, 5))
    np.testing.assert_allclose(to_vector(parts.controls), to_vector(whole.controls), atol=1e-10)


def test_a_rejected_trial_leaves_controls_and_evaluation_untouched() -> None:
    problem, method = Problem(NET, rho=0.01), Method(ClassicRule(1e-4, sigma=2.0))
    u, x, y = data()
    it = prepare(problem, method, Iterate(u, 1e-4), x, y)
    e = it.current.evaluation
    held = [*arrays_of(u), *arrays_of(it.controls), *arrays_of(e.switching), e.losses]  # type: ignore[union-attr]
    copies = [a.copy() for a in held]
    after, record = step(problem, method, it, x, y)
    assert record.verdict is Verdict.REJECTED
    assert after.controls is it.controls and after.current.evaluation is e
    assert after.current.metric is it.current.metric
    assert (after.eps, after.current.rejections, after.counts.rejections, after.step) == (2e-4, 1, 1, 0)
    assert (after.current.prepared, after.current.finite_trials) == (True, 1)
    assert after.counts.forward_sweeps == it.counts.forward_sweeps + 1
    for a, b in zip(copies, held, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_accepted_trial_hands_over_its_own_evaluation() -> None:
    problem, method = Problem(NET, rho=0.01), Method(ClassicRule(10.0))
    u, x, y = data()
    it, record = step(problem, method, Iterate(u, 10.0), x, y)
    e = it.current.evaluation
    assert record.accepted and not it.current.prepared and e is not None and e.switching is None
    np.testing.assert_array_equal(e.losses, problem.sweeper.forward(it.controls, x, y).losses)
    assert (it.step, record.step, it.eps) == (1, 1, 9.0)
    again = prepare(problem, method, it, x, y)
    assert (again.counts.forward_sweeps, again.counts.backward_sweeps, again.memory.iterates) == (2, 2, 2)


def test_the_band_of_epsilon_is_in_force_only_while_there_is_a_penalty() -> None:
    """At ρ = 0 ε follows the estimate down; with a penalty the band holds it, before a ramp has begun too."""
    narrow, wide = CurvatureRule(theta=1.0, memory=0.9), CurvatureRule(theta=1.0, memory=0.9, band=100.0)
    free = [run(Problem(NET, rho=0.0), method=Method(rule)) for rule in (narrow, wide)]
    assert same(free[0].controls, free[1].controls) and free[0].records == free[1].records
    assert free[0].records[0].eps == 1.0 > free[0].records[1].eps
    followed, held = (
        [r.eps for r in run(Problem(NET, rho=1e-3), method=Method(rule, ramp=Ramp(0.3, 0.6))).steps]
        for rule in (narrow, wide)
    )
    assert any(b < a for a, b in pairwise(followed)) and all(b >= a for a, b in pairwise(held))


def test_epsilon_falls_slowly_only_while_rho_is_not_0() -> None:
    """ε₀ is far above the curvature. Eight steps, the part 1/8 of the run each, or four batches in two epochs."""
    rule = CurvatureRule(eps0=1e3, zeta=0.5, fall=0.5)
    slow = math.exp(-1 / (8 * 0.5))

    def factors(problem: Problem, **ramp: Any) -> list[float]:
        found = run(problem, method=Method(rule, **ramp), stop=Stop(steps=8)).steps
        return [b.eps / a.eps for a, b in pairwise(found)]

    np.testing.assert_allclose(factors(Problem(NET, rho=1e-3)), 7 * [slow])
    np.testing.assert_allclose(factors(Problem(NET, rho=0.0)), 7 * [0.5])
    ramped = factors(Problem(NET, rho=1e-3), ramp=Ramp(0.5, 1.0))  # the ramp begins behind the fifth step
    np.testing.assert_allclose(ramped, 5 * [0.5] + 2 * [slow])
    x = data()[1]
    batches = run(Problem(NET, rho=1e-3), method=Method(rule), stop=Stop(epochs=2), batch_size=-(-len(x) // 4)).steps
    np.testing.assert_allclose([b.eps / a.eps for a, b in pairwise(batches)], 7 * [slow])


def test_a_step_prepares_what_is_not_prepared_and_nothing_twice() -> None:
    """Other arrays are the next batch; the same arrays go on with what is known there."""
    u, x, y = data()
    problem, method = Problem(NET, rho=0.01), Method(ClassicRule(1e-4, 2.0), metric=GradientMetric())
    first = x[:6], y[:6]
    one, record = step(problem, method, Iterate(u, 1e-4), *first)
    assert record.verdict is Verdict.REJECTED and one.counts.backward_sweeps == 1
    two, _ = step(problem, method, one, *first)
    assert two.counts.backward_sweeps == 1 and two.current.rejections == 2 and two.memory.iterates == 1
    other, _ = step(problem, method, one, x[6:], y[6:])
    assert other.counts.backward_sweeps == 2 and other.current.rejections == 1 and other.memory.iterates == 2
    same_again, _ = step(problem, method, one, x[:6], y[:6])  # other arrays, though with equal entries
    assert same_again.memory.iterates == 2


def test_the_metric_stays_between_the_rejections_of_one_control() -> None:
    u, x, y = data()
    trials = Trials(u)
    method = Method(ClassicRule(1e-4, 2.0), metric=GradientMetric())
    bsqh(Problem(NET, rho=0.01), u, x, y, stop=Stop(steps=4), method=method, callback=trials)
    metrics: dict[int, set[int]] = {}
    for it in trials.iterates:
        metrics.setdefault(it.memory.iterates, set()).add(id(it.current.metric))
    assert len(metrics) == 4 and all(len(ids) == 1 for ids in metrics.values())
    assert len({i for ids in metrics.values() for i in ids}) > 1
    assert sum(not r.accepted for r in trials.records) > 4


# --- statuses


def test_converged_by_residual_keeps_the_control_it_was_measured_at() -> None:
    problem = Problem(NET, rho=0.01, regulariser=L1())
    u, x, y = data()
    s = bsqh(problem, u, x, y, stop=Stop(steps=3000, residual=1e-3))
    assert s.status is Status.CONVERGED_RESIDUAL
    last = s.records[-1]
    assert last.verdict == "converged by residual" and last.residual <= 1e-3 < s.records[-2].residual
    assert last.step == s.iterate.step == len(s.steps)
    _, record = step(problem, Method(), Iterate(s.controls, last.eps), x, y)
    np.testing.assert_allclose(record.residual, last.residual, rtol=1e-9)


def test_converged_by_increment() -> None:
    s = run(Problem(NET, rho=0.01), stop=Stop(steps=300, increment=1e-2))
    assert s.status is Status.CONVERGED_INCREMENT
    assert s.records[-1].tau < 1e-2 <= min(r.tau for r in s.steps[:-1])
    assert s.records[-1].accepted and s.iterate.step == len(s.steps) < 300


def test_precision_limit_in_float32() -> None:
    u, x, y = data()
    s = bsqh(Problem(NET, rho=0.0), cast(u, "float32"), x.astype(np.float32), y, stop=Stop(steps=100_000))
    assert s.status is Status.PRECISION_LIMIT
    last = s.records[-1]
    assert last.verdict == "precision limit" and last.sum_dh <= last.rounding and s.iterate.eps < 1e6
    # float64 goes on from there
    assert (
        bsqh(Problem(NET, rho=0.0), cast(s.controls, "float64"), x, y, stop=Stop(steps=3)).status
        is Status.ITERATION_LIMIT
    )


def test_a_start_with_a_huge_epsilon_ends_at_once_and_the_message_names_both_remedies() -> None:
    u, x, y = data()
    u, x = cast(u, "float32"), x.astype(np.float32)
    ends = [
        bsqh(Problem(NET, rho=0.0), u, x, y, stop=Stop(steps=3), method=Method(CurvatureRule(eps)))
        for eps in (1e6, 1.0)
    ]
    assert [(s.status, len(s.steps)) for s in ends] == [(Status.PRECISION_LIMIT, 0), (Status.ITERATION_LIMIT, 3)]
    assert "float64" in Status.PRECISION_LIMIT.message and "smaller ε₀" in Status.PRECISION_LIMIT.message


def test_augmentation_limit_by_the_fixed_rule() -> None:
    s = run(Problem(NET, rho=0.01), method=Method(FixedRule(1e-4)))
    assert s.status is Status.AUGMENTATION_LIMIT and [r.verdict for r in s.records] == ["rejected"]
    assert s.iterate.eps == 1e-4 and same(s.controls, data()[0])  # the ε that failed


@pytest.mark.parametrize("caps", [{"max_rejections": 3}, {"eps_max": 1e-3}], ids=str)
def test_augmentation_limit_by_the_caps(caps: dict[str, Any]) -> None:
    s = run(Problem(NET, rho=0.01), method=Method(ClassicRule(2e-4, sigma=2.0), **caps))
    assert s.status is Status.AUGMENTATION_LIMIT and len(s.records) == 3
    assert s.iterate.current.rejections == s.iterate.counts.rejections == 3 and same(s.controls, data()[0])
    words = {"max_rejections": "allow more rejections", "eps_max": "raise eps_max"}
    assert all(words[cap] in s.status.message for cap in caps)


@pytest.mark.parametrize("stop", [Stop(steps=4), Stop(epochs=4)])
def test_iteration_limit(stop: Stop) -> None:
    s = run(Problem(NET, rho=0.01), stop=stop)
    assert s.status is Status.ITERATION_LIMIT and s.iterate.step == len(s.steps) == s.iterate.epoch == 4


def test_no_steps_asked_for() -> None:
    s = run(Problem(NET, rho=0.0), stop=Stop(steps=0))
    assert s.status is Status.ITERATION_LIMIT and s.records == () and same(s.controls, data()[0])


def overflowing() -> tuple[Problem, Any, Any, Any]:
    network = Network((L.Dense(2, bias=False), L.Dense(2, bias=False)), (2,))
    u, x, _ = data(0, 3, network)
    return Problem(network, SquaredLoss(), rho=0.0), u, x, np.zeros((3, 2))


@pytest.mark.filterwarnings("ignore:the largest absolute value in the images")  # they are meant to overflow
def test_non_finite_at_the_start() -> None:
    problem, u, x, y = overflowing()
    s = bsqh(problem, u, 1e200 * x, y, stop=Stop(steps=5))
    assert s.status is Status.NON_FINITE and s.records[0].verdict == "non-finite" and same(s.controls, u)


def test_non_finite_if_every_trial_is() -> None:
    """J(u) is finite, ε far too small: J(w) overflows in every trial up to the cap; NaN is never accepted."""
    problem, u, x, y = overflowing()
    u = map_controls(lambda a: a + 1.0, u)
    s = bsqh(problem, u, x, y, stop=Stop(steps=5), method=Method(ClassicRule(1e-290, sigma=1.01), max_rejections=4))
    assert s.status is Status.NON_FINITE and same(s.controls, u)
    assert [r.verdict for r in s.records] == ["non-finite trial"] * 4
    # the same start with larger steps of ε recovers
    s = bsqh(problem, u, x, y, stop=Stop(steps=5), method=Method(ClassicRule(1e-290, sigma=1e12), max_rejections=40))
    assert s.status is Status.ITERATION_LIMIT and "non-finite trial" in {r.verdict for r in s.records}


def test_control_unchanged_at_a_fixed_point() -> None:
    """Ternary controls at a large ε: the maximiser is the control itself."""
    s = bsqh(*ternary(), stop=Stop(steps=5, residual=1.0), method=Method(ClassicRule(100.0)))
    assert s.status is Status.CONTROL_UNCHANGED
    assert s.records[-1].verdict == "control unchanged" and s.records[-1].tau == 0 and s.records[-1].residual == 0


def ternary() -> tuple[Problem, Any, Any, Any]:
    problem = Problem(NET, admissible=FiniteSet((-1.0, 0.0, 1.0)), rho=1e-3)
    u, x, y = data()
    return problem, problem.project(map_controls(lambda a: 2 * a, u)), x, y


def test_a_control_unchanged_by_rounding_is_not_converged_by_residual() -> None:
    """At ε = 10¹⁸ g/(2ε) is below the spacing of u: the residual 2ε‖w − u‖ = 0 proves nothing."""
    u, x, y = data()
    u = map_controls(lambda a: a + 1.0, u)
    s = bsqh(
        Problem(NET, rho=0.0), u, x, y, stop=Stop(steps=5, residual=1e-6), method=Method(FixedRule(1e18), eps_max=1e19)
    )
    assert s.status is Status.CONTROL_UNCHANGED and not s.steps


@pytest.mark.parametrize("admissible", [Box(-1, 1), FiniteSet((-1, 0, 1))], ids=str)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_small_augmentation_is_not_taken_for_a_small_residual(admissible: Any, batch_size: int | None) -> None:
    """A jump to the bounds or to another value has 2ε‖w − u‖ → 0 as ε → 0, at any control."""
    problem, (u, x, y) = Problem(NET, admissible=admissible, rho=0.0), data()
    s = bsqh(
        problem,
        problem.project(u),
        x,
        y,
        method=Method(FixedRule(1e-9), NoTest()),
        batch_size=batch_size,
        stop=Stop(epochs=2, residual=1e-4),
    )
    assert s.records[0].residual < 1e-6 and s.status is Status.ITERATION_LIMIT


def test_residual_is_measured_at_the_first_trial_of_a_control() -> None:
    """Whatever its verdict: without bounds and penalty 2ε‖w − u‖ = ‖g‖ at every ε. The control stays."""
    problem, (u, x, y) = Problem(NET, rho=0.0), data()
    e = problem.sweeper.backward(u, problem.sweeper.forward(u, x, y))
    norm = float(np.linalg.norm(to_vector(e.switching)))
    for tolerance, status in ((1.001 * norm, Status.CONVERGED_RESIDUAL), (0.999 * norm, Status.ITERATION_LIMIT)):
        s = run(problem, method=Method(ClassicRule(1e-3, sigma=2.0)), stop=Stop(steps=1, residual=tolerance))
        assert s.status is status and s.records[0].verdict == "rejected"
        np.testing.assert_allclose(s.records[0].residual, norm, rtol=1e-9)
    assert same(run(problem, stop=Stop(steps=1, residual=1.001 * norm)).controls, u)


def test_interrupted_by_the_callback() -> None:
    seen: list[int] = []
    s = run(Problem(NET, rho=0.01), callback=lambda it, record: seen.append(it.step) or it.step == 3)
    assert s.status is Status.INTERRUPTED and s.iterate.step == 3 and seen[-1] == 3
    assert len(s.records) == len(seen)


def test_every_status_has_a_message_and_a_name() -> None:
    assert {str(s) for s in Status} == {
        "converged by residual",
        "converged by increment",
        "precision limit",
        "augmentation limit",
        "iteration limit",
        "non-finite",
        "control unchanged",
        "interrupted",
    }
    assert len({s.message for s in Status}) == len(Status)


class Interrupting(Sweep):
    """Raises KeyboardInterrupt in the n-th call of one of its maps."""

    def __init__(self, which: str, n: int) -> None:
        super().__init__(NET, CrossEntropy())
        object.__setattr__(self, "left", {which: n})

    def _count(self, which: str) -> None:
        if which in self.left:  # type: ignore[attr-defined]
            self.left[which] -= 1  # type: ignore[attr-defined]
            if self.left[which] == 0:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

    def forward(self, controls: Any, x: Any, y: Any) -> Evaluation:
        self._count("forward")
        return super().forward(controls, x, y)

    def backward(self, controls: Any, e: Evaluation) -> Evaluation:
        self._count("backward")
        return super().backward(controls, e)


INTERRUPTED = Method(CurvatureRule(0.05), metric=GradientMetric(beta=0.9))


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 11])
def test_ctrl_c_anywhere_in_a_sweep_leaves_a_complete_iterate(which: str, n: int) -> None:
    """Resumed, the run ends in the same controls, bit for bit; end-of-epoch sweeps included."""
    options: dict[str, Any] = {
        "method": replace(INTERRUPTED, averaging=Averaging(0.5)),
        "batch_size": 5,
        "stop": Stop(epochs=3, increment=1e-300),
    }
    whole = run(Problem(NET, rho=0.01), **options)
    s = run(Problem(NET, rho=0.01, sweep=Interrupting(which, n)), **options)
    assert s.status is Status.INTERRUPTED
    assert sum(r.accepted for r in s.records) == s.iterate.step
    rest = run(Problem(NET, rho=0.01), resume=s.iterate.at_rest(), **options)
    assert same(rest.controls, whole.controls)
    assert [r.J for r in (*s.records, *rest.records)] == [r.J for r in whole.records]


@pytest.mark.parametrize("function", ["go_on", "end_of_epoch", "next_batch"])
def test_ctrl_c_between_the_sweeps_leaves_a_complete_iterate(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"batch_size": 5, "stop": Stop(epochs=2, increment=1e-300)}
    whole = run(Problem(NET, rho=0.01), **options)

    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, function, interrupt)
        s = run(Problem(NET, rho=0.01), **options)
    assert s.status is Status.INTERRUPTED and len(s.steps) == s.iterate.step
    rest = run(Problem(NET, rho=0.01), resume=s.iterate.at_rest(), **options)
    assert same(rest.controls, whole.controls)


# --- resume


RUNS: dict[str, dict[str, Any]] = {
    "full batch": {
        "method": Method(ClassicRule(1e-3, sigma=2.0), metric=GradientMetric(beta=0.5)),
        "stop": Stop(steps=6),
    },
    "mini-batches": {
        "method": replace(INTERRUPTED, averaging=Averaging(0.5), ramp=Ramp(0.0, 0.5)),
        "batch_size": 5,
        "stop": Stop(epochs=4),
    },
    "skipped batches": {
        "method": Method(ClassicRule(1e-2, sigma=1.5), max_rejections=3, averaging=Averaging(0.8, 2)),
        "batch_size": 3,
        "stop": Stop(epochs=5),
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_resume_goes_on_bit_for_bit_from_every_trial(name: str) -> None:
    """From each iterate, mid-epoch and mid-rejections, with its evaluation left out as in a checkpoint."""
    u, x, y = data()
    problem, trials = Problem(NET, rho=0.02), Trials(u)
    whole = bsqh(problem, u, x, y, callback=trials, **RUNS[name])
    assert any(it.current.rejections for it in trials.iterates)
    if name == "skipped batches":
        assert whole.iterate.counts.skipped > 0
    if name != "full batch":
        assert any(r.averaged for r in trials.records)
    if name == "skipped batches":
        assert any(r.verdict == "average dropped" for r in trials.records)
    for k, it in enumerate(trials.iterates[:-1]):
        rest = bsqh(problem, None, x, y, resume=it.at_rest(), **RUNS[name])
        assert same(rest.controls, whole.controls) and rest.status is whole.status
        assert [(r.J, r.eps, r.verdict) for r in rest.records] == [
            (r.J, r.eps, r.verdict) for r in whole.records[k + 1 :]
        ]
        assert (rest.iterate.step, rest.iterate.counts.skipped) == (whole.iterate.step, whole.iterate.counts.skipped)


def test_resume_with_its_evaluation_makes_no_sweep_twice() -> None:
    problem = Problem(NET, rho=0.01)
    whole = run(problem, stop=Stop(steps=6))
    half = run(problem, stop=Stop(steps=3))
    rest = run(problem, stop=Stop(steps=6), resume=half.iterate)
    assert same(rest.controls, whole.controls)
    assert rest.iterate.counts.forward_sweeps == whole.iterate.counts.forward_sweeps


def test_resume_checks_the_controls_it_starts_from() -> None:
    u, x, y = data()
    it = Iterate(map_controls(lambda a: a.astype(np.float32), u), 1.0)
    with pytest.raises(InputError, match="float32"):
        bsqh(Problem(NET, rho=0.0), None, x, y, stop=Stop(steps=1), resume=it)


def test_resume_takes_no_controls_but_those_of_the_iterate() -> None:
    """None, the very controls, a copy of them; anything else would be ignored, so it is refused."""
    _, x, y = data()
    problem = Problem(NET, rho=0.01)
    half, whole = (run(problem, stop=Stop(steps=n)) for n in (3, 6))
    copied = map_controls(np.copy, half.controls)
    for own in (None, half.controls, half.iterate.controls, copied, [list(stage) for stage in copied]):
        rest = bsqh(problem, own, x, y, stop=Stop(steps=6), resume=half.iterate)  # type: ignore[arg-type]
        assert same(rest.controls, whole.controls)
    other = map_controls(np.copy, half.controls)
    other[0][0].flat[-1] += 1e-9
    start = data()[0]
    for wrong in ("nonsense", "nons", 3, start, other, copied[:3], ((), (), (), ()), map_controls(np.ravel, copied)):
        with pytest.raises(
            InputError, match=r"not those of resume.*give None or resume\.controls, or leave resume out"
        ):
            bsqh(problem, wrong, x, y, stop=Stop(steps=6), resume=half.iterate)  # type: ignore[arg-type]


def test_a_run_needs_controls_or_an_iterate() -> None:
    _, x, y = data()
    with pytest.raises(InputError, match="no controls were given"):
        bsqh(Problem(NET, rho=0.0), None, x, y, stop=Stop(steps=1))


def test_rho_has_no_default() -> None:
    """Nobody gets an unpenalised problem unawares; ρ = 0 is asked for."""
    with pytest.raises(TypeError, match="rho"):
        Problem(NET)  # type: ignore[call-arg]
    run(Problem(NET, regulariser=L1(), rho=0.0), stop=Stop(steps=1))  # warnings are errors


def test_labels_that_count_from_1_are_noticed() -> None:
    u, x, _ = data(samples=30)
    few = np.arange(30) % 2 + 1
    with pytest.warns(LabelWarning, match=r"no label is 0, and labels 1 to 2 occur 15, 15 times.*has 3 classes"):
        bsqh(Problem(NET, rho=0.0), u, x, few, stop=Stop(steps=1))
    for y in (np.arange(30) % 3, 0 * few, 0 * few + 1, np.where(np.arange(30) == 0, 0, few)):
        bsqh(Problem(NET, rho=0.0), u, x, y, stop=Stop(steps=1))
    bsqh(Problem(NET, rho=0.0), u, x[:14], few[:14], stop=Stop(steps=1))  # too few to say


# --- mini-batches


def test_every_sample_is_used_once_in_an_epoch() -> None:
    x = np.arange(11.0)[:, None]
    y = np.arange(11)
    for batches in (4, 11, 1):
        orders = []
        for epoch in (0, 1):
            parts = [take_batch(x, y, batches, k, 3, epoch) for k in range(batches)]
            sizes = [p.shape[0] for p, _ in parts]
            assert max(sizes) - min(sizes) <= 1
            order = np.concatenate([q for _, q in parts])
            assert sorted(order) == list(range(11)) and np.array_equal(
                np.concatenate([p for p, _ in parts])[:, 0], order
            )
            orders.append(order.tolist())
        assert orders[0] != orders[1]
    assert take_batch(x, y, 4, 0, 3, 0)[1].tolist() == take_batch(x, y, 4, 0, 3, 0)[1].tolist()
    assert take_batch(x, y, 2, 0, 4, 0)[1].tolist() != take_batch(x, y, 2, 0, 3, 0)[1].tolist()


def moved(image: np.ndarray, down: int, right: int, mirrored: int) -> np.ndarray:
    """The image pixel by pixel: mirrored, then moved, 0 where nothing comes."""
    out = np.zeros_like(image)
    _, h, w = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                out[:, i, j] = image[:, i - down, w - 1 - (j - right) if mirrored else j - right]
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_are_mirrored_and_moved_by_their_own_draws(dtype: str) -> None:
    x = np.random.default_rng(0).integers(1, 256, (23, 2, 5, 7)).astype(dtype)
    y = np.arange(23)
    vary = FlipsAndShifts(shift=3, flip=True)
    for epoch in (0, 4):
        draws = vary.draws(23, 8, epoch)
        for batches in (1, 4):
            for k in range(batches):
                bx, by = take_batch(x, y, batches, k, 8, epoch, vary=vary)
                assert bx.dtype == x.dtype
                np.testing.assert_array_equal(bx, [moved(x[s], *draws[s]) for s in by])
    many = vary.draws(4000, 8, 0)
    assert [set(many[:, k]) for k in range(3)] == [set(range(-3, 4))] * 2 + [{0, 1}]
    assert abs(many.mean(axis=0) - (0, 0, 0.5)).max() < 0.1 and not np.array_equal(many, vary.draws(4000, 8, 1))
    assert not FlipsAndShifts(shift=3).draws(40, 8, 0)[:, 2].any()
    assert not FlipsAndShifts(flip=True).draws(40, 8, 0)[:, :2].any()


def test_a_run_on_varied_images_goes_on_bit_for_bit_and_refuses_what_cannot_be_moved() -> None:
    network = Network((L.Convolution(2, 3), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 5, 6))
    problem = Problem(network, rho=1e-3)
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(14, 1, 5, 6)), generator.integers(0, 3, 14)
    how: dict[str, Any] = {"stop": Stop(epochs=3), "batch_size": 5, "seed": 2, "vary": FlipsAndShifts(2, True)}
    u = initial_controls(network, 0, x)
    whole = bsqh(problem, u, x, y, **how)
    part = bsqh(problem, u, x, y, **how, callback=lambda it, record: it.epoch == 1 and it.place.position == 1)
    assert 0 < len(part.records) < len(whole.records)
    rest = bsqh(problem, None, x, y, **how, resume=part.iterate.at_rest())
    assert [r.J for r in part.records + rest.records] == [r.J for r in whole.records]
    plain = bsqh(problem, u, x, y, **(how | {"vary": None}))
    assert [r.J for r in plain.records] != [r.J for r in whole.records]
    for changes, words in (
        ({"batch_size": None}, "mini-batches"),
        ({"vary": FlipsAndShifts(5)}, "smaller than H and W"),
    ):
        with pytest.raises(InputError, match=words):
            bsqh(problem, u, x, y, **(how | changes))
    for bad in ({"shift": -1}, {"shift": 1.5}, {"flip": 1}):
        with pytest.raises(InputError, match="expected an integer"):
            FlipsAndShifts(**bad)


class Remembering(Sweep):
    """Keeps the labels of every batch that is swept."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(NET, CrossEntropy())
        object.__setattr__(self, "batches", batches)

    def forward(self, controls: Any, x: Any, y: Any) -> Evaluation:
        self.batches.append(x[:, 0, 0, 0].tolist())  # type: ignore[attr-defined]
        return super().forward(controls, x, y)


def test_an_epoch_of_a_run_sweeps_every_sample() -> None:
    batches: list[Any] = []
    s = run(Problem(NET, rho=1e-3, sweep=Remembering(batches)), batch_size=5, stop=Stop(epochs=1))
    first = [b for i, b in enumerate(batches) if i == 0 or b != batches[i - 1]]
    assert sorted(v for b in first for v in b) == sorted(data()[1][:, 0, 0, 0].tolist())
    assert len(first) == 3 and s.iterate.epoch == 1 and s.iterate.place.position == 0
    assert {len(b) for b in batches} == {4}  # twelve samples in three equal parts, none larger than 5


def test_each_step_is_judged_on_its_own_batch_with_one_rho() -> None:
    """The record's J's are those of the batch, both at the ramped ρ; the same batch serves all trials of a control."""
    problem = Problem(NET, rho=0.05)
    u, x, y = data()
    trials = Trials(u)
    method = Method(CurvatureRule(0.05), ramp=Ramp(0.0, 1.0))
    bsqh(problem, u, x, y, method=method, batch_size=5, stop=Stop(epochs=3), callback=trials, seed=7)
    rhos = []
    for before, after, r in trials.pairs():
        bx, by = take_batch(x, y, 3, r.position, 7, r.epoch)
        np.testing.assert_allclose(r.J_before, objective(problem, before, bx, by, r.rho), rtol=1e-13)
        if r.accepted:
            np.testing.assert_allclose(r.J, objective(problem, after, bx, by, r.rho), rtol=1e-13)
            assert r.delta_J <= -1e-6 * r.tau
        np.testing.assert_allclose(r.delta_J, r.J - r.J_before, atol=1e-14)
        assert r.rho == pytest.approx(0.05 * (r.epoch + r.position / 3) / 3)
        rhos.append(r.rho)
    assert rhos == sorted(rhos) and len(set(rhos)) == 9


def test_batches_without_an_accepted_trial_are_skipped_and_counted() -> None:
    u, x, y = data()
    trials = Trials(u)
    method = Method(ClassicRule(0.05, sigma=1.3, zeta=0.4), max_rejections=2)
    s = bsqh(Problem(NET, rho=0.01), u, x, y, method=method, batch_size=4, stop=Stop(epochs=8), callback=trials)
    done = Counter((r.epoch, r.position) for r in s.steps)
    tried = {(r.epoch, r.position) for r in s.records}
    assert max(done.values()) == 1 and s.iterate.counts.skipped == len(tried) - len(done) > 0
    assert len(tried) == 3 * s.iterate.epoch
    per_batch = Counter((r.epoch, r.position) for r in s.records if r.verdict == "rejected")
    assert max(per_batch.values()) == 2 and sum(per_batch.values()) == s.iterate.counts.rejections


def test_an_epoch_without_an_accepted_trial_ends_the_run() -> None:
    """With the reason of its last batch, after the whole epoch."""
    s = run(
        Problem(NET, rho=0.0),
        method=Method(ClassicRule(1e-4, 1.1), max_rejections=2),
        batch_size=4,
        stop=Stop(epochs=9),
    )
    assert s.status is Status.AUGMENTATION_LIMIT and s.iterate.counts.skipped == 3 and len(s.records) == 6
    assert (s.iterate.epoch, s.iterate.place.position) == (1, 0)
    problem, u, x, y = ternary()
    s = bsqh(problem, u, x, y, method=Method(ClassicRule(100.0)), batch_size=4, stop=Stop(epochs=9))
    assert s.status is Status.CONTROL_UNCHANGED and s.iterate.counts.skipped == 3 == len(s.records)


def test_fixed_rule_ends_a_mini_batch_run_at_its_first_failure() -> None:
    s = run(Problem(NET, rho=0.0), method=Method(FixedRule(1e-4)), batch_size=4)
    assert s.status is Status.AUGMENTATION_LIMIT and len(s.records) == 1


def test_rounding_on_a_batch_does_not_enlarge_the_augmentation() -> None:
    """Precision limit and unchanged control skip the batch with the ε its first trial had."""
    problem, u, x, y = ternary()
    trials = Trials(u)
    bsqh(problem, u, x, y, method=Method(ClassicRule(0.02, 2.0)), batch_size=2, stop=Stop(epochs=3), callback=trials)
    unchanged = [(i, r) for i, r in enumerate(trials.records) if r.verdict == "control unchanged"]
    assert any(r.rejections > 0 for _, r in unchanged)
    for i, r in unchanged:
        first = next(q for q in trials.records if (q.epoch, q.position) == (r.epoch, r.position))
        assert trials.iterates[i].eps == first.eps


def test_full_data_tests_at_the_end_of_an_epoch() -> None:
    calls: list[str] = []
    s = run(Problem(NET, rho=1e-3, sweep=Counting(calls)), batch_size=4, stop=Stop(epochs=5, residual=1e9))
    assert s.status is Status.CONVERGED_RESIDUAL and s.iterate.epoch == 1 and s.iterate.place.position == 0
    assert len(s.steps) == s.iterate.step  # the accepted steps stay
    s = run(Problem(NET, rho=1e-3), batch_size=4, stop=Stop(epochs=5, increment=1e9))
    assert s.status is Status.CONVERGED_INCREMENT and s.iterate.epoch == 1
    s = run(Problem(NET, rho=1e-3), batch_size=4, stop=Stop(epochs=2, increment=1e-300, residual=1e-300))
    assert s.status is Status.ITERATION_LIMIT and s.iterate.epoch == 2
    s = run(Problem(NET, rho=1e-3), batch_size=4, stop=Stop(steps=2))
    assert s.status is Status.ITERATION_LIMIT and (s.iterate.epoch, s.iterate.place.position, s.iterate.step) == (
        0,
        2,
        2,
    )


# --- averaged switching functions


def test_averages_serve_from_the_second_batch_and_fall_back_to_plain_g() -> None:
    """Before ε grows the maximiser goes back to g; ΣΔH, Ĉ and the test use the batch's own g throughout."""
    u, x, y = data()
    trials = Trials(u)
    problem, method = Problem(NET, rho=1e-3), Method(CurvatureRule(0.02), averaging=Averaging(0.9, patience=3))
    bsqh(problem, u, x, y, method=method, batch_size=2, stop=Stop(epochs=6), callback=trials)
    verdicts = Counter(r.verdict for r in trials.records)
    assert verdicts["average dropped"] > 3 and verdicts["rejected"] > 0
    first: dict[Any, Record] = {}
    for (before, after, r), it in zip(trials.pairs(), trials.iterates, strict=True):
        at = (r.epoch, r.position)
        first.setdefault(at, r)
        if r.verdict == "average dropped":
            assert (
                r.averaged
                and it.eps == r.eps == first[at].eps
                and not it.current.use_average
                and it.current.rejections == 0
            )
        if r.verdict == "rejected":
            assert not r.averaged
        if r.accepted:
            e = problem.sweeper.backward(
                before, problem.sweeper.forward(before, *take_batch(x, y, 6, r.position, 0, r.epoch))
            )
            delta = to_vector(after) - to_vector(before)
            penalties = 1e-3 * (float(problem.penalty(after)) - float(problem.penalty(before)))
            np.testing.assert_allclose(r.sum_dh, to_vector(e.switching) @ delta - penalties, rtol=1e-8, atol=1e-15)
    assert not first[0, 0].averaged and first[0, 1].averaged
    assert any(r.averaged and r.accepted for r in trials.records)


def test_an_average_that_fails_again_and_again_is_reset() -> None:
    u, x, y = data()
    trials = Trials(u)
    bsqh(
        Problem(NET, rho=0.0),
        u,
        x,
        y,
        method=Method(CurvatureRule(0.02), averaging=Averaging(0.9, patience=2)),
        batch_size=2,
        stop=Stop(epochs=6),
        callback=trials,
    )
    counts = [it.memory.averaged for it in trials.iterates]
    resets = [i for i in range(1, len(counts)) if counts[i] < counts[i - 1]]
    assert resets and all(counts[i] == 1 for i in resets)
    assert all(trials.iterates[i - 1].memory.returns >= 2 and not trials.records[i].averaged for i in resets)


def test_a_descent_direction_that_is_none_goes_back_to_plain_g() -> None:
    """T13's counterexample, J = u²/2 at u = 1 with m = +1: the average points uphill, ΣΔH ≤ 0."""
    network = Network((L.Dense(1, bias=False),), (1,))
    problem, method = Problem(network, SquaredLoss(), rho=0.0), Method(ClassicRule(1.0), averaging=Averaging(0.5))
    u, x, y = ((np.ones((1, 1)),),), np.ones((1, 1)), np.zeros((1, 1))
    it = prepare(problem, method, Iterate(u, 1.0), x, y)
    uphill = from_vector(np.array([1.0]), u)
    memory = replace(it.memory, average=map_controls(lambda a: 0.5 * a, uphill), averaged=1)
    it = replace(it, current=replace(it.current, use_average=True), memory=memory)
    after, record = step(problem, method, it, x, y)
    assert record.verdict == "average dropped" and record.sum_dh < 0
    assert after.controls is u and after.eps == 1.0 and not after.current.use_average and after.memory.returns == 1
    _, record = step(problem, method, after, x, y)
    assert record.accepted and not record.averaged


# --- the ramp of ρ


def test_ramp_is_linear_between_its_ends() -> None:
    ramp = Ramp(0.2, 0.6)
    assert [ramp(2.0, t) for t in (0.0, 0.2, 1.0, 0.6)] == [0.0, 0.0, 2.0, 2.0]
    assert ramp(2.0, 0.4) == pytest.approx(1.0)


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("test", [{"residual": 1e9}, {"increment": 1e9}], ids=str)
def test_no_run_converges_before_rho_has_its_value(test: dict[str, float], batch_size: int | None) -> None:
    method = Method(ramp=Ramp(0.0, 0.5))
    s = run(Problem(NET, rho=1e-3), stop=Stop(epochs=8, **test), method=method, batch_size=batch_size)
    assert s.status in (Status.CONVERGED_RESIDUAL, Status.CONVERGED_INCREMENT)
    assert s.records[-1].rho == 1e-3 and all(r.rho < 1e-3 for r in s.records if r.epoch < 4) and s.records[0].rho == 0
    with pytest.raises(InputError, match="ramp of ρ needs to know how long"):
        run(Problem(NET, rho=1e-3), stop=Stop(**test), method=method)


def test_progress() -> None:
    it = Place(step=3, epoch=1, position=2)
    assert Stop(steps=12).progress(it, 4) == 0.25 and Stop(epochs=2).progress(it, 4) == 0.75
    assert Stop(steps=12, epochs=2).progress(it, 4) == 0.75 and Stop(increment=1.0).progress(it, 4) == 0.0
    assert Stop(steps=2).progress(it, 4) == 1.0


# --- dtypes, transfers, bad input


@pytest.mark.parametrize(
    "batch", [{}, {"batch_size": 5, "method": Method(metric=GradientMetric(), averaging=Averaging(0.5))}]
)
@pytest.mark.parametrize("regulariser", REGULARISERS, ids=lambda r: type(r).__name__)
def test_float32_runs_stay_float32(regulariser: Any, batch: dict[str, Any]) -> None:
    """With parameters given as NumPy numbers too, which would promote if they were not made Python floats."""
    wide = np.float64
    u, x, y = data()
    box = Box(wide(-4), wide(4)) if not isinstance(regulariser, GroupL0) else Box()
    problem = Problem(NET, regulariser=regulariser, rho=wide(0.01), admissible=box)
    trials = Trials(cast(u, "float32"))
    options = {"method": Method(CurvatureRule(wide(0.5)), metric=LayerMetric(wide(0.5))), **batch}
    bsqh(problem, cast(u, "float32"), x.astype(np.float32), y, stop=Stop(steps=6), callback=trials, **options)
    for it in trials.iterates:
        held = [*arrays_of(it.controls), *(arrays_of(it.current.metric) if it.current.metric else ())]
        if it.current.evaluation is not None:
            held += [
                it.current.evaluation.losses,
                *(arrays_of(it.current.evaluation.switching) if it.current.evaluation.switching else ()),
            ]
        assert {a.dtype for a in held} == {np.dtype(np.float32)}
        assert type(it.eps) is float
    assert all(type(v) is float for r in trials.records for v in (r.J, r.tau, r.eps, r.rho, r.sum_dh))


@pytest.mark.parametrize(
    "method",
    [Method(), Method(metric=GradientMetric()), Method(averaging=Averaging(0.5))],
    ids=["plain", "metric", "average"],
)
def test_one_transfer_to_the_host_per_trial(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """``to_numpy`` is called once in a step, and nothing else turns an array into a number."""
    strict = load("array_api_strict")
    u, x, y = data()
    problem, u = Problem(NET, rho=0.01), map_controls(strict.asarray, u)
    batch = strict.asarray(x), strict.asarray(y)
    it = prepare(problem, method, Iterate(u, 1.0), *batch)
    if method.averaging:
        it = replace(it, current=replace(it.current, use_average=True))
    calls: list[int] = []
    original: Callable[..., Any] = one_step.to_numpy

    def counted(numbers: Any) -> Any:
        calls.append(numbers.shape[0])
        return original(numbers)

    def forbidden(self: Any, *args: Any) -> Any:
        raise AssertionError("an array was turned into a number on the host")

    kind = type(strict.asarray(np.zeros(1)))
    with monkeypatch.context() as patch:
        patch.setattr(one_step, "to_numpy", counted)
        for name in ("__float__", "__bool__", "__int__", "__index__", "__complex__"):
            patch.setattr(kind, name, forbidden)
        _, record = step(problem, method, it, *batch)
        with pytest.raises(AssertionError, match="turned into a number"):
            float(strict.xp.sum(strict.asarray(np.zeros(2))))  # the guard itself
    assert len(calls) == 1 and record.verdict in ("accepted", "rejected", "average dropped")


@pytest.mark.parametrize("seed", [-1, 0.5, "1", None])
def test_bad_seeds(seed: Any) -> None:
    with pytest.raises(InputError, match=f"seed is {seed!r}; expected an integer ≥ 0"):
        bsqh(Problem(NET, rho=0.0), *data(0, 12, NET), stop=Stop(steps=1), seed=seed)


@pytest.mark.parametrize("size", [0, -1, 13, 2.5, "4", True])
def test_bad_batch_sizes(size: Any) -> None:
    with pytest.raises(InputError, match=f"batch size {size} for 12 samples; expected an integer from 1 to 12"):
        run(Problem(NET, rho=0.0), batch_size=size)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stop(), ["no stop was given"]),
        (lambda: Stop(steps=-1), ["steps=-1", "≥ 0"]),
        (lambda: Stop(steps="3"), ["steps='3'", "integers"]),
        (lambda: Stop(epochs=1.5), ["epochs=1.5", "integers"]),
        (lambda: Stop(steps=1, epochs=-1), ["epochs=-1"]),
        (lambda: Stop(residual=-1.0), ["residual=-1.0"]),
        (lambda: Stop(increment=math.nan), ["increment=nan"]),
        (lambda: Method(max_rejections=0), ["max_rejections 0"]),
        (lambda: Method(max_rejections=None), ["max_rejections None", "integer"]),
        (lambda: Method(ClassicRule(2.0), eps_max=1.0), ["eps_max 1.0", "2.0"]),
        (lambda: Method(eps_max=math.nan), ["eps_max nan"]),
        (lambda: Ramp(0.5, 0.5), ["0.5 to 0.5"]),
        (lambda: Ramp(-0.1, 0.5), ["-0.1"]),
        (lambda: Ramp(0.0, 1.5), ["1.5"]),
        (lambda: Ramp(0.0, math.nan), ["nan"]),
        (lambda: run(Problem(NET, rho=0.0), method=Method(averaging=Averaging())), ["need mini-batches"]),
    ],
)
def test_bad_settings(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_bad_data_is_refused_before_any_sweep() -> None:
    calls: list[str] = []
    u, x, y = data()
    with pytest.raises(InputError, match="NaN"):
        bsqh(Problem(NET, sweep=Counting(calls), rho=0.0), u, np.full_like(x, np.nan), y, stop=Stop(steps=1))
    assert calls == []


def test_rules_of_ones_own() -> None:
    """A rule is any object with the two answers; J falls with this one as well."""

    @dataclass(frozen=True)
    class Doubling(Rule):
        eps0: float = 1e-3

        def rejected(self, eps: float, c_hat: float | None, eta: float) -> float:
            return 2 * eps

        def accepted(self, eps: float, c_hat: Any, smoothed: Any, eta: float, progress: float) -> tuple[float, None]:
            return eps, None

    s = run(Problem(NET, rho=0.01), method=Method(Doubling(), AbsoluteTest(1e-3), IdentityMetric()))
    assert s.status is Status.ITERATION_LIMIT and all(r.delta_J <= -1e-3 * r.tau for r in s.steps)
    assert all(r.eps == 1e-3 * 2.0 ** round(math.log2(r.eps / 1e-3)) for r in s.records)
