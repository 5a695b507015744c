"""Convolution by minimal filtering along columns (Winograd 1980): about half the multiplications.

F(m, r) gives m values of a filter of r taps, y_q = Σ_t k_t d_{q+t}, from the n = m + r − 1 inputs that they read, by n
multiplications in place of m r:

    y = Aᵀ((G k) ⊙ (Bᵀ d)).

A row of the output is cut into T tiles of m columns. Bᵀ on every tile is one matrix P (n T, W), which ends at the edges
of the image, so that padding is in it; Aᵀ on every tile is one matrix Q (W_o, n T). With U = G k along the columns of
the kernel, Z = P x and V = Qᵀ p the three maps are

    y[r, o] = Q Σ_{s, i} U[o, i, s, j] Z[r + s − padding, i, j, τ],
    costate[h, i] = Pᵀ Σ_{s, o} U[o, i, s, j] V[h − s + padding, o, j, τ],
    g[o, i, s] = Gᵀ Σ_{r, τ} V[r, o, j, τ] Z[r + s − padding, i, j, τ].

The n T transformed columns take the place of the kw shifted copies in ``convolution.py``: for each j and each row the
factors lie one after the other, and those of neighbouring rows overlap. P and Q are products too. Z and V are made for
a strip of rows at a time, which stays in cache.

The maps are those of the layer but for rounding: up to 14 units of the last place of the largest entry with three
columns and 26 with five, two to nine times as much as plain products (measured, docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np

from pmp_ref.kernels.convolution import block, inner, pieces
from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape, sum_rows
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Convolution

# F(m, r) takes the values of polynomials at infinity and at the first m + r − 2 of these: small, and far apart.
POINTS = tuple(map(Fraction, ("0", "1", "-1", "1/2", "-2", "-1/2", "2")))
TILE = 4  # columns of a tile, at most
TAPS = len(POINTS) + 2 - TILE  # columns of a kernel, at most
# Measured, see docs/performance.md.
STRIP = 2**21  # bytes of Z at a time
WORTH = 1.25  # multiplications for one of the plain convolution, at most: they run faster, and nothing is unfolded

Rational = tuple[tuple[Fraction, ...], ...]


def minimal_filter(m: int, r: int) -> tuple[Rational, Rational, Rational]:
    """Aᵀ (m, n), G (n, r) and Bᵀ (n, n) of F(m, r), n = m + r − 1, exactly.

    Let V_k a be the values of the polynomial Σ_i a_i zⁱ, i < k, at n − 1 points and at infinity, where it is a_{k−1}.
    V_m a ⊙ V_r k are the values of a product of polynomials, whose n coefficients V_n⁻¹ returns, so for all a

        Σ_q a_q Σ_t k_t d_{q+t} = dᵀ V_n⁻¹(V_m a ⊙ V_r k) = aᵀ V_mᵀ(V_r k ⊙ V_n⁻ᵀ d).

    Hence A = V_m, G = V_r and Bᵀ = V_n⁻ᵀ, whose rows are the coefficients of the Lagrange polynomials.
    """
    points = POINTS[: m + r - 2]

    def values(k: int) -> Rational:
        return (*(tuple(a**i for i in range(k)) for a in points), tuple(Fraction(i == k - 1) for i in range(k)))

    def lagrange(a: Fraction) -> tuple[Fraction, ...]:
        others = [b for b in points if b != a]
        return (*(c / prod(a - b for b in others) for c in with_roots(others)), Fraction(0))

    return tuple(zip(*values(m), strict=True)), values(r), (*map(lagrange, points), with_roots(points))


def with_roots(roots: Iterable[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of Π (z − a), the constant first."""
    c = [Fraction(1)]
    for a in roots:
        c = [shifted - a * same for shifted, same in zip([Fraction(0), *c], [*c, Fraction(0)], strict=True)]
    return tuple(c)


def tiling(columns: int) -> tuple[int, int]:
    """T and m: as few tiles as cover the columns, and these as narrow as they may be."""
    tiles = ceil(columns / TILE)
    return tiles, ceil(columns / tiles)


