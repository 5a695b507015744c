"""T24: enclosures of states, losses and switching functions, and what is concluded from them about steps of a run."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from pmp_ref import layers as L
from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.app.proof_file import description
from pmp_ref.arrays import to_numpy
from pmp_ref.bounds.step import Interval
from pmp_ref.certificate import certify
from pmp_ref.controls import add, arrays_of, map_controls, scaled
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.network import Network, headed
from pmp_ref.problem import Problem, everywhere
from pmp_ref.proofs import IntervalSweep, Step, Verdict, functions, norms, prove_final, prove_step
from pmp_ref.proofs import arithmetic as ar
from pmp_ref.proofs.final import Final, inward, of_groups, of_polynomial, vertex
from pmp_ref.proofs.losses import terminal
from pmp_ref.proofs.maximiser import LIMIT, examine, examine_control, rational
from pmp_ref.proofs.stages import rule as rule_of
from pmp_ref.proofs.step import Closeness, closeness, compare, inner, positive, squared_length, times, widened
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial
from verification import second_program as second
from verification.claim import Case, Check, Context, Outcome, claim, survey
from verification.claims import problems
from verification.claims.forward_maps import switching
from verification.claims.problems import Setting

U = 2.0**-53


# --- T24: whole sweeps ------------------------------------------------------------------------------------------------


def pooled(case: Case) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Windows that overlap and reach over the edge, groups, a skip that scales, global pooling."""
    rng, act = case.rng, case.choose(L.Tanh(), L.Sigmoid(), L.Softplus(), L.SiLU())
    first = L.Convolution(4, (3, 2), stride=(1, 2), padding=(1, 0), groups=2)
    block = L.residual(L.Convolution(4, 3, padding=1), L.Standardise(int(rng.integers(1, 3))), act, step=0.5)
    stages = (
        first,
        act,
        L.AveragePool((3, 2), stride=(1, 1), padding=(1, 0), count_include_pad=bool(case.index % 2)),
        block,
        L.ScaleShift(),
        L.GlobalAveragePool(),
        L.Dense(3),
    )
    return stages, (2, 5, 6)


NETWORKS = (problems.lenet, problems.residual_block, problems.dense_chain, problems.max_pool_net, pooled)


def drawn(case: Case, samples: int = 2) -> tuple[Network, Any, Any, Any, Any]:
    """A network, a loss, controls, images and labels or targets."""
    stages, shape = case.cycle(*NETWORKS)(case)
    network, dtype = Network(tuple(stages), shape), case.choose("float32", "float64")
    x = case.rng.standard_normal((samples, *shape)).astype(dtype)
    if case.index % 4 == 1:  # images as they are
        mean, std = case.rng.uniform(0.1, 0.9, (2, shape[0])).tolist()
        network, x = headed(L.Pixels(mean, std), network), case.rng.integers(0, 256, x.shape, np.uint8)
    u = initial_controls(network, case.index, x, dtype)
    u = map_controls(lambda a: (a + 0.1 * case.rng.standard_normal(a.shape)).astype(dtype), u)
    if case.index % 3 == 2:
        return network, SquaredLoss(), u, x, case.rng.standard_normal((samples, *network.output_shape)).astype(dtype)
    return network, CrossEntropy(), u, x, case.rng.integers(0, network.output_shape[0], samples)


def compared(n: Any, network: Network, loss: Any, u: Any, x: Any, y: Any) -> Iterator[tuple[str, float, float]]:
    """(what, largest |second program − midpoint| over radius, largest radius over the size) of Φ, and of each g."""
    found = IntervalSweep(network, loss, threads=1, chunk=1).switching(u, x, y)
    stages, name = description(network), type(loss).__name__
    reads = [list(read) for read in network.reads]
    controls = [[second.objects(n, a) for a in stage] for stage in u]
    total: list[Any] | None = None
    worst = 0.0
    for s in range(x.shape[0]):
        phi, g = second.sweep(n, stages, reads, name, controls, x[s], y[s], True)
        worst = max(worst, used(n, np.array([phi], object), found.losses.mid[s], found.losses.rad[s]))
        flat = [a for stage in g for a in stage]
        total = flat if total is None else [a + b for a, b in zip(total, flat, strict=True)]
    yield "Φ", worst, float(np.max(found.losses.rad))
    assert total is not None
    for a, ball in zip(total, arrays_of(found.switching), strict=True):
        rad = np.broadcast_to(ball.rad, ball.mid.shape)
        size = max(float(np.max(np.abs(ball.mid))), 1e-3)
        yield "g", used(n, a / n.of(x.shape[0]), ball.mid, rad), float(np.max(rad)) / size


def used(n: Any, exact: Any, mid: Any, rad: Any) -> float:
    """The largest |exact − mid|/rad; a ball of the second program may meet the enclosure anywhere."""
    worst = 0.0
    for a, m, r in zip(exact.reshape(-1), np.ravel(mid), np.broadcast_to(rad, np.shape(mid)).ravel(), strict=True):
        gap = a - n.of(m)
        distance = abs(float(gap.mid()) if hasattr(gap, "mid") else float(gap))
        slack = float(gap.rad()) if hasattr(gap, "rad") else 0.0
        beyond = (distance - slack) / float(r) if r > 0 else math.inf  # a negative radius encloses nothing
        worst = max(worst, beyond if math.isfinite(r) else 0.0)
    return worst


def sweeps(n: Any, case: Case) -> Iterator[Check]:
    """Enclosures of one network against the second program, and that they are thin."""
    network, loss, u, x, y = drawn(case)
    for what, worst, width in compared(n, network, loss, u, x, y):
        yield Check(worst, 1.0, f"{what}: distance of the exact number, in radii")
        smooth = not any(isinstance(s, L.MaxPool | L.LeakyReLU) for s in network.stages)
        yield Check(width, 1e-8 if smooth or what == "Φ" else math.inf, f"{what}: radius")


