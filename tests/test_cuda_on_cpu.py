"""CuPy over a CUDA that computes on the CPU: its command here, the library itself by name (-m slow).

Tests that take the fixture ``cupy`` run where CuPy does: ``python -m verification.cuda_on_cpu -- python -m pytest
tests/test_cuda_on_cpu.py``, or on a GPU. Those that take ``counted`` need the former.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends import probe
from verification.cuda_on_cpu import __main__ as command
from verification.cuda_on_cpu import build
from verification.cuda_on_cpu import step as step_command

CHECKOUT = Path(__file__).parents[1]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0 and "example: python -m verification.cuda_on_cpu --" in capsys.readouterr().out


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert stopped.value.code == 2 and "write it after --" in capsys.readouterr().err


def test_without_a_compiler_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["--folder", str(tmp_path / "cuda"), "--step"]) == 2
    assert "needs Linux on x86-64 with g++" in capsys.readouterr().err
    assert not (tmp_path / "cuda").exists()


def test_a_failed_build_says_what_the_command_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := build.unavailable():
        pytest.skip(reason)
    monkeypatch.setattr(build, "build", lambda *_: build.run("ls", tmp_path / "nothing here"))
    assert command.main(["--folder", str(tmp_path / "cuda"), "--step"]) == 2
    said = capsys.readouterr().err
    assert "failed while CUDA on the CPU was built" in said and "nothing here" in said
    assert not (tmp_path / "cuda").exists()


def test_files_of_others_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := build.unavailable():
        pytest.skip(reason)
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    assert command.main(["--folder", str(tmp_path), "--step"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "kept"


def test_a_command_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "environment", lambda *_: {"PATH": str(tmp_path)})
    assert command.main(["--", "pyton", "-V"]) == 2
    assert "no command 'pyton'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_synchronises_once_and_cupy_computes_what_numpy_does() -> None:
    """Builds the library if it is not there. The synchronisation test then runs on CuPy's own arrays."""
    if reason := build.unavailable():
        pytest.skip(reason)
    run = [sys.executable, "-m", "verification.cuda_on_cpu"]
    step = subprocess.run([*run, "--step"], cwd=CHECKOUT, text=True, capture_output=True)
    assert step.returncode == 0, step.stderr
    counts = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"^(\S.*?) +(\d+) +(\d+)$", step.stdout, re.M)}
    assert counts["copy device to host"] == (0, 1) and counts["synchronise"] == (0, 1)
    assert sum(counts["launch"]) < 400
    files = [
        "tests/test_backend_synchronisation.py",
        "tests/test_backends_agree.py",
        "tests/test_regulariser.py",
        "tests/test_cuda_on_cpu.py",
    ]
    tests = subprocess.run(
        [*run, "--", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "cupy", *files],
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
    )
    assert tests.returncode == 0, tests.stdout[-3000:]


@pytest.fixture
def cupy() -> Any:
    """The module CuPy, on whatever device it runs."""
    if reason := probe("cupy"):
        pytest.skip(reason)
    import cupy

    return cupy


@pytest.fixture
def counted(cupy: Any) -> Callable[[], dict[str, int]]:
    """What was called since this was called last."""
    if "CUDA_ON_CPU" not in os.environ:
        pytest.skip("counts are taken on CUDA on the CPU only")
    step_command.counted()
    return step_command.counted


def rebuilt(monkeypatch: pytest.MonkeyPatch, folder: Path, sources: Path) -> list[str]:
    """Which parts the command makes anew in ``folder`` for these sources."""
    made: list[str] = []
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(build, "HERE", sources)
    monkeypatch.setattr(build, "build", lambda *_: made.append("environment"))
    monkeypatch.setattr(build, "library", lambda *_: made.append("library"))
    monkeypatch.setattr(build, "site_packages", lambda _: sources)
    build.environment(folder, CHECKOUT)
    return made


def test_a_change_of_the_device_alone_makes_the_library_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := build.unavailable():
        pytest.skip(reason)
    folder, sources = tmp_path / "cuda", tmp_path / "sources"
    (sources / "numpy.libs").mkdir(parents=True)
    (sources / "numpy.libs" / "libscipy_openblas64_.so").touch()
    for name in ("build.py", "device.cpp", "kernel.h"):
        (sources / name).touch()
    assert rebuilt(monkeypatch, folder, sources) == ["environment", "library"]
    assert rebuilt(monkeypatch, folder, sources) == []
    (sources / "kernel.h").write_text("changed", encoding="utf-8")
    assert rebuilt(monkeypatch, folder, sources) == ["library"]


