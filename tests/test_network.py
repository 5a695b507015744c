"""Networks: shapes, sweeps against complex step (T1b), Hamiltonian increments (T2), architectures, controls, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref import architectures as A
from pmp_ref import layers as L
from pmp_ref.controls import (
    add,
    arrays_of,
    cast,
    from_vector,
    inner,
    map_controls,
    scaled,
    subtract,
    to_vector,
    total,
)
from pmp_ref.errors import InputError
from pmp_ref.hamiltonian import hamiltonian, increments
from pmp_ref.initialise import initial_controls
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import Polynomial
from tests.backends import Backend
from tests.strategies import networks, seeds, skips_over_skips

TINY = 1e-30


def setting(network: Network, seed: int, batch: int = 2) -> tuple[Any, np.ndarray, np.ndarray]:
    """Controls, images and a terminal costate."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((batch, *network.input_shape))
    u = map_controls(lambda a: a + 0.1 * generator.standard_normal(a.shape), initial_controls(network, seed, x))
    return u, x, generator.standard_normal((batch, *network.output_shape))


def pairing(network: Network, u: Any, x: np.ndarray, p: np.ndarray) -> Any:
    return np.sum(p * network.forward_sweep(u, x)[-1])


def derivative(network: Network, u: Any, x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """∂_u⟨p, x_L⟩ entry by entry by complex step."""
    vector = to_vector(u)
    g = np.empty_like(vector)
    for i in range(vector.size):
        step = np.zeros_like(vector)
        step[i] = TINY
        moved = map_controls(lambda a, b: a + 1j * b, u, from_vector(step, u))
        g[i] = pairing(network, moved, x, p).imag / TINY
    return g


@given(networks(), seeds)
def test_switching_functions_are_complex_step_derivatives(network: Network, seed: int) -> None:
    """T1b: whole networks, nested residual blocks included, relative to ‖g‖."""
    u, x, p = setting(network, seed)
    _, g = network.backward_sweep(u, network.forward_sweep(u, x), p)
    expected = derivative(network, u, x, p)
    assert np.linalg.norm(to_vector(g) - expected) <= 1e-12 * np.linalg.norm(expected)


WIRED = {
    "chain": Network((L.Convolution(3, (2, 1)), L.Tanh(), L.Flatten(), L.Dense(4)), (2, 3, 4)),
    "projection": Network(
        (L.residual(L.Convolution(3, (1, 3)), L.SiLU(), step=0.3, projection=L.Convolution(3, (1, 3))), L.Flatten()),
        (2, 3, 5),
    ),
    "skips over skips": Network((L.ScaleShift(), skips_over_skips(3, L.Tanh(), 0.7), L.Flatten()), (3, 4, 2)),
    "images read twice": Network((L.Dense(3), L.Dense(3), L.WeightedSum((2.0, -1.0))), (4,), [[0], [0], [2, 1]]),
    "one state twice": Network((L.Dense(3), L.Tanh(), L.WeightedSum((0.3, 0.4))), (4,), [[0], [1], [2, 2]]),
}


@pytest.mark.parametrize("name", WIRED)
def test_wired_networks_agree_with_complex_step(name: str) -> None:
    """T1: the costate of a state is the sum over its readers."""
    network = WIRED[name]
    u, x, p = setting(network, 5, batch=3)
    states = network.forward_sweep(u, x)
    _, g = network.backward_sweep(u, states, p)
    expected = derivative(network, u, x, p)
    assert np.linalg.norm(to_vector(g) - expected) <= 1e-13 * np.linalg.norm(expected)
    last = network.forward_sweep(u, x, keep=False)
    np.testing.assert_array_equal(last[-1], states[-1])
    assert all(state is None for state in last[:-1])  # a state is free once its last reader has run


def test_states_are_let_go_after_their_last_readers() -> None:
    network, held = WIRED["skips over skips"], []
    at_work: list[Any] = []

    def step(l: int, entering: Any) -> Any:
        at_work.append(object())
        held.append(entering)
        return at_work[-1]

    states = network.propagate(step, object(), keep=False)
    assert states == [None] * len(network.stages) + [at_work[-1]]
    assert held[7] == (at_work[6], at_work[0], at_work[0], at_work[3])  # x_7, x_1 twice, x_4


def test_what_depends_on_no_control_has_no_costate() -> None:
    network = Network((L.Tanh(), L.Dense(2), L.WeightedSum((1.0, 3.0)), L.Dense(3)), (2,), [[0], [1], [1, 2], [3]])
    assert network.controlled == (False, False, True, True, True)
    u, x, p = setting(network, 1)
    costates, g = network.backward_sweep(u, network.forward_sweep(u, x), p)
    assert costates[0] is None and costates[1] is None and costates[2] is not None
    np.testing.assert_allclose(to_vector(g), derivative(network, u, x, p), rtol=1e-12, atol=1e-14)


@given(networks(), seeds)
def test_costates_are_derivatives_in_the_states(network: Network, seed: int) -> None:
    """p_1 = ∂⟨p, x_L⟩/∂x_1 along a direction, by restarting the network at x_1."""
    u, x, p = setting(network, seed)
    states = network.forward_sweep(u, x)
    costates, _ = network.backward_sweep(u, states, p)
    assert costates[0] is None and len(costates) == len(states)
    rest = Network(network.stages[1:], network.shapes[1], [[i - 1 for i in states] for states in network.reads[1:]])
    dx = np.random.default_rng(seed).standard_normal(states[1].shape)
    slope = pairing(rest, u[1:], states[1] + TINY * 1j * dx, p).imag / TINY
    scale = np.linalg.norm(costates[1]) * np.linalg.norm(dx)
    assert abs(np.sum(costates[1] * dx) - slope) <= 1e-12 * scale


def margins(network: Network, states: list[Any]) -> float:
    """Smallest distance of a state from the kinks of the stage it enters."""
    least = np.inf
    for l, stage in enumerate(network.stages):
        x = network.entering(l, states)
        if isinstance(stage, L.LeakyReLU):
            least = min(least, np.min(np.abs(x)))
        if isinstance(stage, L.MaxPool):
            z = L.pooling.patches(x, stage.windows)
            z = np.sort(z.reshape(*z.shape[:2], -1, *z.shape[4:]), axis=2)
            if z.shape[2] > 1:
                gap = z[:, :, -1] - z[:, :, -2]
                off = z[:, :, -1] == 0  # a window that ReLU has emptied: it stays 0, see the margins of ReLU
                least = min(least, np.min(np.where(off, np.inf, gap)))
    return float(least)


@given(networks(smooth=False), seeds)
def test_networks_with_kinks_off_their_kinks(network: Network, seed: int) -> None:
    u, x, p = setting(network, seed)
    states = network.forward_sweep(u, x)
    _, g = network.backward_sweep(u, states, p)
    h = 1e-7
    v = map_controls(lambda a: np.random.default_rng(seed).standard_normal(a.shape), u)
    speed = max(np.max(np.abs(dx)) for dx in tangents(network, u, states, v))
    if margins(network, states) <= 10 * h * max(1.0, speed):
        return  # a kink is near: the difference quotient may be of either side
    plus, minus = (pairing(network, add(u, scaled(s * h, v)), x, p) for s in (1, -1))
    scale = np.linalg.norm(to_vector(g)) * np.linalg.norm(to_vector(v))
    # h² times a third derivative, and roundings of ⟨p, x_L⟩ over h
    assert abs((plus - minus) / (2 * h) - float(inner(g, v))) <= 1e-6 * (1 + scale)


def tangents(network: Network, u: Any, states: list[Any], v: Any) -> list[Any]:
    out = [np.zeros_like(states[0])]
    for l, stage in enumerate(network.stages):
        out.append(stage.tangent(network.entering(l, states), u[l], network.entering(l, out), v[l]))
    return out


def test_most_networks_with_kinks_are_checked() -> None:
    """The guard above lets nearly all draws through."""
    network = Network((L.Convolution(2, 2), L.ReLU(), L.MaxPool(2, 1), L.Flatten(), L.Dense(3)), (1, 4, 5))
    kept = sum(
        margins(network, network.forward_sweep(u, x)) > 1e-4 for u, x, _ in (setting(network, s) for s in range(20))
    )
    assert kept >= 18


@given(networks(), seeds, st.sampled_from([(1.0, 0.0, 0.0), (0.5, 0.25, 2.0)]))
def test_hamiltonian_increments_are_exact(network: Network, seed: int, a: tuple[float, float, float]) -> None:
    """T2: ΔH from ⟨g, w − u⟩ equals H(w) − H(u) with the stage applied to w, for every stage and w."""
    u, x, p = setting(network, seed)
    problem = Problem(network, regulariser=Polynomial(*a), rho=0.1)
    states = network.forward_sweep(u, x)
    costates, g = network.backward_sweep(u, states, p)
    generator = np.random.default_rng(seed)
    w = map_controls(lambda b: np.where(generator.random(b.shape) < 0.3, 0.0, generator.standard_normal(b.shape)), u)
    dh = increments(problem, g, u, w, 0.1)
    for l in network.layers():
        at = (problem, l, network.entering(l, states), costates[l + 1])
        left, right = hamiltonian(*at, w[l], 0.1), hamiltonian(*at, u[l], 0.1)
        entering = network.entering(l, states)  # a stage with controls reads one state
        scale = sum(np.sum(np.abs(s)) * np.max(np.abs(s)) + 1 for s in (entering, states[l + 1], costates[l + 1]))
        assert abs(float(left - right) - float(sum(dh[l]))) <= 1e-13 * scale


def test_shapes_names_and_layers() -> None:
    network = Network((L.Convolution(2, (1, 2)), L.Tanh(), L.Flatten(), L.Dense(3, bias=False)), (1, 2, 4))
    assert network.shapes == ((1, 2, 4), (2, 2, 3), (2, 2, 3), (12,), (3,))
    assert network.control_shapes == (((2, 1, 1, 2), (2,)), (), (), ((3, 12),))
    assert network.names() == (("kernel", "bias"), (), (), ("kernel",))
    assert network.layers() == (0, 3) and network.output_shape == (3,) and network.analytic
    assert not Network((L.ReLU(),), (2,)).analytic
    assert not Network([L.residual(L.ReLU())], (2,)).analytic


def kernel_entries(network: Network) -> int:
    return sum(int(np.prod(shapes[0])) for shapes in network.control_shapes if shapes)


@pytest.mark.parametrize(("make", "weights"), [(A.lenet5, 61_470), (A.lenet5_caffe, 430_500)])
def test_lenets_have_the_published_number_of_weights(make: Any, weights: int) -> None:
    assert kernel_entries(make()) == weights and make().output_shape == (10,)


def test_architectures_take_other_inputs_activations_and_pools() -> None:
    assert A.lenet5().analytic and not A.lenet5(activation_name="relu").analytic
    assert not A.lenet5(pool="max").analytic
    assert A.lenet5((3, 32, 32), 7).output_shape == (7,)
    small = A.residual_net((3, 8, 6), 4, "silu", width=4, blocks=(2, 1), groups=2)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6))
    states = small.forward_sweep(initial_controls(small, 0, x), x)
    assert states[-1].shape == (2, 4) and small.analytic
    residual = {"residual", "resnet8", "resnet14", "resnet20", "resnet32"}
    assert set(A.ARCHITECTURES) == {"lenet5", "lenet5-caffe"} | residual
    assert kernel_entries(A.resnet20()) == 271_248 and A.resnet20() == A.ARCHITECTURES["resnet20"]()
    assert len(A.resnet(depth=14).layers()) < len(A.resnet20().layers()) < len(A.resnet(depth=32).layers())
    for depth in (2, 3, 19):
        with pytest.raises(InputError, match=f"depth {depth}; expected 6n"):
            A.resnet(depth=depth)
    assert A.residual_net().output_shape == (10,)


