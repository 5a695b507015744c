"""One synchronisation per trial: nothing but ``to_floats`` takes a value from the device.

Without a GPU two libraries stand in. On array-api-strict every way from an array to a Python value is counted.
PyTorch's device "meta" has shapes but no values, so that anything that needs a value raises. What neither can see is
what array_api_compat's wrappers for CuPy do; the functions known to wait there are kept out of the package by name.
With a GPU the ways from a CuPy array to a value are counted as well.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref
from pmp_ref import layers as L
from pmp_ref import one_step
from pmp_ref.acceptance import RelativeTest
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.arrays import to_numpy
from pmp_ref.augmentation import ClassicRule
from pmp_ref.averaging import Averaging
from pmp_ref.batches import take_batch
from pmp_ref.controls import map_controls
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import GpuSweep
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, GroupL0, LHalf, LTwoThirds, Polynomial
from tests.backends import Backend, load, probe

NET = Network(
    (
        L.Convolution(2, 3, padding=1),
        L.Softplus(),
        L.residual(L.Convolution(2, 3, padding=1), L.Standardise(2), L.ScaleShift(), L.ReLU()),
        L.AveragePool(2),
        L.Convolution(4, 1, groups=2),
        L.MaxPool(2, 1),
        L.Sigmoid(),
        L.Flatten(),
        L.Dense(4),
        L.SiLU(),
        L.Dense(3),
        L.LeakyReLU(),
        L.Dense(3),
    ),
    (1, 6, 8),
)

ALL = Polynomial(1.0, 0.5, 0.1)
CASES: dict[str, tuple[dict[str, Any], Method]] = {
    "L0": ({"regulariser": L0()}, Method(metric=IdentityMetric())),
    "sum on a box": (
        {"regulariser": ALL, "admissible": Box(-2.0, 2.0)},
        Method(acceptance=RelativeTest(), metric=LayerMetric()),
    ),
    "L1/2": ({"regulariser": LHalf(), "admissible": Box(-1.0, 1.0)}, Method(metric=GradientMetric())),
    "L2/3": ({"regulariser": LTwoThirds()}, Method(metric=GradientMetric(), averaging=Averaging())),
    "groups": ({"regulariser": GroupL0()}, Method(metric=LayerMetric(), averaging=Averaging())),
    "finite set": ({"regulariser": ALL, "admissible": FiniteSet(tuple(k / 4 for k in range(-8, 9)))}, Method()),
    "squared loss": ({"loss": SquaredLoss(), "regulariser": L0()}, Method(ClassicRule())),
    "GPU sweep": ({"regulariser": L0(), "sweep": GpuSweep(NET, CrossEntropy())}, Method(metric=GradientMetric())),
    "recomputed": ({"regulariser": L0(), "sweep": GpuSweep(NET, CrossEntropy(), chunk=2, memory=0)}, Method()),
}


def setting(case: str, asarray: Any, eps: float = 1.0) -> tuple[Problem, Method, Iterate, Any, Any]:
    options, method = CASES[case]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((5, *NET.input_shape))
    y = generator.standard_normal((5, 3)) if "loss" in options else generator.integers(0, 3, 5)
    problem = Problem(NET, rho=1e-3, **options)
    u = map_controls(asarray, problem.project(initial_controls(NET, 1, x)))
    return problem, method, Iterate(u, eps), asarray(x), asarray(y)


class Crossings(list[str]):
    """Every value taken from an array of ``library``, by the method that took it."""

    library: Backend


WAYS = {  # every way from an array of the library to a Python value, or to an array whose size only the device knows
    "array_api_strict": ("__array__", "__buffer__", "__dlpack__", "to_device"),
    "cupy": ("get", "item", "tolist", "tobytes", "nonzero", "__dlpack__"),
}


@pytest.fixture(params=WAYS)
def crossings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Crossings:
    name = request.param
    chosen = request.config.getoption("--backend")
    if reason := probe(name):
        pytest.skip(f"backend {name}: {reason}")
    if chosen not in (None, name):
        pytest.skip(f"--backend {chosen} was given")
    taken = Crossings()
    taken.library = load(name)
    Array = type(taken.library.asarray(0.0))

    def counted(name: str) -> Any:
        original = getattr(Array, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            taken.append(name)
            return original(self, *args, **kwargs)

        return method

    for way in ("__bool__", "__float__", "__int__", "__index__", "__complex__", *WAYS[name]):
        if hasattr(Array, way):
            monkeypatch.setattr(Array, way, counted(way))

    def masked(name: str) -> Any:  # a Boolean mask has a result whose size only the device knows
        original = getattr(Array, name)

        def method(self: Any, key: Any, *args: Any) -> Any:
            keys = key if isinstance(key, tuple) else (key,)
            if any(isinstance(k, Array) and "bool" in str(k.dtype) for k in keys):
                taken.append(f"mask in {name}")
            return original(self, key, *args)

        return method

    for way in ("__getitem__", "__setitem__"):
        monkeypatch.setattr(Array, way, masked(way))
    return taken


def test_every_way_to_a_value_is_counted(crossings: Crossings) -> None:
    a = crossings.library.asarray(np.array([1.0]))
    one = a[0]
    ways = {"__float__": float, "__bool__": bool, "__int__": int, "__complex__": complex}
    for name, way in ways.items():
        way(one)
        assert name in crossings
    crossings.clear()
    to_numpy(a)
    assert len(crossings) == 1
    a[a > 0]
    assert "mask in __getitem__" in crossings
    a[a > 0] = one
    assert "mask in __setitem__" in crossings


@pytest.mark.parametrize("case", CASES)
def test_a_trial_takes_values_from_the_device_once(case: str, crossings: Crossings) -> None:
    """Accepted, rejected and averaged trials alike; preparing takes none, nor does the choice of a batch."""
    verdicts = set()
    for eps in (1e-4, 1e2):
        problem, method, it, x, y = setting(case, crossings.library.asarray, eps)
        for position in (0, 1, 0):
            crossings.clear()
            bx, by = take_batch(x, y, 2, position, 0, 0)
            it = prepare(problem, method, it, bx, by)
            assert crossings == []
            it, record = step(problem, method, it, bx, by)
            assert crossings == [{"array_api_strict": "__array__", "cupy": "get"}[crossings.library.name]]
            verdicts.add(record.verdict)
    assert "accepted" in verdicts and verdicts & {"rejected", "average dropped"}


@pytest.mark.parametrize("case", CASES)
def test_nothing_needs_a_value_on_a_device_without_values(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := probe("torch"):
        pytest.skip(f"backend torch: {reason}")
    torch = importlib.import_module("torch")
    asarray = lambda host: torch.from_numpy(np.array(host)).to("meta")  # noqa: E731
    with pytest.raises(RuntimeError):
        bool(asarray(1.0) > 0)
    fetched: list[Any] = []

    def made_up(numbers: Any) -> np.ndarray:
        assert numbers.device.type == "meta" and numbers.shape == (11,)
        fetched.append(numbers)
        return np.array([-1.0, 2.0, 1.0, 1.0, 3.0, 2.0, 1.0, 0.5, 1.0, 1.0, 7.0])  # a trial that is accepted

    monkeypatch.setattr(one_step, "to_numpy", made_up)
    problem, method, it, x, y = setting(case, asarray)
    for position in (0, 1):
        it, record = step(problem, method, it, *take_batch(x, y, 2, position, 0, 0))
        assert record.verdict == "accepted"
    assert len(fetched) == 2


# For CuPy array_api_compat makes clip and sign of Boolean masks, and a mask is counted on the host before it is used;
# the others return arrays whose size only the device knows.
WAITS = {"clip", "sign", "nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values", "repeat"}
PACKAGE = Path(pmp_ref.__file__).parent
ON_THE_DEVICE = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("layers/*.py"), PACKAGE / "kernels" / "gpu.py"])


def namespace_functions(source: str) -> set[str]:
    """Names taken from a namespace: ``xp.name`` and ``namespace(…).name``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = node.value
            called = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "namespace"
            if called or (isinstance(of, ast.Name) and of.id == "xp"):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("path", ON_THE_DEVICE, ids=lambda path: path.name)
def test_no_function_that_waits_for_the_gpu_is_used(path: Path) -> None:
    assert not namespace_functions(path.read_text(encoding="utf-8")) & WAITS


def test_the_functions_used_are_found() -> None:
    assert namespace_functions("xp.sign(a) + namespace(a, b).clip(a)\nnp.clip(a)") == {"sign", "clip"}
    everywhere = set().union(*(namespace_functions(path.read_text(encoding="utf-8")) for path in ON_THE_DEVICE))
    assert {"where", "sum", "matmul", "maximum", "copysign"} <= everywhere


def test_cupy_has_every_function_used() -> None:
    """CuPy can be imported without a GPU, so the names at least can be checked anywhere."""
    pytest.importorskip("cupy")
    xp = importlib.import_module("array_api_compat.cupy")
    everywhere = set().union(*(namespace_functions(path.read_text(encoding="utf-8")) for path in ON_THE_DEVICE))
    assert {name for name in everywhere if not hasattr(xp, name)} == set()
