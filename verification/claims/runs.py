"""Runs of bSQH seen trial by trial, for the claims on loss reduction, augmentation and convergence.

A :class:`Trial` holds the control u before, the candidate w, what the method recorded, and ε afterwards. Of a
rejected trial the method keeps no candidate: it is computed again, from switching functions of fresh sweeps at u, so
that states or costates kept by mistake show as a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import subtract, to_vector
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Block,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    Stage,
    Tanh,
    residual,
)
from pmp_ref.maximise import maximise
from pmp_ref.method import Method
from pmp_ref.result import Record, Run
from pmp_ref.second_order import hessian
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep, mean_loss
from verification.claim import Case, Check, holds
from verification.claims import problems
from verification.claims.problems import Setting


@dataclass(frozen=True)
class Trial:
    """One trial of a run; ``metric`` d (None: identity), ``eps_next`` the ε after it."""

    u: Controls
    w: Controls
    metric: Any
    record: Record
    eps_next: float

    @property
    def delta(self) -> np.ndarray:
        """w − u as one vector."""
        return to_vector(subtract(self.w, self.u))


def run(setting: Setting, method: Method, stop: Stop, **options: Any) -> tuple[Run, list[Trial]]:
    """``solve`` in full batch, with all its trials."""
    problem, trials = setting.problem, []
    at: dict[str, Any] = {"u": setting.controls}

    def see(it: Any, record: Record) -> None:
        u = at["u"]
        if record.accepted:
            w = it.controls
        else:
            w = maximise(problem, u, switching(setting, u), record.eps, record.rho, it.current.metric)
        trials.append(Trial(u, w, it.current.metric, record, it.eps))
        at["u"] = it.controls

    solution = bsqh(problem, setting.controls, setting.x, setting.y, stop=stop, method=method, callback=see, **options)
    return solution, trials


def sequences(trials: list[Trial]) -> Iterator[list[Trial]]:
    """The trials of each control in turn: rejections, and the acceptance that ends them if there is one."""
    current: list[Trial] = []
    for trial in trials:
        current.append(trial)
        if trial.record.accepted:
            yield current
            current = []
    if current:
        yield current


def ends_well(trials: list[Trial], name: str) -> Check:
    """Every line search ends by acceptance, or because nothing is left to gain (T8): the last trial says which."""
    last = trials[-1].record.verdict
    return holds(last in ("accepted", "control unchanged", "precision limit"), f"ends as {last}; {name}")


def switching(setting: Setting, u: Controls) -> Controls:
    """g at u by fresh sweeps."""
    sweep = setting.problem.sweeper
    found = sweep.backward(u, sweep.forward(u, setting.x, setting.y)).switching
    assert found is not None
    return found


def objective(setting: Setting, u: Controls) -> float:
    """J(u) = L_B(u) + ρR(u) by a fresh forward sweep of the whole batch in one piece."""
    problem = setting.problem
    whole = Sweep(problem.network, problem.loss, chunk=setting.x.shape[0])
    return float(mean_loss(whole.forward(u, setting.x, setting.y))) + problem.rho * float(problem.penalty(u))


def curvature_norm(setting: Setting, u: Controls) -> tuple[float, float]:
    """(½λ_max(D²L_B(u))₊, ½‖D²L_B(u)‖) from the full Hessian; exact on quadratic problems."""
    values = np.linalg.eigvalsh(symmetric(hessian(setting.problem, u, setting.x, setting.y)))
    return max(0.0, float(values[-1]) / 2), float(np.max(np.abs(values))) / 2


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """(A + Aᵀ)/2."""
    return (matrix + matrix.T) / 2


# --- networks that the bounds take ------------------------------------------------------------------------------------


def plain_lenet(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Convolution with stride or dilation, activation, average pooling, dense stages; smaller than problems.lenet."""
    act = smooth_activation(case)
    conv = Convolution(
        2, (3, 2), stride=(1, int(case.rng.integers(1, 3))), padding=(0, 1), groups=int(case.rng.integers(1, 3))
    )
    pool = AveragePool((2, 1), padding=(case.index % 2, 0), count_include_pad=case.index % 4 == 1)
    return (conv, act, pool, Flatten(), Dense(3), act, Dense(3)), (2, 4, 5)


def plain_residual(case: Case) -> tuple[tuple[Stage | Block, ...], tuple[int, ...]]:
    """A residual block with projection or with a skip over it, without standardisation, then global pooling."""
    act, stride = smooth_activation(case), int(case.rng.integers(1, 3))
    projection = Convolution(2, 1, stride=stride, bias=False) if stride > 1 else None
    inner = (Convolution(2, 3, stride=stride, padding=1), act, Convolution(2, (3, 1), padding=(1, 0)))
    block = residual(*inner, step=float(case.choose(1.0, 0.5)), projection=projection)
    tail: Any = problems.skip_over(block, act) if stride == 1 else block
    return (Convolution(2, 2), act, tail, act, GlobalAveragePool(), Dense(3)), (1, 5, 4)


def plain_chain(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Two dense stages, the first with bias."""
    return (Dense(4), smooth_activation(case), Dense(3, bias=False)), (5,)


def tanh_chain(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Dense stages with tanh."""
    return (Dense(4), Tanh(), Dense(4), Tanh(), Dense(3)), (5,)


def deep_chain(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Three dense stages with a smooth activation after the first two."""
    act = smooth_activation(case)
    return (Dense(4), act, Dense(3), act, Dense(3)), (5,)


def smooth_activation(case: Case) -> Activation:
    """Each of the smooth activations in turn, the networks going round faster than the activations."""
    kinds = problems.SMOOTH_ACTIVATIONS
    return kinds[(case.index // 3 + case.index % 3) % len(kinds)]


ENCLOSABLE = (plain_chain, plain_lenet, plain_residual)


def enclosable(case: Case, **choices: Any) -> Setting:
    """A network that T7 and T7b take: no standardisation."""
    return problems.dress(case, case.cycle(*ENCLOSABLE), **choices)
