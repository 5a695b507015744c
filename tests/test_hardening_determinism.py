"""The numbers do not depend on the number of threads, and several runs at once do not disturb each other."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pmp_ref.app import run
from pmp_ref.app.main import main
from pmp_ref.architectures import lenet5
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import make_sweep, workers
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric
from pmp_ref.problem import Problem
from pmp_ref.result import Record, Run
from pmp_ref.stop import Stop
from tests.app_data import TINY, results, write_images

ROOT = Path(__file__).parents[1]
NETWORK = lenet5((1, 16, 16))


# Same seed, any number of threads


def run_with(out: Path, data: Path, threads: int, blas: int, hash_seed: int) -> dict[str, Any]:
    """A run in a process of its own, with so many threads of the kernels and of BLAS."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": str(hash_seed),
        "OPENBLAS_NUM_THREADS": str(blas),
        "OMP_NUM_THREADS": str(blas),
    }
    options = ["--data", str(data), "--out", str(out), *TINY, "--batch-size", "40", "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "pmp_ref", "train", *options],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return results(out)


def test_the_same_seed_gives_the_same_run_with_any_number_of_threads(tmp_path: Path) -> None:
    """Model, certificate, summary and all tables, bit for bit; 120 images of 28 by 28 make several chunks."""
    data = write_images(tmp_path / "d.npz", train=120, size=28)
    runs = [run_with(tmp_path / f"{t}-{b}", data, t, b, h) for t, b, h in ((1, 1, 0), (2, 4, 1), (3, 2, 2), (7, 3, 3))]
    assert all(other == runs[0] for other in runs[1:])


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    """So the comparison above can fail."""
    data = write_images(tmp_path / "d.npz")
    for seed in "01":
        assert main(["train", "--data", str(data), "--out", str(tmp_path / seed), *TINY, "--seed", seed]) == 0
    a, b = results(tmp_path / "0"), results(tmp_path / "1")
    assert a["model"] != b["model"] and a["history.csv"] != b["history.csv"]


# Several runs at once


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def two_blas_threads() -> Iterator[list[int]]:
    """BLAS set to two threads, so that a limit of one that stays behind is seen."""
    with threadpool_limits(2, user_api="blas"):
        found = blas_threads()
        if 2 not in found:
            pytest.skip("the BLAS library of NumPy has no threads that could be limited")
        yield found


def job(seed: int, fast: bool, callback: Callable[[Any, Record], Any] | None = None) -> Run:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((40, *NETWORK.input_shape)).astype(np.float32)
    y = generator.integers(0, 10, 40)
    sweep = make_sweep(NETWORK, CrossEntropy(), threads=2, chunk=4, example=x) if fast else None
    problem = Problem(NETWORK, rho=1e-4, sweep=sweep)
    method = Method(metric=GradientMetric(), averaging=Averaging(0.9))
    return bsqh(
        problem,
        initial_controls(NETWORK, seed, x),
        x,
        y,
        stop=Stop(steps=5),
        method=method,
        batch_size=16,
        seed=seed,
        callback=callback,
    )


def same(a: Run, b: Run) -> bool:
    controls = zip(arrays_of(a.controls), arrays_of(b.controls), strict=True)
    return repr(a.records) == repr(b.records) and all(np.array_equal(x, y) for x, y in controls)


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """The jobs in one thread each, begun together; results or exceptions, in their order."""
    outcomes: list[Any] = [None] * len(jobs)
    together = threading.Barrier(len(jobs))

    def work(i: int) -> None:
        together.wait()
        try:
            outcomes[i] = jobs[i]()
        except BaseException as error:
            outcomes[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "clear"])
def test_solve_in_several_threads_at_once(fast: bool, two_blas_threads: list[int]) -> None:
    """Four runs at once, two of them equal, give bit for bit what each gives alone."""
    seeds = (0, 1, 2, 0)
    with threadpool_limits(1, user_api="blas"):  # the clear path does not limit BLAS itself
        alone = {seed: job(seed, fast) for seed in set(seeds)}
        outcomes = at_once([lambda seed=seed: job(seed, fast) for seed in seeds])
    assert not [e for e in outcomes if isinstance(e, BaseException)]
    assert all(same(outcome, alone[seed]) for seed, outcome in zip(seeds, outcomes, strict=True))
    assert not same(alone[0], alone[1])
    assert blas_threads() == two_blas_threads


class Fault(Exception):
    """Raised in the middle of a run."""


def test_limits_are_restored_when_runs_fail_beside_others(two_blas_threads: list[int]) -> None:
    """Two of four runs raise in their callback: the others are not touched, and BLAS has its threads back."""

    def fail(it: Any, record: Record) -> None:
        if it.step == 2:
            raise Fault

    alone = job(1, True)
    outcomes = at_once(
        [lambda: job(1, True), lambda: job(0, True, fail), lambda: job(1, True), lambda: job(2, True, fail)]
    )
    assert [type(o) for o in outcomes] == [Run, Fault, Run, Fault]
    assert same(outcomes[0], alone) and same(outcomes[2], alone)
    assert blas_threads() == two_blas_threads


def test_limits_are_restored_after_a_fault_in_a_sweep(
    two_blas_threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception comes from a worker thread of the fast sweep, in the middle of the run."""
    calls, original = itertools.count(1), workers.Threads.__call__  # next() of it is one operation for all threads

    def broken(self: Any, f: Callable[[Any], Any], items: Any) -> Any:
        def g(item: Any) -> Any:
            assert set(blas_threads()) == {1}
            if next(calls) == 7:
                raise Fault
            return f(item)

        yield from original(self, g, items)

    monkeypatch.setattr(workers.Threads, "__call__", broken)
    with pytest.raises(Fault):
        job(0, True)
    assert next(calls) > 7 and blas_threads() == two_blas_threads


@pytest.mark.parametrize("error", [Fault, KeyboardInterrupt, SystemExit])
def test_the_command_restores_the_limits(
    error: type[BaseException], tmp_path: Path, two_blas_threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pmp-ref train` holds BLAS to one thread throughout, and gives the threads back whatever ends it."""
    data, seen = write_images(tmp_path / "d.npz"), []

    def fail(*_: Any) -> Any:
        seen.append(blas_threads())
        raise error

    monkeypatch.setattr("pmp_ref.app.run.conclude", fail)
    main(["train", "--data", str(data), "--out", str(tmp_path / "r"), *TINY])
    assert seen == [[1] * len(two_blas_threads)] and blas_threads() == two_blas_threads


def test_a_limit_that_stays_is_seen(two_blas_threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above can fail: a command that limits and forgets."""
    limits: list[Any] = []

    def forgetful() -> Any:
        import contextlib

        limits.append(threadpool_limits(1, user_api="blas"))
        return contextlib.nullcontext()

    monkeypatch.setattr(run, "one_thread", forgetful)
    with run.one_thread():
        pass
    assert blas_threads() != two_blas_threads
    limits[0].restore_original_limits()
