"""A run on several MPI ranks: how they are found, started, compared and ended.

``mpiexec -n 4 pmp-ref train …`` starts four processes that find each other by :func:`world`; ``--processes 4`` has
:func:`launch` start mpiexec. All ranks go the same way through the run. Rank 0 alone reads and writes the run's
directory and prints; what it finds there the others are told. Without MPI the world is one process, and nothing here
costs anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pmp_ref.accuracy import Accuracy, accuracy
from pmp_ref.arrays import Array, Controls
from pmp_ref.errors import InputError
from pmp_ref.kernels.workers import available_cores
from pmp_ref.network import Network
from pmp_ref.summation import ALONE, Alone

STARTED_BY_MPI = {  # what mpiexec and srun leave in the environment: rank, number of ranks
    "PMI_RANK": "PMI_SIZE",  # MPICH and its relatives, Slurm
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "PMIX_RANK": "",
}
LOST = 69  # exit code of a rank that reaches another one no more; the launcher makes 1 of it
COLUMNS = "PMP_REF_COLUMNS"  # width of the terminal that the launcher writes to; absent: it is none
CUDA_AWARE = "PMP_REF_CUDA_AWARE"  # 1: MPI takes arrays of the device
INSTALL = "pip install 'pmp_ref[mpi]'"

T = TypeVar("T")


class World:
    """The processes of a run: this one alone."""

    rank, size = 0, 1
    ranks: Alone = ALONE
    threads: int | None = None  # of the kernels, where none are asked for; None: as many as cores

    @property
    def first(self) -> bool:
        """True for the process that reads and writes files, and prints."""
        return self.rank == 0

    def by_first(self, f: Callable[[], bytes]) -> bytes:
        """f() of rank 0, on all ranks; an InputError there is raised on all."""
        return f()

    def agreed(self, *flags: bool) -> list[bool]:
        """Each flag is true on all ranks if it is on one."""
        return list(flags)

    def total(self, *numbers: float) -> list[float]:
        """Sums over all ranks, exact for counts."""
        return list(numbers)

    def largest(self, number: float) -> float:
        """The largest of all ranks' numbers."""
        return number

    def alike(self, build: Callable[[], T], describe: Callable[[T], dict[str, Any]]) -> T:
        """build(), made on all ranks; InputError on all of them unless it goes well and is alike everywhere."""
        return build()

    def take_device(self, backend: str) -> None:
        """Choose this rank's GPU, where there are several ranks on a node: by its number on the node."""

    def wait(self) -> None:
        """Until all ranks are here, without using the processor."""

    def abort(self, code: int) -> None:
        """End the other ranks, which wait for this one and would for ever."""


