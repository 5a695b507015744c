"""Claims T10 (the discrete maximum principle) and T11 (the certificate ε*).

Global minimisers come from exhaustive search (``exhaustive.py``), so whether the maximum principle holds at them is a
question of fact. States, costates and switching functions are the core's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.arrays import like, to_numpy
from pmp_ref.certificate import augmented_gaps, by_bisection, certify, eps_star, plain_gap, stationarity_residual
from pmp_ref.hamiltonian import increments
from pmp_ref.layers import Dense, ReLU, Tanh, residual
from pmp_ref.loss import SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from verification.claim import Case, Check, Context, Outcome, Table, claim, holds, survey
from verification.claims.certificates import close, off, whole_network
from verification.claims.exhaustive import LEAST_SQUARES, TERNARY, Minimiser, least_squares, ternary
from verification.claims.forward_maps import switching

# Roundings in a gap: u* and g carry a few hundred ulp from the linear solve (condition numbers up to about 1e4 occur).
ROUNDING = 1e-10
CONVEX = tuple(kind for kind in LEAST_SQUARES if "L0" not in kind)
NONCONVEX = tuple(kind for kind in LEAST_SQUARES if "L0" in kind)


# --- formulas of the theory -------------------------------------------------------------------------------------------


def constant(curvature: float) -> float:
    """C = ½ sup λ_max(∂²L_B)₊ (T10c)."""
    return 0.5 * max(curvature, 0.0)


def largest_hamiltonian(g: np.ndarray, rho: np.ndarray, r: Polynomial, admissible: Admissible) -> np.ndarray:
    """sup over w ∈ U of g w − ρ r(w), entry by entry: the best of 0, the bounds (values) and the stationary points."""
    if isinstance(admissible, FiniteSet):
        return np.max([g * v - rho * _value(r, np.full_like(g, v)) for v in admissible.values], axis=0)
    assert isinstance(admissible, Box)
    lo, hi = admissible.lo, admissible.hi
    with np.errstate(divide="ignore", invalid="ignore"):
        stationary = [np.where(rho * r.a2 > 0, (g - s * rho * r.a1) / (rho * r.a2), 0.0) for s in (1.0, -1.0)]
    points = [np.clip(w, lo, hi) for w in (np.zeros_like(g), *stationary)]
    points += [np.full_like(g, b) for b in (lo, hi) if math.isfinite(b)]
    best = np.max([g * w - rho * _value(r, w) for w in points], axis=0)
    outwards = ((g > 0) & math.isinf(hi)) | ((g < 0) & math.isinf(lo))
    return np.where(outwards & (rho * r.a2 == 0) & (np.abs(g) > rho * r.a1), np.inf, best)


def drop_gain(u: np.ndarray, rho: np.ndarray, r: Polynomial) -> np.ndarray:
    """What setting a stationary nonzero entry to 0 adds to the Hamiltonian: ρ(a₀ − a₂u²/2) (T10b)."""
    return rho * (r.a0 - r.a2 * u * u / 2)


def _value(r: Polynomial, w: np.ndarray) -> np.ndarray:
    return r.a0 * (w != 0) + r.a1 * np.abs(w) + r.a2 / 2 * w * w


# --- what the core says at a minimiser --------------------------------------------------------------------------------


class At:
    """A minimiser with the core's switching functions, control by control on the host.

    ``g`` is exact where theory fixes it: a free entry gets ρr′(u_i), and ``residual`` is what was removed. Without
    that, an entry on an unbounded set would have an infinite plain gap by a rounding of g.
    """

    def __init__(self, m: Minimiser) -> None:
        self.m, self.sweep = m, m.problem.sweeper
        e = self.sweep.backward(m.controls, self.sweep.forward(m.controls, m.x, m.y))
        self.switching = switching(e)
        self.u = [to_numpy(a) for stage in m.controls for a in stage]
        raw = [to_numpy(a) for stage in self.switching for a in stage]
        flat = lambda nested: [a for stage in nested for a in stage]  # noqa: E731
        self.free, self.slope = flat(m.free), flat(m.slope)
        self.residual = max(
            float(np.max(np.abs(np.where(f, g - s, 0.0)), initial=0.0))
            for f, g, s in zip(self.free, raw, self.slope, strict=True)
        )
        self.g = [np.where(f, s, g) for f, g, s in zip(self.free, raw, self.slope, strict=True)]
        self.r, self.admissible = flat(m.problem.regulariser), flat(m.problem.admissible)
        self.rho = [m.problem.rho * w for w in flat(m.problem.weights)]
        self.layer = [l for l, stage in enumerate(m.controls) for _ in stage]
        size = [float(np.sum(np.abs(g * u))) for g, u in zip(raw, self.u, strict=True)]
        self.scale = 1.0 + sum(size) + sum(self.rho)

    def gaps(self, eps: list[Any]) -> float:
        """Largest augmented gap of an entry at those ε, one for each control."""
        parts = zip(self.u, self.g, self.r, self.rho, self.admissible, eps, strict=True)
        return max(float(np.max(np.abs(augmented_gaps(*part)))) for part in parts)

    def plain(self) -> float:
        """The core's plain gap, summed over the controls."""
        return sum(plain_gap(*p) for p in zip(self.u, self.g, self.r, self.rho, self.admissible, strict=True))

    def plain_by_definition(self) -> float:
        """Σ_i sup_w H(w) − H(u), by candidates."""
        total = 0.0
        for u, g, r, rho, admissible in zip(self.u, self.g, self.r, self.rho, self.admissible, strict=True):
            best = largest_hamiltonian(g, np.full_like(g, rho), r, admissible)
            total += float(np.sum(best - (g * u - rho * _value(r, u))))
        return total

    def challenged(self, eps: list[float]) -> float:
        """Largest K_ε(w; u) − K_ε(u; u) over challengers w, by the definition of K."""
        worst = 0.0
        for u, g, r, rho, admissible, e in zip(self.u, self.g, self.r, self.rho, self.admissible, eps, strict=True):
            for w in _challengers(u, g, e, rho, admissible):
                rise = g * (w - u) - rho * (_value(r, w) - _value(r, u)) - e * (w - u) ** 2
                worst = max(worst, float(np.max(rise)))
        return worst

    def star(self) -> float:
        """ε* of the whole control."""
        parts = zip(self.u, self.g, self.r, self.rho, self.admissible, strict=True)
        return max(eps_star(*part) for part in parts)


