"""Standardisation with the batch innermost; means over a group by products with a row of ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.dense import channel_view
from pmp_ref.kernels.stagemap import StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Standardise


class StandardiseMap(StageMap):
    """y = (x − m(x))/s; costate P_y(p)/s with y and s from the forward map."""

    stage: Standardise

    def __init__(self, stage: Standardise, shape: Any, key: int) -> None:
        super().__init__(stage, shape, key)
        rows, channels, rest = channel_view(shape)
        self.view = (rows, stage.groups, channels // stage.groups * rest)

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), fast_shape(self.shape))
        s = w.array((self.key, "s"), self.view[1:2])
        xs, ys = x.reshape(*self.view, w.batch), y.reshape(*self.view, w.batch)
        for i in range(self.view[1]):  # one group at a time stays in cache
            c = np.subtract(xs[:, i], self.mean(xs[:, i]), out=ys[:, i])
            square = np.multiply(c, c, out=w.scratch("product", c.shape[:-1]))
            s[i] = np.sqrt(self.mean(square) + self.stage.delta)
            c *= 1 / s[i]
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        s = w.array((self.key, "s"), self.view[1:2])
        ps, ys = p.reshape(*self.view, w.batch), y.reshape(*self.view, w.batch)
        for i in range(self.view[1]):
            q, c = ps[:, i], ys[:, i]
            product = np.multiply(c, q, out=w.scratch("product", c.shape[:-1]))
            c *= -self.mean(product)  # −y m(y p)
            c += q
            c -= self.mean(q)
            c *= 1 / s[i]
        return (), y

    def mean(self, a: np.ndarray) -> np.ndarray:
        """m of one group, (b,)."""
        n = self.view[2]
        total = np.matmul(np.ones(n, a.dtype), a).sum(axis=0)
        total *= 1 / (self.view[0] * n)
        return total
