"""``python -m verification.gpu``: plan, limits, resuming and comparing, without a GPU and without PyTorch."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from verification.gpu import __main__ as script
from verification.gpu import needs, plan, process, profiling, sides, store, suite, table, training, warming
from verification.gpu.plan import Row
from verification.gpu.process import Command, Worker, WorkerError
from verification.gpu.sides import Sides
from verification.gpu.store import Store

SIDE = {"backend": "numpy", "device": "cpu"}


def test_the_most_important_rows_come_first() -> None:
    rows = plan.rows()
    assert [r.name for r in rows[:2]] == [
        "mini_batch_step lenet5 64 float32",
        "mini_batch_step lenet5-caffe 64 float32",
    ]
    assert len({r.name for r in rows}) == len(rows)
    assert all(r.sides == plan.SIDES for r in rows[: script.PROFILED_AFTER])
    assert {r.operation for r in rows} == {"mini_batch_step", "full_batch_step", "forward_backward"}
    assert {(r.config, r.batch) for r in rows if r.dtype == "float64"} >= {("residual", 64), ("lenet5", 1024)}
    assert next(r for r in rows if r.memory).batch == 60_000
    small = plan.tiny(rows)
    assert all(r.batch <= 8 for r in small) and len({r.name for r in small}) == len(small) < len(rows)
    assert [r.sides for r in plan.tiny(plan.profiles())[:2]] == [("ours",), ("eager",)]


def test_what_is_compiled_beforehand_is_what_rows_need() -> None:
    rows = plan.rows()
    jobs = plan.warm_jobs(rows)
    wanted = {(r.name, side) for r in rows for side in r.sides if side.startswith("compiled")}
    assert {(r.name, r.sides[0]) for job in jobs for r in job} == wanted
    assert jobs[0][0].name == rows[0].name and jobs[0][0].operation == "mini_batch_step"
    assert all(len({r.sides for r in job}) == 1 for job in jobs)


def test_missing_needs_are_named_with_the_way_to_bring_them() -> None:
    assert needs.missing() == []
    assert needs.missing(("no-such-package",)) == ["no-such-package"]
    assert "pip install --no-index" in needs.how_to_bring(["a", "b"])


def test_the_script_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(script, "missing", lambda: ["array-api-compat"])
    assert script.main([]) == 2
    assert "array-api-compat cannot be imported" in capsys.readouterr().err


def test_results_are_kept_for_the_same_device_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new folder" / "gpu.json"
    first = Store(path, "device")
    first.put("claims", {"agreed": True})
    first.put("benchmark", {"rounds": 3}, "row")
    first.put("tests", {"finished": False})
    assert json.loads(path.read_text())["rows"]["benchmark: row"]["rounds"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["gpu.json"]
    again = Store(path, "device")
    assert again.known("claims") and again.known("benchmark", "row") and list(again.rows("benchmark")) == ["row"]
    assert again.known("tests") is None and again.known("benchmark", "other") is None
    assert Store(path, "another device").known("claims") is None
    assert Store(path, "device", fresh=True).known("claims") is None
    monkeypatch.setattr(store, "code", lambda part: "changed")
    assert Store(path, "device").known("claims") is None


def test_a_parts_hash_follows_its_sources_only(tmp_path: Path) -> None:
    for place in ("pmp_ref", "tests", "verification"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.py").write_text("1")
    before = {part: store.code(part, tmp_path) for part in ("smoke", "tests")}
    (tmp_path / "tests" / "a.py").write_text("2")
    (tmp_path / "pmp_ref" / "notes.txt").write_text("2")
    assert store.code("smoke", tmp_path) == before["smoke"]
    assert store.code("tests", tmp_path) != before["tests"]


def test_a_command_that_takes_too_long_is_cut_off() -> None:
    ended = Command([sys.executable, "-c", "print('said', flush=True); import time; time.sleep(60)"]).result(3.0)
    assert ended["exit code"] is None and ended["tail"] == "said\n" and ended["seconds"] < 30
    assert Command([sys.executable, "-c", "raise SystemExit(3)"]).result(60.0)["exit code"] == 3


def test_a_worker_measures_and_survives_errors() -> None:
    worker = Worker()
    try:
        assert worker.ask(120.0, do="about", **SIDE)["answer"]["numpy"]
        row = Row("mini_batch_step", "lenet5", 2, "float32", ("ours",))
        found = worker.ask(120.0, do="prepare", row=row.question(), **SIDE)["answer"]
        assert found["loss"] > 0 and found["repeats"] >= 1
        assert worker.ask(120.0, do="turn", repeats=2, **SIDE)["answer"] > 0
        assert "unknown question" in worker.ask(120.0, do="nothing", row=row.question(), **SIDE)["error"]
        with pytest.raises(WorkerError, match=r"no answer within 0 s"):
            worker.ask(0.0, do="smoke", **SIDE)
    finally:
        worker.close()


def test_the_smoke_test_passes_on_numpy() -> None:
    from verification.gpu import smoke

    found = smoke.smoke("numpy")
    assert {name.partition(",")[0] for name in found} >= {"a product", "a fused kernel", "J after three steps"}


class Stub(Worker):
    """Answers without a process; ``fails`` names sides with which it never does, ``losses`` what sides end with."""

    fails: tuple[str, ...] = ()
    losses: dict[str, float] = {}  # noqa: RUF012
    asked: list[tuple[str, str, str]] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def send(self, **question: Any) -> None:
        self.sent = question

    def answer(self, limit: float) -> Any:
        do = self.sent["do"]
        if do == "about":
            return {"answer": {"device": "stub", "torch": "2", "cupy": "1", "numpy": "0", "CUDA on the CPU": False}}
        if do in ("smoke", "start", "turn"):
            return {"answer": {"smoke": {}, "start": True, "turn": 1.0}[do]}
        row = self.sent["row"]
        side = row["sides"][0]
        self.asked.append((do, row["config"], side))
        if side in self.fails:
            raise WorkerError("the process ended with code -9; it said nothing")
        if do == "profile":
            return {"answer": {"µs with the profiler": 3.0, "device µs": 2.0, "kernels": []}}
        return {"answer": {"loss": self.losses.get(side, 1.0), "repeats": 1}}

    def close(self) -> str:
        return ""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """The script with workers that only answer, a round or two of each row, and nothing compiled beforehand."""
    monkeypatch.setattr(script, "Worker", Stub)
    monkeypatch.setattr(sides, "Worker", Stub)
    monkeypatch.setattr(sides, "MOST", 2)
    monkeypatch.setattr(script, "warm_jobs", lambda rows: [])
    monkeypatch.setattr(script, "driver", dict)
    monkeypatch.setattr(Stub, "asked", [])
    return Stub


def test_a_side_that_disagrees_is_left_out(stub: type[Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "losses", {"eager": 1.00001, "compiled": 1.1, "graph": float("nan")})
    row = Row("mini_batch_step", "lenet5", 2, "float32", ("ours", "eager", "compiled", "graph"))
    found = Sides(SIDE).measure(row, 60.0)
    assert set(found["ms"]) == {"ours", "eager"} and found["ratios"] == {"eager": 1.0} and found["finished"]
    assert set(found["errors"]) == {"compiled", "graph"}
    monkeypatch.setattr(stub, "losses", {"ours": 2.0})
    found = Sides(SIDE).measure(row, 60.0)
    assert "ms" not in found and found["error"].startswith("ours ends with the loss 2.0")
    assert any("ours ends" in line for line in table.benchmark({row.name: found}))
    assert not Sides(SIDE).measure(row, 0.0)["finished"]


FAILING = """
import os, sys, time
from verification.gpu import measure, worker

