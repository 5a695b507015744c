"""T0: the forward maps, losses, penalties and batches are what their definitions say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, RelativeTest
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.architectures import ARCHITECTURES, lenet5, lenet5_caffe, pooling, residual_net, resnet, resnet20
from pmp_ref.arrays import Controls, check_together, to_floats, to_numpy, unit_roundoff
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.averaging import Averaging
from pmp_ref.batches import FlipsAndShifts, take_batch
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import (
    add,
    arrays_of,
    cast,
    from_vector,
    inner,
    map_controls,
    scaled,
    subtract,
    to_vector,
    total,
)
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import (
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
    activation,
    residual,
)
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import LayerMetric
from pmp_ref.network import Network, headed
from pmp_ref.problem import Problem, layer_weights, scale_advice
from pmp_ref.regulariser import L0, REGULARISERS, GroupL0, LHalf, Polynomial
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep, mean_loss
from verification import oracles
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims import problems
from verification.libraries import load

# One of each stage and geometry, with the shape of the states that enter: rows ≠ columns, windows that overlap.
STAGES: tuple[tuple[Stage, Any], ...] = (
    (Dense(3), (5,)),
    (Dense(4, bias=False), (4,)),
    (Convolution(3, (2, 3)), (2, 4, 5)),
    (Convolution(2, (3, 2), stride=(2, 1), padding=(1, 2)), (1, 5, 4)),
    (Convolution(4, 2, stride=2, dilation=(2, 1), groups=2), (4, 6, 5)),
    (Convolution(2, (2, 2), padding=1, dilation=2, bias=False), (3, 4, 3)),
    (Convolution(2, (2, 3), stride=(2, 2), padding=(1, 1)), (1, 5, 6)),  # a row and a column that no window meets
    (ScaleShift(), (3, 2, 4)),
    (ScaleShift(bias=False), (4,)),
    (AveragePool(2), (2, 4, 6)),
    (AveragePool((2, 3), stride=(1, 2)), (1, 4, 7)),
    (AveragePool((3, 2), stride=(2, 1), padding=(1, 1)), (2, 5, 4)),
    (AveragePool((2, 3), padding=(1, 1), count_include_pad=False), (1, 5, 4)),
    (MaxPool(2), (2, 4, 6)),
    (MaxPool((3, 2), stride=(2, 1)), (1, 5, 4)),
    (MaxPool((3, 2), stride=(2, 2), padding=(1, 0)), (2, 4, 5)),
    (MaxPool(3, stride=2, padding=1), (1, 5, 4)),
    (GlobalAveragePool(), (3, 2, 5)),
    (Flatten(), (2, 3, 2)),
    (Standardise(2), (4, 3)),
    (Standardise(1), (2, 3, 2)),
    (Tanh(), (5,)),
    (Sigmoid(), (5,)),
    (Softplus(), (5,)),
    (SiLU(), (5,)),
    (ReLU(), (5,)),
    (LeakyReLU(0.1), (5,)),
    (Pixels((0.25, 0.5), (0.125, 0.75)), (2, 4, 3)),
    (WeightedSum((1.0, 0.5)), ((2, 3), (2, 3))),
    (WeightedSum((-0.25, 1.0, 2.0)), ((4,), (4,), (4,))),
)


def switching(e: Evaluation) -> Controls:
    """g of an evaluation whose backward sweep is made."""
    assert e.switching is not None
    return e.switching


def draw_state(rng: np.random.Generator, shape: Any, samples: int) -> Any:
    """A random state (or several) of that per-sample shape, not contiguous in memory."""
    if shape and not isinstance(shape[0], int):
        return tuple(draw_state(rng, part, samples) for part in shape)
    return np.moveaxis(rng.standard_normal((*shape, samples)), -1, 0)


def move(case: Case, state: Any) -> Any:
    """A state on the library of the run."""
    return tuple(move(case, part) for part in state) if isinstance(state, tuple) else case.asarray(state)


def host(state: Any) -> Any:
    """A state on the host in float64."""
    return tuple(host(p) for p in state) if isinstance(state, tuple) else to_numpy(state).astype(np.float64)


def largest_ratio(error: Any, scale: Any) -> float:
    """max |error|/scale over all entries of a state; 0/0 counts as 0."""
    if isinstance(error, tuple):
        return max(largest_ratio(e, s) for e, s in zip(error, scale, strict=True))
    error, scale = np.abs(np.asarray(error)), np.asarray(scale)
    if error.size == 0:
        return 0.0
    return float(np.max(np.where(error == 0, 0.0, error / np.where(scale == 0, np.finfo(float).tiny, scale))))


def difference(a: Any, b: Any) -> Any:
    """a − b of states. Raises ValueError if their shapes differ."""
    if isinstance(a, tuple):
        return tuple(difference(x, y) for x, y in zip(a, b, strict=True))
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    return a - b


def magnitude(stage: Stage, x: Any, u: tuple[np.ndarray, ...]) -> Any:
    """The size that rounding errors of Λ(x, u) are relative to: sums of absolute values of all terms."""
    if isinstance(stage, WeightedSum):
        return sum(abs(w) * np.abs(a) for w, a in zip(stage.weights, x, strict=True))
    if isinstance(stage, Pixels):
        return (np.abs(x) / 255 + max(map(abs, stage.mean))) / min(stage.std)
    if isinstance(stage, Standardise):
        grouped = x.reshape(x.shape[0], stage.groups, -1)
        s = np.sqrt(np.var(grouped, axis=2, keepdims=True) + stage.delta)
        y = (grouped - np.mean(grouped, axis=2, keepdims=True)) / s
        return ((1 + np.abs(y)) * (np.max(np.abs(grouped), axis=2, keepdims=True) / s + 1)).reshape(x.shape)
    if type(stage) in oracles.SCALAR:
        return 1 + np.abs(x)
    return oracles.forward_by_loops(stage, np.abs(x), tuple(np.abs(a) for a in u))


def terms(stage: Stage, shape: Any) -> int:
    """The longest sum in an entry of Λ(x, u)."""
    if isinstance(stage, WeightedSum):
        return stage.arity
    if isinstance(stage, Dense):
        return shape[0] + 1
    if isinstance(stage, Convolution):
        return stage.windows.size[0] * stage.windows.size[1] * shape[0] // stage.groups + 1
    if isinstance(stage, AveragePool | MaxPool):
        return stage.windows.size[0] * stage.windows.size[1]
    if isinstance(stage, GlobalAveragePool | Standardise):
        return math.prod(shape)
    return 2


@claim(tag="T0", title="Forward maps are their definitions", statement="Λ_l(x, u) = naive loops, entry by entry")
def forward_maps(context: Context) -> Outcome:
    """Statement: every stage Λ_l equals its definition.

    Hypotheses: none; every stage of the core in several geometries: overlapping windows, stride, padding, dilation,
    groups, rows ≠ columns, states that are not contiguous in memory, sums of two and three states.

    Measured: max |Λ − loops| relative to the sum of the absolute values of the terms of the entry. Bound: (2n + 12)u,
    n the longest sum; 12 covers the few roundings of exp, tanh and division. The loops sum exactly (``math.fsum``).
    """

    def one(case: Case) -> Check:
        stage, shape = case.cycle(*STAGES)
        x = draw_state(case.rng, shape, 2)
        u = tuple(case.rng.standard_normal(s) for s in stage.control_shapes(shape))
        moved, control = move(case, x), tuple(case.asarray(a) for a in u)
        found = host(stage.forward(moved, control))
        x, u = host(moved), tuple(host(a) for a in control)
        error = difference(found, oracles.forward_by_loops(stage, x, u))
        if _per_sample(found) != stage.output_shape(shape):
            raise ValueError(f"{stage} gives states of shape {_per_sample(found)}, says {stage.output_shape(shape)}")
        return Check(
            largest_ratio(error, magnitude(stage, x, u)),
            (2 * terms(stage, shape) + 12) * context.u,
            f"{stage} on {shape}",
        )

    return survey(context, one, micro=len(STAGES), quick=4 * len(STAGES), full=40 * len(STAGES))


def _per_sample(state: Any) -> Any:
    return tuple(_per_sample(p) for p in state) if isinstance(state, tuple) else state.shape[1:]


@claim(tag="T0a", title="Whole networks and objective", statement="L_B = (1/B) Σ_s Φ_s, J_B = L_B + ρ Σ ω_l r_l(u_l)")
def objectives(context: Context) -> Outcome:
    """Statement: the sweeps' losses, their mean and J_B are what the definitions give; L of a batch twice is L.

    Hypotheses: none; smooth and kinked networks, both losses, all regularisers, several chunks in each sweep.

    Measured: |Φ_s − loops| and |J_B − loops| relative to 1 + |·|, and |L(batch twice) − L|/(1 + |L|); bound 400u, for
    sums of at most 100 terms through at most ten stages whose Jacobians have norms of a few units.
    """

    def one(case: Case) -> Iterator[Check]:
        regulariser = case.cycle(*REGULARISERS.values())()
        draw = problems.kinked if case.index % 4 == 3 else problems.smooth
        if context.profile == "micro" and case.index > 1:  # convolutions by loops are slow; two instances have them
            draw = problems.dense
        s = draw(case, regulariser=regulariser)
        h = problems.host(s)
        e = s.problem.sweeper.forward(s.controls, s.x, s.y)
        x = oracles.final_state(h, h.controls, h.x, oracles.forward_by_loops)
        losses = np.array(oracles.loss_by_loops(s.problem.loss, x, h.y))
        single = all(stage.arity == 1 for stage in h.network.stages)
        yield holds(h.network.is_chain == single, f"a chain iff no stage reads two states, {s.name}")
        bound = 400 * context.u
        yield Check(largest_ratio(difference(host(e.losses), losses), 1 + np.abs(losses)), bound, f"Φ_s, {s.name}")
        yield Check(
            largest_ratio(host(e.largest) - np.max(np.abs(x.reshape(len(x), -1)), axis=1), 1 + np.abs(losses)),
            bound,
            f"‖x_L‖_∞, {s.name}",
        )
        mean, penalty = to_floats(mean_loss(e), s.problem.penalty(s.controls))
        value = oracles.objective_by_loops(h)
        yield Check(abs(mean + s.problem.rho * penalty - value) / (1 + abs(value)), bound, f"J_B, {s.name}")
        twice = lambda a: case.asarray(np.concatenate([to_numpy(a), to_numpy(a)]))  # noqa: E731
        again = to_floats(mean_loss(s.problem.sweeper.forward(s.controls, twice(s.x), twice(s.y))))[0]
        yield Check(abs(again - mean) / (1 + abs(mean)), bound, f"batch twice, {s.name}")
        p = s.problem.sweeper.backward(s.controls, s.problem.sweeper.forward(s.controls, twice(s.x), twice(s.y)))
        q = s.problem.sweeper.backward(s.controls, e)
        g, h2 = to_vector(switching(q)), to_vector(switching(p))
        yield Check(
            float(np.linalg.norm(g - h2)) / (1 + float(np.linalg.norm(g))), bound, f"g of batch twice, {s.name}"
        )
        r, kernel = s.problem.regulariser[0][0], h.controls[0][0]
        entry = 0.0 if isinstance(r, GroupL0) else float(np.sum(host(r.pointwise(s.controls[0][0]))))
        exact = 0.0 if isinstance(r, GroupL0) else oracles.penalty_by_loops(r, kernel)
        yield Check(abs(entry - exact) / (1 + abs(exact)), bound, f"r entry by entry, {r}")

    return survey(context, one, micro=7, quick=28, full=280)


@claim(tag="T0b", title="Losses at their extremes", statement="Φ_s stable for scores up to 10⁴; Φ(x + c) = Φ(x)")
def losses(context: Context) -> Outcome:
    """Statement: the softmax cross-entropy equals log Σ_k e^{x_k − x_y} without overflow and is invariant under a shift
    of all scores; the squared loss is half the squared distance.

    Hypotheses: none; scores of size 1, 10, 1000; states of one and three axes for the squared loss.

    Measured: |Φ_s − loops| relative to 1 + ‖x‖_∞ (cross-entropy) or to 1 + Φ (squared); bound 40u for ten summands.
    """

    def one(case: Case) -> Check:
        size = float(case.choose(1.0, 10.0, 1000.0))
        x: Any
        y: Any
        if case.index % 2:
            x, y = size * case.rng.standard_normal((3, 2, 2)), case.rng.standard_normal((3, 2, 2))
            loss: Any = SquaredLoss()
        else:
            x, y = size * case.rng.standard_normal((4, 5)), case.rng.integers(0, 5, 4)
            loss = CrossEntropy()
        mx, my = case.asarray(x), case.asarray(y)
        hx, hy = host(mx), to_numpy(my).astype(np.float64) if case.index % 2 else y
        found = host(loss.values(mx, my))
        if case.index % 2:
            exact = np.array(oracles.loss_by_loops(loss, hx, hy))
            return Check(largest_ratio(found - exact, 1 + exact), 40 * context.u, f"squared, size {size:g}")
        shifted = [row - row[k] for row, k in zip(hx, hy, strict=True)]
        top = [float(np.max(row)) for row in shifted]
        exact = np.array(
            [t + math.log(math.fsum(math.exp(v - t) for v in row)) for row, t in zip(shifted, top, strict=True)]
        )
        return Check(
            largest_ratio(found - exact, 1 + np.max(np.abs(hx), axis=1)),
            40 * context.u,
            f"cross-entropy, size {size:g}",
        )

    return survey(context, one, micro=6, quick=60, full=600)


def misplaced(case: Case, n: int, count: int) -> int:
    """How many pixels of an epoch's batches, mirrored and moved, differ from those found one by one."""
    shape, s = (int(case.rng.integers(1, 3)), *(int(k) for k in case.rng.integers(4, 8, 2))), int(case.rng.integers(4))
    vary = FlipsAndShifts(s, bool(case.rng.integers(2)))
    images = case.rng.uniform(1, 2, (n, *shape))
    draws, wrong = vary.draws(n, 5, case.index), 0
    for k in range(count):
        x, y = take_batch(case.asarray(images), case.asarray(np.arange(n)), count, k, 5, case.index, vary=vary)
        for moved, index in zip(to_numpy(x), to_numpy(y), strict=True):
            down, right, mirrored = draws[index]
            image = np.pad(images[index][..., ::-1] if mirrored else images[index], ((0, 0), (s, s), (s, s)))
            rows, columns = (slice(s - d, s - d + m) for d, m in zip((down, right), shape[1:], strict=True))
            wrong += int((moved != image[:, rows, columns].astype(moved.dtype)).sum())
    return wrong


