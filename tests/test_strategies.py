"""The strategies themselves: what they promise, and that they reach the cases the tests are meant to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from pmp_ref.layers import Convolution, WeightedSum
from tests.strategies import (
    KINDS,
    LAYOUTS,
    SMOOTH,
    dyadics,
    filled,
    lay_out,
    networks,
    seeds,
    shapes,
    stage_cases,
    with_batch,
)

# Reaching a case is searched for with a fixed seed and without shrinking.
REACH = settings(
    max_examples=2000,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@given(shapes, seeds, st.sampled_from(LAYOUTS))
def test_layouts_keep_the_values(shape: tuple[int, ...], seed: int, layout: str) -> None:
    a = np.random.default_rng(seed).standard_normal(shape)
    b = lay_out(a, layout)
    assert b.shape == a.shape and b.dtype == a.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4, 5)])
def test_layouts_are_what_they_say(shape: tuple[int, ...], layout: str) -> None:
    a = lay_out(np.zeros(shape), layout)
    assert a.flags.c_contiguous == (layout == "contiguous")
    assert (a.strides[-1] < 0) == (layout == "reversed")


@given(dyadics(-3, 5))
def test_dyadics_are_eighths_and_exact(value: Any) -> None:
    assert -3 <= value <= 5 and (8 * value).denominator == 1
    assert float(value) == value


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_cases_fit_together(kind: str, data: st.DataObject) -> None:
    case = data.draw(stage_cases(kind))
    a = case.arrays()
    y = case.stage.forward(a["x"], a["u"])
    shape_of = lambda z: tuple(map(shape_of, z)) if isinstance(z, tuple) else z.shape  # noqa: E731
    assert shape_of(y) == with_batch(case.stage.output_shape(case.shape), case.batch) == shape_of(a["p"])
    assert shape_of(a["x"]) == with_batch(case.shape, case.batch)
    assert shape_of(a["u"]) == case.stage.control_shapes(case.shape)
    assert type(case.stage).__name__ == kind


def test_arrays_of_a_case_differ_and_repeat() -> None:
    case = find(stage_cases("Dense"), lambda c: c.shape[0] > 2, settings=REACH)
    a, b = case.arrays(), case.arrays()
    assert not np.array_equal(a["x"], a["dx"]) and np.array_equal(a["x"], b["x"])
    assert filled(((2,), (4,)), np.random.default_rng(0))[1].shape == (4,)


def nonsquare(c: Convolution) -> bool:
    return all(a[0] != a[1] for a in (c.size, c.stride, c.padding, c.dilation))  # type: ignore[index]


@pytest.mark.parametrize(
    "reached",
    [
        lambda c: nonsquare(c.stage) and c.shape[1] != c.shape[2] and c.stage.groups == 2 and c.layout == "permuted",
        lambda c: c.stage.groups == 2 and c.stage.channels == 4 and c.shape[0] == 4 and c.stage.size == (3, 2),
        lambda c: c.stage.stride == (3, 2) and c.stage.output_shape(c.shape)[1] > 1,
        # the stride leaves a remainder at the end of an axis
        lambda c: (
            (c.shape[1] + 2 * c.stage.padding[0] - c.stage.dilation[0] * (c.stage.size[0] - 1) - 1) % c.stage.stride[0]
            > 0
        ),
        lambda c: c.batch == 3 and not c.stage.bias,
    ],
)
def test_convolutions_reach(reached: Callable[[Any], bool]) -> None:
    find(stage_cases("Convolution"), reached, settings=REACH)


def test_sums_reach_many_states_with_other_weights() -> None:
    find(
        stage_cases("WeightedSum"),
        lambda c: isinstance(c.stage, WeightedSum) and c.stage.arity == 4 and len(set(c.stage.weights)) > 2,
        settings=REACH,
    )


@given(st.data())
def test_smooth_cases_and_networks_are_analytic(data: st.DataObject) -> None:
    assert data.draw(stage_cases(data.draw(st.sampled_from(SMOOTH)), smooth=True)).stage.analytic
    assert data.draw(networks()).analytic
    network = data.draw(networks(classes=3))
    assert network.output_shape == (3,) and len(network.layers()) >= 2


@pytest.mark.parametrize("name", ["WeightedSum", "MaxPool", "Standardise", "ReLU", "Pixels"])
def test_networks_reach(name: str) -> None:
    find(networks(smooth=False, heads=True), lambda n: any(type(s).__name__ == name for s in n.stages), settings=REACH)


def test_networks_reach_a_state_that_many_stages_read() -> None:
    find(networks(), lambda n: max(map(len, n.readers)) == 5, settings=REACH)
