"""What users call: the six lines, everything that need not be given, and the way back from a file."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref import certificate
from pmp_ref.app.build import build_method
from pmp_ref.app.main import main
from pmp_ref.app.options import resolve
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls, to_vector
from pmp_ref.kernels import FastSweep
from pmp_ref.library import suited
from pmp_ref.network import headed
from pmp_ref.one_step import step as clear_step
from tests.app_data import write_images

NET = pr.Network((pr.Convolution(2, (2, 1)), pr.Tanh(), pr.Flatten(), pr.Dense(3)), (1, 3, 2))
SIX = (Path(__file__).parents[1] / "docs" / "library.md").read_text(encoding="utf-8")


def data(samples: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((samples, 1, 3, 2)), generator.integers(0, 3, samples)


@pytest.fixture
def small(tmp_path: Path) -> pr.Dataset:
    return pr.load(write_images(tmp_path / "images.npz"))


def test_the_six_lines_run_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the documentation; one epoch instead of 24, for time."""
    block = re.search(r"```python\n(.*?)```", SIX, re.S)
    assert block and "epochs=24" in block[1]
    assert len([s for s in ast.parse(block[1]).body if isinstance(s, ast.Assign)]) == 3
    exec(block[1].replace("epochs=24", "epochs=1"), {})
    first, accuracy, star = capsys.readouterr().out.splitlines()
    assert first.startswith("True the requested steps or epochs are done ")
    assert float(accuracy) > 0.8 and float(star) >= 0


