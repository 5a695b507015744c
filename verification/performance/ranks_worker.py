"""A side of the benchmark on MPI ranks: ``mpiexec -n 2 python -m verification.performance.ranks_worker``.

Rank 0 reads commands and answers them as ``worker.py`` does; the other ranks are told each command and do the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from pmp_ref.controls import plain_layout
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.ranks import Ranks, even
from pmp_ref.loss import CrossEntropy
from verification.performance.configurations import case
from verification.performance.ours import on_sweep


class RanksWorker:
    """Keeps the operations that were set up."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.tasks: dict[str, Any] = {}

    def setup(
        self, key: str, operation: str, config: str, batch: int, dtype: str, threads: int, sliced: bool = True
    ) -> float:
        """Make an operation ready; returns the loss it found."""
        data, ranks = case(config, batch, dtype), Ranks(self.comm, sliced)
        if operation == "exchange":  # what a mini-batch step moves: a sum to slices, slices to all, two small sums
            layout = plain_layout(data.network.control_shapes)
            bounds, size = even(layout.size, ranks.size), layout.size
            mine = [np.ones(size, dtype) for _ in ranks.part(ranks.size)]

            def exchange() -> float:
                part = ranks.added(ranks.size, mine, bounds, ranks.room(mine[0]))
                whole = ranks.gathered(part, bounds)
                for _ in range(2):
                    ranks.exchanged(np.ones((len(ranks.part(ranks.size)), 4)), ranks.size, [], None)
                return float(whole[0])

            self.tasks[key] = exchange
        elif operation == "latency":
            self.tasks[key] = lambda: float(
                ranks.exchanged(np.ones((len(ranks.part(ranks.size)), 4)), ranks.size, [], None)[0]
            )
        else:
            sweep = FastSweep(data.network, CrossEntropy(), threads=threads, ranks=ranks)
            self.tasks[key] = on_sweep(operation, data, sweep)
        self.tasks[key]()
        return self.tasks[key]()  # type: ignore[no-any-return]

    def drop(self) -> None:
        """Forget all operations."""
        self.tasks.clear()

    def time(self, key: str, seconds: float) -> dict[str, float]:
        """Repeat an operation for about that long; milliseconds of one and the processor time of all ranks."""
        run = self.tasks[key]
        self.comm.Barrier()
        begun = time.perf_counter()
        run()
        count = np.array([max(1, round(seconds / (time.perf_counter() - begun)))])
        self.comm.Bcast(count)
        self.comm.Barrier()
        own, start = own_seconds(), time.perf_counter()
        for _ in range(int(count[0])):
            run()
        self.comm.Barrier()
        spent = time.perf_counter() - start
        used = np.array([own_seconds() - own])
        self.comm.Allreduce(MPI.IN_PLACE, used)
        return {"ms": 1e3 * spent / int(count[0]), "own": float(used[0])}


def own_seconds() -> float:
    """Processor time of this process, all threads."""
    t = os.times()
    return t.user + t.system


def told(comm: Any, line: str) -> str:
    """The line that rank 0 has read, on all ranks."""
    content = np.frombuffer(line.encode(), np.uint8).copy()
    size = np.array([content.size])
    request = comm.Ibcast(size)
    while not request.Test():
        time.sleep(0.002)  # a rank that waits inside MPI would take a core from the groups whose turn it is
    if comm.rank:
        content = np.empty(int(size[0]), np.uint8)
    comm.Bcast(content)
    return content.tobytes().decode()


def main() -> None:
    comm = MPI.COMM_WORLD
    worker = RanksWorker(comm)
    while command := told(comm, sys.stdin.readline() if comm.rank == 0 else ""):
        given = json.loads(command)
        answer = getattr(worker, given.pop("do"))(**given)
        if comm.rank == 0:
            sys.stdout.write(json.dumps({"answer": answer}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