def test_initial_controls(backend: Backend) -> None:
    network = A.lenet5(activation_name="relu")
    example = backend.asarray(np.zeros((1, 1, 28, 28), np.float32))
    u = initial_controls(network, 3, example)
    network.check_controls(u, example)
    again = initial_controls(network, 3, np.zeros(1))
    for l, stage in enumerate(network.stages):
        for name, a, b in zip(stage.control_names, u[l], again[l], strict=True):
            a = backend.to_numpy(a)
            np.testing.assert_array_equal(a, b.astype(np.float32))
            if name == "bias":
                assert not a.any()
            else:
                gain = 1.0 if l == 11 else 2.0  # the last dense stage has no activation behind it
                bound = np.sqrt(3 * gain / np.prod(a.shape[1:]))
                assert 0.8 * bound < np.max(np.abs(a)) <= bound
    assert not np.array_equal(initial_controls(network, 4, np.zeros(1))[0][0], again[0][0])
    behind = Network(
        (L.Dense(50, bias=False), L.ScaleShift(), L.ReLU()), (40,)
    )  # a stage between kernel and activation
    assert 0.8 * np.sqrt(6 / 40) < np.max(np.abs(initial_controls(behind, 0, np.zeros(1))[0][0])) <= np.sqrt(6 / 40)
    ((ones, zeros_),) = initial_controls(Network((L.ScaleShift(),), (3,)), 0, np.zeros(1))
    assert np.all(ones == 1) and not zeros_.any()


