"""The benchmark: every row of the table, and the time per image against batch size, depth and width."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from pmp_ref.kernels.workers import available_cores
from verification.performance.configurations import CONFIGS, DTYPES, OPERATIONS
from verification.performance.pairs import TUNED, Side, SideError, rounds, side, summary

Say = Callable[[str], None]
BATCHES = (64, 256, 1024, 5000)
MEMORY_BATCHES = (1024, 5000, 60_000)
LAYOUTS = {"contiguous": False, "channels-last": True}
ALLOCATORS: dict[str, dict[str, str]] = {"default allocator": {}, "tuned allocator": TUNED}
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}  # of JAX
LARGEST = {"residual": 1024, "resnet20": 256}  # batches; larger ones cost minutes and say nothing new
# Peak memory of PyTorch is measured up to this batch: on 60,000 images it would need some 6 GiB.
TORCH_MEMORY_BATCH = 5000


def plan(quick: bool) -> list[tuple[str, str, int, str]]:
    """(operation, config, batch, dtype) of every row."""
    if quick:
        rows = [("forward_backward", "lenet5", b, d) for b in (64, 1024) for d in DTYPES]
        rows += [(o, c, 64, "float32") for c in ("lenet5", "lenet5-caffe") for o in OPERATIONS[1:]]
        return [
            *rows,
            *(("forward_backward", "lenet5-caffe", 64, d) for d in DTYPES),
            *(("forward_backward", c, 64, "float32") for c in ("residual", "resnet20")),
        ]
    return [
        (o, c, b, d)
        for o in OPERATIONS
        for c in CONFIGS
        for b in BATCHES
        for d in DTYPES
        if b <= LARGEST.get(c, b) and not (o == "mini_batch_step" and b > 1024)
    ]


class Benchmark:
    """Worker processes and settings of one run."""

    def __init__(self, quick: bool, say: Say, threads: int | None = None) -> None:
        self.quick, self.say = quick, say
        self.cores = available_cores()
        self.threads = threads or self.cores
        self.torch, self.jax = (importlib.util.find_spec(name) is not None for name in ("torch", "jax"))
        self.wanted, self.budget, self.seconds = (5, 8.0, 0.15) if quick else (9, 60.0, 0.25)

    def run(self, rows: list[tuple[str, str, int, str]] | None = None) -> dict[str, Any]:
        """All rows, peak memory and scaling."""
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(side("ours", self.threads))
            others = {}
            if self.torch:
                others = {n: stack.enter_context(side("torch", self.threads, e)) for n, e in ALLOCATORS.items()}
            if self.jax:
                limits = ONE_THREAD if self.threads == 1 else {}
                others["JAX"] = stack.enter_context(side("jax", self.threads, limits))
            for name, there in (("PyTorch", self.torch), ("JAX", self.jax)):
                if not there:
                    self.say(f"{name} is not installed: it is not measured")
            versions: dict[str, str] = {}
            for s in (ours, *others.values()):
                versions |= s.ask("versions")
            self.say(f"BLAS of our side: {versions['BLAS']}")
            result = [self.row(ours, others, *row) for row in (plan(self.quick) if rows is None else rows)]
            scaling = self.scaling(ours)
        result += self.peaks()
        return {
            "date": date.today().isoformat(),
            "machine": machine(self.cores),
            "threads": self.threads,
            "versions": versions,
            "quick": self.quick,
            "rows": result,
            "scaling": scaling,
        }

    def row(
        self, ours: Side, others: dict[str, Side], operation: str, config: str, batch: int, dtype: str
    ) -> dict[str, Any]:
        """One row: both sides agree on the numbers, then they are timed in turn."""
        about = {"config": config, "batch": batch, "dtype": dtype, "threads": self.threads}
        variants = {"ours": (ours, "ours")}
        loss = ours.ask("setup", key="ours", operation=operation, **about)
        if operation == "forward_backward":
            ours.ask("setup", key="floor", operation="floor", **about)
            variants["floor"] = (ours, "floor")
        for name, process, options in opponents():
            if (s := others.get(process)) is None:
                continue
            other = s.ask("setup", key=name, operation=operation, **about, **options)
            if not math.isclose(loss, other, rel_tol=1e-4):
                raise SideError(f"{operation}, {config}, {batch}, {dtype}: the losses are {loss} and {other}, {name}")
            variants[name] = (s, name)
        if others and operation == "forward_backward" and batch <= 256:
            for s in others.values():
                same_switching(ours.ask("norms", **about), s.ask("norms", **about))
        found = summary(rounds(variants, self.wanted, self.budget, self.seconds, self.cores), self.wanted)
        for s in {ours, *others.values()}:
            s.ask("drop")
        row = {
            "operation": operation,
            "config": config,
            "batch": batch,
            "dtype": dtype,
            **found,
            "ours_peak_mib": None,
            "other_peak_mib": None,
        }
        self.say(line(row))
        return row

    def peaks(self) -> list[dict[str, Any]]:
        """Peak memory above the resident data, each in a fresh process."""
        cases = [("full_batch_step", "lenet5", b, "float32") for b in ((1024,) if self.quick else MEMORY_BATCHES)]
        rows = []
        for operation, config, batch, dtype in cases:
            about = {"config": config, "batch": batch, "dtype": dtype}
            peak: dict[str, float | None] = {"ours": None, "torch": None}
            for name in ("ours", "torch") if self.torch and batch <= TORCH_MEMORY_BATCH else ("ours",):
                with side(name, self.threads) as s:
                    extra = {"channels_last": False} if name == "torch" else {}
                    s.ask("norms", **{**about, "batch": 8}, threads=self.threads)  # libraries loaded, code warm
                    base = s.ask("baseline", **about)
                    s.ask("setup", key="x", operation=operation, threads=self.threads, **about, **extra)
                    peak[name] = s.ask("memory", key="x")["peak"] - base
            timings = dict.fromkeys(("ours_ms", "other_ms", "other_variant", "ratio", "floor_ms"))
            row = {"operation": "peak_memory", **about, **timings}
            row |= {"ours_peak_mib": peak["ours"], "other_peak_mib": peak["torch"]}
            rows.append(row)
            self.say(line(row))
        return rows

    def scaling(self, ours: Side) -> dict[str, list[tuple[float, float]]]:
        """(size, microseconds per image) of a forward and a backward sweep in float32: growing batch, depth, width."""
        batches = (
            (1, 4, 16, 64, 256, 1024) if self.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
        )
        widths, depths = ((4, 8), (1, 2)) if self.quick else ((4, 8, 16, 32, 64), (1, 2, 4, 8, 16))
        cases = {
            "batch": [(b, "lenet5", b) for b in batches],
            "width": [(w, f"residual:{w}:1", 64) for w in widths],
            "depth": [(3 * n, f"residual:8:{n}", 64) for n in depths],
        }
        found: dict[str, list[tuple[float, float]]] = {}
        for name, points in cases.items():
            found[name] = []
            for size, config, batch in points:
                ours.ask(
                    "setup",
                    key="x",
                    operation="forward_backward",
                    config=config,
                    batch=batch,
                    dtype="float32",
                    threads=self.threads,
                )
                done = rounds({"ours": (ours, "x")}, 3, self.budget / 6, self.seconds, self.cores)
                found[name].append((size, 1e3 * summary(done, 3)["ours_ms"] / batch))
                ours.ask("drop")
            self.say(f"{name}: time per image grows with power {slope(found[name]):.2f}")
        return found


def opponents() -> list[tuple[str, str, dict[str, Any]]]:
    """(variant, process, options of its set-up): PyTorch eager in both layouts under both allocators, compiled under
    the better one, and JAX."""
    eager = [
        (f"{layout}, {allocator}", allocator, {"channels_last": last})
        for allocator in ALLOCATORS
        for layout, last in LAYOUTS.items()
    ]
    compiled = ("compiled, tuned allocator", "tuned allocator", {"channels_last": False, "how": "compiled"})
    return [*eager, compiled, ("JAX", "JAX", {})]


def same_switching(ours: list[float], other: list[float]) -> None:
    """Raise SideError unless both sides found switching functions of the same norms."""
    largest = max(other)
    for a, b in zip(ours, other, strict=True):
        if abs(a - b) > 1e-3 * largest:  # float32 on both sides, summed in different orders
            raise SideError(f"norms of the switching functions differ: {ours} and {other}")


def slope(points: list[tuple[float, float]]) -> float:
    """Least-squares slope of log time against log size."""
    logs = [(math.log(a), math.log(b)) for a, b in points]
    mean_a, mean_b = (sum(p[i] for p in logs) / len(logs) for i in (0, 1))
    return sum((a - mean_a) * (b - mean_b) for a, b in logs) / sum((a - mean_a) ** 2 for a, _ in logs)


def machine(cores: int) -> str:
    """The machine in words."""
    info = Path("/proc/cpuinfo")
    vectors = " with AVX-512" if info.exists() and "avx512f" in info.read_text() else ""
    return f"{cores} cores, {platform.machine().replace('_', '-')}{vectors}"


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    head = f"{row['operation']:17s} {row['config']:13s} {row['batch']:6d} {row['dtype']}"
    if row["operation"] == "peak_memory":
        other = "not measured" if row["other_peak_mib"] is None else f"{row['other_peak_mib']:.0f} MiB"
        return f"{head}  ours {row['ours_peak_mib']:.0f} MiB, PyTorch {other}"
    text = f"{head}  ours {row['ours_ms']:9.2f} ms"
    if row["other_ms"] is not None:
        text += (
            f"  best opponent {row['other_ms']:9.2f} ms ({row['other_variant']})  ratio {row['ratio']:.2f} "
            f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
        )
    if row["discarded"]:
        text += f"  {row['discarded']} rounds with other load"
    return text + ("  NO QUIET ROUND: the least disturbed ones were used" if row["busy"] else "")
