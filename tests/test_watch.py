"""The bar of ``solve(progress=True)``: it counts what the run counts, ends with it, and changes nothing."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import tqdm.auto

import pmp_ref as pr
from pmp_ref.controls import arrays_of

NET = pr.Network((pr.Dense(5), pr.Tanh(), pr.Dense(3)), (4,))
PROBLEM = pr.Problem(NET, rho=1e-3)
GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.standard_normal((22, 4)), GENERATOR.integers(0, 3, 22)


class Seen:
    """What the bar was told, instead of a bar."""

    bars: ClassVar[list[Seen]] = []

    def __init__(self, total: int | None, initial: int, unit: str, dynamic_ncols: bool) -> None:
        self.total, self.n, self.unit, self.initial, self.closed = total, initial, unit, initial, False
        self.texts: list[str] = []
        Seen.bars.append(self)

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.texts.append(text)

    def update(self, n: int) -> None:
        assert n >= 0
        self.n += n

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    monkeypatch.setattr(tqdm.auto, "tqdm", Seen)
    monkeypatch.setattr(Seen, "bars", [])
    return Seen.bars


@pytest.mark.parametrize(
    ("settings", "unit", "total"),
    [
        ({"batch_size": 5, "epochs": 4}, "batch", 20),
        ({"batch_size": 22, "epochs": 4}, "batch", 4),
        ({"epochs": 4}, "batch", 4),
        ({"steps": 6}, "step", 6),
        ({"batch_size": 5, "steps": 6}, "step", 6),
        ({"residual": 0.05}, "step", None),
    ],
)
def test_the_bar_counts_as_the_run_does(settings: dict[str, Any], unit: str, total: int | None, seen: Any) -> None:
    shown, alone = (pr.solve(PROBLEM, X, Y, progress=progress, **settings) for progress in (True, False))
    (bar,) = seen
    assert (bar.unit, bar.total, bar.initial, bar.closed) == (unit, total, 0, True)
    assert bar.n == (shown.iterate.step if total is None else total)
    last = shown.steps[-1]
    assert bar.texts[-1].startswith(f"epoch {shown.iterate.epoch}, loss {last.loss:.4g}, ")
    assert bar.texts[-1].endswith(f", {last.nonzeros:,} weights") and len(bar.texts) == len(shown.steps)
    for ours, theirs in zip(arrays_of(shown.controls), arrays_of(alone.controls), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_is_resumed_begins_where_it_stood(seen: Any) -> None:
    half = pr.solve(PROBLEM, X, Y, batch_size=5, epochs=4, callback=lambda it, record: it.place.epoch == 2)
    pr.solve(PROBLEM, X, Y, batch_size=5, epochs=4, resume=half.iterate, progress=True)
    assert (seen[0].initial, seen[0].n, seen[0].total) == (10, 20, 20)


def test_callback_and_bar_go_together(seen: Any) -> None:
    """The callback's value ends the run, its error closes the bar."""
    ended = pr.solve(PROBLEM, X, Y, steps=9, progress=True, callback=lambda it, record: it.step == 3)
    assert ended.status is pr.Status.INTERRUPTED and seen[0].n == 3 and seen[0].closed
    with pytest.raises(ZeroDivisionError):
        pr.solve(PROBLEM, X, Y, steps=9, progress=True, callback=lambda it, record: 1 / 0)
    assert seen[1].closed


def test_the_bar_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    pr.solve(PROBLEM, X, Y, batch_size=5, epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "10/10" in err and "100%" in err and err.endswith("\n")


def test_batches_that_are_skipped_count(seen: Any) -> None:
    """A step so long that its trial is rejected, and no second trial: the batch is done, and no step is."""
    hasty = pr.Method(rule=pr.CurvatureRule(eps0=1e-6), max_rejections=1)
    run = pr.solve(PROBLEM, X, Y, batch_size=5, epochs=3, method=hasty, progress=True)
    place = run.iterate.place
    assert run.iterate.counts.skipped > 0 and seen[0].n == 5 * place.epoch + place.position > place.step
