"""Pooling, one launch each way; costates are gathered over the windows that contain a pixel."""

from __future__ import annotations

import math
from typing import Any

from pmp_ref.arrays import Array
from pmp_ref.kernels.cuda.source import applies, ceil, contiguous, empty, kernel, launch, launch_entries, real
from pmp_ref.layers import AveragePool, GlobalAveragePool, MaxPool
from pmp_ref.layers.layer import Control
from pmp_ref.layers.windows import Windows

WARPS = 4  # of a block, where a warp has a plane to itself


class CudaAveragePool(AveragePool):
    """Average pooling, windows that overlap or not."""

    def forward(self, x: Array, u: Control) -> Array:
        return pooled("average_forward", self.windows, x) if applies(x) else super().forward(x, u)

    def adjoint(self, x: Array, p: Array) -> Array:
        if not applies(x, p):
            return super().adjoint(x, p)
        result = empty(x.shape, p)
        function = pool("average_costate", self.windows, x)
        launch_entries(function, result.size, contiguous(p), result, planes(x))
        return result


class CudaMaxPool(MaxPool):
    """Max pooling; ties as in :class:`pmp_ref.layers.MaxPool`."""

    def forward(self, x: Array, u: Control) -> Array:
        return pooled("max_forward", self.windows, x) if applies(x) else super().forward(x, u)

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        if not applies(x, p):
            return super().costate(x, u, p)
        result = empty(x.shape, p)
        function = pool("max_costate", self.windows, x)
        launch_entries(function, result.size, contiguous(x), contiguous(p), result, planes(x))
        return result


class CudaGlobalAveragePool(GlobalAveragePool):
    """Mean over all pixels."""

    def forward(self, x: Array, u: Control) -> Array:
        if not applies(x):
            return super().forward(x, u)
        y = empty(x.shape[:2], x)
        function = kernel("planes", "plane_mean", REAL=real(x), PIXELS=math.prod(x.shape[2:]))
        launch(function, ceil(y.size, WARPS), 32 * WARPS, contiguous(x), y, y.size)
        return y

    def adjoint(self, x: Array, p: Array) -> Array:
        if not applies(x, p):
            return super().adjoint(x, p)
        result = empty(x.shape, p)
        function = kernel("planes", "plane_costate", REAL=real(p), PIXELS=math.prod(x.shape[2:]))
        launch_entries(function, result.size, contiguous(p), result, planes(x))
        return result


def pooled(name: str, w: Windows, x: Array) -> Array:
    """The forward map of that name."""
    y = empty((*x.shape[:2], *w.positions(*x.shape[2:])), x)
    launch_entries(pool(name, w, x), y.size, contiguous(x), y, planes(x))
    return y


def pool(name: str, w: Windows, x: Array) -> Any:
    """The kernel of that name for windows on images of the size of x."""
    rows, columns = w.positions(*x.shape[2:])
    return kernel(
        "pooling",
        name,
        REAL=real(x),
        IN_ROWS=x.shape[2],
        IN_COLUMNS=x.shape[3],
        OUT_ROWS=rows,
        OUT_COLUMNS=columns,
        ROWS=w.size[0],
        COLUMNS=w.size[1],
        ROW_STRIDE=w.stride[0],
        COLUMN_STRIDE=w.stride[1],
    )


def planes(x: Array) -> int:
    """Images of one channel."""
    return int(x.shape[0] * x.shape[1])
