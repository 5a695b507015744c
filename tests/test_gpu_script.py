"""``python -m verification.gpu``: plan, limits, resuming and comparing, without a GPU and without PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from verification.gpu import __main__ as script
from verification.gpu import measure, needs, plan, profiling, store, suite, table, training, warming
from verification.gpu.plan import Row
from verification.gpu.process import Command, Worker, WorkerError
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
        row = Row("mini_batch_step", "lenet5", 2, "float32", ("ours", "graph"))
        found = worker.ask(120.0, do="measure", row=row.question(), **SIDE)["answer"]
        assert found["ms"]["ours"][0] > 0 and found["rounds"] >= measure.FEWEST
        assert set(found["errors"]) == {"graph"} and found["ratios"] == {}
        assert "unknown question" in worker.ask(120.0, do="nothing", row=row.question(), **SIDE)["error"]
        with pytest.raises(WorkerError, match=r"no answer within 0 s"):
            worker.ask(0.0, do="smoke", **SIDE)
    finally:
        worker.close()


def test_the_smoke_test_passes_on_numpy() -> None:
    from verification.gpu import smoke

    found = smoke.smoke("numpy")
    assert {name.partition(",")[0] for name in found} >= {"a product", "a fused kernel", "J after three steps"}


def test_a_side_that_disagrees_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"ours": 1.0, "eager": 1.00001, "compiled": 1.1, "graph": float("nan")}

    def make(side: str, *_: Any) -> measure.Operation:
        if side not in losses:
            raise RuntimeError("broken\nin two lines")
        return lambda: losses[side]

    monkeypatch.setattr(measure, "make", make)
    row = Row("mini_batch_step", "lenet5", 2, "float32")
    found = measure.measure(row, "numpy", "cpu", seconds=0.0)
    assert set(found["ms"]) == {"ours", "eager"} and set(found["ratios"]) == {"eager"}
    assert set(found["errors"]) == {"compiled", "graph", "eager, channels last", "compiled, channels last"}
    assert found["errors"]["eager, channels last"] == "RuntimeError: broken / in two lines"
    losses["ours"] = 2.0
    found = measure.measure(row, "numpy", "cpu", seconds=0.0)
    assert "ms" not in found and found["error"].startswith("ours ends with the loss 2.0")
    assert any("ours ends" in line for line in table.benchmark({row.name: found}))


def test_ratios_are_medians_over_rounds_against_the_better_layout() -> None:
    done = [{"ours": o, "eager": a, "eager, channels last": b} for o, a, b in ((1, 4, 2), (3, 9, 3), (8, 16, 32))]
    found = measure.summary([{k: float(v) for k, v in r.items()} for r in done])
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
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "verification.gpu.recorder",
             "--rootdir", str(tmp_path), str(tmp_path)]  # fmt: skip
    ended = Command(words, RECORDER_FILE=str(tmp_path / "record")).result(100.0)
    found = suite.summary((tmp_path / "record").read_text().splitlines(), ended)
    assert (found["passed"], found["failed"], found["agreed"]) == (1, 1, False), ended["tail"]
    assert "assert 1 == 2" in next(iter(found["tracebacks"].values()))


def test_the_selection_is_there() -> None:
    assert len(suite.files()) > 10 and all((suite.ROOT / name).exists() for name in suite.files())


def trial(step: int, verdict: str = "accepted", J: float = 1.0, nonzeros: int = 7) -> dict[str, str]:
    return {"verdict": verdict, "step": str(step), "epoch": "0", "position": "0", "rejections": "0", "J": repr(J),
            "nonzeros": str(nonzeros), "seconds": str(step / 10)}  # fmt: skip


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
    assert short["first difference"] == {
        "trial": 1, "numpy": training.decision(trial(1)), "backend": None
    }  # fmt: skip
    assert "decisions differ first in trial 1" in table.detail("training", {"float64": short, "float32": short})


@pytest.mark.slow  # four runs are trained
def test_training_in_numpy_agrees_with_itself() -> None:
    found = training.Training("numpy", steps=3).result(200.0)
    assert found["agreed"] and found["finished"] and found["float64"]["trials"] == [4, 4]
    assert found["float32"]["largest relative difference of J"] == 0.0


def test_a_trace_becomes_a_table() -> None:
    event = {"ph": "X", "ts": 0.0, "dur": 4.0}
    events = [
        {**event, "cat": "kernel", "name": "a"}, {**event, "cat": "kernel", "name": "b", "dur": 30.0, "ts": 10.0},
        {**event, "cat": "kernel", "name": "a", "ts": 50.0}, {**event, "cat": "gpu_memcpy", "name": "copy", "ts": 60.0},
        {**event, "cat": "cuda_runtime", "name": "cudaLaunchKernel"}, {**event, "cat": "cpu_op", "name": "aten::add"},
        {"ph": "M", "name": "process_name"},
    ]  # fmt: skip
    found = profiling.table(events, calls=2)
    assert found["device µs"] == 21.0 and found["device span µs"] == 32.0
    assert found["kernels"][:2] == [{"name": "b", "count": 0.5, "µs": 15.0}, {"name": "a", "count": 1.0, "µs": 4.0}]
    assert found["calls"] == [{"name": "cudaLaunchKernel", "count": 0.5, "µs": 2.0}]
    assert profiling.table([], calls=1)["device µs"] == 0.0


def test_compiling_that_cannot_be_done_is_told() -> None:
    job = [Row("forward_backward", "no such network", 2, "float32", ("compiled",))]
    done = warming.Warming([job], SIDE).wait(120.0)
    assert list(done) == ["forward_backward no such network 2 float32, compiled"]
    assert "no such network" in next(iter(done.values()))["error"]


class Stub(Worker):
    """Answers without a process; ``hangs`` names sides with which it never does."""

    hangs: tuple[str, ...] = ()
    asked: list[tuple[str, str, tuple[str, ...]]] = []  # noqa: RUF012

    def __init__(self) -> None:
        pass

    def ask(self, limit: float, **question: Any) -> Any:
        if question["do"] == "about":
            return {"answer": {"device": "stub", "torch": "2", "cupy": "1", "numpy": "0", "CUDA on the CPU": False}}
        if question["do"] == "smoke":
            return {"answer": {}}
        sides = tuple(question["row"]["sides"])
        self.asked.append((question["do"], question["row"]["config"], sides))
        if set(sides) & set(self.hangs):
            raise WorkerError("the process ended with code -9; it said nothing")
        if question["do"] == "profile":
            return {"answer": {"wall µs": 3.0, "device µs": 2.0, "kernels": []}}
        return {"answer": {"ms": {side: [1.0, 1.0, 1.0] for side in sides}, "ratios": {"eager": 1.0}, "errors": {}}}

    def close(self) -> str:
        return ""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """The script with a worker that only answers, and nothing compiled beforehand."""
    monkeypatch.setattr(script, "Worker", Stub)
    monkeypatch.setattr(script, "warm_jobs", lambda rows: [])
    monkeypatch.setattr(script, "driver", dict)
    monkeypatch.setattr(Stub, "asked", [])
    return Stub


def test_profiles_follow_the_first_rows_and_a_second_call_goes_on(stub: type[Stub], tmp_path: Path) -> None:
    words = ["--only", "smoke,benchmark,profile", "--json", str(tmp_path / "gpu.json")]
    assert script.main(words) == 0
    done = [do for do, _, _ in stub.asked]
    first, looked = script.PROFILED_AFTER, len(plan.profiles())
    assert done == ["measure"] * first + ["profile"] * looked + ["measure"] * (len(plan.rows()) - first)
    stored = json.loads((tmp_path / "gpu.json").read_text())
    for name in ("benchmark: mini_batch_step lenet5 64 float32", "profile: mini_batch_step residual 64 float32, ours"):
        del stored["rows"][name]
    (tmp_path / "gpu.json").write_text(json.dumps(stored))
    stub.asked.clear()
    assert script.main(words) == 0
    assert [(do, config) for do, config, _ in stub.asked] == [("measure", "lenet5"), ("profile", "residual")]


def test_a_row_that_ends_its_process_is_measured_without_what_is_compiled(stub: type[Stub], tmp_path: Path) -> None:
    stub.hangs = ("compiled",)
    try:
        words = ["--only", "benchmark", "--rows", "mini_batch_step lenet5 64 ", "--json", str(tmp_path / "gpu.json")]
        assert script.main(words) == 0
    finally:
        stub.hangs = ()
    row = json.loads((tmp_path / "gpu.json").read_text())["rows"]["benchmark: mini_batch_step lenet5 64 float32"]
    assert set(row["ms"]) == set(plan.WITHOUT_COMPILED) and "compiled" in row["errors"]


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