def _challengers(u: np.ndarray, g: np.ndarray, eps: float, rho: float, admissible: Admissible) -> Iterator[np.ndarray]:
    if isinstance(admissible, FiniteSet):
        yield from (np.full_like(u, v) for v in admissible.values)
        return
    assert isinstance(admissible, Box)
    c = u + g / (2 * eps)
    threshold = math.sqrt(rho / eps)
    for w in (
        np.zeros_like(u),
        c,
        -u,
        2 * u,
        u + 1e-3,
        u - 1e-3,
        u + threshold,
        u - threshold,
        c + 0.1,
        c - 0.1,
        np.full_like(u, threshold),
        np.full_like(u, -threshold),
        np.full_like(u, 10.0),
        np.full_like(u, -10.0),
    ):
        yield np.clip(w, admissible.lo, admissible.hi)


def minimiser(case: Case, kind: str) -> Minimiser:
    """A global minimiser of that kind; of symmetric ternary ones any.

    Every second L0 one has a support that is about to change, and an orthogonal design: then ε* comes close to ½λ_max,
    and a constant that is too small shows.
    """
    if kind in TERNARY:
        return case.choose(*ternary(case, kind))
    if (kind == "L0, line" and case.rng.random() < 0.5) or case.index == 0:
        return least_squares(case, kind, orthogonal=True, marginal=float(case.choose(0.98, 1.02)))
    return least_squares(case, kind)


# --- T10 --------------------------------------------------------------------------------------------------------------


