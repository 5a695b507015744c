"""The operations on the fast sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pmp_ref.acceptance import NoTest
from pmp_ref.arrays import to_floats
from pmp_ref.augmentation import FixedRule
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.workers import available_cores
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem
from pmp_ref.sweep import Sweep
from verification.performance.configurations import EPS, RHO, Case


def operation(name: str, case: Case, threads: int, **options: Any) -> Callable[[], float]:
    """The operation as a function without arguments; it returns the mean loss it ended with.

    ``forward_backward``: losses and switching functions of the batch. ``full_batch_step``: one accepted step from an
    iterate whose switching functions are known, with those of the next. ``mini_batch_step``: switching functions on a
    new batch, then one accepted step.
    """
    return on_sweep(name, case, FastSweep(case.network, CrossEntropy(), threads=chosen(threads), **options))


def chosen(threads: int) -> int:
    """As many as the sweep chooses itself where all cores may be used, as in a run."""
    return 0 if threads == available_cores() else threads


def on_sweep(name: str, case: Case, sweep: Sweep) -> Callable[[], float]:
    """The operation on any sweep, in the library of the case's arrays."""
    u, x, y = case.controls, case.x, case.y
    if name == "forward_backward":
        return lambda: to_floats(sweep.mean_loss(sweep.forward_backward(u, x, y)))[0]
    problem = Problem(case.network, rho=RHO, sweep=sweep)
    method = Method(rule=FixedRule(EPS), acceptance=NoTest())
    start = Iterate(prepare(problem, method, Iterate(u, EPS), x, y).controls, EPS)  # as they lie in a run
    if name == "mini_batch_step":
        return lambda: step(problem, method, start, x, y, full=False)[1].loss
    ready = prepare(problem, method, start, x, y)

    def full_batch_step() -> float:
        it, record = step(problem, method, ready, x, y)
        prepare(problem, method, it, x, y)
        return record.loss

    return full_batch_step


def switching_norms(case: Case, threads: int) -> list[float]:
    """‖g_l‖ of each control, to compare with the other side."""
    sweep = FastSweep(case.network, CrossEntropy(), threads=threads)
    g = sweep.forward_backward(case.controls, case.x, case.y).switching
    assert g is not None
    return [float(np.linalg.norm(a.astype(np.float64))) for stage in g for a in stage]
