"""Dense stage y = x Kᵀ + b and channelwise scale-and-shift y = k ⊙ x + b, both affine in their control."""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import Array, namespace
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import AffineStage, Shape, along_channels, need_rank, sum_channels


@dataclass(frozen=True)
class Dense(AffineStage):
    """y[b, o] = Σ_i k[o, i] x[b, i] + β[o]; states (B, n), kernel (neurons, n)."""

    neurons: int
    bias: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.neurons, int) or self.neurons < 1:
            raise InputError(f"Dense got {self.neurons} neurons; expected an integer, at least one")

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 1, "a vector per sample; put Flatten before it")
        return (self.neurons,)

    def control_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        kernel = (self.neurons, shape[0])
        return (kernel, (self.neurons,)) if self.bias else (kernel,)

    def apply(self, x: Array, k: Array) -> Array:
        xp = namespace(x, k)
        return xp.matmul(x, xp.matrix_transpose(k))

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        return namespace(p).matmul(p, k)

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        xp = namespace(p)
        return xp.matmul(xp.matrix_transpose(p), x)


@dataclass(frozen=True)
class ScaleShift(AffineStage):
    """y[b, c, …] = k[c] x[b, c, …] + β[c]; kernel (channels,)."""

    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 1:
            raise InputError(f"ScaleShift got states of shape {shape}; expected at least one axis (channels)")
        return shape

    def control_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return ((shape[0],), (shape[0],)) if self.bias else ((shape[0],),)

    def apply(self, x: Array, k: Array) -> Array:
        return along_channels(k, x) * x

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        return along_channels(k, p) * p

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        return sum_channels(x * p)
