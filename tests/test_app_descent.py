"""The second opinion on accepted steps: it agrees with the definition, and it sees a faulty solver."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import (
    L0,
    L2,
    AbsoluteTest,
    Averaging,
    Convolution,
    Dense,
    FixedRule,
    Flatten,
    GradientMetric,
    Iterate,
    Method,
    Network,
    NoTest,
    Problem,
    Record,
    RelativeTest,
    Stop,
    Tanh,
    initial_controls,
)
from pmp_ref.app.descent import Reading, Tally, recheck
from pmp_ref.batches import take_batch
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import to_vector
from tests.app_data import rows, run, summary, write_images

NET = Network((Convolution(3, 3), Tanh(), Flatten(), Dense(4)), (1, 6, 6))


def data(dtype: str = "float64", n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return generator.standard_normal((n, 1, 6, 6)).astype(dtype), generator.integers(0, 4, n)


def accepted_steps(
    method: Method, dtype: str, problem: Problem, steps: int = 12, batch: int | None = None
) -> list[Any]:
    """(u, w, metric, record) of the accepted steps of a run."""
    x, y = data(dtype)
    found: list[Any] = []
    controls = initial_controls(NET, 0, x)
    last = [controls]

    def callback(it: Iterate, record: Record) -> None:
        if record.accepted:
            found.append((last[0], it.controls, it.current.metric, record))
            last[0] = it.controls

    bsqh(problem, controls, x, y, stop=Stop(steps=steps), method=method, batch_size=batch, callback=callback)
    assert len(found) == steps
    return found


@pytest.mark.parametrize("regulariser", [L0(), L2()])
def test_the_reading_is_the_definition(regulariser: Any) -> None:
    x, y = data()
    u, w = initial_controls(NET, 0, x), initial_controls(NET, 1, x)
    d = tuple(tuple(np.abs(a) + 0.5 for a in stage) for stage in initial_controls(NET, 2, x))
    problem, rho = Problem(NET, regulariser=regulariser, rho=0.0), 0.3
    found = recheck(problem, AbsoluteTest(0.25), u, w, d, x, y, rho)

    def objective(c: Any) -> float:
        logits = NET.forward_sweep(c, x)[-1]
        loss = np.mean(np.log(np.sum(np.exp(logits), axis=1)) - logits[np.arange(y.size), y])
        kernels = np.concatenate([c[0][0].ravel(), c[3][0].ravel()])
        size = np.count_nonzero(kernels) if regulariser == L0() else 0.5 * np.sum(kernels**2)
        return float(loss + rho * size)

    tau = float(np.sum(to_vector(d) * (to_vector(w) - to_vector(u)) ** 2))
    assert found.delta_j == pytest.approx(objective(w) - objective(u), abs=1e-13)  # rounding of J of order one
    assert found.bound == pytest.approx(-0.25 * tau, rel=1e-14)
    assert 0 < found.slack < 1e-13


def test_the_relative_bound_uses_an_own_backward_sweep() -> None:
    x, y = data()
    u, w = initial_controls(NET, 0, x), initial_controls(NET, 1, x)
    problem = Problem(NET, regulariser=L2(), rho=0.0)
    h, rho = 1e-6, 0.3
    found = recheck(problem, RelativeTest(0.5), u, w, None, x, y, rho)
    # ⟨g, w − u⟩ = −dL by central differences along w − u
    along = [
        tuple(tuple(a + t * (b - a) for a, b in zip(p, q, strict=True)) for p, q in zip(u, w, strict=True))
        for t in (h, -h)
    ]
    loss = [float(problem.sweeper.forward(c, x, y).losses.mean()) for c in along]
    gain = -(loss[0] - loss[1]) / (2 * h) - rho * float(problem.penalty(w) - problem.penalty(u))
    assert found.bound == pytest.approx(-0.5 * gain, rel=1e-6)  # central differences: h² and rounding/h
    # this bound is computed with roundings of its own
    assert found.slack > recheck(problem, AbsoluteTest(), u, w, None, x, y, rho).slack


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("test", [AbsoluteTest(), RelativeTest(0.1)])
@pytest.mark.parametrize("batch", [None, 8])
def test_no_step_of_a_right_run_violates(dtype: str, test: Any, batch: int | None) -> None:
    problem = Problem(NET, rho=1e-3)
    averaging = None if batch is None else Averaging()
    method = Method(acceptance=test, metric=GradientMetric(), averaging=averaging)
    x, y = data(dtype)
    for u, w, metric, record in accepted_steps(method, dtype, problem, batch=batch):
        part = (x, y) if batch is None else take_batch(x, y, 3, record.position, 0, record.epoch)
        reading = recheck(problem, test, u, w, metric, *part, record.rho)
        assert not reading.violated
        # it measures the step that was judged: the solver's own ΔJ up to the stated rounding
        assert abs(reading.delta_j - record.delta_J) <= reading.slack


@pytest.mark.parametrize("fault", ["rho", "batch", "metric", "order"])
def test_a_wrong_ingredient_is_noticed(fault: str) -> None:
    problem, x, y = Problem(NET, rho=1e-2), *data()
    u, w, metric, record = accepted_steps(Method(metric=GradientMetric()), "float64", problem)[3]
    right = recheck(problem, AbsoluteTest(), u, w, metric, x, y, record.rho)
    if fault == "rho":
        wrong = recheck(problem, AbsoluteTest(), u, w, metric, x, y, 2 * record.rho)
    elif fault == "batch":
        wrong = recheck(problem, AbsoluteTest(), u, w, metric, x[:8], y[:8], record.rho)
    elif fault == "metric":
        wrong = recheck(problem, AbsoluteTest(), u, w, None, x, y, record.rho)
    else:
        wrong = recheck(problem, AbsoluteTest(), w, u, metric, x, y, record.rho)
        assert wrong.violated
    assert (wrong.delta_j, wrong.bound) != pytest.approx((right.delta_j, right.bound), rel=1e-6)


def test_nan_violates_and_slack_counts_apart() -> None:
    assert Reading(math.nan, 0.0, 1.0).violated
    tally = Tally().plus(Reading(0.5, 0.0, 1.0)).plus(Reading(2.0, 0.0, 1.0)).plus(Reading(-1.0, 0.0, 0.5))
    assert tally == Tally(checked=3, violations=1, without_slack=2, slack=1.0)


def test_a_run_without_test_is_held_against_the_absolute_inequality() -> None:
    x, y = data()
    problem = Problem(NET, rho=0.0)
    method = Method(rule=FixedRule(eps0=1e-3), acceptance=NoTest())  # steps far too long
    found = accepted_steps(method, "float64", problem, 6)
    readings = [recheck(problem, method.acceptance, u, w, d, x, y, 0.0) for u, w, d, _ in found]
    assert any(r.violated for r in readings)
    assert all(r.bound < 0 for r in readings)


def test_the_default_run_counts_every_step_and_finds_none(tmp_path: Path) -> None:
    assert run(write_images(tmp_path / "d.npz"), tmp_path / "r", "--check-descent", "all") == 0
    s = summary(tmp_path / "r")
    assert s["descent_violations"] == 0 and s["descent_checked"] == s["accepted_steps"] == 6
    assert 0 < s["descent_slack"] < 1e-4


def test_each_step_is_checked_on_its_own_batch_with_its_own_rho_and_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[Reading] = []

    def spy(*arguments: Any) -> Reading:
        readings.append(recheck(*arguments))
        return readings[-1]

    monkeypatch.setattr("pmp_ref.app.descent.recheck", spy)
    assert run(write_images(tmp_path / "d.npz"), tmp_path / "r", "--check-descent", "all", "--rho", "1e-3") == 0
    steps = rows(tmp_path / "r" / "history.csv")[1:]
    for column, of_reading in (("delta_J", lambda r: r.delta_j), ("tau", lambda r: -r.bound / 1e-6)):
        found, expected = sorted(map(of_reading, readings)), sorted(float(r[column]) for r in steps)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)  # float32 against float64


def test_reversing_the_acceptance_test_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AbsoluteTest, "accepts", lambda self, delta_j, tau, sum_dh: delta_j > -self.eta * tau)
    # a small first ε, so that some trials do raise J
    run(write_images(tmp_path / "d.npz"), tmp_path / "r", "--check-descent", "all", "--eps0", "1e-4", "--rule", "fixed")
    s = summary(tmp_path / "r")
    assert s["accepted_steps"] > 0
    assert s["descent_violations"] == s["descent_checked"] == s["accepted_steps"]


def test_every_nth_step_and_none(tmp_path: Path) -> None:
    data = write_images(tmp_path / "d.npz")
    assert run(data, tmp_path / "a", "--check-descent", "4") == 0
    assert summary(tmp_path / "a")["descent_checked"] == 1  # of six steps the fourth
    assert run(data, tmp_path / "b", "--check-descent", "none") == 0
    s = summary(tmp_path / "b")
    assert s["descent_checked"] == 0 and s["descent_violations"] is None
    assert "none" in s["reasons"]["descent_violations"]


def test_a_failing_check_is_no_silent_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Reading:
        raise MemoryError("no room")

    monkeypatch.setattr("pmp_ref.app.descent.recheck", broken)
    assert run(write_images(tmp_path / "d.npz"), tmp_path / "r", "--check-descent", "all") == 1
    assert not (tmp_path / "r" / "summary.json").exists()


def test_the_accepted_steps_are_those_of_the_history(tmp_path: Path) -> None:
    assert run(write_images(tmp_path / "d.npz"), tmp_path / "r", "--rule", "classic", "--eps0", "1e-3") == 0
    s = summary(tmp_path / "r")
    steps = rows(tmp_path / "r" / "history.csv")
    assert [int(r["step"]) for r in steps] == list(range(s["accepted_steps"] + 1))
    trials = rows(tmp_path / "r" / "trials.csv")
    assert sum(r["verdict"] in ("rejected", "non-finite trial") for r in trials) == s["rejections"] > 0