@claim(
    tag="T0c",
    title="Batches, chunks, nestings",
    statement="every sample of an epoch once; sweeps do not depend on chunks",
)
def batches(context: Context) -> Outcome:
    """Statement: the batches of an epoch are a partition of the data into parts whose sizes differ by at most one;
    losses and switching functions do not depend on the chunk size nor on whether states are kept; controls as a
    vector and back are the same controls; sums, differences, products of controls are those of the vectors.

    Hypotheses: none.

    Measured: the number of samples not used exactly once (bound 0), of pixels that are not where the draws of flips and
    shifts put them (bound 0), relative differences between chunk sizes and
    between kept and recomputed states (bound 400u: other order of summation), of vectors (4u), and entries that
    change on the way through ``to_vector`` (bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.smooth(case)
        n = int(case.rng.integers(14, 20))  # two epochs agree by chance with a probability below 1/14!
        count = int(case.rng.integers(2, 5))
        x, y = case.asarray(np.arange(float(n))), case.asarray(np.arange(n))
        drawn = [take_batch(x, y, count, k, 5, case.index) for k in range(count)]
        used = np.concatenate([to_numpy(b) for _, b in drawn])
        size = max(len(to_numpy(b)) for _, b in drawn) - min(len(to_numpy(b)) for _, b in drawn)
        yield Check(float(len(set(range(n)) ^ set(used.tolist())) + abs(len(used) - n)), 0.0, f"{count} batches of {n}")
        yield Check(float(size), 1.0, f"sizes of {count} batches of {n}")
        paired = all(np.array_equal(to_numpy(a), to_numpy(b)) for a, b in drawn)
        other = np.concatenate([to_numpy(take_batch(x, y, count, k, 5, case.index + 1)[1]) for k in range(count)])
        yield Check(float(not paired) + float(np.array_equal(other, used)), 0.0, "images with their labels, new order")
        yield Check(float(misplaced(case, n, count)), 0.0, "pixels mirrored and moved")
        whole = Sweep(s.network, s.problem.loss, chunk=1000)
        e = whole.backward(s.controls, whole.forward(s.controls, s.x, s.y))
        g = to_vector(switching(e))
        own = s.problem.sweeper
        assert isinstance(own, Sweep)
        for sweep in (own, Sweep(s.network, s.problem.loss, chunk=2, memory=0)):
            f = sweep.backward(s.controls, sweep.forward(s.controls, s.x, s.y))
            sweeps = (2, 1) if sweep.memory == 0 else (1, 1)
            yield holds((f.forward_sweeps, f.backward_sweeps) == sweeps, f"sweeps counted, {sweep.memory}")
            scale = 1 + float(np.linalg.norm(g))
            yield Check(
                float(np.linalg.norm(to_vector(switching(f)) - g)) / scale, 400 * context.u, f"chunks, {s.name}"
            )
            yield Check(
                abs(to_floats(mean_loss(f))[0] - to_floats(mean_loss(e))[0]) / scale,
                400 * context.u,
                f"chunks, loss, {s.name}",
            )
        bytes_needed = x_bytes(s, e)
        for memory, made in ((bytes_needed, 1), (bytes_needed - 1, 2)):
            sweep = Sweep(s.network, s.problem.loss, memory=memory)
            f = sweep.backward(s.controls, sweep.forward(s.controls, s.x, s.y))
            yield Check(abs(f.forward_sweeps - made), 0.0, f"{memory} bytes for states that take {bytes_needed}")
        u = s.controls
        v = problems.direction(case, u)
        uv, vv = to_vector(u), to_vector(v)
        back = to_vector(from_vector(uv, u))
        order = np.concatenate([host(a).ravel() for a in arrays_of(u)])
        yield Check(float(np.sum(back != uv) + np.sum(order != uv)), 0.0, "to_vector and back")
        for name, found, exact in (
            ("sum", to_vector(add(u, v)), uv + vv),
            ("difference", to_vector(subtract(u, v)), uv - vv),
            ("product", to_vector(scaled(0.5, u)), 0.5 * uv),
        ):
            yield Check(largest_ratio(found - exact, np.abs(uv) + np.abs(vv)), 4 * context.u, name)
        yield Check(abs(to_floats(inner(u, v))[0] - float(uv @ vv)) / float(np.abs(uv) @ np.abs(vv)), 1e-13, "inner")
        ones = map_controls(lambda a: inner(((a,),), ((a,),)), u)
        yield Check(abs(to_floats(total(ones))[0] / float(uv @ uv) - 1), 1e-13, "total")
        bits = {to_numpy(a).dtype.name for a in arrays_of(cast(u, "float32"))}
        yield holds(bits == {"float32"}, "cast")
        yield Check(abs(unit_roundoff(s.x) / context.u - 1), 0.0, "unit roundoff")

    return survey(context, one, micro=3, quick=30, full=300)


def x_bytes(s: problems.Setting, e: Evaluation) -> int:
    """Bytes of the states x_1 … x_L of the whole batch, counted on the states themselves."""
    width = np.dtype(to_numpy(e.losses).dtype).itemsize
    return width * sum(math.prod(state.shape) for state in s.network.forward_sweep(s.controls, s.x)[1:])


# Weights of the kernels, as published for the two networks called LeNet-5; and the blocks of the residual nets.
KERNEL_ENTRIES = {"lenet5": 61470, "lenet5-caffe": 430500}
BLOCKS = {"residual": 1, "resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet32": 5}


@claim(
    tag="T0d", title="Networks and initial controls", statement="kernel entries as published; Var(u_0) = gain/fan-in"
)
def architectures(context: Context) -> Outcome:
    """Statement: the two LeNets have the published numbers of kernel entries and the residual net those of its formula;
    shapes chain as the sweeps give them; initial kernels have mean 0 and variance gain/fan-in, biases are 0, scales 1;
    the default weights penalise kernels only.

    Hypotheses: none; variance tested where a kernel has at least 2,000 entries.

    Measured: differences of counts (bound 0), the relative error of the variance over its standard error for the
    uniform law, √(4/(5n)) (bound 5 standard errors, so a false alarm has probability 10⁻⁶).
    """

    def one(case: Case) -> Iterator[Check]:
        example = case.asarray(np.zeros(1))
        name = case.cycle(*ARCHITECTURES)
        build: Any = ARCHITECTURES[name]
        network = build()
        kernels = [
            math.prod(shape)
            for names, shapes in zip(network.names(), network.control_shapes, strict=True)
            for label, shape in zip(names, shapes, strict=True)
            if label == "kernel"
        ]
        expected = KERNEL_ENTRIES[name] if name in KERNEL_ENTRIES else residual_entries(16, 3, 10, BLOCKS[name])
        yield Check(abs(sum(kernels) - expected), 0.0, f"kernel entries of {name}")
        by_name: dict[str, Callable[[], Network]]
        by_name = {"lenet5": lenet5, "lenet5-caffe": lenet5_caffe, "residual": residual_net}
        built = by_name[name]() if name in by_name else resnet(depth=6 * BLOCKS[name] + 2)
        yield Check(
            float(built != network or pooling("max", 2) != MaxPool(2) or activation("tanh") != Tanh()),
            0.0,
            f"{name} by name and by builder",
        )
        yield holds(resnet20() == resnet(depth=20), "resnet20 by its own name")
        smooth = name in ("lenet5", "residual")
        yield holds(network.analytic == smooth and network.output_shape == (10,), name)
        weights = layer_weights(network, by_stage={network.layers()[0]: 3.0})
        for l in network.layers():
            for label, omega in zip(network.names()[l], weights[l], strict=True):
                due = (3.0 if l == network.layers()[0] else 1.0) if label == "kernel" else 0.0
                yield Check(abs(omega - due), 0.0, f"weight of the {label} of stage {l}")
        if context.profile == "micro":  # large kernels take long to draw; a dense stage shows the law as well
            block = residual(ScaleShift(), Dense(50), projection=ScaleShift())
            stages = (Dense(60), ReLU(), Flatten(), Dense(50), Tanh(), Standardise(5), block, Dense(70))
            network = Network(stages, (40,))
        controls = initial_controls(network, case.index, example)
        gains = _gains(network)
        for l in network.layers():
            for label, a in zip(network.names()[l], controls[l], strict=True):
                h = host(a)
                if label == "bias" or isinstance(network.stages[l], ScaleShift):
                    due = 0.0 if label == "bias" else 1.0
                    yield Check(float(np.max(np.abs(h - due))), 0.0, f"initial {label} of stage {l}")
                elif h.size >= 2000:
                    variance = gains[l] / math.prod(h.shape[1:])
                    error = abs(float(np.mean(h**2)) / variance - 1) / math.sqrt(4 / (5 * h.size))
                    yield Check(error, 5.0, f"variance of the kernel of stage {l} of {name}")

    return survey(context, one, micro=4, quick=7, full=14)


def residual_entries(width: int, channels: int, classes: int, blocks: int) -> int:
    """Kernel entries of the residual net with so many blocks on each of three levels, 3×3 kernels, 1×1 projections."""
    w1, w2, w3 = width, 2 * width, 4 * width
    convolutions = 9 * (channels * w1 + 2 * w1 * w1 + w1 * w2 + w2 * w2 + w2 * w3 + w3 * w3)
    projections = w1 * w2 + w2 * w3
    scales = w1 + w1 + w2 + w3  # one scale for each channel: after the first convolution and inside each block
    further = sum(2 * 9 * w * w + w for w in (w1, w2, w3))  # of a block that keeps the width
    return convolutions + projections + scales + (blocks - 1) * further + w3 * classes


def _gains(network: Network) -> dict[int, float]:
    """2 for a kernel whose next activation is of the ReLU kind, else 1."""
    gains, gain = {}, 1.0
    for l in range(len(network.stages) - 1, -1, -1):
        stage = network.stages[l]
        if type(stage) in oracles.SCALAR:
            gain = 2.0 if isinstance(stage, LeakyReLU | SiLU | Softplus) else 1.0
        gains[l] = gain
    return gains


@claim(
    tag="T0e",
    title="What the theory excludes is refused",
    statement="inadmissible data, shapes, coefficients ⇒ InputError in one line",
)
def refusals(context: Context) -> Outcome:
    """Statement: data, shapes and numbers outside the hypotheses are refused by an InputError of one line, and
    admissible ones next to them are not; images whose largest entry leaves [1e-2, 1e2] are warned of.

    Hypotheses: none.

    Measured: refusals that do not happen, happen without the words that say what was wrong, or take more than one
    line, and admissible input that is refused (number of them, bound 0); the same for the warning.
    """

    def one(case: Case) -> Iterator[Check]:
        for words, bad, good in excluded(case):
            good()
            try:
                bad()
                verdict = "not refused"
            except InputError as error:
                text = str(error)
                verdict = "" if words in text and len(text.splitlines()) == 1 else f"says {text!r}"
            yield Check(float(bool(verdict)), 0.0, f"{words}: {verdict or 'refused'}")
        for largest, ill in ((0.01, False), (1.0, False), (100.0, False), (0.0099, True), (100.1, True)):
            warned = scale_advice(largest) is not None
            yield holds(warned == ill, f"images up to {largest}: {'warned of' if warned else 'taken'}")

    return survey(context, one, micro=1, quick=1, full=1)


def excluded(case: Case) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """(words of the refusal, a call that must be refused, its admissible neighbour)."""
    s = problems.dense(case, loss=CrossEntropy(), regulariser=L0(), admissible=Box(-1.0, 1.0), rho=0.5)
    problem, u, x, y = s.problem, s.controls, s.x, s.y
    fits = lambda: problem.check(u, x, y)  # noqa: E731
    far = map_controls(lambda a: a + 3, u)
    lost = map_controls(lambda a: a + math.nan, u)
    labels = case.asarray(np.full(int(x.shape[0]), 7))
    yield "leaves", lambda: problem.check(far, x, y), fits
    yield "NaN", lambda: problem.check(lost, x, y), fits
    yield "images hold NaN", lambda: problem.check(u, x + math.nan, y), fits
    yield "labels range", lambda: problem.check(u, x, labels), fits
    yield "one label per image", lambda: problem.check(u, x, y[:1]), fits
    yield "images have shape", lambda: problem.check(u, x[:, :1], y), fits
    yield "controls hold", lambda: problem.check(u[:1], x, y), fits
    yield "has shape", lambda: problem.check(map_controls(lambda a: a[:1, ...], u), x, y), fits
    yield "array", lambda: problem.check(u, [[1.0]], y), fits
    if case.context.library.name == "numpy":
        strict = load("array_api_strict")
        yield (
            "one array library",
            lambda: check_together(a=x, b=strict.asarray(host(x))),
            lambda: check_together(a=x, b=x),
        )
    yield "empty or a point", lambda: Box(1.0, 1.0), lambda: Box(1.0, 2.0)
    yield "two different", lambda: FiniteSet((1.0, 1.0)), lambda: FiniteSet((1.0, 0.0))
    yield "≥ 0", lambda: Polynomial(-1.0), lambda: Polynomial(0.0)
    yield "rho", lambda: Problem(s.network, rho=-1.0), lambda: Problem(s.network, rho=0.0)
    yield (
        "weights",
        lambda: layer_weights(s.network, by_stage={1: 2.0}),
        lambda: layer_weights(s.network, by_stage={0: 2.0}),
    )
    yield (
        "groups got",
        lambda: Network((Convolution(2, 2, groups=2),), (3, 4, 4)),
        lambda: Network((Convolution(2, 2, groups=2),), (4, 3, 4)),
    )
    yield "expected a number", lambda: AbsoluteTest(True), lambda: AbsoluteTest(1)
    yield "eta", lambda: AbsoluteTest(0.0), lambda: AbsoluteTest(1e-9)
    yield "eta1", lambda: RelativeTest(1.0), lambda: RelativeTest(0.5)
    yield "sigma", lambda: ClassicRule(sigma=1.0), lambda: ClassicRule(sigma=1.01)
    yield "zeta", lambda: ClassicRule(zeta=0.0), lambda: ClassicRule(zeta=1.0)
    yield "memory", lambda: CurvatureRule(memory=1.0), lambda: CurvatureRule(memory=0.0)
    yield "eps0", lambda: FixedRule(0.0), lambda: FixedRule(1e-9)
    yield "metric", lambda: LayerMetric(beta=1.0), lambda: LayerMetric(beta=0.0)
    yield "averaging", lambda: Averaging(patience=0), lambda: Averaging(patience=1)
    yield "ramp", lambda: Ramp(0.5, 0.5), lambda: Ramp(0.5, 0.6)
    yield "max_rejections", lambda: Method(max_rejections=0), lambda: Method(max_rejections=1)
    yield "no stop", lambda: Stop(), lambda: Stop(steps=0)
    yield "≥ 0", lambda: Stop(steps=-1), lambda: Stop(steps=0)
    done = Stop(steps=0)
    yield (
        "batch size",
        lambda: bsqh(problem, u, x, y, stop=done, batch_size=0),
        lambda: bsqh(problem, u, x, y, stop=done),
    )
    mean = Method(averaging=Averaging())
    yield (
        "need mini-batches",
        lambda: bsqh(problem, u, x, y, stop=done, method=mean),
        lambda: bsqh(problem, u, x, y, stop=done, method=mean, batch_size=1),
    )
    yield (
        "does not fit",
        lambda: Network((Convolution(1, 5),), (1, 4, 6)),
        lambda: Network((Convolution(1, 4),), (1, 4, 6)),
    )
    yield "groups", lambda: Convolution(3, 2, groups=2), lambda: Convolution(4, 2, groups=2)
    yield "stride", lambda: AveragePool(2, stride=0), lambda: AveragePool(2, stride=1)
    yield "at most half", lambda: MaxPool((3, 2), padding=(2, 1)), lambda: MaxPool((4, 2), padding=(2, 1))
    yield "neurons", lambda: Dense(0), lambda: Dense(1)
    yield "Flatten", lambda: Network((Dense(1),), (2, 2)), lambda: Network((Flatten(), Dense(1)), (2, 2))
    yield "Standardise", lambda: Network((Standardise(2),), (3, 2)), lambda: Network((Standardise(3),), (3, 2))
    yield ("projection", lambda: Network([residual(Dense(2))], (3,)), lambda: Network([residual(Dense(3))], (3,)))
    yield "at least two", lambda: WeightedSum((1.0,)), lambda: WeightedSum((1.0, 1.0))
    sums = (Dense(3), Dense(3), WeightedSum())
    reads = ((0,), (1,), (1, 2))
    yield "expected 2 of them", lambda: Network(sums, (3,)), lambda: Network(sums, (3,), reads)
    yield "nobody reads state 1", lambda: Network(sums, (3,), ((0,), (0,), (2, 0))), lambda: Network(sums, (3,), reads)
    yield "states 0 to 1", lambda: Network(sums, (3,), ((0,), (2,), (1, 2))), lambda: Network(sums, (3,), reads)
    head, floats = Pixels((0.5,), (0.25,)), case.asarray(np.ones((1, 1)))
    pixels, labels = case.asarray(np.ones((1, 1), np.uint8)), case.asarray(np.zeros(1, np.int64))
    one = Network((Dense(2),), (1,))
    raw, plain = Problem(headed(head, one), rho=0.0), Problem(one, rho=0.0)
    start = initial_controls(plain.network, 0, floats)
    yield (
        "expected bytes",
        lambda: raw.check(((), *start), floats, labels),
        lambda: raw.check(((), *start), pixels, labels),
    )
    yield "Pixels at the head", lambda: plain.check(start, pixels, labels), lambda: plain.check(start, floats, labels)
    yield "deviation > 0", lambda: Pixels((0.5,), (0.0,)), lambda: Pixels((0.5,), (1.0,))
    yield "did you mean 'tanh'", lambda: activation("tahn"), lambda: activation("tanh")
    yield "pooling", lambda: pooling("min", 2), lambda: pooling("max", 2)
    yield "takes 12×12 and larger", lambda: lenet5((1, 11, 20)), lambda: lenet5((1, 12, 20))
    yield "residual_net", lambda: residual_net(width=3), lambda: residual_net(width=4)
    yield "an integer", lambda: FlipsAndShifts(-1), lambda: FlipsAndShifts(0)
    yield "smaller than H and W", lambda: FlipsAndShifts(4).check((1, 4, 5)), lambda: FlipsAndShifts(3).check((1, 4, 5))
    kernel = case.asarray(np.ones((2, 3)))
    group = GroupL0()
    free = lambda: group.argmax(kernel, kernel, 1.0, 1.0, WHOLE_LINE)  # noqa: E731
    yield "whole line", lambda: group.argmax(kernel, kernel, 1.0, 1.0, Box(-1.0, 1.0)), free
    yield "separate", lambda: group.argmax(kernel, kernel, 1.0, 1.0, FiniteSet((0.0, 1.0))), free
    yield "containing 0", lambda: LHalf().argmax(kernel, kernel, 1.0, 1.0, Box(0.5, 1.0)), free
