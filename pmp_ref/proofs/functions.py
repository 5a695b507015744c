"""tanh, exp and log with error bounds of their own: from additions, products and a table of exact numbers (T24).

NumPy's functions come from the processor's vector library or from the system's C library, each with errors of its own.
A proof should not rest on them. :func:`tanh` and :func:`exp` reduce the argument to |r| ≤ 1/128 and |r| ≤ ln 2/64 by
a table that integer arithmetic has made, and add a short Taylor polynomial; the bounds of their relative errors are
derived in docs/theory/proofs.md, T24. Logarithms are guessed by NumPy and judged by :func:`exp`: a bad guess makes a
wide enclosure, not a wrong one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import U

Array = np.ndarray

TANH = 8 * U  # relative error of tanh
EXP = 4 * U  # relative error of exp
LEAST = -700.0  # exp of less is between 0 and SMALLEST
SMALLEST = 1e-300
_BLOCK = 2**14  # entries at a time: the passes below stay in cache
_BITS = 320  # of the integers that make the tables


def _exp_of(x: Fraction) -> int:
    """⌊2^_BITS e^x⌉ for 0 ≤ x ≤ 1, with an error below 2^-200 relatively: Taylor's series in integers."""
    one = term = total = 1 << _BITS
    k = 0
    while term:
        k += 1
        term = term * x.numerator // (x.denominator * k)
        total += term
    assert total >= one
    return total


def _nearest(numerator: int, denominator: int) -> float:
    """The floating point number nearest to a quotient: Python divides integers with correct rounding."""
    return numerator / denominator


STEPS = 64  # nodes i/64 of the table of tanh
LARGEST = 20  # tanh of more is between tanh 20 and 1, and 1 − tanh 20 < 0.08u


def _tanh_table() -> Array:
    """tanh(i/64), i = −1280 … 1280, each the nearest number."""
    step, one = _exp_of(Fraction(2, STEPS)), 1 << _BITS
    e, values = one, []
    for _ in range(STEPS * LARGEST + 1):
        values.append(_nearest(e - one, e + one))  # (e^{2x} − 1)/(e^{2x} + 1)
        e = e * step >> _BITS
    half = np.array(values)
    return np.concatenate([-half[:0:-1], half])


PARTS = 32  # exp: e^x = 2^m 2^{j/32} e^r


def _exp_table() -> tuple[Array, float, float]:
    """2^{j/32}, j = 0 … 31, and ln 2/32 as the sum of a number of 36 bits and a small one."""
    one = 1 << _BITS
    log2, k, power = 0, 1, one // 2
    while power:  # ln 2 = Σ 2^{−k}/k
        log2 += power // k
        k, power = k + 1, power // 2
    unit = log2 // PARTS
    high = unit >> (_BITS - 41) << (_BITS - 41)  # ln 2/32 < 2⁻⁵
    root = _exp_of(Fraction(unit, one))
    e, values = one, []
    for _ in range(PARTS):
        values.append(_nearest(e, one))
        e = e * root >> _BITS
    return np.array(values), _nearest(high, one), _nearest(unit - high, one)


_TANH = _tanh_table()
_EXP, _HIGH, _LOW = _exp_table()


def _blocks(f: Any, x: Array) -> Array:
    """f(in, out) over blocks of the entries of x."""
    x = np.ascontiguousarray(x)
    result = np.empty_like(x)
    source, target = x.reshape(-1), result.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        f(source[start : start + _BLOCK], target[start : start + _BLOCK])
    return result


def tanh(x: Array) -> Array:
    """tanh(x) with a relative error of at most ``TANH``.

    With a = n/64 the node next to x and r = x − a, which is exact: (tanh a + tanh r)/(1 + tanh a tanh r).
    """
    return _blocks(_tanh, x)


def _tanh(x: Array, out: Array) -> None:
    r = np.clip(x, -LARGEST, LARGEST)
    n = np.rint(r * STEPS)
    node = np.take(_TANH, (n + STEPS * LARGEST).astype(np.intp), mode="clip")  # of a NaN: r carries it on
    n *= 1 / STEPS
    r -= n
    s = np.multiply(r, r, out=n)
    q = s * (-17 / 315)
    q += 2 / 15
    q *= s
    q -= 1 / 3
    q *= s
    q *= r
    q += r  # tanh r = r + r³(−1/3 + 2r²/15 − 17r⁴/315) + …
    np.multiply(node, q, out=r)
    r += 1.0
    node += q
    np.divide(node, r, out=out)


def exp(x: Array) -> Array:
    """e^x for x ≤ 0, with a relative error of at most ``EXP``, and e^LEAST where x is less."""
    return _blocks(_exp, x)


def _exp(x: Array, out: Array) -> None:
    r = np.maximum(x, LEAST)
    k = np.rint(r * (1 / _HIGH))
    r -= k * _HIGH  # exact: both numbers lie within a factor of 2
    r -= k * _LOW
    whole = np.nan_to_num(k).astype(np.int32)
    node = np.take(_EXP, whole % PARTS)
    p = r * (1 / 720)
    for c in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        p += c
        p *= r  # e^r − 1 = r + r²/2 + … + r⁶/720
    p *= node
    p += node
    np.ldexp(p, whole // PARTS, out=out)


def log_error(guess: Array, x: Array, slack: float) -> Array:
    """A bound of |guess − ln x| for x ≥ 1 known up to the relative error ``slack``, from the value of x e^{−guess}.

    With x e^{−guess} = 1 + δ and |δ| ≤ ½, ln x = guess + ln(1 + δ) and |ln(1 + δ)| ≤ |δ| + δ²; infinite otherwise.
    """
    delta = np.abs(x * exp(-guess) - 1.0) + (EXP + slack + 8 * U)
    return np.where(delta <= 0.5, (delta + delta * delta) * (1 + 8 * U), np.inf)
