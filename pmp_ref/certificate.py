"""Certificate of a control u: the smallest augmentation ε*(u) at which u satisfies the maximum principle (T10, T11).

    ε*(u) = max(0, sup_{w≠u} ΔH(w)/‖w − u‖²),   u ∈ argmax K_ε  iff  ε ≥ ε*(u).

It is a maximum of scalar (or group) suprema. Closed forms: pure L0 on the line and on a box, finite sets; other
regularisers by bisection on the maximiser. Under pure L0 a kept entry inside the box should have g_i = 0; its |g_i| is
the *residual*, reported beside ε* and never folded in. Everything is computed in float64, on the clear path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Array, Controls, to_numpy
from pmp_ref.controls import cast
from pmp_ref.problem import Problem
from pmp_ref.regulariser import GroupL0, LHalf, LTwoThirds, Polynomial, Regulariser
from pmp_ref.sweep import Sweep, mean_loss

DECADES = tuple(range(1, 11))  # columns of the gap table: fraction of entries with gap ≤ 10⁻ˡ


@dataclass(frozen=True)
class ControlCertificate:
    """Certificate of one control array (stage ``stage``, ``name`` kernel or bias).

    ``eps_star`` ε* of this control; ``residual`` the norm of :func:`stationarity_residual`, under pure L0 of g over
    the nonzero or unpenalised entries; ``augmented_gap``
    max_w K_ε(w; u) − K_ε(u; u) at the certificate's ε; ``plain_gap`` max_w H(w) − H(u), infinite where an entry on
    an unbounded set has g_i ≠ 0; ``largest_gap`` the largest augmented gap of an entry (group) and ``gap_fractions``
    the fractions of entries with gap ≤ 10⁻¹ … 10⁻¹⁰; ``nonzeros`` of ``size``; ``dead`` filters or neurons, that is
    rows without a nonzero entry, of ``rows`` (kernels only).
    """

    stage: int
    name: str
    penalised: bool
    size: int
    nonzeros: int
    eps_star: float
    residual: float
    augmented_gap: float
    plain_gap: float
    largest_gap: float
    gap_fractions: tuple[float, ...]
    rows: int
    dead: int

    @property
    def emptied(self) -> bool:
        """True if a kernel has no nonzero entry left: the network is disconnected there."""
        return self.name == "kernel" and self.nonzeros == 0


@dataclass(frozen=True)
class Certificate:
    """ε*(u), residuals and gaps at ``eps``; ``J`` and ``loss`` on the certificate's data; one row per control."""

    eps: float
    rho: float
    J: float
    loss: float
    eps_star: float
    residual_support: float
    residual_unpenalised: float
    augmented_gap: float
    plain_gap: float
    controls: tuple[ControlCertificate, ...]

    @property
    def emptied_layers(self) -> tuple[int, ...]:
        """Stages whose kernel has no nonzero entry."""
        return tuple(c.stage for c in self.controls if c.emptied)


def certify(problem: Problem, controls: Controls, x: Array, y: Array, eps: float) -> Certificate:
    """Certificate of ``controls`` on the data (x, y) at the problem's ρ; gaps are taken at augmentation ``eps``."""
    problem.check(controls, x, y)
    x, controls = cast(((x,),), "float64")[0][0], cast(controls, "float64")
    if problem.loss.__class__.__name__ == "Squared":
        y = cast(((y,),), "float64")[0][0]
    sweep = Sweep(problem.network, problem.loss)
    e = sweep.backward(controls, sweep.forward(controls, x, y))
    assert e.switching is not None
    rows = []
    for l, names in enumerate(problem.network.names()):
        for i, name in enumerate(names):
            rows.append(
                certify_control(
                    l, name, controls[l][i], e.switching[l][i], problem.regulariser[l][i],
                    problem.rho * problem.weights[l][i], problem.admissible[l][i], eps,
                )
            )  # fmt: skip
    loss = float(mean_loss(e))
    return Certificate(
        eps=eps, rho=problem.rho, J=loss + problem.rho * float(problem.penalty(controls)), loss=loss,
        eps_star=max(c.eps_star for c in rows),
        residual_support=math.sqrt(sum(c.residual**2 for c in rows if c.penalised)),
        residual_unpenalised=math.sqrt(sum(c.residual**2 for c in rows if not c.penalised)),
        augmented_gap=sum(c.augmented_gap for c in rows), plain_gap=sum(c.plain_gap for c in rows),
        controls=tuple(rows),
    )  # fmt: skip


