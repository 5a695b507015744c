"""The mini-batches of an epoch: every sample once, in an order that follows from (seed, epoch) alone, its image as it
is or moved and mirrored at random."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pmp_ref.arrays import Array, clip, device, namespace
from pmp_ref.errors import InputError
from pmp_ref.sweep import Sweeper


@dataclass(frozen=True)
class FlipsAndShifts:
    """Every image (C, H, W) moved by up to ``shift`` pixels up or down and as many left or right, and with ``flip``
    mirrored, left to right, with probability 1/2: other draws in every epoch. What comes in from outside is 0.

    The draws of an image follow from seed, epoch and the image's index alone: not from the batch it is in, nor from
    the library, nor from the ranks. A step sees one batch and its images as they were drawn for it, so T13 and all
    that is said of a step hold with this batch; no two epochs have the same objective.

    Raises InputError for a negative shift.
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if type(self.shift) is not int or self.shift < 0 or not isinstance(self.flip, bool):
            raise InputError(f"shift {self.shift!r}, flip {self.flip!r}; expected an integer ≥ 0, and True or False")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless images of this shape, (C, H, W), can be moved that far."""
        if len(shape) != 3 or self.shift >= min(shape[1:]):
            raise InputError(
                f"images of shape {shape} to be moved by up to {self.shift} pixels; expected (C, H, W) and a shift "
                "smaller than H and W"
            )

    @lru_cache(maxsize=2)  # noqa: B019 (a frozen value, as good a key as any)
    def draws(self, samples: int, seed: int, epoch: int) -> np.ndarray:
        """(samples, 3): pixels down, pixels to the right, 1 where mirrored."""
        random = np.random.default_rng((seed, epoch, 1))  # not the stream of the order
        moves = random.integers(-self.shift, self.shift, (samples, 2), endpoint=True)
        mirrored = random.integers(0, 2, (samples, 1)) * self.flip
        drawn: np.ndarray = np.concatenate([moves, mirrored], axis=1)
        drawn.setflags(write=False)
        return drawn

    @staticmethod
    def apply(images: Array, draws: np.ndarray) -> Array:
        """Images (B, C, H, W), each by its row of ``draws``: first mirrored, then moved."""
        xp = namespace(images)
        b, c, h, w = images.shape
        down, right, mirrored = (xp.asarray(a[:, None], device=device(images)) for a in draws.T)
        rows = xp.arange(h, device=device(images)) - down  # the row of the image that comes to row i
        columns = xp.arange(w, device=device(images)) - right
        inside = ((rows >= 0) & (rows < h))[:, None, :, None] & ((columns >= 0) & (columns < w))[:, None, None, :]
        columns = xp.where(mirrored == 1, w - 1 - columns, columns)
        rows, columns = clip(rows, 0, h - 1), clip(columns, 0, w - 1)
        planes = xp.reshape(xp.arange(b * c, device=device(images)), (b, c, 1, 1))
        index = (planes * h + rows[:, None, :, None]) * w + columns[:, None, None, :]
        moved = xp.reshape(xp.take(xp.reshape(images, (-1,)), xp.reshape(index, (-1,)), axis=0), images.shape)
        return xp.where(inside, moved, xp.zeros_like(moved))


def batches_in(samples: int, batch_size: int | None) -> int:
    """Batches of an epoch; one in full batch."""
    return 1 if batch_size is None else -(-samples // batch_size)


def take_batch(
    x: Array,
    y: Array,
    batches: int,
    position: int,
    seed: int,
    epoch: int,
    sweep: Sweeper | None = None,
    vary: FlipsAndShifts | None = None,
) -> tuple[Array, Array]:
    """Batch ``position`` of the epoch: a permutation by (seed, epoch), split into parts whose sizes differ by at
    most one, so that every sample is used once. With a sweep only its images are there, and room for the others."""
    part = np.array_split(order_of_epoch(x.shape[0], seed, epoch), batches)[position].copy()
    xp = namespace(x, y)
    index = xp.asarray(part, device=device(x))
    images = xp.take(x, index, axis=0) if sweep is None else sweep.take(x, index)
    if vary is not None:
        images = vary.apply(images, vary.draws(x.shape[0], seed, epoch)[part])
    return images, xp.take(y, index, axis=0)


@lru_cache(maxsize=2)
def order_of_epoch(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of the samples by (seed, epoch); drawn once for all batches of an epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(samples)
    order.setflags(write=False)
    return order
