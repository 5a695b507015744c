"""Pooling: control-free. Average pooling is linear; max pooling has kinks where two entries of a window tie.

Padding lets windows reach over the edge of the image, by half their size at most, so that each holds a pixel. A mean
takes what lies outside as zeros, which count, or leaves it out; a maximum leaves it out, as if it were −∞.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pmp_ref.arrays import Array, device, namespace
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Control, ControlFreeStage, LinearStage, Shape, need_rank, pair
from pmp_ref.layers.windows import Windows, patches, patches_adjoint


def _inside(x: Array, w: Windows) -> Array:
    """1 where an entry of a window is a pixel of x, else 0: (1, 1, kh, kw, Ho, Wo)."""
    ones = namespace(x).ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=device(x))
    return patches(ones, w)


@dataclass(frozen=True)
class _Pool(ControlFreeStage):
    """Windows of ``size`` placed every ``stride`` (default: size), which reach over the edge by ``padding``."""

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        self.windows  # noqa: B018  checks the geometry at once

    @property
    def windows(self) -> Windows:
        """The window geometry."""
        stride = self.size if self.stride is None else self.stride
        w = Windows(pair(self.size, "size", 1), pair(stride, "stride", 1), pair(self.padding, "padding", 0))
        if any(2 * p > k for p, k in zip(w.padding, w.size, strict=True)):
            raise InputError(f"padding is {w.padding} for windows of {w.size}; expected at most half of the window")
        return w

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 3, "(channels, rows, columns)")
        return (shape[0], *self.windows.positions(shape[1], shape[2]))


@dataclass(frozen=True)
class AveragePool(_Pool, LinearStage):
    """Mean over windows of ``size`` placed every ``stride`` (default: size); states (B, C, H, W).

    Windows reach over the edge by ``padding``. There they hold zeros, which the mean counts, or it is over the pixels
    of the image alone (``count_include_pad`` False).
    """

    count_include_pad: bool = True

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).sum(patches(x, self.windows), axis=(2, 3)) / self.counted(x)

    def counted(self, x: Array) -> Any:
        """Entries that the mean is over: a number, or (1, 1, Ho, Wo) where it is over pixels of the image alone."""
        w = self.windows
        if self.count_include_pad or not any(w.padding):
            return w.size[0] * w.size[1]
        return namespace(x).sum(_inside(x, w), axis=(2, 3))

    def adjoint(self, x: Array, p: Array) -> Array:
        xp, (kh, kw) = namespace(p), self.windows.size
        share = (p / self.counted(x))[:, :, None, None, :, :]
        share = xp.broadcast_to(share, (*p.shape[:2], kh, kw, *p.shape[2:]))
        return patches_adjoint(share, self.windows, *x.shape[2:])


@dataclass(frozen=True)
class MaxPool(_Pool):
    """Maximum over windows, of the pixels of the image alone where they reach over its edge by ``padding``; at ties the
    first entry of the window (row by row) carries the costate."""

    analytic = False

    def forward(self, x: Array, u: Control) -> Array:
        return namespace(x).max(self._entries(x), axis=(2, 3))

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

    def _entries(self, x: Array) -> Array:
        """Entries of the windows (B, C, kh, kw, Ho, Wo), −∞ outside the image."""
        z = patches(x, self.windows)
        if not any(self.windows.padding):
            return z
        return namespace(x).where(_inside(x, self.windows) > 0, z, -math.inf)

    def _winner(self, x: Array) -> Array:
        """Mask (B, C, kh, kw, Ho, Wo) of the first maximal entry of each window."""
        xp, z = namespace(x), self._entries(x)
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
