"""Functions that become one kernel on CuPy arrays (``arrays.fused``), without CuPy.

``cupy.fuse`` calls a function once with stand-ins for its arrays and writes down what it does with them. Here the
stand-ins hold NumPy arrays: they have a dtype and a number of axes, no shape and no values, as CuPy's have, and the
namespace has the functions that ``cupy.fuse`` knows. So a function that would not become a kernel fails here.
"""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pmp_ref
from pmp_ref import averaging, metric, trial
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.arrays import compiled, fused, product64
from pmp_ref.errors import InputError
from pmp_ref.kernels.cuda import residual
from pmp_ref.layers import ACTIVATIONS
from pmp_ref.regulariser import L0, L1, L2, LHalf, LTwoThirds, NoPenalty, Polynomial


class OnGpu:
    """A CuPy array, as far as ``fused`` looks at it."""

    __module__ = "cupy"

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)
        self.dtype = self.host.dtype


class Traced:
    """What ``cupy.fuse`` hands to the function."""

    __module__ = "cupy._core.fusion"

    def __init__(self, value: Any) -> None:
        self._value = np.asarray(value)

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def ndim(self) -> int:
        return self._value.ndim

    def __bool__(self) -> bool:
        raise TypeError("a kernel is made before there are values")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"cupy.fuse has no {name}")


def value(a: Any) -> Any:
    return a._value if isinstance(a, Traced) else a


def lifted(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: Traced(f(*map(value, args), **options))


for name in ("add", "sub", "mul", "truediv", "pow", "and_", "or_"):
    forward = getattr(operator, name)
    setattr(Traced, f"__{name.strip('_')}__", lifted(forward))
    setattr(Traced, f"__r{name.strip('_')}__", lifted(lambda a, b, forward=forward: forward(b, a)))
for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "invert"):
    setattr(Traced, f"__{name}__", lifted(getattr(operator, name)))

KNOWN = (
    "where",
    "abs",
    "maximum",
    "minimum",
    "sqrt",
    "exp",
    "log1p",
    "tanh",
    "cos",
    "acos",
    "cosh",
    "acosh",
    "hypot",
    "copysign",
    "astype",
    "sum",
)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels made, one for each call."""
    made: list[str] = []

    def fuse(kernel_name: str) -> Any:
        assert kernel_name.isidentifier()

        def kernel_of(f: Callable[..., Any]) -> Callable[..., Any]:
            def kernel(*args: Any) -> Any:
                made.append(kernel_name)
                for a in args:  # numbers without a dtype would be multiplied in half precision
                    assert isinstance(a, OnGpu | np.float64 | np.float32), a
                with np.errstate(all="ignore"):
                    result = f(*(Traced(a.host if isinstance(a, OnGpu) else a) for a in args))
                return result._value

            return kernel

        return kernel_of

    xp = SimpleNamespace(float64=np.float64, isdtype=np.isdtype, **{name: lifted(getattr(np, name)) for name in KNOWN})
    cupy, compat = ModuleType("cupy"), ModuleType("array_api_compat.cupy")
    vars(cupy).update(fuse=fuse)
    vars(compat).update(vars(xp))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
    compiled.cache_clear()
    yield made
    compiled.cache_clear()


GENERATOR = np.random.default_rng(0)
U, G, D = (GENERATOR.standard_normal((3, 4)) for _ in range(3))
D = np.abs(D)
MEAN = np.asarray(0.7)
SCALED = metric.GradientMetric(floor=0.5, ceiling=1.5)
SETS = (Box(), Box(-0.4, 0.9), FiniteSet((-1.0, 0.0, 0.5)))
PENALTIES = (L0(), L1(), L2(), Polynomial(1.0, 0.5, 0.1), LHalf(), LTwoThirds(), NoPenalty())

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{
        f"{r} on {a}, rho {rho}": (partial(r.argmax, rho=rho, admissible=a), (U, G, eps))
        for r in PENALTIES
        for a in SETS
        for rho, eps in ((0.0, 0.7), (0.3, 0.7 * D))
    },
    **{f"{name}, forward": (lambda x, stage=kind(): stage.forward(x, ()), (U,)) for name, kind in ACTIVATIONS.items()},
    **{
        f"{name}, costate": (lambda x, p, stage=kind(): stage.costate(x, (), p), (U, G))
        for name, kind in ACTIVATIONS.items()
    },
    "running mean": (partial(fused, averaging.running, beta=0.9), (U, G)),
    "root": (partial(fused, metric._root, beta=0.9), (D, 3.0)),
    "corrected": (partial(fused, averaging.corrected, beta=0.9), (U, 3.0)),
    "quotient": (partial(fused, metric._quotient, size=3), (D, MEAN)),
    "clipped": (partial(fused, SCALED._clipped, size=3), (D, MEAN)),
    "products": (partial(fused, product64), (U, G)),
    **{f"terms of {r}": (r.terms, (np.where(U > 0, U, 0.0),)) for r in PENALTIES if r != L0()},
    "summed": (partial(fused, residual.summed, weights=(1.0, 0.5, -2.0)), (U, G, U)),
    "rise": (partial(fused, trial._rise), (U, G)),
    "magnitude": (partial(fused, trial._magnitude), (U, D)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_computes_what_the_function_does(case: str, kernels: list[str]) -> None:
    f, args = CASES[case]
    expected = f(*args)
    assert kernels == []
    found = f(*(OnGpu(a) if isinstance(a, np.ndarray) else a for a in args))
    assert len(kernels) == 1  # all of it
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)  # a sum may take another order


def names_of_kernels(source: str) -> set[str]:
    """Names of the functions handed to ``fused``, directly or by ``partial``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("fused", "partial"):
            first, *rest = node.args
            if node.func.id == "partial":
                if not (isinstance(first, ast.Name) and first.id == "fused"):
                    continue
                first = rest[0]
            assert isinstance(first, ast.Name | ast.Attribute)
            found.add(first.id if isinstance(first, ast.Name) else first.attr)
    return found


