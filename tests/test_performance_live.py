"""``python -m verification.performance live`` measures steps of a run and changes none of them; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import Iterate
from pmp_ref.app.build import build
from pmp_ref.app.options import resolve
from pmp_ref.controls import to_vector
from pmp_ref.one_step import step
from verification.performance import live

ROOT = Path(__file__).parents[1]
SHORT = {"keep": "1%", "batch_size": "500", "epochs": "2"}
SAY: Any = lambda line: None  # noqa: E731


@pytest.fixture(scope="module")
def short() -> dict[str, Any]:
    """A short run, measured."""
    return live.measured(SHORT, window=3, points=6, rounds=2, say=SAY)


def test_a_run_that_is_watched_is_the_same_run() -> None:
    setup = build(resolve(SHORT), threads=1)

    watch = live.Watch(setup, points=12, rounds=1, say=SAY)
    alone, watched = setup.solve(lambda *_: None).iterate, setup.solve(watch).iterate
    assert len(watch.points) == 18 and alone.step == watched.step == len(watch.steps) == 18
    np.testing.assert_array_equal(to_vector(alone.controls), to_vector(watched.controls))
    assert (alone.eps, alone.counts) == (watched.eps, watched.counts)


def test_both_sweeps_make_the_step_that_the_run_makes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = build(resolve({"batch_size": "500", "epochs": "1", "held_out": "0"}), threads=1)
    watch = live.Watch(setup, points=10, rounds=1, say=SAY)
    made: list[tuple[bool, float]] = []

    def timed(problem: Any, it: Iterate, x: Any, y: Any, rho: float) -> float:
        made.append((problem.sweep.live, step(problem, setup.method, it, x, y, rho, full=False)[1].loss_before))
        return 1.0

    monkeypatch.setattr(watch, "timed", timed)
    run = setup.solve(watch)
    assert [r.accepted for r in run.records] == 10 * [True] and len(made) == 10 * 2 * 2
    losses = [r.loss_before for r in run.records]
    for i, loss in enumerate(losses[1:]):  # no unit is dead yet, so both sweeps find the same bits
        assert made[4 * i : 4 * i + 4] == [(True, loss), (False, loss), (True, loss), (False, loss)]


def test_a_short_run_in_numbers(short: dict[str, Any]) -> None:
    assert [s["epoch"] for s in short["steps"]][-1] == 2 and len(short["steps"]) == 6
    assert len(short["points"]) == 6 and short["units"] == [6, 16, 120, 84]
    assert short["command"] == "pmp-ref train --keep 1% --batch-size 500 --epochs 2"
    for p in short["points"]:
        assert p["live"] > 0 < p["whole"] and p["low"] <= p["ratio"] <= p["high"] and p["multiplications"] <= 1
        assert len(p["units"]) == 4 and all(a <= b for a, b in zip(p["units"], short["units"], strict=True))
    assert short["points"][0]["kept"] > short["points"][-1]["kept"]
    assert json.loads(json.dumps(short)) == short


def made_up() -> dict[str, Any]:
    """A run of ten epochs: 20 ms in the first, then 14, about 8 from the sixth on; all units always take 20."""
    times = (20, 14, 14, 14, 14, 6, 7, 8, 9, 10)
    steps = [{"epoch": e, "ms": float(ms), "kept": 1 / e**2} for e, ms in enumerate(times, 1)]
    point = {"whole": 20.0, "low": 0.3, "high": 0.5, "load": 0.25, "multiplications": 0.2, "units": [3, 5]}
    points = [{"epoch": s["epoch"], "kept": s["kept"], "live": s["ms"], "ratio": s["ms"] / 20, **point} for s in steps]
    about = {"date": "2020-01-01", "machine": "m", "blas": "b", "command": "pmp-ref train", "network": "n"}
    return {**about, "epochs": 10, "window": 1, "units": [6, 16], "steps": steps, "points": points}


def test_the_summary_compares_the_second_half_with_the_first_epochs() -> None:
    found = live.summary(made_up())
    assert (found["first"], found["second"], found["over_time"], found["paired"], found["load"]) == (
        20,
        8,
        0.4,
        0.4,
        0.25,
    )
    words = live.text(made_up())
    assert (
        "takes **0.40** of the time" in words
        and "it takes 0.40, 8.0 ms and 20.0." in words
        and "3 and 5 of 6 and 16 units" in words
    )
    assert "others used 25%" in words and "other work" in words


def test_the_figure_shows_all_points_and_the_page_keeps_the_rest() -> None:
    drawn = live.drawing(made_up())
    lines = [line.partition('"')[0] for line in drawn.split('points="')[1:]]
    assert [line.count(",") for line in lines] == 6 * [10]
    page = f"head {live.MARKS[0]} old {live.MARKS[1]} tail"
    once = live.into_page(page, made_up())
    assert once.startswith("head ") and once.endswith(" tail") and "old" not in once
    assert live.into_page(once, made_up()) == once


def test_figure_and_paragraph_are_those_of_the_stored_numbers() -> None:
    stored = json.loads(live.STORED.read_text(encoding="utf-8"))
    assert (live.DOCS / live.FIGURE).read_text(encoding="utf-8") == live.drawing(stored)
    page = live.PAGE.read_text(encoding="utf-8")
    assert live.into_page(page, stored) == page, "run python -m verification.performance live --stored --docs"


@pytest.mark.slow  # half a minute: a run of LeNet-5
def test_the_command_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("live.json", "live.svg")]
    command = [sys.executable, "-m", "verification.performance", "live", "--quick"]
    options = ["--json", str(files[0]), "--figure", str(files[1])]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(files[0].read_text(encoding="utf-8"))
    assert result["network"] == "lenet5" and len(result["points"]) == live.POINTS[True]
    assert files[1].read_text(encoding="utf-8") == live.drawing(result) and live.text(result) in done.stdout
