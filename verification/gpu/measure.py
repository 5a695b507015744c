"""One side of a row of the benchmark, in the process that is its own."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from pmp_ref.controls import map_controls
from pmp_ref.kernels import make_sweep
from pmp_ref.loss import CrossEntropy
from verification.gpu.plan import Row
from verification.libraries import load
from verification.performance import ours
from verification.performance.configurations import Case, case

TURN = 0.025  # seconds of a turn
WARM = 5  # calls before anything is measured
KEPT = 2000  # characters of an error

Operation = Callable[[], float]
_ready: dict[str, Callable[[int], float]] = {}  # how turns of what was prepared are made


def has_torch() -> bool:
    """Whether there is an opponent."""
    return importlib.util.find_spec("torch") is not None


def settle() -> dict[str, Any]:
    """The same arithmetic on both sides, and the opponent's best choice of algorithms; what was set."""
    found: dict[str, Any] = {"CuPy": {"CUPY_TF32": os.environ.get("CUPY_TF32", "0 (default)")}}
    if has_torch():
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        found["PyTorch"] = {
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
        }
    return found


def synchroniser(side: str, backend: str, device: str) -> Callable[[], Any]:
    """The function that waits for the side's device."""
    if side == "ours" and backend == "cupy":
        import cupy

        return cupy.cuda.Device().synchronize
    if side != "ours" and device != "cpu":
        import torch

        return torch.cuda.synchronize
    return lambda: None


def release(side: str, backend: str, device: str) -> None:
    """Give back what the last row held."""
    if side != "ours":
        import torch

        torch.compiler.reset()
    gc.collect()
    if side != "ours" and device != "cpu":
        torch.cuda.empty_cache()
    if side == "ours" and backend == "cupy":
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()


def make(side: str, row: Row, data: Case, backend: str, device: str) -> Operation:
    """The operation on that side."""
    if side == "ours":
        asarray = load(backend).asarray
        there = Case(data.network, map_controls(asarray, data.controls), asarray(data.x), asarray(data.y))
        return ours.on_sweep(row.operation, there, make_sweep(data.network, CrossEntropy(), example=there.x))
    from verification.performance import opponent  # not above: it loads PyTorch

    how, _, layout = side.partition(", ")
    return opponent.operation(row.operation, data, os.cpu_count() or 1, layout == "channels last", device, how)


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' / '.join(lines)[:KEPT]}"


def start(side: str, backend: str, device: str) -> bool:
    """Load the side's library and wake the device."""
    if side != "ours":
        settle()
    synchroniser(side, backend, device)()
    return True


def prepare(row: Row, backend: str, device: str) -> dict[str, Any]:
    """Make the row's one side ready for turns, called until it is warm; the loss it ends with, how many calls make a
    turn, and what else is known by then."""
    side, began, skipped = row.sides[0], time.perf_counter(), skipped_graphs()
    _ready.clear()
    release(side, backend, device)
    held = memory(side, backend, device) if row.memory else None
    f = make(side, row, case(row.config, row.batch, row.dtype), backend, device)
    for _ in range(WARM):
        loss = f()
    _ready["turn"] = lambda repeats: timed(f, repeats, synchroniser(side, backend, device))
    found = {
        "loss": loss,
        "seconds": round(time.perf_counter() - began, 2),
        "repeats": max(1, min(2000, int(1e3 * TURN / turn(2)))),
        "CUDA graphs that the compiler could not make": skipped_graphs() - skipped,
    }
    return found if held is None else {**found, "MiB": held()}


def turn(repeats: int) -> float:
    """Milliseconds of one of so many calls of what was prepared."""
    return _ready["turn"](repeats)


def timed(f: Operation, repeats: int, wait: Callable[[], Any]) -> float:
    """Milliseconds of one call, the device's work included."""
    f()  # the device turns to this process
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        f()
    wait()
    return 1e3 * (time.perf_counter() - start) / repeats


def memory(side: str, backend: str, device: str) -> Callable[[], float | None]:
    """A function that says how much device memory was held at most since now, in MiB; None where it is not known."""
    if side == "ours" and backend == "cupy":
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        return lambda: float(pool.total_bytes()) / 2**20
    if side != "ours" and device != "cpu":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return lambda: float(torch.cuda.max_memory_reserved()) / 2**20
    return lambda: None


def skipped_graphs() -> int:
    """How often ``torch.compile`` gave up on a CUDA graph so far: then its side is slower than it could be."""
    if "torch" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def warm(row: Row, backend: str, device: str) -> float:
    """Compile the row's one side, so that what the compiler keeps on the disk is there; seconds."""
    settle()
    start = time.perf_counter()
    f = make(row.sides[0], row, case(row.config, row.batch, row.dtype), backend, device)
    for _ in range(3):  # the second call records CUDA graphs, the third launches them
        f()
    return time.perf_counter() - start