def test_the_gain_is_that_of_the_activation_that_reads_the_kernel() -> None:
    stages = (L.Dense(90), L.ReLU(), L.Tanh(), L.WeightedSum())
    network = Network(stages, (90,), [[0], [0], [1], [2, 3]])  # ReLU reads the images
    kernel = initial_controls(network, 0, np.zeros(1))[0][0]
    assert np.max(np.abs(kernel)) <= np.sqrt(3 / 90)


@given(networks(), seeds)
def test_controls_as_vectors(network: Network, seed: int) -> None:
    u, _, _ = setting(network, seed)
    vector = to_vector(u)
    assert vector.size == sum(a.size for a in arrays_of(u)) and vector.dtype == np.float64
    for a, b in zip(arrays_of(from_vector(vector, u)), arrays_of(u), strict=True):
        np.testing.assert_array_equal(a, b)
    v = map_controls(lambda a: a + 1, u)
    np.testing.assert_array_equal(to_vector(subtract(u, v)), vector - to_vector(v))
    np.testing.assert_array_equal(to_vector(add(u, v)), vector + to_vector(v))
    np.testing.assert_allclose(float(inner(u, v)), vector @ to_vector(v), rtol=1e-12, atol=1e-12)
    assert all(a.dtype == np.float32 for a in arrays_of(cast(u, "float32")))
    with pytest.raises(InputError, match="controls with"):
        from_vector(np.append(vector, 0.0), u)


