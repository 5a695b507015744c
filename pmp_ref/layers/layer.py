"""The protocol of an elementary stage x_{l+1} = Λ_l(x_l, u_l).

A stage is *affine in its control* (:class:`AffineStage`) or *control-free* (:class:`ControlFreeStage`). Then its
Hamiltonian is affine in every control and the pointwise maximisation of K_ε is exact (theory: notation).

Six maps stand side by side in every stage, all on a whole batch (first axis), all written by hand:

====================  =========================================================================
``forward``           Λ(x, u)
``costate``           ∂_x⟨p, Λ(x, u)⟩, the costate entering the stage (T1)
``switching``         ∂_u⟨p, Λ(x, u)⟩, the switching function g (T1)
``tangent``           ∂_xΛ dx + ∂_uΛ v (T14)
``tangent_costate``   derivative of ``costate`` along (dx, v, dp) (T14)
``tangent_switching``  derivative of ``switching`` along (dx, v, dp) (T14)
====================  =========================================================================

The control ``u`` of a stage is a tuple of arrays, ``(kernel, bias)``, ``(kernel,)`` or ``()``. A stage reads one state
x or several (``arity``); of several, x, dx and their shapes are tuples, and so is the costate that it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any

from pmp_ref.arrays import Array, namespace
from pmp_ref.errors import InputError

Shape = tuple[int, ...]
Control = tuple[Array, ...]


class Stage(ABC):
    """One time step of the controlled system; frozen, without arrays of its own."""

    analytic: bool = True  # smooth, and defined for complex states (complex-step checks, T1)
    arity: int = 1  # states that it reads

    @property
    def control_names(self) -> tuple[str, ...]:
        """Names of the stage's controls, in order."""
        return ()

    def control_shapes(self, shape: Any) -> tuple[Shape, ...]:
        """Shapes of the controls when states of per-sample shape ``shape`` enter."""
        return ()

    @abstractmethod
    def output_shape(self, shape: Any) -> Any:
        """Per-sample shape of the state leaving; raises InputError if ``shape`` cannot enter."""

    @abstractmethod
    def forward(self, x: Any, u: Control) -> Any:
        """Λ(x, u)."""

    @abstractmethod
    def costate(self, x: Any, u: Control, p: Any) -> Any:
        """∂_x⟨p, Λ(x, u)⟩."""

    @abstractmethod
    def switching(self, x: Any, u: Control, p: Any) -> Control:
        """∂_u⟨p, Λ(x, u)⟩, summed over the batch."""

    @abstractmethod
    def tangent(self, x: Any, u: Control, dx: Any, v: Control) -> Any:
        """∂_xΛ dx + ∂_uΛ v."""

    @abstractmethod
    def tangent_costate(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Any:
        """d/dt of ``costate`` at (x + t dx, u + t v, p + t dp), t = 0."""

    @abstractmethod
    def tangent_switching(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Control:
        """d/dt of ``switching`` at (x + t dx, u + t v, p + t dp), t = 0."""


class AffineStage(Stage):
    """Λ(x, (k, b)) = A(x, k) + b with A bilinear and the bias b added along axis 1 (channels, neurons).

    A concrete stage supplies A and its two adjoints: ``apply`` A(x, k), ``adjoint_state`` A(·, k)*p and
    ``adjoint_kernel`` A(x, ·)*p (summed over the batch). All six maps follow from the product rule.
    """

    bias: bool = True

    @abstractmethod
    def apply(self, x: Array, k: Array) -> Array:
        """A(x, k)."""

    @abstractmethod
    def adjoint_state(self, x_shape: Shape, k: Array, p: Array) -> Array:
        """A(·, k)*p, of shape ``x_shape`` (batch included)."""

    @abstractmethod
    def adjoint_kernel(self, x: Array, k_shape: Shape, p: Array) -> Array:
        """A(x, ·)*p, of shape ``k_shape``."""

    @property
    def control_names(self) -> tuple[str, ...]:
        return ("kernel", "bias") if self.bias else ("kernel",)

    def forward(self, x: Array, u: Control) -> Array:
        y = self.apply(x, u[0])
        return y + along_channels(u[1], y) if self.bias else y

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        return self.adjoint_state(x.shape, u[0], p)

    def switching(self, x: Array, u: Control, p: Array) -> Control:
        g = self.adjoint_kernel(x, u[0].shape, p)
        return (g, sum_channels(p)) if self.bias else (g,)

    def tangent(self, x: Array, u: Control, dx: Array, v: Control) -> Array:
        dy = self.apply(dx, u[0]) + self.apply(x, v[0])
        return dy + along_channels(v[1], dy) if self.bias else dy

    def tangent_costate(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Array:
        return self.adjoint_state(x.shape, u[0], dp) + self.adjoint_state(x.shape, v[0], p)

    def tangent_switching(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Control:
        dg = self.adjoint_kernel(x, u[0].shape, dp) + self.adjoint_kernel(dx, u[0].shape, p)
        return (dg, sum_channels(dp)) if self.bias else (dg,)


class ControlFreeStage(Stage):
    """A stage without control: ``switching`` and ``tangent_switching`` are empty."""

    def switching(self, x: Any, u: Control, p: Any) -> Control:
        return ()

    def tangent_switching(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Control:
        return ()


class LinearStage(ControlFreeStage):
    """A control-free stage that is linear in the state, so that its tangent is the map itself."""

    @abstractmethod
    def adjoint(self, x: Any, p: Any) -> Any:
        """Λ*p; of ``x`` only the shape counts."""

    def costate(self, x: Any, u: Control, p: Any) -> Any:
        return self.adjoint(x, p)

    def tangent(self, x: Any, u: Control, dx: Any, v: Control) -> Any:
        return self.forward(dx, u)

    def tangent_costate(self, x: Any, u: Control, p: Any, dx: Any, v: Control, dp: Any) -> Any:
        return self.adjoint(x, dp)


def along_channels(b: Array, y: Array) -> Array:
    """A vector b placed along axis 1 of y, ready to broadcast."""
    return namespace(b).reshape(b, (1, b.shape[0]) + (1,) * (y.ndim - 2))


def sum_channels(p: Array) -> Array:
    """Σ over every axis but axis 1: the adjoint of adding a bias."""
    return namespace(p).sum(p, axis=tuple(a for a in range(p.ndim) if a != 1))


def need_rank(stage: Stage, shape: Shape, rank: int, words: str) -> None:
    """Raise InputError unless ``shape`` is a per-sample shape of ``rank`` axes."""
    if len(shape) != rank:
        raise InputError(f"{type(stage).__name__} got states of shape {shape}; expected {words}")


def pair(value: int | tuple[int, int], name: str, least: int) -> tuple[int, int]:
    """An int or a pair of ints as a pair, each at least ``least``; raises InputError otherwise."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(n, Integral) and n >= least for n in both):
        raise InputError(f"{name} is {value}; expected an integer or a pair of integers, each at least {least}")
    return int(both[0]), int(both[1])