@claim(
    tag="T10a",
    title="Plain maximum principle, convex case",
    dtypes=("float64",),
    statement="r_l, U_l convex, u* a local minimiser, L_B differentiable there: H_l(u*_l) = max_w H_l(w)",
)
def plain_convex(context: Context) -> Outcome:
    """Statement: where regulariser and admissible set are convex, a local minimiser at which the loss is differentiable
    maximises its own Hamiltonian. At a ReLU kink it can fail.

    Hypotheses: least squares with none, L1, L2 on the line and on a box, at the exhaustively found global minimiser;
    dense tanh networks with L1 or L2 on a box at a local minimiser found by SciPy with a gradient of its own; and the
    counterexample of the theory, J(u) = ½(1 + |u|)² through a residual block with ReLU, whose Hamiltonian is w ↦ w.

    Measured: the core's plain gap against rounding (networks: against Σ|projected gradient|·diameter, for the solver
    stops early); the core's g at free entries against ρr′(u), the residual; the counterexample's gap on [−1, 1]
    against its exact value 1. float64 only, for the minimisers are known to rounding.
    """

    def one(case: Case) -> Iterator[Check]:
        kind = case.cycle(*CONVEX, "kink", "network")
        if kind == "kink":
            yield Check(abs(_kink_gap(case) - 1.0), ROUNDING, "kink: plain gap of −|u| against 1 on [−1, 1]")
        elif kind == "network":
            yield from _trained_network(case)
        else:
            at = At(least_squares(case, kind))
            yield Check(at.residual, ROUNDING * at.scale, f"{kind}: switching function minus ρr′ at free entries")
            yield Check(abs(at.plain()), ROUNDING * at.scale, f"{kind}: plain gap")
            yield Check(at.plain_by_definition(), ROUNDING * at.scale, f"{kind}: plain gap by candidates")

    return survey(context, one, micro=6, quick=56, full=560).with_(
        notes=[
            "at the ReLU kink u = 0 of ½(1 + |u|)² the plain maximum principle fails: g = 1, gap 1 on [−1, 1], "
            "infinite on the line"
        ]
    )


def _kink_gap(case: Case) -> float:
    network = Network((Dense(1, bias=False), residual(ReLU(), step=-2.0)), (1,))
    problem = Problem(network, SquaredLoss(), NoPenalty(), rho=0.0, admissible=Box(-1.0, 1.0))
    x, u = case.asarray(np.ones((1, 1))), ((case.asarray(np.zeros((1, 1))),), (), ())
    return certify(problem, u, x, x, 1.0).plain_gap


