"""Taylor coefficients f_k = σ^(k)/k! of the smooth activations, with bounds of |f_k| and of their rounding.

With t = tanh z every derivative of tanh is a polynomial in t: P_0 = t, P_{k+1} = P_k′(1 − t²). The logistic function
is s(z) = (1 + tanh(z/2))/2, softplus has σ′ = s, SiLU is z s(z). The suprema of |P_k| on [−1, 1] are taken over the
ends and the critical points and enlarged by 10⁻⁹, far above the error of a polynomial at a computed critical point.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.polynomial import Polynomial

from pmp_ref.bounds.intervals import FUNCTION, UP, Array, U
from pmp_ref.errors import InputError
from pmp_ref.layers import Activation, Sigmoid, SiLU, Softplus, Tanh

HIGHEST = 6  # f_0 … f_6: what enclosures of order 4 ask for


def _polynomials() -> list[Polynomial]:
    """P_k/k! in t."""
    result = [Polynomial([0.0, 1.0])]
    for _ in range(HIGHEST):
        result.append(result[-1].deriv() * Polynomial([1.0, 0.0, -1.0]))
    return [p / factorial(k) for k, p in enumerate(result)]


def _supremum(p: Polynomial) -> float:
    """max |p| on [−1, 1], enlarged."""
    critical = p.deriv().roots()
    inside = [float(r.real) for r in critical if abs(r.imag) < 1e-6 and abs(r.real) <= 1]
    return max(abs(float(p(t))) for t in [-1.0, 1.0, *inside]) * (1 + 1e-9)


def _rounding(p: Polynomial) -> float:
    """Bound of the error of Horner's rule for p at a computed tanh, |t| ≤ 1."""
    c = np.abs(p.coef)
    return float(UP * ((2 * c.size + 6) * U * c.sum() + 2 * FUNCTION * (np.arange(c.size) * c).sum()))


_P = _polynomials()
_SUP = [_supremum(p) for p in _P]
_ERR = [_rounding(p) for p in _P]
# sup |z| sech²(z/2) ≤ sup 4|z|e^{−|z|} = 4/e, and P_k = (1 − t²) Q_k: |z s_k| ≤ 2^{−(k+1)} sup|Q_k| · 4/e.
_QUOTIENT = [0.0] + [_supremum(p // Polynomial([1.0, 0.0, -1.0])) for p in _P[1:]]


def suprema(stage: Activation) -> list[float]:
    """S_k ≥ sup |f_k|, k = 0 … 6; infinite where σ is unbounded. Raises InputError for other activations."""
    tanh, logistic = _SUP, [1.0] + [_SUP[k] / 2 ** (k + 1) for k in range(1, HIGHEST + 1)]
    if isinstance(stage, Tanh):
        return tanh
    if isinstance(stage, Sigmoid):
        return logistic
    if isinstance(stage, Softplus):
        return [np.inf] + [logistic[k - 1] / k for k in range(1, HIGHEST + 1)]
    if isinstance(stage, SiLU):
        swell = [_QUOTIENT[k] / 2 ** (k + 1) * 1.4716 for k in range(HIGHEST + 1)]
        return [np.inf] + [swell[k] + logistic[k - 1] for k in range(1, HIGHEST + 1)]
    raise InputError(f"no bound for {stage}; expected tanh, sigmoid, softplus or SiLU (σ must be smooth)")


def coefficients(stage: Activation, z: Array, count: int) -> tuple[list[Array], list[Array]]:
    """f_0 … f_count at z, and for each a bound of its rounding error, one per row (first axis) of z."""
    rows = np.abs(z).reshape(z.shape[0], -1).max(axis=1, initial=0.0)
    if isinstance(stage, Tanh):
        return _tanh(z, count), [np.full(rows.shape, _ERR[k]) for k in range(count + 1)]
    logistic = _tanh(0.5 * z, count)
    logistic = [0.5 * (1 + logistic[0])] + [logistic[k] / 2 ** (k + 1) for k in range(1, count + 1)]
    errors = [np.full(rows.shape, _ERR[k] + 2 * U) for k in range(count + 1)]
    if isinstance(stage, Sigmoid):
        return logistic, errors
    if isinstance(stage, Softplus):
        zero = np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))
        values = [zero] + [logistic[k - 1] / k for k in range(1, count + 1)]
        return values, [24 * U + 4 * U * (rows + 1)] + [errors[k - 1] + 2 * U for k in range(1, count + 1)]
    if isinstance(stage, SiLU):
        values = [z * logistic[0]] + [z * logistic[k] + logistic[k - 1] for k in range(1, count + 1)]
        spread = [(rows * (errors[k] + 2 * U) + errors[max(k - 1, 0)] + 4 * U) * UP for k in range(count + 1)]
        return values, spread
    suprema(stage)  # raises
    raise AssertionError


def _tanh(z: Array, count: int) -> list[Array]:
    """P_k(tanh z)/k!, k = 0 … count."""
    t = np.tanh(z)
    values = [t]
    for p in _P[1 : count + 1]:
        value = np.full_like(t, p.coef[-1])
        for c in p.coef[-2::-1]:
            value = value * t + c
        values.append(value)
    return values
