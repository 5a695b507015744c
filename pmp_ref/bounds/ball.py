"""Curvature bound on a ball around u, a priori, and the certified ε (T7a).

For ‖w − u‖ ≤ r: C̄(r) ≥ ½λ_max(D²L_B(w))₊, and C̄*(r) ≥ Ĉ of the step to w. Everything at u is computed exactly, per
sample: Jacobians by applying the tangents to unit vectors, so this is for small networks. How far Jacobians, states
and costates move on the ball follows by variation of constants with the exact propagators. Derivation in
docs/theory/proofs.md, T7a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.bounds.coarse import ROUNDING
from pmp_ref.bounds.constants import activation_constants, bilinear_norm
from pmp_ref.bounds.taylor import coefficients, suprema
from pmp_ref.controls import from_vector, map_controls, to_vector
from pmp_ref.errors import InputError
from pmp_ref.layers import Activation, AffineStage, AveragePool, Flatten, GlobalAveragePool, SiLU
from pmp_ref.loss import CrossEntropy, softmax
from pmp_ref.maximise import maximise
from pmp_ref.problem import Problem

PARTS = 4  # of the segment in BallBound.along: of a C̄ linear in r 0.47 is left, 1/3 in the limit of many parts
LARGEST_GRAM = 32  # entries of a state up to which eigenvalues of Gram matrices are worth their time


@dataclass(frozen=True)
class Layer:
    """One stage at u, arrays over samples B: ∂_xΛ (B, n⁺, n), κ, χ, S (B,); k; the state entering and q_{l+1}."""

    stage: Any
    matrix: np.ndarray
    kappa: np.ndarray
    chi: np.ndarray
    k: float
    z: np.ndarray
    q: np.ndarray

    @property
    def affine(self) -> bool:
        """True for a stage with controls."""
        return isinstance(self.stage, AffineStage)


@dataclass(frozen=True)
class BallBound:
    """All that C̄(r) needs of the control u. ``a[l]`` = ‖∂x_l/∂u‖₂, ``rows[l]`` its row norms, ``gram[l]``
    the Gram matrix of its rows, ``gamma[l][j]`` = ‖∂x_l/∂x_j‖₂, each (B, …); ``hessian``
    D²L_B(u) as a matrix, ``curvature`` = λ_max(D²L_B(u))₊ from it."""

    layers: tuple[Layer, ...]
    a: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    gram: tuple[np.ndarray, ...]
    gamma: tuple[tuple[np.ndarray, ...], ...]
    hessian: np.ndarray
    curvature: float

    def __call__(self, r: float) -> float:
        """C̄(r) = ½ min(mean_s G_s(r), λ_max(D²L_B(u))₊ + mean_s Δ_s(r))."""
        G, change = self.growth(r)
        return 0.5 * min(float(np.mean(G)), self.curvature + float(np.mean(change))) * ROUNDING

    def along(self, r: float) -> float:
        """C̄*(r) ≥ Ĉ of every step of length r, C̄*(r) ≤ C̄(r): 2∫₀¹(1 − t) C̄(tr) dt from above.

        By T5 Ĉ is that integral with ½D²L_B at u + t(w − u), which lies in the ball of radius tr. C̄ does not decrease,
        so on each of ``PARTS`` equal parts the value at its right end counts.
        """
        weights = [(2 * (PARTS - m) + 1) / PARTS**2 for m in range(1, PARTS + 1)]  # 2∫(1 − t) dt over part m
        return sum(weight * self(m / PARTS * r) for m, weight in enumerate(weights, 1)) * ROUNDING

    def growth(self, r: float) -> tuple[np.ndarray, np.ndarray]:
        """(G_s(r), Δ_s(r)): bounds of λ_max on the ball and of ‖D²(w) − D²(u)‖, sample by sample."""
        delta, e, E, D, gap = self._forward(r)
        f = self._backward(r, e, D, gap)
        top, change = np.zeros_like(e[0]), np.zeros_like(e[0])
        for l, layer in enumerate(self.layers):
            a, d, A = self.a[l], delta[l], self.a[l] + delta[l]
            if layer.affine:
                top = _affine_step(top, 2 * (layer.chi + layer.k * f[l + 1]) * A)
                change = _affine_step(change, 2 * (layer.k * f[l + 1] * A + layer.chi * d))
            elif isinstance(layer.stage, Activation):
                _, s2, s3 = activation_constants(layer.stage)
                here, q = np.abs(layer.stage.curvature(layer.z)), np.abs(layer.q)
                turn = np.minimum(s3, third(layer.stage, layer.z, E[l])) * E[l]
                there = np.minimum(s2, here + turn)
                top = top + self.weighted(l, (q + f[l + 1][:, None]) * there, d)
                moved = f[l + 1][:, None] * there + q * np.minimum(turn, 2 * s2)
                change = change + self.weighted(l, moved, d) + np.max(q * here, axis=1) * (2 * a * d + d**2)
        a, d = self.a[-1], delta[-1]
        top = top + 0.5 * (a + d) ** 2
        change = change + 0.5 * (2 * a * d + d**2) + np.minimum(0.5, e[-1] / math.sqrt(2)) * a**2
        return top, change

    def weighted(self, l: int, weight: np.ndarray, d: np.ndarray) -> np.ndarray:
        """sup Σ_i weight_i ⟨row i of J, v⟩² over ‖v‖ ≤ 1 and ‖J − ∂x_l/∂u‖ ≤ d; weights ≥ 0."""
        return (self.scaled(l, np.sqrt(weight)) + np.sqrt(np.max(weight, axis=1)) * d) ** 2

    def scaled(self, l: int, factor: np.ndarray) -> np.ndarray:
        """‖diag(factor) ∂x_l/∂u‖₂ from the Gram matrix; its bound max|factor|·a_l for states of many entries."""
        most = np.max(factor, axis=1) * self.a[l]
        if factor.shape[1] > LARGEST_GRAM:
            return most
        square = np.linalg.eigvalsh(factor[:, :, None] * self.gram[l] * factor[:, None, :])[:, -1]
        slack = 1e-12 * most**2  # what the eigenvalue rounds to, and more
        return np.minimum(most, np.sqrt(np.maximum(square, 0.0) + slack))

    def _forward(self, r: float) -> Any:
        """δ_l, e_l, E_l (l = 0 … L), D_l, and sup|σ′ − σ′(z)| of the activations."""
        zero = np.zeros(self.a[0].shape)
        delta, e, E = [zero], [zero], [np.zeros_like(self.rows[0])]
        sources: list[np.ndarray] = []
        D: list[np.ndarray] = []
        gaps: list[Any] = []
        for l, layer in enumerate(self.layers):
            gap = None
            if layer.affine:
                D.append(np.full_like(zero, layer.k * r))
                source = layer.k * (r * self.a[l] + e[l])
            elif isinstance(layer.stage, Activation):
                gap = slope_change(layer.stage, layer.z, E[l])
                D.append(np.max(gap, axis=1))
                source = self.scaled(l, gap)
            else:
                D.append(zero)
                source = zero
            gaps.append(gap)
            sources.append(source + D[l] * delta[l])
            d = sum(self.gamma[l + 1][j + 1] * sources[j] for j in range(l + 1))
            reach, each = (self.a[l + 1] + d) * r, (self.rows[l + 1] + d[:, None]) * r
            if isinstance(layer.stage, Activation):
                moved = value_change(layer.stage, layer.z, E[l])
                each = np.minimum(each, moved)
                reach = np.minimum(reach, np.linalg.norm(moved, axis=1))
            elif layer.affine:
                spectral = np.linalg.norm(layer.matrix, 2, axis=(1, 2))
                reach = np.minimum(reach, (spectral + layer.k * r) * e[l] + layer.kappa * r)
            delta.append(d)
            e.append(reach)
            E.append(np.minimum(each, reach[:, None]))
        return delta, e, E, D, gaps

    def _backward(self, r: float, e: list[np.ndarray], D: list[np.ndarray], gaps: list[Any]) -> list[np.ndarray]:
        """f_l ≥ ‖q_l(w) − q_l(u)‖, l = 0 … L."""
        last = len(self.layers)
        f = [np.zeros_like(e[0]) for _ in range(last)] + [0.5 * e[last]]
        sources: dict[int, np.ndarray] = {}
        for l in range(last - 1, -1, -1):
            layer = self.layers[l]
            source = np.zeros_like(e[0])
            if layer.affine:
                source = layer.chi * r
            elif gaps[l] is not None:
                source = np.linalg.norm(gaps[l] * np.abs(layer.q), axis=1)
            sources[l] = source + D[l] * f[l + 1]
            f[l] = self.gamma[last][l] * f[last] + sum(self.gamma[j][l] * sources[j] for j in range(l, last))
        return f


def ball_bound(problem: Problem, u: Controls, x: Array, y: Array) -> BallBound:
    """The bound C̄(·) around u on the batch (x, y). NumPy, float64; memory grows with (entries of a state)².

    Chains of dense, convolution, scale-and-shift, smooth activations, average pooling and flatten under
    cross-entropy; InputError for others.
    """
    if not isinstance(problem.loss, CrossEntropy):
        raise InputError(f"no ball bound for the loss {problem.loss}; expected cross-entropy")
    x, y, u = to_numpy(x).astype(np.float64), to_numpy(y), map_controls(lambda a: to_numpy(a).astype(np.float64), u)
    network, samples = problem.network, x.shape[0]
    states = network.forward_sweep(u, x)
    costates, _ = network.backward_sweep(u, states, problem.loss.gradient(states[-1], y))
    layers: list[Layer] = []
    first = network.controlled.index(True) - 1  # the states up to x_first are data
    jacobian = np.zeros((samples, math.prod(network.shapes[first]), 0))
    jacobians, turns = [jacobian], []
    for l, stage in enumerate(network.stages[first:], first):
        if not isinstance(stage, AffineStage | Activation | AveragePool | GlobalAveragePool | Flatten):
            raise InputError(f"no ball bound for {stage}; expected a chain of smooth stages without standardisation")
        if isinstance(stage, Activation):
            suprema(stage)  # refuses an activation that is not smooth
        matrix = state_jacobian(stage, states[l], u[l])
        q = costates[l + 1].reshape(samples, -1)
        kappa = chi = np.zeros(samples)
        turn, k = None, 0.0
        jacobian = matrix @ jacobian
        if isinstance(stage, AffineStage):
            own = control_jacobian(stage, states[l], u[l])
            jacobian = np.concatenate([jacobian, own], axis=2)
            kappa = np.linalg.norm(own, 2, axis=(1, 2))
            turn = costate_map(stage, states[l], u[l], costates[l + 1])
            chi = np.linalg.norm(turn, 2, axis=(1, 2))
            k = bilinear_norm(stage, network.shapes[l])
        layers.append(Layer(stage, matrix, kappa, chi, k, states[l].reshape(samples, -1), q))
        jacobians.append(jacobian)
        turns.append(turn)
    a = tuple(_norm(j) for j in jacobians)
    rows = tuple(np.linalg.norm(j, axis=2) for j in jacobians)
    gram = tuple(j @ np.swapaxes(j, 1, 2) if j.shape[1] <= LARGEST_GRAM else j[:, :0, :0] for j in jacobians)
    matrix = full_hessian(layers, jacobians, turns, softmax(states[-1]))
    curvature = max(0.0, float(np.linalg.eigvalsh(matrix)[-1]))
    return BallBound(tuple(layers), a, rows, gram, _propagators(layers, samples), matrix, curvature)


def full_hessian(layers: list[Layer], jacobians: list[np.ndarray], turns: list[Any], pi: np.ndarray) -> np.ndarray:
    """D²L_B(u) = mean_s [J_LᵀΦ″J_L + Σ_act J_lᵀ diag(q_{l+1}∘σ″)J_l + Σ_aff (J_lᵀT_l + (J_lᵀT_l)ᵀ)].

    J_l = ∂x_l/∂u, T_l the matrix of V ↦ V*q_{l+1} on the kernel's columns, Φ″ = diag(π) − ππᵀ.
    """
    samples, n = pi.shape[0], jacobians[-1].shape[2]
    final = jacobians[-1]
    mixed = np.einsum("sk,skp->sp", pi, final)
    total = np.einsum("skp,sk,skq->pq", final, pi, final, optimize=True) - mixed.T @ mixed
    for layer, jacobian, turn in zip(layers, jacobians, turns, strict=False):
        if turn is not None:
            block = np.einsum("sip,sik->pk", jacobian, turn, optimize=True)
            start = jacobian.shape[2]  # the stage's own control follows those before it, kernel first
            rows, columns = slice(0, start), slice(start, start + turn.shape[2])
            total[rows, columns] += block
            total[columns, rows] += block.T
        elif isinstance(layer.stage, Activation) and jacobian.shape[2]:
            weight = layer.q * layer.stage.curvature(layer.z)
            p = jacobian.shape[2]
            total[:p, :p] += np.einsum("sip,si,siq->pq", jacobian, weight, jacobian, optimize=True)
    assert total.shape == (n, n)
    return total / samples


def _propagators(layers: list[Layer], samples: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """‖∂x_l/∂x_j‖₂ for j ≤ l, per sample."""
    result = []
    products: list[np.ndarray] = []
    for l in range(len(layers) + 1):
        if l > 0:
            products = [layers[l - 1].matrix @ p for p in products]
        n = layers[l].matrix.shape[2] if l < len(layers) else layers[-1].matrix.shape[1]
        result.append(tuple(_norm(p) for p in products) + (np.ones(samples),))
        products.append(np.broadcast_to(np.eye(n), (samples, n, n)))
    return tuple(result)


def certified_eps(
    problem: Problem, bound: BallBound, u: Controls, g: Controls, eta: float, tolerance: float = 1e-3
) -> float:
    """The smallest ε with ε ≥ C̄*(‖w_ε − u‖) + η up to the relative ``tolerance``, from above: its trial must pass (T6).

    By bisection: w_ε has a closed form, and ‖w_ε − u‖ falls as ε rises (T18). ``g`` are the switching functions at u.
    Raises InputError unless η > 0, and where the bound is not finite.
    """
    if not eta > 0:
        raise InputError(f"eta is {eta}; expected a number > 0: without it no ε need be the smallest")
    at = to_vector(u)

    def passes(eps: float) -> bool:
        w = to_vector(maximise(problem, u, g, eps, problem.rho))
        return eps >= bound.along(float(np.linalg.norm(w - at)) * ROUNDING) + eta

    low, high = 0.5 * bound.curvature * (1 - tolerance), max(bound.curvature, eta)
    while not passes(high):
        low, high = high, 2 * high
        if not math.isfinite(high):
            raise InputError("no ε passes: the bound is not finite; scale the data or the controls")
    low = max(low, 1e-12 * high)
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def slope_change(stage: Activation, z: np.ndarray, E: np.ndarray) -> np.ndarray:
    """A bound of sup_{|t−z| ≤ E} |σ′(t) − σ′(z)|: second-order Taylor, at most s₂E, at most the range of σ′."""
    s1, s2, s3 = activation_constants(stage)
    taylor = np.abs(stage.curvature(z)) * E + 0.5 * s3 * E**2
    slope = stage.slope(z)
    spread = s1 + np.abs(slope) if isinstance(stage, SiLU) else np.maximum(slope, s1 - slope)  # else 0 ≤ σ′ ≤ s₁
    return np.minimum(np.minimum(taylor, s2 * E), spread)


def third(stage: Activation, z: np.ndarray, E: np.ndarray) -> np.ndarray:
    """A bound of sup_{|t−z| ≤ E} |σ‴(t)|: |σ‴(z)| + s₄E."""
    values, errors = coefficients(stage, z, 3)
    return 6 * (np.abs(values[3]) + errors[3][:, None]) + 24 * suprema(stage)[4] * E


def value_change(stage: Activation, z: np.ndarray, E: np.ndarray) -> np.ndarray:
    """sup_{|t−z| ≤ E} |σ(t) − σ(z)|: at an end where σ is monotone, else at most s₁E."""
    if isinstance(stage, SiLU):
        return activation_constants(stage)[0] * E
    at = stage.sigma(z)
    return np.maximum(stage.sigma(z + E) - at, at - stage.sigma(z - E)) * ROUNDING


def state_jacobian(stage: Any, x: np.ndarray, u: Any) -> np.ndarray:
    """∂_xΛ of each sample, (B, n⁺, n)."""
    nothing = tuple(np.zeros_like(a) for a in u)
    columns = []
    for unit in np.eye(math.prod(x.shape[1:])):
        dx = np.broadcast_to(unit.reshape(x.shape[1:]), x.shape)
        columns.append(stage.tangent(x, u, dx, nothing).reshape(x.shape[0], -1))
    return np.stack(columns, axis=2)


def control_jacobian(stage: AffineStage, x: np.ndarray, u: Any) -> np.ndarray:
    """∂_uΛ of each sample, (B, n⁺, entries of the control)."""
    still = np.zeros_like(x)
    units = np.eye(sum(a.size for a in u))
    columns = [stage.tangent(x, u, still, v).reshape(x.shape[0], -1) for v in (from_vector(i, (u,))[0] for i in units)]
    return np.stack(columns, axis=2)


def costate_map(stage: AffineStage, x: np.ndarray, u: Any, q: np.ndarray) -> np.ndarray:
    """V ↦ V*q of each sample, (B, n, entries of the kernel)."""
    columns = []
    for unit in np.eye(u[0].size):
        columns.append(stage.adjoint_state(x.shape, unit.reshape(u[0].shape), q).reshape(x.shape[0], -1))
    return np.stack(columns, axis=2)


def _affine_step(V: np.ndarray, c: np.ndarray) -> np.ndarray:
    """V ← (V + √(V² + c²))/2, the largest eigenvalue of [[V, c/2], [c/2, 0]]."""
    return 0.5 * (V + np.sqrt(V**2 + c**2))


def _norm(matrices: np.ndarray) -> np.ndarray:
    """Spectral norms, (B,); 0 for empty matrices."""
    if 0 in matrices.shape[1:]:
        return np.zeros(matrices.shape[0])
    return np.linalg.norm(matrices, 2, axis=(1, 2))
