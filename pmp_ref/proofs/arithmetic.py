"""Enclosures by a midpoint and one radius for each sample, ‖x_s − mid_s‖₂ ≤ rad_s: what the rules are made of (T24).

A radius for each entry grows by ‖|K|‖_∞ in an affine stage, ten- to twentyfold in a network as it is trained; the
Euclidean radius grows by ‖K‖₂, which is one or two. It is cheap as well: one number for each sample and state.

What is assumed of the machine is IEEE 754 double precision with rounding to nearest, and of sums and matrix products
of n terms that they are formed in any order by n − 1 additions, with or without fused multiply-add. Then
|fl(Σ a_i b_i) − Σ a_i b_i| ≤ γ_n Σ|a_i||b_i| ≤ γ_n ‖a‖‖b‖. NumPy's functions are not trusted, see
:mod:`pmp_ref.proofs.functions`. A radius is a sum of products of non-negative numbers; ``upward`` covers the
roundings of the radius itself. An enclosure that overflows is infinite or NaN, and nothing is ever proven by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import Ball, U, gamma, upward
from pmp_ref.bounds.step import Interval

Array = np.ndarray
SMALL = 1e-155  # squares that underflow: √(n·2⁻¹⁰⁷⁴) for n up to 10¹²

__all__ = [
    "SMALL",
    "Array",
    "Ball",
    "Interval",
    "Near",
    "U",
    "add",
    "column",
    "exact",
    "gamma",
    "largest",
    "mean",
    "norm",
    "norms",
    "outward",
    "scale",
    "sum_of",
    "upward",
]


@dataclass(frozen=True)
class Near:
    """All states x with ‖x_s − mid_s‖₂ ≤ rad_s for each sample s; mid (B, …), rad (B,)."""

    mid: Array
    rad: Array


def exact(a: Any) -> Near:
    """Numbers that are what they are, in float64."""
    mid = np.ascontiguousarray(a, dtype=np.float64)
    return Near(mid, np.zeros(mid.shape[0]))


def norm(a: Array) -> Array:
    """An upper bound of ‖a_s‖₂ for each sample, (B,)."""
    flat = a.reshape(a.shape[0], -1)
    return upward(np.sqrt(np.einsum("bi,bi->b", flat, flat)), flat.shape[1] + 2) + SMALL


def norms(a: Array) -> Array:
    """An upper bound of the norm of each channel of each sample, (B, C)."""
    flat = a.reshape(*a.shape[:2], -1)
    return upward(np.sqrt(np.einsum("bci,bci->bc", flat, flat)), flat.shape[2] + 2) + SMALL


def largest(a: Array) -> Array:
    """max |a| of each sample, (B,). Exact."""
    flat = a.reshape(a.shape[0], -1)
    return np.maximum(flat.max(axis=1, initial=0.0), -flat.min(axis=1, initial=0.0))


def column(rad: Array, like: Array) -> Array:
    """A number for each sample, shaped to broadcast against a state."""
    return rad.reshape(-1, *(1,) * (like.ndim - 1))


def add(x: Near, y: Near) -> Near:
    """x + y: each entry of the sum rounds once."""
    mid = x.mid + y.mid
    return Near(mid, upward(x.rad + y.rad + U * norm(mid), 4))


def scale(t: float, x: Near) -> Near:
    """t x."""
    mid = t * x.mid
    return Near(mid, upward(abs(t) * x.rad + U * norm(mid), 4))


def entries(a: Array) -> int:
    """Entries of a state of one sample."""
    return prod(a.shape[1:])


def sum_of(a: Array) -> float:
    """Σ a, rounded once; infinite or NaN where it is no number."""
    if not np.all(np.isfinite(a)):
        return math.nan
    try:
        return math.fsum(a.ravel().tolist())
    except OverflowError:
        return math.inf


def mean(x: Ball) -> Interval:
    """(1/B) Σ_s x_s of a vector; only the last step rounds."""
    sums = sum_of(x.mid), sum_of(x.rad)
    if not all(map(math.isfinite, sums)):
        return Interval(-math.inf, math.inf)
    middle, radius = map(Fraction, sums)
    spread = radius + 2 * Fraction(U) * (abs(middle) + radius)
    return outward((middle - spread) / x.mid.size, (middle + spread) / x.mid.size)


def outward(low: Fraction, high: Fraction) -> Interval:
    """The smallest floating point interval around [low, high]."""
    a, b = float(low), float(high)  # to nearest
    if Fraction(a) > low:
        a = math.nextafter(a, -math.inf)
    if Fraction(b) < high:
        b = math.nextafter(b, math.inf)
    return Interval(a, b)
