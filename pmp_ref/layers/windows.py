"""Windows along the image axes: padding P, unfolding U and their adjoints P*, U*.

Convolution and pooling are U followed by a small product or a mean. Everything is linear, uses slices and
concatenation only, and works for any window, stride, dilation and padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import Array, namespace, zeros
from pmp_ref.errors import InputError


@dataclass(frozen=True)
class Windows:
    """Size, stride, padding (both ends) and dilation of a window, each as (rows, columns)."""

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def positions(self, rows: int, columns: int) -> tuple[int, int]:
        """Number of window positions along each axis of a rows × columns image; InputError if none fits."""
        n = []
        for a, length in enumerate((rows, columns)):
            reach = self.dilation[a] * (self.size[a] - 1) + 1
            padded = length + 2 * self.padding[a]
            if padded < reach:
                raise InputError(
                    f"a window reaching over {reach} pixels does not fit an image axis of {length} "
                    f"with padding {self.padding[a]}; use a smaller window or more padding"
                )
            n.append((padded - reach) // self.stride[a] + 1)
        return n[0], n[1]


def patches(x: Array, w: Windows) -> Array:
    """(B, C, H, W) → (B, C, kh, kw, Ho, Wo): entry (i, j) of the window at each position, U P x."""
    rows, columns = w.positions(x.shape[2], x.shape[3])
    x = pad(pad(x, -2, w.padding[0]), -1, w.padding[1])
    x = unfold(x, 2, w.size[0], rows, w.stride[0], w.dilation[0])
    return unfold(x, 4, w.size[1], columns, w.stride[1], w.dilation[1], to=3)


def patches_adjoint(z: Array, w: Windows, rows: int, columns: int) -> Array:
    """(B, C, kh, kw, Ho, Wo) → (B, C, rows, columns): P* U* z."""
    z = fold(z, 4, columns + 2 * w.padding[1], w.stride[1], w.dilation[1], at=3)
    z = fold(z, 2, rows + 2 * w.padding[0], w.stride[0], w.dilation[0])
    return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])


def unfold(x: Array, axis: int, size: int, count: int, stride: int, dilation: int, to: int | None = None) -> Array:
    """U along one axis: y[…, i, …, o, …] = x[…, o·stride + i·dilation, …]; the index i becomes axis ``to``."""
    slices = []
    for i in range(size):
        start = i * dilation
        cut = [slice(None)] * x.ndim
        cut[axis] = slice(start, start + stride * (count - 1) + 1, stride)
        slices.append(x[tuple(cut)])
    return namespace(x).stack(slices, axis=axis if to is None else to)


def fold(y: Array, axis: int, length: int, stride: int, dilation: int, at: int | None = None) -> Array:
    """U* along one axis: x[…, o·stride + i·dilation, …] += y[…, i, …, o, …], result of ``length`` entries."""
    at = axis if at is None else at
    total = None
    for i in range(y.shape[at]):
        pick: list[slice | int] = [slice(None)] * y.ndim
        pick[at] = i
        term = spread(y[tuple(pick)], axis, stride)
        before = i * dilation
        term = embed(term, axis, before, length - before - term.shape[axis])
        total = term if total is None else total + term
    return total


def spread(y: Array, axis: int, stride: int) -> Array:
    """Put stride − 1 zeros between neighbours along ``axis``: the adjoint of taking every stride-th entry."""
    if stride == 1:
        return y
    xp, n = namespace(y), y.shape[axis]
    y = xp.expand_dims(y, axis=axis + 1)
    gaps = zeros(y.shape[: axis + 1] + (stride - 1,) + y.shape[axis + 2 :], y)
    y = xp.concat([y, gaps], axis=axis + 1)
    y = xp.reshape(y, y.shape[:axis] + (n * stride,) + y.shape[axis + 2 :])
    return crop(y, axis, 0, stride - 1)


def embed(y: Array, axis: int, before: int, after: int) -> Array:
    """Zeros put before and after along ``axis``."""
    parts = [y]
    if before:
        parts.insert(0, zeros(_replaced(y.shape, axis, before), y))
    if after:
        parts.append(zeros(_replaced(y.shape, axis, after), y))
    return namespace(y).concat(parts, axis=axis) if len(parts) > 1 else y


def pad(x: Array, axis: int, width: int) -> Array:
    """P: ``width`` zeros at both ends of ``axis``."""
    return embed(x, axis, width, width)


def crop(x: Array, axis: int, before: int, after: int | None = None) -> Array:
    """P*: drop entries at both ends of ``axis`` (``before`` of them where ``after`` is None)."""
    cut = [slice(None)] * x.ndim
    cut[axis] = slice(before, x.shape[axis] - (before if after is None else after))
    return x[tuple(cut)]


def _replaced(shape: tuple[int, ...], axis: int, n: int) -> tuple[int, ...]:
    new = list(shape)
    new[axis] = n
    return tuple(new)
