"""Certificate of a control u: the smallest augmentation ε*(u) at which u satisfies the maximum principle (T10, T11).

    ε*(u) = max(0, sup_{w≠u} ΔH(w)/‖w − u‖²),   u ∈ argmax K_ε  iff  ε ≥ ε*(u).

It is a maximum of scalar (or group) suprema. Closed forms: sums of L0, L1 and L2 on the line and on a box, and finite
sets; L1/2, L2/3 and groups by bisection on the maximiser. Under pure L0 a kept entry inside the box should have
g_i = 0; its |g_i| is the *residual*, reported beside ε* and never folded in. Everything is computed in float64, by the
problem's sweep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Array, Controls, to_floats, to_numpy
from pmp_ref.controls import cast, map_controls
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem
from pmp_ref.regulariser import GroupL0, LHalf, LTwoThirds, Polynomial, Regulariser
from pmp_ref.sweep import mean_loss

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
    """Certificate of ``controls`` on the data (x, y) at the problem's ρ; gaps are taken at augmentation ``eps``.

    Switching functions come from ``problem.sweep``, in float64 whatever the dtype of the data. Raises InputError for
    ``eps`` ≤ 0 and for controls or data that do not fit.
    """
    if not (math.isfinite(eps) and eps > 0):
        raise InputError(f"eps is {eps}; expected a number > 0")
    problem.check(controls, x, y)
    if y.dtype == x.dtype:  # targets, not labels
        y = cast(((y,),), "float64")[0][0]
    # In float64 a float32 value or bound of the admissible set is another number: put it back.
    controls = map_controls(lambda a, u: a.widened(u), problem.admissible, controls)
    x = cast(((x,),), "float64")[0][0]
    e = problem.sweep.forward_backward(controls, x, y)
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
    loss, penalty = to_floats(mean_loss(e), problem.penalty(controls))
    return Certificate(
        eps=eps, rho=problem.rho, J=loss + problem.rho * penalty, loss=loss,
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
    gap, _ = _gaps_and_terms(u, g, r, rho, admissible, eps)
    return np.maximum(gap, 0.0)  # w may lose to u by rounding


def _gaps_and_terms(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """K_ε(w; u) − K_ε(u; u) at the maximiser w, and the sum of the moduli of its terms."""
    w = to_numpy(r.argmax(u, g, eps, rho, admissible))
    u, g = to_numpy(u), to_numpy(g)
    linear, square = g * (w - u), eps * (w - u) ** 2
    if isinstance(r, GroupL0):
        groups = lambda a: np.atleast_1d(np.squeeze(r.norms(a)))  # noqa: E731
        linear, square, size = groups(linear), groups(square), groups(np.abs(linear))
        before, after = (rho * r.omega * (groups(a != 0) > 0) for a in (u, w))
    else:
        size = np.abs(linear)
        before, after = (rho * to_numpy(r.pointwise(a)) for a in (u, w))
    return linear - square - (after - before), size + square + after + before


def eps_star(u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible) -> float:
    """ε* of one control (T11). Unpenalised entries count with the residual only, on finite sets like all others."""
    if isinstance(admissible, FiniteSet):
        return max(_rise(to_numpy(u), to_numpy(g), r, rho, v) for v in admissible.values)
    assert isinstance(admissible, Box)
    if rho == 0:
        return 0.0
    if isinstance(r, Polynomial):
        return _polynomial(to_numpy(u), to_numpy(g), r, rho, admissible)
    return by_bisection(u, g, r, rho, admissible)


def _polynomial(u: np.ndarray, g: np.ndarray, r: Polynomial, rho: float, box: Box) -> float:
    """ε* for sums of L0, L1 and L2. ΔH(w)/(w − u)² is largest at 0, at a bound, next to u, or inside a side of 0.

    Next to a bound it is infinite if H falls towards it. At u = 0, with β = |g| − ρa₁ > 0, it is β²/(4ρa₀) − ρa₂/2 at
    |w| = 2ρa₀/β if that is in the box, and infinite without L0. Pure L0 on the line: ρ/u_i² and g_i²/(4ρ).
    """
    if _falls_towards_bound(u, g, r, rho, box):
        return math.inf
    g = g - stationarity_residual(u, g, r, rho, box)
    if box.lo > 0 or box.hi < 0:
        return 0.0  # one side of 0 only: convex
    beta, room = np.abs(g) - rho * r.a1, np.where(g > 0, box.hi, -box.lo)  # room: |b|, the bound on the side of g
    gains = (u == 0) & (beta > 0) & (room > 0)
    if r.a0 == 0:
        return math.inf if gains.any() else 0.0
    best = max(_rise(u, g, r, rho, v) for v in (0.0, box.lo, box.hi) if math.isfinite(v))
    reached = beta[gains & (2 * rho * r.a0 <= np.where(gains, beta, 0.0) * np.where(gains, room, 0.0))]
    return max(best, float(np.max(reached**2 / (4 * rho * r.a0) - rho * r.a2 / 2, initial=0.0)))


def _rise(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, v: float) -> float:
    """max(0, largest of [g_i(v − u_i) − ρ(r(v) − r(u_i))]/(v − u_i)² over the entries u_i ≠ v)."""
    d = v - u
    change = np.asarray(r.pointwise(np.full_like(u, v))) - np.asarray(r.pointwise(u)) if rho > 0 else 0.0
    ratio = np.where(d == 0, -np.inf, (g * d - rho * change) / np.where(d == 0, 1.0, d) ** 2)
    return float(np.max(ratio, initial=0.0))


def _falls_towards_bound(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, box: Box) -> bool:
    """True if a nonzero entry sits at a bound although H rises from there into the box: then ε* = ∞."""
    rise = g - rho * _slope(r, u)
    return bool(np.any((u != 0) & ((u >= box.hi) & (rise < 0) | (u <= box.lo) & (rise > 0))))


def by_bisection(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, limit: float = 1e18, tolerance: float = 1e-9
) -> float:
    """ε* as the point where the largest augmented gap reaches 0; infinite where it stays positive up to ``limit``.

    The part of a kept entry's gap that comes from its residual is g²/(4ε); it is removed by asking for the gap of the
    control with that residual set to 0, as T11 does under pure L0.
    """
    u, g = to_numpy(u).astype(float), to_numpy(g).astype(float)
    if isinstance(admissible, Box) and _falls_towards_bound(u, g, r, rho, admissible):
        return math.inf
    g = g - stationarity_residual(u, g, r, rho, admissible)

    def satisfied(eps: float) -> bool:
        gap, terms = _gaps_and_terms(u, g, r, rho, admissible, eps)
        return bool(np.all(gap <= 64 * np.finfo(float).eps * terms))  # 64: roundings of a few terms of that size

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
    smooth = rho == 0 or (isinstance(r, Polynomial) and r.a0 == r.a1 == 0)
    on = (u != 0) | smooth
    if isinstance(r, GroupL0):
        on = on | np.broadcast_to(np.asarray(r.norms(u != 0)) > 0, u.shape)
    slope = rho * _slope(r, u) if rho > 0 else np.zeros_like(u)
    residual, low, high = np.where(on, g - slope, 0.0), u <= admissible.lo, u >= admissible.hi
    counts = ~(low | high) if rho > 0 else ~(low & (residual < 0) | high & (residual > 0))
    return np.where(counts, residual, 0.0)


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
    tiny = 1e-60  # ε → 0 without 0/0 in the maximisers, and without overflow of (ρ/ε)^{3/2}
    gaps: Any = augmented_gaps(u, g, r, rho, admissible, tiny)
    return float(np.sum(gaps))


def _coercive(r: Regulariser, rho: float) -> bool:
    return isinstance(r, Polynomial) and rho * r.a2 > 0
