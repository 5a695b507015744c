"""Functions recorded as CUDA graphs and repeated: what they return is what they return when they are run.

On CuPy with a GPU, or over the CUDA that computes on the CPU (docs/backends.md).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from pmp_ref import layers as L
from pmp_ref.acceptance import RelativeTest
from pmp_ref.admissible import Box
from pmp_ref.arrays import to_numpy
from pmp_ref.augmentation import ClassicRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import Packed, arrays_of, map_controls, to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import GroupL0, LHalf
from pmp_ref.stop import Stop
from tests.backends import load, probe

reason = probe("cupy")
pytestmark = pytest.mark.skipif(reason is not None, reason=f"backend cupy: {reason}")

NET = Network(
    (
        L.Convolution(4, 3, padding=1),
        L.Tanh(),
        L.AveragePool(2),
        L.residual(L.Convolution(4, 3, padding=1), L.Standardise(2), L.ScaleShift(), L.ReLU()),
        L.MaxPool(2),
        L.Flatten(),
        L.Dense(5),
        L.SiLU(),
        L.Dense(3),
    ),
    (2, 7, 9),
)

METHODS: dict[str, tuple[dict[str, Any], Method, int | None]] = {
    "defaults of mini-batches": ({}, Method(metric=GradientMetric(), averaging=Averaging(), ramp=Ramp(0.2, 0.5)), 8),
    "full batch": ({}, Method(metric=GradientMetric()), None),
    "relative test, per layer": (
        {"admissible": Box(-1.0, 1.0)},
        Method(acceptance=RelativeTest(), metric=LayerMetric()),
        8,
    ),
    "groups": ({"regulariser": GroupL0()}, Method(), None),
    "L1/2": ({"regulariser": LHalf()}, Method(metric=GradientMetric(), averaging=Averaging(0.5)), 5),
    "rejections": ({}, Method(ClassicRule(1e-4, sigma=3.0)), None),
    "squared loss": ({"loss": SquaredLoss()}, Method(), 8),
}


def data(loss: Any, dtype: Any) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((21, *NET.input_shape)).astype(dtype)
    y = generator.integers(0, 3, 21) if isinstance(loss, CrossEntropy) else generator.standard_normal((21, 3))
    return x, y


def run(case: str, graphs: bool | None, dtype: Any = np.float64) -> Any:
    """A run on CuPy with and without records, or (None) on NumPy by the clear sweep."""
    options, method, batch_size = METHODS[case]
    asarray = np.asarray if graphs is None else load("cupy").asarray
    loss = options.get("loss", CrossEntropy())
    x, y = data(loss, dtype)
    if graphs is not None:
        from pmp_ref.kernels.cuda import CudaSweep

        options = {**options, "sweep": CudaSweep(NET, loss, graphs=graphs)}
    problem = Problem(NET, rho=1e-3, **options)
    u = map_controls(asarray, problem.project(initial_controls(NET, 1, x)))
    return bsqh(problem, u, asarray(x), asarray(y), method=method, batch_size=batch_size, stop=Stop(steps=9))


@pytest.mark.parametrize("case", METHODS)
def test_a_run_with_records_is_the_run_without(case: str) -> None:
    """The same bits; and the decisions of NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, plain, host = (run(case, graphs) for graphs in (True, False, None))
    for a, b in zip(arrays_of(found.controls), arrays_of(plain.controls), strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    assert found.status == plain.status == host.status
    assert [r.verdict for r in found.records] == [r.verdict for r in plain.records] == [r.verdict for r in host.records]
    # Sums in another order; nine steps multiply what rounding began with by far less than 10⁵.
    np.testing.assert_allclose([r.J for r in found.records], [r.J for r in host.records], rtol=1e-10)


def test_numbers_of_a_record_are_those_of_the_call() -> None:
    """ε, ρ and counts go in as arguments: a record repeats none of the numbers that it was made with."""
    found, host = run("defaults of mini-batches", True), run("defaults of mini-batches", None)
    assert len({r.eps for r in found.records}) > 4 and len({r.rho for r in found.records}) > 4
    # Ĉ is a difference of J divided by τ: it has lost up to ten digits.
    np.testing.assert_allclose([r.c_hat for r in found.records], [r.c_hat for r in host.records], rtol=1e-6)


def test_results_stay_what_they_were() -> None:
    """A later call writes where an earlier one has written, but not into what it returned."""
    from pmp_ref.kernels.replay import Replays

    cupy = load("cupy")
    replays = Replays()

    def both(a: Any, b: Any, t: float) -> Any:
        return a + t, (b * 2.0, a)

    for k in range(4):
        a, b = cupy.asarray(np.full(3, 1.0 * k)), cupy.asarray(np.full((2, 2), 10.0 + k))
        s, (p, same) = replays(both, a, b, 0.5 + k)
        assert same is a
        kept = [(s, p)] if k == 0 else [*kept, (s, p)]  # noqa: F821
    for k, (s, p) in enumerate(kept):
        np.testing.assert_array_equal(to_numpy(s), np.full(3, 2.0 * k + 0.5))
        np.testing.assert_array_equal(to_numpy(p), np.full((2, 2), 20.0 + 2 * k))
    assert len(replays.records) == 1
    replays(both, a, b, 0.0)
    assert len(replays.records) == 2  # a number that is 0 belongs to the record


def test_what_cannot_be_recorded_is_run_as_it_stands() -> None:
    from pmp_ref.kernels.replay import Replays

    cupy, replays = load("cupy"), Replays()

    def decides(a: Any) -> Any:
        return a + 1.0 if float(a[0]) > 0 else a - 1.0

    a = cupy.asarray(np.array([1.0, 2.0]))
    assert float(replays(decides, a)[0]) == 2.0
    with pytest.warns(RuntimeWarning, match=r"decides cannot be recorded"):
        assert float(replays(decides, -a)[0]) == -2.0
    assert float(replays(decides, a)[0]) == 2.0


def test_only_the_last_records_are_kept() -> None:
    from pmp_ref.kernels.replay import Replays

    cupy, replays = load("cupy"), Replays(limit=2)
    for n in (1, 2, 3):
        for _ in range(3):
            np.testing.assert_array_equal(
                to_numpy(replays(lambda a: a * 3.0, cupy.asarray(np.ones(n)))), 3 * np.ones(n)
            )
    assert len(replays.records) == 2


def test_a_trial_sends_nothing_and_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two decisions there is no copy from the host and none to it."""
    import cupy

    from pmp_ref.iterate import Iterate
    from pmp_ref.kernels.cuda import CudaSweep
    from pmp_ref.one_step import prepare, step

    x, y = (load("cupy").asarray(a) for a in data(CrossEntropy(), np.float32))
    problem = Problem(NET, rho=1e-3, sweep=CudaSweep(NET, CrossEntropy()))
    method, it = Method(metric=GradientMetric(), averaging=Averaging()), Iterate(initial_controls(NET, 1, x), 10.0)
    taken: list[str] = []
    for name in ("get", "set"):
        original = getattr(cupy.ndarray, name)
        monkeypatch.setattr(
            cupy.ndarray, name, lambda *a, f=original, n=name, **k: (taken.append(n), f(*a, **k))[1], raising=True
        )
    for _ in range(4):
        taken.clear()
        it = prepare(problem, method, it, x, y)
        assert taken == []
        it, _ = step(problem, method, it, x, y, full=False)
        assert taken == ["get"]
    assert isinstance(it.controls, Packed) and np.isfinite(to_vector(it.controls)).all()


def test_L0_gives_exact_zeros_through_records() -> None:
    found = run("full batch", True)
    assert found.records[-1].nonzeros == sum(np.count_nonzero(to_numpy(s[0])) for s in found.controls if s)
