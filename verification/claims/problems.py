"""Small problems for the claims, each with the hypotheses that it meets.

A :class:`Setting` is a training problem with a control and data. ``smooth``, ``kinked``, ``quadratic`` and ``ternary``
draw one from ``case.rng``; the kind of network goes round with ``case.index``, so that a few instances meet all kinds.
The shapes are small and never square where that matters: rows ≠ columns, in ≠ out, samples ≠ chunk.

=============  ==================================================================================================
``C2``         every stage is analytic: L_B ∈ C², the constants of T6–T9 exist
``kinks``      ReLU, leaky ReLU or max pooling: L_B is not C¹
``convex``     every r_l and U_l is convex (T6b, T10a)
``bounded``    every U_l is bounded: iterates stay bounded (T8)
``entrywise``  r and U separate over entries (all but group L0)
``quadratic``  one dense stage and squared loss: L_B is a quadratic function of u
``finite``     every U_l is a finite set
=============  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.arrays import Controls, like, to_numpy
from pmp_ref.controls import map_controls
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import (
    AveragePool,
    Block,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
    residual,
)
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial, Regulariser
from pmp_ref.sweep import Sweep
from verification.claim import Case

SMOOTH_ACTIVATIONS = (Tanh(), Sigmoid(), Softplus(), SiLU())
ENTRYWISE = (L0, L1, L2, LHalf, LTwoThirds, NoPenalty, lambda: Polynomial(0.5, 0.25, 0.75))


@dataclass(frozen=True)
class Setting:
    """A problem, an admissible control, data, words for the report, and the hypotheses met."""

    problem: Problem
    controls: Controls
    x: Any
    y: Any
    name: str
    hypotheses: frozenset[str]

    @property
    def network(self) -> Network:
        """The problem's network."""
        return self.problem.network

    def meets(self, *names: str) -> bool:
        """True if all hypotheses named are met."""
        return self.hypotheses >= set(names)


# --- networks ---------------------------------------------------------------------------------------------------------


