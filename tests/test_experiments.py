"""The experiments: framework, resume, baselines against their definitions, figures, the results page."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pmp_ref import L0, L1, WHOLE_LINE
from pmp_ref.app import main as app
from pmp_ref.app import run as app_run
from pmp_ref.app.build import Setup, build
from pmp_ref.app.options import resolve
from pmp_ref.controls import arrays_of
from pmp_ref.errors import InputError
from pmp_ref.sweep import Sweep
from tests.app_data import write_images
from verification.experiments import EXPERIMENTS, __main__, baselines, grid, make, pages, ternary, tradeoff
from verification.experiments.baselines import Plan, State
from verification.experiments.experiment import Context, Experiment, Row, lookup, new_figure, together
from verification.experiments.store import Store, finite, table
from verification.experiments.training import Lines, command_line, sparse, train, train_or_reuse

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"epochs": "2", "batch_size": "18", "held_out": "0", "check_descent": "all"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_images(tmp_path_factory.mktemp("data") / "images.npz"))


@pytest.fixture
def setup(images: str) -> Setup:
    return build(resolve({"data": images, "network": "lenet5", "dtype": "float64", **SMALL}), 1)


class Counted(Experiment):
    """Three rows; each notes in its scratch directory how often it was begun. ``broken`` rows raise."""

    name, title, summary, columns = "counted", "Counting", "How often?", ("n", "begun", "missing")
    broken: ClassVar[set[int]] = set()
    factor = 1
    drawing = "counted-squares"

    def rows(self, quick: bool) -> list[Row]:
        return [Row(f"row-{n}", {"n": n, "factor": self.factor}) for n in ((1,) if quick else (1, 2, 3))]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        file = context.directory / "begun"
        begun = int(file.read_text()) + 1 if file.exists() else 1
        file.write_text(str(begun))
        context.progress(f"at {row.key}")
        n = row.settings["n"]
        if n in self.broken:
            raise ArithmeticError(f"row {n} is broken")
        return {"square": n * n * row.settings["factor"], "begun": begun, "curves": {"x": [1.0, math.nan]}}

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        figure, axes = new_figure()
        axes.plot([r["settings"]["n"] for r in results], [r["result"]["square"] for r in results])
        return {self.drawing: figure}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counted]]:
    monkeypatch.setattr(__main__, "make", lambda name: Counted() if name == "counted" else make(name))
    monkeypatch.setattr(pages, "make", lambda name: Counted())
    monkeypatch.setattr(Counted, "broken", set())
    monkeypatch.setattr(Counted, "factor", 1)
    yield Counted


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# the framework


@pytest.mark.parametrize("key", ["", "a/b", "..", ".hidden", "a b", "é", "x" * 121])
def test_a_row_needs_a_name_fit_for_a_file(key: str) -> None:
    with pytest.raises(InputError, match="row"):
        Row(key, {})


def test_settings_are_json() -> None:
    assert Row("a", {"ramp": (0.1, 0.5)}).settings == {"ramp": [0.1, 0.5]}
    for wrong in ({"x": {1, 2}}, {"x": math.nan}):
        with pytest.raises(InputError, match="no JSON"):
            Row("a", wrong)


def test_rows_are_run_once(counted: type[Counted], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second command runs nothing; other settings run again, and begin with an empty scratch directory."""
    command = ["counted", "--out", str(tmp_path)]
    assert __main__.main(command) == 0
    first = capsys.readouterr()
    assert "at row-2" in first.err and "[3/3] row-3: done" in first.out
    assert __main__.main(command) == 0
    assert capsys.readouterr().out.count("there already") == 3
    stored = read(tmp_path / "counted" / "rows" / "row-2.json")
    assert stored["result"] == {"square": 4, "begun": 1, "curves": {"x": [1.0, None]}}
    assert set(stored["versions"]) == {"pmp_ref", "python", "numpy", "scipy"}
    assert set(stored["machine"]) == {"cores", "memory_GiB", "processor"} and stored["machine"]["cores"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", stored["date"]) and stored["seconds"] >= 0
    counted.factor = 10
    assert __main__.main(command) == 0
    assert read(tmp_path / "counted" / "rows" / "row-2.json")["result"]["square"] == 40
    assert read(tmp_path / "counted" / "rows" / "row-2.json")["result"]["begun"] == 1


def test_a_failed_row_does_not_stop_the_others(
    counted: type[Counted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; what the failed row left behind is there at the next attempt, which runs that row only."""
    counted.broken = {2}
    command = ["counted", "--out", str(tmp_path)]
    assert __main__.main(command) == 1
    shown = capsys.readouterr()
    assert "row-2: FAILED: row 2 is broken" in shown.out and "row-3: done" in shown.out
    assert "ArithmeticError" in shown.err
    results = read(tmp_path / "counted" / "results.json")
    assert [r["key"] for r in results["rows"]] == ["row-1", "row-3"] and results["asked"] == 3
    counted.broken = set()
    assert __main__.main(command) == 0
    assert capsys.readouterr().out.count("there already") == 2
    results = read(tmp_path / "counted" / "results.json")
    assert [r["result"]["begun"] for r in results["rows"]] == [1, 2, 1]


def test_an_interrupted_row_is_not_stored(
    counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Counted, row: Row, context: Context) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Counted, "run", interrupt)
        assert __main__.main(["counted", "--out", str(tmp_path)]) == 130
    assert not list((tmp_path / "counted" / "rows").iterdir())


def test_some_rows(counted: type[Counted], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["counted", "--out", str(tmp_path), "--rows", "*-1, *-3"]) == 0
    assert sorted(p.stem for p in (tmp_path / "counted" / "rows").iterdir()) == ["row-1", "row-3"]
    capsys.readouterr()
    assert __main__.main(["counted", "--out", str(tmp_path), "--list"]) == 0
    assert [line.startswith("done") for line in capsys.readouterr().out.splitlines()] == [True, False, True]
    assert __main__.main(["counted", "--out", str(tmp_path), "--rows", "nothing"]) == 2
    assert "matches none of row-1" in capsys.readouterr().err
    with pytest.raises(InputError, match="more than once"):
        __main__.select([Row("a", {}), Row("a", {})], None)


def test_unknown_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the sentence says which exist."""
    assert __main__.main(["trade-off"]) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in EXPERIMENTS)
    assert __main__.main([]) == 2
    assert __main__.main(["tradeoff", "--threads", "0"]) == 2


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "python -m verification.experiments tradeoff --rows" in shown
    for line in __main__.EXAMPLES.splitlines():  # the examples are understood
        if line.startswith("  python"):
            __main__.parser().parse_args(shlex.split(line.partition("    ")[0])[3:])


def test_figures_only(counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert __main__.main(["counted", "--out", str(tmp_path)]) == 0
    figures = tmp_path / "counted" / "figures"
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert set(before) == {"counted-squares.png", "counted-squares.svg", "counted-squares-dark.png"}
    (figures / "old.png").touch()
    monkeypatch.setattr(Counted, "run", lambda *a: pytest.fail("a row was run"))
    assert __main__.main(["counted", "--out", str(tmp_path), "--figures-only"]) == 0
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == before  # equal bytes, and nothing old


def test_damaged_rows_are_run_again(counted: type[Counted], tmp_path: Path) -> None:
    assert __main__.main(["counted", "--quick", "--out", str(tmp_path)]) == 0
    path = tmp_path / "counted" / "rows" / "row-1.json"
    path.write_text(path.read_text()[:40])
    assert Store(tmp_path, "counted").stored(Counted().rows(True)[0]) is None
    assert __main__.main(["counted", "--quick", "--out", str(tmp_path)]) == 0
    assert read(path)["result"]["begun"] == 2


def test_a_row_belongs_to_one_process(counted: type[Counted], tmp_path: Path) -> None:
    store, row = Store(tmp_path, "counted"), Counted().rows(True)[0]
    with store.scratch(row), pytest.raises(InputError, match="another process"):
        store.run(Counted(), row, None, lambda line: None)


def test_table_and_lookup() -> None:
    stored = {
        "key": "k",
        "settings": {"n": 1, "both": 2},
        "result": {"both": 3, "begun": None},
        "seconds": 1.5,
        "date": "2026-01-01",
    }
    assert [lookup(stored, name) for name in ("n", "both", "key", "nothing")] == [1, 3, "k", None]
    rows = list(csv.DictReader(table(Counted(), [stored]).splitlines()))
    assert rows == [{"key": "k", "n": "1", "begun": "", "missing": "", "seconds": "1.5", "date": "2026-01-01"}]


def test_finite() -> None:
    value = {"a": (1, np.float32(0.5)), "b": math.inf, "c": np.array([1.0, math.nan]), "d": np.bool_(True), 3: "x"}
    assert finite(value) == {"a": [1, 0.5], "b": None, "c": [1.0, None], "d": True, "3": "x"}


@pytest.mark.parametrize(("length", "points"), [(0, 5), (1, 5), (5, 5), (6, 5), (1000, 7)])
def test_sparse_keeps_the_ends(length: int, points: int) -> None:
    index = sparse(length, points)
    assert len(index) == min(length, points) and index == sorted(set(index))
    assert not length or (index[0], index[-1]) == (0, length - 1)


def test_gradual_pruning_ends_at_its_share() -> None:
    """Everything until a tenth of the run, the share from 60 % on, a cubic between; it never rises."""
    shares = [baselines.share_at(0.02, t) for t in np.linspace(0, 1, 101)]
    assert shares[0] == shares[10] == 1 and shares[60:] == [0.02] * 41
    assert shares[35] == pytest.approx(0.02 + 0.98 / 8) and shares == sorted(shares, reverse=True)


def test_the_grid_is_judged_cell_by_cell() -> None:
    """The distances are those to the row's own cell; what cannot be compared is None."""

    def row(cell: str, method: str, strength: float, loss: float, kept: float, held: float) -> dict[str, Any]:
        result = {"loss": loss, "kept_percent": kept, "held_out_percent": held}
        return {"settings": {"cell": cell, "method": method, "strength": strength}, "result": result}

    rows = [
        row("a", "Adam", 1e-3, 0.2, 100.0, 95.0),
        row("a", "Adam", 3e-3, 0.1, 100.0, 96.0),
        row("a", "bSQH", 0.0, 0.12, 100.0, 95.5),
        row("a", "bSQH", 1e-2, 0.3, 2.0, 92.0),
        row("a", "Adam, pruned", 1e-2, 0.6, 2.0, 90.0),
        row("b", "bSQH", 0.0, 0.5, 100.0, 80.0),
        row("b", "bSQH", 1e-2, 0.5, 99.0, 80.5),
        row("b", "bSQH", 1e-3, 0.9, 50.0, 70.0),
        row("b", "Adam, pruned", 1e-3, 0.5, 50.0, 79.0),
    ]
    slow, good, alone, stalled, collapsed = grid.judged(rows)
    assert slow["above_adam"] == pytest.approx(20) and slow["below_best"] == 0.5 and slow["verdict"] == "slow"
    assert good["above_pruned"] == 2 and good["above_adam"] is None and good["verdict"] == "good"
    assert alone["above_adam"] is None and alone["below_best"] == 0.5 and alone["verdict"] == "good"
    assert stalled["verdict"] == "stalled" and collapsed["verdict"] == "collapsed"


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("quick", [True, False])
def test_rows_of_every_experiment(name: str, quick: bool) -> None:
    """Names are unique, the quick and the full version share none with other settings, the texts are there."""
    experiment = make(name)
    rows = __main__.select(experiment.rows(quick), None)
    assert rows and experiment.name == name and experiment.title and len(experiment.summary) > 40
    other = {row.key: row.settings for row in experiment.rows(not quick)}
    assert all(other.get(row.key, row.settings) == row.settings for row in rows)
    assert len({json.dumps(row.settings, sort_keys=True) for row in rows}) == len(rows)


# rows that are training runs


def test_a_row_is_the_run_of_its_command(images: str, tmp_path: Path) -> None:
    """The command in the result, typed, gives the same model; the numbers are those of summary.json."""
    given = {"data": images, "rho": "1e-3", **SMALL}
    (tmp_path / "row").mkdir()
    trained = train(given, Context(tmp_path / "row", 1))
    words = shlex.split(trained.result["command"])
    assert words[:2] == ["pmp-ref", "train"]
    assert app.main([*words[1:], "--out", str(tmp_path / "typed"), "--no-figures", "--quiet"]) == 0
    assert (tmp_path / "typed" / "model.npz").read_bytes() == (trained.directory / "model.npz").read_bytes()
    result = trained.result
    assert result["descent_violations"] == 0 and result["descent_checked"] > 0
    assert result["test_low"] < result["test_accuracy"] <= result["test_high"]
    history = trained.history(("step", "nonzeros"), points=4)
    assert history["step"][0] == 0 and history["step"][-1] == result["accepted_steps"] and len(history["step"]) == 4
    assert history["nonzeros"][-1] == result["kept_weights"]


def test_command_line() -> None:
    assert command_line({"batch_size": "full", "admissible": "-1,0,1"}) == (
        "pmp-ref train --batch-size full --admissible=-1,0,1"
    )


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Every trial is checkpointed; the process is lost at the given step, without a chance to save."""
    monkeypatch.setattr(app_run, "CHECKPOINT_EVERY", 0.0)
    original = app_run.Recorder.__call__

    def call(self: Any, it: Any, record: Any) -> bool:
        if it.step >= step:
            raise ArithmeticError("killed")
        return original(self, it, record)

    monkeypatch.setattr(app_run.Recorder, "__call__", call)


@pytest.mark.parametrize("changed", [False, True])
def test_a_killed_run_goes_on_bit_for_bit(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    """With and without a change that no option expresses."""
    given = {"data": images, "rho": "1e-4", **SMALL}
    change = (lambda setup: ternary.random_start(setup, 2.0)[0]) if changed else None
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train(given, Context(tmp_path / "whole", 1), change)
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(ArithmeticError, match="killed"):
            train(given, Context(tmp_path / "broken", 1), change)
    broken = train(given, Context(tmp_path / "broken", 1), change)
    assert broken.summary["restarts"] == 1 and whole.summary["restarts"] == 0
    for name in ("model.npz", "certificate.json"):
        assert (whole.directory / name).read_bytes() == (broken.directory / name).read_bytes()
    began = (broken.directory / "model.npz").stat().st_mtime_ns
    assert train(given, Context(tmp_path / "broken", 1), change).summary == broken.summary
    assert (broken.directory / "model.npz").stat().st_mtime_ns == began  # a finished run is only read


def test_an_interrupted_run_is_no_result(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"data": images, **SMALL}
    original = app_run.Recorder.__call__

    def stop(self: Any, it: Any, record: Any) -> bool:
        self.stopping = it.step >= 3  # as a signal does
        return original(self, it, record)

    with monkeypatch.context() as patch:
        patch.setattr(app_run.Recorder, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            train(given, Context(tmp_path, 1))
    assert read(tmp_path / "run" / "summary.json")["status"] == "interrupted"
    assert train(given, Context(tmp_path, 1)).summary["status"] == "iteration limit"


def test_reuse_of_another_rows_run(images: str, tmp_path: Path) -> None:
    """The finished run of another row is taken if its options are the same, and only then."""
    given = {"data": images, **SMALL}
    theirs, mine = tmp_path / "work" / "theirs" / "scratch", tmp_path / "work" / "mine" / "scratch"
    for directory in (theirs, mine):
        directory.mkdir(parents=True)
    first = train(given, Context(theirs, 1))
    assert train_or_reuse(given, Context(mine, 1), "theirs").directory == first.directory
    assert not list(mine.iterdir())
    other = train_or_reuse(given | {"seed": "1"}, Context(mine, 1), "theirs")
    assert other.directory == mine / "run"
    assert train_or_reuse(given, Context(theirs.parent.parent / "x" / "scratch", 1), "theirs").summary == first.summary
    assert train_or_reuse(given | {"seed": "1"}, Context(mine, 1), "theirs", "line").directory == mine / "line"


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    stream = Lines(seen.append)
    stream.write("one\ntw")
    stream.write("o\n\n")
    assert seen == ["one", "two"] and not stream.isatty()


# baselines


def brute_force(c: float, t: float, penalty: Any, extra: list[float]) -> tuple[float, float]:
    """(smallest value of ½(w − c)² + t·penalty(w), its place) over a fine grid, 0, c and given challengers."""
    places = np.concatenate([np.linspace(-4, 4, 4001), [0.0, c, -c, *extra]])
    values = 0.5 * (places - c) ** 2 + t * penalty(places)
    return float(values.min()), float(places[np.argmin(values)])


@pytest.mark.parametrize("t", [1e-4, 0.1, 0.5, 1.3])
def test_thresholds_against_brute_force(t: float) -> None:
    """Soft and hard threshold minimise ½(w − c)² + t r(w), at c around the thresholds as well."""
    edge = math.sqrt(2 * t)
    draws = [0.0, *np.random.default_rng(0).uniform(-3, 3, 60)]
    draws += [s * v * f for s in (1, -1) for v in (t, edge) for f in (1 - 1e-6, 1.0, 1 + 1e-6, 0.7, 1.4)]
    for c in draws:
        array = np.array([c])
        for threshold, penalty in ((baselines.soft_threshold, np.abs), (baselines.hard_threshold, lambda w: w != 0)):
            (w,) = threshold(array, t)
            least, _ = brute_force(c, t, penalty, [c - t, c + t])
            assert 0.5 * (w - c) ** 2 + t * float(penalty(w)) <= least + 1e-12
    assert baselines.hard_threshold(np.array([edge * (1 - 1e-9), edge * (1 + 1e-9)]), t).tolist()[0] == 0.0


def clear_sweeps(setup: Setup, controls: Any, position: int) -> Any:
    """Losses and switching functions of a batch on the clear path."""
    clear = Sweep(setup.network, setup.problem.loss)
    return clear.backward(controls, clear.forward(controls, *setup.batch(0, position)))


@pytest.mark.parametrize(("method", "r"), [("l1", L1()), ("l0", L0())])
def test_a_proximal_step_is_the_maximiser_at_eps(setup: Setup, method: str, r: Any) -> None:
    """One step with size s is w = argmax K_ε at ε = 1/(2s), with the gradient of the clear sweep; biases are free."""
    step, rho = 0.05, 0.02
    plan = Plan(method, 1, step, "constant", rho)
    e = clear_sweeps(setup, setup.controls, 0)
    w = baselines.advance(setup, plan, State(setup.controls), e, 0.0).controls
    zeros = 0
    for names, us, gs, ws in zip(setup.network.names(), setup.controls, e.switching, w, strict=True):
        for name, a, b, c in zip(names, us, gs, ws, strict=True):
            expected = r.argmax(a, b, 1 / (2 * step), rho if name == "kernel" else 0.0, WHOLE_LINE)
            np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-15)
            zeros += int(np.count_nonzero(c == 0)) if name == "kernel" else 0
    assert zeros > 0  # else the thresholds were not tried


def test_ramp_and_schedule(setup: Setup) -> None:
    assert [baselines.schedule("growth", t) for t in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 20**-0.5, 1 / 20])
    assert [baselines.schedule("linear", t) for t in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 0.525, 1 / 20])
    assert baselines.schedule("constant", 0.9) == 1.0
    plan = Plan("l0", 1, 0.1, "constant", 100.0, (0.5, 1.0))
    state, still = State(setup.controls), tuple(tuple(0 * a for a in s) for s in setup.controls)
    e = replace(clear_sweeps(setup, setup.controls, 0), switching=still)
    before = baselines.advance(setup, plan, state, e, 0.25).controls
    after = baselines.advance(setup, plan, state, e, 0.75).controls
    assert all(
        np.array_equal(a, b) for s, t in zip(before, setup.controls, strict=True) for a, b in zip(s, t, strict=True)
    )
    assert not any(
        np.any(a)
        for names, stage in zip(setup.network.names(), after, strict=True)
        for name, a in zip(names, stage, strict=True)
        if name == "kernel"
    )


def test_adam_against_scalars() -> None:
    """Five steps of f(w) = a·w²/2 + sin w for each entry, against plain Python numbers from the paper's formula."""
    starts, curvature, s = [0.7, -1.3, 1e-9], [1.0, 25.0, 1e-3], 0.05
    expected = []
    for w, a in zip(starts, curvature, strict=True):
        m = v = 0.0
        for k in range(1, 6):
            slope = a * w + math.cos(w)
            m = 0.9 * m + (1 - 0.9) * slope
            v = 0.999 * v + (1 - 0.999) * slope**2
            w -= s * (m / (1 - 0.9**k)) / (math.sqrt(v / (1 - 0.999**k)) + 1e-8)
        expected.append(w)
    u, m, v = np.array(starts), np.zeros(3), np.zeros(3)
    for k in range(1, 6):
        u, m, v = baselines.adam_step(u, np.array(curvature) * u + np.cos(u), m, v, k, s)
    np.testing.assert_allclose(u, expected, rtol=1e-13)
    single = baselines.adam_step(*(np.ones(2, np.float32),) * 4, 1, 0.1)
    assert all(a.dtype == np.float32 for a in single)


def test_adam_lowers_the_loss(setup: Setup, tmp_path: Path) -> None:
    """Not a property of every run, but of this one; a gradient of the wrong sign raises it."""

    def loss(u: Any) -> float:
        return float(setup.problem.sweeper.forward(u, setup.x, setup.y).losses.mean())

    for plan in (Plan("adam", 6, 1e-3), Plan("l1", 6, 0.05, rho=1e-6)):
        state = baselines.train(setup, plan, tmp_path / plan.method, lambda line: None)
        assert state.steps == 6 * setup.batches and loss(state.controls) < 0.9 * loss(setup.controls)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_pruning_keeps_the_largest(setup: Setup, share: float) -> None:
    """Exactly the share, over all layers together, biases untouched; against a sort of the entries by hand."""
    controls = tuple(tuple(a + 0.01 for a in stage) for stage in setup.controls)
    pruned = baselines.prune(setup, controls, share)
    kept: list[float] = []
    dropped: list[float] = []
    for names, before, after in zip(setup.network.names(), controls, pruned, strict=True):
        for name, a, b in zip(names, before, after, strict=True):
            if name != "kernel":
                assert np.array_equal(a, b)
                continue
            assert np.array_equal(b[b != 0], a[b != 0])
            kept += np.abs(a[b != 0]).tolist()
            dropped += np.abs(a[b == 0]).tolist()
    assert len(kept) == round(share * (len(kept) + len(dropped)))
    assert min(kept, default=math.inf) > max(dropped, default=-math.inf)


def test_retraining_keeps_the_support(setup: Setup, tmp_path: Path) -> None:
    pruned = baselines.prune(setup, setup.controls, 0.3)
    state = baselines.train(setup, Plan("adam", 1, 1e-2), tmp_path / "a", lambda line: None, pruned, hold_zeros=True)
    for names, before, after in zip(setup.network.names(), pruned, state.controls, strict=True):
        for name, a, b in zip(names, before, after, strict=True):
            if name == "kernel":
                assert not np.any(b[a == 0]) and np.any(b[a != 0] != a[a != 0])


@pytest.mark.parametrize(
    ("step", "memory", "verdict"), [(0.1, 0.0, "very"), (0.01, 0.01, "taken"), (30.0, 0.01, "rejected")]
)
def test_a_trial_of_sr2(setup: Setup, step: float, memory: float, verdict: str) -> None:
    """The candidate is the maximiser of K_ε at ε = σ/2 with −m for g; ratio, σ and the verdict by the paper's formulas,
    with losses of the clear path."""
    rho, names = 1e-5, list(arrays_of(setup.network.names()))
    plan = Plan("sr2", 1, step, rho=rho)
    state = baselines.first_state(setup, plan, setup.controls)
    state = replace(state, m=tuple(tuple(memory * np.cos(u) for u in s) for s in setup.controls))
    e = clear_sweeps(setup, state.controls, 1)
    new = baselines.sr2_step(setup, plan, state, e, 0.0)
    u, m = list(arrays_of(state.controls)), list(arrays_of(new.m))
    for before, after, g in zip(arrays_of(state.m), m, arrays_of(e.switching), strict=True):
        np.testing.assert_allclose(after, 0.9 * before - 0.1 * g, rtol=1e-12, atol=1e-17)
    w = [
        L0().argmax(a, -b, 1 / (2 * step), rho if name == "kernel" else 0.0, WHOLE_LINE)
        for name, a, b in zip(names, u, m, strict=True)
    ]

    def penalty(controls: list[Any]) -> float:
        return rho * sum(np.count_nonzero(a) for name, a in zip(names, controls, strict=True) if name == "kernel")

    parts = iter(w)
    candidate = tuple(tuple(next(parts) for _ in s) for s in state.controls)
    f, then = (float(clear_sweeps(setup, c, 1).losses.mean()) for c in (state.controls, candidate))
    slope = sum(float(np.sum(b * (c - a))) for a, b, c in zip(u, m, w, strict=True))
    ratio = (f + penalty(u) - then - penalty(w)) / (penalty(u) - slope - penalty(w))
    taken = ratio >= 7.5e-4
    assert verdict == ("very" if ratio >= 0.999 else "taken" if taken else "rejected")
    assert new.sigma == pytest.approx((0.79 if ratio >= 0.999 else 1 if taken else 5.57) / step, rel=1e-12)
    assert new.rejections == (not taken) and penalty(w) < penalty(u)
    for a, b in zip(arrays_of(new.controls), w if taken else u, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    lost = replace(e, losses=np.full_like(e.losses, np.nan))
    assert baselines.sr2_step(setup, plan, state, lost, 0.0).rejections == 1


@pytest.mark.parametrize("method", ["linbreg", "adabreg"])
def test_bregman_iterations_against_scalars(setup: Setup, method: str) -> None:
    """Five steps of f(w) = a·w²/2 + sin w from a sparse start, for some entries of every array, in plain numbers."""
    step, rho, p = 0.02, 0.03, 0.3
    plan = Plan(method, 1, step, "constant", rho)
    start = baselines.sparse_start(setup, p)
    state, e = baselines.first_state(setup, plan, start), clear_sweeps(setup, start, 0)
    for k in range(5):
        slopes = tuple(tuple(-(3 * u + np.cos(u)) for u in s) for s in state.controls)
        state = replace(baselines.advance(setup, plan, state, replace(e, switching=slopes), 0.0), steps=k + 1)
    chosen, back, gone = np.random.default_rng(0), 0, 0
    for name, first, last in zip(
        arrays_of(setup.network.names()), arrays_of(start), arrays_of(state.controls), strict=True
    ):
        r = rho if name == "kernel" else 0.0
        for i in chosen.integers(first.size, size=40):
            w = float(first.flat[i])
            dual, m, v = w + (r if w > 0 else -r if w < 0 else 0.0), 0.0, 0.0
            for k in range(1, 6):
                slope = 3 * w + math.cos(w)
                m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
                adam = (m / (1 - 0.9**k)) / (math.sqrt(v / (1 - 0.999**k)) + 1e-8)
                dual -= step * (adam if method == "adabreg" else slope)
                w = dual - r if dual > r else dual + r if dual < -r else 0.0
            assert last.flat[i] == pytest.approx(w, rel=1e-9, abs=1e-12)
            back += first.flat[i] == 0 and w != 0
            gone += first.flat[i] != 0 and w == 0
    assert back > 0 and gone > 0  # else the duals were not tried


def test_a_sparse_start_keeps_the_variance(setup: Setup) -> None:
    """Few entries of each kernel, u/√p each, drawn by the seed; biases as they were."""
    p = 0.1
    for again in (setup, replace(setup, options=replace(setup.options, seed=1))):
        start, same = baselines.sparse_start(again, p), again.options.seed == 0
        for name, u, w, v in zip(
            arrays_of(setup.network.names()),
            arrays_of(setup.controls),
            arrays_of(start),
            arrays_of(baselines.sparse_start(setup, p)),
            strict=True,
        ):
            assert np.array_equal(w, v) == (same or name != "kernel")
            if name != "kernel":
                assert np.array_equal(u, w)
                continue
            np.testing.assert_allclose(w[w != 0], u[w != 0] / math.sqrt(p), rtol=1e-12)
            spread = math.sqrt(p * (1 - p) / u.size)
            assert abs(np.count_nonzero(w) / u.size - p) < 5 * spread
            if u.size > 5000:
                assert float(np.mean(w**2)) == pytest.approx(float(np.mean(u**2)), rel=0.2)


def test_adam_projected(setup: Setup, tmp_path: Path) -> None:
    """The whole run against Adam on one long vector whose largest kernel entries are taken by a sort; entries that
    were zero at the start come back."""
    plan = Plan("adam", 2, 0.02, "constant", share=0.5, projected=True)
    start = baselines.prune(setup, setup.controls, 0.4)
    state = baselines.train(setup, plan, tmp_path / "a", lambda line: None, start)
    shapes = [a.shape for a in arrays_of(setup.controls)]
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    kernel = np.concatenate(
        [
            np.full(math.prod(s), name == "kernel")
            for name, s in zip(arrays_of(setup.network.names()), shapes, strict=True)
        ]
    )

    def nested(w: np.ndarray) -> Any:
        parts = iter(a.reshape(shape) for a, shape in zip(np.split(w, cuts), shapes, strict=True))
        return tuple(tuple(next(parts) for _ in s) for s in setup.controls)

    w = np.concatenate([a.ravel() for a in arrays_of(start)])
    m, v, back, total = 0 * w, 0 * w, 0, 2 * setup.batches
    clear = Sweep(setup.network, setup.problem.loss)
    for k in range(1, total + 1):
        u = nested(w)
        g = clear.backward(u, clear.forward(u, *setup.batch(*divmod(k - 1, setup.batches)))).switching
        slope = -np.concatenate([a.ravel() for a in arrays_of(g)])
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        before, w = w, w - 0.02 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        rest = 1 - min(max((k / total - 0.1) / 0.5, 0), 1)
        keep = round((0.5 + 0.5 * rest**3) * int(kernel.sum()))
        order = np.argsort(np.where(kernel, -np.abs(w), np.inf))
        w[order[keep : int(kernel.sum())]] = 0
        back += int(np.sum(kernel & (before == 0) & (w != 0)))
    np.testing.assert_allclose(np.concatenate([a.ravel() for a in arrays_of(state.controls)]), w, rtol=1e-6, atol=1e-9)
    assert back > 0 and np.count_nonzero(w[kernel]) == round(0.5 * int(kernel.sum()))


@pytest.mark.parametrize(
    "plan",
    [
        Plan("adam", 2, 1e-3),
        Plan("adam", 2, 1e-2, share=0.1),
        Plan("adam", 2, 1e-2, share=0.1, projected=True),
        Plan("sr2", 2, 1.0, rho=1e-5),
        Plan("linbreg", 2, 0.1, rho=0.01),
        Plan("adabreg", 2, 1e-3, rho=0.01),
    ],
    ids=lambda plan: f"{plan.method}-{plan.share}-{plan.projected}",
)
def test_a_killed_baseline_goes_on_bit_for_bit(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    monkeypatch.setattr(baselines, "SAVE_EVERY", -1.0)
    whole = baselines.train(setup, plan, tmp_path / "whole", lambda line: None)
    original = Setup.batch

    def lost(self: Setup, epoch: int, position: int) -> Any:
        if epoch * self.batches + position == 3:
            raise ArithmeticError("killed")
        return original(self, epoch, position)

    with monkeypatch.context() as patch:
        patch.setattr(Setup, "batch", lost)
        with pytest.raises(ArithmeticError):
            baselines.train(setup, plan, tmp_path / "broken", lambda line: None)
    assert baselines.load(setup, tmp_path / "broken").steps == 3
    broken = baselines.train(setup, plan, tmp_path / "broken", lambda line: None)
    for f in fields(State):
        ours, theirs = getattr(whole, f.name), getattr(broken, f.name)
        if f.name in baselines.NESTED:
            assert len(ours) == len(theirs)
            assert all(np.array_equal(a, b) for a, b in zip(arrays_of(ours), arrays_of(theirs), strict=True))
        elif f.name != "seconds":
            assert ours == theirs
    assert bool(whole.dual) == (plan.method in ("linbreg", "adabreg"))
    assert whole.steps == 2 * setup.batches > 3


def test_judge_finds_an_emptied_layer(setup: Setup) -> None:
    found = baselines.judge(setup, setup.controls)
    assert not found["disconnected"] and found["kept_fraction"] == 1.0
    last = setup.network.layers()[-1]
    emptied = tuple(tuple(0 * a for a in s) if l == last else s for l, s in enumerate(setup.controls))
    found = baselines.judge(setup, emptied)
    assert found["disconnected"] and found["emptied_layers"] == f"[{last}]"
    assert found["test_accuracy"] == pytest.approx(1 / 3, abs=0.01)  # one answer for three equal classes


# trade-off and ternary, in a form still smaller than --quick


@pytest.fixture
def tiny(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"data": images, "network": "lenet5", **SMALL}
    data.pop("epochs")
    monkeypatch.setattr(tradeoff, "QUICK_DATA", data)
    monkeypatch.setattr(tradeoff, "QUICK_EPOCHS", 2)
    monkeypatch.setattr(ternary, "QUICK_DATA", data)


def test_tradeoff_end_to_end(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of row; descent holds; nothing is run twice."""
    command = ["tradeoff", "--quick", "--out", str(tmp_path), "--threads", "1"]
    assert __main__.main(command) == 0
    rows = {r["settings"]["kind"]: r for r in read(tmp_path / "tradeoff" / "results.json")["rows"]}
    assert set(rows) == set(tradeoff.KINDS)
    assert rows["bsqh"]["result"]["descent_violations"] == 0
    assert rows["bsqh"]["result"]["kept_weights"] <= 0.05 * 61_470
    assert rows["bsqh"]["settings"]["decide"]["theta"] == resolve({}).theta
    assert rows["retrain"]["result"]["kept_fraction"] == pytest.approx(0.05, abs=1e-4)
    steps = rows["prune"]["result"]["forward_sweeps"]  # one budget
    for kind in set(tradeoff.KINDS) - {"bsqh"}:
        sweeps = [rows[kind]["result"][f"{name}_sweeps"] for name in ("forward", "backward")]
        assert sweeps == [2 * steps if kind == "sr2" else steps, steps]
    assert rows["prune"]["result"]["kept_fraction"] == 1.0
    for kind in ("gradual", "projected"):
        assert rows[kind]["result"]["kept_fraction"] == pytest.approx(0.01, abs=1e-4)
    for r in rows.values():
        assert 0 <= r["result"]["test_low"] <= r["result"]["test_accuracy"] <= r["result"]["test_high"] <= 1
    capsys.readouterr()
    monkeypatch.setattr(tradeoff.Tradeoff, "run", lambda *a: pytest.fail("a row was run"))
    assert __main__.main(command) == 0
    assert "done in" not in capsys.readouterr().out


def stored(kind: str, strength: str, seed: int, kept: float, accuracy: float, **more: Any) -> dict[str, Any]:
    result = {"kept_fraction": kept, "test_accuracy": accuracy, "disconnected": False, **more}
    return {
        "key": f"{kind}-{strength}-{seed}",
        "result": result,
        "seconds": 1.0,
        "date": "2026-01-01",
        "settings": {"kind": kind, "strength": strength, "seed": seed, "epochs": 24, "quick": False},
    }


def example() -> list[dict[str, Any]]:
    """Two recipes, the first with three seeds, a dense run judged at two shares."""
    curves = {
        "share": [1.0, 0.01],
        "kept_fraction": [1.0, 0.01],
        "test_accuracy": [0.993, 0.41],
        "disconnected": [False, True],
    }
    return [
        *(
            stored("bsqh", "weak", i, k, a, descent_violations=0)
            for i, (k, a) in enumerate([(0.018, 0.990), (0.019, 0.991), (0.023, 0.995)])
        ),
        stored("bsqh", "strong", 0, 0.009, 0.988, descent_violations=2),
        stored("prune", "all shares", 0, 1.0, 0.993, curves=curves),
    ]


def test_figure_data() -> None:
    """Points and spread as drawn: means at the means, bars from smallest to largest, low points at the lower edge."""
    points = tradeoff.points(example())
    assert [(p.kind, p.strength, round(p.kept, 6), round(p.accuracy, 6)) for p in points if p.kind == "prune"] == [
        ("prune", "100 %", 100.0, 99.3),
        ("prune", "1 %", 1.0, 41.0),
    ]
    assert [p.disconnected for p in points if p.kind == "prune"] == [False, True]
    figure = tradeoff.draw(points, published=True)
    (axes,) = figure.axes
    drawn = {c.get_label().partition(" (")[0]: c for c in axes.containers}
    line, _, (horizontal, vertical) = drawn["bSQH, L0, single run"].lines
    np.testing.assert_allclose(line.get_xydata(), [[0.9, 98.8], [2.0, 99.2]], rtol=1e-12)
    np.testing.assert_allclose(horizontal.get_segments()[1], [[1.8, 99.2], [2.3, 99.2]], rtol=1e-12)
    np.testing.assert_allclose(vertical.get_segments()[1], [[2.0, 99.0], [2.0, 99.5]], rtol=1e-12)
    assert drawn["Adam, magnitude pruning, no retraining"].lines[0].get_xydata().tolist() == [[100.0, 99.3]]
    assert [t.get_text() for t in axes.texts] == ["41.0", *(text for _, _, text, *_ in tradeoff.NAMES)]
    assert axes.get_xscale() == "log" and "%" in axes.get_xlabel() and "%" in axes.get_ylabel()
    published = [a for a in axes.lines if str(a.get_label()).startswith("published")]
    assert [[tuple(map(float, pair)) for pair in a.get_xydata()] for a in published] == [
        [tuple(map(float, pair)) for pair in pairs] for _, pairs in tradeoff.PUBLISHED
    ]
    bare = tradeoff.draw(points, published=False)
    assert not [a for a in bare.axes[0].lines if str(a.get_label()).startswith("published")]
    assert [t.get_text() for t in bare.axes[0].texts] == ["41.0"]
    for drawing, shown in ((figure, True), (bare, False)):  # the legend speaks of what is drawn
        (legend,) = drawing.legends
        words = [t.get_text() for t in legend.get_texts()]
        assert any(w.startswith("published") for w in words) == shown and len(words) == 2 + shown
        assert "below the axis" in legend.get_title().get_text() and "bars" in legend.get_title().get_text()
    single = tradeoff.draw([p for p in points if p.kind == "prune" and p.accuracy > 99], published=False)
    assert single.legends[0].get_title().get_text() == ""
    from matplotlib import pyplot

    for drawing in (figure, bare, single):
        pyplot.close(drawing)


def test_names_stand_at_their_points() -> None:
    """Each published source has its name in the figure, with the authors of the list."""
    for (label, pairs), (_, at, text, *_) in zip(tradeoff.PUBLISHED, tradeoff.NAMES, strict=True):
        *name, authors = text.split("\n")
        assert label == f"{' '.join(name)} ({authors})" and 0 <= at < len(pairs)


def test_figures_can_be_read_in_grey() -> None:
    markers = [marker for marker, _, _ in tradeoff.STYLES.values()]
    assert set(tradeoff.STYLES) == set(tradeoff.KINDS) and len(set(markers)) == len(markers)


def test_tradeoff_table() -> None:
    headings, rows = tradeoff.Tradeoff().table(example())
    lines = [dict(zip(headings, row, strict=True)) for row in rows]
    assert [line["kept, mean (min–max), %"] for line in lines] == ["2.00 (1.80–2.30)", "0.90", "100.00", "1.00"]
    assert lines[0]["test accuracy, mean (min–max), %"] == "99.20 (99.00–99.50)"
    assert [line["descent violations"] for line in lines] == [0, 2, "–", "–"]
    assert [line["disconnected"] for line in lines] == ["0 of 3", "0 of 1", "0 of 1", "1 of 1"]


def test_ternary_end_to_end(tiny: None, tmp_path: Path) -> None:
    """Kernels hold 0 and one modulus for each layer; descent holds on the line and on the finite set."""
    assert __main__.main(["ternary", "--quick", "--out", str(tmp_path), "--threads", "1"]) == 0
    for r in read(tmp_path / "ternary" / "results.json")["rows"]:
        assert r["result"]["values_are_ternary"] is True and r["result"]["descent_violations"] == 0
        assert r["result"]["descent_checked"] > 0 and 0 < r["result"]["kept_fraction"] < 1
        model = tmp_path / "ternary" / "work" / r["key"] / "scratch" / "run" / "model.npz"
        kernels = ternary.kernels_of(model)
        assert len(kernels) == (4 if r["settings"]["hidden"] else 5)
        for kernel in kernels:
            assert set(np.unique(np.abs(kernel))) == {0.0, np.abs(kernel).max()}
    assert not ternary.is_ternary(np.array([1.0, 0.5, 0.0])) and ternary.is_ternary(np.array([-1.0, 1.0, 0.0]))


@pytest.mark.parametrize("kappa", [1.0, 2.0, 4.0])
def test_ternary_start(setup: Setup, kappa: float) -> None:
    """s = κ·RMS(u), and the start has about the mean square of the initial kernel."""
    changed, scales = ternary.random_start(setup, kappa)
    kernels = [
        (a, b)
        for s, t in zip(setup.controls, changed.controls, strict=True)
        for a, b in zip(s, t, strict=True)
        if a.ndim > 1
    ]
    assert len(kernels) == len(scales)
    for (before, after), s in zip(kernels, scales, strict=True):
        assert s == pytest.approx(kappa * math.sqrt(float(np.mean(before**2))), rel=1e-12)
        assert set(np.round(np.unique(after) / s, 12)) <= {-1.0, 0.0, 1.0}
        assert float(np.mean(after**2)) == pytest.approx(float(np.mean(before**2)), rel=0.1)
        assert np.all(after[after != 0] * before[after != 0] > 0)


def test_nearest_ternary_kernel(setup: Setup) -> None:
    """Against all k: no other scale and support is nearer; the start is the projection; a zero kernel is refused."""
    changed, scales = ternary.nearest(setup, setup.controls)
    kernels = [
        (a, b)
        for s, t in zip(setup.controls, changed.controls, strict=True)
        for a, b in zip(s, t, strict=True)
        if a.ndim > 1
    ]
    assert len(kernels) == len(scales)
    for (before, after), s in zip(kernels, scales, strict=True):
        assert set(np.round(np.unique(after) / s, 6)) <= {-1.0, 0.0, 1.0} and np.any(after) and not np.all(after)
        distance = float(np.sum((before - after) ** 2))
        for other in s * np.linspace(0.5, 1.5, 41):
            codes = np.clip(np.round(before / other), -1, 1)
            assert distance <= float(np.sum((before - other * codes) ** 2)) * (1 + 1e-6)
    assert ternary.nearest_scale(np.array([3.0, -2.0, 0.1])) == 2.5
    with pytest.raises(InputError, match="smaller ρ"):
        ternary.nearest_scale(np.zeros((2, 3)))


# the results page


def test_the_seeds_of_a_setting_share_a_line() -> None:
    assert together([3, 3, 3]) == 3 and together([True, True]) is True and together([None, None]) is None
    assert together([0.5, 0.25, 2.0]) == "0.5 (0.25–2)" and together([1, 4]) == "2.5 (1–4)"
    assert together([True, False, True]) == "2 of 3" and together(["b", "a", "b"]) == "b, a"
    assert together([1.0, None]) == "1 in 1 of 2" and together([1.0, 1.0001]) == "1"
    assert together([61470, 8532]) == "35001 (8532–61470)" and together([2.5e8, 3.5e8]) == "3e+08 (2.5e+08–3.5e+08)"


def test_the_page_is_up_to_date() -> None:
    """What stands between the markers is what the stored results say, and they are small."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert pages.generate(page, ROOT / "docs") == page, "run python -m verification.experiments --docs"
    assert pages.committed(ROOT / "docs") <= pages.LIMIT
    for path in (ROOT / "docs" / "results").glob("*.json"):
        found = read(path)
        assert found["experiment"] == path.stem and not found["quick"]
        forms = (f"{stem}{form}" for stem in found["figures"] for form in (".png", "-dark.png", ".svg"))
        assert all((ROOT / "docs" / "figures" / "experiments" / form).is_file() for form in forms)
        assert all(r["result"].get("descent_violations") is not None or r["result"] for r in found["rows"])
    for command in re.findall(r"^python -m verification\.experiments (.*)$", page, re.M):
        __main__.parser().parse_args(shlex.split(command))


def test_the_page_states_the_budget() -> None:
    """The numbers in the text are those of the table of settings."""
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    t = tradeoff
    for sentence in (
        f"The budget is {t.EPOCHS} epochs; a few rows have {t.LONG}.",
        f"no retraining*: {t.EPOCHS} epochs,",
        f"retraining*: {t.EPOCHS - t.RETRAINING} epochs, pruning, {t.RETRAINING} epochs",
    ):
        assert sentence in page
    assert 3 * t.RETRAINING <= t.EPOCHS


def test_publish(counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full results go into docs with thinned curves, quick ones do not; old figures go; the page shows them."""
    monkeypatch.setattr(pages, "EXPERIMENTS", {"counted": ("", ""), "other": ("", "")})
    out, docs = tmp_path / "out", tmp_path / "docs"
    docs.mkdir()
    page = docs / "results.md"
    page.write_text("# R\n\nby hand\n<!-- counted -->\nold\n<!-- /counted -->\n<!-- other -->\n<!-- /other -->\nend\n")
    assert __main__.main(["counted", "--quick", "--out", str(out)]) == 0
    assert "counted: left out (quick results)" in pages.publish(out, docs)
    assert page.read_text().count(pages.MISSING) == 2
    assert __main__.main(["counted", "--out", str(out)]) == 0
    assert "counted: 3 of 3 rows" in pages.publish(out, docs)
    text = page.read_text()
    assert text.count(pages.MISSING) == 1 and "by hand" in text and "old" not in text and text.endswith("end\n")
    assert "| n | begun | missing |\n| ---: | ---: | ---: |\n| 1 | 1 | – |\n| 2 | 1 | – |" in text
    assert "3 rows, 20" in text and "![Counting: counted-squares](figures/experiments/counted-squares.png)" in text
    assert pages.generate(text, docs) == text
    figures = docs / "figures" / "experiments"
    forms = (".png", ".svg", "-dark.png")
    assert {p.name for p in figures.iterdir()} == {f"counted-squares{form}" for form in forms}
    shutil.rmtree(out)  # what is committed is enough to draw it anew
    monkeypatch.setattr(counted, "drawing", "counted-other")
    pages.publish(out, docs)
    assert {p.name for p in figures.iterdir()} == {f"counted-other{form}" for form in forms}
    assert "(figures/experiments/counted-other.png)" in page.read_text()
    page.write_text("# no markers\n")
    with pytest.raises(InputError, match="each once"):
        pages.publish(out, docs)


def test_thinned() -> None:
    curves = {"x": [float(i) for i in range(1001)], "deep": [[1 / 3, 2.0]], "name": "y"}
    found = pages.thinned(curves)
    assert len(found["x"]) == pages.POINTS and found["x"][0] == 0.0 and found["x"][-1] == 1000.0
    assert found["deep"] == [[0.333333, 2.0]] and found["name"] == "y"


def test_cells() -> None:
    assert [pages.cell(v) for v in (None, True, 0.123456, 3, "a|b")] == ["–", "yes", "0.1235", "3", "a\\|b"]
    assert [pages.duration(v) for v in (12.3, 90, 7200)] == ["12 s", "1.5 min", "2.0 h"]


def test_the_figure_of_the_first_page_is_drawn_from_the_stored_rows() -> None:
    from verification.experiments import front

    docs = Path(__file__).parents[1] / "docs"
    found = front.series(docs / "results" / "tradeoff.csv")
    assert (docs / "figures" / "front.svg").read_text(encoding="utf-8") == front.drawing(found)
    assert all(
        front.LEFT < kept < front.RIGHT and front.LOW < right < front.HIGH for p in found.values() for kept, right in p
    )
    assert all(found[kind] for kind in ("bsqh", "gradual", "l0", "retrain", "prune"))
    said = {f"{kept:.1f} {right:.1f}" for kept, right in found["bsqh"]}
    assert {"1.0 99.3", "0.5 99.1"} <= said and f"{found['prune'][0][1]:.1f}" == "99.3"  # the first page and the README


def test_tables_of_the_page_are_narrow_and_whole_in_their_files() -> None:
    for name, shown in pages.SHOWN.items():
        found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        headings, rows = make(name).table(found["rows"])
        assert set(shown) <= set(headings) and len(shown) <= 8
        assert pages.narrow(name, headings, rows)[0] == [h for h in headings if h in shown]
        stored = (ROOT / "docs" / "results" / f"{name}-table.csv").read_text(encoding="utf-8")
        assert stored == pages.whole_table(name, found), "run python -m verification.experiments --docs"
