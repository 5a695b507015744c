"""The floor: the matrix products of a forward and a backward sweep alone, in the shapes the kernels use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.sweep import ChunkSweep
from pmp_ref.kernels.workers import Threads
from pmp_ref.loss import CrossEntropy
from verification.performance.configurations import Case

Product = tuple[np.ndarray, np.ndarray, np.ndarray]


def products(case: Case, sweep: FastSweep, rows: slice) -> list[Product]:
    """The factors and results of every product of one chunk, recorded while it is swept."""
    found: list[Product] = []
    matmul = np.matmul

    def record(a: np.ndarray, b: np.ndarray, out: Any = None) -> np.ndarray:
        result = matmul(a, b) if out is None else matmul(a, b, out=out)
        found.append((a, b, result))
        return result

    chunk = ChunkSweep(sweep, case.controls, sweep.plan.prepare(case.controls), len(case.y), True)
    with mock.patch.object(np, "matmul", record):
        chunk((case.x[rows], case.y[rows], None))
    return found


def operation(case: Case, threads: int) -> Callable[[], float]:
    """All products of the batch, chunks on ``threads`` threads, nothing else."""
    sweep = FastSweep(case.network, CrossEntropy(), threads=threads)
    cuts = list(sweep.chunks(case.x))
    kinds = {cut.stop - cut.start: cut for cut in cuts}
    # as many copies as threads, since threads do not share their arrays either
    recorded = {n: [products(case, sweep, cut) for _ in range(threads)] for n, cut in kinds.items()}

    def chunk(item: tuple[int, int]) -> None:
        for a, b, out in recorded[item[0]][item[1] % threads]:
            np.matmul(a, b, out=out)

    items = [(cut.stop - cut.start, i) for i, cut in enumerate(cuts)]

    def run() -> float:
        with one_thread():
            for _ in Threads(threads)(chunk, items):
                pass
        return 0.0

    return run
