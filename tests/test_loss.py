"""Terminal losses: values against loops (T0), gradient and Hessian by complex step (T1, T14), stability, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.errors import InputError
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss, one_hot, softmax
from tests import oracles
from tests.backends import Backend
from tests.strategies import LAYOUTS, lay_out, seeds

TINY = 1e-30

losses = st.sampled_from([CrossEntropy(), SquaredLoss()])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Loss, np.ndarray, np.ndarray, np.ndarray]:
    """(loss, x, y, direction) with scores up to a few tens."""
    kind, batch, classes = draw(losses), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(seeds))
    x = draw(st.sampled_from([0.1, 1.0, 10.0])) * generator.standard_normal((batch, classes))
    layout = draw(st.sampled_from(LAYOUTS))
    y = generator.integers(0, classes, batch) if isinstance(kind, CrossEntropy) else generator.standard_normal(x.shape)
    return kind, lay_out(x, layout), lay_out(y, layout), lay_out(generator.standard_normal(x.shape), layout)


@given(cases())
def test_values_are_the_definition(case: Any) -> None:
    kind, x, y, _ = case
    expected = np.array([oracles.loss(kind, a, b).real for a, b in zip(x, y, strict=True)])
    actual = kind.values(x, y)
    assert actual.shape == (x.shape[0],)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14 * max(1.0, np.max(np.abs(x))))


@given(cases())
def test_gradient_and_its_tangent_are_complex_step_derivatives(case: Any) -> None:
    kind, x, y, dx = case
    gradient = kind.gradient(x, y)
    expected = np.empty_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape, complex)
        step[i] = TINY * 1j
        expected[i] = kind.values(x + step, y)[i[0]].imag / TINY
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-14 * max(1.0, np.max(np.abs(x))))
    tangent = kind.gradient(x + TINY * 1j * dx, y).imag / TINY
    np.testing.assert_allclose(kind.tangent_gradient(x, y, dx), tangent, rtol=0, atol=1e-13)


@given(cases())
def test_a_batch_repeated_twice_has_the_same_losses_twice(case: Any) -> None:
    kind, x, y, _ = case
    twice = kind.values(np.concatenate([x, x]), np.concatenate([y, y]))
    np.testing.assert_allclose(twice, np.tile(kind.values(x, y), 2), rtol=1e-15)


def test_cross_entropy_is_stable_and_invariant_under_shifts() -> None:
    x, y = np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]]), np.array([0, 2])
    np.testing.assert_array_equal(CrossEntropy().values(x, y), [0.0, 2e4])
    np.testing.assert_array_equal(CrossEntropy().gradient(x, y), [[0, 0, 0], [1, 0, -1]])
    x = np.array([[0.25, -1.5, 2.0]])
    np.testing.assert_array_equal(softmax(x + 1024.0), softmax(x))
    # The shift is the largest real part; the largest modulus would overflow here.
    value = CrossEntropy().values(np.array([[-2000.0 + 1j, 1.0]]), np.array([1]))
    np.testing.assert_allclose(value, [0.0], atol=1e-15)


def test_cross_entropy_of_equal_scores_is_log_k() -> None:
    np.testing.assert_allclose(CrossEntropy().values(np.full((2, 7), 3.0), np.array([0, 6])), np.log(7.0), rtol=1e-15)


def test_squared_loss_on_images() -> None:
    x, y = np.arange(12.0).reshape(1, 2, 2, 3), np.zeros((1, 2, 2, 3))
    assert SquaredLoss().values(x, y)[0] == sum(k * k for k in range(12)) / 2


def test_labels_narrower_than_the_number_of_classes() -> None:
    y = np.array([3, 255], dtype=np.uint8)
    mask = one_hot(np.zeros((2, 300)), y)
    assert mask.sum() == 2 and mask[0, 3] and mask[1, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [CrossEntropy(), SquaredLoss()], ids=str)
def test_library_device_and_dtype_go_out_as_they_came_in(backend: Backend, kind: Loss, dtype: Any) -> None:
    generator = np.random.default_rng(0)
    x, dx = generator.standard_normal((2, 3, 4)).astype(dtype)
    y = generator.integers(0, 4, 3) if isinstance(kind, CrossEntropy) else generator.standard_normal((3, 4))
    y = y if isinstance(kind, CrossEntropy) else y.astype(dtype)
    there = [backend.asarray(a) for a in (x, y, dx)]
    for actual, expected in (
        (kind.values(*there[:2]), kind.values(x, y)),
        (kind.gradient(*there[:2]), kind.gradient(x, y)),
        (kind.tangent_gradient(*there), kind.tangent_gradient(x, y, dx)),
    ):
        assert actual.device == backend.device and actual.dtype == there[0].dtype
        np.testing.assert_allclose(backend.to_numpy(actual), expected, rtol=0, atol=16 * np.finfo(dtype).eps)
    kind.check((4,), there[1])


@pytest.mark.parametrize(
    ("kind", "shape", "y", "words"),
    [
        (CrossEntropy(), (3,), np.array([0, 3]), ["0 to 3", "3 classes", "0 … 2"]),
        (CrossEntropy(), (3,), np.array([-1, 2]), ["-1 to 2"]),
        (CrossEntropy(), (3,), np.array([0.0, 1.0]), ["float64", "integers"]),
        (CrossEntropy(), (3,), np.zeros((2, 3), int), ["(2, 3)"]),
        (CrossEntropy(), (3,), np.array([True, False]), ["bool", "integers"]),
        (CrossEntropy(), (3, 2), np.array([0, 1]), ["(3, 2)", "vector of class scores"]),
        (CrossEntropy(), ((3,), (3,)), np.array([0, 1]), ["((3,), (3,))"]),
        (SquaredLoss(), (3,), np.zeros((2, 4)), ["(2, 4)", "(B, *(3,))"]),
        (SquaredLoss(), (3,), np.zeros((2, 3), int), ["int64", "floats"]),
    ],
)
def test_bad_labels(kind: Loss, shape: Any, y: np.ndarray, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        kind.check(shape, y)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
