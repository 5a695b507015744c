"""Enclosure of the loss along a segment [u, w], a posteriori and tight (T7b), and certified steps (T6).

φ(t) = L_B(u + tΔ), Δ = w − u. For rows (sample, part of [0, 1] with centre c and half width h) the jet of the state
x(t) is carried as Taylor coefficients x_k = x^(k)/k!: *thin* values at t = c for k < n, and for the top order n a
ball that holds x_n(t) for every t of the part. The ball of x_k over the part follows by the mean value form

    x_k(t) ∈ x_k(c) ± (Σ_{k<j<n} C(j,k) h^{j−k} |x_j(c)| + C(n,k) h^{n−k} sup |x_n|).

Affine stage: z_k = W(c)x_k + Δx_{k−1} at c, and z_n ∈ W(c)x_n + Δx_{n−1} ± (n+1)h|Δ| sup|x_n| on the part.
Activation: z_k are composed with the f_k = σ^(k)/k!. The result is Σ over parts of

    ∫ (1 − t) φ″(t) dt,   φ″(c + s) = Σ_{2≤k<n} k(k−1) φ_k(c) s^{k−2} + n(n−1) φ_n(ξ) s^{n−2},

so for n = 2 it is Σ_m ω_m [inf d_m, sup d_m] with ω_m = ∫ (1 − t) dt, the form of T7b with first-order looseness in
the part's width; for n = 3, 4 the looseness is of second and third order. ``intervals`` says what is assumed of the
arithmetic. Everything runs in float64 on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from math import comb
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import TINY, UP, Array, Ball, Point, U, column, gamma, upward
from pmp_ref.bounds.taylor import coefficients, suprema
from pmp_ref.bounds.terminal import loss_coefficients, loss_value
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AffineStage,
    AveragePool,
    Convolution,
    Flatten,
    GlobalAveragePool,
    Pixels,
    Stage,
    WeightedSum,
)
from pmp_ref.layers.layer import along_channels
from pmp_ref.loss import Loss
from pmp_ref.network import Network


@dataclass(frozen=True)
class Rows:
    """Rows of one enclosure: sample, centre c and half width h of the part, and the order n of the jets."""

    sample: Array
    c: Array
    h: Array
    order: int


@dataclass(frozen=True)
class Jet:
    """Thin coefficients at c (None: zero), and the ball of the top one over the part (None: zero).

    ``moving`` is False while the state does not depend on t; then its rows are samples, see ``spread``.
    """

    thin: tuple[Point | None, ...]
    top: Ball | None
    moving: bool = True

    def over(self, k: int, rows: Rows) -> Ball | None:
        """The ball of x_k over the part, k < n; None where it is zero."""
        n, parts = rows.order, []
        for j in range(k + 1, n):
            x = self.thin[j]
            if x is not None:
                scale = comb(j, k) * rows.h ** (j - k) * UP
                parts.append(column(scale, x.mid) * (np.abs(x.mid) + column(x.err, x.mid)))
        if self.top is not None:
            scale = comb(n, k) * rows.h ** (n - k) * UP
            parts.append(column(scale, self.top.mid) * self.top.magnitude)
        x = self.thin[k]
        if x is None and not parts:
            return None
        if x is None:
            return Ball(np.zeros_like(parts[0]), sum(parts) * UP + TINY)
        return Ball(x.mid, (sum(parts) + column(x.err, x.mid)) * UP + TINY)


def spread(jet: Jet, rows: Rows) -> Jet:
    """The jet with one row per (sample, part)."""
    if jet.moving:
        return jet
    thin = tuple(None if x is None else Point(x.mid[rows.sample], x.err[rows.sample]) for x in jet.thin)
    return Jet(thin, None)


def enclose_stage(stage: Stage, jet: Any, u: Any, delta: Any, rows: Rows) -> Jet:
    """The jet behind a stage from that of the state that it reads, or a tuple of several. InputError for stages without
    enclosure."""
    if isinstance(stage, WeightedSum):
        return weighted_sum(stage, [spread(each, rows) for each in jet])
    if isinstance(stage, Pixels):
        return pixels(stage, jet)
    if isinstance(stage, AffineStage):
        return affine(stage, jet, u, delta, rows)
    if isinstance(stage, Activation):
        return activate(stage, spread(jet, rows), rows)
    if isinstance(stage, AveragePool | GlobalAveragePool | Flatten):
        return average(stage, jet)
    raise InputError(f"no enclosure for {stage}; expected a stage that is smooth and not a standardisation")


def affine(stage: AffineStage, jet: Jet, u: Any, delta: Any, rows: Rows) -> Jet:
    """z = W(t)x + b(t), W(t) = u + tΔ. Errors of sums by γ‖row of W‖‖x‖, of Δ = fl(w − u) by its relative size."""
    n = rows.order
    kernel, change = u[0], delta[0]
    flat = kernel.shape[0], -1
    fan_in = kernel.reshape(flat).shape[1]
    slack = gamma(fan_in + 12)
    length_u, length_d = (float(np.sqrt((a.reshape(flat) ** 2).sum(axis=1).max())) * UP for a in (kernel, change))
    sum_u, sum_d = (upward(np.abs(a).reshape(flat).sum(axis=1).max(), fan_in) for a in (kernel, change))
    where = rows.sample if not jet.moving else slice(None)
    c = rows.c
    mids: list[Any] = [None] * (n + 1)  # of z_0 … z_n
    errs: list[Any] = [np.zeros(c.shape) for _ in range(n + 1)]

    def add(k: int, mid: Array, err: Array) -> None:
        mids[k] = mid if mids[k] is None else mids[k] + mid
        errs[k] = errs[k] + err

    sources: list[Any] = [None if x is None else (x.mid, x.err, x.length) for x in jet.thin]
    if jet.top is not None:
        sources.append((jet.top.mid, 0.0, Point(jet.top.mid, np.zeros(c.shape)).length))
    products = _apply_both(stage, [s[0] for s in sources if s is not None], kernel, change)
    for k, source in enumerate(sources):
        if source is None:
            continue
        by_u, by_d = next(products)
        by_u, by_d = by_u[where], by_d[where]
        err, length = (np.broadcast_to(a, jet_rows(jet))[where] for a in source[1:])
        add(k, by_u + column(c, by_d) * by_d, (sum_u + c * sum_d) * err + slack * (length_u + length_d) * length)
        if k < n:
            add(k + 1, by_d, sum_d * err + slack * length_d * length)
    if stage.bias:
        b, db = along_channels(u[1], mids[0]), along_channels(delta[1], mids[0])
        size = 4 * U * (np.abs(b).max() + np.abs(db).max())
        add(0, b + column(c, mids[0]) * db, size)
        add(1, np.broadcast_to(db, mids[0].shape), size)
    # each |z_k| is at most the sum of the products above, so ``slack`` also covers adding them up
    radius = None
    if jet.top is not None:
        reach = column((n + 1) * rows.h, mids[n])
        inner, turn = next(_apply_both(stage, [jet.top.rad], np.abs(kernel), np.abs(change)))
        radius = inner + (column(c, mids[n]) + reach) * turn + reach * stage.apply(np.abs(jet.top.mid), np.abs(change))
    thin = [None if m is None else Point(m, e * UP + TINY) for m, e in zip(mids[:n], errs[:n], strict=True)]
    if mids[n] is None:
        return Jet(tuple(thin), None)
    radius = 0.0 if radius is None else radius
    return Jet(tuple(thin), Ball(mids[n], upward(radius + column(errs[n], mids[n]), fan_in + 8)))


def jet_rows(jet: Jet) -> int:
    """Number of rows of a jet."""
    first = jet.thin[0]
    assert first is not None
    return first.mid.shape[0]


def _apply_both(stage: AffineStage, states: list[Array], first: Array, second: Array) -> Any:
    """(A(x, first), A(x, second)) for each x; one product for all where the stage allows it."""
    if not states:
        return
    x, cuts = np.concatenate(states), np.cumsum([s.shape[0] for s in states])[:-1]
    if isinstance(stage, Convolution) and stage.groups == 1:
        y = replace(stage, channels=2 * stage.channels).apply(x, np.concatenate([first, second]))
        a, b = y[:, : stage.channels], y[:, stage.channels :]
    else:
        a, b = stage.apply(x, first), stage.apply(x, second)
    yield from zip(np.split(a, cuts), np.split(b, cuts), strict=True)


def activate(stage: Activation, jet: Jet, rows: Rows) -> Jet:
    """x = σ(z) by the chain rule for Taylor coefficients, thin at c and as a ball over the part for the top one."""
    n, bound = rows.order, suprema(stage)
    z0 = jet.thin[0]
    assert z0 is not None
    values, errors = coefficients(stage, z0.mid, n + 1)
    lipschitz = [(k + 1) * bound[k + 1] for k in range(n + 2)]
    f = [Point(v, (e + c * z0.err) * UP) for v, e, c in zip(values, errors, lipschitz, strict=True)]
    thin: list[Any] = [f[0]] + [compose(k, f, jet.thin) for k in range(1, n)]
    wide = [jet.over(k, rows) for k in range(n)]
    z, rho = [*wide, jet.top], wide[0].rad if wide[0] is not None else 0.0
    g: list[Any] = [None]
    for k in range(1, n + 1):
        slope = (k + 1) * (np.abs(values[k + 1]) + column(errors[k + 1], z0.mid))
        radius = rho * (slope + comb(k + 2, 2) * bound[k + 2] * rho) + column(errors[k], z0.mid)
        g.append(Ball(values[k], np.minimum(radius * UP, bound[k] + np.abs(values[k]) * UP) + TINY))
    return Jet(tuple(thin), compose(n, g, z))


def compose(k: int, f: Any, z: Any) -> Any:
    """x_k of x = σ(z) from f_j and z_1 … z_k (None: zero): k = 1 … 4.

    x_1 = f_1z_1, x_2 = f_1z_2 + f_2z_1², x_3 = f_1z_3 + 2f_2z_1z_2 + f_3z_1³,
    x_4 = f_1z_4 + f_2(2z_1z_3 + z_2²) + 3f_3z_1²z_2 + f_4z_1⁴.
    """
    square = square_of(z[1])
    powers: dict[int, Any] = {1: z[k]}
    if k == 2:
        powers[2] = square
    elif k == 3:
        powers[2] = times(2.0, times(z[1], z[2]))
        powers[3] = times(square, z[1])
    elif k == 4:
        powers[2] = plus(times(2.0, times(z[1], z[3])), square_of(z[2]))
        powers[3] = times(3.0, times(square, z[2]))
        powers[4] = square_of(square)
    total = None
    for j, power in powers.items():
        total = plus(total, times(f[j], power))
    return total


def times(a: Any, b: Any) -> Any:
    """a·b with None for zero; a may be a number."""
    if a is None or b is None:
        return None
    return b * a if isinstance(a, float) else a * b


def plus(a: Any, b: Any) -> Any:
    """a + b with None for zero."""
    return b if a is None else a if b is None else a + b


def square_of(a: Any) -> Any:
    """a²."""
    if a is None:
        return None
    return a.square() if isinstance(a, Ball) else a * a


def average(stage: Any, jet: Jet) -> Jet:
    """Means and reshapings: rows of weights that are positive and sum to 1, or a single 1."""
    x = jet.thin[0]
    assert x is not None
    terms = int(np.prod(x.mid.shape[2:])) if isinstance(stage, GlobalAveragePool) else 1
    terms = int(np.prod(stage.windows.size)) if isinstance(stage, AveragePool) else terms
    slack = gamma(terms + 2) if terms > 1 else 0.0

    def mean(x: Point | None) -> Point | None:
        return None if x is None else Point(stage.forward(x.mid, ()), (x.err + slack * x.largest) * UP)

    top = jet.top
    if top is not None:
        rounding = column(slack * Point(top.mid, np.zeros(top.mid.shape[0])).largest, stage.forward(top.mid, ()))
        top = Ball(stage.forward(top.mid, ()), upward(stage.forward(top.rad, ()) + rounding, terms + 4))
    return Jet(tuple(mean(x) for x in jet.thin), top, jet.moving)


def pixels(stage: Pixels, jet: Jet) -> Jet:
    """(x/255 − mean)/std of the images: data, but for three roundings."""
    x = jet.thin[0]
    assert x is not None
    least = min(stage.std)
    size = (x.largest / 255 + max(map(abs, stage.mean))) / least
    error = (x.err / 255 / least + 8 * U * size) * UP
    return Jet((Point(stage.forward(x.mid, ()), error), *jet.thin[1:]), None, moving=False)


def weighted_sum(stage: WeightedSum, jets: list[Jet]) -> Jet:
    """Σ_j α_j x_j."""

    def total(terms: Iterable[Any]) -> Any:
        scaled = (a if w == 1 else times(w, a) for w, a in zip(stage.weights, terms, strict=True))
        return reduce(plus, scaled)

    thin = zip(*(jet.thin for jet in jets), strict=True)
    return Jet(tuple(map(total, thin)), total(jet.top for jet in jets))


def enclose_rows(network: Network, loss: Loss, u: Any, delta: Any, x: Array, y: Array, rows: Rows) -> list[Any]:
    """[φ_0 … φ_{n−1} thin at c, φ_n over the part], balls of shape (rows,)."""
    unique, inverse = np.unique(rows.sample, return_inverse=True)
    local = Rows(inverse, rows.c, rows.h, rows.order)
    first = Jet((Point(x[unique], np.zeros(unique.size)), *(None,) * (rows.order - 1)), None, moving=False)

    def step(l: int, jet: Any) -> Jet:
        return enclose_stage(network.stages[l], jet, u[l], delta[l], local)

    jet: Any = spread(network.propagate(step, first, keep=False)[-1], local)
    target = y[rows.sample]
    last = jet.thin[0].ball()
    thin = loss_coefficients(loss, target, [a if a is None else a.ball() for a in jet.thin], last.lower, last.upper)
    wide = [jet.over(k, local) for k in range(rows.order)]
    top = loss_coefficients(loss, target, [*wide, jet.top], wide[0].lower, wide[0].upper)[-1]
    return [loss_value(loss, target, jet.thin[0]), *thin, top]


def in_chunks(f: Callable[[Rows], list[Any]], rows: Rows, chunk: int) -> list[Any]:
    """f over chunks of rows, the balls put together again."""
    parts = []
    for start in range(0, rows.c.size, chunk):
        cut = slice(start, start + chunk)
        parts.append(f(Rows(rows.sample[cut], rows.c[cut], rows.h[cut], rows.order)))
    join = lambda balls: Ball(np.concatenate([b.mid for b in balls]), np.concatenate([b.rad for b in balls]))  # noqa: E731
    return [join(balls) for balls in zip(*parts, strict=True)]