def test_the_table_of_a_step_says_what_ran_in_graphs() -> None:
    before = {"launch": 2, "kernel add": 2}
    after = {"graph launch": 1, "graph node": 3, "kernel add": 2, "in graph kernel add": 2, "in graph memset": 1}
    assert step_command.table(before, after)[1:] == [
        "graph launch                    0        1",
        "graph node                      0        3",
        "launch                          2        0",
        "",
        "   all in graphs",
        "     4         2  add",
        "     1         1  memset",
    ]
    assert step_command.table(before, before)[-2:] == ["kernels", "     4  add"]


# Graphs -------------------------------------------------------------------------------------------------------------


def test_a_capture_records_and_a_replay_computes_with_what_is_there(cupy: Any) -> None:
    x, y = cupy.asarray([1.0, 2.0, 3.0]), cupy.zeros(3)
    total = cupy.zeros(())
    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.multiply(x, 2.0, out=y)  # compiled before the capture
        cupy.sum(y, out=total)
        y.fill(-1)
        stream.begin_capture()
        assert stream.is_capturing()
        cupy.multiply(x, 2.0, out=y)
        cupy.sum(y, out=total)
        graph = stream.end_capture()
        assert not stream.is_capturing()
        assert y.get().tolist() == [-1, -1, -1] and total == 12
        graph.launch()
        assert y.get().tolist() == [2, 4, 6]
        x[...] = cupy.asarray([10.0, 20.0, 30.0])
        graph.upload()
        graph.launch()
        assert y.get().tolist() == [20, 40, 60] and total == 120


def test_arguments_are_those_of_the_capture_and_copies_are_nodes(cupy: Any) -> None:
    kernel = cupy.RawKernel(
        'extern "C" __global__ void add(double* y, double s, int n) { if (threadIdx.x < n) y[threadIdx.x] += s; }',
        "add",
    )
    x, y = cupy.asarray([1.0, 2.0, 3.0]), cupy.zeros(3)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        kernel((1,), (3,), (y, 0.0, np.int32(3)))
        stream.begin_capture()
        y.data.memset_async(0, y.nbytes)
        y[:2].data.copy_from_device_async(x.data, 16)
        for add in (1.0, 10.0):
            kernel((1,), (3,), (y, add, np.int32(3)))
        graph = stream.end_capture()
        assert y.get().tolist() == [0, 0, 0]
        for _ in range(2):
            graph.launch()
            assert y.get().tolist() == [12, 13, 11]


def test_pinned_memory_is_read_at_replay(cupy: Any) -> None:
    memory = cupy.cuda.alloc_pinned_memory(16)
    host = np.frombuffer(memory, np.float64, 2)
    x = cupy.zeros(2)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        cupy.cuda.runtime.memcpyAsync(
            x.data.ptr, host.ctypes.data, 16, cupy.cuda.runtime.memcpyHostToDevice, stream.ptr
        )
        graph = stream.end_capture()
        for values in ([1.0, 2.0], [3.0, 4.0]):
            host[:] = values
            graph.launch()
            assert x.get().tolist() == values


def test_a_replay_is_one_launch_and_its_nodes(cupy: Any, counted: Callable[[], dict[str, int]]) -> None:
    x, y = cupy.asarray([1.0, 2.0, 3.0]), cupy.zeros(3)
    pool = cupy.get_default_memory_pool()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.exp(x, out=y)
        pool.free_all_blocks()
        counted()
        stream.begin_capture()
        z = cupy.empty(1000)
        cupy.exp(x, out=y)
        cupy.exp(y, out=y)
        z.data.memset_async(0, 8)
        graph = stream.end_capture()
        assert counted() == {"malloc in capture": 1, "graph capture": 1}
        graph.launch()
        graph.launch()
    found = counted()
    kernel = next(name for name in found if name.startswith("kernel "))
    assert found == {"graph launch": 2, "graph node": 6, kernel: 4, f"in graph {kernel}": 4, "in graph memset": 2}