def _trained_network(case: Case) -> Iterator[Check]:
    """A local minimiser of a dense tanh network 3 → 4 → 2, found without the core; the L1 term by u = a − b."""
    rng, box = case.rng, Box(-1.5, 1.5)
    x, y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    r, rho = (Polynomial(a1=1.0), 0.02) if rng.random() < 0.5 else (Polynomial(a2=1.0), 0.05)

    def loss(u: np.ndarray) -> tuple[float, np.ndarray]:
        first, last = u[:12].reshape(4, 3), u[12:].reshape(2, 4)
        a = np.tanh(x @ first.T)
        error = (a @ last.T - y) / len(x)
        back = (error @ last) * (1 - a * a)
        value = 0.5 * len(x) * float(np.sum(error**2))
        return value, np.concatenate([(back.T @ x).ravel(), (error.T @ a).ravel()])

    def split(ab: np.ndarray) -> tuple[float, np.ndarray]:
        u = ab[:20] - ab[20:]
        value, gradient = loss(u)
        smooth = gradient + rho * r.a2 * u
        value += rho * (r.a1 * float(ab.sum()) + r.a2 / 2 * float(u @ u))
        return value, np.concatenate([smooth + rho * r.a1, -smooth + rho * r.a1])

    start = 0.5 * rng.standard_normal(20)
    start = np.concatenate([np.maximum(start, 0), np.maximum(-start, 0)])
    for _ in range(10):  # the solver may stop early on a small decrease; from there it begins again
        found = minimize(
            split,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, box.hi)] * 40,
            options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000, "maxfun": 20000},
        )
        start, slope = found.x, split(found.x)[1]
        inwards = ((found.x > 0) & (slope > 0)) | ((found.x < box.hi) & (slope < 0))
        if float(np.max(np.abs(slope[inwards]), initial=0.0)) < 1e-7:
            break
    u = found.x[:20] - found.x[20:]
    for point in (0.0, box.lo, box.hi):  # where the solver stopped short of it; the bound below sees the change
        u = np.where(np.abs(u - point) < 1e-6, point, u)
    network = Network((Dense(4, bias=False), Tanh(), Dense(2, bias=False)), (3,))
    problem = Problem(network, SquaredLoss(), r, rho=rho, admissible=box)
    controls = ((case.asarray(u[:12].reshape(4, 3)),), (), (case.asarray(u[12:].reshape(2, 4)),))
    certificate = certify(problem, controls, case.asarray(x), case.asarray(y), 1.0)
    slope = loss(u)[1] + rho * r.a2 * u
    at_zero = np.sign(slope) * np.maximum(np.abs(slope) - rho * r.a1, 0.0)
    inside = np.where(u == 0, at_zero, slope + rho * r.a1 * np.sign(u))
    allowed = np.where(inside > 0, u > box.lo, u < box.hi)  # the objective may fall along −inside
    bound = float(np.sum(np.abs(inside) * allowed)) * (box.hi - box.lo) + 1e-13  # 1e-13: roundings of 20 gaps
    yield Check(certificate.plain_gap, bound, f"tanh network, {r}: plain gap against Σ|projected gradient|·diameter")
    yield Check(bound, 1e-3, f"tanh network, {r}: that bound itself, so that the check means something")


@claim(
    tag="T10b",
    title="Plain maximum principle fails under L0 and on finite sets",
    dtypes=("float64",),
    statement="L0, u*_i ≠ 0 inside: dropping it gains ρ(a₀ − a₂u_i²/2), so plain PMP fails by ≥ ρa₀ under pure L0",
)
def plain_nonconvex(context: Context) -> Outcome:
    """Statement: at a coordinatewise minimiser under L0 every nonzero entry inside its interval has g_i = ρa₂u_i, so
    dropping it raises the Hamiltonian by ρ(a₀ − a₂u_i²/2); under pure L0 the plain maximum principle fails by at least
    ρa₀ for each such entry. On finite sets it can fail.

    Hypotheses: least squares with L0 and L0 + L2 on the line and on a box, ternary networks with and without L0, at
    all global minimisers found by exhaustive search.

    Measured: the core's increment ΔH of dropping one entry against the formula; the core's plain gap against the sum
    of the suprema of H by candidates (infinite against infinite), and from below against ρa₀ times the number of
    nonzero penalised entries inside. The table in T10c counts how often the principle holds.
    """
    missed = []

    def one(case: Case) -> Iterator[Check]:
        kind = case.cycle(*NONCONVEX, *TERNARY)
        m = minimiser(case, kind)
        at = At(m)
        yield Check(at.residual, ROUNDING * at.scale, f"{kind}: g − ρr′ at free entries")
        mine, theirs = at.plain_by_definition(), at.plain()
        same = 0.0 if mine == theirs else abs(mine - theirs)  # infinite against infinite is equal
        yield Check(same, ROUNDING * at.scale, f"{kind}: plain gap against candidates")
        if kind in TERNARY:
            return
        kernel, rho, r = at.u[0], at.rho[0], at.r[0]
        gains = np.where((kernel != 0) & at.free[0], drop_gain(kernel, np.full_like(kernel, rho), r), 0.0)
        for i in np.flatnonzero((kernel != 0) & at.free[0]):
            w = kernel.copy()
            w.flat[i] = 0.0
            moved = ((like(w, m.x), *m.controls[0][1:]),)
            dh = float(increments(m.problem, at.switching, m.controls, moved, m.problem.rho)[0][0])
            yield Check(abs(dh - gains.flat[i]), ROUNDING * at.scale, f"{kind}: ΔH of dropping entry {i}")
        if r.a2 == 0:
            yield Check(theirs, float(gains.sum()) * (1 - 1e-12), f"{kind}: plain gap", sense=">=")
            missed.append(float(gains.sum()))

    outcome = survey(context, one, micro=8, quick=64, full=640)
    certain = sum(gain > 0 for gain in missed)
    note = f"pure L0: plain PMP fails at {certain} of {len(missed)} minimisers because of a kept entry alone"
    return outcome.with_(notes=[note])


