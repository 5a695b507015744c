"""Standardisation of each sample over groups of channels; mean and variance depend on the state.

y = (x − m(x))/s with s² = m((x − m(x))²) + δ and m the mean over a group's channels and pixels of one sample.
With P_y(a) = a − m(a) − y m(y a), a symmetric map, dy = P_y(dx)/s, the costate is P_y(p)/s and ds = m(y dx).
The controls of a normalisation layer are a stage of their own, :class:`pmp_ref.layers.dense.ScaleShift`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmp_ref.arrays import Array, as_floats, namespace
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Control, ControlFreeStage, Shape


@dataclass(frozen=True)
class Standardise(ControlFreeStage):
    """Zero mean and unit variance over each of ``groups`` groups of channels, per sample; states (B, C, …)."""

    groups: int = 1
    delta: float = 1e-5  # added to the variance, so that a constant group stays differentiable

    def __post_init__(self) -> None:
        as_floats(self, "delta")
        if not (isinstance(self.groups, int) and self.groups >= 1 and self.delta > 0):
            raise InputError(f"{self}; expected at least one group and delta > 0")

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 1 or shape[0] % self.groups:
            raise InputError(
                f"Standardise over {self.groups} groups got states of shape {shape}; expected a number of "
                "channels (first axis) divisible by the groups"
            )
        return shape

    def forward(self, x: Array, u: Control) -> Array:
        y, _ = self._standardised(x)
        return namespace(x).reshape(y, x.shape)

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        y, s = self._standardised(x)
        return namespace(x).reshape(_project(y, self._grouped(p)) / s, x.shape)

    def tangent(self, x: Array, u: Control, dx: Array, v: Control) -> Array:
        return self.costate(x, u, dx)  # the Jacobian P_y/s is symmetric

    def tangent_costate(self, x: Array, u: Control, p: Array, dx: Array, v: Control, dp: Array) -> Array:
        y, s = self._standardised(x)
        a, da, h = self._grouped(p), self._grouped(dp), self._grouped(dx)
        dy, ds = _project(y, h) / s, _mean(y * h)
        change = -dy * _mean(y * a) - y * _mean(dy * a)  # derivative of P_y(a) along dy
        return namespace(x).reshape((_project(y, da) + change - ds / s * _project(y, a)) / s, x.shape)

    def _grouped(self, x: Array) -> Array:
        """(B, C, …) → (B, groups, entries)."""
        entries = x.shape[1] // self.groups
        for n in x.shape[2:]:
            entries *= n
        return namespace(x).reshape(x, (x.shape[0], self.groups, entries))

    def _standardised(self, x: Array) -> tuple[Array, Array]:
        """y and s by group."""
        x = self._grouped(x)
        c = x - _mean(x)
        s = namespace(x).sqrt(_mean(c * c) + self.delta)
        return c / s, s


def _mean(a: Array) -> Array:
    """m: the mean over a group."""
    return namespace(a).mean(a, axis=2, keepdims=True)


def _project(y: Array, a: Array) -> Array:
    """P_y(a) = a − m(a) − y m(y a)."""
    return a - _mean(a) - y * _mean(y * a)
