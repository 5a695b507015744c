"""Remainders of steps by T7b and by AutoBound, the library of Streeter and Dillon (arXiv 2212.11429), side by side.

``python -m verification.performance remainders [--autobound PYTHON] [--json FILE] [--docs]``. AutoBound wants an
environment of its own::

    python3.11 -m venv autobound
    autobound/bin/pip install autobound==0.1.4 jax==0.4.20 jaxlib==0.4.20 "numpy<2" "scipy<1.13" typing_extensions
    python -m verification.performance remainders --autobound autobound/bin/python

Without it our columns are made alone. Steps go from drawn controls along the switching function, 16 samples each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.bounds import StepCertificate, certify_step
from pmp_ref.controls import Controls, add, map_controls, scaled, to_vector
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import Activation, Dense, Sigmoid, SiLU, Softplus, Stage, Tanh
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from verification.entry import enter

PAGE = Path(__file__).parents[2] / "docs" / "verification.md"
MARKS = "<!-- remainders: written by python -m verification.performance remainders -->", "<!-- end of remainders -->"
WORKER = Path(__file__).with_name("autobound_worker.py")
ORDERS, SAMPLES, LIMIT = (2, 3, 4), 16, 1800.0  # seconds for all of AutoBound


@dataclass(frozen=True)
class Step:
    """A step of given length on a chain of dense stages."""

    name: str
    activation: str
    problem: Problem
    u: Controls
    w: Controls
    x: Any
    y: Any
    length: float


def network_of(sizes: Sequence[int], sigma: Activation) -> Network:
    """Dense stages of these sizes with an activation between them."""
    stages: list[Stage] = []
    for size in sizes[1:]:
        stages += [Dense(size), sigma]
    return Network(tuple(stages[:-1]), (sizes[0],))


def steps() -> list[Step]:
    """All steps of the table."""
    networks: list[tuple[tuple[int, ...], Activation, bool, tuple[float, ...]]] = [
        ((10, 20, 10), Sigmoid(), False, (1.0, 0.1, 1e-4)),
        ((10, 20, 10), Tanh(), False, (1.0, 0.1)),
        ((10, 20, 10), Softplus(), False, (1.0,)),
        ((10, 20, 10), SiLU(), False, (1.0,)),
        ((10, 20, 10), Sigmoid(), True, (1.0,)),
        ((12, 30, 20, 10), Tanh(), False, (1.0, 0.1)),
    ]
    made = []
    for i, (sizes, sigma, squared, lengths) in enumerate(networks):
        rng = np.random.default_rng(i)
        network = network_of(sizes, sigma)
        x = rng.standard_normal((SAMPLES, sizes[0]))
        y = rng.standard_normal((SAMPLES, sizes[-1])) if squared else rng.integers(0, sizes[-1], SAMPLES)
        problem = Problem(network, SquaredLoss() if squared else CrossEntropy(), rho=0.0)
        u = initial_controls(network, i, x)
        g = problem.sweeper.forward_backward(u, x, y).switching
        assert g is not None
        loss = "squared" if squared else "cross-entropy"
        name = f"{'-'.join(map(str, sizes))} {type(sigma).__name__}, {loss}"
        for length in lengths:
            w = add(u, scaled(length / float(np.linalg.norm(to_vector(g))), g))
            made.append(Step(name, type(sigma).__name__, problem, u, w, x, y, length))
    return made


def ours(step: Step, order: int, parts: int) -> tuple[StepCertificate, float]:
    """The certificate with a fixed number of parts, and its seconds of processor time, the least of five."""
    seconds = []
    for _ in range(5):
        start = time.process_time()
        found = certify_step(step.problem, step.u, step.w, step.x, step.y, order=order, parts=parts, max_parts=parts)
        seconds.append(time.process_time() - start)
    return found, min(seconds)


def asked(python: Path, made: list[Step]) -> dict[str, Any]:
    """AutoBound's answers. Raises InputError where its program does not run."""
    arrays: dict[str, Any] = {"steps": np.array(len(made))}
    for i, step in enumerate(made):
        delta = map_controls(lambda a, b: b - a, step.u, step.w)
        layers = [l for l, controls in enumerate(step.u) if controls]
        own = {"x": step.x, "y": step.y, "activation": step.activation, "layers": len(layers)}
        for k, l in enumerate(layers):
            own |= {f"kernel{k}": step.u[l][0], f"bias{k}": step.u[l][1]}
            own |= {f"change_kernel{k}": delta[l][0], f"change_bias{k}": delta[l][1]}
        arrays |= {f"{i}/{name}": np.asarray(value) for name, value in own.items()}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "steps.npz"
        np.savez(file, **arrays)
        try:
            run = subprocess.run(
                [str(python), str(WORKER)],
                input=f"{file}\n",
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                timeout=LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            message = f"--autobound {python} does not run: {error}; expected the python of its own environment"
            raise InputError(message) from None
    if run.returncode:
        raise InputError(f"--autobound {python} failed as told above; make its environment as --help says")
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def from_start(ends: list[list[float]]) -> tuple[float, float]:
    """φ(1) − φ(0) − φ′(0) from the coefficients at t = 0, as AutoBound states it."""
    low, high = (sum(c[i] for c in ends[2:]) for i in (0, 1))
    return low, high


def from_middle(ends: list[list[float]], slope: float) -> tuple[float, float]:
    """The same from the coefficients at t = ½ by the formula of T7b for one part."""
    n = len(ends) - 1
    total = ends[1][0] + (2 * 0.5**3 * ends[3][0] if n == 4 else 0.0) - slope
    low, high = ends[n]
    more = (2 * low, 2 * high) if n % 2 else (low - high, high - low)
    return total + 0.5**n * more[0], total + 0.5**n * more[1]


def compare(made: list[Step], answers: dict[str, Any] | None, say: Any) -> list[dict[str, Any]]:
    """A row for each step and order."""
    rows = []
    for i, step in enumerate(made):
        true = certify_step(step.problem, step.u, step.w, step.x, step.y, order=4, parts=16, max_parts=16).remainder
        for order in ORDERS:
            one, seconds = ours(step, order, 1)
            four, _ = ours(step, order, 4)
            row: dict[str, Any] = {
                "network": step.name,
                "length": step.length,
                "order": order,
                "true": [true.lower, true.upper],
                "one": [one.remainder.lower, one.remainder.upper],
                "four": [four.remainder.lower, four.remainder.upper],
                "seconds": seconds,
            }
            if answers is not None:
                start, middle = answers["steps"][i][str(order)]
                row["start"] = from_start(start["ends"])
                row["middle"] = from_middle(middle["ends"], start["ends"][1][0])
                row["their_seconds"] = start["seconds"]
                row["holds"] = [row[k][0] <= true.upper and true.lower <= row[k][1] for k in ("start", "middle")]
            rows.append(row)
            say(f"{step.name}, length {step.length:g}, order {order}: width {one.remainder.width:.3g}")
    return rows


HEAD = (
    "| network and loss | ‖Δ‖ | remainder | order | T7b, 1 part | T7b, 4 parts | AutoBound | AutoBound, middle "
    "| T7b, ms | AutoBound, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def table(rows: list[dict[str, Any]]) -> str:
    """Widths of the intervals over the remainder, and milliseconds. ✗: without the remainder; none: no number."""
    lines = [HEAD]
    for row in rows:
        size = abs(sum(row["true"])) / 2
        cells = [row["network"], f"{row['length']:g}", f"{size:.4g}", str(row["order"])]
        cells += [width(row, key, size) for key in ("one", "four", "start", "middle")]
        cells += [f"{1e3 * row[key]:.0f}" if key in row else "–" for key in ("seconds", "their_seconds")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def width(row: dict[str, Any], key: str, size: float) -> str:
    """One interval of a row."""
    if key not in row:
        return "–"
    found = (row[key][1] - row[key][0]) / size
    if not math.isfinite(found):
        return "none"
    theirs = {"start": 0, "middle": 1}
    return f"{found:.2g}" + (" ✗" if key in theirs and not row["holds"][theirs[key]] else "")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m verification.performance remainders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--autobound", type=Path, metavar="PYTHON", help="the python of AutoBound's environment")
    made.add_argument("--json", type=Path, help="write all rows to this file")
    made.add_argument("--docs", action="store_true", help="put the table into docs/verification.md")
    return made


def command(options: argparse.Namespace) -> int:
    """Compare; 0."""
    made = steps()
    answers = None if options.autobound is None else asked(options.autobound, made)
    rows = compare(made, answers, lambda text: print(text, file=sys.stderr, flush=True))
    text = table(rows)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.docs:
        page = PAGE.read_text(encoding="utf-8")
        start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
        PAGE.write_text(page[:start] + "\n\n" + text + "\n\n" + page[end:], encoding="utf-8")
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    return enter(parser(), command, arguments)
