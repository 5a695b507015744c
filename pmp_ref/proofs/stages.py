"""Enclosures of the stages: forward map, costate and switching function of a chunk, one rule for each stage (T24).

A rule has three maps. ``prepare(stage, u, shape)`` finds the norms of a control, once for a sweep.
``forward(stage, x, u, norms)`` gives the enclosure of Λ(x, u) and a note, whatever the way back can use again.
``backward(stage, x, u, norms, note, p, costate)`` gives the enclosures of the switching function and, where ``costate``
asks for it, of ∂_x⟨p, Λ(x, u)⟩. Controls are numbers, states and costates are enclosures; a stage
that reads several states takes a tuple of them and hands back a tuple.

The pattern is the same throughout: a value at the midpoint, and a radius that adds what the radius entering can do (a
Lipschitz constant) and what the roundings of the value can do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from pmp_ref.bounds.constants import activation_constants, fewest, overlaps
from pmp_ref.bounds.intervals import UP
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pixels,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.proofs.arithmetic import (
    Array,
    Ball,
    Near,
    U,
    add,
    column,
    entries,
    gamma,
    largest,
    norm,
    norms,
    scale,
    upward,
)
from pmp_ref.proofs.functions import EXP, SMALLEST, TANH, exp, log_error, tanh
from pmp_ref.proofs.norms import operator_norm, row_norms
from pmp_ref.proofs.products import fold, taps, unfold

Control = tuple[Array, ...]
Found = tuple[tuple[Ball, ...], Near | None]


class Sizes(NamedTuple):
    """Of an affine stage: ‖A(·, k)‖₂, a number F with ‖A(|x|, |k|)‖ ≤ F‖x‖, and the norm of the bias spread out."""

    operator: float
    moduli: float
    bias: float


class Rule(ABC):
    """The maps of a stage, see the module's docstring."""

    def prepare(self, stage: Any, u: Control, shape: Any) -> Any:
        """What the norms of the control are; nothing unless a rule says so."""
        return None

    @abstractmethod
    def forward(self, stage: Any, x: Any, u: Control, sizes: Any) -> tuple[Any, Any]:
        """The enclosure of Λ(x, u), and a note for the way back."""

    @abstractmethod
    def backward(
        self, stage: Any, x: Any, u: Control, sizes: Any, note: Any, p: Any, costate: bool
    ) -> tuple[tuple[Ball, ...], Any]:
        """Enclosures of the switching functions, and of the costate if asked for."""


def per_channel(a: Array, like: Array) -> Array:
    """A vector over channels, shaped to broadcast against a state."""
    return a.reshape(1, -1, *(1,) * (like.ndim - 2))


def sums(p: Array) -> Array:
    """Σ over the pixels of each channel, (B, C)."""
    return p if p.ndim == 2 else p.reshape(*p.shape[:2], -1).sum(axis=2)


# --- affine stages ----------------------------------------------------------------------------------------------------
#
# The switching function of a kernel is Σ_s ⟨p_s, x_s moved by a tap⟩ over the pixels of two channels. With radii r_s of
# x_s and q_s of p_s and Cauchy's inequality its error is at most
#     Σ_s (‖p_s,o‖ r_s + q_s ‖x_s,i‖ + q_s r_s) + γ_n ‖p_o‖ ‖x_i‖,
# norms over pixels, and in the last term over samples too.


def kernel_radius(x: Near, p: Near, terms: int) -> Array:
    """The bound above for all pairs of channels, (channels, C)."""
    size_x, size_p = norms(x.mid), norms(p.mid)
    by_x, by_p = x.rad @ size_p, p.rad @ size_x
    rounding = gamma(terms) * np.outer(norm(size_p.T), norm(size_x.T))
    return upward(by_x[:, None] + by_p[None, :] + p.rad @ x.rad + rounding, p.mid.shape[0] + 12)


def bias_switching(p: Near, terms: int) -> Ball:
    """Σ over samples and pixels of p, (C,): Σ|p − p̂| ≤ √n‖p − p̂‖ over n pixels, and one rounding each."""
    root = math.sqrt(prod(p.mid.shape[2:])) * UP
    size = root * norms(p.mid)
    spread = root * p.rad.sum() + gamma(terms) * size.sum(axis=0)
    return Ball(sums(p.mid).sum(axis=0), upward(spread, p.mid.shape[0] + 12))


