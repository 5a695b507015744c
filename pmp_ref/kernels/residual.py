"""Flatten, and sums of states."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Flatten, WeightedSum


class FlattenMap(StageMap):
    """(H, C, W, b) → (CHW, b)."""

    def __init__(self, stage: Flatten, place: Place) -> None:
        super().__init__(stage, place)
        self.free = len(self.shape) == 3  # else y is x

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        if len(self.shape) != 3:
            return x.reshape(*self.out_shape, w.batch)
        y = w.array((self.key, "y"), self.out_shape)
        y.reshape(*self.shape, w.batch)[...] = x.transpose(1, 0, 2, 3)
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        if len(self.shape) != 3:
            return (), p.reshape(*self.shape, w.batch)
        out = w.array((self.key, "p"), fast_shape(self.shape))
        out[...] = p.reshape(*self.shape, w.batch).transpose(1, 0, 2, 3)
        return (), out


class WeightedSumMap(StageMap):
    """(x_1, …, x_n) ↦ Σ_j α_j x_j."""

    free = True
    stage: WeightedSum

    def forward(self, w: Workspace, u: Any, x: tuple[np.ndarray, ...]) -> np.ndarray:
        shape = fast_shape(self.out_shape)
        y, room = w.array((self.key, "y"), shape), w.scratch("product", shape)
        total = scaled(x[0], self.stage.weights[0], y)
        for a, weight in zip(x[1:], self.stage.weights[1:], strict=True):
            total = np.add(total, scaled(a, weight, room), out=y)
        return total

    def backward(self, w: Workspace, u: Any, x: Any, y: Any, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        return (), tuple(p if weight == 1 else weight * p for weight in self.stage.weights)


def scaled(a: np.ndarray, weight: float, room: np.ndarray) -> np.ndarray:
    """weight·a, in ``room``; a itself if the weight is 1."""
    return a if weight == 1 else np.multiply(a, weight, out=room)
