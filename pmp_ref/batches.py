"""The mini-batches of an epoch: every sample once, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pmp_ref.arrays import Array, device, namespace
from pmp_ref.sweep import Sweeper


def take_batch(
    x: Array, y: Array, batches: int, position: int, seed: int, epoch: int, sweep: Sweeper | None = None
) -> tuple[Array, Array]:
    """Batch ``position`` of the epoch: a permutation by (seed, epoch), split into parts whose sizes differ by at
    most one, so that every sample is used once. With a sweep only its images are there, and room for the others."""
    part = np.array_split(order_of_epoch(x.shape[0], seed, epoch), batches)[position].copy()
    xp = namespace(x, y)
    index = xp.asarray(part, device=device(x))
    images = xp.take(x, index, axis=0) if sweep is None else sweep.take(x, index)
    return images, xp.take(y, index, axis=0)


@lru_cache(maxsize=2)
def order_of_epoch(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of the samples by (seed, epoch); drawn once for all batches of an epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(samples)
    order.setflags(write=False)
    return order
