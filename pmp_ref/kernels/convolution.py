"""Convolution with the batch innermost: unfolded along columns only, rows as an overlapping batch of products.

Z[g, h, t, i, c, :] = x[h − padding, channel i of group g, c·stride + t·dilation − padding, :] holds kw shifted copies. For
output row r the rows (s, t, i) of the product's right factor are Z[g, r·stride + s·dilation]; without row dilation they lie
one after the other, so that Z[g, r·stride : r·stride + kh] is the factor and neighbouring rows share it. Products are cut
into pieces of a few columns, which the BLAS library multiplies without packing.

The costate map gathers along rows (per phase of the row stride again an overlapping batch of products, the kernel's rows
in reverse) and folds along columns. Row dilation adds the kernel's rows one by one instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.stagemap import StageMap, fast_shape, sum_rows
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Convolution

# Multiplications of one product, at most, where there is a choice. Measured (docs/performance.md): pieces of this size
# are multiplied two to three times as fast as whole rows.
PIECE = 280_000
# Entries of a result, at most, for which the BLAS library multiplies long factors without packing.
SMALL = 1200


class ConvolutionMap(StageMap):
    """Convolution, every shape, stride, padding, dilation and number of groups."""

    free = True
    stage: Convolution

    def __init__(self, stage: Convolution, shape: tuple[int, ...], key: int) -> None:
        super().__init__(stage, shape, key)
        self.windows = w = stage.windows
        self.groups = stage.groups
        self.channels_in, self.channels_out = shape[0] // stage.groups, stage.channels // stage.groups
        self.rows, self.columns = self.out_shape[1:]
        # rows of Z: those that some window reads, and at least the image itself with its padding
        self.z_rows = max(shape[1] + 2 * w.padding[0], (self.rows - 1) * w.stride[0] + w.dilation[0] * (w.size[0] - 1) + 1)
        self.bare = w.size[1] == w.stride[1] == self.groups == 1 and w.padding == (0, 0)

    def prepare(self, u: tuple[np.ndarray, ...]) -> Any:
        (kh, kw), sr = self.windows.size, self.windows.stride[0]
        k = u[0].reshape(self.groups, self.channels_out, self.channels_in, kh, kw)
        forward = np.ascontiguousarray(k.transpose(0, 1, 3, 4, 2))  # g, o, s, t, i
        if self.windows.dilation[0] == 1:
            # phase φ: rows s = φ + sr·j of the kernel, j descending, as (g, (t, i), (j, o))
            adjoint = [
                np.ascontiguousarray(k[:, :, :, phase::sr][:, :, :, ::-1].transpose(0, 4, 2, 3, 1)).reshape(
                    self.groups, 1, 1, kw * self.channels_in, -1
                )
                for phase in range(min(sr, kh))
            ]
        else:
            adjoint = [
                np.ascontiguousarray(k[:, :, :, s].transpose(0, 3, 2, 1)).reshape(
                    self.groups, 1, 1, kw * self.channels_in, self.channels_out
                )
                for s in range(kh)
            ]
        bias = u[1] if self.stage.bias else None
        return forward, adjoint, bias

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        kernel, _, bias = u
        kh, kw = self.windows.size
        z = self.unfolded(w, x)
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        taps = kw * self.channels_in
        if self.windows.dilation[0] == 1:
            cut = pieces(self.columns, self.channels_out * kh * taps * w.batch)
            k = kernel.reshape(self.groups, 1, 1, self.channels_out, kh * taps)
            np.matmul(k, self.factor(z, 0, kh * taps, cut), out=self.by_group(y, cut))
        else:
            cut = pieces(self.columns, self.channels_out * taps * w.batch)
            out = self.by_group(y, cut)
            for s in range(kh):
                k = np.ascontiguousarray(kernel[:, :, s]).reshape(self.groups, 1, 1, self.channels_out, taps)
                term = np.matmul(k, self.factor(z, s * self.windows.dilation[0], taps, cut))
                if s == 0:
                    out[...] = term
                else:
                    out += term
        if bias is not None:
            lines = y.reshape(self.rows, -1)
            lines += np.repeat(bias, lines.shape[1] // self.stage.channels)  # long rows add faster than broadcasts
        return y

    def unfolded(self, w: Workspace, x: np.ndarray) -> np.ndarray:
        """Z of the state entering; x itself where no unfolding is needed."""
        _, rows, columns = self.shape
        if self.bare:
            return x.reshape(1, rows, 1, self.channels_in, columns, w.batch)
        (kw, sw, pw, dw), pr = self.column_geometry(), self.windows.padding[0]
        z = w.scratch("unfolded", (self.groups, self.z_rows, kw, self.channels_in, self.columns))
        z[:, :pr] = 0
        z[:, pr + rows :] = 0
        source = x.reshape(rows, self.groups, self.channels_in, columns, w.batch).transpose(1, 0, 2, 3, 4)
        for t in range(kw):
            first, last = meeting(self.columns, columns, sw, t * dw - pw)
            tap = z[:, pr : pr + rows, t]
            tap[:, :, :, :first] = 0
            tap[:, :, :, max(last, first) :] = 0
            if first < last:
                start = first * sw + t * dw - pw
                stop = start + (last - first - 1) * sw + 1
                tap[:, :, :, first:last] = source[:, :, :, start:stop:sw]
        return z

    def column_geometry(self) -> tuple[int, int, int, int]:
        """Size, stride, padding, dilation along columns."""
        w = self.windows
        return w.size[1], w.stride[1], w.padding[1], w.dilation[1]

    def factor(self, z: np.ndarray, first: int, depth: int, cut: int) -> np.ndarray:
        """Rows (…, t, i) of Z from image row r·stride + first on, ``depth`` of them: (groups, r, pieces, depth, columns)."""
        unit = z.itemsize
        line = self.columns * z.shape[-1] * unit
        row = z.shape[2] * z.shape[3] * line
        n = self.columns // cut * z.shape[-1]
        return np.ndarray(
            (self.groups, self.rows, cut, depth, n),
            z.dtype,
            z,
            first * row,
            (z.shape[1] * row, self.windows.stride[0] * row, n * unit, line, unit),
        )

    def by_group(self, y: np.ndarray, cut: int) -> np.ndarray:
        """(Ho, channels, Wo, b) seen as (groups, Ho, pieces, channels/groups, columns)."""
        return y.reshape(self.rows, self.groups, self.channels_out, cut, -1).transpose(1, 0, 3, 2, 4)

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        g = self.switching(w, x, p)
        return g, self.costate(w, u, p) if costate else None

    def switching(self, w: Workspace, x: np.ndarray, p: np.ndarray) -> Any:
        """g[g, o, s, t, i] = Σ_{r, c, b} p[r, o, c, b] Z[r·stride + s·dilation, t, i, c, b]."""
        kh, kw = self.windows.size
        taps = kw * self.channels_in
        z = self.unfolded(w, x)
        whole = self.windows.dilation[0] == 1 and self.channels_out * kh * taps <= SMALL
        depth = kh * taps if whole else taps
        cut = pieces(self.columns, self.channels_out * depth * w.batch, 4 * PIECE)
        left = self.by_group(p, cut)
        parts = []
        for s in range(1 if whole else kh):
            right = self.factor(z, s * self.windows.dilation[0], depth, cut)
            parts.append(np.matmul(left, right.swapaxes(-1, -2)).sum(axis=(1, 2)))
        g = np.stack(parts, axis=2).reshape(self.groups, self.channels_out, kh, kw, self.channels_in)
        g = np.ascontiguousarray(g.transpose(0, 1, 4, 2, 3)).reshape(self.stage.channels, self.channels_in, kh, kw)
        if not self.stage.bias:
            return (g,)
        return g, sum_rows(p.reshape(self.rows, self.stage.channels, -1)).sum(axis=0)

    def costate(self, w: Workspace, u: Any, p: np.ndarray) -> np.ndarray:
        """Σ_{o, s, t} k[o, i, s, t] p[r, o, c, :] over the windows that meet pixel (h, w)."""
        out = w.array((self.key, "p"), fast_shape(self.shape))
        folded = out.reshape(self.shape[1], self.groups, self.channels_in, self.shape[2], w.batch)
        folded = folded.transpose(1, 0, 2, 3, 4)
        if self.windows.dilation[0] == 1:
            self.gather(w, u[1], p, folded)
        else:
            self.scatter(w, u[1], p, folded)
        return out

    def gather(self, w: Workspace, kernels: list[np.ndarray], p: np.ndarray, out: np.ndarray) -> None:
        """Row h = φ + stride·q − padding collects rows q − j of p under the kernel's rows φ + stride·j."""
        kh, sr, pr = self.windows.size[0], self.windows.stride[0], self.windows.padding[0]
        before = (kh - 1) // sr
        rows = self.shape[1]
        last = (rows - 1 + pr) // sr  # largest q
        if before == 0 and self.groups == 1 and last < self.rows:
            padded = p.reshape(1, self.rows, self.channels_out, self.columns, w.batch)
        else:
            height = before + max(self.rows, last + 1)
            padded = w.scratch("padded", (self.groups, height, self.channels_out, self.columns))
            padded[:, :before] = 0
            padded[:, before + self.rows :] = 0
            padded[:, before : before + self.rows] = p.reshape(
                self.rows, self.groups, self.channels_out, self.columns, w.batch
            ).transpose(1, 0, 2, 3, 4)
        unit = p.itemsize
        line = self.columns * w.batch * unit
        row = self.channels_out * line
        for phase in range(sr):
            start = (phase - pr) % sr  # first image row of this phase
            if start >= rows:
                continue
            target = out[:, start::sr]
            if phase >= kh:
                target[...] = 0
                continue
            k = kernels[phase]
            depth, first = k.shape[-1], (start + pr) // sr
            cut = pieces(self.columns, k.shape[-2] * depth * w.batch)
            n = self.columns // cut * w.batch
            q = target.shape[1]
            right = np.ndarray(
                (self.groups, q, cut, depth, n),
                p.dtype,
                padded,
                (first + before - (depth // self.channels_out - 1)) * row,
                (padded.shape[1] * row, row, n * unit, line, unit),
            )
            self.fold(w, k, right, target, cut, add=False)

    def scatter(self, w: Workspace, kernels: list[np.ndarray], p: np.ndarray, out: np.ndarray) -> None:
        """Row r of p goes to rows r·stride + s·dilation − padding, the kernel's rows s one after the other."""
        w_, rows = self.windows, self.shape[1]
        cut = pieces(self.columns, kernels[0].shape[-2] * kernels[0].shape[-1] * w.batch)
        right = self.by_group(p, cut)
        out[...] = 0
        for s, k in enumerate(kernels):
            offset = s * w_.dilation[0] - w_.padding[0]
            first, last = meeting(self.rows, rows, w_.stride[0], offset)
            if first < last:
                start = first * w_.stride[0] + offset
                stop = start + (last - first - 1) * w_.stride[0] + 1
                self.fold(w, k, right[:, first:last], out[:, start : stop : w_.stride[0]], cut, add=True)

    def fold(self, w: Workspace, k: np.ndarray, right: np.ndarray, out: np.ndarray, cut: int, add: bool) -> None:
        """The product k·right, then its columns (t, c) put or added to columns c·stride + t·dilation − padding."""
        kw, sw, pw, dw = self.column_geometry()
        width = self.shape[2]
        groups, q = right.shape[:2]
        product = w.scratch("product", (groups, q, kw, self.channels_in, self.columns))
        split = product.reshape(groups, q, kw * self.channels_in, cut, -1).transpose(0, 1, 3, 2, 4)
        np.matmul(k, right, out=split)
        fresh = not add
        if fresh and sw > 1:
            out[...] = 0
            fresh = False
        for t in range(kw):
            first, last = meeting(self.columns, width, sw, t * dw - pw)
            if first < last:
                start = first * sw + t * dw - pw
                stop = start + (last - first - 1) * sw + 1
                if fresh:  # the first tap is put, the others are added
                    out[:, :, :, :start] = 0
                    out[:, :, :, start:stop] = product[:, :, t, :, first:last]
                    out[:, :, :, stop:] = 0
                    fresh = False
                else:
                    out[:, :, :, start:stop:sw] += product[:, :, t, :, first:last]


def meeting(count: int, length: int, stride: int, offset: int) -> tuple[int, int]:
    """First and past-the-last n < count with 0 ≤ n·stride + offset < length."""
    first = max(0, -(offset // stride))
    last = min(count, (length - 1 - offset) // stride + 1)
    return first, last


def pieces(columns: int, work: int, most: int = PIECE) -> int:
    """Number of equal pieces of the columns: the fewest whose products hold at most ``most`` multiplications.

    ``work`` is the multiplications of one column. Where one column alone is more, the whole row is one product.
    """
    if work > 4 * most:
        return 1
    return next(n for n in range(1, columns + 1) if columns % n == 0 and (columns // n * work <= most or n == columns))
