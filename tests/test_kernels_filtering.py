"""Convolution by minimal filtering: the filters are exact, the maps agree with the layer, rounding is as stated."""

from __future__ import annotations

from fractions import Fraction
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from pmp_ref.architectures import lenet5, lenet5_caffe, resnet20
from pmp_ref.kernels import FastSweep, filtering
from pmp_ref.kernels.convolution import ConvolutionMap
from pmp_ref.kernels.filtering import FilteredMap
from pmp_ref.kernels.stagemap import Place, to_clear, to_fast
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Convolution
from pmp_ref.loss import CrossEntropy
from tests.test_kernels import DTYPES, agree, around, both, evaluation, same

SIZES = [(m, r) for r in range(2, filtering.TAPS + 1) for m in range(1, filtering.TILE + 1)]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_filters_are_exact(m: int, r: int) -> None:
    """On every pair of unit vectors, which is enough for a bilinear map: y_q = Σ_t k_t d_{q+t} in rationals."""
    out, kernel, into = filtering.minimal_filter(m, r)
    n = m + r - 1
    assert (len(out), len(kernel), len(into)) == (m, n, n)
    for t in range(r):
        for c in range(n):
            products = [kernel[j][t] * into[j][c] for j in range(n)]
            y = [sum(a * b for a, b in zip(row, products, strict=True)) for row in out]
            assert y == [Fraction(q + t == c) for q in range(m)]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Convolution, tuple[int, ...]]:
    """A convolution that has a filter and an image shape that it takes: not square, widths of every remainder."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    size = (draw(st.integers(1, 5)), draw(st.integers(2, filtering.TAPS)))
    padding = (draw(st.integers(0, 6)), draw(st.integers(0, 6)))
    shape = [max(1, k - 2 * p) + draw(st.integers(0, 9)) for k, p in zip(size, padding, strict=True)]
    stage = Convolution(
        groups * draw(st.integers(1, 4)), size, padding=padding, groups=groups, bias=draw(st.booleans())
    )
    return stage, (groups * draw(st.integers(1, 3)), *shape)


@given(convolutions(), st.integers(1, 5), st.sampled_from(DTYPES), st.booleans())
@example((Convolution(4, 3, padding=1), (4, 6, 6)), 3, np.float64, True)
@example((Convolution(2, 3, padding=4), (1, 1, 1)), 2, np.float64, True)  # windows that see padding only
@example((Convolution(6, (5, 3), padding=(1, 2), groups=2), (4, 9, 7)), 3, np.float32, True)
@example((Convolution(2, (1, 5)), (2, 3, 5)), 1, np.float32, False)  # one column, one sample
def test_convolutions_agree(drawn: tuple[Convolution, tuple[int, ...]], n: int, dtype: Any, short: bool) -> None:
    """Whole images and strips as low as the kernel."""
    stage, shape = drawn
    strip = 1 if short else filtering.STRIP
    with mock.patch.multiple(filtering, STRIP=strip, WORTH=float("inf")):
        network = around(stage, shape)
        assert any(isinstance(m, FilteredMap) for m in FastSweep(network, CrossEntropy()).plan.maps)
        agree(*both(network, n, dtype, chunk=2, threads=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [(1, 1), (0, 0), (3, 4)])
def test_nothing_of_an_earlier_chunk_shows(padding: tuple[int, int], dtype: Any) -> None:
    """A workspace full of NaN, then of other numbers: the same bits."""
    stage = Convolution(6, 3, padding=padding, groups=2)
    rng = np.random.default_rng(0)
    x, p = ((rng.standard_normal((3, *s))).astype(dtype) for s in ((4, 9, 7), stage.output_shape((4, 9, 7))))
    m = FilteredMap(stage, Place(0, (4, 9, 7)))
    u = m.prepare(tuple(rng.standard_normal(s).astype(dtype) for s in stage.control_shapes((4, 9, 7))))
    w, found = Workspace(3, np.dtype(dtype)), []
    for before in (0.0, np.nan, 1e3):
        for arrays in (w.arrays, w.room, w.results):
            for a in arrays.values():
                a[...] = before
        y = to_clear(m.forward(w, u, to_fast(x)))
        g, q = m.backward(w, u, to_fast(x), None, to_fast(p), True)
        found.append([y, *(a.copy() for a in g), to_clear(q)])
    for later in found[1:]:
        for a, b in zip(found[0], later, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(dtype: Any) -> None:
    """The net that is swept has filtered convolutions."""
    with mock.patch.object(filtering, "WORTH", float("inf")):
        one = evaluation({"threads": 1}, dtype=dtype, name="residual")
        for threads in (2, 3):
            same(evaluation({"threads": threads}, dtype=dtype, name="residual"), one)
    with pytest.raises(AssertionError), mock.patch.object(filtering, "WORTH", 0.0):  # other maps, other bits
        same(evaluation({"threads": 1}, dtype=dtype, name="residual"), one)


def errors(kind: Any, channels: int, width: int, taps: int, dtype: Any) -> list[float]:
    """Errors of y, g and costate against the layer in more digits, in roundings of the largest entry."""
    stage, shape = Convolution(channels, taps, padding=taps // 2, bias=False), (channels, width, width)
    rng = np.random.default_rng(0)
    x, p = (rng.standard_normal((8, *shape)).astype(dtype) for _ in range(2))
    u = (rng.standard_normal(stage.control_shapes(shape)[0]).astype(dtype),)
    m = kind(stage, Place(0, shape))
    w, prepared = Workspace(8, np.dtype(dtype)), m.prepare(u)
    y = to_clear(m.forward(w, prepared, to_fast(x)))
    (g,), q = m.backward(w, prepared, to_fast(x), None, to_fast(p), True)
    wide = np.longdouble if dtype == np.float64 else np.float64
    x, p, k = x.astype(wide), p.astype(wide), u[0].astype(wide)
    due = stage.forward(x, (k,)), stage.switching(x, (k,), p)[0], stage.costate(x, (k,), p)
    return [
        float(np.max(np.abs(a - b)) / np.max(np.abs(b)) / np.finfo(dtype).eps)
        for a, b in zip((y, g, to_clear(q)), due, strict=True)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "taps", "bound"), [(FilteredMap, 3, 24), (FilteredMap, 5, 48), (ConvolutionMap, 5, 24)]
)
def test_rounding_is_as_stated(kind: Any, taps: int, bound: float, dtype: Any) -> None:
    """docs/performance.md has the figures, 13, 25 and 12: the bounds leave room for other sums of another BLAS."""
    for channels, width in ((16, 16), (64, 8)):
        assert max(errors(kind, channels, width, taps, dtype)) < bound


def test_filters_are_chosen_where_they_pay() -> None:
    """Not where there are few channels, nor with strides or dilations."""

    def kinds(network: Any) -> list[type]:
        maps = FastSweep(network, CrossEntropy()).plan.maps
        return [type(m) for m in maps if isinstance(m, ConvolutionMap | FilteredMap)]

    plain, filtered = ConvolutionMap, FilteredMap
    assert kinds(lenet5()) == [plain, filtered]
    assert kinds(lenet5_caffe()) == [plain, filtered]
    assert kinds(resnet20()).count(filtered) == 16 and kinds(resnet20()).count(plain) == 5
    for other in ({"stride": (1, 2)}, {"stride": (2, 1)}, {"dilation": (2, 1)}, {"dilation": (1, 2)}):
        assert not filtering.pays(Convolution(64, 3, padding=1, **other), (64, 8, 8))
    assert not filtering.pays(Convolution(64, 1), (64, 8, 8))
    assert not filtering.pays(Convolution(64, 7), (64, 8, 8))
    assert filtering.pays(Convolution(64, 3, padding=1), (64, 8, 8))