class MpiWorld(World):
    """The processes of an MPI program."""

    def __init__(self, comm: Any) -> None:
        from pmp_ref.kernels.ranks import Ranks

        self.comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.ranks = Ranks(comm, direct=os.environ.get(CUDA_AWARE) == "1")
        self.threads = self._threads()

    def _threads(self) -> int:
        """This rank's part of the cores of its node: its own where mpiexec has bound it to some."""
        mpi = importlib.import_module("mpi4py.MPI")
        node = self.comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, local = node.Get_rank(), node.Get_size()
        cores = np.zeros(4096, np.uint8)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        cores[[c for c in allowed if c < cores.size]] = 1
        node.Allreduce(mpi.IN_PLACE, cores, op=mpi.MAX)
        node.Free()
        return max(1, min(available_cores(), int(cores.sum()) // local))

    def by_first(self, f: Callable[[], bytes]) -> bytes:
        good, content = True, b""
        if self.first:
            try:
                content = f()
            except InputError as error:
                good, content = False, str(error).encode()
        head = np.array([good, len(content)], np.int64)
        self.comm.Bcast(head)
        body = np.frombuffer(content, np.uint8) if self.first else np.empty(int(head[1]), np.uint8)
        self.comm.Bcast(body.copy() if self.first else body)
        if not head[0]:
            raise InputError(body.tobytes().decode())
        return content if self.first else body.tobytes()

    def agreed(self, *flags: bool) -> list[bool]:
        mpi = importlib.import_module("mpi4py.MPI")
        found = np.array(flags, np.uint8)
        self.comm.Allreduce(mpi.IN_PLACE, found, op=mpi.MAX)
        return [bool(flag) for flag in found]

    def total(self, *numbers: float) -> list[float]:
        found = np.empty((self.size, len(numbers)))
        self.comm.Allgather(np.array(numbers, float), found)
        return [float(sum(column)) for column in found.T.tolist()]

    def largest(self, number: float) -> float:
        found = np.empty(self.size)
        self.comm.Allgather(np.array([number]), found)
        return float(np.max(found))

    def alike(self, build: Callable[[], T], describe: Callable[[T], dict[str, Any]]) -> T:
        made: Any = None
        try:
            made = build()
            mine = describe(made)
        except InputError as error:
            mine = {"error": str(error)}
        compare(self.told(mine | {"host": platform.node()}))
        return made  # type: ignore[no-any-return]

    def told(self, mine: dict[str, Any]) -> list[dict[str, Any]]:
        """What each rank has to say."""
        content = np.frombuffer(json.dumps(mine).encode(), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([content.size], np.int64), sizes)
        places = np.concatenate([[0], np.cumsum(sizes)])
        found = np.empty(int(places[-1]), np.uint8)
        self.comm.Allgatherv(content, [found, (sizes.tolist(), places[:-1].tolist())])
        return [json.loads(found[a:b].tobytes()) for a, b in pairwise(places.tolist())]

    def take_device(self, backend: str) -> None:
        if backend == "cupy":
            runtime = importlib.import_module("cupy").cuda
            runtime.Device(self.local_rank % runtime.runtime.getDeviceCount()).use()

    def wait(self) -> None:
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(0.01)

    def abort(self, code: int) -> None:
        end_others(code)


WHAT = {
    "versions": "has {mine}, rank 0 has {first}: give all ranks one environment",
    "options": "was given {mine}, rank 0 {first}: give all ranks one command line",
    "data": "reads other training data than rank 0: give all nodes the same files",
    "controls": "starts from other controls than rank 0: give all ranks one environment",
}


def compare(all_ranks: list[dict[str, Any]]) -> None:
    """InputError, naming the first rank that failed or differs from rank 0; one that all ranks met as it is."""
    errors = [r.get("error") for r in all_ranks]
    if errors[0] is not None and len(set(errors)) == 1:
        raise InputError(errors[0])
    for rank, (error, told) in enumerate(zip(errors, all_ranks, strict=True)):
        if error is not None:
            raise InputError(f"rank {rank} (on {told['host']}): {error}")
    for rank, told in enumerate(all_ranks):
        for name, sentence in WHAT.items():
            if told.get(name) != all_ranks[0].get(name):
                mine, first = different(told.get(name), all_ranks[0].get(name))
                raise InputError(f"rank {rank} (on {told['host']}) {sentence.format(mine=mine, first=first)}")


def different(mine: Any, first: Any) -> tuple[str, str]:
    """The first entry in which two dictionaries differ, in words; other values as they are."""
    if isinstance(mine, dict) and isinstance(first, dict):
        name = next(n for n in {**first, **mine} if mine.get(n) != first.get(n))
        return f"{name} {mine.get(name)}", f"{name} {first.get(name)}"
    return str(mine), str(first)


def started() -> tuple[int, int | None] | None:
    """(rank, number of ranks or None) where mpiexec has started this process; None where it has not."""
    for rank, size in STARTED_BY_MPI.items():
        if os.environ.get(rank, "").isdecimal():
            number = os.environ.get(size, "")
            return int(os.environ[rank]), int(number) if number.isdecimal() else None
    return None


def world() -> World:
    """The processes of this run. InputError if mpiexec has started several that cannot speak to each other."""
    place = started()
    if place is None or place[1] == 1:
        return World()
    _, size = place
    try:
        comm = importlib.import_module("mpi4py.MPI").COMM_WORLD
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"mpiexec started this run, but mpi4py cannot be imported ({' '.join(str(error).split())[:200]}): {INSTALL}"
        ) from None
    if size is not None and comm.Get_size() != size:
        raise InputError(
            f"mpiexec started {size} processes, and mpi4py sees {comm.Get_size()}: they belong to two MPI libraries; "
            "use the mpiexec of the one that mpi4py loads"
        )
    return World() if comm.Get_size() == 1 else MpiWorld(comm)


def may_print() -> bool:
    """False for a process that mpiexec has started as another than rank 0."""
    place = started()
    return place is None or place[0] == 0


def shared_accuracy(world: World, network: Network, controls: Controls, x: Array, y: Array) -> Accuracy:
    """Accuracy on (x, y); each rank looks at its part of the images, and all must ask."""
    samples = x.shape[0]
    own = slice(samples * world.rank // world.size, samples * (world.rank + 1) // world.size)
    return Accuracy(int(world.total(accuracy(network, controls, x[own, ...], y[own]).correct)[0]), samples)


def here() -> str:
    """ "rank 2: " where mpiexec has started several; else nothing."""
    place = started()
    return "" if place is None or place[1] == 1 else f"rank {place[0]}: "


def lost_another(error: Exception) -> bool:
    """Whether MPI says that it reaches another rank no more: that one has died, and mpiexec has not yet ended us."""
    return "mpi4py.MPI" in sys.modules and isinstance(error, sys.modules["mpi4py.MPI"].Exception)


def end_others(code: int) -> None:
    """End all ranks, which would wait for this one for ever; nothing where there are no others."""
    if started() is None or "mpi4py.MPI" not in sys.modules:
        return
    comm = importlib.import_module("mpi4py.MPI").COMM_WORLD
    if comm.Get_size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        comm.Abort(code)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """``pmp-ref train`` with these arguments on so many ranks of this machine; its exit code."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    if importlib.util.find_spec("mpi4py") is None or mpiexec is None:
        lacking = "mpi4py" if importlib.util.find_spec("mpi4py") is None else "mpiexec"
        raise InputError(f"--processes {processes}: {lacking} is not there; {INSTALL}, or leave --processes out")
    environment = dict(os.environ)
    if sys.stderr.isatty():
        environment[COLUMNS] = str(shutil.get_terminal_size().columns)
    command = [mpiexec, "-n", str(processes), sys.executable, "-m", "pmp_ref", "train", *arguments]
    asked: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: Any) -> None:
        asked.append(number)
        for run in running:
            run.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        running.append(run)
        for number in asked:  # before there was anyone to forward it to
            run.send_signal(number)
        assert run.stdout is not None
        died = False
        for line in run.stdout:
            died = died or line.startswith(b"=====")  # MPICH's report of a rank's death, to the end of the output
            if not (died or line.startswith(b"[mpiexec@") or not line.strip()):
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        code = run.wait()
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
    if len(asked) > 1 and code:
        print("stopped at once; the last checkpoint stands")
        return 130
    if not died and code in (0, 1, 2, 3, 130):
        return code
    print(
        f"pmp-ref: error: a rank died (mpiexec ended with code {code}), and the others were ended; the last checkpoint "
        "is intact: go on with --resume",
        file=sys.stderr,
    )
    return 1
