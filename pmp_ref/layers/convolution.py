"""Two-dimensional convolution (cross-correlation), affine in its control.

y[b, o, r, c] = Σ_{i, s, t} k[o, i, s, t] · x[b, i, r·stride + s·dilation − padding, …] + β[o]
"""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import Array, namespace
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import AffineStage, Shape, need_rank, pair
from pmp_ref.layers.windows import Windows, patches, patches_adjoint


@dataclass(frozen=True)
class Convolution(AffineStage):
    """Convolution with ``channels`` output channels; states (B, C, H, W), kernel (channels, C/groups, kh, kw).

    Any kernel shape, stride, zero padding, dilation and number of groups; ``size``, ``stride``, ``padding`` and
    ``dilation`` are integers or (rows, columns). Raises InputError for shapes that do not fit.
    """

    channels: int
    size: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1 or self.groups < 1 or self.channels % self.groups:
            raise InputError(
                f"Convolution got {self.channels} channels in {self.groups} groups; expected positive numbers, "
                "the channels divisible by the groups"
            )
        self.windows  # noqa: B018  checks size, stride, padding and dilation at once

    @property
    def windows(self) -> Windows:
        """The window geometry."""
        return Windows(
            pair(self.size, "size", 1),
            pair(self.stride, "stride", 1),
            pair(self.padding, "padding", 0),
            pair(self.dilation, "dilation", 1),
        )

    def output_shape(self, shape: Shape) -> Shape:
        need_rank(self, shape, 3, "(channels, rows, columns)")
        if shape[0] % self.groups:
            raise InputError(f"Convolution with {self.groups} groups got {shape[0]} channels; expected a multiple")
        return (self.channels, *self.windows.positions(shape[1], shape[2]))

    def control_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        kernel = (self.channels, shape[0] // self.groups, *self.windows.size)
        return (kernel, (self.channels,)) if self.bias else (kernel,)

    def apply(self, x: Array, k: Array) -> Array:
        z = self._columns(x)
        y = namespace(x).matmul(self._matrix(k), z)
        return namespace(x).reshape(y, (x.shape[0], self.channels, *self.windows.positions(*x.shape[2:])))

    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        xp, w = namespace(p), self.windows
        z = xp.matmul(xp.matrix_transpose(self._matrix(k)), self._grouped(p))
        z = xp.reshape(z, (*x_shape[:2], *w.size, *p.shape[2:]))
        return patches_adjoint(z, w, *x_shape[2:])

    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        xp = namespace(p)
        g = xp.matmul(self._grouped(p), xp.matrix_transpose(self._columns(x)))
        return xp.reshape(xp.sum(g, axis=0), k_shape)

    def _columns(self, x: Array) -> Array:
        """(B, C, H, W) → (B, groups, C/groups·kh·kw, Ho·Wo)."""
        z = patches(x, self.windows)
        n = z.shape[4] * z.shape[5]
        taps = z.shape[1] // self.groups * z.shape[2] * z.shape[3]
        return namespace(x).reshape(z, (x.shape[0], self.groups, taps, n))

    def _matrix(self, k: Array) -> Array:
        """Kernel as (groups, channels/groups, C/groups·kh·kw)."""
        taps = k.shape[1] * k.shape[2] * k.shape[3]
        return namespace(k).reshape(k, (self.groups, self.channels // self.groups, taps))

    def _grouped(self, p: Array) -> Array:
        """(B, channels, Ho, Wo) → (B, groups, channels/groups, Ho·Wo)."""
        n = p.shape[2] * p.shape[3]
        return namespace(p).reshape(p, (p.shape[0], self.groups, self.channels // self.groups, n))
