"""Forward and backward sweeps over enclosures: Φ_s, J and switching functions of a control, proven (T24).

One loop over the stages, chunk by chunk on several threads, sums in the order of the chunks: the enclosures do not
depend on the number of threads. Controls and images are taken as the numbers they are, in float32 or float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.controls import map_controls
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.workers import Threads, available_cores
from pmp_ref.loss import Loss
from pmp_ref.network import Network
from pmp_ref.proofs.arithmetic import Ball, Interval, Near, U, add, exact, largest, mean, norm, upward
from pmp_ref.proofs.losses import terminal
from pmp_ref.proofs.stages import rule
from pmp_ref.sweep import quiet

CHUNK = 32  # samples at a time: their states stay in cache


@dataclass(frozen=True)
class Enclosed:
    """What was proven of a control on a batch: Φ_s for each sample, g = −∇L_B for each control (None: not asked for).

    ``switching`` is nested like the controls, a :class:`Ball` for each array.
    """

    losses: Ball
    switching: Any = None

    @property
    def loss(self) -> Interval:
        """L_B = (1/B) Σ_s Φ_s."""
        return mean(self.losses)


@dataclass(frozen=True)
class IntervalSweep:
    """Enclosures for a network and a loss. Raises InputError for a stage or loss that has none, and says which."""

    network: Network
    loss: Loss
    threads: int = 0
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        for l, stage in enumerate(self.network.stages):
            rule(stage, l)

    def losses(self, controls: Controls, x: Array, y: Array) -> Enclosed:
        """Enclosures of Φ_s: one forward sweep."""
        return self._sweep(controls, x, y, False)

    def switching(self, controls: Controls, x: Array, y: Array) -> Enclosed:
        """Enclosures of Φ_s and g: one sweep each way."""
        return self._sweep(controls, x, y, True)

    def _sweep(self, controls: Controls, x: Array, y: Array, backward: bool) -> Enclosed:
        hx, hy = to_numpy(x), to_numpy(y)
        u = map_controls(lambda a: np.asarray(to_numpy(a), dtype=np.float64), controls)
        cuts = [slice(i, min(i + self.chunk, hx.shape[0])) for i in range(0, hx.shape[0], self.chunk)]

        with one_thread(), quiet():
            sizes = tuple(
                rule(stage, l).prepare(stage, u[l], self.network.entering(l, self.network.shapes))
                for l, stage in enumerate(self.network.stages)
            )

            def work(cut: slice) -> Enclosed:
                with quiet():
                    return self.chunk_of(u, sizes, hx[cut], hy[cut], hx.shape[0], backward)

            found = list(Threads(self.threads or available_cores())(work, cuts))
        losses = Ball(*(np.concatenate([getattr(f.losses, name) for f in found]) for name in ("mid", "rad")))
        with quiet():
            g = map_controls(lambda *parts: summed(parts), *(f.switching for f in found)) if backward else None
        return Enclosed(losses, g)

    def chunk_of(self, u: Any, sizes: Any, x: Array, y: Array, samples: int, backward: bool) -> Enclosed:
        """The sweep of one chunk of a batch of ``samples``."""
        network, notes = self.network, []

        def step(l: int, entering: Any) -> Near:
            state, note = rule(network.stages[l], l).forward(network.stages[l], entering, u[l], sizes[l])
            notes.append(note)
            return finite(state)

        states = network.propagate(step, exact(x))
        phi, slope = terminal(self.loss, states[-1], y, backward)
        if slope is None:
            return Enclosed(phi)
        costates: list[Any] = [None] * len(notes) + [divided(slope, samples)]
        g: list[Any] = [()] * len(notes)
        for l in range(len(notes) - 1, -1, -1):
            if not network.controlled[l + 1]:
                continue
            stage, entering = network.stages[l], network.entering(l, states)
            wanted = any(network.controlled[i] for i in network.reads[l])
            p = finite(costates[l + 1])
            g[l], parts = rule(stage, l).backward(stage, entering, u[l], sizes[l], notes[l], p, wanted)
            if wanted:
                network.hand_back(l, parts, costates, lambda i, a, b: add(a, b))
        return Enclosed(phi, tuple(g))


def finite(x: Near) -> Near:
    """The enclosure, with an infinite radius for a sample whose midpoint overflowed: its roundings have no bound."""
    return Near(x.mid, np.where(np.isfinite(largest(x.mid)), x.rad, np.inf))


def divided(slope: Near, samples: int) -> Near:
    """p_L = −∇Φ_s/B."""
    mid = -slope.mid / samples
    return Near(mid, upward(slope.rad / samples + U * norm(mid), 8))


def summed(parts: Any) -> Ball:
    """The sum of the chunks' switching functions, in their order; each addition rounds once."""
    mid, rad = parts[0].mid, parts[0].rad
    for part in parts[1:]:
        mid = mid + part.mid
        rad = upward(rad + part.rad + U * np.abs(mid), 4)
    return Ball(mid, rad)
