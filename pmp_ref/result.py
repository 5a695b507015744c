"""What a run of bSQH returns: iterates, records, a status, a solution."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pmp_ref.arrays import Controls
from pmp_ref.sweep import Evaluation


class Status(Enum):
    """Why a run ended; ``str(status)`` is its name, ``status.message`` what it means and what to do."""

    CONVERGED_RESIDUAL = "converged by residual"
    CONVERGED_INCREMENT = "converged by increment"
    PRECISION_LIMIT = "precision limit"
    AUGMENTATION_LIMIT = "augmentation limit"
    ITERATION_LIMIT = "iteration limit"
    NON_FINITE = "non-finite"
    CONTROL_UNCHANGED = "control unchanged"
    INTERRUPTED = "interrupted"

    def __str__(self) -> str:
        return self.value

    @property
    def message(self) -> str:
        """The sentence shown to the user."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED_RESIDUAL: "the fixed-point residual 2ε‖w − u‖ fell below its tolerance (T11, T19)",
    Status.CONVERGED_INCREMENT: "the squared increment τ of an accepted step fell below κ; read it together with ε, "
    "for a large ε alone makes τ small (T19)",
    Status.PRECISION_LIMIT: "the predicted gain ΣΔH is below the rounding of J in this dtype; use float64 to go on, "
    "or start with a smaller ε₀ if no step was accepted",
    Status.AUGMENTATION_LIMIT: "no trial was accepted within the allowed rejections or up to the largest ε (eps_max), "
    "or the rule gave up; start with a larger ε, allow more rejections, raise eps_max or use the curvature rule",
    Status.ITERATION_LIMIT: "the requested steps or epochs are done",
    Status.NON_FINITE: "the objective, its switching functions or every trial was not finite; "
    "scale the data or start from smaller controls",
    Status.CONTROL_UNCHANGED: "the maximiser returned the control itself: u satisfies the augmented maximum principle "
    "at this ε; after rejections it may only mean that g/(2ε) is below the spacing of u",
    Status.INTERRUPTED: "the run was interrupted; it can be resumed",
}


@dataclass(frozen=True)
class Iterate:
    """State of a run between two trials. With ``evaluation`` left out it is all that a restart needs.

    ``metric`` d and the averaged switching function belong to the current control and batch once ``prepared``.
    ``rejections``, ``finite_trials`` and ``use_average`` concern the current control, the other counts the run.
    """

    controls: Controls
    eps: float
    smoothed: float | None = None  # C̃
    evaluation: Evaluation | None = None
    prepared: bool = False
    metric: Any = None
    metric_memory: Any = None
    average_memory: Any = None
    iterates: int = 0  # controls prepared so far
    averaged: int = 0  # switching functions in the average
    use_average: bool = False
    returns: int = 0  # returns to the plain switching function in a row
    eps_start: float = 0.0  # ε of this control's first trial
    rejections: int = 0
    finite_trials: int = 0
    step: int = 0  # accepted steps
    epoch: int = 0
    position: int = 0  # batch within the epoch
    accepted_in_epoch: int = 0
    total_rejections: int = 0
    skipped: int = 0
    forward_sweeps: int = 0
    backward_sweeps: int = 0


@dataclass(frozen=True)
class Record:
    """One trial in Python floats. ``loss`` and ``J`` are those of the candidate w, ``*_before`` those of u, all on the
    trial's batch (means over its samples) and with the same ρ.

    ``verdict`` is "accepted", "rejected", "non-finite trial", "average dropped", "control unchanged",
    "precision limit" or "non-finite"; "converged by residual" where an acceptable trial ended the run and the control
    stayed. ``residual`` is 2ε‖D(w − u)‖, ``rounding`` is ν.
    """

    verdict: str
    step: int
    epoch: int
    position: int
    J: float
    loss: float
    J_before: float
    loss_before: float
    delta_J: float
    rho: float
    nonzeros: int
    eps: float
    c_hat: float
    tau: float
    sum_dh: float
    rounding: float
    residual: float
    averaged: bool
    rejections: int
    forward_sweeps: int
    backward_sweeps: int

    @property
    def accepted(self) -> bool:
        """True if this trial became the control."""
        return self.verdict == "accepted"


@dataclass(frozen=True)
class Solution:
    """Controls found, why the run ended, the last iterate and a record of each trial."""

    controls: Controls
    status: Status
    iterate: Iterate
    records: tuple[Record, ...]

    @property
    def steps(self) -> tuple[Record, ...]:
        """Records of the accepted steps."""
        return tuple(r for r in self.records if r.accepted)
