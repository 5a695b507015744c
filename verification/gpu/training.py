"""Training on the backend and in NumPy, compared decision by decision."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from verification.gpu.process import Command

STEPS = 24
DTYPES = ("float64", "float32")
NAMES = ("numpy", "backend")
TIMED = {"with a second opinion": "all", "without": "none"}
CLOSE = 1e-10  # relative difference of J in float64
DECISION = ("verdict", "step", "epoch", "position", "rejections", "nonzeros")


class Training:
    """The runs that are compared: begun together, while other things are done; after them those that are timed."""

    def __init__(self, backend: str, steps: int = STEPS) -> None:
        self.backend, self.steps = backend, steps
        self.folder = tempfile.TemporaryDirectory()
        self.runs = {(name, dtype): self.begin(name, dtype) for dtype in DTYPES for name in NAMES}

    def close(self) -> None:
        """End what still runs, and remove what the runs wrote."""
        for run in self.runs.values():
            run.stop()
        self.folder.cleanup()

    def begin(self, name: str, dtype: str, check: str = "") -> Command:
        """Begin a run; ``check``: which steps a second opinion is asked for, if not those that are unless told."""
        words = [
            sys.executable,
            "-m",
            "pmp_ref",
            "train",
            "--steps",
            str(self.steps),
            "--dtype",
            dtype,
            "--backend",
            "numpy" if name == "numpy" else self.backend,
            "--threads",
            "2",
            "--no-figures",
            "--quiet",
            *(["--check-descent", check] if check else []),
            "--out",
            str(self.place(name, dtype, check)),
        ]
        return Command(words)

    def place(self, name: str, dtype: str, check: str = "") -> Path:
        """The directory of a run."""
        return Path(self.folder.name) / f"{name}-{dtype}-{check}"

    def result(self, limit: float) -> dict[str, Any]:
        """The comparison in each dtype; runs that have not ended after ``limit`` seconds are cut off."""
        until = time.monotonic() + limit
        ended = {key: run.result(until - time.monotonic()) for key, run in self.runs.items()}
        found: dict[str, Any] = {}
        for dtype in DTYPES:
            failed = {name: ended[name, dtype] for name in NAMES if ended[name, dtype]["exit code"] != 0}
            if failed:
                found[dtype] = {"agreed": False, "failed": failed}
            else:
                found[dtype] = compare(read(self.place("numpy", dtype)), read(self.place("backend", dtype)), dtype)
        finished = all(one["exit code"] is not None for one in ended.values())
        return {"finished": finished, "agreed": all(found[dtype]["agreed"] for dtype in DTYPES), **found}

    def times(self, limit: float) -> dict[str, Any]:
        """How runs in float32 end that are made to be timed, when nothing else is done and kernels are compiled: with a
        second opinion on each step and without."""
        until, found = time.monotonic() + limit, {}
        for title, check in TIMED.items():
            runs = {name: self.begin(name, "float32", check) for name in NAMES}
            ended = {name: run.result(until - time.monotonic()) for name, run in runs.items()}
            found[title] = {
                name: ending(read(self.place(name, "float32", check))) if one["exit code"] == 0 else one
                for name, one in ended.items()
            }
        return found


def read(run: Path) -> dict[str, Any]:
    """All trials of a run in order, each with its verdict, and the run's summary."""
    trials = []
    for name in ("history.csv", "trials.csv"):
        with open(run / name, newline="", encoding="utf-8") as stream:
            trials += [{"verdict": "accepted", **row} for row in csv.DictReader(stream)]
    # Sweeps are counted on through the run; a trial that makes none comes before the one that does.
    trials.sort(key=lambda row: (int(row["forward_sweeps"]), row["verdict"] == "accepted"))
    return {"trials": trials, "summary": json.loads((run / "summary.json").read_text(encoding="utf-8"))}


def compare(numpy: dict[str, Any], backend: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Where the runs differ first, how far J is apart until then, and how both ended. In float32 a trial may sit on the
    threshold to within rounding, so there a difference of decisions is told and no failure."""
    a, b = numpy["trials"], backend["trials"]
    first = next((i for i, pair in enumerate(zip(a, b, strict=False)) if decision(pair[0]) != decision(pair[1])), None)
    if first is None and len(a) != len(b):
        first = min(len(a), len(b))
    same = list(zip(a, b, strict=False))[:first]
    apart = [abs(float(q["J"]) - float(p["J"])) / abs(float(p["J"])) for p, q in same if p["J"] and q["J"]]
    farthest = max(apart, default=0.0)
    different = None
    if first is not None:
        different = {"trial": first} | {
            name: decision(trials[first]) if first < len(trials) else None
            for name, trials in (("numpy", a), ("backend", b))
        }
    ends = {name: ending(run) for name, run in (("numpy", numpy), ("backend", backend))}
    return {
        "agreed": dtype != "float64" or (first is None and farthest <= CLOSE),
        "trials": [len(a), len(b)],
        "first difference": different,
        "largest relative difference of J": farthest,
        **ends,
    }


def decision(row: dict[str, str]) -> list[str]:
    """What was decided in a trial."""
    return [row[name] for name in DECISION]


def ending(run: dict[str, Any]) -> dict[str, Any]:
    """How a run ended, and its times. The first trial waits until kernels are compiled."""
    seconds = [float(row["seconds"]) for row in run["trials"]]
    steps = [later - earlier for earlier, later in pairwise(seconds)]
    names = ("status", "train_loss", "train_objective", "kept_weights", "test_accuracy", "held_out_accuracy", "seconds")
    return {
        **{name: run["summary"].get(name) for name in names},
        "seconds to the first trial": seconds[1] if steps else None,
        "ms per trial, median": round(1e3 * median(steps), 2) if steps else None,
        "ms per trial, mean after the first": round(1e3 * mean(steps[1:]), 2) if steps[1:] else None,
    }
