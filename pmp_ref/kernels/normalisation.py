"""Standardisation with the batch innermost; means over a group by products with a row of ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.dense import channel_view
from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Standardise


class StandardiseMap(StageMap):
    """y = (x − m(x))/s; costate P_y(p)/s with y and s from the forward map."""

    stage: Standardise

    def __init__(self, stage: Standardise, place: Place) -> None:
        super().__init__(stage, place)
        rows, channels, rest = channel_view(self.shape)
        self.view = (rows, stage.groups, channels // stage.groups * rest)

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), fast_shape(self.shape))
        s = w.array((self.key, "s"), (1, self.view[1], 1))
        x, c = x.reshape(*self.view, w.batch), y.reshape(*self.view, w.batch)
        np.subtract(x, self.mean(x), out=c)
        square = np.multiply(c, c, out=w.scratch("product", self.view))
        s[...] = np.sqrt(self.mean(square) + self.stage.delta)
        c *= 1 / s
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        s = w.arrays[self.key, "s"]
        p, c = p.reshape(*self.view, w.batch), y.reshape(*self.view, w.batch)
        product = np.multiply(c, p, out=w.scratch("product", self.view))
        c *= -self.mean(product)  # −y m(y p)
        c += p
        c -= self.mean(p)
        c *= 1 / s
        return (), y

    def mean(self, a: np.ndarray) -> np.ndarray:
        """m(a), (1, groups, 1, b)."""
        n = self.view[2]
        total = np.matmul(np.ones((1, n), a.dtype), a).sum(axis=0, keepdims=True)
        total *= 1 / (self.view[0] * n)
        return total