def certify_control(
    stage: int, name: str, u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float
) -> ControlCertificate:
    """Certificate of one control from its switching function; ``rho`` is ρ times the control's weight."""
    gap = augmented_gaps(u, g, r, rho, admissible, eps)
    hu, hg = to_numpy(u), to_numpy(g)
    residual = stationarity_residual(hu, hg, r, rho, admissible)
    nonzero_rows = np.any(hu != 0, axis=tuple(range(1, hu.ndim))) if name == "kernel" else np.ones(1, bool)
    return ControlCertificate(
        stage=stage, name=name, penalised=rho > 0, size=hu.size, nonzeros=int(np.count_nonzero(hu)),
        eps_star=eps_star(u, g, r, rho, admissible),
        residual=float(np.linalg.norm(residual)),
        augmented_gap=float(gap.sum()), plain_gap=plain_gap(hu, hg, r, rho, admissible),
        largest_gap=float(gap.max()), gap_fractions=tuple(float(np.mean(gap <= 10.0**-k)) for k in DECADES),
        rows=nonzero_rows.size if name == "kernel" else 0, dead=int(np.count_nonzero(~nonzero_rows)),
    )  # fmt: skip


def augmented_gaps(u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float) -> np.ndarray:
    """max_w K_ε(w; u) − K_ε(u; u) ≥ 0 entry by entry (group by group under GroupL0), on the host."""
    w = to_numpy(r.argmax(u, g, eps, rho, admissible))
    u, g = to_numpy(u), to_numpy(g)
    smooth = g * (w - u) - eps * (w - u) ** 2
    if isinstance(r, GroupL0):
        smooth = np.atleast_1d(np.squeeze(r.norms(smooth)))
        alive = lambda a: np.atleast_1d(np.squeeze(r.norms(a != 0))) > 0  # noqa: E731
        return smooth - rho * r.omega * (alive(w).astype(float) - alive(u).astype(float))
    return smooth - rho * (to_numpy(r.pointwise(w)) - to_numpy(r.pointwise(u)))


def eps_star(u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible) -> float:
    """ε* of one control (T11). Unpenalised entries count with the residual only, on finite sets like all others."""
    if isinstance(admissible, FiniteSet):
        return _finite_set(to_numpy(u), to_numpy(g), r, rho, admissible)
    assert isinstance(admissible, Box)
    if rho == 0:
        return 0.0
    if isinstance(r, Polynomial) and r.a0 > 0 and r.a1 == r.a2 == 0 and admissible.lo <= 0 <= admissible.hi:
        return _pure_l0(to_numpy(u), to_numpy(g), rho * r.a0, admissible)
    return by_bisection(u, g, r, rho, admissible)


def _pure_l0(u: np.ndarray, g: np.ndarray, rho: float, box: Box) -> float:
    """max over kept entries of ρ/u_i² and over zero entries of g_i²/(4ρ), with the box's corrections at its ends."""
    u, g = u.ravel(), g.ravel()
    inside = (u != 0) & (u > box.lo) & (u < box.hi)
    at_bound = (u != 0) & ~inside
    parts = [0.0]
    if inside.any():
        parts.append(float(np.max(rho / u[inside] ** 2)))
    if at_bound.any():
        gu = (g * u)[at_bound]
        ratio = np.where(gu < 0, np.inf, np.maximum(0.0, (rho - gu) / u[at_bound] ** 2))
        parts.append(float(np.max(ratio)))
    zero = u == 0
    if zero.any():
        a = np.abs(g[zero])
        bound = np.where(g[zero] > 0, box.hi, -box.lo)  # |b|, the bound on the side of g
        with np.errstate(invalid="ignore", divide="ignore"):
            reach = np.where(a == 0, 0.0, a * bound)
            near = np.where(bound > 0, np.maximum(0.0, (reach - rho) / bound**2), 0.0)
        parts.append(float(np.max(np.where(reach >= 2 * rho, a**2 / (4 * rho), near))))
    return max(parts)