def locally(n: Any, case: Case) -> Iterator[Check]:
    """Single operations against the second program, where whole sweeps leave most of a radius unused."""
    a, _ = lost_additions(1024)
    root = np.sqrt(a)
    stage = L.Dense(1, bias=False)
    rule, kernel, words = rule_of(stage, 0), (root[None],), description(Network((stage,), (1024,)))[0]
    y, _ = rule.forward(stage, ar.exact(root[None]), kernel, rule.prepare(stage, kernel, (1024,)))
    exact = second.value(n, words, second.objects(n, root), [second.objects(n, root[None])])
    yield Check(used(n, exact, y.mid[0], y.rad[0]), 1.0, "a product whose additions are lost, in radii")
    stage = L.Dense(3)
    k: tuple[Any, ...] = case.rng.standard_normal((3, 4)), case.rng.standard_normal(3)
    rule, words, objects = rule_of(stage, 0), description(Network((stage,), (4,)))[0], [second.objects(n, v) for v in k]
    x, r = case.rng.standard_normal(4), 0.25
    y, _ = rule.forward(stage, ar.Near(x[None], np.array([r])), k, rule.prepare(stage, k, (4,)))
    for way in np.linalg.svd(k[0])[2]:
        exact = second.value(n, words, second.objects(n, x + r * way), objects)
        away = n.sqrt(sum((v - n.of(m)) ** 2 for v, m in zip(exact, y.mid[0], strict=True)))
        yield Check(
            used(n, np.array([away], object), 0.0, y.rad[0]), 1.0, "a point of the ball behind a dense stage, in radii"
        )
    p, q = 0.5, np.array([0.5])
    zero = ar.Near(np.zeros((1, 1)), q)
    stage, k = L.Dense(1, bias=False), (np.ones((1, 1)),)
    rule, words = rule_of(stage, 0), description(Network((stage,), (1,)))[0]
    g, _ = rule.backward(stage, zero, k, rule.prepare(stage, k, (1,)), None, zero, False)
    point = second.objects(n, [p])
    _, exact = second.back(n, words, point, [second.objects(n, k[0])], point)
    yield Check(used(n, exact[0], g[0].mid, g[0].rad), 1.0, "g at a corner of two balls, in radii")
    for mid, rad in (([1.0, 2.0, 4.0], [0.0, 0.0, 0.0]), ([-1.0, 0.0, 0.0], [2.0**-30, 0.0, 0.0])):
        found = ar.mean(ar.Ball(np.array(mid), np.array(rad)))
        for t, end, inside in ((-1, found.lower, 1), (1, found.upper, -1)):
            exact = sum(n.of(m) + t * n.of(v) for m, v in zip(mid, rad, strict=True)) / 3
            outside = n.above(n.of(end), exact) if inside == 1 else n.above(exact, n.of(end))
            yield Check(float(outside is True), 0.0, "the mean of three numbers lies in its interval")
        low, high = ar.outward(Fraction(1, 3), Fraction(1, 3)), n.of(1.0) / 3
        inside_out = n.above(n.of(low.lower), high) is True or n.above(high, n.of(low.upper)) is True
        yield Check(float(inside_out), 0.0, "⅓ lies in its interval")


@claim(
    tag="T24",
    title="Enclosures hold the exact numbers and are thin",
    statement="|Φ_s − Φ̂_s| ≤ r_s, |g_i − ĝ_i| ≤ r_i with r about 10⁻¹²",
    dtypes=("float64",),
)
def enclosures(context: Context) -> Outcome:
    """Statement: the sweep of enclosures holds Φ_s and −∂L_B/∂u of the exact controls and images, within thin radii.

    Hypotheses: drawn networks with every stage, both losses, controls and images in float32 and float64.
    Measured: the distance of the number that a second program, without shared code, finds in decimal arithmetic of 60
    digits, in units of the radius; and the radii.
    """

    def one(case: Case) -> Iterator[Check]:
        n = second.Decimals()
        yield from sweeps(n, case)
        if case.index == 0:
            yield from locally(n, case)

    return survey(context, one, micro=5, quick=15, full=60)


@claim(
    tag="T24d",
    title="The same against Arb's balls",
    statement="every enclosure meets the ball of the second program",
    dtypes=("float64",),
)
def against_arb(context: Context) -> Outcome:
    """Statement: every enclosure of the sweep meets the ball that Arb finds for the same number.

    Hypotheses: as T24; single operations too, with radii that are used up; the library python-flint is installed (the
    extra ``proof``).
    Measured: the part of the distance that Arb's radius does not cover, in units of the radius of the enclosure.
    """
    if importlib.util.find_spec("flint") is None:
        note = "not applicable: python-flint is not installed (pip install '.[proof]')"
        return Outcome(0.0, 0.0, True, 0.0, 0, "", notes=(note,), applicable=False)

    def one(case: Case) -> Iterator[Check]:
        yield from locally(second.Balls(), case)
        yield from sweeps(second.Balls(), case)

    return survey(context, one, micro=5, quick=15, full=100)


# --- T24a: stage by stage, with wide balls ----------------------------------------------------------------------------

STAGES: tuple[tuple[Any, tuple[int, ...]], ...] = (
    (L.Dense(3), (5,)),
    (L.Dense(1, bias=False), (6,)),
    (L.ScaleShift(), (3, 2, 4)),
    (L.ScaleShift(bias=False), (4,)),
    (L.Convolution(4, (3, 2), stride=(1, 2), padding=(1, 0), groups=2), (2, 5, 6)),
    (L.Convolution(3, 2, dilation=(2, 1), bias=False), (2, 5, 4)),
    (L.Convolution(2, 5, padding=2), (1, 7, 6)),
    (L.Tanh(), (2, 3, 4)),
    (L.Sigmoid(), (7,)),
    (L.Softplus(), (2, 3, 2)),
    (L.SiLU(), (6,)),
    (L.ReLU(), (8,)),
    (L.LeakyReLU(0.3), (2, 2, 3)),
    (L.AveragePool((2, 2), stride=(1, 2)), (2, 5, 4)),
    (L.AveragePool((3, 2), stride=(2, 1), padding=(1, 0)), (2, 5, 4)),
    (L.AveragePool((3, 2), padding=1, count_include_pad=False), (1, 1, 2)),
    (L.GlobalAveragePool(), (3, 4, 5)),
    (L.MaxPool((2, 2), stride=(1, 2)), (2, 5, 4)),
    (L.MaxPool((3, 2), stride=(2, 1), padding=1), (2, 5, 4)),
    (L.Flatten(), (2, 3, 2)),
    (L.Pixels((0.25, 0.5), (0.125, 0.75)), (2, 4, 3)),
    (L.Standardise(2), (4, 3, 2)),
)


