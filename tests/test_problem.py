"""Problems: the objective's penalty, weights, and everything that is checked before a run starts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from pmp_ref import layers as L
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.arrays import as_floats, check_together, is_array, like, namespace, to_floats, to_numpy, zeros
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError, PenaltyWarning
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.gpu import GpuSweep
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.network import Network
from pmp_ref.problem import Problem, everywhere, layer_weights
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf, NoPenalty, Polynomial
from pmp_ref.sweep import Sweep
from tests.backends import Backend, load
from tests.strategies import seeds

NET = Network((L.Convolution(2, (2, 1)), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 3, 2))


def data(seed: int = 0, batch: int = 4) -> tuple[Any, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((batch, 1, 3, 2))
    return initial_controls(NET, seed, x), x, generator.integers(0, 3, batch)


@given(seeds)
def test_penalty_is_the_weighted_sum(seed: int) -> None:
    """Σ ω_l r_l(u_l), by kind and by layer, without ρ."""
    u, _, _ = data(seed)
    u = map_controls(lambda a: np.where(a > 0, a, 0.0), u)
    regulariser = ((L0(), L1()), (), (), (GroupL0(), Polynomial(1.0, 2.0)))
    problem = Problem(NET, regulariser=regulariser, rho=0.5, weights=((1.0, 2.0), (), (), (3.0, 0.5)))
    k0, b0, k3, b3 = u[0][0], u[0][1] + 0.25, u[3][0], u[3][1] - 0.5
    u = ((k0, b0), (), (), (k3, b3))
    rows = np.any(k3 != 0, axis=1).sum()
    expected = [np.count_nonzero(k0), 2 * np.sum(np.abs(b0)), 3 * rows, 0.5 * (3 + 2 * 1.5)]
    parts = problem.penalties(u)
    np.testing.assert_allclose([float(p) for stage in parts for p in stage], expected, rtol=1e-14)
    np.testing.assert_allclose(float(problem.penalty(u)), sum(expected), rtol=1e-14)


@given(seeds)
def test_the_maximiser_uses_the_weights_of_the_penalty(seed: int) -> None:
    """With ρω everywhere as large as ρ alone elsewhere: the thresholds are √(ρω/ε)."""
    u, _, _ = data(seed)
    g = map_controls(lambda a: np.zeros_like(a), u)
    problem = Problem(NET, rho=0.1, weights=((4.0, 0.0), (), (), (1.0, 0.25)))
    w = maximise(problem, u, g, 2.0, 0.1)
    for l, i, omega in ((0, 0, 4.0), (0, 1, 0.0), (3, 0, 1.0), (3, 1, 0.25)):
        np.testing.assert_array_equal(w[l][i], np.where(np.abs(u[l][i]) > math.sqrt(0.1 * omega / 2), u[l][i], 0.0))


@given(seeds)
def test_metrics_enter_the_maximiser_entry_by_entry(seed: int) -> None:
    """T17: c_i = u_i + g_i/(2εd_i), thresholds √(ρ/(εd_i))."""
    generator = np.random.default_rng(seed)
    u, _, _ = data(seed)
    g, d = (
        map_controls(lambda a: generator.standard_normal(a.shape), u),
        map_controls(lambda a: generator.uniform(0.1, 3, a.shape), u),
    )
    problem = Problem(NET, rho=0.3, weights=everywhere(NET, 1.0))
    w = maximise(problem, u, g, 0.7, 0.3, d)
    for ws, us, gs, ds in zip(w, u, g, d, strict=True):
        for a, b, c, e in zip(ws, us, gs, ds, strict=True):
            free = b + c / (2 * 0.7 * e)
            np.testing.assert_allclose(a, np.where(np.abs(free) > np.sqrt(0.3 / (0.7 * e)), free, 0.0), rtol=1e-14)


def test_default_weights_penalise_kernels_only() -> None:
    assert Problem(NET, rho=0.0).weights == ((1.0, 0.0), (), (), (1.0, 0.0)) == layer_weights(NET)
    assert layer_weights(NET, 2.0, 0.5, {3: 10.0}) == ((2.0, 0.5), (), (), (20.0, 5.0))
    assert Problem(NET, rho=np.float64(0.5)).rho == 0.5
    assert type(Problem(NET, rho=np.float64(0.5)).rho) is float
    weights = Problem(NET, weights=((np.float64(1), 0), (), (), (1, 0)), rho=0.0).weights
    assert all(type(w) is float for stage in weights for w in stage)


def test_projection_and_admissible_start() -> None:
    u, x, y = data()
    problem = Problem(
        NET, admissible=((FiniteSet((-1, 0, 1)), WHOLE_LINE), (), (), (Box(-0.1, 0.1), WHOLE_LINE)), rho=0.0
    )
    with pytest.raises(InputError, match=r"kernel of stage 0 leaves FiniteSet.*problem.project"):
        problem.check(u, x, y)
    problem.check(problem.project(u), x, y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rho": -1.0}, ["rho is -1.0", "≥ 0"]),
        ({"rho": math.nan}, ["rho is nan"]),
        ({"rho": math.inf}, ["rho is inf"]),
        ({"rho": "0.1"}, ["rho is '0.1'", "number"]),
        ({"weights": -1.0}, ["weights", "≥ 0"]),
        ({"weights": math.nan}, ["weights"]),
        ({"weights": ((1.0, 0.0),)}, ["weights", "4 stages"]),
        ({"weights": ((1.0,), (), (), (1.0, 0.0))}, ["weights of stage 0", "2 controls"]),
        ({"weights": (1.0, 0.0, 1.0, 1.0)}, ["weights of stage 0", "tuple"]),
        ({"regulariser": "l0"}, ["regulariser is 'l0'"]),
        ({"regulariser": ((L0(), "l0"), (), (), (L0(), L0()))}, ["regulariser of stage 0"]),
        ({"regulariser": L0}, ["regulariser"]),
        ({"admissible": (-1, 1)}, ["admissible"]),
    ],
)
def test_bad_problems(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        Problem(NET, **{"rho": 0.0, **options})
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("regulariser", "admissible", "words"),
    [
        (GroupL0(), Box(-1, 1), ["kernel of stage 0", "GroupL0(axis=0", "Box(lo=-1.0, hi=1.0)", "whole line"]),
        (GroupL0(), FiniteSet((-1, 0, 1)), ["kernel of stage 0", "GroupL0", "FiniteSet", "does not separate"]),
        (LHalf(), Box(1, 2), ["kernel of stage 0", "LHalf()", "Box(lo=1.0, hi=2.0)", "containing 0"]),
        (
            everywhere(NET, L0())[:3] + ((GroupL0(), L0()),),
            everywhere(NET, WHOLE_LINE)[:3] + ((Box(-1, 1), WHOLE_LINE),),
            ["kernel of stage 3", "GroupL0"],
        ),
    ],
)
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_a_regulariser_without_a_maximiser_on_its_set_is_refused_at_once(
    regulariser: Any, admissible: Any, words: list[str], rho: float
) -> None:
    with pytest.raises(InputError) as error:
        Problem(NET, regulariser=regulariser, rho=rho, admissible=admissible)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_regulariser_fits_where_its_maximiser_is_known() -> None:
    for whole in (WHOLE_LINE, Box(-math.inf, math.inf)):
        assert Problem(NET, regulariser=GroupL0(), rho=0.1, admissible=whole).admissible[0][0] == whole
    Problem(NET, regulariser=LHalf(), rho=0.1, admissible=Box(0, 2))
    Problem(NET, regulariser=L0(), rho=0.1, admissible=Box(1, 2))
    boxed = tuple((WHOLE_LINE, Box(-1, 1)) if shapes else () for shapes in NET.control_shapes)
    Problem(NET, regulariser=GroupL0(), rho=0.1, admissible=boxed)  # unpenalised biases may have a box


@pytest.mark.parametrize("r", [L0(), L1(), LHalf()], ids=str)
def test_a_penalty_that_is_constant_on_a_finite_set_is_noticed(r: Any) -> None:
    with pytest.warns(PenaltyWarning, match=r"is the same for all values.*kernel of stage 0.*put 0 among the values"):
        Problem(NET, regulariser=r, rho=0.1, admissible=FiniteSet((-1, 1)))
    for options in (
        {"rho": 0.0},
        {"rho": 0.1, "admissible": FiniteSet((-1, 0, 1))},
        {"rho": 0.1, "weights": 0.0},
        {"rho": 0.1, "regulariser": L1(), "admissible": FiniteSet((-1, 2))},
        {"rho": 0.1, "regulariser": NoPenalty()},
    ):
        Problem(NET, **{"regulariser": r, "admissible": FiniteSet((-1, 1)), **options})  # warnings are errors


def test_a_sweep_of_another_network_or_loss_is_refused() -> None:
    other = Network(tuple(L.Sigmoid() if s == L.Tanh() else s for s in NET.stages), NET.input_shape)
    assert other != NET
    for make in (Sweep, FastSweep, GpuSweep):
        problem = Problem(NET, sweep=make(NET, CrossEntropy()), rho=0.0)
        assert replace(problem, rho=0.5).sweep is problem.sweep
        for changes in ({"network": other}, {"loss": SquaredLoss()}):
            with pytest.raises(InputError, match="another network or loss; give sweep=None"):
                replace(problem, **changes)
            assert replace(problem, **changes, sweep=None).sweeper.belongs(
                changes.get("network", NET), SquaredLoss()
            ) == ("loss" in changes)


def test_a_network_needs_controls_and_weights_known_stages() -> None:
    with pytest.raises(InputError, match="no controls"):
        Problem(Network((L.Flatten(),), (2, 3)), rho=0.0)
    with pytest.raises(InputError, match=r"stages \[1\].*\(0, 3\)"):
        layer_weights(NET, by_stage={1: 2.0})


def bad(**changes: Any) -> tuple[Any, Any, Any]:
    u, x, y = data()
    return tuple({"u": u, "x": x, "y": y, **changes}.values())  # type: ignore[return-value]


def nan_at(a: np.ndarray, value: float) -> np.ndarray:
    a = a.copy()
    a.flat[-1] = value
    return a


U, X, Y = data()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": np.array([0, 1, 2, 3])}, ["0 to 3", "3 classes"]),
        ({"y": np.array([0, 1, 2, -1])}, ["-1 to 2"]),
        ({"y": Y[:3]}, ["(3,)", "4 images"]),
        ({"y": np.array(1)}, ["()", "4 images"]),
        ({"y": Y.astype(float)}, ["float64", "integers"]),
        ({"y": [0, 1, 2, 0]}, ["labels", "builtins.list", "asarray"]),
        ({"x": nan_at(X, math.nan)}, ["images hold NaN or infinite"]),
        ({"x": nan_at(X, -math.inf)}, ["images hold NaN or infinite"]),
        ({"x": X.astype(np.uint8)}, ["uint8", "convert"]),
        ({"x": X[:0], "y": Y[:0]}, ["empty"]),
        ({"x": X[:, :, :2]}, ["(4, 1, 2, 2)", "(1, 3, 2)"]),
        ({"x": X.astype(np.float32)}, ["float32", "kernel of stage 0 is float64"]),
        ({"u": ((nan_at(U[0][0], math.nan), U[0][1]), *U[1:])}, ["kernel of stage 0", "NaN"]),
        ({"u": (*U[:3], (U[3][0], nan_at(U[3][1], math.inf)))}, ["bias of stage 3", "infinite"]),
        ({"u": U[:3]}, ["3 stages", "has 4"]),
    ],
)
def test_bad_data(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        Problem(NET, rho=0.0).check(*bad(**changes))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    Problem(NET, rho=0.0).check(*bad())


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros((4, 2)), ["(4, 2)"]),
        (np.full((4, 3), np.nan), ["targets hold NaN"]),
        (np.zeros((4, 3), np.float32), ["float64", "targets are float32"]),
    ],
)
def test_bad_targets(y: np.ndarray, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        Problem(NET, SquaredLoss(), rho=0.0).check(U, X, y)
    assert all(word in str(error.value) for word in words)
    Problem(NET, SquaredLoss(), rho=0.0).check(U, X, np.zeros((4, 3)))


def test_mixed_libraries_and_devices_are_named() -> None:
    strict, other = load("array_api_strict"), load("array_api_strict:device1")
    there = lambda backend, changes: map_controls(backend.asarray, changes)  # noqa: E731
    for changes, words in (
        ({"y": strict.asarray(Y)}, ["images is a numpy.ndarray", "labels is a array_api_strict.Array"]),
        ({"u": there(strict, U)}, ["images is a numpy.ndarray", "kernel of stage 0 is a array_api_strict.Array"]),
        ({"x": strict.asarray(X), "y": other.asarray(Y)}, ["images is on device", "labels is on", "device1"]),
        (
            {"x": strict.asarray(X), "y": strict.asarray(Y), "u": there(other, U)},
            ["kernel of stage 0 is on", "device1"],
        ),
        ({"x": strict.asarray(X)}, ["images is a array_api_strict.Array", "labels is a numpy.ndarray"]),
    ):
        with pytest.raises(InputError) as error:
            Problem(NET, rho=0.0).check(*bad(**changes))  # type: ignore[arg-type]
        assert all(word in str(error.value) for word in words), str(error.value)
        assert "move" in str(error.value) or "convert" in str(error.value)


def test_every_backend_passes_the_check(backend: Backend) -> None:
    u = map_controls(backend.asarray, U)
    Problem(NET, admissible=Box(-5, 5), rho=0.0).check(u, backend.asarray(X), backend.asarray(Y))
    with pytest.raises(InputError, match="NaN"):
        Problem(NET, rho=0.0).check(u, backend.asarray(nan_at(X, math.nan)), backend.asarray(Y))


# --- the seam to the array library


def test_namespace_and_conversions(backend: Backend) -> None:
    a = backend.asarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    assert namespace(a, a) is backend.xp and is_array(a)
    z = zeros((2, 2), a)
    assert z.dtype == a.dtype and z.device == backend.device and z.shape == (2, 2)
    b = like(np.ones(3), a)
    assert b.dtype == a.dtype and b.device == backend.device
    np.testing.assert_array_equal(to_numpy(a), np.arange(6.0).reshape(2, 3))
    floats = to_floats(backend.xp.sum(a), backend.xp.max(a))
    assert floats == [15.0, 5.0] and all(type(v) is float for v in floats)


def test_mixed_libraries_in_one_expression() -> None:
    with pytest.raises(InputError, match=r"array_api_strict\.Array and numpy\.ndarray were mixed"):
        namespace(np.zeros(1), load("array_api_strict").asarray(np.zeros(1)))
    with pytest.raises(InputError, match=r"b is a numpy\.float64"):
        check_together(a=np.zeros(1), b=np.float64(1))
    assert not is_array(np.float64(1)) and not is_array([1.0])


def test_as_floats_refuses_what_is_no_number() -> None:
    class Mutable:
        a: Any = np.float32(0.5)
        b: Any = "x"

    record = Mutable()
    as_floats(record, "a")
    assert record.a == 0.5 and type(record.a) is float
    with pytest.raises(InputError, match="b is 'x'; expected a number"):
        as_floats(record, "a", "b")