def _finite_set(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, admissible: FiniteSet) -> float:
    """Maximum over entries and values v ≠ u_i of [g_i(v − u_i) − ρ(r(v) − r(u_i))]/(v − u_i)²."""
    here = np.asarray(r.pointwise(u)) if rho > 0 else 0.0
    best = 0.0
    for v in admissible.values:
        there = np.asarray(r.pointwise(np.full_like(u, v))) if rho > 0 else 0.0
        d = v - u
        rise = g * d - rho * (there - here)
        ratio = np.where(d == 0, -np.inf, rise / np.where(d == 0, 1.0, d) ** 2)
        best = max(best, float(np.max(ratio, initial=0.0)))
    return best


def by_bisection(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, limit: float = 1e18, tolerance: float = 1e-9
) -> float:
    """ε* as the point where the largest augmented gap reaches 0; infinite where it stays positive up to ``limit``.

    The part of a kept entry's gap that comes from its residual is g²/(4ε); it is removed by asking for the gap of the
    control with that residual set to 0, as T11 does under pure L0.
    """
    u, g = to_numpy(u).astype(float), to_numpy(g).astype(float)
    g = g - stationarity_residual(u, g, r, rho, admissible)
    scale = 1.0 + float(np.max(np.abs(g), initial=0.0)) * float(np.max(np.abs(u), initial=0.0)) + rho

    def satisfied(eps: float) -> bool:
        gap = augmented_gaps(u, g, r, rho, admissible, eps)
        return bool(np.all(gap <= 64 * np.finfo(float).eps * scale))  # 64: roundings of the five terms of a gap

    if not satisfied(limit):
        return math.inf
    lo, hi = limit**-1, limit
    if satisfied(lo):
        return 0.0
    while hi > lo * (1 + tolerance):
        middle = math.sqrt(lo) * math.sqrt(hi)
        lo, hi = (lo, middle) if satisfied(middle) else (middle, hi)
    return hi


def stationarity_residual(
    u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, admissible: Admissible
) -> np.ndarray:
    """g_i − ρ r′(u_i) at the entries where a local maximum of H needs it to be 0; 0 elsewhere.

    These are the nonzero entries, and every entry without penalty, strictly inside the box; at a bound of an
    unpenalised entry only the part pointing inwards counts. Under pure L0 it is g_i. On a finite set there is none.
    """
    if isinstance(admissible, FiniteSet):
        return np.zeros_like(g)
    assert isinstance(admissible, Box)
    on = (u != 0) | (rho == 0)
    if isinstance(r, GroupL0):
        on = on | np.broadcast_to(np.asarray(r.norms(u != 0)) > 0, u.shape)
    slope = rho * _slope(r, u) if rho > 0 else np.zeros_like(u)
    inside = np.where(on, g - slope, 0.0)
    inside = np.where((u >= admissible.hi) & (inside > 0), 0.0, inside)
    return np.where((u <= admissible.lo) & (inside < 0), 0.0, inside)


def _slope(r: Regulariser, u: np.ndarray) -> np.ndarray:
    """r′(u_i) at nonzero entries."""
    if isinstance(r, Polynomial):
        return r.a1 * np.sign(u) + r.a2 * u
    if isinstance(r, LHalf | LTwoThirds):
        return r.q * np.sign(u) * np.abs(np.where(u == 0, 1.0, u)) ** (r.q - 1)
    return np.zeros_like(u)


def plain_gap(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, admissible: Admissible) -> float:
    """Σ_i max_w H(w) − H(u) at ε = 0 (T10): infinite where H is unbounded on U. On bounded sets a limit ε → 0."""
    if isinstance(admissible, Box) and not admissible.bounded and not _coercive(r, rho):
        free = (g > 0) & np.isinf(admissible.hi) | (g < 0) & np.isinf(admissible.lo)
        slope = rho * r.a1 if isinstance(r, Polynomial) else 0.0
        if bool(np.any(free & (np.abs(g) > slope))):
            return math.inf
    tiny = 1e-300  # ε → 0 without 0/0 in the maximisers
    gaps: Any = augmented_gaps(u, g, r, rho, admissible, tiny)
    return float(np.sum(gaps))


def _coercive(r: Regulariser, rho: float) -> bool:
    return isinstance(r, Polynomial) and rho * r.a2 > 0
