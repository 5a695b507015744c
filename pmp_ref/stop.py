"""When a run stops (theory, T19).

The published stop asks whether the step is small, τ < κ. But a step is also small where ε is large, after a search that
has failed, and then it proves nothing of the control. The residual 2ε‖D(w − u)‖ has ε in it and does not have this
fault; both tests are here, each ends a run under a name of its own, and neither is made unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import as_floats
from pmp_ref.errors import InputError
from pmp_ref.iterate import Place


@dataclass(frozen=True)
class Stop:
    """When to stop: accepted steps, epochs (full batch: an accepted step is an epoch), increment κ, residual.

    τ < κ ("converged by increment") and 2ε‖D(w − u)‖ ≤ residual ("converged by residual", see :meth:`stationary`) are
    tested in every full-batch step; with mini-batches on all data at the end of an epoch. 0 switches a test off. While
    a ramp has ρ below its value neither is made.
    """

    steps: int | None = None
    epochs: int | None = None
    increment: float = 0.0
    residual: float = 0.0

    def __post_init__(self) -> None:
        as_floats(self, "increment", "residual")
        limits = [n for n in (self.steps, self.epochs, self.increment, self.residual) if n is not None]
        whole = all(n is None or isinstance(n, int) for n in (self.steps, self.epochs))
        if not (whole and all(n >= 0 for n in limits)):
            raise InputError(f"{self}; expected numbers ≥ 0, steps and epochs integers")
        if self.steps is None and self.epochs is None and self.increment == 0 and self.residual == 0:
            raise InputError("no stop was given; expected at least one of steps, epochs, increment, residual")

    def stationary(self, residual: float, sum_dh: float, eps: float, tau: float) -> bool:
        """Whether 2ε‖D(w − u)‖ max(1, ΣΔH/(2ετ)) ≤ residual. Inside the box on a fixed support ΣΔH = 2ετ. A jump to a
        bound or off the support makes 2ε‖w − u‖ small at a small ε wherever u is; it counts with its ΣΔH."""
        return self.residual > 0 and residual * max(1.0, sum_dh / (2 * eps * tau)) <= self.residual

    def done(self, place: Place) -> bool:
        """True when the steps or epochs asked for are done."""
        return (self.steps is not None and place.step >= self.steps) or (
            self.epochs is not None and place.epoch >= self.epochs
        )

    def progress(self, place: Place, batches: int) -> float:
        """Part of the run that is done, in [0, 1]; 0 without a limit of steps or epochs."""
        parts = [0.0]
        if self.steps:
            parts.append(place.step / self.steps)
        if self.epochs:
            parts.append((place.epoch + place.position / batches) / self.epochs)
        return min(max(parts), 1.0)

    def part(self, batches: int) -> float:
        """The part of the run that one step is; 0 without a limit of steps or epochs."""
        return max([0.0, *(1 / n for n in (self.steps, (self.epochs or 0) * batches) if n)])
