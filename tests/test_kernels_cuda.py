"""The hand-written CUDA kernels against the clear stages on NumPy; on a GPU, or on CUDA on the CPU.

Fresh memory is NaN there, so that an entry no kernel wrote would show.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pmp_ref import architectures as A
from pmp_ref import layers as L
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels.cuda import direct, products
from pmp_ref.kernels.cuda import tiles as tile_rule
from pmp_ref.kernels.cuda.convolution import CudaConvolution, CudaDense
from pmp_ref.kernels.cuda.products import APPLY, KERNEL, STATE, Affine
from pmp_ref.kernels.cuda.source import power_of_two
from pmp_ref.kernels.cuda.sweep import CudaSweep, Swept, cuda, cuda_network
from pmp_ref.kernels.cuda.terminal import LABELS, terminal
from pmp_ref.kernels.cuda.tiles import BLOCKS, SHARED, Tiles, tiles
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.sweep import Sweep
from tests.backends import load, probe

REASON = probe("cupy")
needs_cupy = pytest.mark.skipif(REASON is not None, reason=f"backend cupy: {REASON}")

# (stage, per-sample shape, batch). Rows ≠ columns in images, windows, strides, padding and dilation; pixels left over.
AFFINE = [
    (L.Convolution(6, (5, 4), padding=(2, 1)), (1, 11, 13), 3),
    (L.Convolution(16, (3, 5)), (6, 7, 9), 3),
    (L.Convolution(50, (2, 3), bias=False), (20, 4, 5), 2),
    (L.Convolution(20, (3, 2), stride=(2, 3), padding=(1, 0)), (6, 8, 9), 1),
    (L.Convolution(6, (3, 2), stride=(2, 3), padding=(1, 2), groups=3), (3, 8, 9), 3),
    (L.Convolution(4, (2, 3), stride=(1, 2), padding=(3, 2), dilation=(3, 2), groups=2), (6, 7, 8), 3),
    (L.Convolution(5, (1, 2), stride=(3, 1), padding=(0, 2), groups=5), (5, 5, 6), 3),  # one channel in each group
    (L.Convolution(8, 1, stride=(2, 1)), (3, 5, 4), 65),
    (L.Convolution(1, (5, 6)), (2, 5, 6), 3),
    (L.Convolution(2, 1, stride=(10, 3), padding=2), (1, 5, 7), 2),  # every window of rows lies in the padding
    (L.Convolution(2, (3, 3)), (70, 3, 4), 2),
    (L.Convolution(130, (1, 2)), (2, 2, 3), 2),  # more than one row of tiles
    (L.Convolution(3, (2, 2)), (40, 17, 16), 2),
    (L.Convolution(3, (5, 6)), (70, 6, 8), 2),  # the sum over 2100 taps is shared, a bias added for each channel
    (L.Convolution(2, (2, 1)), (1, 62, 61), 4),  # the sum over 14,884 positions is shared by 78 blocks
    (L.Dense(10), (84,), 3),
    (L.Dense(84), (33,), 65),
    (L.Dense(1, bias=False), (7,), 1),
    (L.Dense(70), (1,), 2),
    (L.Dense(5), (4,), 300),  # the sum over the batch is shared
    (L.Dense(3), (2100,), 2),  # the sum over the inputs is shared
    (L.Dense(1100), (3,), 1),
    (L.Dense(2060), (4,), 2),  # and the one over the neurons
    (L.ScaleShift(), (6, 5, 7), 3),
    (L.ScaleShift(bias=False), (3,), 65),
    (L.ScaleShift(), (2, 30, 31), 3),  # the sum is shared
]
CONVOLUTIONS = [case for case in AFFINE if isinstance(case[0], L.Convolution)] + [
    (L.Convolution(7, (3, 5), padding=(1, 2)), (3, 10, 12), 9),  # several samples in a block, samples left over
    (L.Convolution(16, (3, 5)), (6, 9, 8), 5),  # a thread's sums are added six channels at a time, then two
    (L.Convolution(5, (3, 2)), (2, 6, 5), 35),  # nine units are shared by five blocks
    (L.Convolution(2, (2, 3)), (1, 3, 300), 2),  # rows longer than a block
    (L.Convolution(3, (13, 12), padding=(6, 4)), (2, 14, 15), 2),  # too many pixels of a window for one long program
]
FREE = [
    (L.AveragePool((2, 3)), (2, 7, 10), 3),
    (L.AveragePool((3, 2), (2, 1)), (2, 8, 5), 3),
    (L.AveragePool((2, 1), (3, 2)), (1, 7, 6), 2),  # windows apart
    (L.AveragePool((4, 5), (1, 2)), (2, 7, 9), 2),
    (L.MaxPool((2, 3)), (2, 7, 10), 3),
    (L.MaxPool((3, 2), (2, 1)), (2, 8, 5), 3),
    (L.MaxPool((2, 1), (3, 2)), (1, 7, 6), 2),
    (L.MaxPool((4, 5), (1, 2)), (2, 7, 9), 2),
    (L.GlobalAveragePool(), (5, 6, 7), 3),
    (L.GlobalAveragePool(), (1, 1, 2), 1),
    (L.Standardise(1), (3, 5, 7), 3),
    (L.Standardise(3), (6, 4, 9), 2),
    (L.Standardise(2, 0.1), (4,), 5),
    (L.Standardise(1), (2, 31, 33), 2),
    (L.Pixels((0.2, -0.6), (0.25, 0.5)), (2, 3, 5), 3),
    (L.Pixels((0.2,), (0.25,)), (1, 3), 2),
    (L.WeightedSum((1.0, 0.75)), ((2, 3, 4), (2, 3, 4)), 3),
    (L.WeightedSum((-0.5, 1.0, 2.0)), ((2, 3, 4),) * 3, 2),
]


def device(a: Any) -> Any:
    """A copy on the device; of several, of each."""
    return tuple(map(device, a)) if isinstance(a, tuple) else load("cupy").asarray(a)


def turned(a: np.ndarray) -> Any:
    """A copy on the device whose first axis is the innermost in memory."""
    return device(np.ascontiguousarray(a.T)).T


def draw(shape: Any, batch: int, dtype: Any, seed: int, ties: bool = False) -> Any:
    """States of that per-sample shape."""
    if shape and not isinstance(shape[0], int):
        return tuple(draw(s, batch, dtype, seed + i) for i, s in enumerate(shape))
    generator = np.random.default_rng(seed)
    return (generator.integers(0, 3, (batch, *shape)) if ties else generator.standard_normal((batch, *shape))).astype(
        dtype
    )


def close(actual: Any, expected: Any, dtype: Any, terms: float = 400) -> None:
    """Other orders of summation of at most a few thousand terms; the dtype and the shape are the same."""
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple) and len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            close(a, b, dtype, terms)
        return
    assert actual.dtype == dtype and actual.shape == expected.shape
    host = actual.get()
    assert not np.isnan(host).any()
    size = max(1.0, float(np.max(np.abs(expected), initial=0)))
    np.testing.assert_allclose(host, expected, rtol=0, atol=terms * np.finfo(dtype).eps * size)


CACHED = (tile_rule.tiles, products.product, direct.correlation, direct.switching)


@contextmanager
def wanting(blocks: int, images: bool | None = None) -> Iterator[None]:
    """As many blocks wanted: with few, the blocks of large batches are taken for small ones. ``images``: convolutions
    straight from images wherever they can be, or nowhere; None: by the rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_rule, "BLOCKS", blocks)
        patch.setattr(direct, "MULTIPROCESSORS", max(1, blocks // 2))
        if images is not None:
            patch.setattr(products, "preferred", lambda *_: images)
        for cached in CACHED:
            cached.cache_clear()
        yield
    for cached in CACHED:
        cached.cache_clear()


FORMS = [(np.float32, BLOCKS), (np.float64, BLOCKS), (np.float32, 1), (np.float64, 1), (np.float32, 4)]


@needs_cupy
@pytest.mark.parametrize(("dtype", "blocks"), FORMS)
@pytest.mark.parametrize(("stage", "shape", "batch"), AFFINE, ids=str)
def test_affine_stages(stage: Any, shape: Any, batch: int, dtype: Any, blocks: int) -> None:
    """The three maps against float64; twice the same bits; what is returned is new and in C order."""
    if blocks != BLOCKS and isinstance(stage, L.ScaleShift):
        pytest.skip("has no tiles")
    with wanting(blocks, False):
        check_affine(stage, shape, batch, dtype)


@needs_cupy
@pytest.mark.parametrize(("dtype", "blocks"), FORMS)
@pytest.mark.parametrize(("stage", "shape", "batch"), CONVOLUTIONS, ids=str)
def test_convolutions_straight_from_images(stage: Any, shape: Any, batch: int, dtype: Any, blocks: int) -> None:
    with wanting(blocks, True):
        check_affine(stage, shape, batch, dtype)


@needs_cupy
@pytest.mark.parametrize(("stage", "shape", "batch"), CONVOLUTIONS, ids=str)
def test_nothing_is_written_behind_the_result(stage: Any, shape: Any, batch: int) -> None:
    """Channels, rows and columns of the last block that there are not."""
    affine = Affine(cuda(stage), shape)
    x, p = (device(draw(s, batch, np.float32, i)) for i, s in enumerate((shape, stage.output_shape(shape))))
    k, *bias = (device(draw(s[1:], s[0], np.float32, 2)) for s in stage.control_shapes(shape))
    results = {APPLY: (k, x, p.shape), STATE: (k, p, x.shape), KERNEL: (p, x, k.shape)}
    with wanting(BLOCKS, True):
        for which, (a, b, made) in results.items():
            room = device(np.full((2, int(np.prod(made)) + 5000), np.nan, np.float32))
            out, ones = room[0, : int(np.prod(made))].reshape(made), room[1, : stage.channels]
            some = bool(bias) and which != STATE
            products.product(affine, which, batch, "float32", some)(a, b, bias[0] if some else None, out, ones)
            assert not np.isnan(out.get()).any()
            assert np.isnan(room[0, out.size :].get()).all() and np.isnan(room[1, stage.channels :].get()).all()


def check_affine(stage: Any, shape: Any, batch: int, dtype: Any) -> None:
    """All of it for one stage."""
    other = cuda(stage)
    assert type(other) is not type(stage)
    x, p = draw(shape, batch, dtype, 0), draw(stage.output_shape(shape), batch, dtype, 1)
    u = tuple(draw(s[1:], s[0], dtype, 2) for s in stage.control_shapes(shape))
    wide = [np.asarray(a, np.float64) for a in (x, p)], tuple(np.asarray(a, np.float64) for a in u)
    on = device(x), device(u), device(p)

    def maps() -> list[Any]:
        return [other.forward(*on[:2]), other.costate(*on), *other.switching(*on)]

    found = maps()
    expected = [stage.forward(wide[0][0], wide[1]), stage.costate(wide[0][0], wide[1], wide[0][1])]
    expected += stage.switching(wide[0][0], wide[1], wide[0][1])
    for actual, wanted, again in zip(found, expected, maps(), strict=True):
        close(actual, wanted, dtype)
        assert actual.flags.c_contiguous
        np.testing.assert_array_equal(actual.get(), again.get())


@needs_cupy
@pytest.mark.parametrize(
    ("stage", "shape", "batch"), [AFFINE[4], (L.Dense(84), (33,), 65), (L.ScaleShift(), (6, 5, 7), 3)], ids=str
)
def test_the_bilinear_maps_and_tangents(stage: Any, shape: Any, batch: int) -> None:
    """Without the bias; the tangents are made of them. Arrays that are not in C order are taken as they are meant."""
    other = cuda(stage)
    x, dx = (draw(shape, batch, np.float64, i)[::-1, :, ...] for i in (0, 3))
    p, dp = (draw(stage.output_shape(shape), batch, np.float64, i) for i in (1, 4))
    u, v = (tuple(draw(s[1:], s[0], np.float64, i) for s in stage.control_shapes(shape)) for i in (2, 5))
    k = np.asfortranarray(u[0])
    X, P = device(np.ascontiguousarray(x[::-1]))[::-1], device(p)
    K = turned(u[0])
    close(other.apply(X, K), stage.apply(x, k), np.float64)
    close(other.adjoint_state(x.shape, K, P), stage.adjoint_state(x.shape, k, p), np.float64)
    close(other.adjoint_kernel(X, k.shape, P), stage.adjoint_kernel(x, k.shape, p), np.float64)
    host, there = (
        (x, u, p, dx, v, dp),
        tuple(map(device, (np.ascontiguousarray(x), u, p, np.ascontiguousarray(dx), v, dp))),
    )
    pick = lambda a, *i: [a[j] for j in i]  # noqa: E731
    close(other.tangent(*pick(there, 0, 1, 3, 4)), stage.tangent(*pick(host, 0, 1, 3, 4)), np.float64)
    close(other.tangent_costate(*there), stage.tangent_costate(*host), np.float64)
    close(other.tangent_switching(*there), stage.tangent_switching(*host), np.float64)


@needs_cupy
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stage", "shape", "batch"), FREE, ids=str)
def test_stages_without_control(stage: Any, shape: Any, batch: int, dtype: Any) -> None:
    """Pools with ties too: the first maximal entry of a window carries the costate."""
    other = cuda(stage)
    assert type(other) is not type(stage) and isinstance(other, type(stage))
    p = draw(stage.output_shape(shape), batch, dtype, 1)
    for ties in (False, True) if isinstance(stage, L.MaxPool) else (False,):
        x = draw(shape, batch, dtype, 0, ties)
        close(other.forward(device(x), ()), stage.forward(x, ()), dtype, 50)
        close(other.costate(device(x), (), device(p)), stage.costate(x, (), p), dtype, 50)
    if isinstance(x, np.ndarray):
        close(other.forward(turned(x), ()), stage.forward(x, ()), dtype, 50)


@needs_cupy
def test_the_largest_entry_may_be_nan() -> None:
    """As argmax has it: the first NaN of a window carries the costate."""
    stage = L.MaxPool(2)
    x, p = draw((1, 4, 6), 1, np.float64, 0), draw((1, 2, 3), 1, np.float64, 1)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = x[0, 0, 2, 2] = np.nan
    x[0, 0, :2, 4:] = -np.inf
    other = cuda(stage)
    np.testing.assert_array_equal(other.forward(device(x), ()).get(), stage.forward(x, ()))
    np.testing.assert_array_equal(other.costate(device(x), (), device(p)).get(), stage.costate(x, (), p))


@needs_cupy
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_terminal(labels: str, dtype: Any) -> None:
    """Scores of very different size, more classes than a warp has threads, batches that are no multiple of a block."""
    for batch, classes in ((1, 1), (7, 10), (5, 70)):
        x = 30 * draw((classes,), batch, dtype, 0)
        y = np.random.default_rng(1).integers(0, classes, batch).astype(labels)
        loss = CrossEntropy()
        losses, largest, p = terminal(device(x), device(y), 9)
        close(losses, loss.values(x, y), dtype, 10)
        close(largest, np.abs(x).max(axis=1), dtype, 0)
        close(p, -loss.gradient(x, y) / dtype(9), dtype, 10)
        x[0, -1] = np.nan
        losses, largest, p = (a.get() for a in terminal(device(x), device(y), 9))
        for a in (losses, largest, p):
            assert np.isnan(a[0]).all() and not np.isnan(a[1:]).any()


def apart(actual: Any, wanted: Any) -> float:
    """Largest difference of two lists of arrays, relative to the largest entry of all: a bias before a standardisation
    has no effect, and its switching function is rounding."""
    pairs = list(zip(actual, wanted, strict=True))
    return max(float(np.max(np.abs(a - b))) for a, b in pairs) / max(float(np.max(np.abs(b))) for _, b in pairs)


NETWORKS = {
    "lenet": A.lenet5((1, 12, 14), 3),
    "caffe": A.lenet5_caffe((1, 17, 16), 3),
    "residual": A.residual_net((2, 9, 8), 3, width=2, groups=2, step=0.5),
    "padded pools": Network(
        (
            L.Convolution(3, 3),
            L.Tanh(),
            L.MaxPool(3, 2, 1),
            L.Convolution(4, 2),
            L.AveragePool(2, 2, 1, False),
            L.AveragePool((3, 2), 1, (1, 0)),
            L.Flatten(),
            L.Dense(3),
        ),
        (2, 9, 8),
    ),
}


@needs_cupy
@pytest.mark.parametrize("name", NETWORKS)
def test_sweeps_agree_with_the_clear_path(name: str) -> None:
    network = NETWORKS[name]
    x, y = draw(network.input_shape, 5, np.float64, 0), np.random.default_rng(0).integers(0, 3, 5)
    u = initial_controls(network, 0, x)
    expected = Sweep(network, CrossEntropy()).forward_backward(u, x, y)
    ub, xb, yb = map_controls(device, u), device(x), device(y)

    def agrees(e: Any, forward: int) -> None:
        assert (e.forward_sweeps, e.backward_sweeps, e.states) == (forward, 1, None)
        for actual, value in ((e.losses, expected.losses), (e.largest, expected.largest)):
            assert np.max(np.abs(actual.get() - value)) <= 1e-12 * np.max(np.abs(value))
        assert apart([a.get() for a in arrays_of(e.switching)], arrays_of(expected.switching)) <= 1e-12

    whole = CudaSweep(network, CrossEntropy(), graphs=False)
    for sweep, forward in ((whole, 1), (replace(whole, chunk=2, memory=0), 2)):
        e = sweep.forward(ub, xb, yb)
        assert (e.states is None) == (forward == 2)
        assert e.states is None or all(isinstance(s, Swept) for s in e.states)
        agrees(sweep.backward(ub, e), forward)
        agrees(sweep.forward_backward(ub, xb, yb), 1)
    first, again = (arrays_of(sweep.forward_backward(ub, xb, yb).switching) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@needs_cupy
def test_another_loss_takes_the_clear_way() -> None:
    network = Network((L.Convolution(2, (2, 3)), L.Tanh()), (1, 4, 5))
    x, y = draw((1, 4, 5), 3, np.float64, 0), draw(network.output_shape, 3, np.float64, 1)
    u = initial_controls(network, 0, x)
    expected = Sweep(network, SquaredLoss()).forward_backward(u, x, y)
    sweep = CudaSweep(network, SquaredLoss(), graphs=False)
    e = sweep.backward(map_controls(device, u), sweep.forward(map_controls(device, u), device(x), device(y)))
    close(e.losses, expected.losses, np.float64, 10)
    for actual, wanted in zip(arrays_of(e.switching), arrays_of(expected.switching), strict=True):
        close(actual, wanted, np.float64)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_arrays_take_the_superclass_path(name: str) -> None:
    network = NETWORKS[name]
    x, y = draw(network.input_shape, 3, np.float64, 0), np.random.default_rng(0).integers(0, 3, 3)
    u = initial_controls(network, 0, x)
    expected, e = (kind(network, CrossEntropy()).forward_backward(u, x, y) for kind in (Sweep, CudaSweep))
    assert apart(arrays_of(e.switching), arrays_of(expected.switching)) <= 1e-12


PADDED = (L.MaxPool(3, 2, 1), L.MaxPool((3, 2), None, (1, 1)), L.AveragePool(2, 2, 1), L.AveragePool(3, 2, 1, False))


def test_which_stages_are_replaced() -> None:
    class Own(L.Convolution):
        """A subclass may have maps of its own."""

    for stage in (L.Tanh(), L.Flatten(), Own(2, 3), cuda(L.Dense(3)), cuda(L.MaxPool(2)), *PADDED):
        assert cuda(stage) is stage
    assert cuda(L.Convolution(2, 3, bias=False)) == CudaConvolution(2, 3, bias=False)
    assert cuda(L.Dense(4, bias=False)) == CudaDense(4, bias=False)


def test_the_sweep_can_be_copied_and_belongs() -> None:
    network, loss = NETWORKS["residual"], CrossEntropy()
    sweep = CudaSweep(network, loss, 3, 5)
    assert pickle.loads(pickle.dumps(sweep)) == sweep == CudaSweep(sweep.network, loss, 3, 5)
    assert sweep.belongs(network, loss) and sweep.belongs(cuda_network(network), loss)
    assert not sweep.belongs(NETWORKS["lenet"], loss) and not sweep.belongs(network, SquaredLoss())
    with pytest.raises(InputError, match="chunk is -1"):
        CudaSweep(network, loss, -1)


def test_chunks_are_as_large_as_memory_allows() -> None:
    network = Network((L.Convolution(2, (3, 2)), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 5, 4))
    sizes = lambda memory, batch: [  # noqa: E731
        cut.stop - cut.start
        for cut in CudaSweep(network, CrossEntropy(), memory=memory).chunks(np.zeros((batch, 1, 5, 4)))
    ]
    states = 8 * (18 + 18 + 18 + 3)
    assert sizes(10 * states, 10) == [10]
    assert sizes(10 * states - 1, 10) == [9, 1]
    assert sizes(0, 3) == [1, 1, 1]
    sums = 8 * Affine(cuda(network.stages[0]), (1, 5, 4)).workspace(KERNEL, 1000, 8)
    assert sums > 0 and sizes(1000 * states + sums, 1000) == [1000]
    assert sizes(1000 * states + sums - 1, 1000) == [999, 1]


def test_tiles_fit_the_device_and_cover_the_product() -> None:
    """For every product of the architectures and drawn ones: threads, registers, shared memory, splits that cover k."""
    generator = np.random.default_rng(0)
    draws = [tuple(int(n) for n in 2 ** generator.uniform(0, (9, 22, 22))) for _ in range(300)]
    for m, n, k in [*draws, (1, 1, 1), (50, 501, 60000 * 64), (60000, 500, 800), (64, 10, 84), (500, 801, 64)]:
        for itemsize in (4, 8):
            for gradient, a, b in ((False, True, False), (False, True, True), (True, True, True), (True, False, False)):
                t = tiles(m, n, k, 1, a, b, itemsize, gradient)
                check_tiles(t, m, n, k, itemsize, a, b)


def check_tiles(t: Tiles, m: int, n: int, k: int, itemsize: int, a_along_k: bool, b_along_k: bool) -> None:
    """What ``products.cu`` relies on."""
    rows, columns = t.tile
    assert t.threads in (128, 256) and t.rn % 32 == 0 and t.bk % t.slices == 0
    assert t.shared(itemsize, a_along_k, b_along_k) <= SHARED
    assert t.tm * t.tn * itemsize // 4 <= 80  # registers that hold sums
    assert t.m_tiles * rows >= m > (t.m_tiles - 1) * rows and t.n_tiles * columns >= n > (t.n_tiles - 1) * columns
    assert t.splits * t.chunk >= k > (t.splits - 1) * t.chunk and t.chunk % t.bk == 0
    defines = t.defines(a_along_k, b_along_k)
    for line in (defines["A_LINE"], defines["B_LINE"]):
        assert line == power_of_two(line) and (t.threads % line == 0 or line % t.threads == 0)
    assert defines["A_LINE"] >= (t.bk if a_along_k else rows) and defines["B_LINE"] >= (t.bk if b_along_k else columns)


def test_the_cases_reach_every_kind_of_tile() -> None:
    """The stages above split sums, use slices, several rows and columns of a thread in each of the three products."""
    for which in (APPLY, STATE, KERNEL):
        found = []
        for dtype, blocks in FORMS:
            with wanting(blocks):
                found += [
                    Affine(cuda(stage), shape).tiles(which, batch, stage.bias, np.dtype(dtype).itemsize)
                    for stage, shape, batch in AFFINE
                    if isinstance(stage, L.Convolution | L.Dense)
                ]
        assert {t.splits > 1 for t in found} == {True, False}
        assert {1, 2, 4, 8} <= {t.rm for t in found} and {1, 2, 8} <= {t.slices for t in found}
        assert len({t.tm for t in found}) > 3 and len({t.tn for t in found}) > 1
        assert {t.m_tiles > 1 for t in found} == {t.n_tiles > 1 for t in found} == {True, False}


def test_blocks_of_images_fit_the_device_and_cover_the_convolution() -> None:
    """Drawn convolutions: threads, shared memory, and units, tiles and chunks that cover everything once."""
    generator = np.random.default_rng(0)
    drawn = lambda low, high: tuple(int(n) for n in generator.integers(low, high, 2))  # noqa: E731
    for _ in range(20):
        groups = int(generator.integers(1, 4))
        stage = L.Convolution(
            groups * int(generator.integers(1, 40)),
            drawn(1, 8),
            stride=drawn(1, 4),
            padding=drawn(0, 5),
            dilation=drawn(1, 3),
            groups=groups,
        )
        shape = (groups * int(generator.integers(1, 30)), *drawn(14, 40))
        for which in (APPLY, STATE, KERNEL):
            for itemsize, batch in ((4, 1), (4, 700), (8, 33)):
                check_blocks(Affine(cuda(stage), shape).problem(which), which, batch, itemsize)


def check_blocks(q: direct.Problem, which: str, batch: int, itemsize: int) -> None:
    """What ``images.cu``, ``correlation.cu`` and ``switching.cu`` rely on."""
    d = direct.switching(q, batch, itemsize) if which == KERNEL else direct.correlation(q, batch, itemsize)
    if d is None:
        assert q.taps == 1
        return
    made = dict(d.macros)
    assert d.threads == made["THREADS"] <= 256 and d.threads % 32 == 0 and d.shared <= SHARED - 16
    seen = q.columns.seen(made["COLUMNS"])
    assert made["PITCH"] >= seen and d.blocks > 0 and made["SAMPLES"] <= batch
    tiles_of = lambda n, name: -(-n // made[name])  # noqa: E731
    blocks = -(-q.m // (made["TM"] * made["M_THREADS"])) * q.groups
    if which == KERNEL:
        assert d.units == tiles_of(batch, "SAMPLES") * tiles_of(q.rows.end, "ROWS")
        assert d.splits * d.chunk >= d.units > (d.splits - 1) * d.chunk
        assert made["COLUMNS"] >= q.columns.end and made["COLUMNS"] % made["PIECE"] == 0
        assert q.rows.kernel % made["TAP_ROWS"] == 0
        slices = made["M_THREADS"] * made["CHANNELS"] * (q.rows.kernel // made["TAP_ROWS"]) * made["SLICES"]
        assert slices <= d.threads and d.blocks == blocks * tiles_of(q.k, "CHANNELS") * d.splits
    else:
        slice_threads = made["SAMPLES"] * made["STRIPS"] * made["COLUMNS"] * made["M_THREADS"]
        assert made["SLICES"] * slice_threads <= d.threads and made["SLICES"] <= made["CHANNELS"]
        blocks *= tiles_of(batch, "SAMPLES") * tiles_of(q.rows.end, "ROWS") * tiles_of(q.columns.end, "COLUMNS")
        assert d.blocks == blocks and made["ROWS"] == made["STRIPS"] * made["TN"]


def test_the_cases_reach_every_kind_of_block_of_images() -> None:
    """Several of each, and a remainder of each."""
    found: dict[str, set[Any]] = {}

    def note(name: str, value: Any) -> None:
        found.setdefault(name, set()).add(value)

    for dtype, blocks in FORMS:
        with wanting(blocks, True):
            for stage, shape, batch in CONVOLUTIONS:
                affine = Affine(cuda(stage), shape)
                for which in (APPLY, STATE, KERNEL):
                    d = affine.direct(which, batch, np.dtype(dtype).itemsize)
                    if d is None:
                        note("none", True)
                        continue
                    q, made = affine.problem(which), dict(d.macros)
                    for name, n in (
                        ("SAMPLES", batch),
                        ("ROWS", q.rows.end),
                        ("COLUMNS", q.columns.end),
                        ("CHANNELS", q.k),
                        ("M", q.m),
                    ):
                        part = made["TM"] * made["M_THREADS"] if name == "M" else made[name]
                        note(f"{which} {name}", "one" if part >= n else "divides" if n % part == 0 else "left over")
                    for name in ("TM", "TN", "M_THREADS", "STRIPS", "SAMPLES", "UNROLL", "TAP_ROWS", "PIECE", "SLICES"):
                        if name in made:
                            note(f"{which} {name} of a block", made[name])
                    note(f"{which} sums in turns", made.get("SUM_ROWS", made["TM"]) < made["TM"])
                    note(f"{which} splits", d.splits > 1)
                    note(f"{which} chunk", d.chunk > 1)
                    note(f"{which} fewer sums in the last turn", made["TM"] % made.get("SUM_ROWS", 1) > 0)
                    note(f"{which} fewer units in the last chunk", d.units % d.chunk > 0)
    for which in (APPLY, STATE, KERNEL):
        for name in ("SAMPLES", "ROWS", "CHANNELS", "M"):
            assert {"one", "left over"} <= found[f"{which} {name}"], (which, name, found[f"{which} {name}"])
        for name in ("TM", "M_THREADS", "SAMPLES"):
            assert len(found[f"{which} {name} of a block"]) > 1, (which, name)
    for which in (APPLY, STATE):
        assert len(found[f"{which} TN of a block"]) > 3 and 1 in found[f"{which} UNROLL of a block"]
        assert {"one", "divides"} <= found[f"{which} COLUMNS"]
        assert found[f"{which} SLICES of a block"] == {1, 2, 4}
    assert found["KERNEL splits"] == found["KERNEL chunk"] == found["KERNEL sums in turns"] == {True, False}
    assert found["KERNEL fewer sums in the last turn"] == found["KERNEL fewer units in the last chunk"] == {True, False}
    assert len(found["KERNEL TAP_ROWS of a block"]) > 1 and len(found["KERNEL SLICES of a block"]) > 4
    assert len(found["KERNEL PIECE of a block"]) > 2 and found["none"]