def refusals(cupy: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """What a capture of this stream does not allow, each with an array and the stream."""
    runtime, host = cupy.cuda.runtime, np.zeros(3)
    return {
        "stream": lambda x, stream: stream.synchronize(),
        "device": lambda x, stream: cupy.cuda.Device().synchronize(),
        "event": lambda x, stream: stream.record().synchronize(),
        "copy": lambda x, stream: runtime.memcpy(host.ctypes.data, x.data.ptr, 24, runtime.memcpyDeviceToHost),
        "default stream": lambda x, stream: runtime.memsetAsync(x.data.ptr, 0, 8, 0),
        "earlier event": lambda x, stream: stream.wait_event(cupy.cuda.Stream.null.record()),
    }


@pytest.mark.parametrize("what", ["stream", "device", "event", "copy", "default stream", "earlier event"])
def test_what_a_capture_does_not_allow_ends_it(cupy: Any, what: str) -> None:
    x = cupy.zeros(3)
    stream = cupy.cuda.Stream()  # the default stream waits for it
    stream.begin_capture()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=r"cudaError(StreamCapture|CapturedEvent)"):
        refusals(cupy)[what](x, stream)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
        stream.end_capture()
    stream.synchronize()
    assert x.get().tolist() == [0, 0, 0]


def test_cupy_refuses_transfers_and_products_in_a_capture(cupy: Any) -> None:
    a = cupy.eye(3)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        a @ a  # the handle is there
        stream.begin_capture()
        try:
            with pytest.raises(NotImplementedError, match="cuBLAS"):
                a @ a
            with pytest.raises(RuntimeError, match="capturing"):
                a.get()
            with pytest.raises(RuntimeError, match="capturing"):
                cupy.asarray(np.zeros(3))
        finally:
            stream.end_capture()


# Kernels written by hand --------------------------------------------------------------------------------------------

ROW_SUMS = r"""
extern "C" __global__ void __launch_bounds__(256) row_sums(const float* __restrict__ x, double* y, int columns) {
  __shared__ float4 part[64];
  __shared__ double sums[256 / 32];
  const int t = threadIdx.y * blockDim.x + threadIdx.x, lane = t % 32;
  double sum = 0;
  for (int from = 0; from < columns; from += 256) {
    if (t < 64) part[t] = __ldg(reinterpret_cast<const float4*>(x + blockIdx.x * columns + from) + t);
    __syncthreads();
    const float* values = reinterpret_cast<const float*>(part);
    sum += fmaf(values[255 - t], 2.0f, 1.0f);
    __syncthreads();
  }
  #pragma unroll
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffff, sum, by);
  if (lane == 0) sums[t / 32] = sum;
  __syncthreads();
  if (t >= 8) return;
  sum = sums[t];
  for (int by = 4; by > 0; by /= 2) sum += __shfl_xor_sync(0xff, sum, by);
  if (t == 0) y[blockIdx.x] = sum;
}
"""


def test_a_kernel_with_shared_memory_barriers_and_shuffles(cupy: Any) -> None:
    x = np.random.default_rng(0).random((5, 512)).astype(np.float32)
    y = cupy.zeros(5)
    cupy.RawKernel(ROW_SUMS, "row_sums")((5,), (32, 8), (cupy.asarray(x), y, np.int32(512)))
    np.testing.assert_allclose(y.get(), 2 * x.sum(1, dtype=np.float64) + 512, rtol=1e-6)


def test_a_transpose_in_blocks_of_1024(cupy: Any) -> None:
    source = r"""
    __device__ __forceinline__ int at(int row, int column, int columns) { return row * columns + column; }
    extern "C" __global__ void __launch_bounds__(32 * (32), 1)
    transposed(const double* x, double* y, int rows, int columns) {
      extern __shared__ double tile[];
      const int r = blockIdx.y * 32 + threadIdx.y, c = blockIdx.x * 32 + threadIdx.x;
      if (r < rows && c < columns) tile[threadIdx.y * 33 + threadIdx.x] = x[at(r, c, columns)];
      __syncthreads();
      const int u = blockIdx.x * 32 + threadIdx.y, v = blockIdx.y * 32 + threadIdx.x;
      if (u < columns && v < rows) y[at(u, v, rows)] = tile[threadIdx.x * 33 + threadIdx.y];
    }
    """
    x = np.random.default_rng(0).random((70, 45))
    y = cupy.zeros((45, 70))
    kernel = cupy.RawKernel(source, "transposed")
    kernel((2, 3), (32, 32), (cupy.asarray(x), y, np.int32(70), np.int32(45)), shared_mem=8 * 32 * 33)
    assert np.array_equal(y.get(), x.T)


