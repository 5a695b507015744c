"""Other load on the machine: processor time that was spent, and not by this benchmark."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Moment:
    """Seconds on the clock, and seconds that all cores were busy (or taken by the host), since some origin."""

    clock: float
    busy: float | None


def now() -> Moment:
    """The present moment; busy is None where the system does not tell."""
    return Moment(time.perf_counter(), busy_seconds(STAT.read_text()) if STAT.exists() else None)


def busy_seconds(text: str) -> float:
    """Seconds of all cores together that were not idle, from the first line of /proc/stat: user, nice, system, idle,
    iowait, irq, softirq, steal."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, text.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def other_load(start: Moment, end: Moment, own: float, cores: int) -> float | None:
    """Part of the cores that others used between two moments, 0 to 1; ``own`` is the processor time of the benchmark.

    The clock of /proc/stat ticks every 10 ms on each core, so the interval should be some tenths of a second.
    """
    if start.busy is None or end.busy is None:
        return None
    return max(0.0, (end.busy - start.busy - own) / (cores * (end.clock - start.clock)))
