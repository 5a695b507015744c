"""Activations with the batch innermost: their costates from the state leaving, where that determines σ′."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Activation, AveragePool, LeakyReLU, MaxPool, ReLU, Stage


class ActivationMap(StageMap):
    """Any activation, entry by entry, by its own σ and σ′."""

    stage: Activation

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.stage.sigma(x))

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        return (), self.stage.slope(x) * p if costate else None


class OutputMap(StageMap):
    """An activation whose slope is a function of σ; in place where the stage before has no use for its output.

    If it is ``fused``, the pooling stage that follows takes the slope into its costate map; if it is ``deferred``, that
    stage takes σ too, since ReLU and a maximum may change places.
    """

    def __init__(self, stage: Stage, place: Place) -> None:
        super().__init__(stage, place)
        self.overwrite = place.before is not None and place.before.free
        self.fused = is_plain_mean(place.after) or is_disjoint_maximum(place.after)
        self.deferred = is_disjoint_maximum(place.after) and type(stage) is ReLU and stage.leak == 0

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        if self.deferred:
            return x
        return self.sigma(x, x if self.overwrite else w.array((self.key, "y"), fast_shape(self.shape)))

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        return (), p if self.fused else np.multiply(self.slope(y), p, out=y)

    def sigma(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """σ(x), written into ``out``."""
        raise NotImplementedError

    def slope(self, y: np.ndarray) -> np.ndarray:
        """σ′ from y = σ(x); may be written into y."""
        raise NotImplementedError


class TanhMap(OutputMap):
    """tanh, slope 1 − y²."""

    def sigma(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        return np.tanh(x, out=out)

    def slope(self, y: np.ndarray) -> np.ndarray:
        np.multiply(y, y, out=y)
        return np.subtract(1, y, out=y)


class SigmoidMap(OutputMap):
    """s(x) = (1 + tanh(x/2))/2, slope y(1 − y)."""

    def sigma(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        np.multiply(x, 0.5, out=out)
        np.tanh(out, out=out)
        out += 1
        out *= 0.5
        return out

    def slope(self, y: np.ndarray) -> np.ndarray:
        return np.multiply(1 - y, y, out=y)


class LeakyReLUMap(OutputMap):
    """max(x, a x) for a leak a in [0, 1): slope 1 where y > 0, a elsewhere."""

    stage: LeakyReLU

    def sigma(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        if self.stage.leak == 0:
            return np.maximum(x, 0, out=out)
        return np.maximum(x, self.stage.leak * x, out=out)

    def slope(self, y: np.ndarray) -> np.ndarray:
        np.greater(y, 0, out=y)
        if self.stage.leak:
            np.maximum(y, self.stage.leak, out=y)
        return y


def disjoint(stage: AveragePool | MaxPool) -> bool:
    """True if no two windows overlap."""
    w = stage.windows
    return w.stride[0] >= w.size[0] and w.stride[1] >= w.size[1]


def is_disjoint_maximum(stage: Stage | None) -> bool:
    """True for max pooling that has a fast map."""
    return type(stage) is MaxPool and disjoint(stage) and not any(stage.windows.padding)


def is_plain_mean(stage: Stage | None) -> bool:
    """True for average pooling that has a fast map."""
    return type(stage) is AveragePool and not any(stage.windows.padding)
