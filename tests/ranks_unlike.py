"""``pmp-ref`` on MPI ranks of which rank 1 is another: ``python -m tests.ranks_unlike HOW train …``."""

from __future__ import annotations

import sys
from typing import Any

from mpi4py import MPI

from pmp_ref.app import build, run
from pmp_ref.app.main import main
from pmp_ref.errors import InputError


def versions(backend: str) -> dict[str, str]:
    """Those of an older NumPy."""
    return original_versions(backend) | {"numpy": "1.0"}


def fingerprint(dataset: Any) -> str:
    """That of other images."""
    return original_fingerprint(dataset)[::-1]


def load(name: str, **how: Any) -> Any:
    """A node without the files."""
    raise InputError(f"no file {name!r}: check the path")


def call(self: Any, it: Any, record: Any) -> bool:
    """A callback that breaks at step 3."""
    if it.step == 3:
        raise RuntimeError("planted")
    return original_call(self, it, record)


original_versions, original_fingerprint, original_call = run.versions, build.fingerprint, run.Recorder.__call__
PLANTED: dict[str, tuple[Any, str, Any]] = {
    "versions": (run, "versions", versions),
    "data": (build, "fingerprint", fingerprint),
    "files": (build, "load", load),
    "error": (run.Recorder, "__call__", call),
    "alike": (run, "versions", original_versions),
}

if __name__ == "__main__":
    how, *arguments = sys.argv[1:]
    if MPI.COMM_WORLD.rank == 1:
        setattr(*PLANTED[how])
    sys.exit(main(arguments))