def make(side, row, *_):
    calls = []
    def operation():
        calls.append(side)
        if row.batch == 2 and len(calls) > measure.WARM + 4:
            if side == "eager":
                print("a.cu:1: block [0]: Assertion `t >= 0` failed.\\nlater", file=sys.stderr, flush=True)
                os.abort()
            if side == "graph":
                raise RuntimeError("broken\\nin two lines " + "x" * 5000)
        time.sleep(0.01)
        return 1.0
    return operation

measure.make, measure.start, measure.release = make, lambda *_: True, lambda *_: None
measure.synchroniser = lambda *_: lambda: None
worker.main()
"""


def test_a_side_that_fails_costs_no_other_and_is_there_again_for_the_next_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRAM", ("-c", FAILING))
    measured = Sides(SIDE)
    try:
        rows = [Row("mini_batch_step", "lenet5", batch, "float32", ("ours", "eager", "graph")) for batch in (2, 3)]
        found = measured.measure(rows[0], 120.0, seconds=0.0)
        assert set(found["ms"]) == {"ours"} and set(found["errors"]) == {"eager", "graph"} and found["finished"]
        assert "code -6; a.cu:1: block [0]: Assertion `t >= 0` failed.; its last words" in found["errors"]["eager"]
        assert found["errors"]["graph"].startswith("RuntimeError: broken / in two lines xxx")
        assert 2000 <= len(found["errors"]["graph"]) < 2100 and set(measured.workers) == {"ours"}
        ours = measured.workers["ours"]
        found = measured.measure(rows[1], 120.0, seconds=0.0)
        assert set(found["ms"]) == {"ours", "eager", "graph"} and not found["errors"]
        assert measured.workers["ours"] is ours
    finally:
        measured.close()
    assert not measured.workers and ours.process.poll() is not None


def test_a_graph_holds_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from verification.performance import opponent

    for name in ("Stream", "current_stream", "stream", "synchronize", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    labels, weight = torch.zeros(3), torch.ones(3)
    alive = [weakref.ref(labels), weakref.ref(weight)]
    run = opponent.recorded(lambda x, held=weight: (x + held,), (labels,))
    del labels, weight
    gc.collect()
    assert all(one() is not None for one in alive) and run()[0].tolist() == [1.0, 1.0, 1.0]


def test_ratios_are_medians_over_rounds_against_the_better_layout() -> None:
    done = [{"ours": o, "eager": a, "eager, channels last": b} for o, a, b in ((1, 4, 2), (3, 9, 3), (8, 16, 32))]
    found = sides.summary([{k: float(v) for k, v in r.items()} for r in done])
    assert found["ratios"] == {"eager": 0.5} and found["ms"]["eager"][0] == 9.0


def test_the_recorder_keeps_failures_and_a_run_cut_off_counts() -> None:
    lines = [
        json.dumps({"test": "tests/a.py::one", "outcome": "passed", "seconds": 1.0, "text": ""}),
        json.dumps({"test": "tests/a.py::two", "outcome": "failed", "seconds": 2.0, "text": "assert 0"}),
        '{"test": "tests/a.p',
    ]
    found = suite.summary(lines, {"exit code": None, "seconds": 5.0, "tail": ""})
    assert (found["passed"], found["failed"], found["finished"]) == (1, 1, False)
    assert found["tracebacks"] == {"tests/a.py::two": "assert 0"} and found["seconds by file"] == {"tests/a.py": 3.0}
    assert "was cut off" in table.parts({"tests": found})[0]


def test_the_recorder_writes_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text("def test_a():\n    pass\n\n\ndef test_b():\n    assert 1 == 2\n")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "verification.gpu.recorder",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ended = Command(words, RECORDER_FILE=str(tmp_path / "record")).result(100.0)
    found = suite.summary((tmp_path / "record").read_text().splitlines(), ended)
    assert (found["passed"], found["failed"], found["agreed"]) == (1, 1, False), ended["tail"]
    assert "assert 1 == 2" in next(iter(found["tracebacks"].values()))


def test_the_selection_is_there() -> None:
    assert len(suite.files()) > 10 and all((suite.ROOT / name).exists() for name in suite.files())


def trial(step: int, verdict: str = "accepted", J: float = 1.0, nonzeros: int = 7) -> dict[str, str]:
    return {
        "verdict": verdict,
        "step": str(step),
        "epoch": "0",
        "position": "0",
        "rejections": "0",
        "J": repr(J),
        "nonzeros": str(nonzeros),
        "seconds": str(step / 10),
    }


def test_runs_are_compared_decision_by_decision() -> None:
    run = {"trials": [trial(0), trial(1), trial(2)], "summary": {"status": "iteration limit"}}
    assert training.compare(run, run, "float64")["agreed"]
    near = {**run, "trials": [trial(0), trial(1, J=1 + 1e-12), trial(2)]}
    found = training.compare(run, near, "float64")
    assert found["agreed"] and 0 < found["largest relative difference of J"] < 1e-11
    assert not training.compare(run, {**run, "trials": [trial(0), trial(1, J=1.001), trial(2)]}, "float64")["agreed"]
    other = {**run, "trials": [trial(0), trial(1), trial(2, "rejected")]}
    found = training.compare(run, other, "float64")
    assert not found["agreed"] and found["first difference"]["trial"] == 2
    assert training.compare(run, other, "float32")["agreed"]
    short = training.compare(run, {**run, "trials": run["trials"][:1]}, "float64")
    assert short["first difference"] == {"trial": 1, "numpy": training.decision(trial(1)), "backend": None}
    assert "decisions differ first in trial 1" in table.detail("training", {"float64": short, "float32": short})
    assert short["numpy"]["seconds to the first trial"] == 0.1
    assert short["numpy"]["ms per trial, mean after the first"] == 100.0


@pytest.mark.slow  # four runs are trained
def test_training_in_numpy_agrees_with_itself() -> None:
    runs = training.Training("numpy", steps=3)
    found = runs.result(200.0)
    runs.close()
    assert found["agreed"] and found["finished"] and found["float64"]["trials"] == [4, 4]
    assert found["float32"]["largest relative difference of J"] == 0.0


@pytest.mark.slow  # four runs are trained
def test_training_is_timed_with_and_without_a_second_opinion() -> None:
    runs = training.Training("numpy", steps=3)
    whole = {**runs.result(200.0), "times": runs.times(200.0)}
    runs.close()
    assert {run["status"] for timed in whole["times"].values() for run in timed.values()} == {"iteration limit"}
    said = table.detail("training", whole)
    assert "ms per trial without: " in said and "first trial after" in said


def test_a_trace_becomes_a_table() -> None:
    event = {"ph": "X", "ts": 0.0, "dur": 4.0}
    events = [
        {**event, "cat": "kernel", "name": "a"},
        {**event, "cat": "kernel", "name": "b", "dur": 30.0, "ts": 10.0},
        {**event, "cat": "kernel", "name": "a", "ts": 50.0},
        {**event, "cat": "gpu_memcpy", "name": "copy", "ts": 60.0},
        {**event, "cat": "cuda_runtime", "name": "cudaLaunchKernel"},
        {**event, "cat": "cpu_op", "name": "aten::add"},
        {"ph": "M", "name": "process_name"},
    ]
    found = profiling.table(events, calls=2)
    assert found["device µs"] == 21.0 and found["device span µs"] == 32.0
    assert found["kernels"][:2] == [{"name": "b", "count": 0.5, "µs": 15.0}, {"name": "a", "count": 1.0, "µs": 4.0}]
    assert found["calls"] == [{"name": "cudaLaunchKernel", "count": 0.5, "µs": 2.0}]
    assert profiling.table([], calls=1)["device µs"] == 0.0
    said = table.profiles({"a": {**found, "µs without the profiler": 7.2, "µs with the profiler": 31.0}})
    assert said[0].startswith("a: 7 µs of the clock (31 with the profiler, which slows the host), 21 µs on the device")


def test_compiling_that_cannot_be_done_is_told() -> None:
    job = [Row("forward_backward", "no such network", 2, "float32", ("compiled",))]
    compiling = warming.Warming([job], SIDE, patience=120.0)
    assert compiling.first(job) == 0 and compiling.patience > 0
    assert list(compiling.done) == ["forward_backward no such network 2 float32, compiled"]
    assert "no such network" in next(iter(compiling.done.values()))["error"]
    compiling.stop()


def test_rows_that_are_compiled_come_first() -> None:
    rows = [Row("mini_batch_step", "lenet5", batch, "float32", ("ours", "compiled")) for batch in (1, 2, 3)]
    compiling = warming.Warming([], SIDE, patience=0.3)
    assert compiling.first([rows[0], Row("mini_batch_step", "lenet5", 4, "float32", ("ours",))]) == 1
    compiling.done[f"{rows[1].name}, compiled"] = {"seconds": 1.0}
    assert compiling.first(rows) == 1 and not compiling.going.is_set()
    assert compiling.first([rows[0], rows[2]]) == 0 and compiling.patience <= 0 and compiling.stopped


def test_compiling_stands_still_while_rows_are_measured() -> None:
    worker = Worker()
    compiling = warming.Warming([], SIDE)
    compiling.workers.append(worker)
    try:
        compiling.go_on(False)
        with pytest.raises(WorkerError, match="no answer"):
            worker.ask(1.0, do="smoke", **SIDE)
        worker = Worker()
        compiling.workers[:] = [worker]
        compiling.go_on(False)
        compiling.go_on(True)
        assert "answer" in worker.ask(120.0, do="about", **SIDE)
    finally:
        worker.close()


def test_profiles_follow_the_first_rows_and_a_second_call_goes_on(stub: type[Stub], tmp_path: Path) -> None:
    words = ["--only", "smoke,benchmark,profile", "--json", str(tmp_path / "gpu.json")]
    assert script.main(words) == 0
    rows, looked = plan.rows(), len(plan.profiles())
    first, rest = (sum(len(row.sides) for row in part) for part in (rows[:6], rows[6:]))
    assert script.PROFILED_AFTER == 6
    assert [do for do, _, _ in stub.asked] == (
        ["prepare"] * first + ["prepare", "profile"] * looked + ["prepare"] * rest
    )  # a profiled step is timed by the side's process before
    stored = json.loads((tmp_path / "gpu.json").read_text())
    for name in ("benchmark: mini_batch_step lenet5 64 float32", "profile: mini_batch_step residual 64 float32, ours"):
        del stored["rows"][name]
    (tmp_path / "gpu.json").write_text(json.dumps(stored))
    stub.asked.clear()
    assert script.main(words) == 0
    assert {(do, config) for do, config, _ in stub.asked[:6]} == {("prepare", "lenet5")}
    assert stub.asked[6:] == [("prepare", "residual", "ours"), ("profile", "residual", "ours")]


def test_a_side_that_ends_its_process_is_named(
    stub: type[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stub, "fails", ("compiled",))
    words = ["--only", "benchmark", "--rows", "mini_batch_step lenet5 64 ", "--json", str(tmp_path / "gpu.json")]
    assert script.main(words) == 0
    row = json.loads((tmp_path / "gpu.json").read_text())["rows"]["benchmark: mini_batch_step lenet5 64 float32"]
    assert set(row["ms"]) == set(plan.SIDES) - {"compiled"} and set(row["errors"]) == {"compiled"}
    assert "mini_batch_step lenet5 64 float32, compiled: the process ended with code -9" in capsys.readouterr().out


def test_what_does_not_fit_is_named(stub: type[Stub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--seconds", "3", "--only", "tests,benchmark", "--json", str(tmp_path / "gpu.json")]) == 1
    left_out = json.loads((tmp_path / "gpu.json").read_text())["left out"]
    assert "tests" in left_out and len(left_out) == 1 + len(plan.rows()) and not stub.asked
    assert "left out: tests" in capsys.readouterr().out


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "smoke,unknown"]) == 2
    assert "unknown part 'unknown'" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--backend", "no library", "--json", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