@pytest.mark.slow
def test_the_six_lines_are_accurate_and_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand, all 24 epochs: what the command reaches with a tenth of the images held out, or better."""
    exec(re.search(r"```python\n(.*?)```", SIX, re.S)[1], {})  # type: ignore[index]
    first, accuracy, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("True") and int(first.split()[-1]) < 0.06 * 61470 and float(accuracy) > 0.955


@pytest.mark.parametrize("size", [8, None])
def test_solve_is_the_command(size: int | None, small: pr.Dataset, tmp_path: Path) -> None:
    """The same defaults give the same numbers, bit for bit, from seed to last step."""
    out = tmp_path / "run"
    arguments = ["--batch-size", "8", "--epochs", "2"] if size else ["--batch-size", "full", "--steps", "5"]
    rho = 4e-3 if size else 1e-4
    common = ["--held-out", "0", "--network", "lenet5", "--seed", "3", "--out", str(out), "--quiet", "--no-figures"]
    assert main(["train", "--data", str(tmp_path / "images.npz"), *arguments, *common]) == 0
    limit: dict[str, Any] = {"batch_size": 8, "epochs": 2} if size else {"steps": 5}
    solution = pr.solve(pr.Problem(pr.lenet5(small), rho=rho), small.x, small.y, seed=3, **limit)
    command = pr.read_model(out)
    for ours, theirs in zip(arrays_of(solution.controls), arrays_of(command.controls), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert solution.model.predict(small.x).tolist() == command.predict(small.train_images).tolist()


def test_the_defaults_stand_in_one_place() -> None:
    assert build_method(resolve({})) == pr.Method.minibatch()
    assert build_method(resolve({"batch_size": "full"})) == pr.Method.full_batch() == pr.Method()
    assert pr.Method.minibatch(ramp=None).ramp is None and pr.Method.full_batch(max_rejections=3).max_rejections == 3


def test_the_sweep_is_chosen_once_and_a_given_one_is_kept() -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.01)
    fast = suited(problem, x)
    assert isinstance(fast.sweeper, FastSweep) and type(problem.sweeper) is pr.Sweep and problem.sweep is None
    assert suited(problem, x) is fast and suited(problem, x.astype(np.float32)) is not fast
    assert fast.together is problem.together  # controls need not be laid out anew
    clear = replace(problem, sweep=pr.Sweep(NET, problem.loss))
    assert suited(clear, x) is clear
    assert suited(replace(problem, rho=0.02), x).rho == 0.02  # not the one of another ρ
    assert replace(problem, rho=0.02).sweep is None
    calls = []

    class Watched(pr.Sweep):
        def trial(self, controls: Any, x: Any, y: Any) -> pr.Evaluation:
            calls.append(x.shape[0])
            return super().trial(controls, x, y)

    watched = replace(problem, sweep=Watched(NET, problem.loss))
    pr.solve(watched, x, y, batch_size=4, epochs=1)
    assert calls[-1] == 12 and calls[0] == 4  # J and loss at the end are those of all data


def test_a_solution_says_what_it_is_worth_on_all_data() -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.01)
    for options in ({"steps": 4}, {"batch_size": 5, "epochs": 2}):
        s = pr.solve(problem, x, y, **options)  # type: ignore[arg-type]
        e = pr.Sweep(NET, problem.loss).forward(s.controls, x, y)
        kernels = [u[0] for u in s.controls if len(u)]
        assert s.loss == pytest.approx(float(np.mean(e.losses)), rel=1e-12)
        assert s.nonzeros == sum(int(np.count_nonzero(k)) for k in kernels) and s.entries == sum(
            k.size for k in kernels
        )
        assert s.J == pytest.approx(s.loss + 0.01 * s.nonzeros, rel=1e-12)
        assert s.success and s.message == s.status.message and s.steps == tuple(r for r in s.records if r.accepted)


def test_a_run_without_an_accepted_step_has_a_solution_too() -> None:
    x, y = data()
    s = pr.solve(pr.Problem(NET, rho=0.01), x, y, steps=3, method=pr.Method(pr.FixedRule(1e-4)))
    assert not s.success and s.status is pr.Status.AUGMENTATION_LIMIT and s.steps == ()
    start = pr.initial_controls(NET, 0, x)
    np.testing.assert_array_equal(to_vector(s.controls), to_vector(start))
    assert s.J > s.loss > 0 and s.nonzeros == s.entries == 28
    none = pr.solve(pr.Problem(NET, rho=0.01), x, y, steps=0)
    assert none.records == () and none.J == s.J and none.success


def test_controls_are_drawn_from_the_seed_unless_given() -> None:
    x, y = data()
    boxed = pr.Problem(NET, rho=0.01, admissible=pr.Box(-0.1, 0.1))
    for seed in (0, 5):
        s = pr.solve(boxed, x, y, steps=0, seed=seed)
        start = boxed.project(pr.initial_controls(NET, seed, x))
        np.testing.assert_array_equal(to_vector(s.controls), to_vector(start))
    given = map_controls(lambda a: 0 * a + 0.05, start)
    np.testing.assert_array_equal(to_vector(pr.solve(boxed, x, y, controls=given, steps=0).controls), to_vector(given))


def test_a_run_goes_on_and_refuses_other_controls() -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.01)
    for options in ({}, {"batch_size": 5}):
        whole = pr.solve(problem, x, y, epochs=4, method=pr.Method(), **options)  # type: ignore[arg-type]
        half = pr.solve(problem, x, y, epochs=2, method=pr.Method(), **options)  # type: ignore[arg-type]
        rest = pr.solve(problem, x, y, epochs=4, method=pr.Method(), resume=half.iterate.at_rest(), **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(to_vector(rest.controls), to_vector(whole.controls))
    with pytest.raises(pr.InputError, match="not those of resume"):
        pr.solve(problem, x, y, epochs=4, resume=half.iterate, controls=pr.initial_controls(NET, 9, x))


def test_stops_are_keywords_or_one_object() -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.01)
    one, two = pr.solve(problem, x, y, steps=2), pr.solve(problem, x, y, stop=pr.Stop(steps=2))
    assert one.J == two.J and one.iterate.step == 2
    with pytest.raises(pr.InputError, match="no stop was given"):
        pr.solve(problem, x, y)
    with pytest.raises(pr.InputError, match="one of the two"):
        pr.solve(problem, x, y, stop=pr.Stop(steps=2), epochs=3)


def test_one_step_of_mini_batches_is_one_call() -> None:
    """Steps by hand give the controls of the loop; on the fast path as on the clear one up to rounding."""
    x, y = data()
    method = pr.Method(pr.CurvatureRule(0.5), metric=pr.GradientMetric(), averaging=pr.Averaging(0.5))
    clear = pr.Problem(NET, rho=0.01, sweep=pr.Sweep(NET, pr.CrossEntropy()))
    start = pr.initial_controls(NET, 0, x)
    batches, found = [(x[:6], y[:6]), (x[6:], y[6:])], []
    for problem, call in ((clear, clear_step), (pr.Problem(NET, rho=0.01), pr.step)):
        it, k = pr.Iterate(start, 0.5), 0
        while k < 4:
            it, record = call(problem, method, it, *batches[k % 2], full=False)
            k += record.accepted
        assert it.step == 4 and it.memory.iterates >= 4
        found.append(to_vector(it.controls))
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_a_certificate_needs_no_eps() -> None:
    x, y = data()
    problem = pr.Problem(NET, rho=0.01)
    s = pr.solve(problem, x, y, steps=20)
    without, at = pr.certify(problem, s.controls, x, y), pr.certify(problem, s.controls, x, y, 2.0)
    assert without.eps is None and without.eps_star == at.eps_star and without.J == pytest.approx(s.J)
    assert np.isnan(without.augmented_gap) and at.augmented_gap >= 0
    assert all(np.isnan(c.largest_gap) and c.gap_fractions == () for c in without.controls)
    assert without.plain_gap == at.plain_gap
    clear = certificate.certify(problem, s.controls, x, y)
    assert without.eps_star == pytest.approx(clear.eps_star, rel=1e-9)


def test_a_model_comes_back_from_its_file(small: pr.Dataset, tmp_path: Path) -> None:
    s = pr.solve(pr.Problem(pr.lenet5(small), rho=4e-3), small.x, small.y, batch_size=8, epochs=1)
    model = replace(s.model, class_names=("one", "two", "three"))
    scores = model.network.forward_sweep(model.controls, small.x)[-1]
    np.testing.assert_allclose(model.outputs(small.x), scores, atol=1e-5)
    np.testing.assert_array_equal(model.predict(small.x), scores.argmax(axis=1))
    assert model.accuracy(small.x_test, small.y_test) == np.mean(model.predict(small.x_test) == small.y_test)
    for path in (tmp_path / "model.npz", str(tmp_path / "again.npz")):
        model.save(path)
        back = pr.read_model(path)
        assert back.class_names == ("one", "two", "three") and back.network == model.network
        np.testing.assert_array_equal(back.outputs(small.x), model.outputs(small.x))
    np.testing.assert_array_equal(model.outputs(small.x[:, 0]), model.outputs(small.x))  # of one channel
    with pytest.raises(pr.InputError, match=r"images are float64; expected bytes"):
        model.outputs(small.x / 255)
    floats = pr.Model(pr.lenet5(small.input_shape, 3), model.controls[1:])
    x = pr.prepare(small).train_images
    np.testing.assert_allclose(floats.outputs(x), model.outputs(small.x), rtol=1e-4, atol=1e-5)
    with pytest.raises(pr.InputError, match=r"images are uint8.*or put Pixels at the head"):
        floats.outputs(small.x)
    with pytest.raises(pr.InputError, match="2 class names for 3 scores"):
        replace(model, class_names=("a", "b"))
    with pytest.raises(pr.OutputError, match=r"cannot write .*what was there is intact"):
        model.save(tmp_path / "nowhere" / "model.npz")


def test_builders_take_a_data_set_or_a_shape(small: pr.Dataset) -> None:
    shape = small.input_shape
    for build in (pr.lenet5, pr.lenet5_caffe, pr.residual_net):
        if build is not pr.lenet5_caffe:  # which takes 16×16
            assert build(small) == headed(pr.Pixels(*small.statistics), build(shape, small.classes))
        assert build((1, 28, 28)).output_shape == (10,)
    with pytest.raises(pr.InputError, match=r"8×8 pixels are too small for lenet5, which takes 12×12 and larger"):
        pr.lenet5((1, 8, 8))


def test_what_is_shown_of_public_objects_is_a_line_or_two(small: pr.Dataset) -> None:
    problem = pr.Problem(pr.lenet5(small), rho=4e-3)
    s = pr.solve(problem, small.x, small.y, batch_size=8, epochs=1)
    shown = [
        small,
        pr.prepare(small),
        problem,
        problem.network,
        s,
        s.iterate,
        s.iterate.current,
        s.iterate.memory,
        s.iterate.place,
        s.iterate.counts,
        s.records[0],
        s.model,
        pr.Method.minibatch(),
        pr.Stop(steps=3),
        pr.make_sweep(problem.network, problem.loss),
        pr.Sweep(problem.network, problem.loss),
        problem.sweeper.forward(s.controls, small.x, small.y),
        pr.certify(problem, s.controls, small.x, small.y),
        pr.certify(problem, s.controls, small.x, small.y).controls[0],
        bsqh(problem, s.controls, small.x, small.y, stop=pr.Stop(steps=0)),
    ]
    for thing in shown:
        text = repr(thing)
        assert len(text) <= 240 and text.count("\n") == 0, text[:1000]


def test_verdicts_and_statuses_have_a_sentence_each() -> None:
    for kind in (pr.Verdict, pr.Status):
        assert all(len(one.message) > 10 for one in kind) and len({one.message for one in kind}) == len(kind)
    x, y = data()
    s = pr.solve(pr.Problem(NET, rho=0.01), x, y, steps=2, method=pr.Method(pr.ClassicRule(1e-3, 2.0)))
    assert {r.verdict for r in s.records} == {pr.Verdict.ACCEPTED, pr.Verdict.REJECTED}
    assert {f.name for f in fields(pr.Record)} >= {"J", "eps", "tau"}
