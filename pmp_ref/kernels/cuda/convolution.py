"""Convolution and dense stage: their three products, the bias added or summed in the same launch."""

from __future__ import annotations

from typing import Any

from pmp_ref.arrays import Array
from pmp_ref.kernels.cuda.products import APPLY, KERNEL, STATE, Affine, product
from pmp_ref.kernels.cuda.source import applies, contiguous, empty
from pmp_ref.kernels.gpu import StridedConvolution
from pmp_ref.layers import Dense
from pmp_ref.layers.layer import AffineStage, Control, Shape


class Products(AffineStage):
    """The maps of an affine stage by the products of this package; for other arrays than CuPy's those of the class
    that comes after."""

    def forward(self, x: Array, u: Control) -> Array:
        return applied(self, x, u) if applies(x, *u) else super().forward(x, u)

    def switching(self, x: Array, u: Control, p: Array) -> Control:
        return switched(self, x, u[0].shape, p, self.bias) if applies(x, *u, p) else super().switching(x, u, p)

    def apply(self, x: Array, k: Array) -> Array:
        return applied(self, x, (k,)) if applies(x, k) else super().apply(x, k)  # type: ignore[safe-super]

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        if applies(k, p):
            return carried(self, x_shape, k, p)
        return super().adjoint_state(x_shape, k, p)  # type: ignore[safe-super]

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        if applies(x, p):
            return switched(self, x, k_shape, p, False)[0]
        return super().adjoint_kernel(x, k_shape, p)  # type: ignore[safe-super]


class CudaConvolution(Products, StridedConvolution):
    """A convolution without a matrix of patches."""


class CudaDense(Products, Dense):
    """A dense stage without cuBLAS."""


def applied(stage: Any, x: Array, u: Control) -> Array:
    """A(x, k) + bias for u = (kernel, bias), A(x, k) for u = (kernel,)."""
    affine, bias = Affine(stage, tuple(x.shape[1:])), len(u) > 1
    y, x, k = empty((x.shape[0], *affine.leaving), x), contiguous(x), contiguous(u[0])
    images = not isinstance(stage, Dense)  # the kernel is the left matrix of a convolution, the right one of a product
    product(affine, APPLY, x.shape[0], str(x.dtype), bias)(
        *((k, x) if images else (x, k)), contiguous(u[1]) if bias else None, y
    )
    return y


def carried(stage: Any, x_shape: Shape, k: Array, p: Array) -> Array:
    """A(·, k)*p."""
    x, k, p = empty(tuple(x_shape), p), contiguous(k), contiguous(p)
    images = not isinstance(stage, Dense)
    affine = Affine(stage, tuple(x_shape[1:]))
    product(affine, STATE, x.shape[0], str(p.dtype), False)(*((k, p) if images else (p, k)), None, x)
    return x


def switched(stage: Any, x: Array, k_shape: Shape, p: Array, bias: bool) -> Control:
    """A(x, ·)*p and, with ``bias``, the sum of p over all but the channels."""
    g, ones = empty(tuple(k_shape), p), empty((k_shape[0],), p) if bias else None
    affine = Affine(stage, tuple(x.shape[1:]))
    product(affine, KERNEL, x.shape[0], str(p.dtype), bias)(contiguous(p), contiguous(x), None, g, ones)
    return (g,) if ones is None else (g, ones)