@claim(
    tag="T10c",
    title="Augmented maximum principle",
    dtypes=("float64",),
    statement="u* a layerwise minimiser: u*_l ∈ argmax_w K_ε(w; u*_l) for all ε ≥ C_l = ½ sup λ_max(∂²_{u_l}L_B)₊",
)
def augmented(context: Context) -> Outcome:
    """Statement: without any convexity a layerwise minimiser maximises, layer by layer, its augmented Hamiltonian for
    every ε ≥ C_l; and entry by entry for every ε ≥ ½ sup ∂²_ii L_B.

    Hypotheses: all global minimisers of least squares under none, L1, L2, L0, L0 + L2 on the line and on a box, and of
    ternary networks. C_l is exact where the layer's Hessian is constant (least squares, linear networks, last layers);
    in the first layer of a tanh network it is a proven bound over the convex hull of U_l.

    Measured: the core's augmented gap at ε = C_l, and at ½∂²_ii entry by entry, against rounding; K_ε of challengers
    by its definition; ε*(u*) ≤ max C_l. The table says how often the plain and the augmented principle hold.
    """
    rows: dict[str, list[tuple[bool, float, float, bool, bool, float]]] = defaultdict(list)

    def one(case: Case) -> Iterator[Check]:
        kind = case.cycle("L0, line", *(k for k in (*LEAST_SQUARES, *TERNARY) if k != "L0, line"))
        m = minimiser(case, kind)
        at = At(m)
        tolerance = ROUNDING * at.scale
        eps = [max(constant(m.curvature[l]), 1e-12) for l in at.layer]  # 1e-12: a layer without influence has C = 0
        gap = at.gaps(eps)
        yield Check(gap, tolerance, f"{kind}: augmented gap at C_l")
        yield Check(at.challenged(eps), tolerance, f"{kind}: challengers of K at C_l")
        by_entry = math.nan
        if m.diagonal is not None:
            entries = [np.vectorize(constant)(d) for stage in m.diagonal for d in stage]
            by_entry = at.gaps(entries)
            yield Check(by_entry, tolerance, f"{kind}: augmented gap at ½∂²_ii, entry by entry")
        star = at.star()
        yield Check(star, max(eps) * (1 + ROUNDING) + tolerance, f"{kind}: ε* against max C_l")
        rows[kind].append((m.zero, at.plain(), at.scale, gap <= tolerance, not by_entry > tolerance, star / max(eps)))

    outcome = survey(context, one, micro=5, quick=260, full=2600)
    return outcome.with_(
        tables=[pmp_table(rows)],
        notes=[
            "an infinite plain gap is no rounding: on the line H = g w − ρ|w|₀ has no maximum once an entry has "
            "g_i ≠ 0, and a zero entry has as a rule, even at u* = 0, for it is the penalty that keeps it at 0; on a "
            "box the gap is finite, and at least ρ for each kept entry strictly inside",
        ],
    )


