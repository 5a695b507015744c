"""Jets of functions on a part of the segment, and the chain rule for their top quotient (T7b, T23).

On the part with centre c and half width h a function is

    x(c + s) = x_0 + x_1 s + … + x_{n−1} sⁿ⁻¹ + x_[n](s) sⁿ,   |s| ≤ h,

with *thin* coefficients x_k, known up to rounding, and a ball that holds the quotient x_[n](s) for all s of the part.
Quotients of lower order, x_[k](s) = x_k + s x_[k+1](s), are its *tails*. None stands for what is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import TINY, UP, Array, Ball, Point, column


@dataclass(frozen=True)
class Rows:
    """Rows of one enclosure: sample, centre c and half width h of the part, and the order n of the jets.

    Not ``wide``: thin coefficients at c alone.
    """

    sample: Array
    c: Array
    h: Array
    order: int
    wide: bool = True


@dataclass(frozen=True)
class Jet:
    """x_0 … x_{n−1}, and the ball of x_[n] over the part.

    ``moving`` is False while the state does not depend on t; then its rows are samples, see ``spread``.
    """

    thin: tuple[Point | None, ...]
    top: Ball | None
    moving: bool = True


def spread(jet: Jet, rows: Rows) -> Jet:
    """The jet with one row per (sample, part)."""
    if jet.moving:
        return jet
    thin = tuple(None if x is None else Point(x.mid[rows.sample], x.err[rows.sample]) for x in jet.thin)
    return Jet(thin, None)


def balls(thin: Any) -> list[Ball | None]:
    """Points as balls."""
    return [None if x is None else x.ball() for x in thin]


def tails(thin: list[Ball | None], top: Ball | None, h: Array) -> list[Ball | None]:
    """x_[1] … x_[n], at their own indices: x_[k] differs from x_k by at most h times the magnitude of x_[k+1]."""
    result = [None, *thin[1:], top]
    for k in range(len(thin) - 1, 0, -1):
        x, step = result[k], within(result[k + 1], h)
        if step is not None:
            result[k] = step if x is None else Ball(x.mid, (x.rad + step.rad) * UP + TINY)
    return result


def within(x: Ball | None, h: Array) -> Ball | None:
    """s x for all |s| ≤ h."""
    return None if x is None else Ball(np.zeros_like(x.mid), column(h, x.mid) * x.magnitude * UP + TINY)


def compose(k: int, f: Any, z: Any) -> Any:
    """x_k of x = σ(z) from f_j and z_1 … z_k: k = 1 … 3.

    x_1 = f_1z_1, x_2 = f_1z_2 + f_2z_1², x_3 = f_1z_3 + 2f_2z_1z_2 + f_3z_1³.
    """
    powers: dict[int, Any] = {1: z[k]}
    if k == 2:
        powers[2] = square_of(z[1])
    elif k == 3:
        powers[2] = times(2.0, times(z[1], z[2]))
        powers[3] = times(square_of(z[1]), z[1])
    return reduce(plus, (times(f[j], power) for j, power in powers.items()))


def quotient(n: int, f: Any, z: Any, tail: Any, h: Array) -> Any:
    """x_[n] of x = σ(z), n = 2, 3, 4, from thin f_1 … f_{n−1} and z_1, f[n] the ball of σ's quotient q_n over the part.

    x_[2] = f_1z_[2] + q_2z_[1]², x_[3] = f_1z_[3] + f_2z_[2](z_1 + z_[1]) + q_3z_[1]³,
    x_[4] = f_1z_[4] + f_2(2z_1z_[3] + z_[2]²) + f_3z_[2](3z_1² + 3z_1e + e²) + q_4z_[1]⁴,  e = s z_[2].
    """
    square = square_of(tail[1])
    powers: dict[int, Any] = {1: tail[n]}
    if n == 2:
        powers[2] = square
    elif n == 3:
        powers[2] = times(tail[2], plus(z[1], tail[1]))
        powers[3] = times(square, tail[1])
    elif n == 4:
        e = within(tail[2], h)
        cube = plus(times(3.0, square_of(z[1])), plus(times(3.0, times(z[1], e)), square_of(e)))
        powers[2] = plus(times(2.0, times(z[1], tail[3])), square_of(tail[2]))
        powers[3] = times(tail[2], cube)
        powers[4] = square_of(square)
    return reduce(plus, (times(f[j], power) for j, power in powers.items()))


def times(a: Any, b: Any) -> Any:
    """a·b with None for zero; a may be a number."""
    if a is None or b is None:
        return None
    return b * a if isinstance(a, float) else a * b


def plus(a: Any, b: Any) -> Any:
    """a + b with None for zero."""
    return b if a is None else a if b is None else a + b


def square_of(a: Any) -> Any:
    """a²."""
    if a is None:
        return None
    return a.square() if isinstance(a, Ball) else a * a
