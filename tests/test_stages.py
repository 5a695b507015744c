"""Stages: forward maps against loops (T0), adjoint identities (T1), second-order maps (T14), kinks, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref import layers as L
from pmp_ref.architectures import residual_net
from pmp_ref.errors import InputError
from pmp_ref.network import Network
from tests import oracles
from tests.backends import Backend
from tests.strategies import KINDS, LAYOUTS, SMOOTH, StageCase, seeds, stage_cases

EPS = np.finfo(np.float64).eps
TINY = 1e-30  # complex step: its square is below every rounding


def apply(f: Any, *parts: Any) -> Any:
    """f entry by entry on arrays or nested pairs of them."""
    if isinstance(parts[0], tuple):
        return tuple(apply(f, *rest) for rest in zip(*parts, strict=True))
    return f(*parts)


def dot(a: Any, b: Any) -> float:
    if isinstance(a, tuple):
        return float(sum(dot(x, y) for x, y in zip(a, b, strict=True)))
    return float(np.sum(a * b))


def leaves(a: Any) -> list[Any]:
    return [leaf for part in a for leaf in leaves(part)] if isinstance(a, tuple) else [a]


def zero(a: Any) -> Any:
    return apply(np.zeros_like, a)


def stacked(samples: list[Any]) -> Any:
    if isinstance(samples[0], tuple):
        return tuple(stacked([s[i] for s in samples]) for i in range(len(samples[0])))
    return np.stack(samples)


def roundings(stage: L.Stage) -> float:
    """How many roundings of its largest entry a result may be off: sums of a few dozen terms of that size.

    Standardisation divides differences by s ≥ √δ, its derivatives twice or more: its terms are larger than its result.
    """
    return 64 / stage.delta if isinstance(stage, L.Standardise) else 64


def assert_close(stage: L.Stage, actual: Any, expected: Any) -> None:
    """Entry by entry, relative to the largest entry."""
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        assert a.shape == e.shape
        scale = max(1.0, float(np.max(np.abs(e), initial=0.0)))
        np.testing.assert_allclose(a, e, rtol=0, atol=roundings(stage) * EPS * scale)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_forward_is_the_definition(kind: str, data: st.DataObject) -> None:
    case = data.draw(stage_cases(kind))
    a = case.arrays()
    one = lambda b: apply(lambda x: x[b], a["x"])  # noqa: E731
    expected = stacked([oracles.forward(case.stage, one(b), a["u"]) for b in range(case.batch)])
    assert_close(case.stage, case.stage.forward(a["x"], a["u"]), expected)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_costate_and_switching_are_adjoint(kind: str, data: st.DataObject) -> None:
    """T1a: ⟨p, ∂Λ(dx, v)⟩ = ⟨costate, dx⟩ + ⟨switching, v⟩, state and control directions apart."""
    case = data.draw(stage_cases(kind))
    stage, a = case.stage, case.arrays()
    terms = sum(leaf.size for leaf in leaves((a["x"], a["u"], a["p"])))  # no sum is longer
    costate, g = stage.costate(a["x"], a["u"], a["p"]), stage.switching(a["x"], a["u"], a["p"])
    for dx, v in ((a["dx"], zero(a["v"])), (zero(a["dx"]), a["v"])):
        left = dot(a["p"], stage.tangent(a["x"], a["u"], dx, v))
        scale = dot(oracles.absolute(a["p"]), oracles.absolute_tangent(stage, a["x"], a["u"], dx, v))
        assert abs(left - dot(costate, dx) - dot(g, v)) <= 4 * terms * EPS * scale


def moved(case: StageCase, t: complex) -> tuple[Any, Any, Any]:
    a = case.arrays()
    step = lambda x, dx: x + t * dx  # noqa: E731
    return apply(step, a["x"], a["dx"]), apply(step, a["u"], a["v"]), apply(step, a["p"], a["dp"])


@pytest.mark.parametrize("kind", SMOOTH)
@given(data=st.data())
def test_tangents_are_complex_step_derivatives(kind: str, data: st.DataObject) -> None:
    """The tangent of the forward map, and the second-order maps as derivatives of costate and switching (T14)."""
    case = data.draw(stage_cases(kind, smooth=True))
    stage, a = case.stage, case.arrays()
    x, u, p = moved(case, TINY * 1j)
    slope = lambda z: apply(lambda leaf: leaf.imag / TINY, z)  # noqa: E731
    at = (a["x"], a["u"], a["p"], a["dx"], a["v"], a["dp"])
    assert_close(stage, stage.tangent(a["x"], a["u"], a["dx"], a["v"]), slope(stage.forward(x, u)))
    assert_close(stage, stage.tangent_costate(*at), slope(stage.costate(x, u, p)))
    assert_close(stage, stage.tangent_switching(*at), slope(stage.switching(x, u, p)))


@pytest.mark.parametrize("kind", ["ReLU", "LeakyReLU", "MaxPool"])
@given(data=st.data())
def test_piecewise_linear_stages_off_their_kinks(kind: str, data: st.DataObject) -> None:
    """Off the kinks central differences of a piecewise linear map are exact up to rounding."""
    case = data.draw(stage_cases(kind))
    stage, a = case.stage, case.arrays()
    h = 2.0**-30  # draws whose kinks lie within ten steps have probability below 1e-6
    (x1, u1, p1), (x0, u0, p0) = moved(case, h), moved(case, -h)
    at = (a["x"], a["u"], a["p"], a["dx"], a["v"], a["dp"])
    for actual, plus, minus in (
        (stage.tangent(a["x"], a["u"], a["dx"], a["v"]), stage.forward(x1, u1), stage.forward(x0, u0)),
        (stage.tangent_costate(*at), stage.costate(x1, u1, p1), stage.costate(x0, u0, p0)),
    ):
        np.testing.assert_allclose(actual, (plus - minus) / (2 * h), rtol=0, atol=64 * EPS / h)
    assert stage.tangent_switching(*at) == ()


@pytest.mark.parametrize("kind", ["ReLU", "LeakyReLU", "MaxPool"])
@given(data=st.data())
def test_kinks_take_a_value_between_the_one_sided_derivatives(kind: str, data: st.DataObject) -> None:
    case = data.draw(stage_cases(kind))
    stage, a = case.stage, case.arrays()
    x = np.clip(np.round(a["x"]), -1, 1)  # zeros and ties
    h = 2.0**-20
    right = (stage.forward(x + h * a["dx"], ()) - stage.forward(x, ())) / h
    left = (stage.forward(x, ()) - stage.forward(x - h * a["dx"], ())) / h
    slope, rounding = stage.tangent(x, (), a["dx"], ()), 8 * EPS / h
    assert np.all(slope >= np.minimum(left, right) - rounding)
    assert np.all(slope <= np.maximum(left, right) + rounding)
    terms = x.size + a["p"].size
    assert abs(dot(a["p"], slope) - dot(stage.costate(x, (), a["p"]), a["dx"])) <= (
        4 * terms * EPS * dot(abs(a["p"]), abs(slope))
    )


def test_ties_in_a_window_have_one_winner_the_first() -> None:
    x = np.zeros((1, 1, 2, 3))
    p = L.MaxPool((2, 3)).costate(x, (), np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(p[0, 0], [[1, 0, 0], [0, 0, 0]])


def test_padding_is_no_candidate_for_the_maximum_and_gets_no_costate() -> None:
    x = np.array([[[[-3.0, -1.0], [-2.0, -4.0]]]])
    pool = L.MaxPool(3, stride=1, padding=1)
    np.testing.assert_array_equal(pool.forward(x, ()), np.full((1, 1, 2, 2), -1.0))
    np.testing.assert_array_equal(pool.costate(x, (), np.ones((1, 1, 2, 2))), [[[[0, 4], [0, 0]]]])


def test_a_padded_mean_counts_zeros_or_pixels_alone() -> None:
    x = np.array([[[[6.0, 12.0]]]])
    counted = L.AveragePool((1, 2), stride=1, padding=(0, 1))
    np.testing.assert_array_equal(counted.forward(x, ()), [[[[3, 9, 6]]]])
    alone = L.AveragePool((1, 2), stride=1, padding=(0, 1), count_include_pad=False)
    np.testing.assert_array_equal(alone.forward(x, ()), [[[[6, 9, 12]]]])
    np.testing.assert_array_equal(alone.costate(x, (), np.ones((1, 1, 1, 3))), [[[[1.5, 1.5]]]])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_samples_do_not_couple(kind: str, data: st.DataObject) -> None:
    """The first sample alone has the same image and costate as in the batch, up to rounding."""
    case = data.draw(stage_cases(kind))
    stage, a = case.stage, case.arrays()
    first = lambda z: apply(lambda leaf: leaf[:1], z)  # noqa: E731
    assert_close(stage, stage.forward(first(a["x"]), a["u"]), first(stage.forward(a["x"], a["u"])))
    costate = stage.costate(first(a["x"]), a["u"], first(a["p"]))
    assert_close(stage, costate, first(stage.costate(a["x"], a["u"], a["p"])))


def six_maps(stage: L.Stage, x: Any, u: Any, p: Any, dx: Any, v: Any, dp: Any) -> tuple[Any, ...]:
    return (
        stage.forward(x, u),
        stage.costate(x, u, p),
        stage.switching(x, u, p),
        stage.tangent(x, u, dx, v),
        stage.tangent_costate(x, u, p, dx, v, dp),
        stage.tangent_switching(x, u, p, dx, v, dp),
    )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_library_device_and_dtype_go_out_as_they_came_in(backend: Backend, kind: str, data: st.DataObject) -> None:
    """All six maps, and their values are those of NumPy (arguments are read-only on one backend)."""
    case, dtype = data.draw(stage_cases(kind)), data.draw(st.sampled_from([np.float32, np.float64]))
    a = {k: apply(lambda z: z.astype(dtype), v) for k, v in case.arrays().items()}
    there = {k: apply(backend.asarray, v) for k, v in a.items()}
    for here, moved_there in zip(six_maps(case.stage, **a), six_maps(case.stage, **there), strict=True):
        for expected, actual in zip(leaves(here), leaves(moved_there), strict=True):
            assert actual.device == backend.device and type(actual) is type(backend.asarray(np.zeros(1)))
            assert actual.dtype == getattr(backend.xp, dtype.__name__)
            scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
            atol = 1e3 * np.finfo(dtype).eps * scale  # other orders of summation; a thousand for standardisation
            np.testing.assert_allclose(backend.to_numpy(actual), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("stage", [L.Tanh(), L.Sigmoid(), L.Softplus(), L.SiLU(), L.ReLU(), L.LeakyReLU()], ids=str)
def test_activations_do_not_overflow(stage: L.Activation) -> None:
    z = np.array([-1e4, -750.0, -40.0, 0.0, 40.0, 750.0, 1e4])
    for a in (stage.sigma(z), stage.slope(z), stage.curvature(z)):
        assert np.all(np.isfinite(a))
    np.testing.assert_allclose(
        stage.slope(z)[[0, -1]], [getattr(stage, "leak", 0.0), 0.0 if stage.slope(z)[-1] == 0 else 1.0], atol=1e-12
    )


@given(seeds, st.sampled_from(LAYOUTS))
def test_residual_block_is_skip_plus_step_times_inner(seed: int, layout: str) -> None:
    generator = np.random.default_rng(seed)
    inner, projection = (L.Dense(3), L.Tanh()), L.Dense(3, bias=False)
    block = L.residual(*inner, step=0.25, projection=projection)
    k, b, s = generator.standard_normal((3, 4)), generator.standard_normal(3), generator.standard_normal((3, 4))
    x = generator.standard_normal((2, 4))
    y = Network([block], (4,)).forward_sweep(((k, b), (), (s,), ()), x)[-1]
    assert_close(block.stages[-1], y, x @ s.T + 0.25 * np.tanh(x @ k.T + b))


def test_a_chain_counts_the_states_of_its_blocks_from_their_entrances() -> None:
    inner = L.residual(L.Dense(3), step=0.5)
    assert inner == L.Block((L.Dense(3), L.WeightedSum((1.0, 0.5))), ((0,), (0, 1)))
    whole = L.chain(L.Tanh(), L.residual(L.Tanh(), inner, projection=L.ScaleShift()), L.Flatten())
    assert whole.reads == ((0,), (1,), (2,), (2, 3), (1,), (5, 4), (6,))
    assert [type(stage).__name__ for stage in whole.stages][-3:] == ["ScaleShift", "WeightedSum", "Flatten"]
    assert L.residual().reads == ((0, 0),) and L.chain() == L.Block((), ())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L.Convolution(3, 2, groups=2), ["3 channels in 2 groups", "divisible"]),
        (lambda: L.Convolution(0, 2), ["0 channels"]),
        (lambda: L.Convolution(2, 0), ["size is 0", "at least 1"]),
        (lambda: L.Convolution(2, 2.5), ["size is 2.5", "integer"]),
        (lambda: L.Dense(2.5), ["2.5 neurons", "integer"]),
        (lambda: residual_net(groups=0), ["groups 0"]),
        (lambda: L.Convolution(2, (2, 2, 2)), ["size is (2, 2, 2)", "pair"]),
        (lambda: L.Convolution(2, 2, stride=(1, 0)), ["stride is (1, 0)"]),
        (lambda: L.Convolution(2, 2, padding=-1), ["padding is -1", "at least 0"]),
        (lambda: L.Convolution(2, 2, dilation=0), ["dilation is 0"]),
        (lambda: L.Dense(0), ["0 neurons"]),
        (lambda: L.AveragePool(0), ["size is 0"]),
        (lambda: L.MaxPool(2, 0), ["stride is 0"]),
        (lambda: L.MaxPool((4, 3), padding=2), ["padding is (2, 2)", "windows of (4, 3)", "at most half"]),
        (lambda: L.AveragePool(2, padding=-1), ["padding is -1", "at least 0"]),
        (lambda: L.WeightedSum((1.0,)), ["weights=(1.0,)", "at least two states"]),
        (lambda: L.WeightedSum(("1", 2.0)), ["weights is '1'", "number"]),
        (lambda: L.Dense(2).output_shape((1, 2, 3)), ["(1, 2, 3)", "Flatten"]),
        (lambda: L.Convolution(2, 2).output_shape((4,)), ["(4,)", "channels, rows, columns"]),
        (lambda: L.Convolution(2, 2, groups=2).output_shape((3, 4, 4)), ["2 groups", "3 channels"]),
        (lambda: L.Convolution(2, (5, 1)).output_shape((3, 4, 4)), ["5 pixels", "axis of 4"]),
        (lambda: L.MaxPool(3).output_shape((1, 2, 4)), ["3 pixels", "axis of 2"]),
        (lambda: L.GlobalAveragePool().output_shape((4,)), ["(4,)"]),
        (lambda: L.Standardise(2).output_shape((3, 4)), ["2 groups", "(3, 4)"]),
        (lambda: L.Standardise(0), ["groups=0", "at least one group"]),
        (lambda: L.ScaleShift().output_shape(()), ["()"]),
        (lambda: L.WeightedSum().output_shape(((2,), (3,))), ["((2,), (3,))", "projection"]),
        (lambda: L.activation("tahn"), ["'tahn'", "did you mean 'tanh'?"]),
    ],
)
def test_bad_stages_and_shapes(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
