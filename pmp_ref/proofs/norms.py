"""Upper bounds of ‖K‖₂: how far an affine stage moves two states apart (T24).

For a symmetric matrix ‖A‖₂ ≤ ‖A^{2^k}‖_F^{2^{−k}}, which for k = 4 is at most n^{1/32}‖A‖₂. The convolution on all
of ℤ² is multiplication by the symbol K̂(ω) = Σ_t K_t e^{i t·ω}; padding, borders and strides only leave something out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmp_ref.bounds.constants import overlaps
from pmp_ref.bounds.intervals import UP, U, gamma
from pmp_ref.layers import Convolution
from pmp_ref.proofs.arithmetic import SMALL

Array = np.ndarray
SQUARINGS = 4


def frobenius(a: Array) -> Array:
    """An upper bound of ‖a‖_F over the last two axes."""
    n = a.shape[-1] * a.shape[-2]
    squares = a.real * a.real + a.imag * a.imag if np.iscomplexobj(a) else a * a
    square = np.sum(squares, axis=(-2, -1))
    return np.sqrt(square) * (1 + (n + 8) * U) + SMALL


def spectral(k: Array) -> float:
    """An upper bound of the largest ‖k‖₂ of the matrices in k (…, rows, columns), real or complex.

    A = kk* by a product errs by at most γ_n‖k‖_F² in norm, n real terms or four times as many. Squaring A + E gives
    A² and an error of 2‖A‖‖E‖ + ‖E‖², and the product rounds once more.
    """
    if k.shape[-2] > k.shape[-1]:
        k = np.swapaxes(k, -1, -2)
    if k.size == 0 or not np.all(np.isfinite(k)):
        return math.inf if k.size else 0.0
    peak = max(float(np.max(np.abs(k.real))), float(np.max(np.abs(k.imag))))
    if peak == 0.0:
        return 0.0
    if not 1e-100 < peak < 1e100:  # far from anything that is trained; the squarings below would leave double precision
        return math.inf if peak > 1 else 1e-100 * math.sqrt(k.shape[-1] * k.shape[-2]) * UP
    exponent = math.frexp(peak)[1]
    k = k * 2.0**-exponent
    times = 4 if np.iscomplexobj(k) else 1
    error = gamma(times * k.shape[-1] + 4) * frobenius(k) ** 2 * UP
    a = np.matmul(k, np.conj(np.swapaxes(k, -1, -2)))
    for _ in range(SQUARINGS):
        size = frobenius(a)
        error = ((2 * size + error) * error + gamma(times * a.shape[-1] + 4) * size**2) * UP
        a = np.matmul(a, a)
    bound = float(np.max(frobenius(a) + error)) * UP
    for _ in range(SQUARINGS + 1):
        bound = math.sqrt(bound) * UP  # correctly rounded by IEEE 754
    return bound * 2.0**exponent


def row_norms(k: Array) -> float:
    """‖k‖_F, from above."""
    return float(frobenius(k.reshape(k.shape[0], -1)))


def cosine(j: int, n: int) -> float:
    """cos(2πj/n), n a power of two from 4 on: cos(θ/2)² = (1 + cos θ)/2 by roots, which IEEE 754 rounds correctly."""
    j %= n
    if n == 4:
        return (1.0, 0.0, -1.0, 0.0)[j]
    root = math.sqrt(0.5 * (1 + cosine(j, n // 2)))
    return -root if n < 4 * j < 3 * n else root


ROOT = 16 * U  # error of a power of e^{2πi/N}, N ≤ 16, so made


def roots(n: int, count: int, points: int) -> Array:
    """e^{2πi jt/n} for the frequencies j < points and the taps t < count."""
    c = np.array([cosine(j, n) for j in range(n)])
    turns = np.outer(np.arange(points), np.arange(count)) % n
    return c[turns] + 1j * c[(turns - n // 4) % n]


def symbol_norm(k: Array) -> float:
    """sup_ω ‖K̂(ω)‖₂ from above, k (channels, C, kh, kw).

    For unit vectors a, b the number ⟨a, K̂(ω)b⟩ is, up to a factor of modulus 1, a trigonometric polynomial of degree
    m = (k − 1)/2 along each axis. By M. Riesz's lemma it is at least cos(πm/N) times its largest value at the nearest
    of N equidistant points, axis by axis. Half of them suffice along one axis, for K̂(−ω) is conjugate to K̂(ω).
    """
    kh, kw = k.shape[2:]
    rows, columns = (8 if size <= 3 else 16 for size in (kh, kw))
    if kh > rows or kw > columns:  # the cosine below would not be positive
        return math.inf
    down, across = roots(rows, kh, rows // 2 + 1), roots(columns, kw, columns)
    at = np.tensordot(np.tensordot(k, down, axes=(2, 1)), across, axes=(2, 1))  # (channels, C, points, points)
    error = (gamma(4 * kh * kw + 8) + 4 * ROOT) * float(np.sum(np.abs(k), axis=(2, 3)).max()) * UP
    size = math.sqrt(k.shape[0] * k.shape[1]) * UP
    largest = spectral(at.transpose(2, 3, 0, 1)) + error * size
    shrink = cosine(kh - 1, 4 * rows) * cosine(kw - 1, 4 * columns)
    return largest / shrink * (1 + 1e-14)  # at least cos(15π/32) = 0.098, known to a few roundings


def convolution_norm(stage: Convolution, k: Array, shape: Any) -> float:
    """‖A(·, k)‖₂ from above: √m‖K‖₂ with K the kernel's matrix and m windows over a pixel, or the symbol's norm."""
    groups = k.reshape(stage.groups, -1, *k.shape[1:])
    flat = max(spectral(g.reshape(g.shape[0], -1)) for g in groups)
    return min(math.sqrt(overlaps(stage.windows, *shape[1:])) * UP * flat, max(symbol_norm(g) for g in groups))


def operator_norm(stage: Any, k: Array, shape: Any) -> float:
    """‖A(·, k)‖₂ of a dense stage or a convolution, from above."""
    return convolution_norm(stage, k, shape) if isinstance(stage, Convolution) else spectral(k)
