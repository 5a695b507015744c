"""What people would use instead: Adam with magnitude pruning, proximal stochastic gradient, SR2, Bregman iterations.

All take the same data, initial controls and batches as bSQH; g is the batch's switching function, so the gradient ∇
of the mean loss f is −g. One step costs one forward and one backward sweep, of SR2 two forward sweeps. ``schedule``
scales the step size s over the run's progress t ∈ [0, 1): "constant"; "linear", 1 − (1 − 1/20)a, a = max(0, 2t − 1), as
1/θ falls in the bSQH runs; "growth", 20^{−a}, falling over the second half by the factor 20 too. Only kernels are
penalised or pruned; biases take the step without it.

Adam (Kingma, Ba, ICLR 2015): m ← β₁m + (1 − β₁)∇, v ← β₂v + (1 − β₂)∇²,
    w = u − s·(m/(1 − β₁ᵏ)) / (√(v/(1 − β₂ᵏ)) + 10⁻⁸),    β₁ = 0.9, β₂ = 0.999.
Proximal stochastic gradient (Combettes, Wajs, SIAM Multiscale Model. Simul. 4, 2005): c = u − s∇, then
    w = argmin_w ½(w − c)² + sρ r(w) = argmax_w −∇·w − ρ r(w) − (w − u)²/(2s), the maximiser of K_ε at ε = 1/(2s):
    L1: sgn(c)·max(|c| − sρ, 0);    L0: c where |c| > √(2sρ), else 0.
Magnitude pruning (Han, Pool, Tran, Dally, NeurIPS 2015), one threshold for all kernels. Gradually (Zhu, Gupta, ICLR
workshop 2018): every tenth step from 10 to 60 % of the run to the share s + (1 − s)(1 − f)³, f the part of that time;
what is zero stays zero. *Projected*: the same share in every step, but Adam moves all entries and keeps its moments
dense, so that an entry may come back: the projection onto {|w|₀ ≤ k} (iterative hard thresholding; Blumensath,
Davies, J. Fourier Anal. Appl. 14, 2008) after each step.
SR2 (Lakhmiri, Orban, Lodi, arXiv 2206.06531), with L0: m ← β₁m + (1 − β₁)∇,
    w = argmin_w m·(w − u) + ½σ‖w − u‖² + ρ|w|₀, the hard threshold of u − m/σ at ρ/σ, and by the same batch
    r = (f(u) + ρ|u|₀ − f(w) − ρ|w|₀) / (ρ|u|₀ − m·(w − u) − ρ|w|₀):
    r ≥ η₁: w is taken, else u stays and σ ← γ₁σ; r ≥ η₂: σ ← γ₃σ. Here 1/σ is the step size; it begins with s.
Bregman iterations (Bungert, Roith, Tenbrinck, Burger, JMLR 23, 2022), with ρ|·|₁ and δ = 1: not u takes the step but
    its dual v, a subgradient of ½u² + ρ|u|, v = u + ρ sgn(u) at first, and w = sgn(v)·max(|v| − ρ, 0).
    LinBreg: v ← v − s∇;    AdaBreg: v takes Adam's step. Entries are zero until |v| has come to ρ, so the run begins
    with few: each is kept with probability p and multiplied by 1/√p, which leaves the variance as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.accuracy import accuracy
from pmp_ref.app import checkpoint
from pmp_ref.app.build import Setup
from pmp_ref.arrays import Controls
from pmp_ref.controls import arrays_of, kernel_entries, map_controls
from pmp_ref.files import decode, pack, unpack, write_atomically
from pmp_ref.method import Ramp
from pmp_ref.sweep import Evaluation, mean_loss

GROWTH = 20.0
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8
PRUNE_FROM, PRUNE_TO, PRUNE_EVERY = 0.1, 0.6, 10
ETA1, ETA2, GAMMA1, GAMMA3 = 7.5e-4, 0.999, 5.57, 0.79  # of SR2, as its authors run it
SHOW_EVERY = 20.0  # seconds between lines of progress
SAVE_EVERY = 10.0  # seconds between checkpoints


def schedule(name: str, progress: float) -> float:
    """The factor on the step size."""
    late = max(0.0, 2 * progress - 1)
    return {"constant": 1.0, "linear": 1 - late * (1 - 1 / GROWTH), "growth": GROWTH**-late}[name]


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
    """A baseline run. ``method`` adam, l1, l0, sr2, linbreg or adabreg; ``step`` s; ``rho`` ρ of the penalty; ``ramp``
    as in bSQH; ``share`` of the kernel entries to which it is pruned (None: not pruned), gradually or ``projected``."""

    method: str
    epochs: int
    step: float
    schedule: str = "growth"
    rho: float = 0.0
    ramp: tuple[float, float] | None = None
    share: float | None = None
    projected: bool = False


NESTED = ("controls", "m", "v", "dual")  # what a State holds besides numbers


@dataclass(frozen=True)
class State:
    """Where a baseline run is; with the seed this decides all that follows. ``dual`` is Bregman's v, ``sigma`` SR2's
    σ; ``rejections`` are SR2's."""

    controls: Controls
    m: Controls = ()
    v: Controls = ()
    dual: Controls = ()
    sigma: float = 0.0
    rejections: int = 0
    steps: int = 0
    seconds: float = 0.0


