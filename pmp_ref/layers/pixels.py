"""Images as they are: bytes, standardised by channel, become the first state of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pmp_ref.arrays import Array, namespace, number
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Control, ControlFreeStage, Shape


@dataclass(frozen=True)
class Pixels(ControlFreeStage):
    """y[b, c, …] = (x[b, c, …]/255 − mean[c])/std[c], x pixels from 0 to 255; mean and deviation of x/255 by channel.

    At the head of a network it takes images as they are, uint8 (B, C, …): the network makes numbers of them, in the
    dtype of its controls and chunk by chunk. Raises InputError unless there is a mean and a positive deviation for each
    channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(number(name, value) for value in getattr(self, name)))
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not (finite and len(self.mean) == len(self.std) >= 1 and min(self.std) > 0):
            raise InputError(f"{self}; expected a finite mean and a deviation > 0 for each channel")

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 1 or shape[0] != len(self.mean):
            raise InputError(f"Pixels of {len(self.mean)} channels got states of shape {shape}; expected as many")
        return shape

    def forward(self, x: Array, u: Control) -> Array:
        return self._by_channel(lambda a, mean, std: (a / 255 - mean) / std, x)

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        return self._by_channel(lambda a, mean, std: a / 255 / std, p)

    def tangent(self, x: Array, u: Control, dx: Array, v: Control) -> Array:
        return self._by_channel(lambda a, mean, std: a / 255 / std, dx)

    def tangent_costate(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Array:
        return self.costate(x, u, dp)

    def _by_channel(self, f: Callable[[Array, float, float], Array], x: Array) -> Array:
        """f(x_c, mean_c, std_c), put together again: with Python's numbers, so that nothing has to go to a device."""
        parts = [f(x[:, c : c + 1, ...], *each) for c, each in enumerate(zip(self.mean, self.std, strict=True))]
        return parts[0] if len(parts) == 1 else namespace(x).concat(parts, axis=1)
