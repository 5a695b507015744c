"""Run by ``mpiexec`` in ``test_ranks.py``: the same runs on 1, 2, … ranks, and a digest of what each rank found.

``python -m tests.ranks_program`` writes lines "case;ranks;digest", one for each rank; 0 ranks: without MPI. With the
argument ``cupy`` the cases are those of a GPU; there 0 ranks is left out, for one process cuts a batch otherwise.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from pmp_ref import controls
from pmp_ref.architectures import lenet5
from pmp_ref.arrays import UNIT, Controls, to_numpy
from pmp_ref.augmentation import ClassicRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of
from pmp_ref.errors import ScaleWarning
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import make_sweep
from pmp_ref.kernels.ranks import Ranks
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric, LayerMetric
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, GroupL0
from pmp_ref.result import Run
from pmp_ref.stop import Stop
from pmp_ref.summation import ALONE, Alone
from verification.libraries import load

controls.BLOCK = 2 * UNIT  # so that each rank has several blocks of entries

NETWORK, LOSS = lenet5((1, 16, 16)), CrossEntropy()
SAMPLES = 75  # in chunks of 16 the last has 11; batches of 37 or 38 samples have three chunks, fewer than ranks
MINI = Method(metric=GradientMetric(), averaging=Averaging(0.9))
FIRST = NETWORK.layers()[0]
GROUPS = tuple(  # L0 of whole filters in the first kernel, which is then a kind of its own
    tuple(GroupL0() if l == FIRST and len(shape) > 1 else L0() for shape in stage)
    for l, stage in enumerate(NETWORK.control_shapes)
)
CASES: dict[str, dict[str, Any]] = {
    "full batch": {},
    "full batch, states not kept": {"memory": 0},
    "full batch, clear": {"fast": False},
    "full batch, float64, replicated": {"dtype": np.float64, "sliced": False},
    "full batch, classic rule, two threads": {"method": Method(rule=ClassicRule(eps0=0.5)), "threads": 2},
    "full batch, one chunk": {"chunk": 100},
    "mini-batches": {"method": MINI, "batch": 40},
    "mini-batches, replicated": {"method": MINI, "batch": 40, "sliced": False},
    "mini-batches, a metric for each layer": {"method": Method(metric=LayerMetric()), "batch": 40},
    "mini-batches, groups": {"method": MINI, "batch": 40, "regulariser": GROUPS},
    "mini-batches, array_api_strict": {"method": MINI, "batch": 40, "library": "array_api_strict"},
    "full batch, dead units": {"dead": True},
    "mini-batches, dead units": {"dead": True, "method": MINI, "batch": 40},
    "mini-batches, test at the end of an epoch": {"method": MINI, "batch": 40, "increment": 1e-12},
}

ON_GPU: dict[str, dict[str, Any]] = {
    "GPU, full batch": {"library": "cupy"},
    "GPU, mini-batches": {"method": MINI, "batch": 40, "library": "cupy"},
}


def run(
    ranks: Alone,
    method: Method | None = None,
    batch: int | None = None,
    dtype: Any = np.float32,
    fast: bool = True,
    memory: int | None = None,
    threads: int = 1,
    chunk: int = 16,
    regulariser: Any = None,
    increment: float = 0.0,
    library: str = "numpy",
    dead: bool = False,
) -> Run:
    """A short run."""
    rng = np.random.default_rng(3)
    asarray = load(library).asarray
    x = asarray(rng.standard_normal((SAMPLES, *NETWORK.input_shape)).astype(dtype))
    y = asarray(rng.integers(0, 10, SAMPLES))
    kind = fast if library == "numpy" else None
    sweep = make_sweep(NETWORK, LOSS, kind, threads=threads, example=x, chunk=chunk, memory=memory, ranks=ranks)
    problem = Problem(NETWORK, LOSS, regulariser or L0(), rho=1e-3, sweep=sweep)
    u = initial_controls(NETWORK, 0, x)
    if dead:
        u = with_dead_units(u)
    stop = Stop(steps=5, increment=increment)
    return bsqh(problem, u, x, y, stop=stop, method=method, batch_size=batch, seed=1)


def with_dead_units(u: Controls) -> Controls:
    """The controls with every second unit between the kernels dead, so that the rest alone is swept (T22)."""
    for maker, reader in pairwise(NETWORK.layers()):
        kernel, read = u[maker][0], u[reader][0]
        kernel[::2] = 0
        read.reshape(read.shape[0], kernel.shape[0], -1)[:, ::2] = 0
    return u


def digest(found: Run) -> bytes:
    """Of controls and records, bit by bit."""
    made = hashlib.sha256(repr((str(found.status), [astuple(r) for r in found.records])).encode())
    for a in arrays_of(found.controls):
        made.update(np.ascontiguousarray(to_numpy(a)).tobytes())
    return made.digest()


def main() -> None:
    """All cases on all numbers of ranks."""
    warnings.simplefilter("ignore", ScaleWarning)
    world = MPI.COMM_WORLD
    gpu = sys.argv[1:] == ["cupy"]
    for name, options in (ON_GPU if gpu else CASES).items():
        for size in range(int(gpu), world.size + 1):
            count = max(size, 1)
            comm = world.Split(0 if world.rank < count else MPI.UNDEFINED)
            if comm != MPI.COMM_NULL:
                settings = dict(options)
                sliced = settings.pop("sliced", True)
                mine = np.frombuffer(digest(run(Ranks(comm, sliced) if size else ALONE, **settings)), np.uint8)
                found = np.empty((count, mine.size), np.uint8)
                comm.Gather(mine, found)
                if comm.rank == 0:
                    for row in found:
                        print(f"{name};{size};{row.tobytes().hex()}", flush=True)
                comm.Free()
            world.Barrier()


if __name__ == "__main__":
    main()
