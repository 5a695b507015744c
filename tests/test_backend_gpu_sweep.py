"""The sweep for GPUs against the clear path. The same code runs here on NumPy and the other libraries, not on a GPU."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

import numpy as np
import pytest

from pmp_ref import architectures as A
from pmp_ref import layers as L
from pmp_ref.augmentation import ClassicRule
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep, GpuSweep, make_sweep
from pmp_ref.kernels.gpu import StridedConvolution, on_gpu, patch_entries, strided, strided_network, window_view
from pmp_ref.layers.windows import Windows
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from tests.backends import Backend, load, probe

# (stage, per-sample shape): rows ≠ columns, channels in ≠ out; strides that leave pixels over; padding beyond the reach
CONVOLUTIONS = [
    (L.Convolution(4, (3, 2)), (3, 7, 9)),
    (L.Convolution(6, (3, 2), stride=(2, 3), padding=(1, 0), groups=3), (3, 8, 9)),
    (L.Convolution(2, (2, 3), stride=2, padding=2, dilation=(3, 2)), (1, 7, 8)),
    (L.Convolution(4, 1, stride=3, padding=2, groups=2), (2, 5, 6)),
    (L.Convolution(1, (5, 6)), (2, 5, 6)),
    (L.Convolution(2, 1, stride=(10, 3), padding=2), (1, 5, 7)),  # every window of rows lies in the padding
]
POOLS = [(kind(size), (2, 7, 9)) for kind in (L.AveragePool, L.MaxPool) for size in (2, (3, 2), (7, 9), 1)]


def close(backend: Backend, actual: Any, expected: np.ndarray, dtype: Any = np.float64) -> None:
    """Other orders of summation of a few hundred terms."""
    assert actual.device == backend.device and actual.dtype == getattr(backend.xp, np.dtype(dtype).name)
    atol = 200 * np.finfo(dtype).eps * max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(backend.to_numpy(actual), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stage", "shape"), CONVOLUTIONS, ids=str)
def test_the_three_products_of_a_convolution(backend: Backend, stage: Any, shape: Any, dtype: Any) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, *shape)).astype(dtype)
    k = generator.standard_normal(stage.control_shapes(shape)[0]).astype(dtype)
    p = generator.standard_normal((3, *stage.output_shape(shape))).astype(dtype)
    other = strided(stage)
    assert type(other) is StridedConvolution
    xb, kb, pb = map(backend.asarray, (x, k, p))
    close(backend, other.apply(xb, kb), stage.apply(x, k), dtype)
    close(backend, other.adjoint_state(x.shape, kb, pb), stage.adjoint_state(x.shape, k, p), dtype)
    close(backend, other.adjoint_kernel(xb, k.shape, pb), stage.adjoint_kernel(x, k.shape, p), dtype)


@pytest.mark.parametrize(("stage", "shape"), POOLS, ids=str)
def test_pools(backend: Backend, stage: Any, shape: Any) -> None:
    """With ties: the first maximal entry of a window carries the costate, as on the clear path."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 3, (3, *shape)).astype(float)
    p = generator.standard_normal((3, *stage.output_shape(shape)))
    other = strided(stage)
    assert type(other) is not type(stage) and isinstance(other, type(stage))
    close(backend, other.forward(backend.asarray(x), ()), stage.forward(x, ()))
    close(backend, other.costate(backend.asarray(x), (), backend.asarray(p)), stage.costate(x, (), p))


def test_other_stages_stay_as_they_are() -> None:
    class Own(L.Convolution):
        """A subclass may have maps of its own."""

    for stage in (L.AveragePool(3, 2), L.MaxPool(2, 1), L.Dense(3), L.Tanh(), Own(2, 3), strided(L.Convolution(2, 3))):
        assert strided(stage) is stage
    assert strided(L.Convolution(2, 3, bias=False)) == StridedConvolution(2, 3, bias=False)