def worst_direction(rng: np.random.Generator, stage: Any, x: Any, u: Any, way: Any) -> Any:
    """A unit direction per sample along which the stage (or its adjoint) stretches most, by the power method."""
    v = rng.standard_normal(way.shape)
    for _ in range(30):
        v = stage.costate(x, u, stage.tangent(x, u, v, map_controls(np.zeros_like, (u,))[0])) + 1e-300
        v = v / lengths(v)
    return v


def lengths(v: Any) -> Any:
    """‖v_s‖, shaped to divide v."""
    return ar.column(np.sqrt(np.sum(v.reshape(v.shape[0], -1) ** 2, axis=1)), v)


def unit(rng: np.random.Generator, shape: Any) -> Any:
    """A unit direction for each sample."""
    v = rng.standard_normal(shape)
    return v / lengths(v)


def balls(case: Case) -> Iterator[Check]:
    """One stage: points of the entering balls against the leaving ones."""
    stage, shape = case.cycle(*STAGES)
    rng, samples = case.rng, 2
    u = tuple(rng.standard_normal(s) for s in stage.control_shapes(shape))
    rule, free = rule_of(stage, 0), map_controls(np.zeros_like, (u,))[0]
    sizes = rule.prepare(stage, u, shape)
    x = rng.standard_normal((samples, *shape))
    if isinstance(stage, L.MaxPool | L.LeakyReLU):
        x = np.round(2 * x) / 2  # ties and kinks
    r = float(case.choose(1e-3, 0.3))
    near = ar.Near(x, np.full(samples, r))
    y, note = rule.forward(stage, near, u, sizes)
    ways = [unit(rng, x.shape), worst_direction(rng, stage, x, u, x), -worst_direction(rng, stage, x, u, x)]
    for way in ways:
        moved = stage.forward(x + r * way, u)
        yield Check(float(np.max(ar.norm(moved - y.mid) / y.rad)), 1 + 1e-12, f"{stage}: Λ, in radii")
    linear = isinstance(stage, L.AffineStage | L.LinearStage | L.Pixels)
    if linear and not isinstance(stage, L.Convolution):
        stretched = ar.norm(stage.tangent(x, u, ways[1], free)) * r
        yield Check(float(np.min(stretched / y.rad)), 0.5, f"{stage}: the radius is not far too wide", sense=">=")
    p = rng.standard_normal(y.mid.shape)
    q = float(case.choose(1e-3, 0.3))
    for costates, state in ((p, x), (0 * p, 0 * x)):  # the second: only the product of both radii is left
        if isinstance(stage, L.Standardise) and not state.any():
            continue
        near = ar.Near(state, np.full(samples, r))
        _, note = rule.forward(stage, near, u, sizes)
        away = ar.Near(costates, np.full(samples, q))
        g, back = rule.backward(stage, near, u, sizes, note, away, True)
        for way in (unit(rng, x.shape), ways[1], np.sign(x) / lengths(np.sign(x)) if x.all() else ways[0]):
            inside = state + r * way
            for turn in (unit(rng, p.shape), stage.tangent(state, u, way, free)):
                pull = costates + q * turn / np.maximum(lengths(turn), 1e-30)
                exact = stage.costate(inside, u, pull)
                yield Check(
                    float(np.max(ar.norm(exact - back.mid) / back.rad)), 1 + 1e-12, f"{stage}: costate, in radii"
                )
                for a, b in zip(stage.switching(inside, u, pull), g, strict=True):
                    share = np.abs(a - b.mid) / np.broadcast_to(b.rad, a.shape)
                    yield Check(float(np.max(share)), 1 + 1e-12, f"{stage}: switching function, in radii")


def lone_roundings(n: Any, case: Case) -> Iterator[Check]:
    """One stage on states without a radius, small and large: its own roundings."""
    stage, shape = case.cycle(*STAGES)
    rng, words = case.rng, description(Network((stage,), shape))[0]
    u = tuple(rng.standard_normal(s) for s in stage.control_shapes(shape))
    rule, exactly = rule_of(stage, 0), [second.objects(n, a) for a in u]
    sizes = rule.prepare(stage, u, shape)
    for size in (2.0**-20, 2.0**12):
        own = 1e-50 * size  # what the second program errs by
        x = ar.exact(size * rng.standard_normal((1, *shape)))
        y, note = rule.forward(stage, x, u, sizes)
        p = ar.exact(size * rng.standard_normal(y.mid.shape))
        g, back = rule.backward(stage, x, u, sizes, note, p, True)
        at = second.objects(n, x.mid[0])
        costate, slopes = second.back(n, words, at, exactly, second.objects(n, p.mid[0]))
        for what, exact, found in (("Λ", second.value(n, words, at, exactly), y), ("costate", costate, back)):
            yield Check(
                away(n, exact, found.mid[0]), float(found.rad[0]) + own, f"{stage}: {what}, states of size {size:g}"
            )
        for exact, ball in zip(slopes, g, strict=True):
            yield Check(used(n, exact, ball.mid, ball.rad), 1.0, f"{stage}: switching function, size {size:g}")


def away(n: Any, exact: Any, mid: Any) -> float:
    """‖exact − mid‖₂."""
    return float(n.sqrt(sum((a - n.of(m)) ** 2 for a, m in zip(exact.ravel(), mid.ravel(), strict=True))))


def products_of_radii(case: Case) -> Iterator[Check]:
    """g = p x of one entry each with both midpoints 0: the radius is at least the product of both."""
    stage = L.Dense(1, bias=False)
    rule, u = rule_of(stage, 0), (np.ones((1, 1)),)
    sizes = rule.prepare(stage, u, (1,))
    r, q = (float(v) for v in case.rng.uniform(0.1, 2, 2))
    x, p = ar.Near(np.zeros((1, 1)), np.array([r])), ar.Near(np.zeros((1, 1)), np.array([q]))
    g, _ = rule.backward(stage, x, u, sizes, None, p, False)
    yield Check(r * q, float(g[0].rad[0, 0]), "product of two radii")


