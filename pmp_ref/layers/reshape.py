"""Flatten: (B, …) → (B, n)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pmp_ref.arrays import Array, namespace
from pmp_ref.layers.layer import Control, LinearStage, Shape


@dataclass(frozen=True)
class Flatten(LinearStage):
    """All axes of a sample in one."""

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).reshape(x, (x.shape[0], prod(x.shape[1:])))

    def adjoint(self, x: Array, p: Array) -> Array:
        return namespace(p).reshape(p, x.shape)
