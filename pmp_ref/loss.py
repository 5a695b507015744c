"""Terminal losses Φ_s(x_L), per sample, with gradient and the Hessian's action (T1, T14).

The batch loss is the mean L_B = (1/B) Σ_s Φ_s; the factor 1/B enters through p_L = −(1/B)∇Φ_s, see ``sweep``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, device, is_floating, namespace, to_numpy
from pmp_ref.errors import InputError


class Loss(ABC):
    """Φ_s for every sample of a batch: x is x_L, (B, …), y the labels or targets."""

    @abstractmethod
    def values(self, x: Array, y: Array) -> Array:
        """Φ_s(x_s), shape (B,)."""

    @abstractmethod
    def gradient(self, x: Array, y: Array) -> Array:
        """∇Φ_s(x_s), shape of x; without 1/B."""

    @abstractmethod
    def tangent_gradient(self, x: Array, y: Array, dx: Array) -> Array:
        """Φ_s″(x_s) dx_s, shape of x; without 1/B."""

    @abstractmethod
    def check(self, shape: Any, y: Array) -> None:
        """Raise InputError unless y fits states x_L of per-sample shape ``shape``."""

    def advice(self, shape: Any, y: Array) -> str | None:
        """One line on y that fit but look mistaken; None if nothing does."""
        return None


def one_hot(x: Array, y: Array) -> Array:
    """Mask (B, K), true at the label of each sample."""
    xp = namespace(x, y)
    y = xp.astype(y, xp.int64)  # the classes may be more than the labels' own type can count
    return xp.arange(x.shape[1], dtype=y.dtype, device=device(y))[None, :] == y[:, None]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy Φ(x) = log Σ_k e^{x_k} − x_y; y integer labels (B,).

    ∇Φ = π − e_y, Φ″dx = π⊙dx − π⟨π, dx⟩, π = softmax(x). The shift of the log-sum-exp is the largest real part.
    """

    def values(self, x: Array, y: Array) -> Array:
        xp = namespace(x, y)
        x = x - _largest(x)
        label = xp.sum(xp.where(one_hot(x, y), x, 0.0), axis=1)
        return xp.log(xp.sum(xp.exp(x), axis=1)) - label

    def gradient(self, x: Array, y: Array) -> Array:
        return softmax(x) - namespace(x).astype(one_hot(x, y), x.dtype)

    def tangent_gradient(self, x: Array, y: Array, dx: Array) -> Array:
        pi = softmax(x)
        return pi * (dx - namespace(x).sum(pi * dx, axis=1, keepdims=True))

    def check(self, shape: Any, y: Array) -> None:
        if len(shape) != 1 or not isinstance(shape[0], int):
            raise InputError(f"cross-entropy got final states of shape {shape}; expected a vector of class scores")
        if y.ndim != 1 or not namespace(y).isdtype(y.dtype, "integral"):
            raise InputError(
                f"labels have shape {tuple(y.shape)} and dtype {y.dtype}; expected integers of shape (B,): number the "
                "classes from 0, as np.unique(labels, return_inverse=True)[1] does"
            )
        low, high = int(namespace(y).min(y)), int(namespace(y).max(y))
        if low < 0 or high >= shape[0]:
            raise InputError(
                f"labels range from {low} to {high}; the network has {shape[0]} classes: expected 0 … {shape[0] - 1}"
            )

    def advice(self, shape: Any, y: Array) -> str | None:
        """Labels 1 … K for K + 1 scores: class 0 never occurs, all others do. With five labels for each score, a lot
        drawn from all classes leaves out a given one with a probability below 1 %."""
        classes = shape[0]
        if y.shape[0] < 5 * classes or int(namespace(y).min(y)) == 0:
            return None
        counts = np.bincount(to_numpy(y), minlength=classes)
        if not counts[1:].all():
            return None
        return (
            f"no label is 0, and labels 1 to {classes - 1} occur {', '.join(map(str, counts[1:9]))}"
            f"{', …' if classes > 9 else ''} times; the network has {classes} classes, numbered from 0: if yours "
            f"count from 1, subtract 1 and take {classes - 1} classes"
        )


@dataclass(frozen=True)
class SquaredLoss(Loss):
    """Φ(x) = ½‖x − y‖²; y targets of the shape of x. ∇Φ = x − y, Φ″dx = dx."""

    def values(self, x: Array, y: Array) -> Array:
        xp = namespace(x, y)
        r = xp.reshape(x - y, (x.shape[0], prod(x.shape[1:])))
        return 0.5 * xp.sum(r * r, axis=1)

    def gradient(self, x: Array, y: Array) -> Array:
        return x - y

    def tangent_gradient(self, x: Array, y: Array, dx: Array) -> Array:
        return dx

    def check(self, shape: Any, y: Array) -> None:
        if tuple(y.shape[1:]) != tuple(shape) or not is_floating(y):
            raise InputError(
                f"targets have shape {tuple(y.shape)} and dtype {y.dtype}; expected floats of shape (B, *{shape})"
            )


def softmax(x: Array) -> Array:
    """e^{x_k}/Σ_j e^{x_j} along axis 1, stable."""
    xp = namespace(x)
    e = xp.exp(x - _largest(x))
    return e / xp.sum(e, axis=1, keepdims=True)


def _largest(x: Array) -> Array:
    """Largest entry (real part) of each sample, (B, 1)."""
    xp = namespace(x)
    real = xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x
    return xp.max(real, axis=1, keepdims=True)
