"""Certificate of a control u: the smallest augmentation ε*(u) at which u satisfies the maximum principle (T10, T11).

A run that has stopped has proven nothing of the place where it did. The certificate does not ask how u was found, by
this method or another; it asks how dear moving must be for u to be the best choice of every entry:

    ε*(u) = max(0, sup_{w≠u} ΔH(w)/‖w − u‖²),   u ∈ argmax K_ε  iff  ε ≥ ε*(u).

The scale for it is the curvature of the loss. Where ε*(u) exceeds half the largest curvature in a single entry, some
weight is certainly not at its best value (T11).

It is a maximum of scalar (or group) suprema. Finite sets have a closed form, and so does a regulariser that states one
(``Regulariser.eps_star``: sums of L0, L1 and L2); all others are bisected on their maximiser. Under pure L0 a kept
entry inside the box should have g_i = 0; its |g_i| is the *residual*, reported beside ε* and never folded in: taken to
the letter it would make ε* infinite for every network that floating point has trained. Entries within rounding of a
bound are at the bound. Everything is computed in float64, by the problem's sweep.

Nothing here asks which class a regulariser is. What it does not state is refused with an InputError that names it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Array, Controls, is_floating, namespace, to_floats, to_numpy, unit_roundoff
from pmp_ref.controls import cast, map_controls
from pmp_ref.errors import InputError
from pmp_ref.problem import Problem
from pmp_ref.regulariser import Regulariser

DECADES = tuple(range(1, 11))  # columns of the gap table: fraction of entries with gap ≤ 10⁻ˡ


@dataclass(frozen=True, repr=False)
class ControlCertificate:
    """Certificate of one control array (stage ``stage``, ``name`` kernel or bias).

    ``eps_star`` ε* of this control; ``residual`` the norm of :func:`stationarity_residual`, under pure L0 of g over
    the nonzero or unpenalised entries; ``augmented_gap`` max_w K_ε(w; u) − K_ε(u; u) at the certificate's ε;
    ``plain_gap`` max_w H(w) − H(u), infinite where an entry on an unbounded set has g_i ≠ 0; ``largest_gap`` the
    largest augmented gap of an entry (group) and ``gap_fractions`` the fractions of entries with gap ≤ 10⁻¹ … 10⁻¹⁰;
    ``nonzeros`` of ``size``; ``dead`` filters or neurons, that is rows without a nonzero entry, of ``rows`` (kernels
    only). Without an ε the augmented gaps are NaN, and there are no fractions.
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

    def __repr__(self) -> str:
        kept = f"{self.nonzeros:,} of {self.size:,} entries"
        return f"<ControlCertificate of {self.name} {self.stage}: ε* = {self.eps_star:.4g}, {kept}>"

    @property
    def emptied(self) -> bool:
        """True if a kernel has no nonzero entry left: the network is disconnected there."""
        return self.name == "kernel" and self.nonzeros == 0


@dataclass(frozen=True, repr=False)
class Certificate:
    """ε*(u), residuals and gaps at ``eps``; ``J`` and ``loss`` on the certificate's data; one row per control."""

    eps: float | None
    rho: float
    J: float
    loss: float
    eps_star: float
    residual_support: float
    residual_unpenalised: float
    augmented_gap: float
    plain_gap: float
    controls: tuple[ControlCertificate, ...]

    def __repr__(self) -> str:
        residual = math.hypot(self.residual_support, self.residual_unpenalised)
        return f"<Certificate: ε* = {self.eps_star:.4g}, residual {residual:.2g}, J = {self.J:.6g} at ρ = {self.rho:g}>"

    @property
    def emptied_layers(self) -> tuple[int, ...]:
        """Stages whose kernel has no nonzero entry."""
        return tuple(c.stage for c in self.controls if c.emptied)


