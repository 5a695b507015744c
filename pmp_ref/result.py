"""What a run of bSQH says: a verdict on each trial, a record of it, a status at the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from pmp_ref.arrays import Controls
from pmp_ref.iterate import Iterate


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

    @property
    def success(self) -> bool:
        """True if the run did what it was asked for, or went as far as the dtype lets it."""
        return self not in (Status.AUGMENTATION_LIMIT, Status.NON_FINITE, Status.INTERRUPTED)


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


class Verdict(StrEnum):
    """What became of one trial; its value is its name, in tables too, and ``verdict.message`` says what it means."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NON_FINITE_TRIAL = "non-finite trial"
    AVERAGE_DROPPED = "average dropped"
    CONTROL_UNCHANGED = "control unchanged"
    PRECISION_LIMIT = "precision limit"
    NON_FINITE = "non-finite"
    CONVERGED_RESIDUAL = "converged by residual"
    PROJECTED = "projected"

    @property
    def message(self) -> str:
        """What it means, and what the method does next."""
        return _VERDICTS[self]


_VERDICTS = {
    Verdict.ACCEPTED: "the objective fell as the acceptance test asks: w is the new control",
    Verdict.REJECTED: "the objective did not fall enough: the control stays, ε grows",
    Verdict.NON_FINITE_TRIAL: "the objective at w is not finite: the control stays, ε grows",
    Verdict.AVERAGE_DROPPED: "the averaged switching function led nowhere: the control stays, and the next trial takes "
    "the batch's own",
    Verdict.CONTROL_UNCHANGED: "w = u: no step is left at this ε",
    Verdict.PRECISION_LIMIT: "the predicted gain ΣΔH is within the rounding ν of J: no step can be judged",
    Verdict.NON_FINITE: "the objective at u or its switching functions are not finite",
    Verdict.CONVERGED_RESIDUAL: "the residual 2ε‖D(w − u)‖ is within its tolerance: the run ends, and u is its answer",
    Verdict.PROJECTED: "no trial: the control had more nonzero weights than wished, and the smallest went (T20)",
}


@dataclass(frozen=True, repr=False)
class Record:
    """One trial in Python floats. ``loss`` and ``J`` are those of the candidate w, ``*_before`` those of u, all on the
    trial's batch (means over its samples) and with the same ρ. A projection is no trial: its losses are NaN.

    ``residual`` is 2ε‖D(w − u)‖, ``rounding`` is ν. Counts of sweeps are those of the run so far.
    """

    verdict: Verdict
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
        return self.verdict is Verdict.ACCEPTED

    def __repr__(self) -> str:
        return (
            f"<Record of step {self.step}: {self.verdict}, J = {self.J:.6g} after {self.J_before:.6g}, "
            f"ε = {self.eps:.3g}, τ = {self.tau:.3g}, {self.nonzeros} nonzeros>"
        )


@dataclass(frozen=True, repr=False)
class Run:
    """Why a run ended, its last iterate and a record of each trial."""

    status: Status
    iterate: Iterate
    records: tuple[Record, ...]

    @property
    def controls(self) -> Controls:
        """The controls found."""
        return self.iterate.controls

    @property
    def steps(self) -> tuple[Record, ...]:
        """Records of the accepted steps."""
        return tuple(r for r in self.records if r.accepted)

    @property
    def success(self) -> bool:
        """As the status says: see :attr:`Status.success`."""
        return self.status.success

    @property
    def message(self) -> str:
        """The sentence of the status."""
        return self.status.message

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.status} after {self.iterate.place}, ε = {self.iterate.eps:.3g}>"