def first_state(setup: Setup, plan: Plan, start: Controls) -> State:
    """The state before the first step: moments 0, the dual a subgradient at the start, σ = 1/s."""
    zeros = map_controls(np.zeros_like, start)
    if plan.method not in ("linbreg", "adabreg"):
        return State(start, zeros, zeros, sigma=1 / plan.step)
    lifted = kernels_map(setup, lambda u: u + u.dtype.type(plan.rho) * np.sign(u), start)
    return State(start, zeros, zeros, instead(start, lifted), 1 / plan.step)


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
    free = kernels_map(setup, lambda u: u != 0, start) if hold_zeros else None
    state = load(setup, file) if file.is_file() else first_state(setup, plan, start)
    total, began, saved = plan.epochs * setup.batches, time.perf_counter(), time.perf_counter()
    before, shown = state.seconds, began
    while state.steps < total:
        part = state.steps / total
        epoch, position = divmod(state.steps, setup.batches)
        e = setup.problem.sweeper.forward_backward(state.controls, *setup.batch(epoch, position))
        new = sr2_step(setup, plan, state, e, part) if plan.method == "sr2" else advance(setup, plan, state, e, part)
        controls = new.controls
        if plan.share is not None and plan.projected:
            controls = prune(setup, controls, share_at(plan.share, (state.steps + 1) / total))
        elif plan.share is not None:
            controls = pruned_gradually(setup, plan.share, state.controls, controls, state.steps + 1, total)
        if free is not None:
            controls = map_controls(lambda w, f: w if f is None else np.where(f, w, np.zeros_like(w)), controls, free)
        now = time.perf_counter()
        state = replace(new, controls=controls, steps=state.steps + 1, seconds=before + now - began)
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


def advance(setup: Setup, plan: Plan, state: State, e: Evaluation, part: float) -> State:
    """One step of a method that takes every step."""
    s, rho = plan.step * schedule(plan.schedule, part), rho_at(plan, part)
    gradient = map_controls(np.negative, e.switching)
    u = state.dual or state.controls  # what takes the step
    m, v = state.m, state.v
    if plan.method in ("adam", "adabreg"):
        moved = map_controls(lambda u, g, m, v: adam_step(u, g, m, v, state.steps + 1, s), u, gradient, m, v)
        w, m, v = (map_controls(itemgetter(i), moved) for i in range(3))
    else:
        w = map_controls(lambda u, g: u - u.dtype.type(s) * g, u, gradient)
    if plan.method == "adam":
        return replace(state, controls=w, m=m, v=v)
    threshold = hard_threshold if plan.method == "l0" else soft_threshold
    size = rho if state.dual else s * rho
    shrunk = instead(w, kernels_map(setup, lambda c: threshold(c, size), w))
    return replace(state, controls=shrunk, m=m, v=v, dual=w if state.dual else ())