def sums_of_states(case: Case) -> Iterator[Check]:
    """Points of the balls of two states, in opposite directions, and of a costate, behind a sum with weights."""
    stage, rng = L.WeightedSum((1.0, -0.5)), case.rng
    rule, (a, b, p) = rule_of(stage, 0), rng.standard_normal((3, 2, 3, 4))
    r, q, way = np.array([0.5, 1e-3]), np.array([0.25, 0.5]), unit(rng, p.shape)
    y, note = rule.forward(stage, (ar.Near(a, r), ar.Near(b, 2 * r)), (), None)
    reach = ar.column(r, way) * way
    moved = stage.forward((a + reach, b - 2 * reach), ())
    yield Check(float(np.max(ar.norm(moved - y.mid) / y.rad)), 1 + 1e-12, f"{stage}: Λ, in radii")
    _, back = rule.backward(stage, (ar.Near(a, r), ar.Near(b, 2 * r)), (), None, note, ar.Near(p, q), True)
    for exact, found in zip(stage.adjoint((a, b), p + ar.column(q, way) * way), back, strict=True):
        share = ar.norm(exact - found.mid) / np.maximum(found.rad, 1e-300)
        yield Check(float(np.max(share)), 1 + 1e-12, f"{stage}: costate, in radii")


def roundings_of_losses(n: Any, case: Case) -> Iterator[Check]:
    """The same at the end of the network."""
    rng = case.rng
    for size in (2.0**-20, 2.0**12):
        x, y = ar.exact(size * rng.standard_normal((1, 4))), size * rng.standard_normal((1, 4))
        for loss, target in ((CrossEntropy(), rng.integers(0, 4, 1)), (SquaredLoss(), y)):
            value, slope = terminal(loss, x, target, True)
            assert slope is not None
            phi, gradient = second.terminal(n, type(loss).__name__, second.objects(n, x.mid[0]), target[0])
            yield Check(away(n, np.array([phi]), value.mid), float(value.rad[0]), f"{loss}: Φ, size {size:g}")
            yield Check(away(n, gradient, slope.mid[0]), float(slope.rad[0]), f"{loss}: ∇Φ, size {size:g}")


def end_of_network(case: Case) -> Iterator[Check]:
    """Losses of points of a ball."""
    rng = case.rng
    for loss, y in ((CrossEntropy(), rng.integers(0, 4, 3)), (SquaredLoss(), rng.standard_normal((3, 4)))):
        x = 2 * rng.standard_normal((3, 4))
        for r in (1e-3, 0.3):
            value, slope = terminal(loss, ar.Near(x, np.full(3, r)), y, True)
            assert slope is not None
            steep = loss.gradient(x, y)
            for way in (unit(rng, x.shape), steep / lengths(steep), -steep / lengths(steep)):
                exact = loss.values(x + r * way, y)
                yield Check(float(np.max(np.abs(exact - value.mid) / value.rad)), 1 + 1e-12, f"{loss}: Φ, in radii")
                turned = loss.gradient(x + r * way, y)
                yield Check(float(np.max(ar.norm(turned - slope.mid) / slope.rad)), 1 + 1e-12, f"{loss}: ∇Φ, in radii")


@claim(
    tag="T24a",
    title="Every rule maps its balls into its balls",
    statement="‖x − x̂‖ ≤ r, ‖p − p̂‖ ≤ q ⇒ Λ(x), costate and switching function lie in their enclosures",
    dtypes=("float64",),
)
def rules(context: Context) -> Outcome:
    """Statement: the rule of every stage and loss maps points of the entering ball into the leaving one.

    Hypotheses: every stage; radii far above rounding, so that it is the radii that are tested; midpoints with ties and
    kinks; also midpoints 0, where only the product of two radii is left; and radii 0, where only the roundings of the
    stage are left, for states of sizes 10⁻⁶ and 4,096.
    Measured: the map of the stage at points on the border of the ball, in random directions and in the one that it
    stretches most, in units of the radius; for linear stages also that the radius is used up to a half; without radii
    the distance from the second program's numbers of 60 digits.
    """

    def one(case: Case) -> Iterator[Check]:
        yield from balls(case)
        yield from lone_roundings(second.Decimals(), case)
        if case.index % 9 == 0:
            yield from products_of_radii(case)
            yield from sums_of_states(case)
            yield from end_of_network(case)
            yield from roundings_of_losses(second.Decimals(), case)

    return survey(context, one, micro=len(STAGES), quick=4 * len(STAGES), full=20 * len(STAGES))


# --- T24b: the arithmetic ---------------------------------------------------------------------------------------------


def exact_square(a: Any) -> Fraction:
    """‖a‖² exactly."""
    return sum((Fraction(float(v)) ** 2 for v in np.ravel(a)), Fraction(0))


def covers(low: Fraction, high: Fraction, found: Interval) -> list[Check]:
    """That an interval holds [low, high], exactly."""
    return [
        Check(0.0 if Fraction(found.lower) <= low else 1.0, 0.0, "lower end"),
        Check(0.0 if Fraction(found.upper) >= high else 1.0, 0.0, "upper end"),
    ]


def lost_additions(n: int) -> tuple[Any, Any]:
    """A vector 1, t, t, … whose sum, formed from the left, loses every t; and the vector of ones."""
    a = np.full(n, 0.49 * U)
    a[0] = 1.0
    return a, np.ones(n)