def affine_radius(x: Near, s: Sizes, terms: int) -> Array:
    """‖K‖₂ r + γ_n‖K‖_F‖x‖ + u‖b‖: fl(K x̂ + b) against K x + b."""
    return upward(s.operator * x.rad + gamma(terms + 1) * s.moduli * norm(x.mid) + U * s.bias, 12)


def adjoint_radius(p: Near, s: Sizes, terms: int) -> Array:
    """The same for K*p."""
    return upward(s.operator * p.rad + gamma(terms) * s.moduli * norm(p.mid), 12)


class Affine(Rule):
    """A stage with controls: ‖A(·, K)‖₂ and bounds of its roundings."""

    def prepare(self, stage: Any, u: Control, shape: Any) -> Sizes:
        """‖|K||x|‖ ≤ ‖K‖_F‖x‖ by Cauchy's inequality, row by row; a convolution has m windows over a pixel."""
        spread = math.sqrt(prod(stage.output_shape(shape)[1:])) * UP
        bias = spread * row_norms(u[1][None]) if stage.bias else 0.0
        if isinstance(stage, ScaleShift):
            top = float(np.max(np.abs(u[0])))
            return Sizes(top, top, bias)
        over = math.sqrt(overlaps(stage.windows, *shape[1:])) * UP if isinstance(stage, Convolution) else 1.0
        return Sizes(operator_norm(stage, u[0], tuple(shape)), over * row_norms(u[0]) * UP, bias)


class DenseRule(Affine):
    """Dense stages."""

    def forward(self, stage: Dense, x: Near, u: Control, s: Sizes) -> tuple[Near, None]:
        """K x + b."""
        y = x.mid @ u[0].T
        if stage.bias:
            y += u[1]
        return Near(y, affine_radius(x, s, u[0].shape[1])), None

    def backward(self, stage: Dense, x: Near, u: Control, s: Sizes, note: Any, p: Near, costate: bool) -> Found:
        """g = pᵀx, a sum over the samples, and Kᵀp."""
        samples = p.mid.shape[0]
        g: tuple[Ball, ...] = (Ball(p.mid.T @ x.mid, kernel_radius(x, p, samples)),)
        if stage.bias:
            g += (bias_switching(p, samples),)
        return g, Near(p.mid @ u[0], adjoint_radius(p, s, u[0].shape[0])) if costate else None


class ScaleShiftRule(Affine):
    """Scale-and-shift."""

    def forward(self, stage: ScaleShift, x: Near, u: Control, s: Sizes) -> tuple[Near, None]:
        """k x + b, channel by channel."""
        y = per_channel(u[0], x.mid) * x.mid
        if stage.bias:
            y += per_channel(u[1], x.mid)
        return Near(y, affine_radius(x, s, 1)), None

    def backward(self, stage: ScaleShift, x: Near, u: Control, s: Sizes, note: Any, p: Near, costate: bool) -> Found:
        """g_c = Σ x p over samples and pixels of channel c, and k p."""
        terms = p.mid.shape[0] + prod(p.mid.shape[2:]) + 1
        g: tuple[Ball, ...] = (Ball(sums(x.mid * p.mid).sum(axis=0), np.diagonal(kernel_radius(x, p, terms))),)
        if stage.bias:
            g += (bias_switching(p, terms),)
        return g, Near(per_channel(u[0], p.mid) * p.mid, adjoint_radius(p, s, 1)) if costate else None


class ConvolutionRule(Affine):
    """Convolutions."""

    def forward(self, stage: Convolution, x: Near, u: Control, s: Sizes) -> tuple[Near, Array]:
        """K Z + b with the columns Z of x, which the way back uses again."""
        samples = x.mid.shape[0]
        out = (stage.channels, *stage.windows.positions(*x.mid.shape[2:]))
        z = unfold(x.mid, stage.windows).reshape(samples, stage.groups, -1, prod(out[1:]))
        n = z.shape[2]
        y = np.matmul(u[0].reshape(stage.groups, -1, n), z).reshape(samples, *out)
        if stage.bias:
            y += per_channel(u[1], y)
        return Near(y, affine_radius(x, s, n)), z

    def backward(self, stage: Convolution, x: Near, u: Control, s: Sizes, z: Array, p: Near, costate: bool) -> Found:
        """g = Σ_s p_s Z_sᵀ and the fold of Kᵀp."""
        k, samples, area = u[0], p.mid.shape[0], prod(p.mid.shape[2:])
        rows = p.mid.reshape(samples, stage.groups, -1, area)
        g = np.matmul(rows, z.swapaxes(2, 3)).sum(axis=0).reshape(k.shape)
        found: tuple[Ball, ...] = (Ball(g, in_groups(stage, kernel_radius(x, p, area + samples))[:, :, None, None]),)
        if stage.bias:
            found += (bias_switching(p, area + samples),)
        if not costate:
            return found, None
        matrix = k.reshape(stage.groups, -1, z.shape[2]).swapaxes(1, 2)
        back = np.matmul(matrix, rows).reshape(*x.mid.shape[:2], *stage.windows.size, *p.mid.shape[2:])
        terms = matrix.shape[2] + prod(stage.windows.size)
        return found, Near(fold(back, stage.windows, *x.mid.shape[2:]), adjoint_radius(p, s, terms))


