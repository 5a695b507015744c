"""What people would use instead: Adam with magnitude pruning, proximal stochastic gradient under L1 and L0.

All take the same data, initial controls, batches and sweeps as bSQH; g is the batch's switching function, so the
gradient of the mean loss is −g. One step costs one forward and one backward sweep. ``schedule`` scales the step size
s over the run's progress t ∈ [0, 1): "constant", or "growth", s(t) = 20^{−max(0, 2t − 1)}: constant, then falling by
the factor 20 over the second half, as θ grows in the bSQH runs.

Adam (Kingma, Ba, ICLR 2015): m ← β₁m + (1 − β₁)∇, v ← β₂v + (1 − β₂)∇²,
    w = u − s·(m/(1 − β₁ᵏ)) / (√(v/(1 − β₂ᵏ)) + 10⁻⁸),    β₁ = 0.9, β₂ = 0.999.
Proximal stochastic gradient (Combettes, Wajs, SIAM Multiscale Model. Simul. 4, 2005): c = u − s∇, then
    w = argmin_w ½(w − c)² + sρ r(w) = argmax_w −∇·w − ρ r(w) − (w − u)²/(2s), the maximiser of K_ε at ε = 1/(2s):
    L1: sgn(c)·max(|c| − sρ, 0);    L0: c where |c| > √(2sρ), else 0.
Only kernels are penalised or pruned; biases take the gradient step.
Magnitude pruning (Han, Pool, Tran, Dally, NeurIPS 2015), one threshold for all kernels. Gradually (Zhu, Gupta, ICLR
workshop 2018): every tenth step from 10 to 60 % of the run to the share s + (1 − s)(1 − f)³, f the part of that time;
what is zero stays zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.accuracy import accuracy
from pmp_ref.app import checkpoint
from pmp_ref.app.build import Setup
from pmp_ref.arrays import Controls
from pmp_ref.controls import kernel_entries, map_controls
from pmp_ref.files import decode, pack, unpack, write_atomically
from pmp_ref.method import Ramp

GROWTH = 20.0
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8
PRUNE_FROM, PRUNE_TO, PRUNE_EVERY = 0.1, 0.6, 10
SHOW_EVERY = 20.0  # seconds between lines of progress
SAVE_EVERY = 10.0  # seconds between checkpoints


def schedule(name: str, progress: float) -> float:
    """The factor on the step size."""
    return {"constant": 1.0, "growth": GROWTH ** -max(0.0, 2 * progress - 1)}[name]


def soft_threshold(c: np.ndarray, t: float) -> np.ndarray:
    """argmin_w ½(w − c)² + t|w| = sgn(c)·max(|c| − t, 0)."""
    return np.copysign(np.maximum(np.abs(c) - c.dtype.type(t), 0), c)


def hard_threshold(c: np.ndarray, t: float) -> np.ndarray:
    """argmin_w ½(w − c)² + t|w|₀: c where |c| > √(2t), else 0 (½c² > t; ties go to 0)."""
    return np.where(np.abs(c) > c.dtype.type(math.sqrt(2 * t)), c, np.zeros_like(c))


def adam_step(u: np.ndarray, gradient: np.ndarray, m: np.ndarray, v: np.ndarray, k: int, s: float) -> tuple[Any, ...]:
    """(w, m, v) after the k-th step, k = 1, 2, …"""
    one = u.dtype.type
    m = one(BETA1) * m + one(1 - BETA1) * gradient
    v = one(BETA2) * v + one(1 - BETA2) * gradient * gradient
    return u - one(s / (1 - BETA1**k)) * m / (np.sqrt(v * one(1 / (1 - BETA2**k))) + one(TINY)), m, v


@dataclass(frozen=True)
class Plan:
    """A baseline run. ``method`` adam, l1 or l0; ``step`` s; ``rho`` ρ of the proximal methods; ``ramp`` as in bSQH;
    ``share`` of the kernel entries to which it is pruned gradually (None: not pruned)."""

    method: str
    epochs: int
    step: float
    schedule: str = "growth"
    rho: float = 0.0
    ramp: tuple[float, float] | None = None
    share: float | None = None


@dataclass(frozen=True)
class State:
    """Where a baseline run is; with the seed this decides all that follows."""

    controls: Controls
    m: Controls
    v: Controls
    steps: int = 0
    seconds: float = 0.0


def train(
    setup: Setup,
    plan: Plan,
    file: Path,
    progress: Callable[[str], None],
    start: Controls | None = None,
    hold_zeros: bool = False,
) -> State:
    """Run the plan from ``start`` (None: the setup's initial controls), saved in ``file`` and resumed from there.

    ``hold_zeros``: kernel entries that are zero in ``start`` stay zero.
    """
    start = setup.controls if start is None else start
    zeros = map_controls(np.zeros_like, start)
    free = kernels_map(setup, lambda u: u != 0, start) if hold_zeros else None
    state = load(setup, file) if file.is_file() else State(start, zeros, zeros)
    total, began, saved = plan.epochs * setup.batches, time.perf_counter(), time.perf_counter()
    before, shown = state.seconds, began
    while state.steps < total:
        part = state.steps / total
        epoch, position = divmod(state.steps, setup.batches)
        e = setup.problem.sweeper.forward_backward(state.controls, *setup.batch(epoch, position))
        controls, m, v = advance(setup, plan, state, map_controls(np.negative, e.switching), part)
        if plan.share is not None:
            controls = pruned_gradually(setup, plan.share, state.controls, controls, state.steps + 1, total)
        if free is not None:
            controls = map_controls(lambda w, f: w if f is None else np.where(f, w, np.zeros_like(w)), controls, free)
        now = time.perf_counter()
        state = State(controls, m, v, state.steps + 1, before + now - began)
        if now - saved > SAVE_EVERY or state.steps == total:
            save(setup, file, state)
            saved = now
        if now - shown > SHOW_EVERY:
            shown = now
            kept, entries = kernel_entries(setup.network.names(), state.controls)
            progress(
                f"{plan.method} {state.steps}/{total}  loss {float(np.mean(e.losses)):.4f}  "
                f"kept {100 * kept / entries:.2f}%"
            )
    return state


def advance(setup: Setup, plan: Plan, state: State, gradient: Controls, part: float) -> tuple[Any, Any, Any]:
    """One step: (controls, m, v)."""
    s = plan.step * schedule(plan.schedule, part)
    if plan.method == "adam":
        k = state.steps + 1
        moved = map_controls(lambda u, g, m, v: adam_step(u, g, m, v, k, s), state.controls, gradient, state.m, state.v)
        w, m, v = (map_controls(itemgetter(i), moved) for i in range(3))
        return w, m, v
    rho = plan.rho if plan.ramp is None else Ramp(*plan.ramp)(plan.rho, part)
    prox = {"l1": soft_threshold, "l0": hard_threshold}[plan.method]
    free = map_controls(lambda u, g: u - u.dtype.type(s) * g, state.controls, gradient)
    shrunk = kernels_map(setup, lambda c: prox(c, s * rho), free)
    return map_controls(lambda c, w: c if w is None else w, free, shrunk), state.m, state.v


def kernels_map(setup: Setup, f: Callable[[np.ndarray], Any], controls: Controls) -> Any:
    """f of every kernel, None for the other controls."""
    return tuple(
        tuple(f(u) if name == "kernel" else None for name, u in zip(names, arrays, strict=True))
        for names, arrays in zip(setup.network.names(), controls, strict=True)
    )


def prune(setup: Setup, controls: Controls, share: float) -> Controls:
    """The ``share`` of all kernel entries that is largest in modulus; the others become zero. Ties all go to zero."""
    kernels = [u for u in _flat(kernels_map(setup, np.abs, controls)) if u is not None]
    moduli = np.sort(np.concatenate([u.ravel() for u in kernels]))
    keep = round(share * moduli.size)
    threshold = moduli[moduli.size - keep - 1] if keep < moduli.size else -1.0
    cut = kernels_map(setup, lambda u: np.where(np.abs(u) > threshold, u, np.zeros_like(u)), controls)
    return map_controls(lambda u, w: u if w is None else w, controls, cut)  # type: ignore[no-any-return]


def share_at(share: float, progress: float) -> float:
    """The share of kernel entries that gradual pruning leaves at this progress of the run."""
    part = min(max((progress - PRUNE_FROM) / (PRUNE_TO - PRUNE_FROM), 0.0), 1.0)
    return share + (1 - share) * (1 - part) ** 3


def pruned_gradually(
    setup: Setup, share: float, before: Controls, controls: Controls, step: int, total: int
) -> Controls:
    """The controls after a step with the zeros that they had before it, pruned every tenth step and in the last."""
    kept = kernels_map(setup, lambda u: u != 0, before)
    controls = map_controls(lambda w, k: w if k is None else np.where(k, w, np.zeros_like(w)), controls, kept)
    now = share_at(share, step / total)
    due = step % PRUNE_EVERY == 0 or step == total
    return prune(setup, controls, now) if due and now < 1 else controls


def judge(setup: Setup, controls: Controls) -> dict[str, Any]:
    """Test accuracy with its 95 % interval, kept kernel entries, layers without any."""
    assert setup.dataset.test_images is not None and setup.dataset.test_labels is not None
    found = accuracy(
        setup.network, controls, setup.move(setup.dataset.test_images), setup.move(setup.dataset.test_labels)
    )
    low, high = found.interval()
    kept, entries = kernel_entries(setup.network.names(), controls)
    emptied = [
        l for l, us in enumerate(kernels_map(setup, np.any, controls)) if any(v is not None and not v for v in us)
    ]
    return {
        "test_accuracy": found.part,
        "test_low": low,
        "test_high": high,
        "test_images": found.images,
        "kept_fraction": kept / entries,
        "kept_weights": kept,
        "total_weights": entries,
        "disconnected": bool(emptied),
        "emptied_layers": str(emptied),
    }


def save(setup: Setup, file: Path, state: State) -> None:
    """The state on disk, atomically."""
    arrays: dict[str, np.ndarray] = {}
    for name in ("controls", "m", "v"):
        arrays |= checkpoint.to_arrays(setup.network, getattr(state, name), f"{name}/")
    write_atomically(file, pack(arrays, {"state": {"steps": state.steps, "seconds": state.seconds}}))


def load(setup: Setup, file: Path) -> State:
    """The state from disk; InputError if the file is damaged."""
    arrays = unpack(file)
    controls, m, v = (
        checkpoint.from_arrays(setup.network, arrays, f"{name}/", str(file), np.asarray)
        for name in ("controls", "m", "v")
    )
    return State(controls, m, v, **decode(arrays["state"]))


def _flat(nested: Any) -> list[Any]:
    return [a for stage in nested for a in stage]