def arithmetic(case: Case) -> Iterator[Check]:
    """Norms, means, sums and products against exact rationals."""
    rng = case.rng
    a, b = rng.standard_normal((2, 3, 2, 5)) * 10.0 ** rng.integers(-6, 6, (2, 1, 1, 1))
    for s in range(3):
        bound = Fraction(float(ar.norm(a)[s])) ** 2
        yield Check(float(exact_square(a[s]) > bound), 0.0, "norm")
        for c in range(2):
            yield Check(float(exact_square(a[s, c]) > Fraction(float(ar.norms(a)[s, c])) ** 2), 0.0, "norms")
    yield Check(float(np.max(ar.norm(a) / np.sqrt(np.sum(a**2, axis=(1, 2))))), 1 + 1e-13, "norm is tight")
    x, y = ar.Near(a, rng.uniform(0, 1e-16, 3)), ar.Near(b, np.zeros(3))
    for z, exactly in ((ar.add(x, y), lambda p, q: p + q), (ar.scale(1 / 3, x), lambda p, q: Fraction(1 / 3) * p)):
        for s in range(3):
            terms = zip(a[s].ravel(), b[s].ravel(), z.mid[s].ravel(), strict=True)
            error = sum(((exactly(Fraction(p), Fraction(q)) - Fraction(m)) ** 2 for p, q, m in terms), Fraction(0))
            left = Fraction(float(z.rad[s])) - Fraction(float(x.rad[s])) * (
                1 if exactly(1, 1) == 2 else Fraction(1 / 3)
            )
            yield Check(float(left < 0 or error > left**2), 0.0, "sum and multiple of states")
    one = ar.Near(a, np.ones(3))
    for z, least in ((ar.add(one, y), 1.0), (ar.add(y, one), 1.0), (ar.scale(0.5, one), 0.5)):
        yield Check(float(np.min(z.rad)), least, "sums and multiples keep the radius", sense=">=")
    mid, rad = rng.standard_normal(7) * 10.0 ** rng.integers(-9, 9), rng.uniform(0, 1e-9, 7)
    ends = [
        sum((Fraction(m) + t * Fraction(r) for m, r in zip(mid, rad, strict=True)), Fraction(0)) / 7 for t in (-1, 1)
    ]
    yield from covers(ends[0], ends[1], ar.mean(ar.Ball(mid, rad)))
    third = Fraction(1, 3) * Fraction(float(mid[0]))
    low, high = sorted((third, third * Fraction(3, 2)))
    yield from covers(low, high, ar.outward(low, high))
    first, second = Interval(*sorted(mid[:2].tolist())), Interval(*sorted(mid[2:4].tolist()))
    low, high = Fraction(first.lower) + Fraction(second.lower), Fraction(first.upper) + Fraction(second.upper)
    yield from covers(low, high, widened(first, second))
    low, high = (Fraction(-1, 3) * Fraction(v) for v in (first.upper, first.lower))
    yield from covers(low, high, times(Fraction(-1, 3), first))


def vectors(case: Case) -> Iterator[Check]:
    """τ and ⟨g, w − u⟩ of controls, and the roundings of a product whose additions are lost."""
    rng = case.rng
    u, w, d, g = (((rng.standard_normal(9) * 10.0 ** rng.integers(-5, 5, 9),),) for _ in range(4))
    d = map_controls(np.abs, d)
    pairs = list(zip(u[0][0], w[0][0], d[0][0], g[0][0], strict=True))
    tau = sum((Fraction(c) * (Fraction(b) - Fraction(a)) ** 2 for a, b, c, _ in pairs), Fraction(0))
    yield from covers(tau, tau, squared_length(u, w, d))
    rad = np.abs(g[0][0]) * 1e-3
    centre = sum((Fraction(s) * (Fraction(b) - Fraction(a)) for a, b, _, s in pairs), Fraction(0))
    reach = sum(
        (Fraction(r) * abs(Fraction(b) - Fraction(a)) for (a, b, _, _), r in zip(pairs, rad, strict=True)), Fraction(0)
    )
    yield from covers(centre - reach, centre + reach, inner(((ar.Ball(g[0][0], rad),),), u, w))
    n = 4096
    a, ones = lost_additions(n)
    stage = L.Dense(1, bias=False)
    rule, kernel = rule_of(stage, 0), (ones[None],)
    for x in (ar.exact(a[None]), ar.exact(np.sqrt(a)[None])):
        k = kernel if x.mid[0, 1] < 1e-10 else (np.sqrt(a)[None],)
        y, _ = rule.forward(stage, x, k, rule.prepare(stage, k, (n,)))
        exactly = sum((Fraction(p) * Fraction(q) for p, q in zip(x.mid[0], k[0][0], strict=True)), Fraction(0))
        error = abs(exactly - Fraction(float(y.mid[0, 0])))
        yield Check(float(error / Fraction(float(y.rad[0]))), 1.0, "a product whose additions are lost, in radii")
    tall = L.Dense(n, bias=False)  # the adjoint adds over the neurons
    column = (np.sqrt(a)[:, None],)
    rule = rule_of(tall, 0)
    _, back = rule.backward(
        tall,
        ar.exact(np.ones((1, 1))),
        column,
        rule.prepare(tall, column, (1,)),
        None,
        ar.exact(np.sqrt(a)[None]),
        True,
    )
    exactly = exact_square(np.sqrt(a))
    assert back is not None
    error = abs(exactly - Fraction(float(back.mid[0, 0])))
    yield Check(float(error / Fraction(float(back.rad[0]))), 1.0, "the adjoint of such a product, in radii")