@lru_cache
def matrices(taps: int, width: int, columns: int, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P (n T, W), Q (W_o, n T) and G (n, r) in float64; n T is ordered (j, τ)."""
    tiles, m = tiling(columns)
    n = m + taps - 1
    of_tile, kernel, into_tile = (np.array(a, np.float64) for a in minimal_filter(m, taps))
    into, out = np.zeros((n, tiles, tiles * m + taps - 1)), np.zeros((tiles * m, n, tiles))
    for tile in range(tiles):
        first = tile * m  # of the tile's columns; in the padded image of those that it reads
        into[:, tile, first : first + n] = into_tile
        out[first : first + m, :, tile] = of_tile
    return into[:, :, padding : padding + width].reshape(-1, width), out[:columns].reshape(columns, -1), kernel


def cost(stage: Convolution, shape: tuple[int, ...]) -> float:
    """Multiplications of P, Q and the products, for one of the plain convolution."""
    height, taps = stage.windows.size
    channels, _, columns = stage.output_shape(shape)
    tiles, m = tiling(columns)
    products = height * channels * shape[0] // stage.groups  # for one column
    filtered = (m + taps - 1) * tiles * (products + shape[0] * shape[2] + channels * columns)
    return filtered / (taps * products * columns)


def pays(stage: Convolution, shape: tuple[int, ...]) -> bool:
    """True where there is a filter, and it multiplies at most WORTH times as often as the plain convolution."""
    w = stage.windows
    there = w.stride == w.dilation == (1, 1) and 2 <= w.size[1] <= TAPS
    return there and cost(stage, shape) <= WORTH


class FilteredMap(StageMap):
    """Convolution of stride and dilation 1 by minimal filtering along columns; every padding, any groups."""

    free = True
    stage: Convolution

    def __init__(self, stage: Convolution, place: Place) -> None:
        super().__init__(stage, place)
        self.groups = stage.groups
        self.channels_in, self.channels_out = self.shape[0] // stage.groups, stage.channels // stage.groups
        self.rows, self.columns = self.out_shape[1:]
        self.height, taps = stage.windows.size
        self.padding = stage.windows.padding[0]
        self.tiles, m = tiling(self.columns)
        self.lines = (m + taps - 1) * self.tiles
        self.into, self.out, self.kernel = matrices(taps, self.shape[2], self.columns, stage.windows.padding[1])

    def prepare(self, u: tuple[np.ndarray, ...]) -> Any:
        """U as (g, j, o, (s, i)) and, rows reversed, as (g, j, i, (s, o)); the bias; P; Q with a column for it."""
        dtype = u[0].dtype
        k = np.matmul(u[0].reshape(-1, self.kernel.shape[1]), self.kernel.T.astype(dtype))
        k = k.reshape(self.groups, self.channels_out, self.channels_in, self.height, -1)
        forward = np.ascontiguousarray(k.transpose(0, 4, 1, 3, 2))
        adjoint = np.ascontiguousarray(k[:, :, :, ::-1].transpose(0, 4, 2, 3, 1))
        forward, adjoint = (a.reshape(self.groups, 1, a.shape[1], 1, a.shape[2], -1) for a in (forward, adjoint))
        bias = u[1].reshape(self.groups, 1, -1, 1) if self.stage.bias else None
        out = np.hstack([self.out, np.ones((self.columns, 1))])
        return forward, adjoint, bias, self.into.astype(dtype), out.astype(dtype)

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        kernel, _, bias, into, out = u
        y = w.array((self.key, "y"), fast_shape(self.out_shape))
        for start, stop in self.strips(w, self.rows):
            z = self.transformed(w, "unfolded", into, x, start - self.padding, stop - self.padding + self.height - 1)
            product = self.room(w, "product", stop - start, self.channels_out)
            self.multiply(kernel, z, 0, product)
            product[..., -1, :] = 0 if bias is None else bias
            np.matmul(out, product, out=self.by_group(y)[:, start:stop])
        return y

    def backward(self, w: Workspace, u: Any, x: np.ndarray, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        """Strip by strip of the rows of the padded image: V serves both maps."""
        _, adjoint, bias, into, out = u
        above = self.height - 1
        q = w.array((self.key, "p"), fast_shape(self.shape)) if costate else None
        total: Any = 0
        for start, stop in self.strips(w, self.rows + above):
            v = self.transformed(w, "padded", out[:, :-1].T, p, start - above, stop)
            last = min(stop, self.rows)
            if start < last:
                z = self.transformed(w, "unfolded", into, x, start - self.padding, last - self.padding + above)
                total = total + self.inner(w, v, z, last - start)
            first, past = max(start, self.padding), min(stop, self.padding + self.shape[1])
            if q is not None and first < past:
                product = self.room(w, "product", past - first, self.channels_in)
                self.multiply(adjoint, v, first - start, product)
                rows = self.by_group(q)[:, first - self.padding : past - self.padding]
                np.matmul(into.T, product[..., :-1, :], out=rows)
        g = np.matmul(self.kernel.T.astype(p.dtype), total.reshape(self.groups, self.kernel.shape[0], -1))
        g = g.reshape(self.groups, -1, self.channels_out, self.height, self.channels_in).transpose(0, 2, 4, 3, 1)
        g = g.reshape(self.stage.channels, self.channels_in, self.height, -1)
        return (g,) if bias is None else (g, sum_rows(p.reshape(*p.shape[:2], -1)).sum(axis=0)), q

    def strips(self, w: Workspace, rows: int) -> Iterator[tuple[int, int]]:
        """Cut ``rows`` rows evenly, so that their transformed columns fit a strip."""
        channels = max(self.shape[0], self.stage.channels)
        row = channels * (self.lines + 1) * w.batch * np.dtype(w.dtype).itemsize
        count = ceil(rows / max(self.height, STRIP // row))  # lower strips would transform most rows more than once
        return pairwise(rows * i // count for i in range(count + 1))

    def by_group(self, x: np.ndarray) -> np.ndarray:
        """(rows, channels, columns, b) seen as (groups, rows, channels/groups, columns, b)."""
        return x.reshape(x.shape[0], self.groups, -1, *x.shape[2:]).swapaxes(0, 1)

    def room(self, w: Workspace, name: str, rows: int, channels: int) -> np.ndarray:
        """(groups, rows, channels, n T + 1, b): one line more, which holds the bias, and without which the distance of
        two channels would often be a large power of 2, so that their lines fell into the same places of the cache."""
        return w.scratch(name, (self.groups, rows, channels, self.lines + 1))

    def transformed(
        self, w: Workspace, name: str, matrix: np.ndarray, x: np.ndarray, start: int, stop: int
    ) -> np.ndarray:
        """The matrix times the rows of x from ``start`` to ``stop``, which are 0 outside the image."""
        x = self.by_group(x)
        z = self.room(w, name, stop - start, x.shape[2])
        lines = z[..., :-1, :]
        low, high = min(max(start, 0), stop), max(min(stop, x.shape[1]), start)
        lines[:, : low - start] = 0
        lines[:, high - start :] = 0
        if low < high:
            np.matmul(matrix, x[:, low:high], out=lines[:, low - start : high - start])
        return z

    def multiply(self, kernel: np.ndarray, z: np.ndarray, first: int, product: np.ndarray) -> None:
        """Row r of the product is the kernel times the rows of z from r + first on, for each j."""
        rows, channels = product.shape[1:3]
        depth = kernel.shape[-1]
        cut = pieces(self.tiles, channels * depth * z.shape[-1])
        np.matmul(kernel, self.factor(z, first, rows, depth, cut), out=self.factor(product, 0, rows, channels, cut))

    def inner(self, w: Workspace, v: np.ndarray, z: np.ndarray, rows: int) -> np.ndarray:
        """Σ_{r, τ} V[r, o, j, τ] Z[r + s, i, j, τ] as (g, j, o, (s, i)); V comes with height − 1 rows above."""
        depth = self.height * self.channels_in
        a, b = block(self.channels_out, depth)
        cut = pieces(self.tiles, a * b * z.shape[-1], 3)
        left = self.factor(v, self.height - 1, rows, self.channels_out, cut)
        right = self.factor(z, 0, rows, depth, cut)
        return inner(w, left.swapaxes(1, 2), right.swapaxes(1, 2), a, b)

    def factor(self, z: np.ndarray, first: int, rows: int, depth: int, cut: int) -> np.ndarray:
        """``depth`` channels from row r + first on, for each r: (groups, r, j, pieces of the tiles, depth, columns)."""
        group, row, line, unit = *z.strides[:3], z.itemsize
        n = self.tiles // cut * z.shape[-1]
        shape = (self.groups, rows, self.lines // self.tiles, cut, depth, n)
        return np.ndarray(shape, z.dtype, z, first * row, (group, row, cut * n * unit, n * unit, line, unit))
