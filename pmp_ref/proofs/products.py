"""Products of convolution and pooling, with the order of their sums in sight (T24).

``unfold`` makes the columns Z of a convolution: one entry for each tap and position. Every product below is one call of
``matmul`` per sample, so the number of terms in each of its sums is known, and with it γ_n.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pmp_ref.layers.windows import Windows

Array = np.ndarray
Taps = Iterator[tuple[int, int, Any, Any]]


def meeting(w: Windows, axis: int, tap: int, positions: int, length: int) -> tuple[slice, slice]:
    """The positions at which a tap meets the image along an axis, and the pixels it meets there."""
    stride, offset = w.stride[axis], tap * w.dilation[axis] - w.padding[axis]
    first = min(positions, max(0, -(offset // stride)))
    last = max(first, min(positions, (length - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride) if first < last else slice(
        0, 0
    )


def taps(w: Windows, rows: int, columns: int) -> Taps:
    """(i, j, places of the output, places of the input) for each tap of a window that meets the image."""
    out_rows, out_columns = w.positions(rows, columns)
    for i in range(w.size[0]):
        a, p = meeting(w, 0, i, out_rows, rows)
        for j in range(w.size[1]):
            b, q = meeting(w, 1, j, out_columns, columns)
            yield i, j, (..., a, b), (..., p, q)


def unfold(x: Array, w: Windows) -> Array:
    """(B, C, H, W) → (B, C, kh, kw, Ho, Wo), zero where a window leaves the image."""
    shape = (*x.shape[:2], *w.size, *w.positions(*x.shape[2:]))
    z = np.zeros(shape) if any(w.padding) else np.empty(shape)
    for i, j, there, here in taps(w, *x.shape[2:]):
        z[:, :, i, j][there] = x[here]
    return z


def fold(z: Array, w: Windows, rows: int, columns: int) -> Array:
    """The adjoint: (B, C, kh, kw, Ho, Wo) → (B, C, H, W), a sum of at most kh·kw terms for each pixel."""
    x = np.zeros((*z.shape[:2], rows, columns))
    for i, j, there, here in taps(w, rows, columns):
        x[here] += z[:, :, i, j][there]
    return x