def library(case: Case) -> Iterator[Check]:
    """tanh and exp against 60 digits, and guesses of a logarithm judged; norms of kernels against NumPy's."""
    rng, n = case.rng, second.Decimals()
    x = np.concatenate([rng.uniform(-21, 21, 40), rng.uniform(-0.1, 0.1, 40), [0.0, 0.0078125, -0.0234375, 25.0]])
    for a, t in zip(x, functions.tanh(x), strict=True):
        exact = n.tanh(n.of(a))
        gap = abs(float((n.of(t) - exact) / exact)) if a else abs(t)
        yield Check(gap, functions.TANH, "relative error of tanh")
    x = -np.abs(np.concatenate([rng.uniform(0, 40, 40), rng.uniform(0, 0.1, 20), [0.0, 690.0]]))
    for a, e in zip(x, functions.exp(x), strict=True):
        exact = n.exp(n.of(a))
        yield Check(abs(float((n.of(e) - exact) / exact)), functions.EXP, "relative error of exp")
    y = rng.uniform(1, 10, 20)
    for guess in (np.log(y), np.log(y) * (1 + 1e-9), np.log(y) + 0.1):
        for v, w, bound in zip(y, guess, functions.log_error(guess, y, 0.0), strict=True):
            yield Check(abs(float(n.of(w) - n.log(n.of(v)))), float(bound), "error of a logarithm")
    for shape in ((4, 7), (6, 3)):
        k = rng.standard_normal(shape)
        top = float(np.linalg.norm(k, 2))
        yield Check(top / norms.spectral(k), 1 + 1e-13, "‖K‖₂ of a matrix")
        yield Check(norms.spectral(k) / top, 1.25, "‖K‖₂ is not far too large")
        yield Check(float(np.linalg.norm(k)) / norms.row_norms(k), 1.0, "‖K‖_F")
    stage = L.Convolution(3, (3, 2), stride=case.choose(1, 2), padding=1, dilation=case.choose(1, 2))
    image = (2, 9, 8)
    k = rng.standard_normal((3, 2, 3, 2))
    v = rng.standard_normal((1, *image))
    for _ in range(60):
        v = stage.costate(v, (k,), stage.apply(v, k))
        v /= np.sqrt(np.sum(v * v))
    top, bound = float(np.sqrt(np.sum(stage.apply(v, k) ** 2))), norms.convolution_norm(stage, k, image)
    yield Check(top / bound, 1 + 1e-12, "‖A(·, K)‖ of a convolution")
    yield Check(bound / top, 3.0, "‖A(·, K)‖ is not far too large")
    yield Check(abs(bound - norms.operator_norm(stage, k, image)), 0.0, "the norm of a convolution is taken for it")
    stage = L.Convolution(3, (3, 2), stride=(3, 2))  # windows side by side: ‖K‖₂ itself, and of a product ab* ‖a‖‖b‖
    a, b = rng.standard_normal(3), rng.standard_normal((2, 3, 2))
    top, bound = (
        float(np.linalg.norm(a) * np.linalg.norm(b)),
        norms.convolution_norm(stage, np.multiply.outer(a, b), image),
    )
    yield Check(top / bound, 1 + 1e-12, "‖A(·, K)‖ where no windows overlap")
    yield Check(bound / top, 1.25, "which is not far too large")
    wave = np.exp(2j * np.pi * np.outer(np.arange(9), np.arange(4)) / 16)
    yield Check(float(np.max(np.abs(norms.roots(16, 4, 9) - wave))), norms.ROOT, "roots of unity")


@claim(
    tag="T24b",
    title="Outward rounding",
    statement="norms, means, products, τ, ⟨g, Δ⟩ and functions stay within their stated errors",
    dtypes=("float64",),
)
def rounding(context: Context) -> Outcome:
    """Statement: every bound of a rounding error is one, and no interval is rounded inwards.

    Hypotheses: numbers of mixed size; a product of 4,096 terms whose additions are lost.
    Measured: exact rationals, and 60 digits for tanh, exp and log, against what is computed; the norms of kernels
    against NumPy's and the power method.
    """

    def one(case: Case) -> Iterator[Check]:
        yield from arithmetic(case)
        yield from vectors(case)
        yield from library(case)

    return survey(context, one, micro=1, quick=20, full=200)


# --- T24c: verdicts ---------------------------------------------------------------------------------------------------


def made(setting: Setting, eps: float, metric: Any = None) -> Step:
    """The step that the method would make at ε, with its own g."""
    problem = setting.problem
    g = switching(problem.sweeper.forward_backward(setting.controls, setting.x, setting.y))
    w = maximise(problem, setting.controls, g, eps, problem.rho, metric)
    return Step(setting.controls, w, g, g, metric, eps, problem.rho, setting.x, setting.y)


def descent_verdicts(case: Case) -> Iterator[Check]:
    """Steps that fall, and their reverse; tests that ask for too much; enclosures that know nothing."""
    setting = problems.dense(case, regulariser=case.choose(L0(), L1(), Polynomial(0.5, 0.25, 0.75)), admissible=Box())
    problem = setting.problem
    sweep = IntervalSweep(problem.network, problem.loss, threads=1)
    step = made(setting, 1e4)
    if all(np.array_equal(to_numpy(a), to_numpy(b)) for a, b in zip(arrays_of(step.u), arrays_of(step.w), strict=True)):
        return
    for test in (AbsoluteTest(), RelativeTest(), NoTest()):
        proof = prove_step(problem, test, sweep, step, backward=True)
        yield is_(proof.descent.verdict, Verdict.PROVEN, f"{test} at a large ε")
        again = prove_step(problem, test, sweep, step, before=proof.before)
        yield Check(float(again.descent != proof.descent), 0.0, "a known enclosure changes nothing")
        yield Check(float(again.before is not proof.before), 0.0, "and is not made again")
    true = float(np.mean(to_numpy(problem.sweeper.forward(step.w, step.x, step.y).losses))) + step.rho * float(
        problem.penalty(step.w)
    )
    J = proof.descent.J_after
    yield Check(abs(true - (J.lower + J.upper) / 2), 1e-9, "J(w)")
    yield is_(proof.verdict, Verdict.PROVEN, "the step")
    yield Check(float(proof.closeness.distance), 1e-8, "g in float64 is close to its enclosure")
    back = Step(step.w, step.u, step.direction, step.switching, None, step.eps, step.rho, step.x, step.y)
    reverse = prove_step(problem, AbsoluteTest(), sweep, back)
    yield is_(reverse.descent.verdict, Verdict.REFUTED, "the way back rises")
    yield is_(reverse.verdict, Verdict.REFUTED, "so the step is refuted")
    turned = map_controls(lambda a: -a, step.direction)
    astray = Step(step.u, step.w, turned, step.switching, None, step.eps, step.rho, step.x, step.y)
    found = prove_step(problem, AbsoluteTest(), sweep, astray)
    yield is_((found.descent.verdict, found.verdict), (Verdict.PROVEN, Verdict.REFUTED), "not along the direction")
    greedy = prove_step(problem, AbsoluteTest(1e9), sweep, step)
    yield is_(greedy.descent.verdict, Verdict.REFUTED, "η far too large")
    # η so that J(w) − J(u) = −ητ up to rounding: neither can be proven
    d = proof.descent
    exactly = prove_step(problem, AbsoluteTest(-0.5 * (d.delta_J.lower + d.delta_J.upper) / d.tau.upper), sweep, step)
    yield is_(exactly.descent.verdict, Verdict.UNDECIDED, "equality is undecided")
    yield Check(exactly.descent.missing, 0.0, "the missing width", sense=">=")
    yield Check(exactly.descent.missing, 2 * d.delta_J.width + 1e-9 * abs(d.bound.lower), "the missing width is small")
    with np.errstate(over="ignore"):
        far = map_controls(lambda a: 1e308 * a, step.w)
    wide = Step(
        step.u,
        far,
        step.direction,
        step.switching,
        None,
        1.0,
        0.0,
        step.x,
        step.y,
    )
    yield is_(prove_step(problem, AbsoluteTest(), sweep, wide).descent.verdict, Verdict.UNDECIDED, "no number")
    identity = prove_step(problem, AbsoluteTest(), sweep, made(setting, 50.0), identity=2).identity
    if identity is not None:
        yield is_(identity.verdict, Verdict.PROVEN, "the identity of T5")
        yield Check(identity.left.width, 1e-9, "its left side is thin")


