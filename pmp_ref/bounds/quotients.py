"""Ranges of Taylor quotients (T23): how far a function is from its Taylor polynomial, over the range that is met.

    q_n(z; y) = (σ(z + y) − Σ_{k<n} f_k yᵏ) / yⁿ,  f_k = σ^(k)(z)/k!,  q_n(z; 0) = f_n,

lies in the range of σ^(n)/n! over the same arguments, and its range over a small reach is some n + 1 times narrower
(Streeter and Dillon, arXiv 2212.11429). Where |y| is small a quotient would lose all its digits; there it is taken
from its series, with a bound of what is cut off (``NEAR``).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import factorial
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import FUNCTION, UP, Array, Ball, Point, U, column, hull
from pmp_ref.bounds.taylor import coefficients, suprema
from pmp_ref.layers import Activation

NEAR = 2.0**-5  # beyond it a quotient of order 4 loses at most 20 of 53 bits


def activation_range(stage: Activation, z: Point, f: list[Array], errors: list[Array], reach: Array, n: int) -> Ball:
    """q_n(z; y) for all |y| ≤ ``reach`` and every centre of the point; f and errors: ``coefficients`` of z.mid.

    As |∂²q_n/∂y²| ≤ 2S_{n+2}, the quotient is within reach² S_{n+2}/4 of the chords between its values at y = −reach,
    0 and reach. Near the centre q_n = f_n + y f_{n+1} + y² q_{n+2}. As |∂q_n/∂z| ≤ (n + 1)S_{n+1}, an error of the
    centre counts (n + 1)S_{n+1} times. Nowhere does q_n leave [−S_n, S_n].
    """
    bound = suprema(stage)
    unknown = column(errors[n] + (n + 1) * bound[n + 1] * z.err, z.mid)
    bend = bound[n + 2] * reach**2
    slope = reach * (np.abs(f[n + 1]) + column(errors[n + 1], z.mid))
    slack = (unknown + slope + bend + 2 * U * np.abs(f[n])) * UP
    low, high = f[n] - slack, f[n] + slack
    far = reach > NEAR
    if np.any(far):
        y, middle = reach[far], f[n][far]
        ends = [activation_quotient(stage, z.mid[far], [a[far] for a in f[:n]], errors[:n], end) for end in (y, -y)]
        least = np.minimum(middle, np.minimum(*(value - error for value, error in ends)))
        most = np.maximum(middle, np.maximum(*(value + error for value, error in ends)))
        slack = np.broadcast_to(unknown, z.mid.shape)[far] + 0.25 * bend[far]
        slack = (slack + 4 * U * np.maximum(np.abs(least), np.abs(most))) * UP
        low[far], high[far] = least - slack, most + slack
    return hull(np.fmax(low, -bound[n]), np.fmin(high, bound[n]))  # where the reach is endless, this is what is known


def activation_quotient(stage: Activation, z: Array, f: list[Array], errors: list[Array], y: Array) -> tuple[Any, Any]:
    """q_n(z; y) and a bound of its rounding error, entry by entry; z and y are exact, z + y is not."""
    (value,), (error,) = coefficients(stage, (z + y)[None], 0)
    moved = U * np.abs(z + y) * suprema(stage)[1]
    return divided(value[0], error + moved, ((a, np.max(e)) for a, e in zip(f, errors, strict=True)), y)


def divided(value: Array, error: Array, known: Iterable[tuple[Any, Any]], y: Array) -> tuple[Array, Array]:
    """q_0 = value, q_{k+1} = (q_k − f_k)/y over the (f_k, error of f_k) given, and a bound of the error of the last."""
    size = np.abs(y)
    for f, f_error in known:
        gap = value - f
        value = gap / y
        error = ((error + f_error + U * np.abs(gap)) / size + U * np.abs(value)) * UP
    return value, error


def exp_range(reach: Array, n: int) -> Ball:
    """q_n(0; y) of exp for all |y| ≤ ``reach``: it increases with y, for every derivative of exp is positive."""
    return between(exp_quotient(-reach, n), exp_quotient(reach, n))


def exp_quotient(y: Array, n: int) -> tuple[Array, Array]:
    """q_n(0; y) of exp and a bound of its error. Near 0 it is 1/n! + y/(n + 1)! + y² q_{n+2}, q_{n+2} ≤ e^|y|/(n+2)!"""
    near = np.abs(y) <= NEAR
    series = 1 / factorial(n) + y / factorial(n + 1)
    cut = 1.04 * y**2 / factorial(n + 2) + 4 * U
    value = np.exp(y)
    known = ((1 / factorial(k), U) for k in range(n))
    value, error = divided(value, FUNCTION * value, known, np.where(near, 1.0, y))
    return np.where(near, series, value), np.where(near, cut * UP, error)


def log_range(low: Array, high: Array, n: int) -> Ball:
    """q_n(1; v) of log for v ∈ [low, high], low > −1: monotone, for no derivative of log changes its sign."""
    return between(log_quotient(low, n), log_quotient(high, n))


def log_quotient(v: Array, n: int) -> tuple[Array, Array]:
    """q_n(1; v) of log and a bound of its error. Near 0 it is f_n + v f_{n+1} + v² q_{n+2}, f_k = (−1)^{k−1}/k, and
    |q_{n+2}| ≤ (1 − |v|)^{−n−2}/(n + 2)."""
    near = np.abs(v) <= NEAR
    f = [0.0] + [(-1) ** (k - 1) / k for k in range(1, n + 2)]
    cut = 1.25 * v**2 / (n + 2) + 4 * U
    value = np.log(1 + np.where(near, 1.0, v))
    value, error = divided(value, FUNCTION * np.abs(value) + 2 * U, ((a, U) for a in f[:n]), np.where(near, 1.0, v))
    return np.where(near, f[n] + v * f[n + 1], value), np.where(near, cut * UP, error)


def between(one: tuple[Array, Array], other: tuple[Array, Array]) -> Ball:
    """The ball around two values with their errors, and all between them."""
    low = np.minimum(one[0] - one[1], other[0] - other[1])
    high = np.maximum(one[0] + one[1], other[0] + other[1])
    slack = 2 * U * np.maximum(np.abs(low), np.abs(high))
    return hull(low - slack, high + slack)
