"""Enclosures of the loss behind the network: values, and Taylor coefficients along the segment (T7b)."""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import UP, Array, Ball, Point, U, column, hull
from pmp_ref.bounds.jets import Jet, Rows, balls, compose, quotient, tails, within
from pmp_ref.bounds.quotients import exp_range, log_range
from pmp_ref.errors import InputError
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss


def loss_coefficients(loss: Loss, y: Array, jet: Jet, rows: Rows) -> list[Ball]:
    """φ_1 … φ_{n−1} at c and φ_[n] over the part (not ``wide``: without it), per row, of Φ(x) behind a jet."""
    x0 = jet.thin[0]
    assert x0 is not None
    still = Ball(np.zeros_like(x0.mid), np.zeros_like(x0.mid))
    thin = [still if x is None else x for x in balls(jet.thin)]
    top = still if jet.top is None else jet.top
    if isinstance(loss, SquaredLoss):
        f = [None, thin[0] - Ball(y, np.zeros_like(y)), 0.5, None, None]
        return [a.total(1) for a in composed(f, thin, top, rows)]
    if not isinstance(loss, CrossEntropy):
        raise InputError(f"no enclosure for the loss {loss}; expected cross-entropy or squared")
    return cross_entropy(y, thin, top, rows)


def cross_entropy(y: Array, x: list[Any], top: Any, rows: Rows) -> list[Ball]:
    """The jet of log Σ_j exp(x_j) − x_y: of log S with S(s) = Σ_j p_j exp(x_j(c + s) − x_j(c)), p = softmax(x(c))."""
    n, h = rows.order, rows.h
    own = np.arange(x[0].mid.shape[1])[None, :] == y[:, None]
    p = corner_softmax(x[0].lower, x[0].upper)

    def centred(a: Ball) -> Ball:
        """The loss does not see a shift of all scores, and S_1 … vanish after this one."""
        return a - Ball((p.mid * a.mid).sum(axis=1, keepdims=True), np.zeros((a.mid.shape[0], 1)))

    x, top = [x[0], *map(centred, x[1:])], centred(top)
    exp: list[Any] = [1 / factorial(k) for k in range(n)]
    log: list[Any] = [0.0] + [(-1.0) ** (k - 1) / k for k in range(1, n)]
    reach: Any = within(tails(x, top, h)[1], h)
    if rows.wide:
        exp.append(exp_range(reach.rad, n))
    S: list[Any] = [None] + [(p * a).total(1) for a in composed(exp, x, top, rows)]
    if rows.wide:
        second: Any = tails(S[:n], S[n], h)[2]
        log.append(log_range(*moves(p, reach.rad, S[1], second, h), n))
    phi = composed(log, S[:n], S[-1], rows)
    return [a - Ball(b.mid[own], b.rad[own]) for a, b in zip(phi, [*x[1:], top], strict=False)]


def moves(p: Ball, reach: Array, first: Ball, second: Ball, h: Array) -> tuple[Array, Array]:
    """Ends of S(s) − 1 over the part: by s S_1 + s² S_[2], and by Σ p_j exp(±reach_j)."""
    k = reach.shape[1]
    still, square = h * first.magnitude * UP, h**2 * UP
    low = -(still + square * np.maximum(-second.lower, 0.0)) * UP
    high = (still + square * np.maximum(second.upper, 0.0)) * UP
    slack = (k + 32) * U
    least = (np.maximum(p.lower, 0.0) * np.exp(-reach)).sum(axis=1) * (1 - slack) - 1
    most = (p.upper * np.exp(reach)).sum(axis=1) * (1 + slack) - 1
    return np.maximum(low, least - 2 * U), np.minimum(high, most + U * np.abs(most))


def composed(f: list[Any], x: list[Any], top: Any, rows: Rows) -> list[Any]:
    """The jet behind a function with coefficients f_1 … f_{n−1}, and quotient f_[n], without its value."""
    thin = [compose(k, f, x) for k in range(1, rows.order)]
    if not rows.wide:
        return thin
    return [*thin, quotient(rows.order, f, x, tails(x, top, rows.h), rows.h)]


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