def is_(found: Any, expected: Any, words: str) -> Check:
    """A comparison of two words."""
    return Check(float(found != expected), 0.0, f"{words}: {found}, expected {expected}")


REGULARISERS: tuple[tuple[Any, Any], ...] = (
    (L0(), Box()),
    (L1(), Box()),
    (L2(), Box()),
    (Polynomial(0.5, 0.25, 0.75), Box(-0.5, 0.75)),
    (L0(), Box(-0.5, 0.75)),
    (L1(), Box(0.25, 1.0)),
    (L2(), Box(-1.0, -0.25)),
    (NoPenalty(), Box(-0.5, 0.5)),
    (LHalf(), Box()),
    (LTwoThirds(), Box()),
    (L0(), FiniteSet((-1.0, 0.0, 1.0))),
    (GroupL0(), Box()),
)


def maximiser_verdicts(case: Case) -> Iterator[Check]:
    """The method's w is proven; a w of another ε, ρ or g, or a few units away, is not."""
    r, admissible = case.cycle(*REGULARISERS)
    rng, dtype = case.rng, case.choose("float32", "float64")
    u = admissible.project((0.3 * rng.standard_normal((8, 7)) * (rng.random((8, 7)) < 0.5)).astype(dtype))
    g = (rng.standard_normal(u.shape) * 10.0 ** rng.integers(-3, 1, u.shape)).astype(dtype)
    d = (10.0 ** rng.uniform(-1, 1, u.shape)).astype(dtype)
    eps, rho = 0.7, 4.0 if isinstance(r, GroupL0) else 0.01
    of = partial(examine_control, r, rho, admissible, u)
    w = r.argmax(u, g, eps * d, rho, admissible)
    found = of(w, g, eps, d)
    power = isinstance(r, LHalf | LTwoThirds)
    if not (power and dtype == "float64"):  # there the powers are not known to the last place
        yield is_(found.verdict, Verdict.PROVEN, f"{r} on {admissible} in {dtype}")
        yield Check(max(found.deficit, found.distance), LIMIT, "units")
    if type(r) is Polynomial and isinstance(admissible, Box):
        for at in ((0, 0), (3, 4), (7, 6)):
            here, there, pull = (Fraction(float(v[at])) for v in (u, w, g))
            weight = Fraction(eps) * Fraction(float(d[at]))
            unit_of = float(np.finfo(dtype).eps) / 2
            exactly = rational((r.a0, r.a1, r.a2), Fraction(rho), admissible, here, there, pull, weight, unit_of)
            yield Check(max(exactly), LIMIT, "units, in exact rationals")
    for words, other in (
        ("twice ε", r.argmax(u, g, 2 * eps * d, rho, admissible)),
        ("half ε", r.argmax(u, g, 0.5 * eps * d, rho, admissible)),
        ("9ρ", r.argmax(u, g, eps * d, 9 * rho, admissible)),
        ("no ρ", r.argmax(u, g, eps * d, 0.0, admissible)),
        ("−g", r.argmax(u, -g, eps * d, rho, admissible)),
    ):
        if not np.array_equal(other, w):
            yield is_(of(other, g, eps, d).verdict, Verdict.REFUTED, f"{r} on {admissible}, {words}")
    tied = np.full((1, 1), 1.0, dtype), np.zeros((1, 1), dtype)  # u = 1, g = 0: keeping and dropping gain the same
    if type(r) is Polynomial and (r.a0, r.a1) == (1, 0) and admissible == Box():
        for choice in (1.0, 0.0):
            one = examine_control(r, 0.7, admissible, tied[0], np.full((1, 1), choice, dtype), tied[1], 0.7, 1.0)
            yield is_((one.verdict, one.ties), (Verdict.PROVEN, 1), "either side of a tie")
    outside = Box(-0.1, 0.1)
    try:
        examine_control(L0(), rho, outside, 0 * u.astype("float32"), np.full(u.shape, 0.1, "float32"), g, eps, 1.0)
        yield Check(1.0, 0.0, "0.1 in float32 lies outside [−0.1, 0.1]")
    except InputError:
        pass