def pmp_table(rows: dict[str, list[tuple[bool, float, float, bool, bool, float]]]) -> Table:
    """How often the plain and the augmented principle hold at the global minimisers found."""
    lines = []
    for kind, found in rows.items():
        zero, plain, scale, layer, entry, ratio = zip(*found, strict=True)
        holds = [gap <= ROUNDING * s for gap, s in zip(plain, scale, strict=True)]
        finite = [gap for gap, ok in zip(plain, holds, strict=True) if not ok and math.isfinite(gap)]
        lines.append(
            (
                kind,
                len(found),
                sum(zero),
                sum(holds),
                sum(math.isinf(gap) for gap in plain),
                f"{min(finite):.3g}" if finite else "–",
                sum(layer),
                sum(entry),
                f"{max(ratio):.3f}",
            )
        )
    return Table(
        "Maximum principle at global minimisers",
        (
            "problem",
            "minimisers",
            "u* = 0",
            "plain holds",
            "plain gap infinite",
            "least finite gap",
            "augmented at C_l",
            "augmented at ½∂²_ii",
            "largest ε*/C",
        ),
        tuple(lines),
    )


# --- T11 --------------------------------------------------------------------------------------------------------------


def supremum(u: float, g: float, r: Regulariser, rho: float, box: Box) -> float:
    """sup over w ∈ [lo, hi], w ≠ u of ΔH(w)/(w − u)² for one entry, by a search in w; ∞ if it grows like 1/|w − u|.

    2 × 601 points at distances 10⁻⁴ … 10⁵, the points 0, lo, hi, and a refinement around the best of them. Closer
    points would show the rounding of ΔH: at distance d it is 10⁻¹⁶/d², here at most 10⁻⁸.
    """
    steps = np.logspace(-4, 5, 601)

    def ratio(w: Any) -> Any:
        w = np.asarray(w, float)
        d = w - u
        rise = g * d - rho * (np.asarray(r.pointwise(w)) - np.asarray(r.pointwise(np.full_like(w, u))))
        return np.where((d == 0) | (w < box.lo) | (w > box.hi), -np.inf, rise / np.where(d == 0, 1.0, d) ** 2)

    special = ratio(np.array([0.0, *(b for b in (box.lo, box.hi) if math.isfinite(b))]))
    best = max(0.0, float(np.max(special)))
    for side in (1.0, -1.0):
        values = ratio(u + side * steps)
        k = int(np.argmax(values))
        if k == 0 and values[0] > 50 * max(values[133], 1e-3):  # at 99 times the distance a 99th part of the ratio
            return math.inf
        if values[k] > 0:
            ends = np.log10(steps[max(k - 1, 0)]), np.log10(steps[min(k + 1, 600)])
            found = minimize_scalar(
                lambda t, s=side: -float(ratio(min(max(u + s * 10.0**t, box.lo), box.hi))),
                bounds=ends,
                method="bounded",
                options={"xatol": 1e-10},
            )
            best = max(best, float(values[k]), -float(found.fun))
    return best


KINDS: tuple[str, ...] = ("L0, line", "L0, box", "finite set", "group", "L0 + L2", "L0 + L2, box", "L1/2", "L2/3", "L1")
KINDS = (*KINDS, "unpenalised", "whole network")


@claim(
    tag="T11",
    title="One-number certificate",
    dtypes=("float64",),
    statement="ε*(u) = max(0, sup ΔH(w)/‖w − u‖²); pure L0: max(max_on ρω/u², max_off g²/(4ρω))",
)
def certificate(context: Context) -> Outcome:
    """Statement: ε* is the smallest augmentation at which u satisfies the maximum principle. Pure L0 has a closed form
    on the line and on a box, finite sets a maximum of ratios; convex r and U give 0 or ∞; unpenalised entries and the
    g_i of kept entries count in the residual only. Coordinatewise minimisers have ε* ≤ max ½ sup ∂²_ii.

    Hypotheses: entries drawn kept, zero and at a bound, on the line, on boxes and on finite sets, with L0, L0 + L2,
    L1/2, L2/3, L1, group L0; L0 least squares minimisers close to a change of support; whole smooth networks.

    Measured: the core's closed form against its bisection on the maximiser and against a search by definition
    (relative 1e-6: what both searches resolve; infinite against infinite), the augmented gap at ε*(1 ± 10⁻³), the
    residual against its definition, and every field of the certificate of a network against complex steps and counts.
    """

    def one(case: Case) -> Iterator[Check]:
        kind = case.cycle(*KINDS)
        if kind == "whole network":
            yield from whole_network(case)
            return
        if kind == "L0, line":
            m = least_squares(
                case, "L0, line", orthogonal=bool(case.rng.integers(2)), marginal=float(case.choose(0.98, 1.02))
            )
            at = At(m)
            largest = max(float(np.max(d)) for stage in m.diagonal for d in stage)
            yield Check(at.star(), constant(largest) * (1 + ROUNDING), "L0 minimiser: ε* against max ½∂²_ii")
        yield from _entries(case, kind)

    return survey(context, one, micro=2 * len(KINDS), quick=132, full=2200)


