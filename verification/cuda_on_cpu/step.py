"""Launches, products, copies and synchronisations of one step of LeNet-5, counted by ``device.cpp``."""

from __future__ import annotations

import ctypes

import numpy as np

from pmp_ref import CrossEntropy, Problem, initial_controls, lenet5
from pmp_ref.batches import take_batch
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import make_sweep
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric
from pmp_ref.one_step import prepare, step
from verification.libraries import load


def counted() -> dict[str, int]:
    """What was called since this was asked last."""
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.counts_text.restype = ctypes.c_char_p
    lines = [line.rsplit(" ", 1) for line in cuda.counts_text().decode().splitlines()]
    cuda.counts_reset()
    return {name: int(number) for name, number in lines}


def main() -> None:
    """Print the counts of the fourth mini-batch step, float32, default metric of the application."""
    asarray = load("cupy").asarray
    generator = np.random.default_rng(0)
    x, y = asarray(generator.random((256, 1, 28, 28)).astype(np.float32)), asarray(generator.integers(0, 10, 256))
    network = lenet5((1, 28, 28))
    problem = Problem(network, rho=1e-4, sweep=make_sweep(network, CrossEntropy(), example=x))
    method, it = Method(metric=GradientMetric()), Iterate(initial_controls(network, 0, x), 10.0)
    for position in range(4):
        counted()
        batch = take_batch(x, y, 4, position, 0, 0)
        it = prepare(problem, method, it, *batch)
        before = counted()
        it, record = step(problem, method, it, *batch, full=False)
        after = counted()
    print(f"one step of LeNet-5, batch 64, float32, {type(problem.sweeper).__name__}, trial {record.verdict}\n")
    print("\n".join(table(before, after)))


def table(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Lines: what prepare and the trial called; then each kernel, and with it what else graphs ran."""
    names = {*before, *after}
    kinds = sorted(name for name in names if not name.startswith(("kernel ", "in graph ")))
    lines = [f"{'':24}{'prepare':>9}{'trial':>9}"]
    lines += [f"{kind:24}{before.get(kind, 0):9}{after.get(kind, 0):9}" for kind in kinds]
    total = {name: before.get(name, 0) + after.get(name, 0) for name in names}
    ran = {name.removeprefix("in graph "): number for name, number in total.items() if name not in kinds}
    ran |= {name: number for name, number in total.items() if name.startswith("kernel ")}
    order = sorted(ran.items(), key=lambda item: (-item[1], item[0]))
    graphs = any(name.startswith("in graph ") for name in names)
    lines += ["", "   all in graphs" if graphs else "kernels"]
    for name, number in order:
        inside = f"{total.get(f'in graph {name}', 0):10}" if graphs else ""
        lines.append(f"{number:6}{inside}  {name.removeprefix('kernel ')}")
    return lines


if __name__ == "__main__":
    main()
