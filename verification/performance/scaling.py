"""What a step costs on many ranks: a model with few constants, fitted to measurements on one machine.

A trial on a batch of B images with n controls on P ranks, each with t threads, takes

    T(P, B) = c·⌈m/P⌉·b/t + a·n/P + a₀ + E(P),        m = ⌈B/b⌉ chunks of b images,
    E(P) = k·λ·⌈log₂ P⌉ + 2(P − 1)·μ + s·n·w·(P − 1)/P/β.

c: seconds an image takes on one core there and back. a: seconds of arithmetic for each control, which is sliced; a₀:
what is done on every rank alike. k small exchanges of latency λ; the messages of an exchange by slices, to and from
each rank, at μ each; s vectors of n entries with w bytes pass through a rank at the bandwidth β. One rank exchanges
nothing.

c, a, a₀ are fitted to times of one process, λ and β to exchanges between ranks on one node, through its memory. What a
network between nodes does is not measured here: ``NETWORK`` is an assumption, and so is every number computed with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL = 4  # exchanges of few numbers in a mini-batch step: two for the metric, one for sums, one for what is asked
VECTORS = 2  # a sum to slices, and candidates gathered from slices


@dataclass(frozen=True)
class Wire:
    """A connection: latency of a small exchange and of a message in seconds, bytes in a second."""

    latency: float
    message: float
    bandwidth: float


# A cluster's network of 100 Gbit/s, and what Python does for each rank's part of an exchange: assumed.
NETWORK = Wire(latency=2e-6, message=5e-6, bandwidth=10e9)


@dataclass(frozen=True)
class Cost:
    """The fitted constants, in seconds: for an image of each network, for a control, for a step."""

    image: dict[str, float]
    control: float
    fixed: float

    def step(
        self, config: str, controls: int, ranks: int, batch: int, chunk: int, wire: Wire, threads: int = 1
    ) -> float:
        """T(P, B) in seconds."""
        chunks = -(-batch // chunk)
        images = min(batch, -(-chunks // ranks) * chunk)
        alone = self.image[config] * images / threads + self.control * controls / ranks + self.fixed
        return alone + exchange(ranks, controls, wire)


def exchange(ranks: int, controls: int, wire: Wire, width: int = 4) -> float:
    """E(P) in seconds."""
    if ranks == 1:
        return 0.0
    small = SMALL * wire.latency * math.ceil(math.log2(ranks)) + 2 * (ranks - 1) * wire.message
    return small + VECTORS * controls * width * (ranks - 1) / ranks / wire.bandwidth


def fit(rows: list[dict[str, Any]]) -> Cost:
    """c, a, a₀ from steps of one process with one thread: ``config``, ``controls``, ``batch``, ``ms``.

    For each network time is a line over the batch, fitted by least squares of relative errors; its slope is c. What the
    lines have at B = 0 is a n + a₀, from which a and a₀ follow, neither below 0.
    """
    image, offsets, sizes = {}, [], []
    for config in dict.fromkeys(r["config"] for r in rows):
        own = [r for r in rows if r["config"] == config]
        batches, seconds = (np.array([float(r[name]) for r in own]) for name in ("batch", "ms"))
        seconds = seconds / 1e3
        slope, offset = np.polyfit(batches, seconds, 1, w=1 / seconds)
        image[config] = float(slope)
        offsets.append(max(float(offset), 0.0))
        sizes.append(float(own[0]["controls"]))
    control = max(0.0, float(np.polyfit(sizes, offsets, 1)[0])) if len(set(sizes)) > 1 else 0.0
    fixed = max(0.0, float(np.mean(offsets)) - control * float(np.mean(sizes)))
    return Cost(image, control, fixed)


def wire(rows: list[dict[str, Any]]) -> Wire:
    """λ and β of two ranks on one node, from ``ms`` of a small exchange and of one by slices of ``controls`` entries.

    An exchange by slices also holds two small ones; what it takes beyond these is bandwidth. μ is not told apart.
    """
    latency = min(r["ms"] for r in rows if r["operation"] == "latency") / 1e3
    large = max((r for r in rows if r["operation"] == "exchange"), key=lambda r: r["controls"])
    seconds = max(large["ms"] / 1e3 - 2 * latency, 1e-9)
    return Wire(latency, 0.0, VECTORS * large["controls"] * 4 * 0.5 / seconds)
