"""Pooling: control-free. Average pooling is linear; max pooling has kinks where two entries of a window tie."""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import Array, device, namespace
from pmp_ref.layers.layer import Control, ControlFreeStage, LinearStage, Shape, need_rank, pair
from pmp_ref.layers.windows import Windows, patches, patches_adjoint


def _windows(size: int | tuple[int, int], stride: int | tuple[int, int] | None) -> Windows:
    return Windows(pair(size, "size", 1), pair(size if stride is None else stride, "stride", 1))


@dataclass(frozen=True)
class AveragePool(LinearStage):
    """Mean over windows of ``size`` placed every ``stride`` (default: size); states (B, C, H, W)."""

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.windows  # noqa: B018  checks size and stride at once

    @property
    def windows(self) -> Windows:
        """The window geometry."""
        return _windows(self.size, self.stride)

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 3, "(channels, rows, columns)")
        return (shape[0], *self.windows.positions(shape[1], shape[2]))

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).mean(patches(x, self.windows), axis=(2, 3))

    def adjoint(self, x: Array, p: Array) -> Array:
        xp, (kh, kw) = namespace(p), self.windows.size
        share = p[:, :, None, None, :, :] / (kh * kw)
        share = xp.broadcast_to(share, (*p.shape[:2], kh, kw, *p.shape[2:]))
        return patches_adjoint(share, self.windows, *x.shape[2:])


@dataclass(frozen=True)
class MaxPool(ControlFreeStage):
    """Maximum over windows; at ties the first entry of the window (row by row) carries the costate."""

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    analytic = False

    def __post_init__(self) -> None:
        self.windows  # noqa: B018  checks size and stride at once

    @property
    def windows(self) -> Windows:
        """The window geometry."""
        return _windows(self.size, self.stride)

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 3, "(channels, rows, columns)")
        return (shape[0], *self.windows.positions(shape[1], shape[2]))

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).max(patches(x, self.windows), axis=(2, 3))

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        xp, winner = namespace(p), self._winner(x)
        p = p[:, :, None, None, :, :]
        z = xp.where(winner, p, 0.0)
        return patches_adjoint(z, self.windows, *x.shape[2:])

    def tangent(self, x: Array, u: Control, dx: Array, v: Control) -> Array:
        xp, dz = namespace(dx), patches(dx, self.windows)
        return xp.sum(xp.where(self._winner(x), dz, 0.0), axis=(2, 3))

    def tangent_costate(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Array:
        return self.costate(x, u, dp)

    def _winner(self, x: Array) -> Array:
        """Mask (B, C, kh, kw, Ho, Wo) of the first maximal entry of each window."""
        xp, z = namespace(x), patches(x, self.windows)
        b, c, kh, kw, rows, columns = z.shape
        first = xp.argmax(xp.reshape(z, (b, c, kh * kw, rows, columns)), axis=2, keepdims=True)
        taps = xp.reshape(xp.arange(kh * kw, dtype=first.dtype, device=device(x)), (1, 1, kh * kw, 1, 1))
        return xp.reshape(taps == first, z.shape)


@dataclass(frozen=True)
class GlobalAveragePool(LinearStage):
    """Mean over all pixels: (B, C, H, W) → (B, C)."""

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 3, "(channels, rows, columns)")
        return (shape[0],)

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).mean(x, axis=(2, 3))

    def adjoint(self, x: Array, p: Array) -> Array:
        return namespace(p).broadcast_to(p[:, :, None, None] / (x.shape[2] * x.shape[3]), x.shape)
