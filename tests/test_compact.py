"""Compaction: same outputs to rounding on drawn networks with drawn zeros; planted mistakes; what goes, what stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmp_ref as pr
from pmp_ref.compact import (
    choose_forms,
    compact,
    constant_output,
    constants,
    fold_constants,
    kept,
    merge_constants,
    remove_unread,
    runner,
    sizes,
    unread_inputs,
)
from pmp_ref.compact import fold as folding
from pmp_ref.compact import units as unit_rules
from pmp_ref.compact.sparse import FORMS, forms_of
from pmp_ref.controls import arrays_of
from pmp_ref.errors import InputError
from pmp_ref.layers import Activation, ControlFreeStage
from pmp_ref.layers import Convolution as Conv
from pmp_ref.layers.windows import patches
from tests.strategies import pairs, seeds

ACTIVATIONS = [pr.ReLU(), pr.Tanh(), pr.LeakyReLU(0.2), pr.Sigmoid(), pr.Softplus(), pr.SiLU()]


@st.composite
def chains(draw: st.DrawFn) -> pr.Network:
    """Two to five mixing stages: grouped, strided, padded, dilated convolutions, then dense ones; between them
    activations, pooling, standardisation, scale-and-shift; sometimes a residual block, sometimes no image at all."""
    shape: Any = (draw(st.integers(1, 3)), draw(st.integers(5, 8)), draw(st.integers(5, 8)))
    stages: list[pr.layers.Stage] = []
    images = draw(st.integers(0, 3))
    if images == 0:
        shape = (draw(st.integers(1, 6)),)

    def push(*new: pr.layers.Stage) -> bool:
        """Append stages if they take the state."""
        try:
            network = pr.Network((*stages, *new), shape)
        except InputError:
            return False
        stages.extend(new)
        return network is not None

    def now() -> Any:
        return pr.Network(tuple(stages), shape).output_shape

    for _ in range(images):
        channels = now()[0]
        groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, channels) if channels % g == 0]))
        out = groups * draw(st.integers(1, 3))
        conv = Conv(
            out, draw(pairs(1, 3)), draw(pairs(1, 2)), draw(pairs(0, 2)), draw(pairs(1, 2)), groups, draw(st.booleans())
        )
        push(conv)
        _between(draw, push)
        if draw(st.integers(0, 3)) == 0:
            c = now()[0]
            inner = (Conv(draw(st.integers(1, 3)), 3, padding=1), draw(st.sampled_from(ACTIVATIONS)), Conv(c, 1))
            push(pr.residual(*inner, step=0.5, projection=draw(st.sampled_from([None, Conv(c, 1)]))))
            push(draw(st.sampled_from(ACTIVATIONS)))
        if draw(st.integers(0, 3)) == 0:
            push(crossing(now()[0], draw(st.sampled_from(ACTIVATIONS)), draw(st.integers(1, 3))))
    if images:
        push(draw(st.sampled_from([pr.Flatten(), pr.Flatten(), pr.GlobalAveragePool()])))
    for _ in range(draw(st.integers(0, 3))):
        push(pr.Dense(draw(st.integers(1, 6)), draw(st.booleans())))
        _between(draw, push)
    push(pr.Dense(draw(st.integers(1, 4)), draw(st.booleans())))
    return pr.Network(tuple(stages), shape)


def crossing(channels: int, act: Any, inner: int) -> pr.Block:
    """Skips that cross each other: the state entering has three readers, the activation of it two."""
    stages = (act, Conv(inner, 1), pr.ReLU(), Conv(channels, 1), pr.WeightedSum((1.0, -0.5, 0.25)))
    return pr.Block((*stages, pr.WeightedSum((1.0, 2.0))), ((0,), (1,), (2,), (3,), (0, 1, 4), (5, 0)))


def _between(draw: st.DrawFn, push: Any) -> None:
    for kind in draw(st.lists(st.sampled_from("aaapmns"), max_size=3)):
        if kind == "a":
            push(draw(st.sampled_from(ACTIVATIONS)))
        elif kind in "pm":
            push((pr.AveragePool if kind == "p" else pr.MaxPool)(draw(pairs(1, 2)), draw(st.sampled_from([None, 1]))))
        elif kind == "n":
            push(pr.Standardise(draw(st.integers(1, 2)), 0.1))
        else:
            push(pr.ScaleShift(draw(st.booleans())))


def drawn_controls(network: pr.Network, seed: int) -> Any:
    """Normal controls with zeros: whole layers, rows, columns, single entries; biases sometimes 0 or negative."""
    g = np.random.default_rng(seed)
    result = []
    for names, shapes in zip(network.names(), network.control_shapes, strict=True):
        arrays = []
        for name, shape in zip(names, shapes, strict=True):
            a = g.normal(size=shape)
            if name == "kernel":
                a[g.random(shape[0]) < g.choice([0, 0.3, 0.6])] = 0
                if len(shape) > 1:
                    a[:, g.random(shape[1]) < g.choice([0, 0.3, 0.6])] = 0
                a *= g.random(shape) >= g.choice([0, 0.5, 0.9])
                a *= g.random() >= 0.05
                if a.ndim == 4 and g.random() < 0.3:  # filters that read one corner: known where that is padding
                    a[g.random(shape[0]) < 0.5] *= np.arange(shape[2] * shape[3]).reshape(shape[2:]) == 0
                if g.random() < 0.2:
                    a = -np.abs(a)
            else:
                a = g.choice([a, -np.abs(a), 0 * a])
            arrays.append(a)
        result.append(tuple(arrays))
    return tuple(result)


def outputs(network: pr.Network, controls: Any, x: np.ndarray) -> np.ndarray:
    return network.forward_sweep(controls, x)[-1]


def sample(network: pr.Network, seed: int, n: int = 5) -> np.ndarray:
    return 3 * np.random.default_rng(seed + 1).normal(size=(n, *network.input_shape))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """To rounding in float64: sums of at most some hundred products, a few stages, standardisation with δ = 0.1.

    Rounding was seen to be below 1e-13 of the scale; a mistake changes drawn outputs by parts of it.
    """
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= 1e-11 * (1 + np.max(np.abs(a)))))


def total(network: pr.Network, controls: Any) -> int:
    return sum(a.size for a in arrays_of(controls))


@given(chains(), seeds)
def test_outputs_stay_the_same_and_a_second_call_changes_nothing(network: pr.Network, seed: int) -> None:
    controls = drawn_controls(network, seed)
    x = sample(network, seed)
    smaller, fewer = compact(network, controls)
    assert same(outputs(network, controls, x), outputs(smaller, fewer, x))
    again, unchanged = compact(smaller, fewer)
    assert again == smaller
    assert all(np.array_equal(a, b) for a, b in zip(arrays_of(unchanged), arrays_of(fewer), strict=True))
    before, after = sizes(network, controls), sizes(smaller, fewer)
    for b, a in zip(before, after, strict=True):
        assert a.weights <= b.weights and a.multiply_adds <= b.multiply_adds and a.nonzero <= a.weights
    assert not any(np.shares_memory(a, b) for a in arrays_of(fewer) for b in arrays_of(controls))


@given(chains(), seeds)
def test_each_step_alone_keeps_the_outputs(network: pr.Network, seed: int) -> None:
    controls = drawn_controls(network, seed)
    x = sample(network, seed)
    y = outputs(network, controls, x)
    for step in (fold_constants, merge_constants, remove_unread):
        assert same(y, outputs(*step(network, controls), x)), step.__name__


@given(chains(), seeds)
def test_bounded_inputs_only_prove_more(network: pr.Network, seed: int) -> None:
    controls = drawn_controls(network, seed)
    x = np.clip(sample(network, seed, 20), -0.5, 0.25)
    smaller, fewer = compact(network, controls, (-0.5, 0.25))
    assert same(outputs(network, controls, x), outputs(smaller, fewer, x))
    free, bounded = constants(network, controls), constants(network, controls, (-0.5, 0.25))
    assert all(np.all(more.known | ~less.known) for less, more in zip(free, bounded, strict=True))
    if network.is_chain:  # elsewhere a constant that is found may need a bias where there was none
        assert total(smaller, fewer) <= total(*compact(network, controls))


@given(chains(), seeds)
def test_what_is_known_is_what_the_states_are(network: pr.Network, seed: int) -> None:
    """Known entries have their value, the others lie within their bounds, on drawn inputs."""
    controls = drawn_controls(network, seed)
    x = np.clip(sample(network, seed, 20), -1, 1)
    for state, e in zip(network.forward_sweep(controls, x), constants(network, controls, (-1, 1)), strict=True):
        both = zip(state, e, strict=True) if isinstance(state, tuple) else [(state, e)]
        for s, known in both:
            scale = 1e-11 * (1 + np.max(np.abs(s)))
            assert np.all(~known.known | (np.abs(s - known.value) <= scale))
            assert np.all((known.low - scale <= s) & (s <= known.high + scale))


@given(chains(), seeds)
def test_unread_inputs_are_not_read(network: pr.Network, seed: int) -> None:
    controls = drawn_controls(network, seed)
    unread = unread_inputs(network, controls)
    x = sample(network, seed)
    other = np.where(unread, 7.0, x)
    assert same(outputs(network, controls, x), outputs(network, controls, other))


@given(chains(), seeds)
def test_a_disconnected_network_is_found(network: pr.Network, seed: int) -> None:
    """The output of a network with one kernel all zero, which no skip goes past, is constant, found before and
    after, and little is left."""
    controls = list(drawn_controls(network, seed))
    mixing = [
        l
        for l, s in enumerate(network.stages)
        if isinstance(s, pr.Dense | pr.Convolution) and all(min(states) > l for states in network.reads[l + 1 :])
    ]
    l = mixing[seed % len(mixing)]
    controls[l] = tuple(0 * a if i == 0 else a for i, a in enumerate(controls[l]))
    smaller, fewer = compact(network, tuple(controls))
    y = outputs(network, tuple(controls), sample(network, seed))
    end = constant_output(network, tuple(controls))
    assert end is not None and same(y, np.broadcast_to(end, y.shape))
    again = constant_output(smaller, fewer)
    assert again is not None and same(end, again)


@given(chains(), seeds)
def test_every_form_runs_alike(network: pr.Network, seed: int) -> None:
    controls = drawn_controls(network, seed)
    x = sample(network, seed)
    y = outputs(network, controls, x)
    for form in FORMS:
        forms = tuple(f and form for f in forms_of(network))
        z = runner(network, controls, forms, chunk=2)(x)
        assert same(y, z) and z.dtype == np.float64


@given(chains(), seeds)
def test_controls_that_stay_dead_are_all_explained(network: pr.Network, seed: int) -> None:
    smaller, fewer = compact(network, drawn_controls(network, seed))
    explained = {(k.stage, unit) for k in kept(smaller, fewer) for unit in k.units}
    for l, stage in enumerate(smaller.stages):
        if isinstance(stage, pr.Dense | pr.Convolution):
            k = fewer[l][0]
            dead = np.flatnonzero(~k.reshape(k.shape[0], -1).any(axis=1))
            assert {(l, int(unit)) for unit in dead} <= explained


# --- planted mistakes -------------------------------------------------------------------------------------------------


def found(change: Any) -> bool:
    """Whether some of 60 fixed networks show a difference."""
    for seed in range(60):
        network, controls, x = fixed(seed)
        try:
            smaller, fewer = compact(network, controls)
        except (InputError, ValueError, IndexError):
            return True
        if not same(outputs(network, controls, x), outputs(smaller, fewer, x)):
            return True
    return False


def fixed(seed: int) -> tuple[pr.Network, Any, np.ndarray]:
    """A chain with padding, pooling, standardisation in groups and dense stages; drawn zeros."""
    network = pr.Network(
        (
            Conv(6, (3, 2), padding=(1, 0)),
            pr.Tanh(),
            pr.MaxPool(2, 1),
            Conv(5, (2, 3), (1, 2), (0, 1)),
            pr.ReLU(),
            Conv(4, 1),
            pr.Standardise(2, 0.1),
            pr.ScaleShift(),
            pr.AveragePool((1, 2)),
            pr.Flatten(),
            pr.Dense(7),
            pr.Sigmoid(),
            pr.Dense(3),
        ),
        (2, 7, 9),
    )
    return network, drawn_controls(network, seed), sample(network, seed)


def test_the_fixed_networks_are_compacted_right() -> None:
    assert not found(None)


def _all_taps_inside(stage: Any, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    size = stage.windows.size
    return np.ones(size, bool), np.zeros(size, bool)


MISTAKES: dict[str, tuple[Any, str, Any]] = {
    "the constant is not added to the bias": (folding, "shifted", lambda bias, shift: bias),
    "the constant is subtracted": (folding, "shifted", lambda bias, shift: bias - shift),
    "padding is taken for more of the constant": (folding, "taps", _all_taps_inside),
    "a channel constant in its first pixel is taken as constant": (
        folding,
        "constant_channels",
        lambda e: (e.known[0].reshape(e.known.shape[1], -1)[:, 0], e.value[0].reshape(e.value.shape[1], -1)[:, 0]),
    ),
    "standardised channels go one by one": (unit_rules, "_whole_groups", lambda d, span, going: going),
    "columns of the wrong units go": (
        unit_rules,
        "cut_columns",
        lambda d, l, keep, right=unit_rules.cut_columns: right(d, l, keep[::-1]),
    ),
    "scale-and-shift is cut at the wrong end": (
        unit_rules,
        "cut_between",
        lambda d, span, keep, right=unit_rules.cut_between: right(d, span, keep[::-1]),
    ),
    "read units go": (unit_rules, "unread_units", lambda d, span: np.arange(unit_rules.units_of(d, span.maker)) == 0),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_planted_mistakes_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, wrong = MISTAKES[name]
    monkeypatch.setattr(module, attribute, wrong)
    assert found(name), name


# --- what goes --------------------------------------------------------------------------------------------------------


def shapes_of(controls: Any) -> list[tuple[int, ...]]:
    return [u[0].shape for u in controls if u]


def full(network: pr.Network, seed: int = 0) -> Any:
    """Normal controls without zeros, as lists."""
    g = np.random.default_rng(seed)
    return [[g.normal(size=s) for s in shapes] for shapes in network.control_shapes]


def frozen(controls: Any) -> Any:
    return tuple(tuple(u) for u in controls)


def test_dead_and_unread_filters_and_neurons_of_lenet_go() -> None:
    network = pr.lenet5()
    u = full(network)
    u[0][0][[1, 4]] = 0  # dead filters
    u[3][0][:, 2] = 0  # a filter that nobody reads
    u[3][0][7] = 0
    u[7][0][:30] = 0
    u[9][0][:, 30:33] = 0
    u[11][0][:, 5] = 0
    smaller, fewer = compact(network, frozen(u))
    assert shapes_of(fewer) == [(3, 1, 5, 5), (15, 3, 5, 5), (87, 375), (83, 87), (10, 83)]
    x = np.random.default_rng(1).normal(size=(4, 1, 28, 28))
    assert same(outputs(network, frozen(u), x), outputs(smaller, fewer, x))


def test_removal_runs_backwards_through_the_whole_net() -> None:
    """A neuron that nobody reads, alone in reading its filter: both go, in one call."""
    network = pr.Network((Conv(3, 3), pr.ReLU(), pr.Flatten(), pr.Dense(4), pr.Tanh(), pr.Dense(2)), (1, 5, 6))
    u = full(network)
    per = u[3][0].shape[1] // 3
    u[3][0][[0, 1, 2], :per] = 0  # filter 0 is read by neuron 3 alone
    u[5][0][:, 3] = 0  # and nobody reads neuron 3
    assert shapes_of(compact(network, frozen(u))[1]) == [(2, 1, 3, 3), (3, 2 * per), (2, 3)]


def test_a_bias_is_made_where_there_is_none() -> None:
    network = pr.Network((pr.Dense(3), pr.Sigmoid(), pr.Dense(2, bias=False)), (4,))
    u = full(network)
    u[0][0][1] = 0
    smaller, fewer = compact(network, frozen(u))
    assert smaller.stages[2] == pr.Dense(2) and len(fewer[2]) == 2
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert same(outputs(network, frozen(u), x), outputs(smaller, fewer, x))


def test_constants_before_padding_share_one_channel() -> None:
    network = pr.Network((Conv(6, 3), pr.Tanh(), Conv(2, 3, padding=1), pr.Flatten(), pr.Dense(2)), (1, 7, 8))
    u = full(network)
    u[0][0][[0, 2, 3]] = 0
    u[0][1][3] = 0  # tanh(0) = 0: nothing is lost at the border
    smaller, fewer = compact(network, frozen(u))
    assert fewer[0][0].shape == (4, 1, 3, 3)  # three that live and one constant for two
    (note,) = kept(smaller, fewer)
    assert note.stage == 0 and len(note.units) == 1 and "padding" in note.reason
    x = np.random.default_rng(0).normal(size=(5, 1, 7, 8))
    assert same(outputs(network, frozen(u), x), outputs(smaller, fewer, x))


def test_without_padding_and_with_taps_that_never_meet_it_constants_go() -> None:
    network = pr.Network((Conv(3, 1), pr.Tanh(), Conv(2, 3, padding=1), pr.GlobalAveragePool(), pr.Dense(2)), (1, 5, 6))
    u = full(network)
    u[0][0][1] = 0
    middle = np.zeros((3, 3))
    middle[1, 1] = 1
    u[2][0][:, 1] *= middle  # only the middle tap reads the constant
    assert shapes_of(compact(network, frozen(u))[1])[0] == (2, 1, 1, 1)


def test_relu_units_that_are_never_positive_go() -> None:
    network = pr.Network((pr.Dense(4), pr.ReLU(), pr.Dense(3), pr.ReLU(), pr.Dense(2)), (3,))
    u = full(network)
    u[0][1][:], u[2][1][:] = 100, 100
    u[2][0][1], u[2][1][1] = -np.abs(u[2][0][1]), 0  # ReLU before it: never positive, whatever the input
    u[0][0][2], u[0][1][2] = 1, -5  # positive from x₁ + x₂ + x₃ > 5 on
    assert shapes_of(compact(network, frozen(u))[1]) == [(4, 3), (2, 4), (2, 2)]
    assert shapes_of(compact(network, frozen(u), (-1, 1))[1]) == [(3, 3), (2, 3), (2, 2)]
    assert shapes_of(compact(network, frozen(u), (-1, 2))[1]) == [(4, 3), (2, 4), (2, 2)]


def test_depthwise_channels_go_with_their_filters() -> None:
    network = pr.Network(
        (
            Conv(4, 1),
            pr.ReLU(),
            Conv(4, 3, padding=1, groups=4),
            pr.ReLU(),
            Conv(3, 1),
            pr.GlobalAveragePool(),
            pr.Dense(2),
        ),
        (2, 5, 6),
    )
    u = full(network)
    u[4][0][:, [0, 2]] = 0
    smaller, fewer = compact(network, frozen(u))
    assert shapes_of(fewer)[:3] == [(2, 2, 1, 1), (2, 1, 3, 3), (3, 2, 1, 1)]
    assert smaller.stages[2].groups == 2  # type: ignore[attr-defined]
    x = np.random.default_rng(0).normal(size=(5, 2, 5, 6))
    assert same(outputs(network, frozen(u), x), outputs(smaller, fewer, x))


def test_equal_groups_lose_equal_numbers() -> None:
    network = pr.Network((Conv(6, 1), pr.Tanh(), Conv(4, 1, groups=2), pr.Flatten(), pr.Dense(2)), (1, 3, 4))
    u = full(network)
    u[2][0][:2, [0, 1]] = 0  # two of group 0
    u[2][0][2:, 1] = 0  # one of group 1
    smaller, fewer = compact(network, frozen(u))
    assert fewer[0][0].shape[0] == 4 and fewer[2][0].shape == (4, 2, 1, 1)
    assert any("equal groups" in k.reason for k in kept(smaller, fewer))


def test_standardised_groups_go_whole() -> None:
    network = pr.Network(
        (Conv(6, 1), pr.Standardise(3), pr.ScaleShift(), pr.Tanh(), pr.Flatten(), pr.Dense(2)), (2, 3, 4)
    )
    u = full(network)
    u[2][0][[0, 1, 2]] = 0  # scales: channels 0 and 1 are group 0; 2 is half of group 1
    smaller, fewer = compact(network, frozen(u))
    assert fewer[0][0].shape[0] == 4 and fewer[2][0].shape == (4,)
    assert smaller.stages[1] == pr.Standardise(2)
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
    assert same(outputs(network, frozen(u), x), outputs(smaller, fewer, x))


def test_residual_net_loses_inner_channels_and_keeps_tied_ones() -> None:
    network = pr.residual_net((3, 8, 8), 4, width=4, groups=1, blocks=(1, 1))
    u = full(network)
    mixing = [l for l, s in enumerate(network.stages) if isinstance(s, Conv)]
    first, inner, last = mixing[:3]
    u[first][0][1] = 0
    u[last][0][:, [0, 3]] = 0  # two inner channels nobody reads, but standardised with the others
    u[last][0][2] = 0
    smaller, fewer = compact(network, frozen(u))
    reasons = {k.stage: k.reason for k in kept(smaller, fewer)}
    assert "standardised" in reasons[inner] and "a sum ties" in reasons[last] and "a sum ties" in reasons[first]
    plain = pr.Network(
        (
            Conv(4, 3, padding=1),
            pr.ReLU(),
            pr.residual(Conv(5, 3, padding=1), pr.ReLU(), Conv(4, 1)),
            pr.GlobalAveragePool(),
            pr.Dense(3),
        ),
        (1, 6, 7),
    )
    u = full(plain)
    u[4][0][:, [0, 3]] = 0
    assert compact(plain, frozen(u))[1][2][0].shape == (3, 4, 3, 3)


@dataclass(frozen=True)
class Roll(ControlFreeStage):
    """A stage that mixes units, of no package."""

    def output_shape(self, shape: Any) -> Any:
        return shape

    def forward(self, x: Any, u: Any) -> Any:
        return np.roll(x, 1, axis=1)

    def costate(self, x: Any, u: Any, p: Any) -> Any:
        return np.roll(p, -1, axis=1)

    def tangent(self, x: Any, u: Any, dx: Any, v: Any) -> Any:
        return self.forward(dx, u)

    def tangent_costate(self, x: Any, u: Any, p: Any, dx: Any, v: Any, dp: Any) -> Any:
        return self.costate(x, u, dp)


class Cube(Activation):
    """An activation of no package: it acts entry by entry, as every activation does."""

    def sigma(self, z: Any) -> Any:
        return z**3

    def slope(self, z: Any) -> Any:
        return 3 * z**2

    def curvature(self, z: Any) -> Any:
        return 6 * z


def test_stages_of_other_packages_are_left_alone() -> None:
    stages = (pr.Dense(4), Cube(), pr.Dense(4), Roll(), pr.Dense(4), pr.ReLU(), pr.Dense(2))
    network = pr.Network(stages, (3,))
    u = full(network)
    u[0][0][1] = 0
    u[2][0][1] = 0
    u[4][0][1] = 0
    smaller, fewer = compact(network, frozen(u))
    assert shapes_of(fewer) == [(3, 3), (4, 3), (3, 4), (2, 3)]
    assert any("Roll is not known" in k.reason for k in kept(smaller, fewer))
    x = np.random.default_rng(0).normal(size=(5, 3))
    y = outputs(network, frozen(u), x)
    assert same(y, outputs(smaller, fewer, x)) and same(y, runner(smaller, fewer)(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_no_sample_gives_no_state(form: str, dtype: str) -> None:
    network = pr.lenet5((1, 12, 12), 3)
    u = tuple(tuple(a.astype(dtype) for a in s) for s in full(network))
    run = runner(network, u, tuple(f and form for f in forms_of(network)))
    x = sample(network, 0).astype(dtype)
    y = run(x[:0])
    assert y.shape == (0, 3) and y.dtype == run(x).dtype == dtype


def test_float32_controls_stay_float32_and_other_libraries_come_back_as_numpy() -> None:
    xp = pytest.importorskip("array_api_strict")
    network = pr.lenet5((1, 12, 12), 3)
    u = [[a.astype(np.float32) for a in s] for s in full(network)]
    u[0][0][2] = 0
    smaller, fewer = compact(network, frozen(u))
    assert {a.dtype for a in arrays_of(fewer)} == {np.dtype(np.float32)}
    strict = tuple(tuple(xp.asarray(a) for a in s) for s in u)
    again, same_again = compact(network, strict)
    assert again == smaller
    assert all(np.array_equal(a, b) for a, b in zip(arrays_of(fewer), arrays_of(same_again), strict=True))


def test_bad_input_is_refused() -> None:
    network = pr.Network((pr.Dense(2),), (3,))
    u = full(network)
    with pytest.raises(InputError, match="shape"):
        compact(network, ((np.zeros((2, 2)), np.zeros(2)),))
    u[0][0][0, 0] = np.nan
    with pytest.raises(InputError, match=r"kernel of stage 0 .* NaN or infinity"):
        compact(network, frozen(u))
    with pytest.raises(InputError, match="low ≤ high"):
        compact(network, frozen(full(network)), (1, 0))
    with pytest.raises(InputError, match="forms are"):
        runner(network, frozen(full(network)), ("thin",))


# --- counts -----------------------------------------------------------------------------------------------------------


def test_counts_of_lenet_by_hand() -> None:
    network = pr.lenet5()
    u = full(network)
    u[0][0][0] = 0
    s = sizes(network, frozen(u))
    assert sum(size.weights for size in s) == 61470
    assert [size.multiply_adds for size in s] == [150 * 784, 2400 * 100, 48000, 10080, 840]
    assert s[0].nonzero == 125 and s[0].nonzero_multiply_adds == 125 * 784
    assert s[0].kind == "Convolution" and s[0].shape == (6, 1, 5, 5)


def test_taps_by_counting_positions() -> None:
    for conv, shape in ((Conv(1, (3, 2), (2, 1), (1, 1), (1, 3)), (1, 5, 4)), (Conv(1, 3, padding=2), (1, 1, 2))):
        always, never = folding.taps(conv, shape)
        inside = patches(np.ones((1, *shape)), conv.windows)[0, 0]
        for i, j in np.ndindex(*conv.windows.size):
            n, positions = int(inside[i, j].sum()), math.prod(inside.shape[2:])
            assert always[i, j] == (n == positions) and never[i, j] == (n == 0)
    assert folding.taps(Conv(1, 3, padding=2), (1, 1, 2))[1].sum() == 0


def test_forms_are_measured_for_every_dense_and_convolutional_stage() -> None:
    network = pr.lenet5((1, 12, 12), 3)
    u = frozen(full(network))
    forms, timings = choose_forms(network, u, np.zeros((4, 1, 12, 12)))
    assert [t.stage for t in timings] == [0, 3, 7, 9, 11]
    for t in timings:
        assert t.dense > 0 and t.sparse > 0 and forms[t.stage] == t.form
        assert t.form == ("sparse" if t.sparse < 0.95 * t.dense else "dense")


def test_a_pixel_that_one_of_two_stages_reads_is_read() -> None:
    network = pr.Network((pr.Dense(3), pr.WeightedSum()), (3,), [[0], [0, 1]])
    assert not unread_inputs(network, ((np.zeros((3, 3)), np.zeros(3)), ())).any()


def test_unread_pixels_of_a_dense_net_are_named() -> None:
    network = pr.Network((pr.Flatten(), pr.Dense(3), pr.Tanh(), pr.Dense(2)), (1, 3, 4))
    u = full(network)
    u[1][0][:, [0, 7]] = 0
    u[1][0][1:, 5] = 0
    u[3][0][:, 0] = 0  # the one reader of pixel 5 is itself unread
    assert np.flatnonzero(unread_inputs(network, frozen(u))).tolist() == [0, 5, 7]
    assert pr.Network(network.stages[:2], (1, 3, 4)).output_shape == (3,)
