"""The one seam between method and network: sweeps over a batch, chunk by chunk.

``Sweep.forward`` maps the batch's chunks to per-sample losses, ``Sweep.backward`` to switching functions, summed
over the chunks in fixed order. What a sweep found is an :class:`Evaluation`. States are kept for the backward
sweep only if they fit the memory budget; otherwise they are computed once more, and that sweep is counted too.
A faster sweep with the same methods can stand in for this one (``pmp_ref.kernels``); the method does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pmp_ref.arrays import Array, Controls, namespace, sum64
from pmp_ref.controls import add
from pmp_ref.errors import InputError
from pmp_ref.loss import Loss
from pmp_ref.network import Network


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What the sweeps over one batch found at one control.

    ``losses`` Φ_s (B,); ``largest`` ‖x_L^s‖_∞ (B,), for the rounding estimate ν; ``switching`` g = −∇L_B, or None
    before the backward sweep; ``states`` per chunk, or None where they were not kept; and the sweeps made.
    """

    x: Array
    y: Array
    losses: Array
    largest: Array
    states: Any = None
    switching: Controls | None = None
    forward_sweeps: int = 1
    backward_sweeps: int = 0

    def __repr__(self) -> str:
        known = "losses" if self.switching is None else "losses and switching functions"
        return f"<Evaluation: {known} of {self.losses.shape[0]} samples>"


class Sweeper(Protocol):
    """What the method asks of a sweep: :class:`Sweep` does it, and so may a class of one's own."""

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch."""

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of a batch on which no backward sweep will follow."""

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B."""

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch."""

    def run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), which may be recorded and repeated."""


@dataclass(frozen=True)
class Sweep:
    """Forward and backward sweeps on the clear path (``pmp_ref.layers``).

    ``chunk`` samples are swept at a time; ``memory`` bytes may be held by kept states (0: always recompute).
    """

    network: Network
    loss: Loss
    chunk: int = 64
    memory: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise InputError(f"chunk is {self.chunk}; expected at least one sample")

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""
        what = [(each.stages, each.reads, each.input_shape) for each in (self.network, network)]
        return what[0] == what[1] and self.loss == loss

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch; one forward sweep."""
        return self._forward(controls, x, y, keep=x.shape[0] * self.bytes_per_sample(x) <= self.memory)

    def _forward(self, controls: Controls, x: Array, y: Array, keep: bool) -> Evaluation:
        xp = namespace(x)
        losses, largest, states = [], [], []
        with quiet():
            for cut in self.chunks(x):
                s = self.network.forward_sweep(controls, x[cut, ...], keep)
                losses.append(self.loss.values(s[-1], y[cut, ...]))
                largest.append(largest_entry(s[-1]))
                states.append(s if keep else None)
        return Evaluation(x, y, xp.concat(losses), xp.concat(largest), states if keep else None)

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of a batch on which no backward sweep will follow; one forward sweep."""
        return self._forward(controls, x, y, keep=False)

    def run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments). A sweep may record what f does on the device and repeat the record (``kernels.replay``)."""
        return f(*arguments)

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B, L_B the mean loss of the batch (T1); one backward sweep."""
        total = None
        with quiet():
            for i, cut in enumerate(self.chunks(e.x)):
                s = e.states[i] if e.states is not None else self.network.forward_sweep(controls, e.x[cut, ...])
                p = self.terminal_costate(s[-1], e.y[cut, ...], e.x.shape[0])
                _, g = self.network.backward_sweep(controls, s, p)
                total = g if total is None else add(total, g)
        again = 0 if e.states is not None else 1
        return replace(
            e,
            states=None,
            switching=total,
            forward_sweeps=e.forward_sweeps + again,
            backward_sweeps=e.backward_sweeps + 1,
        )

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch; one sweep each way."""
        return self.backward(controls, self.forward(controls, x, y))

    def terminal_costate(self, x: Array, y: Array, samples: int) -> Array:
        """p_L = −(1/B)∇Φ_s(x_L^s), B the samples of the whole batch."""
        return -self.loss.gradient(x, y) / samples

    def chunks(self, x: Array) -> Iterator[slice]:
        """Slices of the batch, in order."""
        for start in range(0, x.shape[0], self.chunk):
            yield slice(start, min(start + self.chunk, x.shape[0]))

    def bytes_per_sample(self, x: Array) -> int:
        """Bytes of the states x_1 … x_L of one sample."""
        return sum(map(math.prod, self.network.shapes[1:])) * namespace(x).finfo(x.dtype).bits // 8


def mean_loss(e: Evaluation) -> Array:
    """L_B = (1/B) Σ_s Φ_s, summed in float64; 0-d."""
    return sum64(e.losses) / e.losses.shape[0]


def largest_entry(x: Array) -> Array:
    """‖x_L^s‖_∞ of each sample, (B,)."""
    xp = namespace(x)
    return xp.max(xp.abs(xp.reshape(x, (x.shape[0], -1))), axis=1)


def quiet() -> Any:
    """NumPy's floating point warnings off: non-finite values are found by the method and reported as a status."""
    return np.errstate(all="ignore")
