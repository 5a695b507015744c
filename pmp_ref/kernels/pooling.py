"""Pooling with the batch innermost.

Along columns a mean is a product with a banded matrix, and so is its adjoint. Where an activation stands before the
pooling stage, the slope is taken here: for maxima at the winning entry only, where σ(x) is the state leaving.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.activation import OutputMap, disjoint
from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import AveragePool, GlobalAveragePool, MaxPool


class _PoolMap(StageMap):
    """What both have in common: windows, and perhaps the activation before them, whose slope they take."""

    stage: AveragePool | MaxPool

    def __init__(self, stage: AveragePool | MaxPool, place: Place) -> None:
        super().__init__(stage, place)
        self.before = place.before if isinstance(place.before, OutputMap) else None
        self.size, self.stride = stage.windows.size, stage.windows.stride

    def along_rows(self, x: np.ndarray, i: int) -> np.ndarray:
        """Row i of every window, (Ho, C, W, b)."""
        return x[i : i + (self.out_shape[1] - 1) * self.stride[0] + 1 : self.stride[0]]

    def along_columns(self, x: np.ndarray, j: int) -> np.ndarray:
        """Column j of every window, (…, C, Wo, b)."""
        return x[:, :, j : j + (self.out_shape[2] - 1) * self.stride[1] + 1 : self.stride[1]]


class AveragePoolMap(_PoolMap):
    """Mean over windows, which may overlap."""

    free = True

    def prepare(self, u: tuple[np.ndarray, ...]) -> Any:
        """The matrix M (Wo, W) of means along columns, with the 1/kh of the rows in it."""
        m = np.zeros((self.out_shape[2], self.shape[2]))
        for c in range(m.shape[0]):
            m[c, c * self.stride[1] : c * self.stride[1] + self.size[1]] = 1 / (self.size[0] * self.size[1])
        return m

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        total = self.along_rows(x, 0)
        if self.size[0] > 1:
            room = w.scratch("product", total.shape[:-1])
            total = np.add(total, self.along_rows(x, 1), out=room)
            for i in range(2, self.size[0]):
                total += self.along_rows(x, i)
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        return np.matmul(u.astype(x.dtype), total, out=y)

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        m = np.ascontiguousarray(u.T, p.dtype)
        spread = np.matmul(m, p, out=w.scratch("product", (self.out_shape[1], self.shape[0], self.shape[2])))
        if self.before is not None:
            out = self.before.slope(x)
            if self.stride[0] == self.size[0]:
                rows = self.out_shape[1] * self.size[0]
                tiles = out[:rows].reshape(self.out_shape[1], self.size[0], *out.shape[1:])
                tiles *= spread[:, None]
                out[rows:] = 0
                return (), out
        else:
            out = None
        q, apart = w.array((self.key, "p"), fast_shape(self.shape)), disjoint(self.stage)
        if not apart:
            q[...] = 0
        for i in range(self.size[0]):
            rows = self.along_rows(q, i)
            if apart:
                rows[...] = spread  # rows outside all windows stay zero
            else:
                rows += spread
        return (), q if out is None else np.multiply(out, q, out=out)


class MaxPoolMap(_PoolMap):
    """Maximum over windows that do not overlap; the first maximal entry of a window carries the costate.

    ReLU before it commutes with the maximum and is taken here, on fewer entries: where it matters, at positive
    entries, it changes nothing, so that the winners are the same.
    """

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        tall = self.along_rows(x, 0)
        if self.size[0] > 1:
            room = w.scratch("product", tall.shape[:-1])
            tall = np.maximum(tall, self.along_rows(x, 1), out=room)
            for i in range(2, self.size[0]):
                np.maximum(tall, self.along_rows(x, i), out=tall)
        np.copyto(y, self.along_columns(tall, 0))
        other = w.scratch("unfolded", y.shape[:-1])
        for j in range(1, self.size[1]):
            np.copyto(other, self.along_columns(tall, j))  # contiguous first: then the maximum runs over long rows
            np.maximum(y, other, out=y)
        if self.before is not None and self.before.deferred:
            self.before.sigma(y, y)
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        out = w.array((self.key, "p"), fast_shape(self.shape))  # entries outside all windows stay zero
        tap = w.scratch("unfolded", y.shape[:-1])
        part = w.scratch("product", y.shape[:-1])
        left = w.scratch("padded", y.shape[:-1])  # the costate that no entry has taken yet
        hit = np.empty(y.shape, bool)
        if self.before is None:
            np.copyto(left, p)
        else:
            np.copyto(part, y)
            np.multiply(self.before.slope(part), p, out=left)
        last = self.size[0] * self.size[1] - 1
        for n in range(last + 1):
            i, j = divmod(n, self.size[1])
            np.copyto(tap, self.along_columns(self.along_rows(x, i), j))
            np.equal(tap, y, out=hit)
            np.multiply(left, hit, out=part)
            np.copyto(self.along_columns(self.along_rows(out, i), j), part)
            if n < last:
                left -= part
        return (), out


class GlobalAveragePoolMap(StageMap):
    """Mean over all pixels: (H, C, W, b) → (C, b)."""

    free = True
    stage: GlobalAveragePool

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = x.sum(axis=0).sum(axis=1)
        y *= 1 / (self.shape[1] * self.shape[2])
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        out = w.array((self.key, "p"), fast_shape(self.shape))
        out[...] = (p / (self.shape[1] * self.shape[2]))[None, :, None, :]
        return (), out
