"""Sums of states, and blocks of stages that say which states they read: x + step·f(x, u) and whatever else adds up.

A stage reads one state, that of the stage before it, unless a block says otherwise. A residual block is no stage of
its own: its stages stay elementary, and a sum at its end reads two states, so x + step·f(x, u) keeps exact pointwise
maximisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pmp_ref.arrays import Array, number
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Control, LinearStage, Shape, Stage

Reads = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class WeightedSum(LinearStage):
    """(x_1, …, x_n) ↦ Σ_j α_j x_j of n ≥ 2 states of one shape; adjoint p ↦ (α_1 p, …, α_n p). The weights α are fixed
    numbers, no controls."""

    weights: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(number("weights", w) for w in self.weights))
        if len(self.weights) < 2:
            raise InputError(f"{self}; expected a weight for each of at least two states")

    @property
    def arity(self) -> int:  # type: ignore[override]
        return len(self.weights)

    def output_shape(self, shape: tuple[Shape, ...]) -> Shape:
        if any(other != shape[0] for other in shape):
            raise InputError(
                f"WeightedSum got states of shapes {shape}; expected equal shapes: "
                "give the block a projection that maps the skip to the shape of the inner branch"
            )
        return shape[0]

    def forward(self, x: tuple[Array, ...], u: Control) -> Array:
        terms = [times(w, a) for w, a in zip(self.weights, x, strict=True)]
        return sum(terms[1:], start=terms[0])

    def adjoint(self, x: Any, p: Array) -> tuple[Array, ...]:
        return tuple(times(w, p) for w in self.weights)


def times(w: float, a: Array) -> Array:
    """w·a; a itself if w = 1."""
    return a if w == 1 else w * a


@dataclass(frozen=True)
class Block:
    """Stages and the states that each of them reads, counted from the block's entrance: 0 is the state entering, k the
    state leaving its k-th stage. The state leaving the last one leaves the block."""

    stages: tuple[Stage, ...]
    reads: Reads


def chain(*parts: Stage | Block) -> Block:
    """Stages and blocks one after the other: each reads, or is entered by, the state that leaves the part before."""
    stages: list[Stage] = []
    reads: list[tuple[int, ...]] = []
    for part in parts:
        block = part if isinstance(part, Block) else Block((part,), ((0,),))
        entrance = len(stages)
        stages += block.stages
        reads += [tuple(entrance + i for i in states) for states in block.reads]
    return Block(tuple(stages), tuple(reads))


def residual(*block: Stage | Block, step: float = 1.0, projection: Stage | None = None) -> Block:
    """s(x) + step·f(x, u): f the chain ``block``, s the identity or ``projection``."""
    inner = chain(*block)
    stages, reads, f, skip = inner.stages, inner.reads, len(inner.stages), 0
    if projection is not None:
        stages, reads, skip = (*stages, projection), (*reads, (0,)), f + 1
    return Block((*stages, WeightedSum((1.0, step))), (*reads, (skip, f)))