def test_every_kernel_of_the_package_is_tested_here(kernels: list[str]) -> None:
    package = Path(pmp_ref.__file__).parent
    used = set().union(*(names_of_kernels(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")))
    for f, args in CASES.values():
        f(*(OnGpu(a) if isinstance(a, np.ndarray) else a for a in args))
    assert {f"pmp_ref_{name.strip('_')}" for name in used} == set(kernels)


def test_a_kernel_is_made_once_for_all_values_of_its_numbers(kernels: list[str]) -> None:
    u, g, r = OnGpu(U), OnGpu(G), L0()
    for rho in (0.1, 0.2):
        for eps in (1.0, 2.0):
            r.argmax(u, g, eps, rho, Box())
    assert len(kernels) == 4 and compiled.cache_info().misses == 1
    LHalf().argmax(u, g, 1.0, 0.1, Box())
    r.argmax(u, g, 1.0, 0.1, Box(-1.0, 1.0))
    assert compiled.cache_info().misses == 3


def decides(u: Any, eps: float) -> Any:
    return u if eps > 0 else -u


def test_a_function_that_looks_at_values_is_called_as_it_is(kernels: list[str]) -> None:
    u = OnGpu(U)
    with pytest.warns(RuntimeWarning, match="no kernel of decides.*before there are values"):
        assert fused(decides, u, 1.0) is u
    assert fused(decides, u, 1.0) is u  # without a second try
    assert len(kernels) == 1


def test_what_the_function_itself_raises_stays(kernels: list[str]) -> None:
    with pytest.raises(InputError, match="containing 0"):
        LHalf().argmax(OnGpu(U), OnGpu(G), 1.0, 1.0, Box(0.5, 1.0))


def test_numbers_take_the_dtype_of_the_arrays(kernels: list[str]) -> None:
    u, g = U.astype(np.float32), G.astype(np.float32)
    found = L2().argmax(OnGpu(u), OnGpu(g), 0.7, 0.3, Box())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, L2().argmax(u, g, 0.7, 0.3, Box()), rtol=4 * np.finfo(np.float32).eps)


def test_arrays_of_other_libraries_take_the_function_as_it_is() -> None:
    compiled.cache_clear()
    np.testing.assert_array_equal(fused(operator.add, U, G), U + G)
    assert compiled.cache_info().misses == 0