def certify(problem: Problem, controls: Controls, x: Array, y: Array, eps: float | None = None) -> Certificate:
    """Certificate of ``controls`` on the data (x, y) at the problem's ρ.

    ε* and the residuals need no ε; gaps of the augmented principle are taken at ``eps``, say that of the run, and are
    NaN without. Switching functions come from ``problem.sweeper``, in float64 whatever the dtype of the data. Raises
    InputError for ``eps`` ≤ 0, for controls or data that do not fit, and for a regulariser that does not state what is
    needed.
    """
    if eps is not None and not (math.isfinite(eps) and eps > 0):
        raise InputError(f"eps is {eps}; expected a number > 0")
    problem.check(controls, x, y)
    if is_floating(y):  # targets, not labels
        y = cast(((y,),), "float64")[0][0]
    # In float64 a float32 value or bound of the admissible set is another number: put it back.
    controls = map_controls(lambda a, u: a.widened(settled(u, a)), problem.admissible, controls)
    if not problem.network.takes_bytes:
        x = cast(((x,),), "float64")[0][0]
    e = problem.sweeper.forward_backward(controls, x, y)
    assert e.switching is not None
    rows = []
    for l, names in enumerate(problem.network.names()):
        for i, name in enumerate(names):
            rows.append(
                certify_control(
                    l,
                    name,
                    controls[l][i],
                    e.switching[l][i],
                    problem.regulariser[l][i],
                    problem.rho * problem.weights[l][i],
                    problem.admissible[l][i],
                    eps,
                )
            )
    loss, penalty = to_floats(problem.sweeper.mean_loss(e), problem.penalty(controls))
    return Certificate(
        eps=eps,
        rho=problem.rho,
        J=loss + problem.rho * penalty,
        loss=loss,
        eps_star=max(c.eps_star for c in rows),
        residual_support=math.sqrt(sum(c.residual**2 for c in rows if c.penalised)),
        residual_unpenalised=math.sqrt(sum(c.residual**2 for c in rows if not c.penalised)),
        augmented_gap=sum(c.augmented_gap for c in rows),
        plain_gap=sum(c.plain_gap for c in rows),
        controls=tuple(rows),
    )


def certify_control(
    stage: int, name: str, u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float | None
) -> ControlCertificate:
    """Certificate of one control from its switching function; ``rho`` is ρ times the control's weight."""
    gap = None if eps is None else augmented_gaps(u, g, r, rho, admissible, eps)
    hu, hg = to_numpy(u), to_numpy(g)
    residual = stationarity_residual(hu, hg, r, rho, admissible)
    nonzero_rows = np.any(hu != 0, axis=tuple(range(1, hu.ndim))) if name == "kernel" else np.ones(1, bool)
    return ControlCertificate(
        stage=stage,
        name=name,
        penalised=rho > 0,
        size=hu.size,
        nonzeros=int(np.count_nonzero(hu)),
        eps_star=eps_star(u, g, r, rho, admissible),
        residual=float(np.linalg.norm(residual)),
        augmented_gap=math.nan if gap is None else float(gap.sum()),
        plain_gap=plain_gap(hu, hg, r, rho, admissible),
        largest_gap=math.nan if gap is None else float(gap.max()),
        gap_fractions=() if gap is None else tuple(float(np.mean(gap <= 10.0**-k)) for k in DECADES),
        rows=nonzero_rows.size if name == "kernel" else 0,
        dead=int(np.count_nonzero(~nonzero_rows)),
    )


def settled(u: Array, admissible: Admissible) -> Array:
    """u with the entries that lie within four roundings of a bound of the box put at that bound.

    A maximiser that clips c = u + g/(2ε) may stop one unit in the last place short of the bound. Taken to the letter
    such an entry is an inner one, its g_i is a residual, and ΔH/(w − u)² at the bound is rounding over rounding.
    Sets that extend Box with other ends than two numbers are left as they are.
    """
    if not isinstance(admissible, Box):
        return u
    xp, four = namespace(u), 8 * unit_roundoff(u)
    for end in (admissible.lo, admissible.hi):
        if isinstance(end, float) and math.isfinite(end):
            u = xp.where(xp.abs(u - end) <= four * abs(end), end, u)
    return u


def augmented_gaps(u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float) -> np.ndarray:
    """max_w K_ε(w; u) − K_ε(u; u) ≥ 0 entry by entry (group by group if r does not separate), on the host."""
    gap, _ = _gaps_and_terms(u, g, r, rho, admissible, eps)
    return np.maximum(gap, 0.0)  # w may lose to u by rounding


