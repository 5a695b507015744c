"""The fast sweep agrees with the clear one, on drawn stages and whole networks, and holds its promises."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from threadpoolctl import threadpool_info, threadpool_limits

from pmp_ref.architectures import lenet5, lenet5_caffe, residual_net
from pmp_ref.augmentation import CurvatureRule
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep, activation, blas, convolution, dense, filtering, make_sweep, plan, sweep, workers
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import (
    ACTIVATIONS,
    AveragePool,
    ControlFreeStage,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    LinearStage,
    MaxPool,
    ReLU,
    ScaleShift,
    Sigmoid,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
    residual,
)
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep
from tests.strategies import skips_over_skips

DTYPES = (np.float32, np.float64)


def tolerance(dtype: Any, terms: int = 1) -> float:
    """Allowed difference, relative to the largest magnitude compared: 64 roundings of the dtype, and the square root
    of the number of terms added in another order, for both paths round each of them."""
    return 64 * float(np.finfo(dtype).eps) * max(1.0, terms**0.5 / 8)


def close(a: Any, b: Any, bound: float) -> None:
    """Assert that two nestings of arrays differ by at most ``bound`` times the largest entry of all of the second.

    Of all: a switching function may vanish but for rounding, that of a bias before standardisation does.
    """
    assert tuple(map(len, a)) == tuple(map(len, b))
    size = max(float(np.max(np.abs(y))) for y in arrays_of(b))
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=bound * size)


def equal(a: Any, b: Any) -> None:
    """Assert that two nestings of arrays agree bit for bit."""
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def random_controls(network: Network, rng: np.random.Generator, dtype: Any) -> Any:
    """Initial controls with every entry moved, biases and scales too; read-only."""
    u = initial_controls(network, 1, np.zeros(1, dtype))
    return map_controls(lambda a: frozen((a + 0.2 * rng.standard_normal(a.shape)).astype(dtype)), u)


def frozen(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def batch(network: Network, n: int, dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """Read-only images, targets that fit the network, controls, and the loss."""
    rng = np.random.default_rng(seed)
    x = frozen(rng.standard_normal((n, *network.input_shape)).astype(dtype))
    u = random_controls(network, rng, dtype)
    if len(network.output_shape) == 1 and network.output_shape[0] > 1:
        return x, frozen(rng.integers(0, network.output_shape[0], n)), u, CrossEntropy()
    return x, frozen(rng.standard_normal((n, *network.output_shape)).astype(dtype)), u, SquaredLoss()


def both(network: Network, n: int, dtype: Any, seed: int = 0, **options: Any) -> tuple[Evaluation, Evaluation]:
    """Evaluations of the fast and of the clear sweep."""
    x, y, u, loss = batch(network, n, dtype, seed)
    fast, clear = FastSweep(network, loss, **options), Sweep(network, loss)
    return fast.backward(u, fast.forward(u, x, y)), clear.backward(u, clear.forward(u, x, y))


def agree(fast: Evaluation, clear: Evaluation, terms: int = 1) -> None:
    """Assert that two evaluations agree in all they found."""
    bound = tolerance(clear.losses.dtype, terms)
    close(((fast.losses,),), ((clear.losses,),), bound)
    close(((fast.largest,),), ((clear.largest,),), bound)
    close(fast.switching, clear.switching, bound)


# -- drawn stages --------------------------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Convolution, tuple[int, ...]]:
    """A convolution and an image shape that it takes."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    size = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    dilation = (draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2, 3])))
    least = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, size, padding, strict=True)]
    shape = (groups * draw(st.integers(1, 3)), *(max(1, n) + draw(st.integers(0, 9)) for n in least))
    stage = Convolution(groups * draw(st.integers(1, 4)), size, stride, padding, dilation, groups, draw(st.booleans()))
    return stage, shape


