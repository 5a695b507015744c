"""Activations: control-free, entry by entry, x_{l+1} = σ(z) with z the state entering.

Costate σ′(z) p; its tangent σ′(z) dp + σ″(z) dx p (T14). Every class states σ, σ′ and σ″. At the kink of ReLU and
leaky ReLU σ′(0) is the left derivative, a value between the one-sided derivatives.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from pmp_ref.arrays import Array, as_floats, fused, namespace, zeros
from pmp_ref.errors import InputError, nearest
from pmp_ref.layers.layer import Control, ControlFreeStage, Shape


class Activation(ControlFreeStage):
    """x_{l+1} = σ(x_l); states of any shape."""

    @abstractmethod
    def sigma(self, z: Array) -> Array:
        """σ(z)."""

    @abstractmethod
    def slope(self, z: Array) -> Array:
        """σ′(z)."""

    @abstractmethod
    def curvature(self, z: Array) -> Array:
        """σ″(z)."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def forward(self, x: Array, u: Control) -> Array:
        return fused(self.sigma, x)

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        return fused(self._sloped, x, p)

    def _sloped(self, x: Array, p: Array) -> Array:
        return self.slope(x) * p

    def tangent(self, x: Array, u: Control, dx: Array, v: Control) -> Array:
        return self.slope(x) * dx

    def tangent_costate(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Array:
        return self.slope(x) * dp + self.curvature(x) * dx * p


@dataclass(frozen=True)
class Tanh(Activation):
    """σ = tanh, σ′ = 1 − tanh², σ″ = −2 tanh (1 − tanh²)."""

    def sigma(self, z: Array) -> Array:
        return namespace(z).tanh(z)

    def slope(self, z: Array) -> Array:
        t = namespace(z).tanh(z)
        return 1 - t * t

    def curvature(self, z: Array) -> Array:
        t = namespace(z).tanh(z)
        return -2 * t * (1 - t * t)


def logistic(z: Array) -> Array:
    """1/(1 + e⁻ᶻ) = (1 + tanh(z/2))/2, which does not overflow."""
    return 0.5 * (1 + namespace(z).tanh(0.5 * z))


@dataclass(frozen=True)
class Sigmoid(Activation):
    """σ = s(z) = 1/(1 + e⁻ᶻ), σ′ = s(1 − s), σ″ = s(1 − s)(1 − 2s)."""

    def sigma(self, z: Array) -> Array:
        return logistic(z)

    def slope(self, z: Array) -> Array:
        s = logistic(z)
        return s * (1 - s)

    def curvature(self, z: Array) -> Array:
        s = logistic(z)
        return s * (1 - s) * (1 - 2 * s)


@dataclass(frozen=True)
class Softplus(Activation):
    """σ = log(1 + eᶻ), σ′ = s(z), σ″ = s(1 − s) with s the logistic function."""

    def sigma(self, z: Array) -> Array:
        xp = namespace(z)
        positive = (xp.real(z) if xp.isdtype(z.dtype, "complex floating") else z) > 0
        return xp.where(positive, z, 0.0) + xp.log1p(xp.exp(xp.where(positive, -z, z)))

    def slope(self, z: Array) -> Array:
        return logistic(z)

    def curvature(self, z: Array) -> Array:
        s = logistic(z)
        return s * (1 - s)


@dataclass(frozen=True)
class SiLU(Activation):
    """σ = z s(z), σ′ = s + z s′, σ″ = 2s′ + z s″ with s the logistic function."""

    def sigma(self, z: Array) -> Array:
        return z * logistic(z)

    def slope(self, z: Array) -> Array:
        s = logistic(z)
        return s + z * s * (1 - s)

    def curvature(self, z: Array) -> Array:
        s = logistic(z)
        return s * (1 - s) * (2 + z * (1 - 2 * s))


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """σ = z for z > 0, a z otherwise; σ″ = 0 off the kink. Not C¹: T6–T9's constants do not exist."""

    leak: float = 0.01
    analytic = False

    def __post_init__(self) -> None:
        as_floats(self, "leak")

    def sigma(self, z: Array) -> Array:
        return namespace(z).where(z > 0, z, self.leak * z)

    def slope(self, z: Array) -> Array:
        positive = z > 0
        return namespace(z).where(positive, namespace(z).astype(positive, z.dtype), self.leak)

    def curvature(self, z: Array) -> Array:
        return zeros(z.shape, z)


@dataclass(frozen=True)
class ReLU(LeakyReLU):
    """σ = max(z, 0), σ′(0) = 0; leaky ReLU with leak 0."""

    leak: float = 0.0


ACTIVATIONS: dict[str, type[Activation]] = {
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "softplus": Softplus,
    "silu": SiLU,
    "relu": ReLU,
    "leaky-relu": LeakyReLU,
}


def activation(name: str) -> Activation:
    """The activation of that name; raises InputError with the nearest known name."""
    if name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}: {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()
