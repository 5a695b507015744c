"""Paired measurement: both sides in turn, again and again; ratios of neighbours; busy rounds discarded."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from verification.performance.load import now, other_load

ROOT = Path(__file__).parents[2]
# A round is discarded if others used more than this part of the cores. Ticks of 10 ms make smaller loads unmeasurable.
BUSY = 0.10
# glibc's allocator told to keep freed memory instead of giving it back and faulting it in again
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}
# They make OpenBLAS take the kernels of an older processor or smaller blocks: a side never runs under them
THROTTLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class SideError(RuntimeError):
    """A side could not do what it was asked; the message is its reason."""


class Side:
    """A worker process and the line it is spoken to over."""

    def __init__(
        self, side: str, threads: int, environment: dict[str, str] | None = None, command: tuple[str, ...] = ()
    ) -> None:
        """``command`` takes the place of that which starts the side."""
        settings = {
            **{name: value for name, value in os.environ.items() if name not in THROTTLES},
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            **(environment or {}),
        }
        self.process = subprocess.Popen(
            command or (sys.executable, "-m", "verification.performance.worker", side),
            cwd=ROOT,
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a command and wait for the answer; raises SideError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SideError(f"the process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def side(
    name: str, threads: int, environment: dict[str, str] | None = None, command: tuple[str, ...] = ()
) -> Iterator[Side]:
    """A side for as long as the context lasts."""
    s = Side(name, threads, environment, command)
    try:
        yield s
    finally:
        s.close()


@dataclass(frozen=True)
class Round:
    """Milliseconds of every variant, measured one after the other, and what others used of the cores meanwhile."""

    ms: dict[str, float]
    load: float | None

    @property
    def quiet(self) -> bool:
        """False if other load was measured."""
        return self.load is None or self.load <= BUSY


def one_round(variants: dict[str, tuple[Side, str]], seconds: float, cores: int) -> Round:
    """Each variant for some tenths of a second, in turn."""
    ms, own, start = {}, 0.0, now()
    for name, (s, key) in variants.items():
        answer = s.ask("time", key=key, seconds=seconds)
        ms[name] = answer["ms"]
        own += answer["own"]
    return Round(ms, other_load(start, now(), own, cores))


def rounds(
    variants: dict[str, tuple[Side, str]], wanted: int, budget: float, seconds: float, cores: int
) -> list[Round]:
    """Rounds until ``wanted`` of them were quiet, or ``budget`` seconds have passed; three at least."""
    done: list[Round] = []
    start = now().clock
    while len(done) < 3 or (now().clock - start < budget and sum(r.quiet for r in done) < wanted):
        done.append(one_round(variants, seconds, cores))
    return done


def kept(done: list[Round], wanted: int) -> list[Round]:
    """The quiet rounds; where there is none, the ``wanted`` least disturbed ones, to be marked as such."""
    quiet = [r for r in done if r.quiet]
    return quiet or sorted(done, key=lambda r: r.load or 0.0)[:wanted]


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return middle, low, high


def summary(done: list[Round], wanted: int) -> dict[str, Any]:
    """Medians of times, and of the ratios ours/other taken round by round, for the best of the other's variants.

    The best variant is the one whose median time is lowest.
    """
    use = kept(done, wanted)
    result: dict[str, Any] = {
        "ours_ms": median(r.ms["ours"] for r in use),
        "floor_ms": median(r.ms["floor"] for r in use) if "floor" in use[0].ms else None,
        "other_ms": None,
        "other_variant": None,
        "ratio": None,
        "ratio_low": None,
        "ratio_high": None,
        "ratio_default": None,
        "variants": {},
        "rounds": len(use),
        "discarded": sum(not r.quiet for r in done),
        "busy": not any(r.quiet for r in done),
    }
    names = [n for n in use[0].ms if n not in ("ours", "floor")]
    if names:
        result["variants"] = {n: median(r.ms[n] for r in use) for n in names}
        best = min(names, key=lambda n: result["variants"][n])
        result["other_ms"], result["other_variant"] = result["variants"][best], best
        result["ratio"], result["ratio_low"], result["ratio_high"] = spread([r.ms["ours"] / r.ms[best] for r in use])
        default = "contiguous, default allocator"
        if default in names:
            result["ratio_default"] = median(r.ms["ours"] / r.ms[default] for r in use)
    return result
