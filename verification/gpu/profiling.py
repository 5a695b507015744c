"""One step looked into: which kernels run how long, and what the host asks of the driver for them."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from verification.gpu.measure import make, settle, synchroniser
from verification.gpu.plan import Row
from verification.performance.configurations import case

CALLS = 5  # looked into; what is stored is for one
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
HOST = ("cuda_runtime", "cuda_driver")
NOTE = "the profiler slows the host: only the time without it, measured just before, is that of the step"


def profile(row: Row, backend: str, device: str) -> dict[str, Any]:
    """Kernels and calls of one operation of the row's one side. PyTorch's profiler sees all of the process, and slows
    what is done in it from the first profile on."""
    import torch

    settle()
    side = row.sides[0]
    f = make(side, row, case(row.config, row.batch, row.dtype), backend, device)
    wait = synchroniser(side, backend, device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device != "cpu":
        torch.zeros(1, device=device)
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for _ in range(10):
        f()
    wait()
    with torch.profiler.profile(activities=activities) as seen:
        start = time.perf_counter()
        for _ in range(CALLS):
            f()
        wait()
        seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return {"µs with the profiler": round(1e6 * seconds / CALLS, 1), "note": NOTE, **table(events, CALLS)}


def table(events: list[dict[str, Any]], calls: int) -> dict[str, Any]:
    """Events of a trace by name: number and microseconds for one of the calls, the longest first."""
    number: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    asked_microseconds: Counter[str] = Counter()
    first: list[float] = []
    last: list[float] = []
    for event in events:
        kind = str(event.get("cat", "")).lower()
        if event.get("ph") != "X" or kind not in DEVICE + HOST:
            continue
        name, duration = str(event.get("name", "")), float(event.get("dur", 0.0))
        if kind in HOST:
            asked[name] += 1
            asked_microseconds[name] += duration  # type: ignore[assignment]
        else:
            number[name] += 1
            microseconds[name] += duration  # type: ignore[assignment]
            first.append(float(event["ts"]))
            last.append(float(event["ts"]) + duration)
    return {
        "device µs": round(sum(microseconds.values()) / calls, 1),
        "device span µs": round((max(last) - min(first)) / calls, 1) if first else 0.0,
        "kernels": [
            {"name": name[:200], "count": number[name] / calls, "µs": round(total / calls, 2)}
            for name, total in microseconds.most_common()
        ],
        "calls": [
            {"name": name, "count": count / calls, "µs": round(asked_microseconds[name] / calls, 1)}
            for name, count in asked.most_common()
        ],
    }
