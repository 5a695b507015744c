"""What is said at the end of a run: each sentence by a run or a table that provokes it, and none in a healthy one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.app.diagnosis import (
    BAD,
    GOOD,
    HEALTHY,
    NOTE,
    Finding,
    diagnose,
    from_json,
    skipped_advice,
    steps_made,
    to_json,
)
from pmp_ref.app.inspect import show
from pmp_ref.app.main import main
from pmp_ref.app.options import resolve
from pmp_ref.app.report import worst
from tests.app_data import summary, write_images

FAST = ("--no-figures", "--quiet", "--threads", "1", "--check-descent", "20")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Easy images; the same with a third of the labels drawn at random; and 60 of noise alone."""
    place = tmp_path_factory.mktemp("data")
    easy = dict(np.load(write_images(place / "easy.npz", train=300, test=60)))
    generator = np.random.default_rng(1)
    drawn = np.where(generator.random(300) < 0.35, generator.integers(0, 3, 300), easy["train_labels"])
    np.savez(place / "noisy.npz", **(easy | {"train_labels": drawn.astype(np.uint8)}))
    noise = {name: generator.integers(0, 256, a[:60].shape).astype(np.uint8) for name, a in easy.items()}
    labels = {name: (np.arange(60) % 3).astype(np.uint8) for name in noise if "labels" in name}
    np.savez(place / "random.npz", **(noise | labels))
    return place


PROVOKED = {
    "hardly pruned": ("easy", "--rho", "1e-6", "--epochs", "4"),
    "early": ("easy", "--ramp", "none", "--rho", "0.02", "--epochs", "4"),
    "cut": ("easy", "--keep", "5%", "--rho", "1e-9", "--epochs", "6"),
    "price": ("easy", "--rho", "0.5", "--ramp", "0.4:0.8", "--epochs", "8"),
    "disconnected": ("easy", "--rho", "0.5", "--epochs", "4"),
    "guessing": ("easy", "--rho", "0.5", "--epochs", "4"),
    "skipped": ("easy", "--growth", "1e3", "--epochs", "30", "--rho", "0"),
    "ε* above ε": ("easy", "--batch-size", "full", "--rho", "1e-3", "--steps", "8"),
    "falling": ("easy", "--rule", "classic", "--eps0", "30", "--zeta", "1", "--rho", "0", "--epochs", "4"),
    "not fitted": ("noisy", "--rho", "0", "--epochs", "6"),
    "overfitting": ("random", "--rho", "0", "--epochs", "20", "--batch-size", "9"),
    "failed": ("easy", "--batch-size", "full", "--rule", "fixed", "--eps0", "1e-9", "--steps", "5"),
    "no test": ("easy", "--acceptance", "none", "--epochs", "2"),
}


def made(data: Path, out: Path, name: str, *options: str) -> list[Finding]:
    """The findings of a run, which stand in its summary, its report and what inspect prints."""
    size = () if "--batch-size" in options else ("--batch-size", "30")
    code = main(["train", "--data", str(data / f"{name}.npz"), "--out", str(out), *size, *FAST, *options])
    assert code in (0, 3)
    found = from_json(summary(out)["diagnosis"])
    page, text = (out / "report.html").read_text(encoding="utf-8"), show(out)
    assert all(f.sentence in text for f in found)
    assert f'<p class="status {worst(found)}">' in page and page.count('<li class="') == len(found)
    return found


@pytest.mark.parametrize("sentence", PROVOKED)
def test_a_run_that_provokes_it(sentence: str, data: Path, tmp_path: Path) -> None:
    found = made(data, tmp_path / "r", *PROVOKED[sentence])
    assert sentence in [f.name for f in found], found
    assert all(f.level in (NOTE, BAD) and f.seen and f.do for f in found)
    assert [f.level for f in found] == sorted((f.level for f in found), key=(BAD, NOTE).index)


HEALTHY_RUNS = {
    "mini-batches": ("--epochs", "10", "--rho", "0.002"),
    "dense": ("--epochs", "3", "--rho", "0", "--dtype", "float64"),
    "a wished size": ("--epochs", "10", "--keep", "5%"),
    "full batch": ("--batch-size", "full", "--rho", "1e-3", "--steps", "60"),
    "L2 makes no zeros": ("--epochs", "6", "--regulariser", "l2", "--rho", "1e-5"),
}


@pytest.mark.parametrize("case", HEALTHY_RUNS)
def test_nothing_is_said_of_a_healthy_run(case: str, data: Path, tmp_path: Path) -> None:
    found = made(data, tmp_path / "r", "easy", *HEALTHY_RUNS[case])
    assert found == [Finding("healthy", GOOD, HEALTHY)]


def test_of_an_interrupted_run_nothing_is_said() -> None:
    assert from_json(None) == [] and worst([]) == NOTE


def test_green_only_where_all_is_well() -> None:
    good, note, bad = (Finding("x", level, "seen", "do") for level in (GOOD, NOTE, BAD))
    assert (worst([good]), worst([good, note]), worst([note, bad])) == (GOOD, NOTE, BAD)
    assert from_json(json.loads(json.dumps(to_json([note])))) == [note]


@pytest.mark.parametrize("last, said", [(1e3, True), (50.0, False)])
def test_steps_that_vanish_because_epsilon_grew(last: float, said: bool) -> None:
    """No run of a minute does this by the options: 1/θ falls linearly, so that ``growth`` alone makes 10 of it at most
    in the middle of the last tenth. ε grows as in a run whose curvature does."""
    eps = np.geomspace(1.0, last, 100)
    steps = {"eps": eps.tolist(), "tau": (1 / eps**4).tolist()}
    counts = {"accepted_steps": 100, "skipped_batches": 0, "epsilon_star": None, "epsilon": last}
    found = steps_made(resolve({}), counts, steps, Counter())
    assert [f.name for f in found] == ["ε grew"] * said
    assert not said or (found[0].level == BAD and "from 3.9 to 756 " in found[0].seen)


def test_steps_that_did_not_lower_the_objective() -> None:
    """No run of a program without faults does this."""
    empty: dict[str, list[float]] = {name: [1.0, 1.0] for name in ("eps", "tau", "loss", "nonzeros")}
    values: dict[str, Any] = {
        "status": "iteration limit",
        "message": "",
        "descent_violations": 2,
        "emptied_layers": [],
        "test_accuracy": None,
        "held_out_accuracy": None,
        "train_accuracy": 1.0,
        "kept_fraction": 0.1,
        "total_weights": 10,
        "projected_weights": 0,
        "wished_weights": None,
        "accepted_steps": 1,
        "skipped_batches": 0,
        "epsilon_star": 1.0,
        "epsilon": 1.0,
    }
    found = diagnose(resolve({}), values, empty, {})
    assert [f.name for f in found] == ["descent"] and "2 accepted steps" in found[0].seen
    assert [f.level for f in diagnose(resolve({}), values | {"descent_violations": 0}, empty, {})] == [GOOD]


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [({"precision limit": 5, "control unchanged": 1}, "float64"), ({"control unchanged": 3}, "--rho"), ({}, "--eps0")],
)
def test_why_batches_were_skipped(verdicts: dict[str, int], word: str) -> None:
    assert word in skipped_advice(Counter(verdicts))
