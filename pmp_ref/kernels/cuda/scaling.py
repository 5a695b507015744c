"""Scale and shift of channels; its switching functions k and β in two launches."""

from __future__ import annotations

import math

import numpy as np

from pmp_ref.arrays import Array
from pmp_ref.kernels.cuda.products import partial_sums, rows_adding
from pmp_ref.kernels.cuda.source import THREADS, applies, ceil, contiguous, empty, kernel, launch, launch_entries, real
from pmp_ref.kernels.cuda.tiles import BUSY
from pmp_ref.layers import ScaleShift
from pmp_ref.layers.layer import Control, Shape

LEAST = 1024  # entries of a channel that are worth a block of their own: four for each thread


class CudaScaleShift(ScaleShift):
    """y = k ⊙ x + β; other arrays than CuPy's take the superclass' maps."""

    def forward(self, x: Array, u: Control) -> Array:
        return scaled(x, *u) if applies(x, *u) else super().forward(x, u)

    def switching(self, x: Array, u: Control, p: Array) -> Control:
        return switched(x, p, self.bias) if applies(x, *u, p) else super().switching(x, u, p)

    def apply(self, x: Array, k: Array) -> Array:
        return scaled(x, k) if applies(x, k) else super().apply(x, k)

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        return scaled(p, k) if applies(k, p) else super().adjoint_state(x_shape, k, p)

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        return switched(x, p, False)[0] if applies(x, p) else super().adjoint_kernel(x, k_shape, p)


def scaled(x: Array, k: Array, bias: Array | None = None) -> Array:
    """k[c] x + bias[c], in one launch."""
    x, k, y = contiguous(x), contiguous(k), empty(x.shape, x)
    function = kernel(
        "scaling",
        "scale",
        REAL=real(x),
        BIAS=int(bias is not None),
        THREADS=THREADS,
        CHANNELS=x.shape[1],
        INNER=math.prod(x.shape[2:]),
    )
    launch_entries(function, x.size, x, k, k if bias is None else contiguous(bias), y, x.size)
    return y


def switched(x: Array, p: Array, bias: bool) -> Control:
    """Σ x p and, with ``bias``, Σ p over all but the channels."""
    channels, inner = x.shape[1], math.prod(x.shape[2:])
    splits = min(ceil(x.shape[0] * inner, LEAST), ceil(BUSY, channels))
    chunk = ceil(x.shape[0] * inner, splits)
    splits = ceil(x.shape[0] * inner, chunk)
    partials = empty((splits, 2 * channels), x, np.float64)
    g, ones = empty((channels,), x), empty((channels,), x)
    function = kernel(
        "scaling", "scale_switching", REAL=real(x), BIAS=0, THREADS=THREADS, CHANNELS=channels, INNER=inner
    )
    launch(function, channels * splits, THREADS, contiguous(x), contiguous(p), partials, x.shape[0], chunk)
    launch(
        partial_sums("double", real(x), splits, False),
        ceil(2 * channels, 32),
        32 * rows_adding(splits),
        partials,
        g,
        g,
        ones,
        2 * channels,
        channels,
        splits,
    )
    return (g, ones) if bias else (g,)