def test_inner_products_are_summed_in_float64() -> None:
    a = ((np.array([1e4, 1.0], np.float32),),)
    b = ((np.array([1e4, 1e-3], np.float32),),)
    assert float(inner(a, b)) == 1e8 + float(np.float32(1e-3))
    assert float(total(((1.0, 2.0), (), (3.0,)))) == 6.0


@given(seeds)
def test_backends_make_the_same_sweeps(backend: Backend, seed: int) -> None:
    network = Network(
        (
            L.Convolution(2, 2),
            L.Tanh(),
            L.residual(L.Convolution(2, 3, padding=1), L.ReLU()),
            L.MaxPool(2),
            L.Flatten(),
            L.Dense(3),
        ),
        (1, 5, 4),
    )
    u, x, p = setting(network, seed)
    _, g = network.backward_sweep(u, network.forward_sweep(u, x), p)
    ub, xb, pb = map_controls(backend.asarray, u), backend.asarray(x), backend.asarray(p)
    _, gb = network.backward_sweep(ub, network.forward_sweep(ub, xb), pb)
    for a, b in zip(arrays_of(g), arrays_of(gb), strict=True):
        assert b.device == backend.device
        np.testing.assert_allclose(backend.to_numpy(b), a, rtol=0, atol=1e-13 * (1 + np.max(np.abs(a))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Network((L.Flatten(), L.Tanh(), L.Convolution(2, 3)), (1, 4, 4)), ["stage 2", "Convolution", "(16,)"]),
        (lambda: Network((L.Dense(2),), (1, 4, 4)), ["stage 0", "Dense", "(1, 4, 4)", "Flatten"]),
        (lambda: Network((L.Convolution(2, 5),), (1, 4, 7)), ["stage 0", "(1, 4, 7)", "5 pixels"]),
        (lambda: Network([L.residual(L.Dense(3))], (2,)), ["stage 1", "Sum", "((2,), (3,))", "projection"]),
        (lambda: Network((L.Tanh(), L.WeightedSum()), (2,)), ["stage 1", "reads the states (1,)", "expected 2"]),
        (lambda: Network((L.Tanh(), L.Tanh()), (2,), [[0], [0]]), ["nobody reads state 1"]),
        (lambda: Network((L.Tanh(), L.Tanh()), (2,), [[1], [0]]), ["stage 0", "(1,)", "states 0 to 0"]),
        (lambda: Network((L.Tanh(), L.Tanh()), (2,), [[0], [-1]]), ["stage 1", "(-1,)", "states 0 to 1"]),
        (lambda: Network((L.Tanh(), L.Tanh()), (2,), [[0]]), ["1 entries", "2 stages"]),
        (lambda: Network((L.Tanh(), L.Tanh()), (2,), [[0], [0, 1]]), ["stage 1", "(0, 1)", "expected 1"]),
        (lambda: Network((L.residual(L.Tanh()),), (2,), [[0]]), ["stage 0", "Block", "Stage"]),
        (lambda: Network((L.Tanh,), (2,)), ["stage 0", "Stage"]),  # type: ignore[arg-type]
        (lambda: A.lenet5(activation_name="tanhh"), ["'tanhh'", "'tanh'"]),
        (lambda: A.lenet5(pool="avarage"), ["'avarage'", "'average'"]),
        (lambda: A.lenet5((1, 8, 8)), ["stage 3", "(6, 4, 4)", "5 pixels"]),
        (lambda: A.residual_net(width=6), ["width 6", "groups 4"]),
        (lambda: A.residual_net(blocks=()), ["blocks ()"]),
    ],
)
def test_shapes_that_do_not_chain(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


SMALL = Network((L.Flatten(), L.Dense(2)), (1, 2, 3))
U = ((), (np.zeros((2, 6)), np.zeros(2)))
X = np.zeros((4, 1, 2, 3))


@pytest.mark.parametrize(
    ("u", "words"),
    [
        ((U[1],), ["1 stages", "has 2"]),
        (((), (U[1][0],)), ["stage 1", "1 arrays", "has 2"]),
        (((), (np.zeros((6, 2)), U[1][1])), ["kernel of stage 1", "(6, 2)", "(2, 6)"]),
        (((), (U[1][0].astype(np.float32), U[1][1])), ["kernel of stage 1", "float64", "float32"]),
        (((), ([[0.0] * 6] * 2, U[1][1])), ["kernel of stage 1", "builtins.list"]),
        (((), (U[1][0], np.float64(0.0))), ["bias of stage 1", "numpy.float64"]),
    ],
)
def test_controls_that_do_not_fit(u: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        SMALL.check_controls(u, X)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    SMALL.check_controls(U, X)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([[1.0]], ["builtins.list", "expected an array"]),
        (np.zeros((4, 2, 3)), ["(4, 2, 3)", "(1, 2, 3)"]),
        (np.zeros((0, 1, 2, 3)), ["empty"]),
        (np.zeros((4, 1, 2, 3), np.uint8), ["uint8", "convert"]),
        (np.zeros((4, 1, 2, 3), complex), ["complex128", "convert"]),
        (np.zeros(()), ["()", "(1, 2, 3)"]),
    ],
)
def test_images_that_do_not_fit(x: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        SMALL.check_images(x)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    SMALL.check_images(X)
