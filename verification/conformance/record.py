"""Runs a case and keeps every intermediate of its trials, in the order in which the algorithm computes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.batches import take_batch
from pmp_ref.bsqh import go_on
from pmp_ref.iterate import Iterate
from pmp_ref.maximise import maximise
from pmp_ref.one_step import prepare, step
from pmp_ref.result import Record
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep
from verification.conformance.cases import Conformance

# Relative to the scale of a quantity. float64: a few hundred roundings leave 10⁻¹³, and the curvature rule divides one
# of them by τ. float32: the same 10⁻⁵. A wrong formula shows at 10⁻² and above.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


@dataclass(frozen=True)
class Quantity:
    """One intermediate: its key in the files, what it is, its value, and the scale that tolerances are relative to."""

    key: str
    what: str
    value: Any
    scale: float = 1.0

    @property
    def exact(self) -> bool:
        """True for what is compared without tolerance: batches and verdicts."""
        return isinstance(self.value, str) or np.asarray(self.value).dtype.kind in "iu"

    @property
    def scalar(self) -> bool:
        """True for what goes to ``trials.json``; arrays go to ``trial-NNN.npz``."""
        return isinstance(self.value, str | float)


Trial = tuple[Quantity, ...]


def run(case: Conformance) -> list[Trial]:
    """All trials of the case."""
    x, y, controls = case.inputs()
    problem, method = case.problem, case.method
    batches = 1 if case.batch_size is None else -(-case.samples // case.batch_size)
    it, trials = Iterate(controls, method.rule.eps0), []
    index = np.arange(case.samples)
    for _ in range(case.trials):
        if case.batch_size is None:
            batch, bx, by = index, x, y
        else:
            batch, _ = take_batch(index, index, batches, it.place.position, case.seed, it.epoch)
            e = it.current.evaluation  # None: the next batch
            bx, by = (e.x, e.y) if e is not None else take_batch(x, y, batches, it.place.position, case.seed, it.epoch)
        it = prepare(problem, method, it, bx, by)
        before = it
        it, record = step(problem, method, it, bx, by)
        status, it = go_on(method, Stop(steps=case.trials), before, it, record, case.batch_size is None, batches)
        trials.append(tuple(trial(case, batch, before, record, it.eps)))
        if status is not None:
            break
    return trials


def trial(case: Conformance, batch: np.ndarray, before: Iterate, record: Record, eps_next: float) -> Iterator[Quantity]:
    """The quantities of one trial, in the order of the algorithm."""
    problem, u, e = case.problem, before.controls, before.current.evaluation
    assert e is not None and e.switching is not None
    network, stages = problem.network, problem.network.stages
    yield Quantity("batch", "samples of the batch", batch)
    yield from nested("u", "control", u, problem.network.names())
    yield Quantity("eps", "augmentation parameter ε of this trial", record.eps, record.eps)
    states = problem.network.forward_sweep(u, e.x)
    for l, stage in enumerate(stages):
        yield array(f"x{l + 1}", f"state leaving stage {l}, {stage}", states[l + 1])
    yield from objective(problem, e, u, "", "u")
    p = Sweep(problem.network, problem.loss).terminal_costate(states[-1], e.y, e.x.shape[0])
    costates, g = problem.network.backward_sweep(u, states, p)
    assert all(np.array_equal(a, b) for s, t in zip(g, e.switching, strict=True) for a, b in zip(s, t, strict=True))
    yield array(f"p{len(stages)}", "terminal costate −∇Φ_s/B", costates[-1])
    for l in range(len(stages) - 1, -1, -1):
        yield from nested("g", f"switching function of stage {l}, {stages[l]}", g, problem.network.names(), l)
        if costates[l] is not None:
            readers = " and ".join(f"stage {m}, {stages[m]}" for m in network.readers[l])
            yield array(f"p{l}", f"costate entering {readers}", costates[l])
    if before.current.metric is not None:
        yield from nested("d", "metric", before.current.metric, problem.network.names())
    w = maximise(problem, u, e.switching, record.eps, problem.rho, before.current.metric)
    yield from nested("w", "maximiser of the augmented Hamiltonian", w, problem.network.names())
    yield Quantity("tau", "squared increment τ", record.tau, record.tau)
    size = problem.rho * float(problem.penalty(u) + problem.penalty(w))
    yield Quantity("sum_dh", "ΣΔH", record.sum_dh, abs(record.sum_dh) + size)
    yield from objective(problem, problem.sweeper.forward(w, e.x, e.y), w, "_w", "w")
    j = abs(record.J) + abs(record.J_before)
    yield Quantity("delta_J", "J(w) − J(u)", record.delta_J, j)
    c_scale = (j + abs(record.sum_dh)) / record.tau if record.tau > 0 else math.inf
    yield Quantity("c_hat", "measured curvature Ĉ", record.c_hat, c_scale)
    yield Quantity("verdict", "decision", record.verdict)
    yield Quantity("eps_next", "ε of the next trial", eps_next, eps_next + c_scale if record.tau > 0 else eps_next)


def objective(problem: Any, e: Evaluation, u: Any, suffix: str, name: str) -> Iterator[Quantity]:
    """Φ_s, L, R, J at a control."""
    loss, penalty = float(np.mean(e.losses.astype(np.float64))), float(problem.penalty(u))
    yield array(f"losses{suffix}", f"losses Φ_s at {name}", e.losses)
    yield Quantity(f"loss{suffix}", f"mean loss at {name}", loss, abs(loss))
    yield Quantity(f"penalty{suffix}", f"regulariser R({name})", penalty, 1 + penalty)
    yield Quantity(
        f"J{suffix}", f"objective J({name})", loss + problem.rho * penalty, abs(loss) + problem.rho * penalty
    )


def nested(key: str, what: str, controls: Any, names: Any, only: int | None = None) -> Iterator[Quantity]:
    """The arrays of a nesting, or of one stage of it: key g2_kernel and so on."""
    for l, (arrays, stage) in enumerate(zip(controls, names, strict=True)):
        for a, name in zip(arrays, stage, strict=True):
            if only is None or only == l:
                yield array(f"{key}{l}_{name}", f"{what}, {name}" if only == l else f"{what}, {name} of stage {l}", a)


def array(key: str, what: str, a: Any) -> Quantity:
    """An array, compared relative to its largest entry (to 1 where all are 0)."""
    a = np.asarray(a)
    return Quantity(key, what, a, float(np.max(np.abs(a), initial=0.0)) or 1.0)