NETWORKS = {
    "lenet": A.lenet5((1, 12, 14), 3),
    "caffe": A.lenet5_caffe((1, 17, 16), 3),
    "residual": A.residual_net((2, 9, 8), 3, width=2, groups=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_sweeps_agree_with_the_clear_path(backend: Backend, name: str) -> None:
    network = NETWORKS[name]
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((5, *network.input_shape)), generator.integers(0, 3, 5)
    u = initial_controls(network, 0, x)
    clear = Sweep(network, CrossEntropy())
    expected = clear.backward(u, clear.forward(u, x, y))
    ub, xb, yb = map_controls(backend.asarray, u), backend.asarray(x), backend.asarray(y)
    for sweep, forward in ((GpuSweep(network, CrossEntropy()), 1), (GpuSweep(network, CrossEntropy(), 2, 0), 2)):
        e = sweep.backward(ub, sweep.forward(ub, xb, yb))
        assert (e.forward_sweeps, e.backward_sweeps, e.states) == (forward, 1, None)
        close(backend, e.losses, expected.losses)
        close(backend, e.largest, expected.largest)
        for actual, wanted in zip(arrays_of(e.switching), arrays_of(expected.switching), strict=True):
            close(backend, actual, wanted)


def test_runs_take_the_same_decisions(backend: Backend) -> None:
    """In float64: the same trials accepted and rejected as on the clear path in NumPy."""
    network = NETWORKS["lenet"]
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((8, *network.input_shape)), generator.integers(0, 3, 8)
    u, how = initial_controls(network, 0, x), {"stop": Stop(steps=4), "method": Method(ClassicRule(0.02, sigma=2.0))}
    here = bsqh(Problem(network, rho=1e-3), u, x, y, **how)
    problem = Problem(network, rho=1e-3, sweep=GpuSweep(network, CrossEntropy()))
    there = bsqh(problem, map_controls(backend.asarray, u), backend.asarray(x), backend.asarray(y), **how)
    assert [r.verdict for r in there.records] == [r.verdict for r in here.records]
    assert {"accepted", "rejected"} <= {r.verdict for r in here.records}
    np.testing.assert_allclose([r.J for r in there.records], [r.J for r in here.records], rtol=1e-11)


def test_chunks_are_as_large_as_memory_allows() -> None:
    network = Network((L.Convolution(2, (3, 2)), L.Tanh(), L.Flatten(), L.Dense(3)), (1, 5, 4))
    states = 2 * 3 * 3 + 2 * 3 * 3 + 18 + 3
    patch = max(1 * 6 * 9, 2 * 6 * 20)  # of the forward map; of the costate map, one window for each pixel entering
    assert patch_entries(network, 0) == patch
    sizes = lambda memory, dtype, batch=10: [  # noqa: E731
        cut.stop - cut.start
        for cut in GpuSweep(network, CrossEntropy(), memory=memory).chunks(np.zeros((batch, 1, 5, 4), dtype))
    ]
    assert sum(int(np.prod(s)) for s in network.shapes[1:]) == states
    assert sizes(4 * 10 * (states + patch), np.float32) == [10]
    assert sizes(4 * 10 * (states + patch) - 1, np.float32) == [9, 1]
    assert sizes(4 * 10 * (states + patch), np.float64) == [5, 5]
    assert sizes(0, np.float64, 3) == [1, 1, 1]
    assert [cut.stop for cut in GpuSweep(network, CrossEntropy(), chunk=4).chunks(np.zeros((10, 1)))] == [4, 8, 10]
    assert sizes(2**31, np.float32, 10_000) == [10_000]  # the default


def test_patches_inside_a_residual_block_count() -> None:
    network = NETWORKS["residual"]
    parts = [patch_entries(network, l) for l in range(len(network.stages))]
    assert [n > 0 for n in parts] == ["Convolution" in str(stage) for stage in network.stages]


def test_the_sweep_can_be_copied_and_made_again() -> None:
    sweep = GpuSweep(NETWORKS["lenet"], CrossEntropy(), 3, 5)
    assert pickle.loads(pickle.dumps(sweep)) == sweep == GpuSweep(sweep.network, CrossEntropy(), 3, 5)
    assert strided_network(sweep.network) == sweep.network
    with pytest.raises(InputError, match="chunk is -1"):
        GpuSweep(NETWORKS["lenet"], CrossEntropy(), -1)


def test_make_sweep_gives_it_to_arrays_on_a_gpu() -> None:
    """PyTorch's device "meta" stands in for a GPU: it is not the CPU."""
    network, loss = NETWORKS["lenet"], CrossEntropy()
    assert type(make_sweep(network, loss, example=np.zeros(1))) is FastSweep
    if reason := probe("torch"):
        pytest.skip(f"backend torch: {reason}")
    torch = importlib.import_module("torch")
    there, here = torch.zeros(1, device="meta"), torch.zeros(1)
    assert make_sweep(network, loss, example=there, chunk=3, memory=7) == GpuSweep(network, loss, 3, 7)
    assert type(make_sweep(network, loss, False, example=there)) is Sweep
    assert type(make_sweep(network, loss, example=here)) is Sweep


@pytest.mark.parametrize("name", ["numpy", "torch", "cupy"])
def test_windows_are_a_view(name: str) -> None:
    """No copy before the one into the matrix."""
    if reason := probe(name):
        pytest.skip(f"backend {name}: {reason}")
    x = load(name).asarray(np.zeros((3, 3, 6, 8)))[1:, :, :, 1:]  # a view itself, with an offset
    z = window_view(x, Windows((2, 3), (2, 1), dilation=(2, 1)))
    assert tuple(z.shape) == (2, 3, 2, 5, 2, 3)
    x[1, 2, 3, 4] = 1.0
    # row 3 is not in any window of rows (0, 2) or (2, 4); row 4 is in the second
    assert float(z.sum()) == 0.0
    x[1, 2, 4, 4] = 1.0
    assert float(z.sum()) == 3.0


def test_what_lies_on_a_gpu() -> None:
    """By the type of the array and its device; types named like CuPy's and JAX's stand in."""
    cupy = type("ndarray", (), {"__module__": "cupy"})()
    platform = lambda name: type("Device", (), {"platform": name})()  # noqa: E731
    jax = lambda name: type("ArrayImpl", (), {"__module__": "jaxlib._jax", "devices": lambda _: {platform(name)}})()  # noqa: E731
    torch = lambda name: type(  # noqa: E731
        "Tensor", (), {"__module__": "torch", "device": type("device", (), {"type": name})()}
    )()
    assert [on_gpu(a) for a in (cupy, jax("gpu"), torch("cuda"))] == [True] * 3
    strict = load("array_api_strict").asarray(1.0)
    assert [on_gpu(a) for a in (np.zeros(1), jax("cpu"), torch("cpu"), strict)] == [False] * 4
