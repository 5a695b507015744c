"""The smoke test: in seconds, whether it is worth going on; and what the machine is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pmp_ref import CrossEntropy, Problem, Stop, initial_controls, lenet5
from pmp_ref.arrays import fused, to_numpy
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.kernels import make_sweep
from pmp_ref.sweep import Sweep
from verification.gpu.measure import has_torch, settle
from verification.libraries import load

CLOSE = {"float32": 1e-3, "float64": 1e-10}


def about(backend: str, device: str) -> dict[str, Any]:
    """Device, driver, versions, settings of the arithmetic."""
    load(backend)
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "cupy": None,
        "torch": None,
        "CUDA on the CPU": "CUDA_ON_CPU" in os.environ,
    }
    if backend == "cupy":
        import cupy

        runtime = cupy.cuda.runtime
        properties = runtime.getDeviceProperties(0)
        name = properties["name"]
        found |= {
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "cupy": cupy.__version__,
            "CUDA of the driver": runtime.driverGetVersion(),
            "CUDA runtime of CuPy": runtime.runtimeGetVersion(),
            "compute capability": f"{properties.get('major')}.{properties.get('minor')}",
            "multiprocessors": properties.get("multiProcessorCount"),
            "memory": properties.get("totalGlobalMem"),
            "CUPY_ACCELERATORS": os.environ.get("CUPY_ACCELERATORS", "default"),
        }
    if has_torch():
        import torch

        found |= {"torch": torch.__version__, "CUDA of PyTorch": torch.version.cuda}
        if device != "cpu":
            found["PyTorch's device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
            found["cuDNN"] = torch.backends.cudnn.version()
    found["TF32"] = settle()
    return found


def polynomial(a: Any, b: Any) -> Any:
    """A formula for one kernel."""
    return a * b + 0.5 * a


def difference(found: Any, wanted: Any) -> float:
    """Largest difference, relative to the largest entry."""
    found, wanted = to_numpy(found), np.asarray(wanted)
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


def smoke(backend: str) -> dict[str, Any]:
    """What was compared, and how far it is from NumPy in float64. Raises ArithmeticError where it is too far."""
    found: dict[str, Any] = {}
    start = time.perf_counter()
    for name, dtype, value in comparisons(backend):
        found[f"{name}, {dtype}"] = {"difference": value, "seconds": round(time.perf_counter() - start, 2)}
        if not value <= CLOSE[dtype]:
            raise ArithmeticError(f"{name} in {dtype} is {value:.3g} away from NumPy; expected {CLOSE[dtype]:.0e}")
        start = time.perf_counter()
    return found


def comparisons(backend: str) -> Iterator[tuple[str, str, float]]:
    """Each comparison: (what, dtype, relative difference)."""
    asarray = load(backend).asarray
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 40, 40))
    network, loss = lenet5((1, 28, 28)), CrossEntropy()
    x, y = generator.standard_normal((8, 1, 28, 28)), generator.integers(0, 10, 8)
    u = initial_controls(network, 0, x)
    reference = Sweep(network, loss).forward_backward(u, x, y)
    wanted = bsqh(Problem(network, rho=1e-4), u, x, y, stop=Stop(steps=3))
    for dtype in ("float32", "float64"):
        there = lambda array: asarray(np.asarray(array, dtype=dtype))  # noqa: B023, E731
        p, q = there(a), there(b)
        yield "a product", dtype, difference(p @ q, a @ b)
        yield "a fused kernel", dtype, difference(fused(polynomial, p, q), polynomial(a, b))
        v, images, labels = map_controls(there, u), there(x), asarray(y)
        sweep = make_sweep(network, loss, example=images)
        e = sweep.forward_backward(v, images, labels)
        yield "losses of LeNet-5", dtype, difference(e.losses, reference.losses)
        pairs = zip(arrays_of(e.switching), arrays_of(reference.switching), strict=True)  # type: ignore[arg-type]
        yield "switching functions of LeNet-5", dtype, max(difference(*pair) for pair in pairs)
        run = bsqh(Problem(network, rho=1e-4, sweep=sweep), v, images, labels, stop=Stop(steps=3))
        verdicts = [[r.verdict for r in s.records] for s in (run, wanted)]
        if dtype == "float64" and verdicts[0] != verdicts[1]:
            raise ArithmeticError(f"three steps in float64 are judged {verdicts[0]}, in NumPy {verdicts[1]}")
        yield "J after three steps", dtype, abs(run.records[-1].J / wanted.records[-1].J - 1)
