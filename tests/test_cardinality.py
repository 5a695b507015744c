"""A wished size: the law of ρ, the nearest control of at most k entries, runs and commands that end there."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref.app.options import from_json, resolve, to_json
from pmp_ref.app.parse import wish
from pmp_ref.cardinality import PRICE, AtMost, nearest
from pmp_ref.iterate import Iterate, Steering
from pmp_ref.result import Verdict
from tests.app_data import bad, rows, run, summary, write_images
from verification.claim import Context
from verification.claims.wished_size import nearest_of_a_size, runs_to_a_size

NET = pr.Network((pr.Dense(7), pr.Tanh(), pr.Dense(3)), (5,))


def data(samples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(0)
    x = g.standard_normal((samples, 5))
    return x, np.argmax(x[:, :3], axis=1)


@pytest.mark.parametrize("claim", [nearest_of_a_size, runs_to_a_size])
def test_the_claims(claim: Any) -> None:
    assert claim(Context(profile="micro")).holds


def test_at_the_target_the_law_is_the_linear_ramp() -> None:
    """n = n* and constant κ give ρ = κ a/k."""
    rule, size = AtMost(50, start=0.1, stop=0.6), 1000
    s = Steering()
    for t in (0.1, 0.2, 0.35, 0.5, 0.6, 0.65):
        s = rule.steer(replace(s, nonzeros=round(rule.wanted(size, t)), progress=t), 0.02, size, t)
        a = min(1.0, (t - 0.1) / 0.5)
        assert s.rho == pytest.approx(max(0.02 * a, 0.02 * 50 / size), rel=0.02)


def test_too_many_entries_raise_rho_and_too_few_lower_it() -> None:
    rule = AtMost(0.1)
    at = lambda n: rule.steer(Steering(nonzeros=n, progress=0.4), 0.0, 1000, 0.5).rho  # noqa: E731
    assert at(1000) > at(200) > at(125) > at(60) > at(0) > 0
    assert at(125) == pytest.approx(PRICE / 125)


def test_rho_is_that_of_the_control_however_often_it_is_asked_for() -> None:
    rule = AtMost(30)
    first = rule.steer(Steering(nonzeros=400, progress=0.3, rho=0.1, price=3.0), 0.0, 1000, 0.4)
    assert rule.steer(first, 0.0, 1000, 0.4) == first


def test_rho_is_held_from_hold_on_but_not_above_k() -> None:
    rule = AtMost(30)
    held = Steering(rho=0.2, price=4.0, progress=0.7, nonzeros=30)
    assert rule.steer(held, 0.0, 1000, 0.9).rho == 0.2
    assert rule.steer(replace(held, nonzeros=31), 0.0, 1000, 0.9).rho != 0.2
    assert rule.steer(Steering(nonzeros=2), 0.0, 1000, 0.05).rho == 0.0  # before start


def test_k_of_a_network() -> None:
    assert [AtMost(a).at_end(250) for a in (0.01, 0.999, 7, 900)] == [2, 249, 7, 250]
    assert AtMost(0.01).at_end(50) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"keep": 0.0}, {"keep": 1.5}, {"keep": math.nan}, {"keep": 3, "start": 0.7}, {"keep": 3, "stop": 0.8}]
    + [{"keep": 3, "hold": 1.1}, {"keep": 3, "gain": -1.0}, {"keep": 3, "rate": math.inf}],
)
def test_arguments_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(pr.InputError):
        AtMost(**wrong)


def test_the_nearest_control_in_a_metric() -> None:
    names = (("kernel", "bias"), (), ("kernel",))
    u = ((np.array([[3.0, -1.0]]), np.array([9.0])), (), (np.array([[2.0], [-4.0]]),))
    d = ((np.array([[1.0, 1.0]]), np.array([1.0])), (), (np.array([[1.0], [0.25]]),))
    kept = [a.tolist() for stage in nearest(names, u, None, 2) for a in stage]
    assert kept == [[[3.0, 0.0]], [9.0], [[0.0], [-4.0]]]
    kept = [a.tolist() for stage in nearest(names, u, d, 2) for a in stage]  # 9, 1, 4, 4: the first of the two
    assert kept == [[[3.0, 0.0]], [9.0], [[2.0], [0.0]]]


@pytest.mark.parametrize("keep", [0.5, 10, 4])
@pytest.mark.parametrize("size", [12, None])
def test_solve_keeps_at_most_what_was_wished(keep: float, size: int | None) -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.0)
    s = pr.solve(problem, x, y, batch_size=size, epochs=60, keep=keep)
    k = AtMost(keep).at_end(56)
    assert 0 < s.nonzeros <= k and s.entries == 56
    steering = s.iterate.steering
    assert steering.rho > 0 and pytest.approx(s.loss + steering.rho * s.nonzeros) == s.J
    cuts = [r for r in s.records if r.verdict is Verdict.PROJECTED]
    assert len(cuts) == steering.projections and all(not r.accepted and math.isnan(r.loss) for r in cuts)


def test_stopped_at_any_record_a_run_goes_on_bit_for_bit() -> None:
    x, y = data()
    idle = pr.Method.minibatch(ramp=None, wish=AtMost(20, gain=0.0, rate=0.0))  # steers so little that it has to cut
    problem, arguments = pr.Problem(NET, rho=1e-6), {"batch_size": 20, "epochs": 6, "method": idle}
    whole = pr.solve(problem, x, y, **arguments)
    assert any(r.verdict is Verdict.PROJECTED for r in whole.records)
    for stop_at in range(1, len(whole.records) + 1):
        seen: list[Any] = []

        def callback(it: Iterate, record: Any, seen: list[Any] = seen, stop_at: int = stop_at) -> bool:
            seen.append(record)
            return len(seen) == stop_at

        first = pr.solve(problem, x, y, callback=callback, **arguments)
        rest = pr.solve(problem, x, y, resume=first.iterate.at_rest(), **arguments)
        assert [repr(r) for r in first.records + rest.records] == [repr(r) for r in whole.records]
        assert rest.nonzeros == whole.nonzeros and rest.iterate.steering == whole.iterate.steering
        assert all(
            np.array_equal(a, b)
            for p, q in zip(rest.controls, whole.controls, strict=True)
            for a, b in zip(p, q, strict=True)
        )


def test_a_run_that_ends_early_ends_at_the_wished_size_too() -> None:
    x, y = data()
    method = pr.Method(rule=pr.FixedRule(1e-6), wish=AtMost(5))  # a failed trial ends the run
    s = pr.solve(pr.Problem(NET, rho=0.0), x, y, method=method, steps=50)
    assert s.status is pr.Status.AUGMENTATION_LIMIT and s.nonzeros == 5 and s.iterate.steering.cut == 51


@pytest.mark.parametrize(
    "problem",
    [
        pr.Problem(NET, regulariser=pr.L2(), rho=0.1),
        pr.Problem(NET, regulariser=pr.NoPenalty(), rho=0.1),
        pr.Problem(NET, rho=0.1, weights=pr.layer_weights(NET, by_stage={0: 0.0})),
        pr.Problem(NET, rho=0.1, admissible=pr.Box(0.5, 1.0)),
    ],
    ids=["L2", "none", "a free kernel", "0 not allowed"],
)
def test_a_size_that_rho_cannot_bring_about_is_refused(problem: pr.Problem) -> None:
    x, y = data()
    with pytest.raises(pr.InputError):
        pr.solve(problem, x, y, steps=3, keep=5, controls=problem.project(pr.initial_controls(NET, 0, x)))


def test_a_size_needs_a_length_and_no_ramp() -> None:
    x, y = data()
    with pytest.raises(pr.InputError, match="how long the run is"):
        pr.solve(pr.Problem(NET, rho=0.0), x, y, residual=1e-3, keep=5)
    with pytest.raises(pr.InputError, match="leave increment and residual out"):
        pr.solve(pr.Problem(NET, rho=0.0), x, y, residual=1e-3, steps=5, keep=5)
    with pytest.raises(pr.InputError, match="ramp"):
        pr.Method.minibatch(wish=AtMost(5))
    assert pr.Method.minibatch().wishing(5).ramp is None and pr.Method.minibatch().wishing(None).ramp is not None


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.5 %", 0.005), ("5000", 5000.0), ("99.9%", 0.999)])
def test_wishes(text: str, value: float) -> None:
    assert wish(text) == pytest.approx(value)
    assert from_json(to_json(resolve({"keep": text}))).keep == text


@pytest.mark.parametrize("text", ["0", "0%", "100%", "-3", "1.5", "0.01", "one", "%"])
def test_no_wishes(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad(capsys, ["train", "--keep", text], "--keep", "1%", "5000")


@pytest.mark.parametrize("option", [("--ramp", "0:0.5"), ("--residual", "1e-3"), ("--increment", "1e-3")])
def test_what_does_not_go_with_a_wish(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    bad(capsys, ["train", "--keep", "1%", *option], option[0], "--keep")


def test_a_regulariser_without_zeros_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "d.npz")
    bad(capsys, ["train", "--data", str(images), "--out", str(tmp_path / "r"), "--keep", "9", "--regulariser", "l2"])
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("options", [("--keep", "3%"), ("--keep", "500", "--batch-size", "full", "--epochs", "30")])
def test_the_command(options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "d.npz")
    assert run(images, tmp_path / "r", "--prove", "all", *options) == 0
    found, text = summary(tmp_path / "r"), capsys.readouterr().out
    assert 0 < found["kept_weights"] <= found["wished_weights"] and found["rho"] > 0
    assert f"wished: at most {found['wished_weights']:,}" in text
    cuts = [r for r in rows(tmp_path / "r" / "trials.csv") if r["verdict"] == "projected"]
    assert bool(cuts) == (found["projected_weights"] > 0) and all(r["loss"] == "" for r in cuts)
    assert found["descent_violations"] == 0
    proof = json.loads((tmp_path / "r" / "proof.json").read_text())
    assert proof["counts"]["refuted"] == 0 and proof["counts"]["proven"] > 0
    assert json.loads((tmp_path / "r" / "certificate.json").read_text())["rho"] == found["rho"]