def last_controls(case: Case) -> Iterator[Check]:
    """ε* of the certificate lies in the proven interval, which is thin."""
    r, admissible = case.cycle(
        (L0(), Box()), (L0(), Box(-0.4, 0.4)), (Polynomial(0.5, 0.01, 0.5), Box(-0.4, 0.4)), (GroupL0(), Box()),
        (L0(), FiniteSet((-0.5, 0.0, 0.5))), (L1(), Box()), (L1(), Box(-0.4, 0.4)),
    )  # fmt: skip
    network = Network((L.Dense(4), L.Tanh(), L.Dense(3, bias=False)), (5,))
    x, y = case.rng.standard_normal((6, 5)), case.rng.integers(0, 3, 6)
    sets = everywhere(network, admissible)
    weights = everywhere(network, 1.0) if case.index % 2 else None
    problem = Problem(network, rho=0.01, regulariser=r, admissible=sets, weights=weights)
    u = map_controls(
        lambda a: case.choose(1.0, 3.0) * a * (case.rng.random(a.shape) < 0.6), initial_controls(network, case.index, x)
    )
    u = map_controls(lambda a, s: s.project(a), u, sets)
    found: Final = prove_final(problem, IntervalSweep(network, problem.loss, threads=1), u, x, y, 0.01)
    c = certify(problem, u, x, y, 1.0)
    low, high = found.eps_star.lower, found.eps_star.upper
    if math.isinf(c.eps_star):
        yield is_((low, high), (math.inf, math.inf), "ε* = ∞")
        return
    yield Check(low, c.eps_star * (1 + 1e-9), "lower end of ε*")
    yield Check(c.eps_star, high * (1 + 1e-9), "upper end of ε*")
    yield Check(high - low, 1e-7 * (1 + c.eps_star), "its width")
    residual = math.hypot(c.residual_support, c.residual_unpenalised)
    yield Check(found.residual.lower, residual * (1 + 1e-9), "lower end of the residual")
    yield Check(residual, found.residual.upper * (1 + 1e-9), "upper end of the residual")
    yield Check(abs(c.J - 0.5 * (found.J.lower + found.J.upper)), 1e-10, "J")


@claim(
    tag="T24c",
    title="Verdicts",
    statement="proven, undecided, refuted; deficits of maximisers; an interval of ε*",
    dtypes=("float64",),
)
def verdicts(context: Context) -> Outcome:
    """Statement: a step is proven only if its inequality holds and w maximises, refuted only if one of them does not.

    Hypotheses: small dense networks; every regulariser and admissible set; float32 and float64.
    Measured: verdicts on steps at a large ε, on their reverse, on a test with equality, on maximisers with another ε,
    ρ or g, on either side of a tie; ε* of the certificate against the proven interval.
    """

    def one(case: Case) -> Iterator[Check]:
        if case.index % 4 == 0:
            yield from descent_verdicts(case)
        yield from maximiser_verdicts(case)
        yield from last_controls(case)
        if case.index == 0:
            yield from small_parts()

    return survey(context, one, micro=12, quick=36, full=240)


def small_parts() -> Iterator[Check]:
    """Comparisons of intervals, and distances from enclosures, on numbers by hand."""
    one, two, three = Interval(0.0, 1.0), Interval(1.0, 2.0), Interval(0.5, 1.5)
    yield is_(compare(one, two), Verdict.PROVEN, "[0, 1] ≤ [1, 2]")
    yield is_(compare(two, one), Verdict.UNDECIDED, "[1, 2] ≤ [0, 1]")
    yield is_(compare(one, three), Verdict.UNDECIDED, "[0, 1] ≤ [½, 3/2]")
    yield is_(compare(Interval(3.0, 4.0), one), Verdict.REFUTED, "[3, 4] ≤ [0, 1]")
    yield is_(compare(Interval(math.nan, math.nan), one), Verdict.UNDECIDED, "NaN")
    yield is_(str(Verdict.PROVEN), "proven", "its word")
    for ends, expected in (((1.0, 2.0), "proven"), ((-1.0, 1.0), "undecided"), ((-2.0, -1.0), "refuted")):
        yield is_(str(positive(Interval(*ends))), expected, f"{ends} > 0")
    groups = of_groups(GroupL0(), 0.5, np.array([[2.0, 0.0], [1.0, 1.0]]), ar.Ball(np.zeros((2, 2)), np.zeros((2, 2))))
    yield Check(groups.lower, 0.25, "ρω/‖u‖² of a group, from below")
    yield Check(0.25, groups.upper, "and from above")
    yield Check(groups.upper - groups.lower, 1e-13, "closely")
    for reach, exactly in ((np.inf, 2.0), (4.0, 2.0), (0.25, (2 * 0.25 - 0.5) / 0.0625)):  # max (2w − ½)/w²
        low, high = (float(vertex(np.array([2.0]), np.array([reach]), L0(), 0.5, t)[0]) for t in (-1, 1))
        yield Check(low, exactly, "a zero's number, from below")
        yield Check(exactly, high, "and from above")
        yield Check(high - low, 1e-11, "closely")
    at, free = np.array([-1.0, 1.0, 0.0]), np.zeros(3, bool)
    left = inward(Box(-1.0, 1.0), at, ar.Ball(np.array([-1.0, 1.0, 0.5]), np.full(3, 0.25)))
    yield is_((left.mid.tolist(), left.rad.tolist()), ([0.5], [0.25]), "what pulls against the bounds is left out")
    for slope, due in ((1.0, Interval(0.0, math.inf)), (0.5, Interval(math.inf, math.inf))):
        numbers = list(
            of_polynomial(L1(), 1.0, Box(-1.0, 1.0), at[1:2], ar.Ball(np.array([slope]), 0 * at[:1]), free[:1])
        )
        yield is_(numbers[0], due, f"may H rise from the upper bound, for a slope of {slope}")
    (held,) = of_polynomial(L0(), 4.0, Box(-1.0, 1.0), at[1:2], ar.Ball(np.array([2.0]), np.array([0.5])), free[:1])
    yield Check(abs(held.lower - 1.5) + abs(held.upper - 2.5), 1e-12, "4 − g at the bound 1, for g from 1.5 to 2.5")
    ball = ar.Ball(np.array([1.0, -2.0]), np.array([0.25, 0.0]))
    yield is_(closeness(((np.array([1.5, -2.0]),),), ((ball,),)), Closeness(False, 0.125, 0.125), "distance")
    yield is_(closeness(((np.array([1.25, -2.0]),),), ((ball,),)).inside, True, "at the border")
    shift = map_controls(np.ones_like, ((np.zeros(2),),))
    far = add(shift, scaled(1.0, shift))
    problem = Problem(Network((L.Dense(2, bias=False),), (1,)), SquaredLoss(), rho=0.0, regulariser=NoPenalty())
    k = ((np.zeros((2, 1)),),)
    found = examine(problem, k, map_controls(lambda a: a + 1.0, k), map_controls(lambda a: a + 2.0, k), None, 1.0, 0.0)
    yield is_((found.verdict, found.entries, float(far[0][0][0])), (Verdict.PROVEN, 2, 2.0), "c = u + g/(2ε)")
