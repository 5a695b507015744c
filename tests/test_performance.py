"""The benchmark measures what it says; no time is asserted here."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.kernels import FastSweep
from pmp_ref.loss import CrossEntropy
from pmp_ref.sweep import Sweep
from verification.performance import benchmark, floor, load, ours, pairs
from verification.performance.configurations import CONFIGS, DTYPES, OPERATIONS, case
from verification.performance.figure import BEGIN, END, draw, into_page, table
from verification.performance.pairs import THROTTLES, Round, side

ROOT = Path(__file__).parents[1]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch, the opponent, is not installed"
)


def test_busy_seconds_adds_what_is_not_idle() -> None:
    # user nice system idle iowait irq softirq steal, then guest times, which are part of user
    assert load.busy_seconds("cpu  100 20 3 9999 888 4 5 6 100 0\ncpu0 1 1 1 1\n") == 138 / load.TICK


def test_other_load_is_what_this_benchmark_did_not_use() -> None:
    start, end = load.Moment(10.0, 100.0), load.Moment(12.0, 103.0)
    assert load.other_load(start, end, own=2.0, cores=2) == pytest.approx(0.25)
    assert load.other_load(start, end, own=4.0, cores=2) == 0.0
    assert load.other_load(start, load.Moment(12.0, None), own=0.0, cores=2) is None


def test_disturbed_rounds_are_discarded() -> None:
    quiet = [Round({"ours": 1.0, "a": 2.0}, 0.01), Round({"ours": 3.0, "a": 4.0}, None)]
    busy = Round({"ours": 100.0, "a": 1.0}, 0.5)
    found = pairs.summary([busy, *quiet, busy], wanted=2)
    assert (found["ours_ms"], found["other_ms"], found["ratio"]) == (2.0, 3.0, 0.625)
    assert (found["rounds"], found["discarded"], found["busy"]) == (2, 2, False)


def test_where_no_round_is_quiet_the_least_disturbed_are_used_and_marked() -> None:
    done = [Round({"ours": float(n), "a": 1.0}, load=n / 10) for n in (5, 2, 9, 3)]
    found = pairs.summary(done, wanted=2)
    assert found["busy"] and found["discarded"] == 4 and found["rounds"] == 2
    assert found["ratio"] == 2.5


def test_ratios_are_taken_round_by_round_against_the_best_variant() -> None:
    done = [
        Round({"ours": o, "floor": 0.5, "contiguous, default allocator": d, "b": b}, 0.0)
        for o, d, b in ((1.0, 4.0, 2.0), (3.0, 9.0, 3.0), (8.0, 16.0, 32.0))
    ]
    found = pairs.summary(done, wanted=3)
    assert found["other_variant"] == "b" and found["other_ms"] == 3.0
    assert found["ratio"] == 0.5  # of 0.5, 1, 0.25; the ratio of the medians would be 1
    assert (found["ratio_low"], found["ratio_high"]) == (0.375, 0.75)
    assert found["ratio_default"] == pytest.approx(1 / 3)
    assert found["floor_ms"] == 0.5


def test_slope_of_a_power_law() -> None:
    assert benchmark.slope([(n, 7 * n**1.5) for n in (1, 2, 8, 64)]) == pytest.approx(1.5)


def test_the_plans_hold_what_is_promised() -> None:
    quick, full = benchmark.plan(True), benchmark.plan(False)
    assert {("forward_backward", "lenet5", b, d) for b in (64, 1024) for d in DTYPES} <= set(quick)
    assert {r[0] for r in full} == set(OPERATIONS) and {r[1] for r in full} == set(CONFIGS)
    assert {b for o, c, b, _ in full if (o, c) == ("forward_backward", "lenet5")} == {64, 256, 1024, 5000}
    assert len(set(full)) == len(full)


@pytest.mark.parametrize("config", CONFIGS)
def test_operations_find_the_loss_of_the_clear_sweep(config: str) -> None:
    data = case(config, 6, "float64")
    loss = float(np.mean(Sweep(data.network, CrossEntropy()).forward(data.controls, data.x, data.y).losses))
    assert ours.operation("forward_backward", data, 1)() == pytest.approx(loss, rel=1e-12)
    after = ours.operation("full_batch_step", data, 1)()
    assert after == pytest.approx(ours.operation("mini_batch_step", data, 1)(), rel=1e-12)
    assert after < loss  # ε is large enough for descent


def test_the_floor_multiplies_what_a_sweep_multiplies() -> None:
    data = case("lenet5", 8, "float32")
    sweep = FastSweep(data.network, CrossEntropy(), chunk=8)
    found = floor.products(data, sweep, slice(0, 8))
    count = sum(math.prod(out.shape) * a.shape[-1] for a, _, out in found) / 8
    # 5×5 kernels on 28×28 and 10×10 outputs, forward and switching; the costate of the second; dense stages thrice.
    # The second is filtered: three tiles of eight products for a row of 5 · 10
    first, second, dense = 25 * 6 * 784, 3 * 8 * 5 * 6 * 16 * 10, 400 * 120 + 120 * 84 + 84 * 10
    needed = 2 * first + 3 * second + 3 * dense
    assert needed <= count < 1.5 * needed  # more: the filter itself, border rows, pooling and sums as products
    assert np.matmul is not None and floor.operation(data, 2)() == 0.0


def test_a_worker_answers_and_reports_errors() -> None:
    with pairs.side("ours", 1) as s:
        about = {"config": "lenet5", "batch": 4, "dtype": "float32", "threads": 1}
        assert math.isfinite(s.ask("setup", key="x", operation="forward_backward", **about))
        assert s.ask("time", key="x", seconds=0.0)["ms"] > 0
        assert s.ask("memory", key="x")["peak"] > 0
        with pytest.raises(pairs.SideError, match="KeyError"):
            s.ask("time", key="unknown", seconds=0.0)
        assert "numpy" in s.ask("versions")


def result(**change: Any) -> dict[str, Any]:
    row = {
        "operation": "forward_backward",
        "config": "lenet5",
        "batch": 64,
        "dtype": "float32",
        **pairs.summary([Round({"ours": 1.0, "floor": 0.5, "contiguous, default allocator": 2.0}, 0.0)], 1),
        "ours_peak_mib": None,
        "other_peak_mib": None,
    }
    peak = {**dict.fromkeys(row), "operation": "peak_memory", "config": "lenet5", "batch": 64, "dtype": "float32"}
    peak["ours_peak_mib"] = 12.0
    points = [(1, 10.0), (10, 5.0)]
    return {
        "date": "2020-01-01",
        "machine": "m",
        "threads": 2,
        "rows": [row, peak],
        "scaling": {"batch": points, "depth": points, "width": points},
        **change,
    }


def test_figure_and_table_show_every_row(tmp_path: Path) -> None:
    draw(result(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    text = table(result())
    assert "| forward_backward | lenet5 | 64 | float32 | 1.00 | 2.00 |" in text
    assert "| full_batch_step | lenet5 | 64 | float32 | 12 |" in text


def test_the_page_keeps_what_is_outside_the_marks() -> None:
    page = f"head {BEGIN} old {END} tail"
    once = into_page(page, result(versions={"numpy": "2"}), "figure.png")
    assert once.startswith("head ") and once.endswith(" tail") and "old" not in once
    assert into_page(once, result(versions={"numpy": "2"}), "figure.png") == once
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


@needs_torch
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_opponent_computes_the_same(config: str, channels_last: bool) -> None:
    from verification.performance import opponent

    data = case(config, 6, "float64")
    for operation in OPERATIONS:
        theirs = opponent.operation(operation, data, 1, channels_last)()
        assert ours.operation(operation, data, 1)() == pytest.approx(theirs, rel=1e-9)
    benchmark.same_switching(ours.switching_norms(data, 1), opponent.switching_norms(data, 1))


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX, an opponent, is not installed")
@pytest.mark.parametrize("config", CONFIGS)
def test_jax_computes_the_same(config: str) -> None:
    from verification.performance import opponent_jax

    data = case(config, 6, "float64")
    for operation in OPERATIONS if config == "lenet5" else OPERATIONS[:1]:
        theirs = opponent_jax.operation(operation, data, 1)()
        assert ours.operation(operation, data, 1)() == pytest.approx(theirs, rel=1e-9)
    benchmark.same_switching(ours.switching_norms(data, 1), opponent_jax.switching_norms(data, 1))


def test_a_side_does_not_run_under_settings_that_throttle_openblas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THROTTLES:
        monkeypatch.setenv(name, "Haswell" if name.endswith("TYPE") else "1")
    with side("ours", 1) as s:
        assert "THROTTLED" not in s.ask("versions")["BLAS"]
    monkeypatch.setattr("verification.performance.pairs.THROTTLES", ())
    with side("ours", 1) as s:
        assert f"THROTTLED by {' and '.join(THROTTLES)}" in s.ask("versions")["BLAS"]


@needs_torch
@pytest.mark.slow  # compiling takes a minute
@pytest.mark.filterwarnings("ignore")  # what PyTorch's compiler says of itself
def test_the_compiled_opponent_computes_the_same() -> None:
    from verification.performance import opponent

    data = case("lenet5", 6, "float64")
    for operation in OPERATIONS:
        theirs = opponent.operation(operation, data, 1, channels_last=False, how="compiled")
        assert ours.operation(operation, data, 1)() == pytest.approx(theirs(), rel=1e-9)


@pytest.mark.slow  # half a minute: processes are started and rows measured
def test_the_command_writes_all_it_is_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("rows.json", "figure.png", "table.md")]
    options = zip(("--json", "--figure", "--table"), map(str, files), strict=True)
    command = [
        sys.executable,
        "-m",
        "verification.performance",
        "--quick",
        "--only",
        "forward_backward lenet5 64 float32",
    ]
    done = subprocess.run(
        [*command, *(word for pair in options for word in pair)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(files[0].read_text())["rows"]
    assert {r["operation"] for r in rows} == {"forward_backward", "peak_memory"}
    assert all(f.stat().st_size > 0 for f in files)
    assert (importlib.util.find_spec("torch") is not None) or "PyTorch is not installed" in done.stdout
