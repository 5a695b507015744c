"""Flatten, and skip connections on pairs of states."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import StageMap, fast_shape, is_pair
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Flatten, Merge, OnBranch


class FlattenMap(StageMap):
    """(H, C, W, b) → (CHW, b)."""

    def __init__(self, stage: Flatten, shape: Any, key: int) -> None:
        super().__init__(stage, shape, key)
        self.free = len(shape) == 3  # else y is x

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


class SplitMap(StageMap):
    """x ↦ (x, x) for an x that is no pair itself."""

    def forward(self, w: Workspace, u: Any, x: Any) -> Any:
        return (x, x)

    def backward(self, w: Workspace, u: Any, x: Any, y: Any, p: Any, costate: bool) -> Any:
        if not costate:
            return (), None
        return (), np.add(p[0], p[1], out=w.array((self.key, "p"), fast_shape(self.shape)))


class MergeMap(StageMap):
    """(h, s) ↦ s + step·h."""

    free = True
    stage: Merge

    def forward(self, w: Workspace, u: Any, x: Any) -> Any:
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        if self.stage.step == 1:
            return np.add(x[0], x[1], out=y)
        np.multiply(x[0], self.stage.step, out=y)
        y += x[1]
        return y

    def backward(self, w: Workspace, u: Any, x: Any, y: Any, p: Any, costate: bool) -> Any:
        return (), (p if self.stage.step == 1 else self.stage.step * p, p) if costate else None


class OnBranchMap(StageMap):
    """A fast map acting on one component of the pair."""

    stage: OnBranch

    def __init__(self, stage: OnBranch, shape: Any, key: int, inner: StageMap) -> None:
        super().__init__(stage, shape, key)
        self.inner, self.branch = inner, stage.branch

    def prepare(self, u: Any) -> Any:
        return self.inner.prepare(u)

    def forward(self, w: Workspace, u: Any, x: Any) -> Any:
        return self._with(x, self.inner.forward(w, u, x[self.branch]))

    def backward(self, w: Workspace, u: Any, x: Any, y: Any, p: Any, costate: bool) -> Any:
        i = self.branch
        g, q = self.inner.backward(w, u, x[i], y[i], p[i], costate)
        return g, self._with(p, q) if costate else None

    def _with(self, pair: Any, new: Any) -> Any:
        return (new, pair[1]) if self.branch == 0 else (pair[0], new)


def plain(shape: Any) -> bool:
    """True if no component of the pair is a pair itself."""
    return is_pair(shape) and not any(is_pair(part) for part in shape)
