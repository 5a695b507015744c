"""One cell of the kill matrix: a claim in its micro profile under a planted fault.

The kill matrix always runs in the micro profile from seed 0 on NumPy in float64, so that it is the same in every run.
A cell is

* "caught": the claim made its checks under the fault and at least one failed (a breakdown of the core is a failed
  check, see ``claim.BREAKDOWNS``);
* "survived": the planted code ran, and all checks passed;
* "not executed": the claim never calls the function that holds the fault, so its result is that without the fault
  (claims are deterministic; the functions called are recorded in an unfaulted run), or it called it without reaching
  the planted piece;
* "error": an exception that is not a breakdown of the core, or the time limit. It does not count as caught, and turns
  the run red.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from verification.claim import Claim, Context, evaluate
from verification.planting.fault import FAULTS, Fault, NotPlantable, plant

CELL_LIMIT = 60  # seconds of processor time for one cell; a micro claim takes 0.2 s, so this means that it does not end


@dataclass(frozen=True)
class Cell:
    """A cell of the kill matrix: a claim under a fault."""

    tag: str
    fault: str
    state: str
    detail: str = ""


@cache
def misfit(fault: Fault) -> str:
    """Why the fault does not fit the code, or ""."""
    try:
        with plant(fault):
            return ""
    except (NotPlantable, SyntaxError) as error:
        return str(error)


def one_cell(claim: Claim, name: str) -> Cell:
    """The claim in its micro profile under the fault."""
    try:
        with plant(FAULTS[name]) as executed, time_limit(CELL_LIMIT):
            outcome = evaluate(claim, Context(profile="micro", tag=claim.tag, stop_at_failure=True))
    except (NotPlantable, OutOfTime) as error:
        return Cell(claim.tag, name, "error", f"{type(error).__name__}: {error}")
    if outcome.error:
        return Cell(claim.tag, name, "error", outcome.error)
    if not executed.count:
        return Cell(claim.tag, name, "not executed")
    return Cell(claim.tag, name, "survived" if outcome.holds else "caught", outcome.problem)


class OutOfTime(BaseException):
    """A cell took longer than its limit. Not an Exception, so that no claim can take it for a failed instance."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTime in the with-block after that much processor time, where the system has such a timer (not on
    Windows). Not by the clock: on a busy machine a cell may wait for minutes."""
    if not hasattr(signal, "SIGPROF"):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime(f"no result within {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
