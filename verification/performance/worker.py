"""One side of the benchmark in a process of its own: commands as JSON lines in, answers out.

``python -m verification.performance.worker ours``, ``… torch``, ``… jax`` or ``… live``. Separate processes, since
allocator settings are fixed when a process starts, and since no side's threads shall disturb another's.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

from verification.performance.configurations import case
from verification.performance.pairs import THROTTLES


def own_seconds() -> float:
    """Processor time of this process, all threads."""
    t = os.times()
    return t.user + t.system


def resident(field: str) -> float:
    """MiB of this process: VmRSS (now) or VmHWM (peak)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1024


MODULES = {"ours": "ours", "torch": "opponent", "jax": "opponent_jax"}


def blas() -> str:
    """The BLAS that NumPy calls and the kernels that it has chosen; what makes it choose others is named."""
    found = [p for p in ThreadpoolController().info() if p["user_api"] == "blas"]
    names = {f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in found}
    throttled = [name for name in THROTTLES if name in os.environ]
    return ", ".join(sorted(names)) + (f", THROTTLED by {' and '.join(throttled)}" if throttled else "")


class Worker:
    """Keeps the operations that were set up."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.tasks: dict[str, Any] = {}
        self.data: dict[tuple[str, int, str], Any] = {}
        if side == "torch":
            importlib.import_module("torch")

    def answer(self, command: dict[str, Any]) -> Any:
        return getattr(self, command.pop("do"))(**command)

    def case(self, *which: Any) -> Any:
        """The data, made once."""
        if which not in self.data:
            self.data = {which: case(*which)}
        return self.data[which]

    def versions(self) -> dict[str, str]:
        import numpy as np

        if self.side != "ours":
            return {self.side: importlib.import_module(self.side).__version__}
        return {"numpy": np.__version__, "python": sys.version.split()[0], "BLAS": blas()}

    def module(self) -> Any:
        """Where this side's operations are."""
        return importlib.import_module(f"verification.performance.{MODULES[self.side]}")

    def setup(
        self, key: str, operation: str, config: str, batch: int, dtype: str, threads: int, **options: Any
    ) -> float:
        """Make an operation ready; returns the loss it found."""
        data = self.case(config, batch, dtype)
        if operation == "floor":
            module = importlib.import_module("verification.performance.floor")
            self.tasks[key] = module.operation(data, threads)
        else:
            self.tasks[key] = self.module().operation(operation, data, threads, **options)
        self.tasks[key]()
        return self.tasks[key]()

    def drop(self) -> None:
        """Forget all operations."""
        self.tasks.clear()

    def norms(self, config: str, batch: int, dtype: str, threads: int) -> list[float]:
        """Norms of the switching functions, to see that both sides compute the same."""
        return self.module().switching_norms(self.case(config, batch, dtype), threads)

    def time(self, key: str, seconds: float) -> dict[str, float]:
        """Repeat an operation for about that long; milliseconds of one and the processor time of all."""
        run, own, start, n = self.tasks[key], own_seconds(), time.perf_counter(), 0
        while True:
            run()
            n += 1
            spent = time.perf_counter() - start
            if spent >= seconds:
                return {"ms": 1e3 * spent / n, "own": own_seconds() - own}

    def memory(self, key: str) -> dict[str, float]:
        """Peak memory of three runs above what was resident before anything was set up, MiB."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        for _ in range(3):
            self.tasks[key]()
        return {"peak": resident("VmHWM")}

    def live(self, quick: bool) -> dict[str, Any]:
        """A training run, step by step (``live.py``)."""
        from verification.performance import live

        return live.in_worker(quick)

    def baseline(self, config: str, batch: int, dtype: str) -> float:
        """MiB resident with the data loaded and nothing done yet."""
        self.case(config, batch, dtype)
        return resident("VmRSS")


def main() -> None:
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = {"answer": worker.answer(json.loads(line))}
        except Exception as error:  # told to the parent, which decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
