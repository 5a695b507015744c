"""Metrics (T17) and averaged switching functions (T13): formulas, mean 1, clipping, zeros, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref.averaging import Averaging
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.metric import METRICS, GradientMetric, IdentityMetric, LayerMetric, Metric
from tests.backends import Backend
from tests.strategies import seeds


def switching(seed: int, scale: float = 1.0, dtype: Any = np.float64) -> Any:
    generator = np.random.default_rng(seed)
    draw = lambda *shape: (scale * generator.standard_normal(shape)).astype(dtype)  # noqa: E731
    return ((draw(2, 3, 1, 2), draw(2)), (), (draw(4, 5),))


def spread(d: Any, g: Any) -> np.ndarray:
    """d entry by entry, as one vector."""
    return np.concatenate(
        [np.broadcast_to(a, b.shape).ravel() for a, b in zip(arrays_of(d), arrays_of(g), strict=True)]
    )


def run(metric: Metric, gs: list[Any]) -> tuple[Any, Any]:
    memory = d = None
    for count, g in enumerate(gs):
        memory, d = metric.update(memory, count, g)
    return memory, d


def test_identity_has_no_weights() -> None:
    assert run(IdentityMetric(), [switching(0)]) == (None, None)


@pytest.mark.parametrize("kind", [LayerMetric, GradientMetric])
@given(st.lists(seeds, min_size=1, max_size=4), st.sampled_from([0.0, 0.5, 0.99]), st.sampled_from([1e-8, 1.0, 1e8]))
def test_weights_follow_the_running_mean_of_squares(kind: Any, draws: list[int], beta: float, scale: float) -> None:
    """d ∝ √m, m the bias-corrected mean of g² (of its mean over a control), scaled to mean 1."""
    gs = [switching(seed, scale) for seed in draws]
    _, d = run(kind(beta=beta, floor=1e-12, ceiling=1e12), gs)
    weights = np.array([beta ** (len(gs) - 1 - k) for k in range(len(gs))])
    square = lambda g: g * g if kind is GradientMetric else np.full(g.shape, np.mean(g * g))  # noqa: E731
    vectors = np.array([np.concatenate([square(a).ravel() for a in arrays_of(g)]) for g in gs])
    root = np.sqrt(weights @ vectors / weights.sum())
    np.testing.assert_allclose(spread(d, gs[0]), root / np.mean(root), rtol=1e-10)


@pytest.mark.parametrize("kind", [LayerMetric, GradientMetric])
@given(seeds, st.sampled_from([(0.5, 2.0), (1e-3, 1e3), (1.0, 1.0)]))
def test_mean_is_one_and_weights_are_clipped(kind: Any, seed: int, bounds: tuple[float, float]) -> None:
    g = switching(seed)
    g = map_controls(lambda a: a * np.random.default_rng(seed).choice([0.0, 1e-9, 1.0, 1e3], a.shape), g)
    _, d = run(kind(floor=bounds[0], ceiling=bounds[1]), [g])
    vector = spread(d, g)
    np.testing.assert_allclose(np.mean(vector), 1.0, rtol=1e-12)
    assert np.all(vector > 0) and np.max(vector) <= np.min(vector) * bounds[1] / bounds[0] * (1 + 1e-12)


@pytest.mark.parametrize("kind", [LayerMetric, GradientMetric])
def test_without_any_switching_function_the_metric_is_the_identity(kind: Any) -> None:
    g = map_controls(np.zeros_like, switching(0))
    memory, d = run(kind(), [g, g])
    np.testing.assert_array_equal(spread(d, g), np.ones(34))
    _, d = kind().update(memory, 2, switching(1))  # and it recovers
    assert np.ptp(spread(d, g)) > 0 and np.isfinite(spread(d, g)).all()


def test_entries_with_zero_switching_function_get_the_floor() -> None:
    g = ((np.array([0.0, 3.0, 1.0]),),)
    _, d = run(GradientMetric(floor=0.5), [g])
    raw = np.array([0.5 * 4 / 3, 3.0, 1.0])
    np.testing.assert_allclose(d[0][0], raw / raw.mean(), rtol=1e-12)


@pytest.mark.parametrize("kind", [LayerMetric, GradientMetric])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_library_device_and_dtype_go_out_as_they_came_in(backend: Backend, kind: Any, dtype: Any) -> None:
    gs = [switching(seed, dtype=dtype) for seed in (1, 2)]
    _, expected = run(kind(beta=0.5), gs)
    memory, d = run(kind(beta=0.5), [map_controls(backend.asarray, g) for g in gs])
    for a in (*arrays_of(memory), *arrays_of(d)):
        assert a.dtype == getattr(backend.xp, dtype.__name__) and a.device == backend.device
    for a, b in zip(arrays_of(d), arrays_of(expected), strict=True):
        np.testing.assert_allclose(backend.to_numpy(a), b, rtol=8 * np.finfo(dtype).eps)


@given(st.lists(seeds, min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 0.9]))
def test_averages_are_bias_corrected_means(draws: list[int], beta: float) -> None:
    averaging, memory, gs = Averaging(beta), None, [switching(seed) for seed in draws]
    for g in gs:
        memory = averaging.update(memory, g)
    weights = np.array([beta ** (len(gs) - 1 - k) for k in range(len(gs))])
    for part, *history in zip(arrays_of(averaging.mean(memory, len(gs))), *map(arrays_of, gs), strict=True):
        expected = np.tensordot(weights / weights.sum(), np.array(history), axes=1)
        np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-14)


def test_names() -> None:
    assert METRICS == {"identity": IdentityMetric, "layer": LayerMetric, "gradient": GradientMetric}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LayerMetric(beta=1.0), ["beta 1.0", "0 ≤ beta < 1"]),
        (lambda: GradientMetric(floor=0.0), ["floor 0.0"]),
        (lambda: GradientMetric(floor=2.0), ["floor 2.0"]),
        (lambda: GradientMetric(ceiling=0.5), ["ceiling 0.5"]),
        (lambda: GradientMetric(ceiling=float("nan")), ["ceiling nan"]),
        (lambda: GradientMetric(beta="x"), ["beta is 'x'", "number"]),  # type: ignore[arg-type]
        (lambda: Averaging(beta=-0.1), ["beta -0.1"]),
        (lambda: Averaging(patience=0), ["patience 0"]),
    ],
)
def test_bad_metrics(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
