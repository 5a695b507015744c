"""Several MPI ranks compute what one process does, bit for bit. Skipped, with the reason, where mpi4py is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from pmp_ref.kernels.ranks import borders, roundest
from pmp_ref.summation import subtrees
from tests.backends import probe

ROOT = Path(__file__).parents[1]
RANKS = 4


def mpiexec() -> str | None:
    """The launcher beside this Python, or any other."""
    return shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")


def missing() -> str | None:
    """Why no rank can be started here; None if they can."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed: pip install mpi4py mpich"
    return None if mpiexec() else "there is no mpiexec: pip install mpich"


needs_mpi = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def launch(*arguments: str, ranks: int = RANKS, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """A Python program on so many ranks."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    command = [str(mpiexec()), "-n", str(ranks), sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout
    )


@cache
def digests(*arguments: str, ranks: int = RANKS) -> dict[str, dict[int, set[str]]]:
    """Case → number of ranks → digests of all its ranks."""
    done = launch("-W", "error", "-m", "tests.ranks_program", *arguments, ranks=ranks)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in done.stdout.splitlines():
        name, ranks, digest = line.split(";")
        found[name][int(ranks)].add(digest)
    return found


CASES = (
    "full batch",
    "full batch, states not kept",
    "full batch, clear",
    "full batch, float64, replicated",
    "full batch, classic rule, two threads",
    "full batch, one chunk",
    "mini-batches",
    "mini-batches, replicated",
    "mini-batches, a metric for each layer",
    "mini-batches, groups",
    "mini-batches, array_api_strict",
    "full batch, dead units",
    "mini-batches, dead units",
    "mini-batches, test at the end of an epoch",
)


@needs_mpi
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_ranks_gives_the_same_bits(name: str) -> None:
    """Controls, records and status of every rank, on 1 to 4 ranks, are those of a process without MPI (0)."""
    found = digests()[name]
    assert set(found) == set(range(RANKS + 1))
    assert len(set().union(*found.values())) == 1, {ranks: len(digests) for ranks, digests in found.items()}


@needs_mpi
def test_every_case_is_compared_and_cases_differ() -> None:
    """So the digests can tell runs apart; sliced and replicated arithmetic, kept states or not, are the same run."""
    found = digests()
    assert set(found) == set(CASES)
    assert found["mini-batches"][0] == found["mini-batches, replicated"][0]
    assert len({next(iter(found[name][0])) for name in CASES}) >= len(CASES) - 2


@needs_mpi
def test_on_gpus_any_number_of_ranks_gives_the_same_bits() -> None:
    """One to three ranks with CuPy's arrays, through pinned memory of the host."""
    if reason := probe("cupy"):
        pytest.skip(f"backend cupy: {reason}")
    found = digests("cupy", ranks=3)
    assert len(found) == 2
    for by_ranks in found.values():
        assert set(by_ranks) == {1, 2, 3} and len(set().union(*by_ranks.values())) == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 32, 33, 100])
def test_terms_are_shared_evenly_at_round_numbers(count: int, ranks: int) -> None:
    """No rank has more terms than needs be, and no more complete subtrees than twice the digits of their number."""
    found = borders(count, ranks)
    parts = [b - a for a, b in pairwise(found)]
    assert len(parts) == ranks and sum(parts) == count and min(parts) >= 0
    assert max(parts) == -(-count // ranks)
    for a, b in pairwise(found):
        assert sum(2**h for _, h in subtrees(a, b)) == b - a
        assert len(subtrees(a, b)) <= 2 * (b - a).bit_length()


def test_borders_are_round() -> None:
    assert borders(32, 4) == (0, 8, 16, 24, 32)
    assert borders(32, 3) == (0, 10, 21, 32)


def test_the_roundest_number_is_found() -> None:
    for low in range(40):
        for high in range(low, 40):
            best = max(range(low, high + 1), key=lambda n: (n & -n if n else 2**20, -n))
            assert roundest(low, high) % (best & -best if best else 1) == 0
            assert low <= roundest(low, high) <= high
