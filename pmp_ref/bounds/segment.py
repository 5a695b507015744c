"""Enclosure of the loss along a segment [u, w], a posteriori and tight (T7b), and certified steps (T6).

φ(t) = L_B(u + tΔ), Δ = w − u. For rows (sample, part of [0, 1] with centre c and half width h) the jet of the state
x(t) goes through the stages: thin coefficients at c and the ball of the quotient x_[n] over the part, see ``jets``.

Affine stage: z_k = W(c)x_k + Δx_{k−1} at c, and z_[n] = W(c)x_[n] + Δx_{n−1} + sΔx_[n] on the part.
Activation: σ is expanded at z_0 with its own quotient over the range of z on the part, see ``quotients``.
Loss: the same, with log Σ exp for cross-entropy. What comes out is φ_1 … φ_{n−1} at c and φ_[n] over the part.

``intervals`` says what is assumed of the arithmetic. Everything runs in float64 on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from pmp_ref.bounds.intervals import TINY, UP, Array, Ball, Point, U, column, gamma, upward
from pmp_ref.bounds.jets import Jet, Rows, balls, compose, plus, quotient, spread, tails, times, within
from pmp_ref.bounds.quotients import activation_range
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
    if jet.top is not None and rows.wide:
        sources.append((jet.top.mid, 0.0, Point(jet.top.mid, np.zeros(c.shape)).length))
    products = _apply_both(stage, [s[0] for s in sources if s is not None], kernel, change)
    for k, source in enumerate(sources):
        if source is None:
            continue
        by_u, by_d = next(products)
        by_u, by_d = by_u[where], by_d[where]
        err, length = (np.broadcast_to(a, jet_rows(jet))[where] for a in source[1:])
        add(k, by_u + column(c, by_d) * by_d, (sum_u + c * sum_d) * err + slack * (length_u + length_d) * length)
        if k + 1 < n or (k < n and rows.wide):
            add(k + 1, by_d, sum_d * err + slack * length_d * length)
    if stage.bias:
        b, db = along_channels(u[1], mids[0]), along_channels(delta[1], mids[0])
        size = 4 * U * (np.abs(b).max() + np.abs(db).max())
        add(0, b + column(c, mids[0]) * db, size)
        add(1, np.broadcast_to(db, mids[0].shape), size)
    # each |z_k| is at most the sum of the products above, so ``slack`` also covers adding them up
    thin = tuple(None if m is None else Point(m, e * UP + TINY) for m, e in zip(mids[:n], errs[:n], strict=True))
    if mids[n] is None or not rows.wide:
        return Jet(thin, None)
    radius: Any = 0.0
    if jet.top is not None:
        c_, h_ = column(c, jet.top.mid), column(rows.h, jet.top.mid)
        turned = c_ * jet.top.rad + h_ * jet.top.magnitude
        radius = stage.apply(jet.top.rad, np.abs(kernel)) + stage.apply(turned, np.abs(change))
    return Jet(thin, Ball(mids[n], upward(radius + column(errs[n], mids[n]), fan_in + 8)))


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
    """x = σ(z) by the chain rule for Taylor coefficients, thin at c, and by that for quotients over the part."""
    n, bound = rows.order, suprema(stage)
    z0 = jet.thin[0]
    assert z0 is not None
    values, errors = coefficients(stage, z0.mid, n + 1 if rows.wide else n - 1)
    lipschitz = [(k + 1) * bound[k + 1] for k in range(n)]
    f = [Point(v, (e + c * z0.err) * UP) for v, e, c in zip(values, errors, lipschitz, strict=False)]
    thin = tuple([f[0]] + [compose(k, f, jet.thin) for k in range(1, n)])
    if not rows.wide:
        return Jet(thin, None)
    z = balls(jet.thin)
    tail = tails(z, jet.top, rows.h)
    reach = within(tail[1], rows.h)
    if reach is None:
        return Jet(thin, None)
    expansion = [*balls(f), activation_range(stage, z0, values, errors, reach.rad, n)]
    return Jet(thin, quotient(n, expansion, z, tail, rows.h))


def average(stage: Any, jet: Jet) -> Jet:
    """Means and reshapings: rows of weights that are positive and sum to 1 at most, or a single 1."""
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
    local = Rows(inverse, rows.c, rows.h, rows.order, rows.wide)
    first = Jet((Point(x[unique], np.zeros(unique.size)), *(None,) * (rows.order - 1)), None, moving=False)

    def step(l: int, jet: Any) -> Jet:
        return enclose_stage(network.stages[l], jet, u[l], delta[l], local)

    jet: Any = spread(network.propagate(step, first, keep=False)[-1], local)
    target = y[rows.sample]
    return [loss_value(loss, target, jet.thin[0]), *loss_coefficients(loss, target, jet, local)]


def in_chunks(f: Callable[[Rows], list[Any]], rows: Rows, chunk: int) -> list[Any]:
    """f over chunks of rows, the balls put together again."""
    parts = []
    for start in range(0, rows.c.size, chunk):
        cut = slice(start, start + chunk)
        parts.append(f(Rows(rows.sample[cut], rows.c[cut], rows.h[cut], rows.order, rows.wide)))
    join = lambda balls: Ball(np.concatenate([b.mid for b in balls]), np.concatenate([b.rad for b in balls]))  # noqa: E731
    return [join(balls) for balls in zip(*parts, strict=True)]