def _gaps_and_terms(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """K_ε(w; u) − K_ε(u; u) at the maximiser w, and the sum of the moduli of its terms."""
    w = to_numpy(r.argmax(u, g, eps, rho, admissible))
    u, g = to_numpy(u), to_numpy(g)
    linear, square = g * (w - u), eps * (w - u) ** 2
    size = np.abs(linear)
    if rho == 0:
        before = after = np.zeros(())
    else:
        shaped, penalty = (to_numpy, r.pointwise) if r.separable else (_by_group, r.terms)
        linear, square, size = (shaped(r.group_sums(a)) for a in (linear, square, size))
        before, after = (rho * shaped(penalty(a)) for a in (u, w))
    return linear - square - (after - before), size + square + after + before


def _by_group(a: Array) -> np.ndarray:
    """One number for each group, without axes of length 1."""
    return np.atleast_1d(np.squeeze(to_numpy(a)))


def eps_star(u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible) -> float:
    """ε* of one control (T11). Unpenalised entries count with the residual only, on finite sets like all others.

    By the regulariser's closed form where it has one, else by bisection.
    """
    if isinstance(admissible, FiniteSet):
        return max(_rise(to_numpy(u), to_numpy(g), r, rho, v) for v in admissible.values)
    assert isinstance(admissible, Box)
    if rho == 0:
        return 0.0
    cleaned = _stationary(u, g, r, rho, admissible)
    if cleaned is None:
        return math.inf
    closed = r.eps_star(*cleaned, rho, admissible)
    return _bisected(*cleaned, r, rho, admissible) if closed is None else closed


def _stationary(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible
) -> tuple[np.ndarray, np.ndarray] | None:
    """(u, g) in float64, u settled and g without its residual, as T11 asks for; None if ε* = ∞ for a bound."""
    u, g = settled(to_numpy(u).astype(float), admissible), to_numpy(g).astype(float)
    if isinstance(admissible, Box) and _falls_towards_bound(u, g, r, rho, admissible):
        return None
    return u, g - stationarity_residual(u, g, r, rho, admissible)


def _rise(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, v: float) -> float:
    """max(0, largest of [g_i(v − u_i) − ρ(r(v) − r(u_i))]/(v − u_i)² over the entries u_i ≠ v)."""
    d = v - u
    change = np.asarray(r.pointwise(np.full_like(u, v))) - np.asarray(r.pointwise(u)) if rho > 0 else 0.0
    ratio = np.where(d == 0, -np.inf, (g * d - rho * change) / np.where(d == 0, 1.0, d) ** 2)
    return float(np.max(ratio, initial=0.0))


def _falls_towards_bound(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, box: Box) -> bool:
    """True if an entry sits at a bound although H rises from there into the box: then ε* = ∞.

    Rises within rounding of g_i and ρr′(u_i) are none, and neither are entries where r has no derivative.
    """
    slope = rho * np.asarray(r.derivative(u))
    rise = g - slope
    rise = np.where(np.abs(rise) <= 8 * np.finfo(float).eps * np.minimum(np.abs(g), np.abs(slope)), 0.0, rise)
    return bool(np.any((u >= box.hi) & (rise < 0) | (u <= box.lo) & (rise > 0)))


def by_bisection(
    u: Array, g: Array, r: Regulariser, rho: float, admissible: Admissible, limit: float = 1e18, tolerance: float = 1e-9
) -> float:
    """ε* as the point where the largest augmented gap reaches 0; infinite where it stays positive up to ``limit``.

    The part of a kept entry's gap that comes from its residual is g²/(4ε); it is removed by asking for the gap of the
    control with that residual set to 0, as T11 does under pure L0.
    """
    cleaned = _stationary(u, g, r, rho, admissible)
    return math.inf if cleaned is None else _bisected(*cleaned, r, rho, admissible, limit, tolerance)


def _bisected(
    u: np.ndarray,
    g: np.ndarray,
    r: Regulariser,
    rho: float,
    admissible: Admissible,
    limit: float = 1e18,
    tolerance: float = 1e-9,
) -> float:
    """:func:`by_bisection` of a settled u and a g without residual."""

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

    These are the entries where r has a derivative, under L0 and L1 the nonzero ones, and every entry without penalty,
    strictly inside the box; at a bound of an unpenalised entry only the part pointing inwards counts. Under pure L0 it
    is g_i. On a finite set there is none.
    """
    if isinstance(admissible, FiniteSet):
        return np.zeros_like(g)
    assert isinstance(admissible, Box)
    u = settled(u, admissible)
    residual = g - rho * np.asarray(r.derivative(u)) if rho > 0 else g
    residual, low, high = np.where(np.isnan(residual), 0.0, residual), u <= admissible.lo, u >= admissible.hi
    counts = ~(low | high) if rho > 0 else ~(low & (residual < 0) | high & (residual > 0))
    return np.where(counts, residual, 0.0)


def plain_gap(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, admissible: Admissible) -> float:
    """Σ_i max_w H(w) − H(u) at ε = 0 (T10): infinite where H is unbounded on U. On bounded sets a limit ε → 0."""
    if isinstance(admissible, Box) and not admissible.bounded:
        free = (g > 0) & np.isinf(admissible.hi) | (g < 0) & np.isinf(admissible.lo)
        slope = rho * r.asymptotic_slope() if rho > 0 else 0.0
        if bool(np.any(free & (np.abs(g) > slope))):
            return math.inf
    tiny = 1e-60  # ε → 0 without 0/0 in the maximisers, and without overflow of (ρ/ε)^{3/2}
    gaps: Any = augmented_gaps(u, g, r, rho, admissible, tiny)
    return float(np.sum(gaps))
