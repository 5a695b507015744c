"""Rows of the benchmark, measured in one process: all sides in turn, again and again."""

from __future__ import annotations

import gc
import importlib.util
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from pmp_ref.controls import map_controls
from pmp_ref.kernels import make_sweep
from pmp_ref.loss import CrossEntropy
from verification.gpu.plan import OPPONENTS, Row
from verification.libraries import load
from verification.performance import ours
from verification.performance.configurations import Case, case
from verification.performance.pairs import spread

AGREE = {"float32": 1e-4, "float64": 1e-10}  # relative difference of the losses that the sides end with
SECONDS, TURN = 2.0, 0.025  # of measuring for a row, and of one side's turn in a round
FEWEST, MOST = 5, 60  # rounds
WARM = 5  # calls of each side before anything is measured

Operation = Callable[[], float]


def has_torch() -> bool:
    """Whether there is an opponent."""
    return importlib.util.find_spec("torch") is not None


def settle(device: str) -> dict[str, Any]:
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


def synchroniser(backend: str, device: str) -> Callable[[], Any]:
    """The function that waits for the device."""
    if backend == "cupy":
        import cupy

        return cupy.cuda.Device().synchronize
    if device != "cpu" and has_torch():
        import torch

        return torch.cuda.synchronize
    return lambda: None


def release(backend: str, device: str) -> None:
    """Give back what the last row held."""
    if has_torch():
        import torch

        torch.compiler.reset()
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()
    gc.collect()
    if backend == "cupy":
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()


def make(side: str, row: Row, data: Case, backend: str, device: str) -> Operation:
    """The operation on that side."""
    if side == "ours":
        asarray = load(backend).asarray
        there = Case(data.network, map_controls(asarray, data.controls), asarray(data.x), asarray(data.y))
        return ours.on_sweep(row.operation, there, make_sweep(data.network, CrossEntropy(), example=there.x))
    if not has_torch():
        raise ModuleNotFoundError("PyTorch is not installed")
    if side == "graph" and device == "cpu":
        raise NotImplementedError("CUDA graphs need CUDA")
    from verification.performance import opponent  # not above: it loads PyTorch

    how, _, layout = side.partition(", ")
    return opponent.operation(row.operation, data, os.cpu_count() or 1, layout == "channels last", device, how)


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' / '.join(lines)[:400]}"


def prepare(row: Row, backend: str, device: str) -> tuple[dict[str, Operation], dict[str, Any]]:
    """The sides that work and agree, called until they are warm; and what is known of the row by then."""
    data = case(row.config, row.batch, row.dtype)
    made: dict[str, Operation] = {}
    found: dict[str, Any] = {"losses": {}, "errors": {}, "seconds to prepare": {}, "MiB": {}}
    for side in row.sides:
        start = time.perf_counter()
        try:
            held = memory(side, backend, device) if row.memory else None
            f = make(side, row, data, backend, device)
            for _ in range(WARM):
                found["losses"][side] = f()
            made[side] = f
            if held is not None:
                found["MiB"][side] = held()
        except Exception as error:  # a side that does not work is named, and the others are measured
            found["errors"][side] = first_line(error)
        found["seconds to prepare"][side] = round(time.perf_counter() - start, 2)
    disagree(row, made, found)
    return made, found


def disagree(row: Row, made: dict[str, Operation], found: dict[str, Any]) -> None:
    """Take out the sides whose loss is not that of PyTorch, eager; an error of the row if ours is among them."""
    wanted = found["losses"].get("eager") if "eager" in made else None
    for side in list(made):
        loss = found["losses"][side]
        if loss != loss or (wanted is not None and not abs(loss - wanted) <= AGREE[row.dtype] * abs(wanted)):
            found["errors"][side] = f"ends with the loss {loss}, PyTorch, eager, with {wanted}; expected the same"
            del made[side]
            if side == "ours":
                found["error"] = f"ours {found['errors'][side]}"


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


def turn(f: Operation, repeats: int, wait: Callable[[], Any]) -> float:
    """Milliseconds of one call, the device's work included."""
    start = time.perf_counter()
    for _ in range(repeats):
        f()
    wait()
    return 1e3 * (time.perf_counter() - start) / repeats


def rounds(made: dict[str, Operation], wait: Callable[[], Any], seconds: float) -> list[dict[str, float]]:
    """Each side in turn, until the seconds are over."""
    wait()
    repeats = {side: max(1, min(2000, int(1e3 * TURN / turn(f, 2, wait)))) for side, f in made.items()}
    done: list[dict[str, float]] = []
    start = time.perf_counter()
    while len(done) < MOST and (len(done) < FEWEST or time.perf_counter() - start < seconds):
        done.append({side: turn(f, repeats[side], wait) for side, f in made.items()})
        if time.perf_counter() - start > 4 * seconds and len(done) >= 2:
            break
    return done


def summary(done: list[dict[str, float]]) -> dict[str, Any]:
    """Median and quartiles of milliseconds by side; ratios ours/opponent as medians over the rounds, the opponent in
    the layout whose median is lower."""
    ms = {side: spread([r[side] for r in done]) for side in done[0]}
    ratios: dict[str, Any] = {}
    for opponent in OPPONENTS:
        variants = [side for side in ms if side.partition(", ")[0] == opponent]
        if variants and "ours" in ms:
            best = min(variants, key=lambda side: ms[side][0])
            ratios[opponent] = median(r["ours"] / r[best] for r in done)
    return {"ms": ms, "ratios": ratios, "rounds": len(done)}


def measure(row: Row, backend: str, device: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The result of a row."""
    settle(device)
    before = skipped_graphs()
    try:
        made, found = prepare(row, backend, device)
        if "error" not in found and made:
            found |= summary(rounds(made, synchroniser(backend, device), seconds))
        found["CUDA graphs that the compiler could not make"] = skipped_graphs() - before
        made.clear()
    finally:
        release(backend, device)
    return found


def skipped_graphs() -> int:
    """How often ``torch.compile`` gave up on a CUDA graph so far: then its side is slower than it could be."""
    if not has_torch():
        return 0
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def warm(row: Row, backend: str, device: str) -> float:
    """Compile the row's sides, so that what the compiler keeps on the disk is there; seconds."""
    settle(device)
    start, data = time.perf_counter(), case(row.config, row.batch, row.dtype)
    for side in row.sides:
        f = make(side, row, data, backend, device)
        for _ in range(3):  # the second call records CUDA graphs, the third launches them
            f()
    return time.perf_counter() - start
