"""The state of a run between two trials, in parts: the control with ε, what is known of it, and what the run remembers.

The parts are told apart by how long they last. A rejection keeps ``current`` and changes ε; an acceptance begins
``current`` anew and keeps ``memory``. Nothing else is remembered anywhere, so a run can be stopped between two trials,
written to a file and gone on with, bit for bit.

===========================  ==============================================================================
``controls eps smoothed``    u, ε and C̃, the running mean of Ĉ
``current``                  what was found and tried at this control on this batch
``memory``                   what goes from one control to the next: metric and averaged switching function
``place``                    accepted steps, epoch, batch
``counts``                   what the run has cost so far
``steering``                 ρ of a run to a wished size
===========================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pmp_ref.arrays import Array, Controls
from pmp_ref.controls import map_controls
from pmp_ref.sweep import Evaluation


@dataclass(frozen=True, repr=False)
class Current:
    """Of the current control and batch; the next control begins anew.

    ``metric`` d, and whether the maximiser takes the average (``use_average``), hold once ``prepared``.
    """

    evaluation: Evaluation | None = None
    prepared: bool = False
    metric: Controls | None = None
    use_average: bool = False
    eps_start: float = 0.0  # ε of the first trial
    rejections: int = 0
    finite_trials: int = 0

    def __repr__(self) -> str:
        swept = "not swept" if self.evaluation is None else "swept"
        return f"<{swept}, {'prepared' if self.prepared else 'not prepared'}, {self.rejections} rejections>"


@dataclass(frozen=True, repr=False)
class Memory:
    """What metric and average remember of earlier switching functions."""

    metric: Controls | None = None
    iterates: int = 0  # controls prepared so far
    average: Controls | None = None
    averaged: int = 0  # switching functions in the average
    returns: int = 0  # returns to the plain switching function in a row

    def __repr__(self) -> str:
        return f"<of {self.iterates} controls, {self.averaged} in the average, {self.returns} returns>"


@dataclass(frozen=True)
class Place:
    """Where the run stands: accepted steps, epochs done, batch within the epoch."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    accepted_in_epoch: int = 0

    def next_batch(self, batches: int) -> Place:
        """The next batch of the epoch, or the first of the next epoch."""
        if self.position + 1 < batches:
            return replace(self, position=self.position + 1)
        return Place(self.step, self.epoch + 1)

    def accepted(self) -> Place:
        """One step more."""
        return replace(self, step=self.step + 1, accepted_in_epoch=self.accepted_in_epoch + 1)

    def __str__(self) -> str:
        return f"step {self.step}, epoch {self.epoch}"


@dataclass(frozen=True)
class Counts:
    """What the run has cost so far: rejected trials, skipped batches, sweeps."""

    rejections: int = 0
    skipped: int = 0
    forward_sweeps: int = 0
    backward_sweeps: int = 0

    def swept(self, e: Evaluation, before: Evaluation | None = None) -> Counts:
        """With the sweeps of e, of which ``before`` had been made and counted."""
        forward, backward = (0, 0) if before is None else (before.forward_sweeps, before.backward_sweeps)
        return replace(
            self,
            forward_sweeps=self.forward_sweeps + e.forward_sweeps - forward,
            backward_sweeps=self.backward_sweeps + e.backward_sweeps - backward,
        )


@dataclass(frozen=True)
class Steering:
    """Of a run to a wished size (``cardinality.AtMost``): ρ and κ of the last step and where it was made."""

    rho: float = 0.0
    price: float = 0.0  # κ; 0: not begun
    progress: float = 0.0
    nonzeros: int = -1  # kernel entries of the control; −1: not counted yet
    projections: int = 0
    cut: int = 0  # entries that projections have taken off

    def count(self, size: int) -> int:
        """Nonzero kernel entries of ``size``; all of them before the first accepted step."""
        return size if self.nonzeros < 0 else self.nonzeros


@dataclass(frozen=True, repr=False)
class Iterate:
    """State of a run between two trials, ``Iterate(u, eps)`` at its start; :meth:`at_rest` is what a restart needs."""

    controls: Controls
    eps: float
    smoothed: float | None = None
    current: Current = field(default_factory=Current)
    memory: Memory = field(default_factory=Memory)
    place: Place = field(default_factory=Place)
    counts: Counts = field(default_factory=Counts)
    steering: Steering = field(default_factory=Steering)

    @property
    def step(self) -> int:
        """Accepted steps so far."""
        return self.place.step

    @property
    def epoch(self) -> int:
        """Epochs done; in full batch every accepted step is one."""
        return self.place.epoch

    def at_rest(self) -> Iterate:
        """Without the sweep, which a restart makes once more."""
        return replace(self, current=replace(self.current, evaluation=None))

    def moved(self, f: Callable[[Array], Array]) -> Iterate:
        """At rest, with f applied to each array: ``it.moved(cupy.asarray)``."""

        def each(nested: Any) -> Any:
            return None if nested is None else map_controls(f, nested)

        memory = replace(self.memory, metric=each(self.memory.metric), average=each(self.memory.average))
        current = replace(self.current, evaluation=None, metric=each(self.current.metric))
        return replace(self, controls=each(self.controls), current=current, memory=memory)

    def on(self, x: Array, y: Array) -> Iterate:
        """On the batch (x, y): what was found on other arrays is dropped, for the next batch begins anew."""
        e = self.current.evaluation
        if e is None or (e.x is x and e.y is y):
            return self
        return replace(self, current=Current(metric=self.current.metric))

    def __repr__(self) -> str:
        return f"<Iterate: {self.place}, ε = {self.eps:.3g}, {self.counts.forward_sweeps} forward sweeps>"
