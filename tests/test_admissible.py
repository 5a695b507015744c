"""Admissible sets: projection, membership, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet, clip
from pmp_ref.errors import InputError
from tests.backends import Backend

SETS = (WHOLE_LINE, Box(-1.0, 0.5), Box(lo=0.25), Box(hi=-2.0), FiniteSet((-1.0, 1.0)), FiniteSet((0.1, -3, 0, 2.5)))


def points(a: Admissible) -> list[float]:
    """Values of a finite set; ends and a grid of a box."""
    if isinstance(a, FiniteSet):
        return list(a.values)
    assert isinstance(a, Box)
    return [v for v in (a.lo, a.hi, *np.linspace(-6, 6, 49)) if math.isfinite(v) and a.lo <= v <= a.hi]


@given(st.sampled_from(SETS), st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_projection_is_admissible_closest_and_idempotent(a: Admissible, w: list[float]) -> None:
    x = np.array(w)
    y = a.project(x)
    assert bool(np.all(a.contains(y)))
    np.testing.assert_array_equal(a.project(y), y)
    np.testing.assert_array_equal(y == x, a.contains(x))
    for v in points(a):
        assert np.all(np.abs(y - x) <= np.abs(v - x) + 1e-15)


def test_membership() -> None:
    w = np.array([-1.0, -0.5, 0.0, 0.5, 0.6, np.nan])
    np.testing.assert_array_equal(Box(-1, 0.5).contains(w), [True, True, True, True, False, False])
    np.testing.assert_array_equal(FiniteSet((-1, 0.5)).contains(w), [True, False, False, True, False, False])
    np.testing.assert_array_equal(WHOLE_LINE.contains(w), [True] * 5 + [False])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a", SETS, ids=str)
def test_library_device_and_dtype_go_out_as_they_came_in(backend: Backend, a: Admissible, dtype: Any) -> None:
    """A value or bound that the dtype cannot hold stands for the nearest number of that dtype."""
    x = np.linspace(-4, 4, 12, dtype=dtype).reshape(3, 4)
    there = backend.asarray(x)
    y = a.project(there)
    assert y.dtype == there.dtype and y.device == backend.device
    np.testing.assert_array_equal(backend.to_numpy(y), a.project(x))
    assert backend.to_numpy(a.contains(y)).all()
    assert backend.to_numpy(a.contains(a.project(backend.asarray(np.array([0.1], dtype))))).all()


def test_sets_are_sorted_and_know_their_gap() -> None:
    assert FiniteSet((2, -1, 0.5, 2)).values == (-1.0, 0.5, 2.0)
    assert FiniteSet((2, -1, 0.5)).gap == 1.5
    assert Box(-1, 1).bounded and not Box(-1).bounded and not WHOLE_LINE.bounded
    np.testing.assert_array_equal(clip(np.array([-2.0, 0.0, 3.0]), -math.inf, 1.0), [-2.0, 0.0, 1.0])


def test_numpy_scalars_as_bounds_do_not_promote_float32() -> None:
    assert Box(np.float64(-1), np.float64(1)).project(np.ones(2, np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Box(1, 1), ["[1.0, 1.0]", "lo < hi"]),
        (lambda: Box(2, 1), ["[2.0, 1.0]"]),
        (lambda: Box(math.nan, 1), ["nan"]),
        (lambda: FiniteSet((1.0,)), ["(1.0,)", "at least two"]),
        (lambda: FiniteSet((1.0, 1.0)), ["at least two"]),
        (lambda: FiniteSet((1.0, math.inf)), ["inf", "finite values"]),
        (lambda: FiniteSet((1.0, math.nan)), ["nan"]),
    ],
)
def test_bad_sets(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