def _draw(case: Case, kind: str) -> tuple[Regulariser, float, Admissible, np.ndarray, np.ndarray]:
    """(r, ρ, U, u, g) with kept entries, zeros and entries at bounds; 2 × 3 entries."""
    rng = case.rng
    rs: dict[str, Regulariser] = {
        "group": GroupL0(omega=1.5),
        "L0 + L2": Polynomial(a0=0.7, a2=0.4),
        "L0 + L2, box": Polynomial(a0=0.7, a2=2.0),
        "L1/2": LHalf(),
        "L2/3": LTwoThirds(),
        "L1": L1(),
    }
    r, rho = rs.get(kind, L0()), 0.0 if kind == "unpenalised" else float(rng.uniform(0.05, 0.5))
    admissible: Admissible = WHOLE_LINE
    u = np.where(rng.random((2, 3)) < 0.4, 0.0, rng.uniform(0.3, 1.5, (2, 3)) * rng.choice([-1.0, 1.0], (2, 3)))
    g = rng.uniform(0.1, 1.5, (2, 3)) * rng.choice([-1.0, 1.0], (2, 3))
    if kind == "L0, box" or (kind == "unpenalised" and rng.random() < 0.7):
        admissible = Box(-float(rng.choice([0.0, 0.4, 0.8])), float(rng.choice([0.5, 1.2])))
        u = np.asarray(admissible.project(u))
        rho *= float(rng.choice([0.2, 1.0]))  # small: the best value of a zero lies inside the box, not at its bound
        if rng.random() < 0.8:  # at a bound mostly pointing outwards, else ε* is infinite
            bound = (u != 0) & ((u == admissible.lo) | (u == admissible.hi))
            g = np.where(bound, np.abs(g) * np.sign(u), g)
    if kind == "L0 + L2, box":  # at a bound g points outwards, and H falls towards it iff |g| < ρa₂|u|
        admissible = Box(-0.8, 1.2)
        u = np.asarray(admissible.project(np.where(rng.random(u.shape) < 0.5, 3 * u, 0.2 * u)))
        slope = rho * 2.0 * u
        bound = (u == admissible.lo) | (u == admissible.hi)
        share = rng.choice([0.3, 0.6]) if case.index // len(KINDS) % 2 else rng.uniform(1.5, 2.0)
        g = np.where(bound, share * slope, np.where(u == 0, g, slope))
    if kind == "finite set":
        admissible = FiniteSet((-1.0, 0.0, 0.5, 1.0))
        u = np.asarray(admissible.project(u))
        rho = float(rng.choice([0.0, rho]))
    if kind == "group":
        u[0] = 0.0
    if kind == "L1":
        inside = rng.uniform(0.1, 0.9, u.shape) if rng.random() < 0.5 else rng.uniform(1.5, 2.0, u.shape)
        g = np.where(u == 0, inside * rho * np.sign(g), rho * np.sign(u) + 0.01)
    return r, rho, admissible, u, g