def in_groups(stage: Convolution, pairs: Array) -> Array:
    """Of (channels, C) the pairs within a group, (channels, C/groups)."""
    own = pairs.reshape(stage.groups, -1, stage.groups, pairs.shape[1] // stage.groups)
    return np.concatenate([own[i, :, i] for i in range(stage.groups)])


# --- activations ------------------------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """σ and σ′ at numbers: values, a bound of ‖error of σ‖₂ and of the largest error of σ′, for each sample."""

    value: Array
    value_error: Array
    slope: Array
    slope_error: Any


def logistic(z: Array) -> tuple[Array, float]:
    """s(z) = (1 + tanh(z/2))/2 and a bound of its error."""
    s = tanh(0.5 * z)
    s += 1.0
    s *= 0.5
    return s, TANH + 2 * U


def each(error: Any, z: Array) -> Array:
    """‖error‖₂ of a sample whose entries err by at most ``error``."""
    return error * (math.sqrt(entries(z)) * UP) + np.zeros(z.shape[0])


class Smooth(Rule):
    """A smooth activation, with s₁ ≥ sup|σ′| and s₂ ≥ sup|σ″|.

    Forward ‖σ(z) − σ(ẑ)‖ ≤ sup|σ′|‖z − ẑ‖, the supremum over the enclosure. Backward
    ‖σ′(z)p − σ′(ẑ)p̂‖ ≤ sup|σ′|‖p − p̂‖ + max|p̂| s₂‖z − ẑ‖. The note is σ′(ẑ), its supremum, and its error.
    """

    @abstractmethod
    def curve(self, z: Array) -> Curve:
        """σ and σ′ at the midpoint."""

    def forward(self, stage: Activation, x: Near, u: Control, sizes: None) -> tuple[Near, Any]:
        s1, s2, _ = activation_constants(stage)
        c = self.curve(x.mid)
        steepest = np.minimum(upward(largest(c.slope) + c.slope_error + s2 * x.rad, 8), s1)
        return Near(c.value, upward(steepest * x.rad + c.value_error, 12)), (c.slope, steepest, c.slope_error)

    def backward(self, stage: Activation, x: Near, u: Control, sizes: None, note: Any, p: Near, costate: bool) -> Found:
        if not costate:
            return (), None
        slope, steepest, slope_error = note
        _, s2, _ = activation_constants(stage)
        q = slope * p.mid
        bent = largest(p.mid) * (s2 * x.rad) + slope_error * norm(p.mid)
        return (), Near(q, upward(steepest * p.rad + bent + U * norm(q), 12))


class TanhRule(Smooth):
    """tanh."""

    def curve(self, z: Array) -> Curve:
        """t = tanh z, 1 − t²."""
        t = tanh(z)
        s = t * t
        return Curve(t, TANH * norm(t), np.subtract(1.0, s, out=s), 2 * TANH + 4 * U)


class SigmoidRule(Smooth):
    """The logistic function."""

    def curve(self, z: Array) -> Curve:
        """s, s(1 − s)."""
        s, error = logistic(z)
        return Curve(s, each(error, z), s * (1 - s), 2 * error + 4 * U)


class SoftplusRule(Smooth):
    """Softplus."""

    def curve(self, z: Array) -> Curve:
        """max(z, 0) + log(1 + e^{−|z|}), s."""
        e = exp(-np.abs(z))
        rest = np.log1p(e)
        error = log_error(rest, 1 + e, EXP + U).max(initial=0.0) + SMALLEST
        s, slope_error = logistic(z)
        value = np.maximum(z, 0.0) + rest
        return Curve(value, each(error, z) + 2 * U * norm(value), s, slope_error)


class SiLURule(Smooth):
    """SiLU."""

    def curve(self, z: Array) -> Curve:
        """z s, s + z s(1 − s)."""
        s, error = logistic(z)
        value, top = z * s, largest(z)
        slope = s + value * (1 - s)
        return Curve(value, error * norm(z) + 2 * U * norm(value), slope, error + top * (2 * error + 8 * U) + 8 * U)


class LeakyRule(Rule):
    """ReLU and leaky ReLU."""

    def forward(self, stage: LeakyReLU, x: Near, u: Control, sizes: None) -> tuple[Near, Array]:
        """z for z > 0, a z otherwise: Lipschitz with max(1, |a|). The note is the slope at ẑ."""
        a, z = stage.leak, x.mid
        rounding = 0.0 if a in (0.0, 1.0) else U * abs(a) * norm(z)
        value = np.where(z > 0, z, a * z)
        return Near(value, upward(max(1.0, abs(a)) * x.rad + rounding, 8)), np.where(z > 0, 1.0, a)

    def backward(
        self, stage: LeakyReLU, x: Near, u: Control, sizes: None, slope: Array, p: Near, costate: bool
    ) -> Found:
        """σ′(z)p; where 0 lies in the enclosure of z, the slope may be wrong by 1 − a, and p̂ counts with that."""
        if not costate:
            return (), None
        q = slope * p.mid
        kink = np.abs(x.mid) <= column(x.rad, x.mid)
        wrong = abs(1 - stage.leak) * UP * norm(np.where(kink, p.mid, 0.0)) if kink.any() else 0.0
        return (), Near(q, upward(max(1.0, abs(stage.leak)) * p.rad + wrong + U * norm(q), 8))


# --- pooling, reshaping, standardisation ------------------------------------------------------------------------------


class AveragePoolRule(Rule):
    """Average pooling."""

    def prepare(self, stage: AveragePool, u: Control, shape: Any) -> float:
        """√(m/n): the norm of means over n entries or more, where m windows hold one pixel."""
        return math.sqrt(overlaps(stage.windows, *shape[1:]) / fewest(stage, *shape[1:])) * UP

    def forward(self, stage: AveragePool, x: Near, u: Control, share: float) -> tuple[Near, None]:
        """The mean over windows of at most n entries: n − 1 additions and a division."""
        w = stage.windows
        n = prod(w.size)
        y = np.zeros((*x.mid.shape[:2], *w.positions(*x.mid.shape[2:])))
        for _, _, there, here in taps(w, *x.mid.shape[2:]):
            y[there] += x.mid[here]
        y /= stage.counted(x.mid)
        return Near(y, upward(share * (x.rad + gamma(n + 1) * norm(x.mid)), 8)), None

    def backward(
        self, stage: AveragePool, x: Near, u: Control, share: float, note: Any, p: Near, costate: bool
    ) -> Found:
        """p over the number of entries, at every one of them; windows that overlap add up."""
        if not costate:
            return (), None
        w = stage.windows
        n = prod(w.size)
        part = p.mid / stage.counted(x.mid)
        q = np.zeros(x.mid.shape)
        for _, _, there, here in taps(w, *x.mid.shape[2:]):
            q[here] += part[there]
        return (), Near(q, upward(share * (p.rad + gamma(n + 1) * norm(p.mid)), 8))


class GlobalAveragePoolRule(Rule):
    """Global average pooling."""

    def forward(self, stage: GlobalAveragePool, x: Near, u: Control, sizes: None) -> tuple[Near, None]:
        """The mean over all n pixels, of norm 1/√n."""
        n = prod(x.mid.shape[2:])
        return Near(sums(x.mid) / n, upward((x.rad + gamma(n + 1) * norm(x.mid)) / math.sqrt(n), 8)), None

    def backward(
        self, stage: GlobalAveragePool, x: Near, u: Control, sizes: None, note: Any, p: Near, costate: bool
    ) -> Found:
        """p/n at every pixel."""
        if not costate:
            return (), None
        n = prod(x.mid.shape[2:])
        q = np.ascontiguousarray(np.broadcast_to((p.mid / n)[:, :, None, None], x.mid.shape))
        return (), Near(q, upward((p.rad + U * norm(p.mid)) / math.sqrt(n), 8))


class MaxPoolRule(Rule):
    """Max pooling."""

    def forward(self, stage: MaxPool, x: Near, u: Control, sizes: None) -> tuple[Near, Array]:
        """The largest entry of each window. |max a − max b| ≤ max|a − b|, and m windows hold a pixel. The note is y."""
        w = stage.windows
        y = np.full((*x.mid.shape[:2], *w.positions(*x.mid.shape[2:])), -np.inf)
        for _, _, there, here in taps(w, *x.mid.shape[2:]):
            y[there] = np.maximum(y[there], x.mid[here])
        m = math.sqrt(overlaps(w, *x.mid.shape[2:])) * UP
        return Near(y, upward(m * x.rad, 4)), y

    def backward(self, stage: MaxPool, x: Near, u: Control, sizes: None, top: Array, p: Near, costate: bool) -> Found:
        """p at the first largest entry; where another may be larger, p may go there, which moves it by √2|p|."""
        if not costate:
            return (), None
        w, shape = stage.windows, x.mid.shape[2:]
        m = overlaps(w, *shape)
        q = np.zeros(x.mid.shape)
        taken, rivals = np.zeros(top.shape, bool), np.zeros(top.shape)
        for _, _, there, here in taps(w, *shape):
            wins = (x.mid[here] == top[there]) & ~taken[there]
            taken[there] |= wins
            q[here] += np.where(wins, p.mid[there], 0.0)
            rivals[there] += x.mid[here] >= top[there] - column(2 * x.rad * UP, top) - 2 * U * np.abs(top[there])
        wrong = math.sqrt(2 * m) * UP * norm(np.where(rivals > 1, p.mid, 0.0)) if (rivals > 1).any() else 0.0
        rounding = gamma(m) * math.sqrt(m) * UP * norm(p.mid) if m > 1 else 0.0
        return (), Near(q, upward(math.sqrt(m) * UP * p.rad + wrong + rounding, 12))


class PixelsRule(Rule):
    """Images standardised by channel. Bytes have no radius, so that only the roundings are left."""

    def forward(self, stage: Pixels, x: Near, u: Control, sizes: None) -> tuple[Near, None]:
        """(x/255 − m)/s, of norm 1/(255 min s): both quotients and the difference round once."""
        mean, std = (per_channel(np.asarray(a), x.mid) for a in (stage.mean, stage.std))
        part = x.mid / 255
        y = (part - mean) / std
        rounding = U * norm(part / std) + 2 * U * norm(y)
        return Near(y, upward(x.rad / (255 * min(stage.std)) + rounding, 12)), None

    def backward(self, stage: Pixels, x: Near, u: Control, sizes: None, note: Any, p: Near, costate: bool) -> Found:
        """p/(255 s): product and quotient round once."""
        if not costate:
            return (), None
        q = p.mid / (255 * per_channel(np.asarray(stage.std), p.mid))
        return (), Near(q, upward(p.rad / (255 * min(stage.std)) + 2 * U * norm(q), 12))


class FlattenRule(Rule):
    """Flatten."""

    def forward(self, stage: Flatten, x: Near, u: Control, sizes: None) -> tuple[Near, None]:
        """All axes of a sample in one."""
        return Near(x.mid.reshape(x.mid.shape[0], -1), x.rad), None

    def backward(self, stage: Flatten, x: Near, u: Control, sizes: None, note: Any, p: Near, costate: bool) -> Found:
        """And back."""
        return (), Near(p.mid.reshape(x.mid.shape), p.rad) if costate else None


class Standard(NamedTuple):
    """y = (x − m)/s and s at the midpoint by group, bounds of their errors (B, groups), and the least s of a sample."""

    y: Array
    s: Array
    y_error: Array
    s_error: Array
    least: Array


def grouped(stage: Standardise, a: Array) -> Array:
    """(B, C, …) → (B, groups, entries)."""
    return a.reshape(a.shape[0], stage.groups, -1)


class StandardiseRule(Rule):
    """Standardisation."""

    def forward(self, stage: Standardise, x: Near, u: Control, sizes: None) -> tuple[Near, Standard]:
        """∂y = P_y/s with 0 ≤ P_y ≤ 1, and |∂s| ≤ 1/√n: so ‖y(x) − y(x̂)‖ ≤ r/min s, the minimum over the enclosure."""
        a = grouped(stage, x.mid)
        n = a.shape[2]
        root = math.sqrt(n)
        c = a - a.mean(axis=2, keepdims=True)
        v = (c * c).mean(axis=2) + stage.delta
        s = np.sqrt(v)
        y = c / s[:, :, None]
        c_error = 2 * gamma(n + 2) * norms(a)
        s_error = upward(c_error / root + c_error**2 / (n * s) + (gamma(n + 4) + U) * s, 12)
        sure = np.maximum(s - s_error, math.sqrt(stage.delta) * (1 - 8 * U))  # s² ≥ δ in any case
        y_error = upward(2 * c_error / sure + c_error**2 / (n * sure**2) * root + root * (gamma(n + 4) + 4 * U), 16)
        low = np.maximum(s - s_error - (x.rad / root)[:, None] * UP, math.sqrt(stage.delta)).min(axis=1) * (1 - 8 * U)
        rad = upward(x.rad / low + norm(y_error), 12)
        return Near(y.reshape(x.mid.shape), rad), Standard(y, s, y_error, s_error, low)

    def backward(
        self, stage: Standardise, x: Near, u: Control, sizes: None, note: Standard, p: Near, costate: bool
    ) -> Found:
        """P_y(p)/s, P_y(a) = a − m(a) − y m(y a). In x it moves by at most 3‖p‖/(√n s²) times the way of x (T24)."""
        if not costate:
            return (), None
        y, s, y_error, s_error, low = note
        a = grouped(stage, p.mid)
        n = a.shape[2]
        root = math.sqrt(n)
        m = (y * a).mean(axis=2, keepdims=True)
        q = (a - a.mean(axis=2, keepdims=True) - y * m) / s[:, :, None]
        size = norms(a)
        sure = np.maximum(s - s_error, math.sqrt(stage.delta) * (1 - 8 * U))
        bent = (2 * y_error / root + y_error**2 / n) * size / sure + size * s_error / (s * sure)
        rounding = upward(bent + 8 * gamma(n + 6) * size / sure, 24)
        moved = 3 * x.rad * (norm(p.mid) + p.rad) / (root * low**2)
        return (), Near(q.reshape(x.mid.shape), upward(p.rad / low + moved + norm(rounding), 16))


# --- sums of states ---------------------------------------------------------------------------------------------------


def weighted(weight: float, x: Near) -> Near:
    """α x; x itself, without rounding, if α = 1."""
    return x if weight == 1 else scale(weight, x)


class WeightedSumRule(Rule):
    """(x_1, …, x_n) ↦ Σ α_j x_j and p ↦ (α_1 p, …, α_n p): a radius is multiplied by |α_j|, each operation rounds."""

    def forward(self, stage: WeightedSum, x: tuple[Near, ...], u: Control, sizes: Any) -> tuple[Near, None]:
        """Σ α_j x_j, added in the order of the states."""
        return reduce(add, map(weighted, stage.weights, x)), None

    def backward(
        self, stage: WeightedSum, x: tuple[Near, ...], u: Control, sizes: Any, note: Any, p: Near, costate: bool
    ) -> tuple[tuple[Ball, ...], tuple[Near, ...] | None]:
        """α_j p for each state that is read."""
        return (), tuple(weighted(alpha, p) for alpha in stage.weights) if costate else None


# By exact type: a subclass may have maps of its own.
RULES: dict[type[Stage], Rule] = {
    Dense: DenseRule(),
    ScaleShift: ScaleShiftRule(),
    Convolution: ConvolutionRule(),
    Tanh: TanhRule(),
    Sigmoid: SigmoidRule(),
    Softplus: SoftplusRule(),
    SiLU: SiLURule(),
    LeakyReLU: LeakyRule(),
    ReLU: LeakyRule(),
    AveragePool: AveragePoolRule(),
    GlobalAveragePool: GlobalAveragePoolRule(),
    MaxPool: MaxPoolRule(),
    Flatten: FlattenRule(),
    Pixels: PixelsRule(),
    Standardise: StandardiseRule(),
    WeightedSum: WeightedSumRule(),
}


def rule(stage: Stage, l: int) -> Rule:
    """The rule of stage l; InputError where there is none."""
    found = RULES.get(type(stage))
    if found is None:
        raise InputError(
            f"nothing can be proven through stage {l}, {stage}: a proof needs an enclosure of its forward map and of "
            f"its costate, an entry RULES[{type(stage).__name__}] in pmp_ref.proofs.stages"
        )
    return found
