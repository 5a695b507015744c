"""Ball arithmetic with outward rounding: enclosures by a midpoint and a radius, float64, on the host (T7b).

``Ball`` has a radius for each entry, ``Point`` one radius for each row (first axis: one row per sample and part of
the segment) and serves for quantities that are thin, i.e. known up to rounding.

What is assumed: IEEE 754 double precision, rounding to nearest, without overflow; sums and matrix products are
formed in any order, with or without fused multiply-add, but not by fast schemes such as Strassen's; ``tanh``,
``exp`` and ``log`` of NumPy err by at most 4 units in the last place. Then a sum of n products errs by at most
γ_n Σ|a_i||b_i| + n·2⁻¹⁰⁷⁴ with γ_n = n u/(1 − n u) (Higham, *Accuracy and Stability*, section 3.1); Σ|a_i||b_i| is
bounded by ‖a‖‖b‖. A radius is a sum of products of non-negative numbers; the factor ``UP`` or ``upward`` covers its
own rounding and ``TINY`` covers underflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

U = 2.0**-53
UP = 1 + 32 * U  # covers up to 15 roundings of a non-negative expression
TINY = 1e-290  # n·2⁻¹⁰⁷⁴ times any factor met here, for n up to 10⁹
FUNCTION = 8 * U  # 4 units in the last place, relative

Array = np.ndarray


def gamma(n: int) -> float:
    """γ_n = n u/(1 − n u), rounded upwards."""
    return n * U / (1 - n * U) * UP


def upward(radius: Array, n: int) -> Array:
    """A non-negative radius formed with at most n roundings, made an upper bound."""
    return radius * (1 + 2 * (n + 4) * U) + TINY


@dataclass(frozen=True)
class Ball:
    """All arrays x with |x − mid| ≤ rad, entry by entry; ``rad`` broadcasts against ``mid``."""

    mid: Array
    rad: Array

    def __add__(self, other: Ball) -> Ball:
        mid = self.mid + other.mid
        return Ball(mid, (self.rad + other.rad + U * np.abs(mid)) * UP + TINY)

    def __sub__(self, other: Ball) -> Ball:
        return self + Ball(-other.mid, other.rad)

    def __mul__(self, other: Any) -> Ball:
        if not isinstance(other, Ball):
            mid = self.mid * other  # numbers, known up to 3 roundings of their own
            return Ball(mid, (self.rad * abs(other) + 4 * U * np.abs(mid)) * UP + TINY)
        mid = self.mid * other.mid
        rad = np.abs(self.mid) * other.rad + self.rad * (np.abs(other.mid) + other.rad)
        return Ball(mid, (rad + U * np.abs(mid)) * UP + TINY)

    def square(self) -> Ball:
        """x²; its lower end is at least 0."""
        low = np.maximum(np.abs(self.mid) - self.rad, 0.0) * (1 - 4 * U)
        return hull(low * low * (1 - 4 * U), self.magnitude**2 * UP)

    @property
    def magnitude(self) -> Array:
        """An upper bound of |x|."""
        return (np.abs(self.mid) + self.rad) * UP

    @property
    def lower(self) -> Array:
        """A lower bound of x."""
        return (self.mid - self.rad) - 2 * U * self.magnitude

    @property
    def upper(self) -> Array:
        """An upper bound of x."""
        return (self.mid + self.rad) + 2 * U * self.magnitude

    def total(self, axis: int, keepdims: bool = False) -> Ball:
        """Σ x along an axis."""
        n = self.mid.shape[axis]
        rad = np.broadcast_to(self.rad, self.mid.shape) + gamma(n) * np.abs(self.mid)
        return Ball(self.mid.sum(axis=axis, keepdims=keepdims), upward(rad.sum(axis=axis, keepdims=keepdims), n))


def hull(low: Array, high: Array) -> Ball:
    """The smallest ball around [low, high], rounded outwards."""
    mid = low + 0.5 * (high - low)
    return Ball(mid, (np.maximum(high - mid, mid - low) + 2 * U * np.abs(mid)) * UP + TINY)


@dataclass(frozen=True)
class Point:
    """All arrays x with |x − mid| ≤ err in every entry of a row; ``err`` has shape (rows,)."""

    mid: Array
    err: Array

    @property
    def largest(self) -> Array:
        """max |mid| of each row."""
        return np.abs(self.mid).reshape(self.mid.shape[0], -1).max(axis=1, initial=0.0)

    @property
    def length(self) -> Array:
        """An upper bound of ‖x‖₂ of each row."""
        flat = self.mid.reshape(self.mid.shape[0], -1)
        n = flat.shape[1]
        return (upward(np.sqrt(np.einsum("ij,ij->i", flat, flat)), n) + np.sqrt(n) * self.err) * UP

    def ball(self) -> Ball:
        """The same set as a ball."""
        return Ball(self.mid, column(self.err, self.mid))

    def __add__(self, other: Point) -> Point:
        sum_ = Point(self.mid + other.mid, self.err)
        return Point(sum_.mid, (self.err + other.err + U * sum_.largest) * UP + TINY)

    def __mul__(self, other: Any) -> Point:
        if not isinstance(other, Point):
            product = Point(self.mid * other, self.err)
            return Point(product.mid, (self.err * abs(other) + U * product.largest) * UP + TINY)
        a, b = self.largest, other.largest
        err = a * other.err + self.err * (b + other.err) + U * a * b
        return Point(self.mid * other.mid, err * UP + TINY)


def column(row: Array, like: Array) -> Array:
    """A value per row, shaped to broadcast against ``like``."""
    return row.reshape(row.shape[0], *(1,) * (like.ndim - 1))
