"""Enclosures of the loss behind the network: values, and Taylor coefficients along the segment (T7b)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import UP, Array, Ball, Point, U, column, hull
from pmp_ref.errors import InputError
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss


def loss_coefficients(loss: Loss, y: Array, x: list[Any], low: Array, high: Array) -> list[Any]:
    """φ_1 … φ_n of Φ(x(t)) per row, balls, from balls x_k (None: zero) and x_0 ∈ [low, high]."""
    result: list[Any] = []
    x = [Ball(np.zeros_like(low), np.zeros_like(low)) if a is None else a for a in x]
    if isinstance(loss, SquaredLoss):
        rest = [hull(low, high) - Ball(y, np.zeros_like(y)), *x[1:]]
        for k in range(1, len(x)):
            terms = [(rest[j] * rest[k - j]).total(1) for j in range(k + 1) if j != k - j]
            if k % 2 == 0:
                terms.append(rest[k // 2].square().total(1))
            result.append(_sum(terms) * 0.5)
        return result
    if not isinstance(loss, CrossEntropy):
        raise InputError(f"no enclosure for the loss {loss}; expected cross-entropy or squared")
    label = (np.arange(low.shape[1])[None, :] == y[:, None]).astype(np.float64)
    p = [corner_softmax(low, high)]
    miss = p[0] - Ball(label, np.zeros_like(label))
    shifted: list[Any] = [None]
    for a in x[1:]:  # the derivatives do not see a shift of all scores: centre them
        centre = (p[0].mid * a.mid).sum(axis=1, keepdims=True)
        shifted.append(a - Ball(centre, np.zeros_like(centre)))
    e: list[Any] = [None]
    for k in range(1, len(x)):
        below = [(p[k - j] * shifted[j]).total(1) * (j / k) for j in range(1, k)]
        if k == 2:  # Σp₁x₁ = Σp₀x₁² − (Σp₀x₁)²
            mean = (p[0] * shifted[1]).total(1)
            below = [((p[0] * shifted[1].square()).total(1) - mean.square()) * 0.5]
        result.append(_sum([*below, (miss * shifted[k]).total(1)]))
        if k + 1 < len(x):
            m = _sum([*below, (p[0] * shifted[k]).total(1)])
            e.append(shifted[k] - Ball(m.mid[:, None], m.rad[:, None]))
            p.append(_sum([(e[j] * p[k - j]) * (j / k) for j in range(1, k + 1)]))
    return result


def _sum(terms: list[Ball]) -> Ball:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def corner_softmax(low: Array, high: Array) -> Ball:
    """Bounds of softmax on the box: entry i is smallest at x_i = low, the others high, and largest in reverse."""
    k = low.shape[1]

    def corner(own: Array, others: Array) -> tuple[Array, Array]:
        gap = others[:, None, :] - own[:, :, None]
        gap[:, np.arange(k), np.arange(k)] = 0.0
        slack = (2 * k + 32 + 4 * np.abs(gap).max(axis=(1, 2))[:, None]) * U
        with np.errstate(over="ignore"):
            return 1 / np.exp(gap).sum(axis=2), slack

    smallest, slack_low = corner(low, high)
    largest, slack_high = corner(high, low)
    return hull(smallest * (1 - slack_low), np.minimum(largest * (1 + slack_high), 1.0))


def loss_value(loss: Loss, y: Array, x: Point) -> Ball:
    """φ(c) per row from the thin final state."""
    gap_err = column(x.err, x.mid)
    if isinstance(loss, SquaredLoss):
        r = Ball(x.mid, np.broadcast_to(gap_err, x.mid.shape)) - Ball(y, np.zeros_like(y))
        return r.square().total(1) * 0.5
    value = np.asarray(loss.values(x.mid, y))
    size = np.abs(x.mid).max(axis=1)
    # Φ is 2-Lipschitz in the maximum norm; the differences of scores, exp, sum and log round as in corner_softmax
    return Ball(value, (2 * x.err + (2 * x.mid.shape[1] + 40 + 8 * size) * U + 8 * U * np.abs(value)) * UP)
