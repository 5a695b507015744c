"""The part of the test suite that runs on the backend, in a selection that ends in two minutes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from verification.gpu.process import Command

ROOT = Path(__file__).parents[2]
# What only a GPU can show comes first, so that a run that is cut off has it. Names of files in tests/, without test_
# and .py; those that are not there are left out.
SELECTION = (
    "kernels_cuda",
    "kernels_replay",
    "backend_fused",
    "backend_gpu_sweep",
    "backend_synchronisation",
    "backends_agree",
    "backend_libraries",
    "backend_command",
    "sweep",
    "bsqh",
    "metric",
    "regulariser",
    "admissible",
    "loss",
    "stages",
    "problem",
    "network",
    "certificate",
    "second_order",
)
# No other plugin is loaded: what a machine has beside these may warn, and a warning is an error.
PLUGINS = ("xdist.plugin", "_hypothesis_pytestplugin", "verification.gpu.recorder")
KEPT = 40  # tracebacks


def files(root: Path = ROOT) -> list[str]:
    """The files of the selection that are there."""
    return [name for part in SELECTION if (root / (name := f"tests/test_{part}.py")).exists()]


def run(backend: str, limit: float) -> dict[str, Any]:
    """Run the selection for at most that many seconds; counts, failures with the ends of their tracebacks, times."""
    workers = max(1, min(12, (os.cpu_count() or 1) - 2))
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "tests"
        words = [
            sys.executable,
            "-m",
            "pytest",
            "--backend",
            backend,
            "-n",
            str(workers),
            "--dist",
            "worksteal",
            "-q",
            "-p",
            "no:cacheprovider",
            *(word for plugin in PLUGINS for word in ("-p", plugin)),
            # What a newer library deprecates is no error here: it is the device that is to be tried.
            "-W",
            "default::DeprecationWarning",
            *files(),
        ]
        # Examples are drawn the same way in every run.
        quiet = {
            "OPENBLAS_NUM_THREADS": "1",
            "HYPOTHESIS_PROFILE": "ci",
            "RECORDER_FILE": str(record),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        ended = Command(words, **quiet).result(limit)
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return summary(lines, ended)


def summary(lines: list[str], ended: dict[str, Any]) -> dict[str, Any]:
    """What the lines of the recorder say; the last may be cut off."""
    tests = []
    for line in lines:
        try:
            tests.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    outcomes = Counter(test["outcome"] for test in tests)
    seconds: Counter[str] = Counter()
    for test in tests:
        seconds[test["test"].partition("::")[0]] += test["seconds"]
    failed = [test for test in tests if test["outcome"] == "failed"]
    return {
        "finished": ended["exit code"] is not None,
        "agreed": ended["exit code"] == 0,
        **{outcome: outcomes[outcome] for outcome in ("passed", "failed", "skipped")},
        "failing": [test["test"] for test in failed],
        "tracebacks": {test["test"]: test["text"] for test in failed[:KEPT]},
        "seconds by file": {name: round(value, 1) for name, value in seconds.most_common()},
        **ended,
    }