def test_each_thread_of_each_block_has_its_place(cupy: Any) -> None:
    source = r"""
    extern "C" __global__ void places(int* y) {
      const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
      const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
      __syncthreads();
      const int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
      y[i] = i + __shfl_sync(0xffffffff, thread % 32, 7) + 100 * __shfl_up_sync(0xffffffff, thread % 32, 1, 8);
      y[i] += __popc(__ballot_sync(0xffffffff, thread % 3 == 0)) * 10000;
    }
    """
    y = cupy.zeros(24 * 64, np.int32)
    cupy.RawKernel(source, "places")((2, 3, 4), (4, 8, 2), (y,))
    i = np.arange(24 * 64)
    up = np.where(i % 8, i % 32 - 1, i % 32)
    assert np.array_equal(y.get(), i + 7 + 100 * up + 10000 * 11)


def test_blocks_without_threads_of_their_own(cupy: Any) -> None:
    y = cupy.zeros(5, np.int32)
    cupy.RawKernel('extern "C" __global__ void blocks(int* y) { y[blockIdx.x] = blockIdx.x; }', "blocks")(
        (5,), (1,), (y,)
    )
    assert y.get().tolist() == [0, 1, 2, 3, 4]


def test_device_functions(cupy: Any) -> None:
    source = r"""
    extern "C" __global__ void f(const float* x, float* y) {
      const int i = threadIdx.x;
      const float2 v = make_float2(x[i], __fmaf_rn(x[i], x[i], 1.0f));
      y[i] = rsqrtf(v.x) + tanhf(v.y) + expf(-v.x) + logf(v.y) + fmaxf(v.x, 1.0f) + __expf(v.x) + sqrtf(v.x);
    }
    """
    x = np.linspace(0.5, 3, 20, dtype=np.float32)
    y = cupy.zeros(20, np.float32)
    cupy.RawKernel(source, "f")((1,), (20,), (cupy.asarray(x), y))
    v = x * x + 1
    expected = 1 / np.sqrt(x) + np.tanh(v) + np.exp(-x) + np.log(v) + np.maximum(x, 1) + np.exp(x) + np.sqrt(x)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5)


def test_a_launch_beyond_the_bounds_of_a_kernel_fails(cupy: Any) -> None:
    kernel = cupy.RawKernel('extern "C" __global__ void __launch_bounds__(64) g(int* y) { y[threadIdx.x] = 1; }', "g")
    y = cupy.zeros(128, np.int32)
    kernel((1,), (64,), (y,))
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel((1,), (128,), (y,))
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel((1,), (64,), (y,), shared_mem=1 << 20)
    assert y.get().sum() == 64


def test_shared_memory_begins_as_nan_and_threads_that_miss_each_other_do_not_hang(
    cupy: Any, counted: object, capfd: pytest.CaptureFixture[str]
) -> None:
    source = r"""
    template <int n> __device__ float first() { __shared__ float rest[n]; return rest[0]; }
    extern "C" __global__ void wrong(float* y, int how) {
      __shared__ float s[32];
      if (how == 0) y[threadIdx.x] = s[threadIdx.x] + first<4>();
      if (how == 1 && threadIdx.x < 16) return;
      if (how == 2 && threadIdx.x < 16) __syncthreads(); else __syncthreads();
      if (how == 3 && threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1.0f, 1);
      __syncthreads();
      if (how > 0) y[threadIdx.x] = how;
    }
    """
    kernel, y = cupy.RawKernel(source, "wrong"), cupy.zeros(32, np.float32)
    kernel((1,), (32,), (y, np.int32(0)))
    assert np.isnan(y.get()).all()
    y.fill(0)
    kernel((1,), (32,), (y, np.int32(1)))
    assert y.get().tolist() == [0] * 16 + [1] * 16
    kernel((1,), (32,), (y, np.int32(2)))
    assert y.get().tolist() == [2] * 32
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="LaunchFailure"):
        kernel((1,), (32,), (y, np.int32(3)))
    assert "wrong: threads wait for lanes of their warp that do not come" in capfd.readouterr().err