def lenet(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Convolution, activation, average pooling, dense stages: a LeNet of a few dozen weights."""
    rng, act = case.rng, case.choose(*SMOOTH_ACTIVATIONS)
    shape = (int(rng.integers(1, 3)) * 2, int(rng.integers(5, 7)), int(rng.integers(7, 9)))
    conv = Convolution(
        4,
        (int(rng.integers(2, 4)), 2),
        stride=(1, int(rng.integers(1, 3))),
        padding=(int(rng.integers(0, 2)), 1),
        dilation=(1, int(rng.integers(1, 3))),
        groups=int(rng.integers(1, 3)),
    )
    return (conv, act, AveragePool((2, int(rng.integers(1, 3)))), Flatten(), Dense(3), act, Dense(4)), shape


def skip_over(block: Block, act: Stage) -> Block:
    """act(block), and a sum of it with the states that enter and leave the block: skips that cross each other."""
    end = len(block.stages)
    return Block((*block.stages, act, WeightedSum((1.0, 0.5, -0.25))), (*block.reads, (end,), (end + 1, 0, end)))


def residual_block(case: Case) -> tuple[tuple[Stage | Block, ...], tuple[int, ...]]:
    """A residual block with standardisation and scale-and-shift, with projection or with a skip over it, then global
    pooling."""
    rng, act = case.rng, case.choose(*SMOOTH_ACTIVATIONS)
    stride = int(rng.integers(1, 3))
    inner = (
        Convolution(4, 3, stride=stride, padding=1),
        Standardise(2),
        ScaleShift(),
        act,
        Convolution(4, (3, 1), padding=(1, 0)),
    )
    projection = Convolution(4, 1, stride=stride, bias=False) if stride > 1 else None
    block = residual(*inner, step=float(case.choose(1.0, 0.5)), projection=projection)
    tail = skip_over(block, act) if projection is None else block
    return (Convolution(4, 2), act, tail, act, GlobalAveragePool(), Dense(3)), (1, 5, 4)


def dense_chain(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Dense stages with activations; one of the kernels is square."""
    act = case.choose(*SMOOTH_ACTIVATIONS)
    return (Dense(4), act, Dense(4), act, Dense(3, bias=bool(case.rng.integers(2)))), (5,)


def max_pool_net(case: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    """Convolution, ReLU, max pooling, dense stages."""
    rng, act = case.rng, case.choose(ReLU(), LeakyReLU(0.1))
    shape = (2, int(rng.integers(5, 7)), int(rng.integers(7, 9)))
    conv = Convolution(3, (2, 3), padding=(0, int(rng.integers(0, 2))))
    return (conv, act, MaxPool((2, 2), stride=(2, int(rng.integers(1, 3)))), Flatten(), Dense(4), act, Dense(3)), shape


SMOOTH_NETWORKS = (lenet, residual_block, dense_chain)


# --- settings ---------------------------------------------------------------------------------------------------------


def smooth(case: Case, **choices: Any) -> Setting:
    """An analytic network: LeNet, residual net, dense chain, going round with the index. Keywords as :func:`dress`."""
    return dress(case, case.cycle(*SMOOTH_NETWORKS), **choices)


def dense(case: Case, **choices: Any) -> Setting:
    """A chain of dense stages with an analytic activation: the smallest network with all its hypotheses."""
    return dress(case, dense_chain, **choices)


def kinked(case: Case, **choices: Any) -> Setting:
    """A network with ReLU or leaky ReLU and max pooling."""
    return dress(case, max_pool_net, **choices)


def quadratic(case: Case, **choices: Any) -> Setting:
    """One dense stage under the squared loss: least squares, L_B quadratic in u."""
    inputs, outputs = int(case.rng.integers(2, 5)), int(case.rng.integers(1, 3))
    choices = {"loss": SquaredLoss(), "samples": 8, **choices}

    def one_dense_stage(c: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
        return (Dense(outputs, bias=bool(c.rng.integers(2))),), (inputs,)

    return dress(case, one_dense_stage, **choices)


def ternary(case: Case, **choices: Any) -> Setting:
    """A tiny dense tanh network whose controls take the values −1, 0, 1: at most 3⁶ controls, for exhaustive search."""
    choices = {"loss": SquaredLoss(), "samples": 6, "admissible": FiniteSet((-1.0, 0.0, 1.0)), **choices}

    def six_weights(c: Case) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
        return (Dense(2, bias=False), Tanh(), Dense(1, bias=False)), (2,)

    return dress(case, six_weights, **choices)


def dress(
    case: Case,
    build: Callable[[Case], tuple[tuple[Stage | Block, ...], tuple[int, ...]]],
    *,
    loss: Loss | None = None,
    regulariser: Regulariser | None = None,
    admissible: Admissible | None = None,
    rho: float | None = None,
    samples: int | None = None,
    chunk: int | None = None,
    spread: float = 0.3,
) -> Setting:
    """A setting on the network that ``build`` draws; what is None is drawn as well.

    The control is an initial control plus noise of size ``spread``, projected on U, with a quarter of the kernel
    entries set to 0 where 0 is admissible. The default of ``admissible`` is the whole line or a box [−1, 1]. Penalty
    weights are 1 and 2 on kernels and 0 on biases. More samples than ``chunk``, so that sweeps take several chunks.
    """
    rng = case.rng
    stages, shape = build(case)
    network = Network(stages, shape)
    loss = case.choose(CrossEntropy(), SquaredLoss()) if loss is None else loss
    regulariser = case.choose(*ENTRYWISE)() if regulariser is None else regulariser
    admissible = case.choose(WHOLE_LINE, Box(-1.0, 1.0)) if admissible is None else admissible
    if isinstance(regulariser, GroupL0):
        admissible = WHOLE_LINE
    rho = float(rng.choice([0.01, 0.05, 0.25])) if rho is None else rho
    chunk = int(rng.integers(2, 4)) if chunk is None else chunk
    samples = int(rng.integers(chunk + 1, 3 * chunk)) if samples is None else samples
    x = case.asarray(rng.standard_normal((samples, *shape)))
    y = labels(case, network, loss, samples)
    last = network.layers()[-1]
    regularisers = penalties(network, regulariser)
    problem = Problem(
        network,
        loss,
        regularisers,
        rho=rho,
        admissible=admissible,
        weights=layer_weights(network, by_stage={last: 2.0}),
        sweep=Sweep(network, loss, chunk=chunk),
    )
    start = initial_controls(network, int(rng.integers(2**31)), x)
    controls = problem.project(map_controls(lambda a: _disturbed(rng, a, spread, _has_zero(admissible)), start))
    name = (
        f"{build.__name__.strip('<>_')}, {type(loss).__name__}, {regulariser}, ρ = {rho:g}, {admissible}, B = {samples}"
    )
    return Setting(problem, controls, x, y, name, _hypotheses(network, loss, regulariser, admissible))


def labels(case: Case, network: Network, loss: Loss, samples: int) -> Any:
    """Labels for cross-entropy, targets for the squared loss."""
    if isinstance(loss, CrossEntropy):
        return case.asarray(case.rng.integers(0, network.output_shape[0], samples))
    return case.asarray(case.rng.standard_normal((samples, *network.output_shape)))


def penalties(network: Network, regulariser: Regulariser) -> Any:
    """The regulariser for every kernel; biases, whose weight is 0, get the zero regulariser where groups make no
    sense for them."""
    if not isinstance(regulariser, GroupL0):
        return regulariser
    return tuple(
        tuple(regulariser if len(shape) > 1 else NoPenalty() for shape in shapes) for shapes in network.control_shapes
    )


def with_data(setting: Setting, x: Any, y: Any) -> Setting:
    """The same problem and control on other data."""
    return replace(setting, x=x, y=y)


def host(setting: Setting) -> Setting:
    """The setting on NumPy in float64, for the oracles: its values are those of the run's dtype, exactly."""
    wide = lambda a: to_numpy(a).astype(np.float64) if to_numpy(a).dtype.kind == "f" else to_numpy(a)  # noqa: E731
    return replace(setting, controls=map_controls(wide, setting.controls), x=wide(setting.x), y=wide(setting.y))


def direction(case: Case, controls: Controls) -> Controls:
    """A random direction of norm 1, nested like the controls."""
    draws = map_controls(lambda a: case.rng.standard_normal(a.shape), controls)
    norm = float(np.sqrt(sum(float(np.sum(a * a)) for stage in draws for a in stage)))
    return map_controls(lambda v, a: like(v / norm, a), draws, controls)


def _has_zero(admissible: Admissible) -> bool:
    return bool(np.all(admissible.contains(np.zeros(1))))


def _disturbed(rng: np.random.Generator, a: Any, spread: float, zeros: bool) -> Any:
    noisy = to_numpy(a) + spread * rng.standard_normal(a.shape)
    if zeros and a.ndim > 1:
        noisy = np.where(rng.random(a.shape) < 0.25, 0.0, noisy)
    return like(noisy, a)


def _hypotheses(network: Network, loss: Loss, regulariser: Regulariser, admissible: Admissible) -> frozenset[str]:
    found = {"C2" if network.analytic else "kinks"}
    if regulariser.convex and isinstance(admissible, Box):
        found.add("convex")
    if isinstance(admissible, FiniteSet) or (isinstance(admissible, Box) and admissible.bounded):
        found.add("bounded")
    if not isinstance(regulariser, GroupL0):
        found.add("entrywise")
    if len(network.stages) == 1 and isinstance(loss, SquaredLoss):
        found.add("quadratic")
    if isinstance(admissible, FiniteSet):
        found.add("finite")
    return frozenset(found)
