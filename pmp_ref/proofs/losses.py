"""Enclosures of the losses: Φ_s and ∇Φ_s of final states in an enclosure (T24)."""

from __future__ import annotations

import numpy as np

from pmp_ref.errors import InputError
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss
from pmp_ref.proofs.arithmetic import Array, Ball, Near, U, entries, gamma, norm, upward
from pmp_ref.proofs.functions import EXP, exp, log_error

ROOT2 = 1.4142135623730954  # above √2


def cross_entropy(x: Near, y: Array, gradient: bool) -> tuple[Ball, Near | None]:
    """Φ = log Σ_k e^{d_k} − d_y with d = x − max x̂, and π − e_y.

    At x̂ the sum S ≥ 1 has a relative error of at most that of exp plus Ku + γ_K, for rounding d_k moves e^{d_k} by
    |d_k|e^{d_k}u ≤ u. The gradient has a norm of at most √2, and its derivative diag(π) − ππᵀ one of at most ½. If
    ‖x − x̂‖ ≤ r, the gradient in between is at most ‖π̂ − e_y‖ + r/2.
    """
    samples, classes = x.mid.shape
    rows = np.arange(samples)
    d = x.mid - x.mid.max(axis=1, keepdims=True)
    e = exp(d)
    s = e.sum(axis=1)
    slack = EXP + (classes + 2) * U + gamma(classes)
    guess, own = np.log(s), d[rows, y]
    value = guess - own
    miss = e / s[:, None]
    miss_error = upward((2 * slack + 4 * U) + 2 * U * norm(miss * d) + np.zeros(samples), 8)
    miss[rows, y] -= 1.0
    steepest = np.minimum(upward(norm(miss) + miss_error + 0.5 * x.rad, 4), ROOT2)
    rounding = log_error(guess, s, slack) + U * (2 * np.abs(own) + np.abs(value))
    phi = Ball(value, upward(steepest * x.rad + rounding, 12))
    return phi, Near(miss, upward(0.5 * x.rad + miss_error, 4)) if gradient else None


def squared(x: Near, y: Array, gradient: bool) -> tuple[Ball, Near | None]:
    """Φ = ½‖x − y‖² and x − y."""
    n = entries(x.mid)
    d = x.mid - y
    size = norm(d)
    rad = upward(x.rad + U * size, 4)
    flat = d.reshape(d.shape[0], n)
    value = 0.5 * np.sum(flat * flat, axis=1)
    return Ball(value, upward((size + 0.5 * rad) * rad + gamma(n + 1) * value, 12)), Near(d, rad) if gradient else None


def terminal(loss: Loss, x: Near, y: Array, gradient: bool) -> tuple[Ball, Near | None]:
    """(Φ_s, ∇Φ_s or None); InputError for a loss without enclosure."""
    if type(loss) is CrossEntropy:
        return cross_entropy(x, y, gradient)
    if type(loss) is SquaredLoss:
        return squared(x, y, gradient)
    raise InputError(
        f"nothing can be proven of the loss {loss}: a proof needs an enclosure of its values and of its gradient, "
        "see pmp_ref.proofs.losses"
    )
