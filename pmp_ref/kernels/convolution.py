"""Convolution with the batch innermost: unfolded along columns only, rows as an overlapping batch of products.

Z[g, h, t, i, c, :] = x[h − padding, channel i of group g, c·stride + t·dilation − padding, :] holds kw shifted
copies. For output row r the rows (s, t, i) of the product's right factor are Z[g, r·stride + s·dilation]; without row
dilation they lie one after the other, so that Z[g, r·stride : r·stride + kh] is the factor and neighbouring rows
share it. Products are cut into pieces of a few columns, which the BLAS library multiplies without packing, and Z is
made for a strip of rows at a time, which stays in cache.

The costate map gathers along rows (per phase of the row stride again an overlapping batch of products, the kernel's
rows in reverse) and folds along columns. Row dilation adds the kernel's rows one by one instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape, sum_rows
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Convolution

# Measured, see docs/performance.md.
PIECE = 280_000  # multiplications of one product, at most, where there is a choice: then it is not packed
SMALL = 1200  # entries of a product of long rows with long rows, at most: then it is not packed
STRIP = 2**20  # bytes of Z at a time


class ConvolutionMap(StageMap):
    """Convolution, every shape, stride, padding, dilation and number of groups."""

    free = True
    stage: Convolution

    def __init__(self, stage: Convolution, place: Place) -> None:
        super().__init__(stage, place)
        self.windows = w = stage.windows
        self.groups = stage.groups
        self.channels_in, self.channels_out = self.shape[0] // stage.groups, stage.channels // stage.groups
        self.rows, self.columns = self.out_shape[1:]
        self.taps = w.size[1] * self.channels_in  # rows (t, i) of Z in one image row
        self.dense_rows = w.dilation[0] == 1
        self.bare = w.size[1] == w.stride[1] == self.groups == 1 and w.padding == (0, 0)

    def prepare(self, u: tuple[np.ndarray, ...]) -> Any:
        """Kernels as (g, o, (s, t, i)); for the costate (g, (t, i), (j, o)) by phase φ, s = φ + stride·j."""
        kh, kw = self.windows.size
        k = u[0].reshape(self.groups, self.channels_out, self.channels_in, kh, kw)
        forward = np.ascontiguousarray(k.transpose(0, 1, 3, 4, 2)).reshape(self.groups, 1, 1, self.channels_out, -1)
        step = self.windows.stride[0] if self.dense_rows else kh  # with dilation: each row by itself
        adjoint = [
            np.ascontiguousarray(k[:, :, :, phase::step][:, :, :, ::-1].transpose(0, 4, 2, 3, 1)).reshape(
                self.groups, 1, 1, self.taps, -1
            )
            for phase in range(min(step, kh))
        ]
        return forward, adjoint, u[1] if self.stage.bias else None

    def strips(self, rows: int, depth: int, batch: int, itemsize: int) -> Iterator[tuple[int, int]]:
        """Cut ``rows`` rows so that ``depth`` lines of the output's columns in each of them fit a strip."""
        least = self.windows.size[0]  # fewer rows would unfold most of them more than once
        n = max(least, STRIP // (depth * self.columns * batch * itemsize * self.groups))
        for start in range(0, rows, n):
            yield start, min(start + n, rows)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        kernel, _, bias = u
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        depth = kernel.shape[-1] if self.dense_rows else self.taps
        cut = pieces(self.columns, self.channels_out * depth * w.batch)
        line = None if bias is None else np.repeat(bias, self.columns * w.batch)  # long rows add faster than broadcasts
        for start, stop in self.strips(self.rows, self.taps * self.windows.stride[0], w.batch, x.itemsize):
            z = self.unfolded(w, x, start, stop, 1)
            strip = y[start:stop]
            out = self.by_group(strip, cut)
            for s in range(kernel.shape[-1] // depth):
                right = self.factor(z, s * self.windows.dilation[0], stop - start, depth, cut)
                k = kernel[..., s * depth : (s + 1) * depth]
                if s == 0:
                    np.matmul(k, right, out=out)
                else:
                    out += np.matmul(k, right)
            if line is not None:
                lines = strip.reshape(stop - start, -1)
                lines += line
        return y

    def unfolded(self, w: Workspace, x: np.ndarray, start: int, stop: int, spare: int = 0) -> np.ndarray:
        """Z for the output rows from ``start`` to ``stop``; rows of x itself where no unfolding is needed.

        ``spare`` columns follow those of each line, empty: then the distance of two lines is hardly ever a large power
        of 2, which would bring them all to the same places of the cache.
        """
        _, rows, columns = self.shape
        kh, sr, pr, dr = geometry(self.windows, 0)
        kw, sw, pw, dw = geometry(self.windows, 1)
        top = start * sr - pr
        height = (stop - start - 1) * sr + (kh - 1) * dr + 1
        if self.bare:
            return x[top : top + height].reshape(1, height, 1, self.channels_in, columns, w.batch)
        room = w.scratch("unfolded", (self.groups, height, kw, self.channels_in, self.columns + spare))
        z = room[:, :, :, :, : self.columns]
        low, high = max(0, -top), max(0, min(height, rows - top))
        z[:, :low] = 0
        z[:, high:] = 0
        if low >= high:
            return room
        source = x[top + low : top + high].reshape(high - low, self.groups, self.channels_in, columns, w.batch)
        source = source.transpose(1, 0, 2, 3, 4)
        for t in range(kw):
            tap = z[:, low:high, t]
            first, last, cut = meeting(self.columns, columns, sw, t * dw - pw)
            tap[:, :, :, :first] = 0
            tap[:, :, :, first:last] = source[:, :, :, cut]
            tap[:, :, :, last:] = 0
        return room

    def factor(self, z: np.ndarray, first: int, rows: int, depth: int, cut: int) -> np.ndarray:
        """``depth`` lines (…, t, i) of Z from its row r·stride + first on: (groups, r, pieces, depth, columns)."""
        group, row, _, line, _, unit = z.strides
        n = self.columns // cut * z.shape[-1]
        strides = (group, self.windows.stride[0] * row, n * unit, line, unit)
        return np.ndarray((self.groups, rows, cut, depth, n), z.dtype, z, first * row, strides)

    def by_group(self, y: np.ndarray, cut: int) -> np.ndarray:
        """(r, channels, Wo, b) seen as (groups, r, pieces, channels/groups, columns)."""
        return y.reshape(y.shape[0], self.groups, self.channels_out, cut, -1).transpose(1, 0, 3, 2, 4)

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        g = self.switching(w, x, p)
        return g, self.costate(w, u, p) if costate else None

    def switching(self, w: Workspace, x: np.ndarray, p: np.ndarray) -> Any:
        """g[g, o, s, t, i] = Σ_{r, c, b} p[r, o, c, b] Z[r·stride + s·dilation, t, i, c, b]."""
        kh, kw = self.windows.size
        depth = kh * self.taps if self.dense_rows else self.taps
        a, b = block(self.channels_out, depth)
        cut = pieces(self.columns, a * b * w.batch, 3)
        total: Any = 0
        for start, stop in self.strips(self.rows, self.taps * self.windows.stride[0], w.batch, x.itemsize):
            z = self.unfolded(w, x, start, stop)
            left = self.by_group(p[start:stop], cut)
            parts = []
            for s in range(kh * self.taps // depth):
                right = self.factor(z, s * self.windows.dilation[0], stop - start, depth, cut)
                parts.append(inner(w, left, right, a, b))
            total = total + np.stack(parts, axis=2)
        g = total.reshape(self.groups, self.channels_out, kh, kw, self.channels_in).transpose(0, 1, 4, 2, 3)
        g = np.ascontiguousarray(g).reshape(self.stage.channels, self.channels_in, kh, kw)
        return (g, sum_rows(p.reshape(self.rows, self.stage.channels, -1)).sum(axis=0)) if self.stage.bias else (g,)

    def costate(self, w: Workspace, u: Any, p: np.ndarray) -> np.ndarray:
        """Σ_{o, s, t} k[o, i, s, t] p[r, o, c, :] over the windows that meet each pixel."""
        result = w.array((self.key, "p"), fast_shape(self.shape))
        out = result.reshape(self.shape[1], self.groups, self.channels_in, self.shape[2], w.batch).transpose(
            1, 0, 2, 3, 4
        )
        (self.gather if self.dense_rows else self.scatter)(w, u[1], p, out)
        return result

    def gather(self, w: Workspace, kernels: list[np.ndarray], p: np.ndarray, out: np.ndarray) -> None:
        """Row h = φ + stride·q − padding collects rows q − j of p under the kernel's rows φ + stride·j."""
        kh, sr, pr, _ = geometry(self.windows, 0)
        for phase in range(sr):
            target = out[:, (phase - pr) % sr :: sr]
            if phase >= kh:
                target[...] = 0
                continue
            first = ((phase - pr) % sr + pr) // sr  # q of the target's first row
            k = kernels[phase]
            window = k.shape[-1] // self.channels_out
            cut = pieces(self.columns, self.taps * k.shape[-1] * w.batch)
            for start, stop in self.strips(target.shape[1], self.taps, w.batch, p.itemsize):
                rows = self.padded(w, p, first + start - window + 1, first + stop)
                unit = p.itemsize
                line = self.columns * w.batch * unit
                row = self.channels_out * line
                n = self.columns // cut * w.batch
                shape = (self.groups, stop - start, cut, k.shape[-1], n)
                right = np.ndarray(shape, p.dtype, rows, 0, (rows.shape[1] * row, row, n * unit, line, unit))
                self.fold(w, k, right, target[:, start:stop], cut)

    def padded(self, w: Workspace, p: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Rows of p as (groups, rows, channels/groups, Wo, b), zero outside the image; p itself where that will do."""
        low, high = max(0, -start), max(0, min(stop, self.rows) - start)
        if self.groups == 1 and low == 0 and high == stop - start:
            return p[start:stop].reshape(1, -1, self.channels_out, self.columns, w.batch)
        rows = w.scratch("padded", (self.groups, stop - start, self.channels_out, self.columns))
        rows[:, :low] = 0
        rows[:, high:] = 0
        if low < high:
            part = p[start + low : start + high]
            part = part.reshape(high - low, self.groups, self.channels_out, self.columns, w.batch)
            rows[:, low:high] = part.transpose(1, 0, 2, 3, 4)
        return rows

    def scatter(self, w: Workspace, kernels: list[np.ndarray], p: np.ndarray, out: np.ndarray) -> None:
        """Row r of p goes to rows r·stride + s·dilation − padding, the kernel's rows s one after the other."""
        _, sr, pr, dr = geometry(self.windows, 0)
        cut = pieces(self.columns, self.taps * self.channels_out * w.batch)
        right = self.by_group(p, cut)
        out[...] = 0
        for s, k in enumerate(kernels):
            first, last, rows = meeting(self.rows, self.shape[1], sr, s * dr - pr)
            if first < last:
                self.fold(w, k, right[:, first:last], out[:, rows], cut, add=True)

    def fold(
        self, w: Workspace, k: np.ndarray, right: np.ndarray, out: np.ndarray, cut: int, add: bool = False
    ) -> None:
        """The product k·right, then its columns (t, c) put or added to columns c·stride + t·dilation − padding."""
        kw, sw, pw, dw = geometry(self.windows, 1)
        groups, q = right.shape[:2]
        product = w.scratch("product", (groups, q, kw, self.channels_in, self.columns))
        np.matmul(k, right, out=product.reshape(groups, q, self.taps, cut, -1).transpose(0, 1, 3, 2, 4))
        first, last, columns = meeting(self.columns, self.shape[2], sw, -pw)
        if add or sw > 1 or first >= last:
            if not add:
                out[...] = 0
            begin = 0
        else:  # the first tap is put, the others are added
            out[:, :, :, : columns.start] = 0
            out[:, :, :, columns] = product[:, :, 0, :, first:last]
            out[:, :, :, columns.stop :] = 0
            begin = 1
        for t in range(begin, kw):
            first, last, columns = meeting(self.columns, self.shape[2], sw, t * dw - pw)
            if first < last:
                out[:, :, :, columns] += product[:, :, t, :, first:last]


def geometry(windows: Any, axis: int) -> tuple[int, int, int, int]:
    """Size, stride, padding, dilation along rows (0) or columns (1)."""
    return windows.size[axis], windows.stride[axis], windows.padding[axis], windows.dilation[axis]


@lru_cache
def meeting(count: int, length: int, stride: int, offset: int) -> tuple[int, int, slice]:
    """First and past-the-last n < count with 0 ≤ n·stride + offset < length, and those places as a slice."""
    first = min(count, max(0, -(offset // stride)))
    last = max(first, min(count, (length - 1 - offset) // stride + 1))
    start = first * stride + offset
    return first, last, slice(start, start + (last - first - 1) * stride + 1, stride) if first < last else slice(0, 0)


def pieces(columns: int, work: int, scale: int = 1) -> int:
    """Number of equal pieces of the columns: the fewest whose products hold at most scale·PIECE multiplications.

    ``work`` is the multiplications of one column. Where one column alone is far more, the whole row is one product.
    """
    return _pieces(columns, work, scale * PIECE)


@lru_cache
def _pieces(columns: int, work: int, most: int) -> int:
    if work > 4 * most:
        return 1
    return next(n for n in range(1, columns + 1) if columns % n == 0 and (columns // n * work <= most or n == columns))


def inner(w: Workspace, left: np.ndarray, right: np.ndarray, a: int, b: int) -> np.ndarray:
    """Σ_{r, c} left·rightᵀ for (…, r, c, m, k) and (…, r, c, n, k), by products of a rows with b rows."""
    *batch, m, k = left.shape
    n = right.shape[-2]
    out = w.plain_scratch("inner", (*batch, m // a, n // b, a, b))
    left, right = left.reshape(*batch, m // a, 1, a, k), right.reshape(*batch, 1, n // b, b, k)
    total = np.matmul(left, right.swapaxes(-1, -2), out=out).sum(axis=(-6, -5))
    return total.swapaxes(-3, -2).reshape(*batch[:-2], m, n)


@lru_cache
def block(m: int, n: int) -> tuple[int, int]:
    """Divisors a of m and b of n with the largest product up to SMALL, the nearest to a square of these."""
    return max(
        ((a, b) for a in range(1, m + 1) if m % a == 0 for b in range(1, n + 1) if n % b == 0 and a * b <= SMALL),
        key=lambda size: (size[0] * size[1], -sum(size)),
    )