def sr2_step(setup: Setup, plan: Plan, state: State, e: Evaluation, part: float) -> State:
    """One trial of SR2 on the batch of ``e``, taken or not."""
    sigma, rho = state.sigma, rho_at(plan, part)
    m = map_controls(lambda m, g: m.dtype.type(BETA1) * m - m.dtype.type(1 - BETA1) * g, state.m, e.switching)
    free = map_controls(lambda u, m: u - u.dtype.type(1 / sigma) * m, state.controls, m)
    w = instead(free, kernels_map(setup, lambda c: hard_threshold(c, rho / sigma), free))
    names = setup.network.names()
    gain = rho * (kernel_entries(names, state.controls)[0] - kernel_entries(names, w)[0])
    slope = map_controls(lambda m, w, u: float(np.sum(m * (w - u), dtype=np.float64)), m, w, state.controls)
    model = gain - sum(arrays_of(slope))
    actual = gain + float(mean_loss(e)) - float(mean_loss(setup.problem.sweeper.trial(w, e.x, e.y)))
    if model <= 0:  # nothing moves
        return replace(state, m=m)
    if not actual >= ETA1 * model:  # a loss that is not a number is none to take
        return replace(state, m=m, sigma=GAMMA1 * sigma, rejections=state.rejections + 1)
    return replace(state, controls=w, m=m, sigma=GAMMA3 * sigma if actual >= ETA2 * model else sigma)


def rho_at(plan: Plan, part: float) -> float:
    """ρ at this progress of the run."""
    return plan.rho if plan.ramp is None else Ramp(*plan.ramp)(plan.rho, part)


def sparse_start(setup: Setup, p: float) -> Controls:
    """The initial controls, each kernel entry kept with probability p and multiplied by 1/√p, so that E w² stays."""
    generator = np.random.default_rng((setup.options.seed, 1))  # the initial controls are drawn by the seed itself

    def thinned(u: np.ndarray) -> np.ndarray:
        return np.where(generator.random(u.shape) < p, u * u.dtype.type(1 / math.sqrt(p)), np.zeros_like(u))

    return instead(setup.controls, kernels_map(setup, thinned, setup.controls))


def kernels_map(setup: Setup, f: Callable[[np.ndarray], Any], controls: Controls) -> Any:
    """f of every kernel, None for the other controls."""
    return tuple(
        tuple(f(u) if name == "kernel" else None for name, u in zip(names, arrays, strict=True))
        for names, arrays in zip(setup.network.names(), controls, strict=True)
    )


def instead(controls: Controls, kernels: Any) -> Controls:
    """The controls with these kernels, which are as :func:`kernels_map` gives them."""
    return map_controls(lambda u, w: u if w is None else w, controls, kernels)  # type: ignore[no-any-return]


def prune(setup: Setup, controls: Controls, share: float) -> Controls:
    """The ``share`` of all kernel entries that is largest in modulus; the others become zero. Ties all go to zero."""
    moduli = np.concatenate([u.ravel() for u in arrays_of(kernels_map(setup, np.abs, controls)) if u is not None])
    keep = round(share * moduli.size)
    if keep >= moduli.size:
        return controls
    threshold = np.partition(moduli, moduli.size - keep - 1)[moduli.size - keep - 1]
    return instead(
        controls, kernels_map(setup, lambda u: np.where(np.abs(u) > threshold, u, np.zeros_like(u)), controls)
    )


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
    numbers = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in NESTED}
    arrays: dict[str, np.ndarray] = {}
    for name in NESTED:
        if getattr(state, name):
            arrays |= checkpoint.to_arrays(setup.network, getattr(state, name), f"{name}/")
    write_atomically(file, pack(arrays, {"state": numbers}))


def load(setup: Setup, file: Path) -> State:
    """The state from disk; InputError if the file is damaged."""
    arrays = unpack(file)
    nested: dict[str, Any] = {
        name: checkpoint.from_arrays(setup.network, arrays, f"{name}/", str(file), np.asarray)
        for name in NESTED
        if any(stored.startswith(f"{name}/") for stored in arrays)
    }
    return State(**nested, **decode(arrays["state"]))
