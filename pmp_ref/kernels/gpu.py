"""Sweeps for a GPU: few large operations on the whole batch, in the arrays' own library.

Convolutions and poolings are the stages of ``pmp_ref.layers`` with the same maps written otherwise: windows are a
strided view, copied once into the rows of a matrix, and each of the three maps of a convolution is one matrix product.
Everything else is the clear path. The same code runs on NumPy, CuPy and PyTorch; JAX has no views and unfolds as the
clear path does. Not yet run on a GPU (docs/backends.md).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, fields, replace
from typing import Any

from pmp_ref.arrays import Array, device, item_size, library, namespace, zeros
from pmp_ref.errors import InputError
from pmp_ref.layers import AveragePool, Convolution, MaxPool, Stage
from pmp_ref.layers.layer import Control, Shape
from pmp_ref.layers.windows import Windows, patches
from pmp_ref.loss import Loss
from pmp_ref.network import Network
from pmp_ref.sweep import Sweep


@dataclass(frozen=True)
class GpuSweep(Sweep):
    """:class:`pmp_ref.sweep.Sweep` with the stages of this module, for arrays on a GPU.

    ``chunk`` samples are swept at a time (0: by :meth:`largest_chunk`). Kept states may take ``memory`` bytes, and so
    may what a chunk needs at once; the default leaves room on a GPU of 8 GiB.
    """

    chunk: int = 0
    memory: int = 2 * 2**30

    def __post_init__(self) -> None:
        if self.chunk < 0:
            raise InputError(f"chunk is {self.chunk}; expected a number of samples, or 0: as many as fit into memory")
        object.__setattr__(self, "network", strided_network(self.network))

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""
        return super().belongs(strided_network(network), loss)

    def chunk_size(self, x: Array) -> int:
        """Samples of a chunk of the batch x."""
        return self.chunk or self.largest_chunk(x)

    def largest_chunk(self, x: Array) -> int:
        """Samples swept at a time: the whole batch if its states and widest patches fit into ``memory`` bytes, else as
        many samples as do, at least one. On a CPU chunks are small, to stay in cache; a GPU wants long operations."""
        patch = max(patch_entries(self.network, l) for l in range(len(self.network.stages)))
        return min(x.shape[0], max(1, self.memory // (item_size(x, 8) * (self.entries_per_sample + patch))))


def strided_network(network: Network) -> Network:
    """The same network with the stages of this module."""
    return replace(network, stages=tuple(map(strided, network.stages)))


def strided(stage: Stage) -> Stage:
    """The stage as this module writes it; the stage itself where it has nothing to gain (by exact type)."""
    if type(stage) in (AveragePool, MaxPool):
        w = stage.windows  # type: ignore[attr-defined]
        if w.size != w.stride or any(w.padding):
            return stage  # windows that overlap, or reach over the edge
    kinds: dict[type, Any] = {Convolution: StridedConvolution, AveragePool: BlockAveragePool, MaxPool: BlockMaxPool}
    kind = kinds.get(type(stage))
    return stage if kind is None else kind(**{f.name: getattr(stage, f.name) for f in fields(stage)})  # type: ignore[arg-type]


def patch_entries(network: Network, l: int) -> int:
    """Entries of the widest matrix of patches that one sample needs in the maps of stage l; 0 if it has none."""
    stage, entering, leaving = network.stages[l], network.entering(l, network.shapes), network.shapes[l + 1]
    if not isinstance(stage, Convolution):
        return 0
    taps = stage.windows.size[0] * stage.windows.size[1]
    return taps * max(entering[0] * math.prod(leaving[1:]), leaving[0] * math.prod(entering[1:]))


class StridedConvolution(Convolution):
    """A convolution's three bilinear maps, each one product with the matrix of patches; N = B·Ho·Wo window positions.

    apply: y = Z Kᵀ. adjoint_kernel: g = pᵀ Z. adjoint_state gathers: a convolution of p, spread by the stride, with the
    flipped kernel, so it is a product of the same form.
    """

    def apply(self, x: Array, k: Array) -> Array:
        xp, w = namespace(x), self.windows
        k = xp.reshape(k, (self.groups, self.channels // self.groups, -1))
        y = product(self._rows(padded(x, w), w), xp.matrix_transpose(k))
        return self._image(y, x.shape[0], *w.positions(*x.shape[2:]))

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        xp, w, (b, _, h, v) = namespace(p), self.windows, p.shape
        p = xp.reshape(p, (b, self.groups, self.channels // self.groups, h, v))
        p = xp.reshape(xp.permute_dims(p, (1, 2, 0, 3, 4)), (self.groups, self.channels // self.groups, b * h * v))
        return xp.reshape(product(p, self._rows(padded(x, w), w)), k_shape)

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        xp, w, inputs = namespace(p), self.windows, x_shape[1] // self.groups
        reach = [d * (n - 1) for d, n in zip(w.dilation, w.size, strict=True)]  # beyond its first entry
        rows, columns = x_shape[2] + reach[0], x_shape[3] + reach[1]
        p = placed(p, (rows, columns), (reach[0] - w.padding[0], reach[1] - w.padding[1]), w.stride)
        k = xp.reshape(xp.flip(k, axis=(2, 3)), (self.groups, self.channels // self.groups, inputs, *w.size))
        k = xp.reshape(xp.permute_dims(k, (0, 1, 3, 4, 2)), (self.groups, -1, inputs))
        y = product(self._rows(p, Windows(w.size, dilation=w.dilation)), k)
        return self._image(y, x_shape[0], *x_shape[2:])

    def _rows(self, x: Array, w: Windows) -> Array:
        """(B, C, H, W) → (groups, N, C/groups·kh·kw), one window in each row: the one copy. Does not pad."""
        xp, z = namespace(x), window_view(x, w)
        b, c, rows, columns, kh, kw = z.shape
        z = xp.reshape(z, (b, self.groups, c // self.groups, rows, columns, kh, kw))
        z = xp.permute_dims(z, (1, 0, 3, 4, 2, 5, 6))
        return xp.reshape(z, (self.groups, b * rows * columns, c // self.groups * kh * kw))

    def _image(self, y: Array, batch: int, rows: int, columns: int) -> Array:
        """(groups, N, c) → (B, groups·c, rows, columns); a view if there is one group."""
        xp = namespace(y)
        y = xp.permute_dims(xp.reshape(y, (self.groups, batch, rows, columns, y.shape[2])), (1, 0, 4, 2, 3))
        return xp.reshape(y, (batch, y.shape[1] * y.shape[2], rows, columns))


class BlockAveragePool(AveragePool):
    """Average pooling over windows that do not overlap."""

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).mean(blocks(x, self.windows), axis=(4, 5))

    def adjoint(self, x: Array, p: Array) -> Array:
        kh, kw = self.windows.size
        share = p[..., None, None] / (kh * kw)
        return blocks_adjoint(namespace(p).broadcast_to(share, (*p.shape, kh, kw)), *x.shape[2:])


class BlockMaxPool(MaxPool):
    """Max pooling over windows that do not overlap; ties as in :class:`pmp_ref.layers.MaxPool`."""

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).max(blocks(x, self.windows), axis=(4, 5))

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        xp, z = namespace(p), blocks(x, self.windows)
        taps = z.shape[4] * z.shape[5]
        first = xp.argmax(xp.reshape(z, (*z.shape[:4], taps)), axis=4, keepdims=True)
        winner = xp.reshape(xp.arange(taps, dtype=first.dtype, device=device(x)) == first, z.shape)
        p = p[..., None, None]
        return blocks_adjoint(xp.where(winner, p, 0.0), *x.shape[2:])


def blocks(x: Array, w: Windows) -> Array:
    """(B, C, H, W) → (B, C, Ho, Wo, kh, kw), windows side by side; rows and columns left over are dropped."""
    xp, (rows, columns) = namespace(x), w.positions(x.shape[2], x.shape[3])
    x = x[:, :, : rows * w.size[0], : columns * w.size[1]]
    z = xp.reshape(x, (*x.shape[:2], rows, w.size[0], columns, w.size[1]))
    return xp.permute_dims(z, (0, 1, 2, 4, 3, 5))


def blocks_adjoint(z: Array, rows: int, columns: int) -> Array:
    """Adjoint of :func:`blocks`, and its inverse where nothing is left over."""
    xp, (b, c, h, w, kh, kw) = namespace(z), z.shape
    x = xp.reshape(xp.permute_dims(z, (0, 1, 2, 4, 3, 5)), (b, c, h * kh, w * kw))
    return placed(x, (rows, columns), (0, 0))


def window_view(x: Array, w: Windows) -> Array:
    """(B, C, H, W) → (B, C, Ho, Wo, kh, kw), without a copy where the library has strides. Does not pad.

    Not ``cupy.lib.stride_tricks.sliding_window_view``: it checks the window's size in an array on the GPU and waits.
    """
    kind, w = _kind(x), replace(w, padding=(0, 0))
    if kind not in ("numpy", "cupy", "torch"):
        return namespace(x).permute_dims(patches(x, w), (0, 1, 4, 5, 2, 3))
    shape = (*x.shape[:2], *w.positions(*x.shape[2:]), *w.size)
    b, c, row, column = x.stride() if kind == "torch" else x.strides
    strides = (b, c, row * w.stride[0], column * w.stride[1], row * w.dilation[0], column * w.dilation[1])
    if kind == "torch":
        return x.as_strided(shape, strides)
    as_strided = importlib.import_module(f"{kind}.lib.stride_tricks").as_strided
    return as_strided(x, shape, strides)


def on_gpu(a: Array) -> bool:
    """True for CuPy arrays and for arrays of PyTorch or JAX that lie on anything but the CPU."""
    kind = _kind(a)
    if kind == "torch":
        return bool(a.device.type != "cpu")
    return kind == "cupy" or (kind == "jaxlib" and any(d.platform != "cpu" for d in a.devices()))


def _kind(a: Array) -> str:
    """Name of the library of ``a``."""
    return library(a).partition(".")[0]


def product(a: Array, b: Array) -> Array:
    """a b, group by group; one group as a plain product, which takes a transposed matrix as it lies."""
    xp = namespace(a, b)
    return xp.matmul(a[0, ...], b[0, ...])[None, ...] if a.shape[0] == 1 else xp.matmul(a, b)


def padded(x: Array, w: Windows) -> Array:
    """Images with the zeros around them that the windows ask for."""
    return placed(x, (x.shape[2] + 2 * w.padding[0], x.shape[3] + 2 * w.padding[1]), w.padding)


def placed(x: Array, size: tuple[int, int], start: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> Array:
    """Images of that size, 0 but for pixel (i, j) of x at start + stride·(i, j); what falls outside is dropped."""
    if size == tuple(x.shape[2:]) and start == (0, 0) and stride == (1, 1):
        return x
    z = zeros((*x.shape[:2], *size), x)
    source, target = [slice(None)] * 2, [slice(None)] * 2
    for n, length, first, step in zip(size, x.shape[2:], start, stride, strict=True):
        low, high = max(0, -(first // step)), min(length, (n - 1 - first) // step + 1)
        if low >= high:
            return z
        source.append(slice(low, high))
        target.append(slice(first + step * low, first + step * (high - 1) + 1, step))
    if _kind(x) == "jaxlib":
        return z.at[tuple(target)].set(x[tuple(source)])
    z[tuple(target)] = x[tuple(source)]
    return z
