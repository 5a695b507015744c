"""Skip connections by state augmentation: the state inside a block is the pair (h, s).

``Split`` makes (x, x); the block's stages act on h and a projection on s, each through ``OnBranch``; ``Merge``
returns s + step·h. Every stage stays elementary, so x + step·f(x, u) keeps exact pointwise maximisation.
A component may itself be a pair, so blocks nest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pmp_ref.arrays import as_floats
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Control, LinearStage, Shape, Stage


@dataclass(frozen=True)
class Split(LinearStage):
    """x ↦ (x, x); adjoint (p, q) ↦ p + q."""

    def output_shape(self, shape: Shape) -> tuple[Shape, Shape]:
        return (shape, shape)

    def forward(self, x: Any, u: Control) -> Any:
        return (x, x)

    def adjoint(self, x: Any, p: Any) -> Any:
        return p[0] + p[1]


@dataclass(frozen=True)
class Merge(LinearStage):
    """(h, s) ↦ s + step·h; adjoint p ↦ (step·p, p)."""

    step: float = 1.0

    def __post_init__(self) -> None:
        as_floats(self, "step")

    def output_shape(self, shape: Any) -> Shape:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise InputError(
                f"Merge got branches of shapes {shape}; expected a pair of equal shapes: "
                "give the block a projection that maps the skip to the shape of the inner branch"
            )
        return shape[1]

    def forward(self, x: Any, u: Control) -> Any:
        return x[1] + self.step * x[0]

    def adjoint(self, x: Any, p: Any) -> Any:
        return (self.step * p, p)


@dataclass(frozen=True)
class OnBranch(Stage):
    """A stage acting on one component of the pair (0: inner branch h, 1: skip s), the other unchanged."""

    stage: Stage
    branch: int = 0

    def __post_init__(self) -> None:
        if self.branch not in (0, 1):
            raise InputError(f"OnBranch got branch {self.branch}; expected 0 (inner) or 1 (skip)")

    @property
    def analytic(self) -> bool:  # type: ignore[override]
        return self.stage.analytic

    @property
    def control_names(self) -> tuple[str, ...]:
        return self.stage.control_names

    def control_shapes(self, shape: Any) -> tuple[Shape, ...]:
        return self.stage.control_shapes(shape[self.branch])

    def output_shape(self, shape: Any) -> Any:
        if len(shape) != 2 or isinstance(shape[0], int):
            raise InputError(f"OnBranch got states of shape {shape}; expected a pair: put Split before it")
        return self._with(shape, self.stage.output_shape(shape[self.branch]))

    def forward(self, x: Any, u: Control) -> Any:
        return self._with(x, self.stage.forward(x[self.branch], u))

    def costate(self, x: Any, u: Control, p: Any) -> Any:
        i = self.branch
        return self._with(p, self.stage.costate(x[i], u, p[i]))

    def switching(self, x: Any, u: Control, p: Any) -> Control:
        i = self.branch
        return self.stage.switching(x[i], u, p[i])

    def tangent(self, x: Any, u: Control, dx: Any, v: Control) -> Any:
        i = self.branch
        return self._with(dx, self.stage.tangent(x[i], u, dx[i], v))

    def tangent_costate(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Any:
        i = self.branch
        return self._with(dp, self.stage.tangent_costate(x[i], u, p[i], dx[i], v, dp[i]))

    def tangent_switching(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Control:
        i = self.branch
        return self.stage.tangent_switching(x[i], u, p[i], dx[i], v, dp[i])

    def _with(self, pair: Any, new: Any) -> Any:
        return (new, pair[1]) if self.branch == 0 else (pair[0], new)


def residual(*block: Stage, step: float = 1.0, projection: Stage | None = None) -> tuple[Stage, ...]:
    """Stages of s(x) + step·f(x, u): f the chain ``block``, s the identity or ``projection``."""
    skip = () if projection is None else (OnBranch(projection, 1),)
    return (Split(), *(OnBranch(stage, 0) for stage in block), *skip, Merge(step))