@st.composite
def poolings(draw: st.DrawFn) -> tuple[Stage, tuple[int, ...]]:
    """A pooling stage and an image shape that it takes."""
    size = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = draw(st.sampled_from([None, (draw(st.integers(1, 4)), draw(st.integers(1, 4)))]))
    padding = (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2)))
    shape = (draw(st.integers(1, 3)), size[0] + draw(st.integers(0, 7)), size[1] + draw(st.integers(0, 7)))
    kind = draw(st.sampled_from([AveragePool, partial(AveragePool, count_include_pad=False), MaxPool]))
    return kind(size, stride, padding), shape


def around(
    stage: Stage, shape: tuple[int, ...], before: tuple[Stage, ...] = (), after: tuple[Stage, ...] = ()
) -> Network:
    """The stage between a scale-and-shift and a dense stage, so that all its maps are used."""
    probe = Network((ScaleShift(), *before, stage, *after), shape)
    flat = (Flatten(),) if len(probe.output_shape) == 3 else ()
    return Network((ScaleShift(), *before, stage, *after, *flat, Dense(3)), shape)


@given(convolutions(), st.integers(1, 5), st.sampled_from(DTYPES), st.booleans(), st.sampled_from([1, 50, 10**6]))
@example((Convolution(4, 3, padding=1), (4, 6, 6)), 3, np.float64, True, 1)
@example((Convolution(4, (2, 1), stride=(3, 2)), (2, 9, 5)), 2, np.float64, False, 10**6)  # rows are left out
@example((Convolution(2, 1), (3, 4, 4)), 2, np.float32, True, 10**6)  # no unfolding at all
@example((Convolution(2, 1, stride=2), (3, 5, 4)), 2, np.float32, False, 10**6)
@example((Convolution(2, 3, padding=4), (1, 1, 1)), 2, np.float64, True, 10**6)  # windows that see padding only
def test_convolutions_agree(
    drawn: tuple[Convolution, tuple[int, ...]], n: int, dtype: Any, short: bool, piece: int
) -> None:
    """Whole images and short strips of rows, products of whole rows and of pieces of them."""
    stage, shape = drawn
    strip = 1 if short else convolution.STRIP
    with mock.patch.multiple(convolution, STRIP=strip, PIECE=piece):
        agree(*both(around(stage, shape), n, dtype, chunk=2, threads=1))


@given(poolings(), st.sampled_from([None, *ACTIVATIONS.values()]), st.integers(1, 5), st.sampled_from(DTYPES))
def test_pooling_agrees(drawn: tuple[Stage, tuple[int, ...]], act: Any, n: int, dtype: Any) -> None:
    stage, shape = drawn
    before = () if act is None else (act(),)
    agree(*both(around(stage, shape, before), n, dtype, chunk=2, threads=1))


@given(
    st.sampled_from(
        [
            *(a() for a in ACTIVATIONS.values()),
            LeakyReLU(1.5),
            LeakyReLU(-0.5),
            LeakyReLU(0.3),
            Standardise(),
            Standardise(2, 1e-2),
            ScaleShift(bias=False),
            ScaleShift(),
        ]
    ),
    st.sampled_from([(4,), (2, 3), (4, 3, 5), (2, 2, 3, 2)]),
    st.booleans(),
    st.integers(1, 5),
    st.sampled_from(DTYPES),
)
def test_entrywise_stages_agree(stage: Stage, shape: tuple[int, ...], after: bool, n: int, dtype: Any) -> None:
    stages = (ScaleShift(), *((Standardise(), ScaleShift()) if after else ()), stage, Tanh(), Flatten(), Dense(3))
    agree(*both(Network(stages, shape), n, dtype, chunk=2, threads=1))


class Reversed(ControlFreeStage):
    """A user's stage: channels in reverse order."""

    def output_shape(self, shape: Any) -> Any:
        return shape

    def forward(self, x: Any, u: Any) -> Any:
        return x[:, ::-1]

    def costate(self, x: Any, u: Any, p: Any) -> Any:
        return p[:, ::-1]

    def tangent(self, x: Any, u: Any, dx: Any, v: Any) -> Any:
        return dx[:, ::-1]

    def tangent_costate(self, x: Any, u: Any, p: Any, dx: Any, v: Any, dp: Any) -> Any:
        return dp[:, ::-1]


