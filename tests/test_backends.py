"""The test backends themselves: what they promise is what the tests of the package rely on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends import NAMES, Backend, load, probe

DTYPES = (np.float32, np.float64, np.int64, np.bool_)


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_keeps_values_and_dtype(backend: Backend, dtype: type) -> None:
    array = np.arange(6).reshape(2, 3).T.astype(dtype)
    back = backend.to_numpy(backend.asarray(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_both_ways_copy(backend: Backend) -> None:
    array = np.zeros(3)
    there = backend.asarray(array)
    array[0] = 1.0
    back = backend.to_numpy(there)
    back[1] = 2.0
    np.testing.assert_array_equal(backend.to_numpy(there), np.zeros(3))


def test_arrays_lie_on_the_stated_device(backend: Backend) -> None:
    array = backend.asarray(np.zeros(3))
    assert array.device == backend.device
    assert backend.xp.zeros(3, device=backend.device).device == backend.device


def test_namespace_is_the_one_of_the_arrays(backend: Backend) -> None:
    array_api_compat = pytest.importorskip("array_api_compat")
    assert array_api_compat.array_namespace(backend.asarray(np.zeros(3))) is backend.xp


def test_readonly_arrays_and_their_views_refuse_writing() -> None:
    array = load("numpy:readonly").asarray(np.zeros((2, 3)))
    for view in (array, array[0], array.T, array.reshape(6)):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 1.0


def test_plain_numpy_arrays_may_be_written() -> None:
    array = load("numpy").asarray(np.zeros(3))
    array[...] = 1.0
    assert array.sum() == 3.0


def test_other_device_is_not_mixed_with_the_default_one() -> None:
    here = load("array_api_strict")
    there = load("array_api_strict:device1")
    with pytest.raises((ValueError, RuntimeError)):
        there.asarray(np.zeros(3)) + here.asarray(np.zeros(3))
    with pytest.raises(RuntimeError):
        np.asarray(there.asarray(np.zeros(3)))


def test_always_present_backends_are_present() -> None:
    required = [name for name in NAMES if name.startswith(("numpy", "array_api_strict"))]
    assert {name: probe(name) for name in required} == dict.fromkeys(required)
