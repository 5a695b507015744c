"""Dense and scale-and-shift stages with the batch innermost."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape, sum_rows
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Dense, ScaleShift


class DenseMap(StageMap):
    """y = k x + β with states (n, b)."""

    free = True
    stage: Dense

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), self.out_shape)
        np.matmul(u[0], x, out=y)
        if self.stage.bias:
            y += u[1][:, None]
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        g = np.matmul(p, x.T, out=w.result((self.key, "g"), u[0].shape))
        out = None
        if costate:
            out = np.matmul(u[0].T, p, out=w.array((self.key, "p"), self.shape))
        return (g, sum_rows(p)) if self.stage.bias else (g,), out


class ScaleShiftMap(StageMap):
    """y = k ⊙ x + β along the channels."""

    free = True
    stage: ScaleShift

    def __init__(self, stage: ScaleShift, place: Place) -> None:
        super().__init__(stage, place)
        self.view = channel_view(self.shape)

    def prepare(self, u: tuple[np.ndarray, ...]) -> Any:
        return tuple(a.reshape(1, -1, 1) for a in u)

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), fast_shape(self.shape))
        out = y.reshape(*self.view[:2], -1)
        np.multiply(x.reshape(out.shape), u[0], out=out)
        if self.stage.bias:
            out += u[1]
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        x, q = x.reshape(*self.view[:2], 1, -1), p.reshape(*self.view[:2], -1)
        g = np.matmul(x, q[..., None])[..., 0, 0].sum(axis=0)
        g = (g, sum_rows(q).sum(axis=0)) if self.stage.bias else (g,)
        if costate:  # last, since an activation may have put p into y
            np.multiply(q, u[0], out=y.reshape(q.shape))
        return g, y if costate else None


def channel_view(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A state of that per-sample shape as (rows, channels, the rest), the batch last."""
    if len(shape) == 3:
        return shape[1], shape[0], shape[2]
    return 1, shape[0], int(np.prod(shape[1:], dtype=int))