class Unchanged(Reversed):
    """A user's stage that returns what it is given."""

    def forward(self, x: Any, u: Any) -> Any:
        return x

    def costate(self, x: Any, u: Any, p: Any) -> Any:
        return p


class Difference(LinearStage):
    """A user's stage of two states."""

    arity = 2

    def output_shape(self, shape: Any) -> Any:
        return shape[0]

    def forward(self, x: Any, u: Any) -> Any:
        return x[0] - x[1]

    def adjoint(self, x: Any, p: Any) -> Any:
        return p, -p


class Doubled(Tanh):
    """A user's activation with maps of its own."""

    def forward(self, x: Any, u: Any) -> Any:
        return 2 * x

    def costate(self, x: Any, u: Any, p: Any) -> Any:
        return 2 * p


NETWORKS = {
    "lenet5": lenet5(),
    "lenet5 with ReLU and maxima": lenet5(activation_name="relu", pool="max"),
    "lenet5-caffe": lenet5_caffe((1, 20, 20)),
    "residual": residual_net((3, 12, 12), width=8),
    "residual, step 1/2, SiLU": residual_net((2, 9, 11), width=4, activation_name="silu", step=0.5, blocks=(1, 2)),
    "residual, ReLU": residual_net((3, 8, 8), width=4, activation_name="relu"),
    "pooling inside a block": Network(
        (
            Convolution(3, 3),
            Tanh(),
            residual(Tanh(), AveragePool(2), projection=MaxPool(2)),
            ReLU(),
            MaxPool(2),
            residual(ReLU(), MaxPool(1), Sigmoid(), AveragePool(1)),
            Flatten(),
            Dense(3),
        ),
        (2, 10, 10),
    ),
    "two activations of one state": Network(
        (Convolution(3, 3), Tanh(), Sigmoid(), WeightedSum((1.0, 0.7)), Tanh(), Flatten(), Dense(2)),
        (1, 5, 5),
        [[0], [1], [1], [3, 2], [4], [5], [6]],
    ),
    "two sums hand the same costate to states that others read too": Network(
        (Convolution(3, 3), Tanh(), Sigmoid(), WeightedSum(), WeightedSum(), Flatten(), Dense(2)),
        (1, 5, 5),
        [[0], [1], [1], [1, 2], [4, 3], [5], [6]],
    ),
    "two poolings of one activation": Network(
        (Convolution(3, 3), ReLU(), AveragePool(2), MaxPool(2), WeightedSum((-0.5, 1.0)), ReLU(), Flatten(), Dense(2)),
        (2, 7, 6),
        [[0], [1], [2], [2], [3, 4], [5], [6], [7]],
    ),
    "skips over skips": Network(
        (Convolution(3, 3), skips_over_skips(3, Tanh(), 0.6), Sigmoid(), AveragePool(2), Flatten(), Dense(3)), (1, 7, 8)
    ),
    "an activation of the images, and the images": Network(
        (Tanh(), WeightedSum((1.0, 2.0)), Convolution(2, 3), WeightedSum((3.0, 1.0)), Flatten(), Dense(2)),
        (2, 5, 4),
        [[0], [0, 1], [2], [3, 3], [4], [5]],
    ),
    "a sum of a user's": Network(
        (Dense(5), Tanh(), Difference(), ScaleShift(), Dense(3)), (4,), [[0], [1], [2, 1], [3], [4]]
    ),
    "nested blocks": Network(
        (
            Convolution(4, 3),
            Tanh(),
            residual(Convolution(4, 1), residual(Tanh(), Convolution(4, 1)), Tanh(), step=0.5),
            Flatten(),
            Dense(3),
        ),
        (1, 6, 6),
    ),
    "user's stages": Network(
        (
            Convolution(4, 3),
            Reversed(),
            Tanh(),
            Unchanged(),
            Sigmoid(),
            Doubled(),
            AveragePool(2),
            Unchanged(),
            Tanh(),
            Flatten(),
            Dense(6),
            Unchanged(),
            Tanh(),
            Dense(3),
        ),
        (1, 8, 8),
    ),
    "vectors": Network((Dense(7), Tanh(), Dense(5, bias=False), Sigmoid(), ScaleShift(), Dense(3)), (6,)),
    "flatten a vector after an activation": Network((Dense(7), Tanh(), Flatten(), ReLU(), Dense(3)), (6,)),
    "free stages first": Network((Tanh(), AveragePool(2), Flatten(), Dense(3)), (2, 6, 6)),
    "images to the end": Network((Convolution(2, 3), Tanh(), Convolution(1, 2)), (1, 6, 7)),
    "a mean over all pixels": Network((Convolution(4, 3, stride=2), GlobalAveragePool(), Dense(3)), (2, 9, 9)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree(name: str, dtype: Any) -> None:
    # 1000: a switching function sums over pixels and samples, up to a thousand terms that matter
    agree(*both(NETWORKS[name], 21, dtype, chunk=8, threads=2), terms=1000)


def test_every_stage_of_the_library_has_a_fast_map() -> None:
    for network in (lenet5(), lenet5_caffe(), residual_net(), lenet5(activation_name="relu", pool="max")):
        assert not [m for m in FastSweep(network, CrossEntropy()).plan.maps if isinstance(m, plan.ClearMap)]


def parts(a: Any) -> list[np.ndarray]:
    """The states that a stage reads."""
    return list(a) if isinstance(a, tuple) else [a]


def shared(y: Any, arrays: list[np.ndarray]) -> bool:
    return any(np.shares_memory(a, b) for a in parts(y) for b in arrays)


def test_maps_write_into_x_and_p_only_where_their_contract_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What :class:`StageMap` promises, and each of its three exceptions, met somewhere."""
    written = set()

    def watched(m: Any, kind: str, f: Any) -> Any:
        """``f`` with a note of what it has written into."""

        def g(w: Any, u: Any, x: Any, y: Any = None, p: Any = None, costate: bool = True) -> Any:
            watch = {"x": parts(x), "p": [] if p is None else parts(p)}
            before = {name: [a.copy() for a in arrays] for name, arrays in watch.items()}
            is_y = {name: kind == "backward" and shared(y, arrays) for name, arrays in watch.items()}
            result = f(w, u, x) if kind == "forward" else f(w, u, x, y, p, costate)
            for name, arrays in watch.items():
                if all(np.array_equal(a, b) for a, b in zip(arrays, before[name], strict=True)):
                    continue
                if is_y[name]:
                    assert name == "p" or (isinstance(m, activation.OutputMap) and m.overwrite)
                    written.add(f"{name}, which is y")
                elif kind == "forward":
                    assert isinstance(m, activation.OutputMap) and m.overwrite and not m.deferred
                    written.add("x, by an activation")
                else:
                    assert isinstance(m, plan.AveragePoolMap) and m.before is not None and m.before.fused and costate
                    written.add("x, by a mean")
            return result

        return g

    scaled_before = Network((Standardise(), ScaleShift(), Tanh(), AveragePool(2), Flatten(), Dense(3)), (2, 6, 6))
    for network in (*NETWORKS.values(), scaled_before):
        x, y, u, loss = batch(network, 5, np.float64)
        fast = FastSweep(network, loss, threads=1)
        for m in fast.plan.maps:
            monkeypatch.setattr(m, "forward", watched(m, "forward", m.forward))
            monkeypatch.setattr(m, "backward", watched(m, "backward", m.backward))
        fast.backward(u, fast.forward(u, x, y))
    assert written == {"x, by an activation", "x, by a mean", "x, which is y", "p, which is y"}


# -- faults: each of these kernels, broken, must be caught by the comparisons above ----------


def scaled(f: Any, factor: float = 1.01) -> Any:
    def wrong(*args: Any, **named: Any) -> Any:
        result = f(*args, **named)
        return tuple(a if a is None else factor * a for a in result) if isinstance(result, tuple) else factor * result

    return wrong


def one_too_far(f: Any) -> Any:
    """A window geometry that is off by one."""
    return lambda count, length, stride, offset: f(count, length, stride, max(offset - 1, -length))


FAULTS = {
    "unfolding": (convolution.ConvolutionMap, "unfolded", scaled),
    "borders": (convolution, "meeting", one_too_far),
    "costate of a convolution": (convolution.ConvolutionMap, "costate", scaled),
    "switching function of a convolution": (convolution.ConvolutionMap, "switching", scaled),
    "bias": (convolution, "sum_rows", scaled),
    "transformed columns": (filtering.FilteredMap, "transformed", scaled),
    "filters": (filtering, "matrices", scaled),
    "switching function by filters": (filtering.FilteredMap, "inner", scaled),
    "bias of a filtered convolution": (filtering, "sum_rows", scaled),
    "dense stage": (dense.DenseMap, "forward", scaled),
    "slope": (activation.TanhMap, "slope", scaled),
    "mean pooling": (plan.AveragePoolMap, "prepare", scaled),
    "terminal costate": (sweep, "terminal", scaled),
    "reduction": (sweep.Parts, "plus", lambda f: lambda parts, a, b: b),  # only the last chunk counts
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_kernel_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, wrong = FAULTS[name]
    monkeypatch.setattr(where, attribute, wrong(getattr(where, attribute)))
    with pytest.raises((AssertionError, ValueError)):
        for network in ("lenet5", "residual"):  # the first has means and no costate of an unfolded convolution
            agree(*both(NETWORKS[network], 21, np.float32, chunk=8), terms=1000)


def test_broken_maxima_standardisation_and_sums_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    for where, name in (
        (plan.MaxPoolMap, "lenet5-caffe"),
        (plan.StandardiseMap, "residual"),
        (plan.WeightedSumMap, "residual"),
    ):
        agree(*both(NETWORKS[name], 9, np.float32), terms=1000)
        for attribute in ("forward", "backward"):
            right = getattr(where, attribute)

            def wrong(self: Any, *args: Any, right: Any = right, attribute: str = attribute) -> Any:
                result = right(self, *args)
                if attribute == "forward":
                    return 1.01 * result
                p = result[1]
                return result[0], (1.01 * p[0], p[1]) if isinstance(p, tuple) else 1.01 * p

            with monkeypatch.context() as patch:
                patch.setattr(where, attribute, wrong)
                with pytest.raises(AssertionError):
                    agree(*both(NETWORKS[name], 9, np.float32), terms=1000)


# -- maps over chunks ----------


def evaluation(options: dict[str, Any], n: int = 150, dtype: Any = np.float32, name: str = "lenet5") -> Evaluation:
    network = NETWORKS[name]
    x, y, u, loss = batch(network, n, dtype)
    fast = FastSweep(network, loss, **options)
    return fast.backward(u, fast.forward(u, x, y))


def same(a: Evaluation, b: Evaluation) -> None:
    """Assert that two evaluations agree bit for bit."""
    equal(((a.losses, a.largest), *a.switching), ((b.losses, b.largest), *b.switching))


@pytest.mark.parametrize("name", ["lenet5", "residual"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(name: str, dtype: Any) -> None:
    one = evaluation({"threads": 1}, dtype=dtype, name=name)
    for threads in (2, 3, 7, 2):
        same(evaluation({"threads": threads}, dtype=dtype, name=name), one)


def test_results_do_not_depend_on_what_is_kept() -> None:
    kept, again, along = (evaluation(o) for o in ({}, {"memory": 0, "costates": False}, {"memory": 0}))
    same(again, kept)
    same(along, kept)
    counts = [(e.forward_sweeps, e.backward_sweeps) for e in (kept, again, along)]
    assert counts == [(1, 1), (2, 1), (1, 1)]


def test_both_sweeps_at_once_find_the_same() -> None:
    network = NETWORKS["residual"]
    x, y, u, loss = batch(network, 150, np.float32)
    for path in (FastSweep(network, loss), Sweep(network, loss)):
        at_once, in_turn = path.forward_backward(u, x, y), path.backward(u, path.forward(u, x, y))
        same(at_once, in_turn)
        assert (at_once.forward_sweeps, at_once.backward_sweeps) == (1, 1)
    with pytest.raises(AssertionError):  # another batch is another evaluation
        same(at_once, path.forward_backward(u, x, (y + 1) % 10))


def test_chunk_sizes_agree_to_rounding() -> None:
    for dtype in DTYPES:
        reference = evaluation({"chunk": 150}, dtype=dtype)
        for chunk in (1, 7, 32, 64, 1000):
            agree(evaluation({"chunk": chunk}, dtype=dtype), reference, terms=1000)


def test_chunk_size_depends_on_the_batch_alone() -> None:
    x = np.zeros((150, 1, 28, 28), np.float32)
    cuts = [list(FastSweep(lenet5(), CrossEntropy(), threads=t).chunks(x)) for t in (1, 2, 5)]
    assert cuts[0] == cuts[1] == cuts[2]
    assert [c.start for c in cuts[0]][1:] + [150] == [c.stop for c in cuts[0]]


@pytest.mark.parametrize(
    ("batch", "backward", "cores", "due"), [(64, False, 8, 1), (128, True, 8, 3), (5000, True, 8, 8)]
)
def test_as_many_threads_are_woken_as_have_work(
    batch: int, backward: bool, cores: int, due: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LeNet-5 multiplies 416,520 times for an image."""
    monkeypatch.setattr("pmp_ref.kernels.sweep.available_cores", lambda: cores)
    sweep = FastSweep(lenet5(), CrossEntropy())
    assert sweep.work == 416_520 and sweep.paying(batch, backward) == due


def test_an_exception_in_a_worker_reaches_the_caller_and_ends_the_threads() -> None:
    def fail(item: int) -> int:
        if item == 5:
            raise KeyError("item 5")
        return item

    before = threading.active_count()
    for count in (1, 2, 4):
        with pytest.raises(KeyError, match="item 5"):
            list(workers.Threads(count)(fail, range(20)))
        assert threading.active_count() == before
        assert list(workers.Threads(count)(fail, range(5))) == [0, 1, 2, 3, 4]
    results = workers.Threads(2)(fail, range(5))
    assert next(results) == 0
    results.close()  # a caller that stops listening leaves no thread behind
    assert threading.active_count() == before


def test_threads_keep_floating_point_warnings_silent() -> None:
    network = Network((Dense(50), Dense(3)), (10,))
    x, y, u, loss = batch(network, 200, np.float32)
    u = map_controls(lambda a: a * np.float32(1e30), u)
    fast = FastSweep(network, loss, chunk=10, threads=2)
    e = fast.backward(u, fast.forward(u, x, y))  # a warning would be an error here
    assert not np.all(np.isfinite(e.losses))


# -- BLAS threads ----------


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@contextmanager
def two_blas_threads() -> Iterator[list[int]]:
    with threadpool_limits(2, user_api="blas"):
        found = blas_threads()
        if found != [2] * len(found) or not found:
            pytest.skip("the BLAS library of NumPy has no threads that could be limited")
        yield found


def test_blas_has_one_thread_during_a_sweep_and_its_own_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network((Dense(4), Tanh(), Dense(3)), (5,))
    x, y, u, loss = batch(network, 64, np.float64)
    seen: list[list[int]] = []

    def spy(*args: Any) -> Any:
        seen.append(blas_threads())
        return terminal(*args)

    terminal = sweep.terminal
    monkeypatch.setattr(sweep, "terminal", spy)
    with two_blas_threads() as outside:
        FastSweep(network, loss).forward(u, x, y)
        assert set(map(tuple, seen)) == {(1,) * len(outside)}
        assert blas_threads() == outside


def test_blas_threads_are_restored_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network((Dense(4), Tanh(), Dense(3)), (5,))
    x, y, u, loss = batch(network, 64, np.float64)

    def fail(*args: Any) -> Any:
        raise KeyError("no end")

    monkeypatch.setattr(sweep, "terminal", fail)
    with two_blas_threads() as outside:
        with pytest.raises(KeyError):
            FastSweep(network, loss).forward(u, x, y)
        assert blas_threads() == outside


def test_overlapping_sweeps_restore_blas_threads_when_the_last_one_ends() -> None:
    with two_blas_threads() as outside:
        first, second = blas.one_thread(), blas.one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == outside


def test_sweeps_may_run_in_several_threads_at_once() -> None:
    network = NETWORKS["lenet5"]
    x, y, u, loss = batch(network, 150, np.float32)
    fast = FastSweep(network, loss, threads=2)
    found: dict[int, Evaluation] = {}

    def run(i: int) -> None:
        for _ in range(3):
            found[i] = fast.backward(u, fast.forward(u, x, y))

    with two_blas_threads() as outside:
        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert blas_threads() == outside
    assert len(found) == 4
    for e in found.values():
        same(e, found[0])


# -- states, memory, arguments ----------


def test_a_second_backward_sweep_computes_the_states_again() -> None:
    network = NETWORKS["lenet5"]
    x, y, u, loss = batch(network, 40, np.float64)
    fast = FastSweep(network, loss)
    e = fast.forward(u, x, y)
    first, second = fast.backward(u, e), fast.backward(u, e)
    same(first, second)
    assert (first.forward_sweeps, second.forward_sweeps) == (1, 2)
    assert fast.backward(u, first) is first  # complete already


def test_copies_of_a_sweep_and_of_its_evaluation_work() -> None:
    network = NETWORKS["lenet5"]
    x, y, u, loss = batch(network, 40, np.float64)
    fast = FastSweep(network, loss)
    e = fast.forward(u, x, y)
    for copied in (copy.deepcopy((fast, e)), pickle.loads(pickle.dumps((fast, e)))):
        same(copied[0].backward(u, copied[1]), fast.backward(u, fast.forward(u, x, y)))


def test_workspaces_are_used_again() -> None:
    network = NETWORKS["lenet5"]
    x, y, u, loss = batch(network, 200, np.float32)
    fast = FastSweep(network, loss, threads=1, memory=0)  # with more threads it is chance how many chunks meet
    sizes = []
    for n in (64, 200, 200, 200):
        fast.backward(u, fast.forward(u, x[:n], y[:n]))
        sizes.append(fast.store.nbytes)
    assert sizes[1] == sizes[2] == sizes[3]
    both = FastSweep(network, loss, threads=2, memory=0)
    for _ in range(5):
        both.backward(u, both.forward(u, x, y))
        assert 0 < both.store.nbytes <= len(list(both.chunks(x))) * sizes[1]  # at most one for each chunk
    rejected = FastSweep(network, loss, threads=1)
    for _ in range(3):
        rejected.forward(u, x, y)  # kept states that nobody asks for
        sizes.append(rejected.store.nbytes)
    assert sizes[-1] == sizes[-2] == sizes[-3] > 0


def test_kept_states_stay_within_the_memory_given() -> None:
    network = NETWORKS["lenet5"]
    x, y, u, loss = batch(network, 256, np.float32)
    fast = FastSweep(network, loss)
    fast.forward(u, x, y)
    assert fast.store.nbytes <= 256 * fast.bytes_per_sample(x)
    assert FastSweep(network, loss, memory=256 * fast.bytes_per_sample(x)).forward(u, x, y).states is not None
    assert FastSweep(network, loss, memory=256 * fast.bytes_per_sample(x) - 1).forward(u, x, y).states is None


def test_other_arrays_take_the_clear_path() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    network = NETWORKS["vectors"]
    x, y, u, loss = batch(network, 10, np.float64)
    clear, fast = Sweep(network, loss), FastSweep(network, loss)
    z, v = x.astype(complex), map_controls(lambda a: a + 1e-30j, u)  # complex-step checks
    same(fast.backward(v, fast.forward(v, z, y)), clear.backward(v, clear.forward(v, z, y)))
    xs, ys, us = (
        strict.asarray(np.array(x)),
        strict.asarray(np.array(y)),
        map_controls(lambda a: strict.asarray(np.array(a)), u),
    )
    e = fast.backward(us, fast.forward(us, xs, ys))
    assert type(e.losses) is type(xs)
    equal(((np.asarray(e.losses),),), ((clear.forward(u, x, y).losses,),))
    # an evaluation of the clear sweep, states and all, can be completed by the fast one
    agree(fast.backward(u, clear.forward(u, x, y)), clear.backward(u, clear.forward(u, x, y)))


def test_make_sweep_chooses() -> None:
    network, loss = lenet5(), CrossEntropy()
    assert type(make_sweep(network, loss)) is FastSweep
    assert type(make_sweep(network, loss, example=np.zeros(1, np.float32))) is FastSweep
    assert type(make_sweep(network, loss, example=np.zeros(1, complex))) is Sweep
    assert type(make_sweep(network, loss, False)) is Sweep
    made = make_sweep(network, loss, True, threads=3, chunk=8, memory=5, costates=False, example=None)
    assert made == FastSweep(network, loss, 8, 5, 3, False)
    with pytest.raises(InputError, match="threads -1"):
        FastSweep(network, loss, threads=-1)


@pytest.mark.parametrize("batch_size", [None, 20])
def test_the_method_runs_alike_on_both_paths(batch_size: int | None) -> None:
    network = Network((Convolution(3, 3), Tanh(), AveragePool(2), Flatten(), Dense(4)), (1, 8, 8))
    x, y, u, loss = batch(network, 60, np.float64)
    runs = [
        bsqh(Problem(network, loss, rho=1e-3, sweep=s), u, x, y, stop=Stop(steps=6), batch_size=batch_size)
        for s in (Sweep(network, loss), FastSweep(network, loss), FastSweep(network, loss, memory=0))
    ]
    assert len(runs[0].records) >= 6
    for run in runs[1:]:
        assert [r.verdict for r in run.records] == [r.verdict for r in runs[0].records]
        # ε and the step size amplify the rounding of the first sweeps in the later ones
        close(run.controls, runs[0].controls, 1e-9)


def test_a_trial_that_takes_costates_along_counts_its_backward_sweep_even_if_rejected() -> None:
    network = Network((Dense(8), Tanh(), Dense(4)), (6,))
    x, y, u, loss = batch(network, 60, np.float64)
    fast = FastSweep(network, loss, memory=0, costates=True)
    run = bsqh(
        Problem(network, loss, sweep=fast, rho=0.0),
        u,
        x,
        y,
        stop=Stop(steps=5),
        method=Method(CurvatureRule(eps0=1e-6)),
    )
    assert any(r.verdict == "rejected" for r in run.records)
    last = run.records[-1]
    assert last.forward_sweeps == last.backward_sweeps == 1 + len(run.records)


def test_arrays_of_a_workspace_start_at_zero_and_stay() -> None:
    w = Workspace(3, np.dtype(np.float32))
    a = w.array("a", (2, 2))
    assert a.shape == (2, 2, 3) and a.dtype == np.float32 and not a.any()
    assert w.array("a", (2, 2)) is a
    room = w.scratch("room", (4,))
    assert np.shares_memory(w.scratch("room", (2, 1)), room)