def _entries(case: Case, kind: str) -> Iterator[Check]:
    r, rho, admissible, u, g = _draw(case, kind)
    name = f"{kind}, ρ = {rho:.3g}, {admissible}"
    residual = _residual(u, g, r, rho, admissible)
    yield Check(
        float(np.max(np.abs(stationarity_residual(u, g, r, rho, admissible) - residual))), 1e-11, f"{name}: residual"
    )  # 1e-11: rounding of the difference quotients
    clean = g - residual
    if isinstance(r, GroupL0):
        expected = off(g[0], rho * r.omega)
        expected = max(expected, rho * r.omega / float(np.sum(u[1] ** 2)) if u[1].any() else off(g[1], rho * r.omega))
    elif isinstance(admissible, FiniteSet):
        quotients = [
            (h * (v - a) - rho * (float(v != 0) - float(a != 0))) / (v - a) ** 2
            for a, h in zip(u.ravel(), g.ravel(), strict=True)
            for v in admissible.values
            if v != a
        ]
        expected = max(0.0, *quotients)
    else:
        assert isinstance(admissible, Box)
        entries = zip(u.flat, clean.flat, strict=True)
        single = [supremum(float(a), float(h), r, rho, admissible) for a, h in entries] if rho > 0 else [0.0]
        expected = max(single)
    if admissible == WHOLE_LINE and not isinstance(r, GroupL0):
        slope = rho if kind == "L1" else math.inf if kind == "L0 + L2" else 0.0  # H → ∞ where |g_i| > lim ρr(w)/|w|
        for a, h in zip(u.flat, g.flat, strict=True):
            plain = plain_gap(np.array([a]), np.array([h]), r, rho, admissible)
            yield holds(math.isinf(plain) == (abs(h) > slope), f"{name}: plain gap infinite, g {h:.3g}")
    star = eps_star(u, g, r, rho, admissible)
    yield close(star, expected, f"{name}: ε* against its definition")
    if kind == "L0, box":  # the best value 2ρ/|g| is inside the longer side only
        for h in (0.4, -0.4):
            lopsided = Box(-0.1, float(case.rng.uniform(0.6, 1.2)))
            alone = eps_star(np.zeros(1), np.array([h]), r, 0.1, lopsided)
            yield close(alone, supremum(0.0, h, r, 0.1, lopsided), f"L0: ε* of a zero in {lopsided}, g {h}")
    if isinstance(r, Polynomial) and isinstance(admissible, Box) and rho > 0:  # the maximum would hide the others
        for a, h, one in zip(u.flat, g.flat, single, strict=True):
            alone = eps_star(np.array([a]), np.array([h]), r, rho, admissible)
            yield close(alone, one, f"{name}: ε* of the entry {a:.3g}, g {h:.3g}")
    if math.isfinite(expected) and rho > 0:
        yield close(by_bisection(u, g, r, rho, admissible), expected, f"{name}: bisection against the definition")
    if 0 < star < math.inf:
        gap = lambda eps: float(np.max(augmented_gaps(u, clean, r, rho, admissible, eps)))  # noqa: E731
        yield Check(gap(star * 1.001), 1e-14, f"{name}: augmented gap just above ε*")
        yield Check(gap(star * 0.999), 1e-9, f"{name}: augmented gap just below ε*", sense=">=")


def _residual(u: np.ndarray, g: np.ndarray, r: Regulariser, rho: float, admissible: Admissible) -> np.ndarray:
    """g − ρr′(u) where an inner maximum of H needs it to vanish, by loops; r′ by central differences."""
    out = np.zeros_like(g)
    if isinstance(admissible, FiniteSet):
        return out
    assert isinstance(admissible, Box)
    for i in np.ndindex(*u.shape):
        kept = bool(u[i[0]].any()) if isinstance(r, GroupL0) else bool(u[i] != 0)
        if not (kept or rho == 0):
            continue
        slope: Any = 0.0
        if rho > 0 and not isinstance(r, GroupL0):
            h = 1e-4 * abs(u[i])  # fourth-order difference: truncation 1e-17, rounding 1e-12 relative to ρr′
            f = [float(r.pointwise(np.array([u[i] + k * h]))[0]) for k in (-2, -1, 1, 2)]
            slope = rho * (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
        out[i] = g[i] - slope
        at_bound = u[i] in (admissible.lo, admissible.hi)
        if at_bound and (rho > 0 or (out[i] > 0) == (u[i] == admissible.hi)):
            out[i] = 0.0
    return out
