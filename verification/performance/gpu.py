"""``python -m verification.performance.gpu [--ours LIBRARY] [--device DEVICE] [--json FILE] [--table FILE]``.

Operations on one device, in one process, in turn: ours on the strided sweep and on the clear path, PyTorch eager. Each
operation ends with a value fetched from the device, so what is timed has been computed. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from pmp_ref.app.main import any_encoding
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError
from pmp_ref.kernels import GpuSweep
from pmp_ref.loss import CrossEntropy
from pmp_ref.sweep import Sweep
from verification.libraries import load
from verification.performance import ours
from verification.performance.configurations import CONFIGS, DTYPES, OPERATIONS, Case, case

BATCHES = (64, 256, 1024, 5000)
AGREE = {"float32": 1e-4, "float64": 1e-10}  # relative difference of the losses that both sides end with


def sides(operation: str, problem: Case, library: str, device: str) -> dict[str, Callable[[], float]]:
    """The operation, by side."""
    from verification.performance import opponent  # not above: it loads PyTorch

    asarray = load(library).asarray
    there = Case(problem.network, map_controls(asarray, problem.controls), asarray(problem.x), asarray(problem.y))
    sweeps = {"strided": GpuSweep(problem.network, CrossEntropy()), "clear": Sweep(problem.network, CrossEntropy())}
    made = {name: ours.on_sweep(operation, there, sweep) for name, sweep in sweeps.items()}
    for name, channels_last in (("torch", False), ("torch, channels last", True)):
        made[name] = opponent.operation(operation, problem, 1, channels_last, device)
    return made


def measure(made: dict[str, Callable[[], float]], rounds: int, dtype: str) -> dict[str, Any]:
    """Median milliseconds by side, and the median over the rounds of strided/best of PyTorch. Raises InputError if the
    sides do not end with the same loss."""
    losses = {name: f() for name, f in made.items()}  # the first call compiles
    wanted = losses["torch"]
    for name, loss in losses.items():
        if not abs(loss - wanted) <= AGREE[dtype] * abs(wanted):
            raise InputError(f"{name} ends with the loss {loss}, torch with {wanted}; expected the same")
    times: list[dict[str, float]] = []
    for _ in range(rounds):
        times.append({})
        for name, f in made.items():
            start = time.perf_counter()
            f()
            times[-1][name] = 1e3 * (time.perf_counter() - start)
    ratio = median(t["strided"] / min(t["torch"], t["torch, channels last"]) for t in times)
    return {"ms": {name: median(t[name] for t in times) for name in made}, "ratio": ratio}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m verification.performance.gpu", description=__doc__)
    p.add_argument("--ours", default="cupy", help="array library of our side (default: cupy)")
    p.add_argument("--device", default="cuda", help="PyTorch's device (default: cuda)")
    p.add_argument("--configs", default=",".join(CONFIGS))
    p.add_argument("--batches", default=",".join(map(str, BATCHES)))
    p.add_argument("--rounds", type=int, default=30)
    p.add_argument("--json", type=Path, help="write all rows to this file")
    p.add_argument("--table", type=Path, help="write the table, as Markdown, to this file")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Measure and print one line per row; returns the exit code."""
    any_encoding()
    options = parser().parse_args(arguments)
    rows = []
    try:
        for config in options.configs.split(","):
            for batch in map(int, options.batches.split(",")):
                for dtype in DTYPES:
                    for operation in OPERATIONS:
                        made = sides(operation, case(config, batch, dtype), options.ours, options.device)
                        row = {"config": config, "batch": batch, "dtype": dtype, "operation": operation}
                        rows.append(row | measure(made, options.rounds, dtype))
                        print(line(rows[-1]), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    place = where(options.ours, options.device)
    if options.json:
        options.json.write_text(json.dumps({"where": place, "rows": rows}, indent=1) + "\n")
    if options.table:
        options.table.write_text(table(rows, place))
    return 0


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [row["config"], row["batch"], row["dtype"], row["operation"], *(f"{t:.2f}" for t in row["ms"].values())]
    return "| " + " | ".join(map(str, [*cells, f"{row['ratio']:.2f}"])) + " |"


def table(rows: list[dict[str, Any]], place: str) -> str:
    """All rows as Markdown, headed by place, date and versions."""
    names = ["config", "batch", "dtype", "operation", *(f"{n}, ms" for n in rows[0]["ms"]), "strided/torch"]
    head = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return "\n".join([place, "", *head, *map(line, rows)]) + "\n"


def where(library: str, device: str) -> str:
    """Device, date and versions."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    packages = ["numpy", "torch", *(d for d in ("cupy-cuda12x", "cupy-cuda13x") if library == "cupy" and _version(d))]
    versions = ", ".join(f"{package} {_version(package)}" for package in packages)
    return f"{name}, {datetime.date.today().isoformat()}, {versions}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
