"""Hypothesis strategies: numbers, arrays in every memory layout, stages with fitting shapes, networks.

Hypothesis draws shapes and choices; the entries of an array come from a drawn seed, which keeps draws fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pmp_ref.layers import (
    AveragePool,
    Block,
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
    residual,
)
from pmp_ref.network import Network, headed

LAYOUTS = ("contiguous", "permuted", "strided", "reversed")

seeds = st.integers(0, 2**32 - 1)


def dyadics(low: int, high: int) -> st.SearchStrategy[Fraction]:
    """Multiples of 1/8 from low to high: sums and products of a few of them are exact in float64."""
    return st.integers(8 * low, 8 * high).map(lambda k: Fraction(k, 8))


def lay_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The same values at other places in memory; all but "contiguous" are non-contiguous (from two entries on)."""
    if layout == "permuted":
        return np.ascontiguousarray(a.T).T
    if layout == "strided":
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), a.dtype.type(99), dtype=a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(a[..., ::-1])[..., ::-1]
    return np.ascontiguousarray(a)


def filled(shape: Any, generator: np.random.Generator, layout: str = "contiguous") -> Any:
    """Normal entries: an array of that shape, or a tuple of them where ``shape`` is a tuple of shapes."""
    if shape and not isinstance(shape[0], int):
        return tuple(filled(part, generator, layout) for part in shape)
    return lay_out(generator.standard_normal(shape), layout)


def with_batch(shape: Any, batch: int) -> Any:
    """The shape of a batch of states of per-sample shape ``shape``."""
    if shape and not isinstance(shape[0], int):
        return tuple(with_batch(part, batch) for part in shape)
    return (batch, *shape)


@dataclass(frozen=True)
class StageCase:
    """A stage, the per-sample shape entering it, a batch size, a seed for the entries and a memory layout."""

    stage: Stage
    shape: Any
    batch: int
    seed: int
    layout: str

    def arrays(self) -> dict[str, Any]:
        """States x, controls u, costates p and the directions dx, v, dp, all drawn independently."""
        generator = np.random.default_rng(self.seed)
        enter, leave = (with_batch(s, self.batch) for s in (self.shape, self.stage.output_shape(self.shape)))
        controls = self.stage.control_shapes(self.shape)
        fill = lambda shape: filled(shape, generator, self.layout)  # noqa: E731
        return {
            "x": fill(enter),
            "u": tuple(fill(s) for s in controls),
            "p": fill(leave),
            "dx": fill(enter),
            "v": tuple(fill(s) for s in controls),
            "dp": fill(leave),
        }


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """Two integers, not necessarily equal."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[Stage, Any]:
    groups = draw(st.integers(1, 2))
    size, stride, padding, dilation = draw(pairs(1, 3)), draw(pairs(1, 3)), draw(pairs(0, 2)), draw(pairs(1, 2))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(size, padding, dilation, strict=True)]
    image = tuple(n + draw(st.integers(0, 3)) for n in least)
    stage = Convolution(groups * draw(st.integers(1, 2)), size, stride, padding, dilation, groups, draw(st.booleans()))
    return stage, (groups * draw(st.integers(1, 2)), *image)


@st.composite
def _pools(draw: st.DrawFn, kind: type) -> tuple[Stage, Any]:
    size = draw(pairs(1, 3))
    stride = draw(st.one_of(st.none(), pairs(1, 3)))
    padding = (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2)))
    more = {"count_include_pad": draw(st.booleans())} if kind is AveragePool else {}
    image = (max(1, k - 2 * p) + draw(st.integers(0, 3)) for k, p in zip(size, padding, strict=True))
    return kind(size, stride, padding, **more), (draw(st.integers(1, 3)), *image)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
vectors = st.tuples(st.integers(1, 5))
images = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))


@st.composite
def _standardisations(draw: st.DrawFn) -> tuple[Stage, Any]:
    groups, tail = draw(st.integers(1, 3)), draw(st.lists(st.integers(1, 3), max_size=2))
    return Standardise(groups, draw(st.sampled_from([1e-5, 0.1]))), (groups * draw(st.integers(1, 3)), *tail)


@st.composite
def _pixels(draw: st.DrawFn) -> tuple[Stage, Any]:
    shape = draw(shapes)
    values = st.lists(st.sampled_from([0.125, 0.3, 0.9]), min_size=shape[0], max_size=shape[0])
    return Pixels(tuple(draw(values)), tuple(draw(values))), shape


@st.composite
def _dense(draw: st.DrawFn) -> tuple[Stage, Any]:
    return Dense(draw(st.integers(1, 5)), draw(st.booleans())), draw(vectors)


@st.composite
def _scale_shifts(draw: st.DrawFn) -> tuple[Stage, Any]:
    return ScaleShift(draw(st.booleans())), draw(shapes)


def _fixed(stage: Stage, shape: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Stage, Any]]:
    return shape.map(lambda s: (stage, s))


PLAIN: dict[str, st.SearchStrategy[tuple[Stage, Any]]] = {
    "Convolution": _convolutions(),
    "Dense": _dense(),
    "ScaleShift": _scale_shifts(),
    "Tanh": _fixed(Tanh(), shapes),
    "Sigmoid": _fixed(Sigmoid(), shapes),
    "Softplus": _fixed(Softplus(), shapes),
    "SiLU": _fixed(SiLU(), shapes),
    "ReLU": _fixed(ReLU(), shapes),
    "LeakyReLU": st.tuples(st.sampled_from([LeakyReLU(), LeakyReLU(0.25)]), shapes),
    "AveragePool": _pools(AveragePool),
    "MaxPool": _pools(MaxPool),
    "GlobalAveragePool": _fixed(GlobalAveragePool(), images),
    "Flatten": _fixed(Flatten(), shapes),
    "Standardise": _standardisations(),
    "Pixels": _pixels(),
}


@st.composite
def _sums(draw: st.DrawFn) -> tuple[Stage, Any]:
    weights = draw(st.lists(st.sampled_from([1.0, 0.25, -1.5, 0.0]), min_size=2, max_size=4))
    return WeightedSum(tuple(weights)), (draw(shapes),) * len(weights)


STAGES = {**PLAIN, "WeightedSum": _sums()}
KINDS = tuple(STAGES)
SMOOTH = tuple(kind for kind in KINDS if kind not in ("ReLU", "LeakyReLU", "MaxPool"))


@st.composite
def stage_cases(draw: st.DrawFn, kind: str, smooth: bool = False) -> StageCase:
    """Cases of one kind of stage (a name in ``KINDS``); ``smooth``: only stages that are analytic."""
    source = STAGES[kind]
    stage, shape = draw(source.filter(lambda c: c[0].analytic) if smooth else source)
    return StageCase(stage, shape, draw(st.integers(1, 3)), draw(seeds), draw(st.sampled_from(LAYOUTS)))


def skips_over_skips(channels: int, act: Stage, weight: float) -> Block:
    """Sums of all that came before, as in a DenseNet: four stages read the state entering, one reads it twice, and
    skips cross each other."""
    stages = (
        Convolution(channels, (3, 1), padding=(1, 0)),  # x_1
        act,
        WeightedSum((weight, 1.0)),  # x_3 = weight x_0 + x_2
        Convolution(channels, 1, bias=False),
        WeightedSum((1.0, -0.5, weight)),  # x_5 = x_0 − ½x_2 + weight x_4
        act,
        WeightedSum((1.0, 0.25, 1.0, weight)),  # x_7 = x_6 + ¼x_0 + x_0 + weight x_3
    )
    return Block(stages, ((0,), (1,), (0, 2), (3,), (0, 2, 4), (5,), (6, 0, 0, 3)))


@st.composite
def networks(draw: st.DrawFn, smooth: bool = True, classes: int | None = None, heads: bool = False) -> Network:
    """Small networks: convolution, activation, pooling, (nested) residual block or skips over skips, standardisation,
    dense layers; with ``heads`` also such that take images as they are, see ``images_for``."""
    act = st.sampled_from([Tanh(), Sigmoid(), Softplus(), SiLU()] if smooth else [ReLU(), LeakyReLU(0.1), Tanh()])
    input_shape = (draw(st.integers(1, 2)), draw(st.integers(4, 6)), draw(st.integers(5, 6)))
    channels = draw(st.integers(1, 3))
    stages: list[Stage | Block] = [Convolution(channels, draw(pairs(2, 3)), padding=draw(pairs(0, 1))), draw(act)]
    if draw(st.booleans()):
        pool = AveragePool if smooth else draw(st.sampled_from([AveragePool, MaxPool]))
        stages.append(pool(draw(st.sampled_from([2, (2, 3)])), draw(st.sampled_from([None, 1])), draw(pairs(0, 1))))
    block = draw(st.sampled_from(["none", "identity", "projection", "nested", "skips over skips"]))
    if block == "skips over skips":
        stages.append(skips_over_skips(channels, draw(act), draw(st.sampled_from([1.0, 0.5]))))
    elif block != "none":
        inner: list[Stage | Block] = [Convolution(channels, 3, padding=1), Standardise(1), ScaleShift(), draw(act)]
        if block == "nested":
            inner.append(residual(Convolution(channels, 1), draw(act), step=0.5))
        out = channels + 1 if block == "projection" else channels
        inner.append(Convolution(out, 1, bias=False))
        projection = Convolution(out, 1) if block == "projection" else None
        stages.append(residual(*inner, step=draw(st.sampled_from([1.0, 0.5])), projection=projection))
    stages.append(draw(st.sampled_from([Flatten(), GlobalAveragePool()])))
    if draw(st.booleans()):
        stages += [Dense(draw(st.integers(2, 4))), draw(act)]
    stages.append(Dense(draw(st.integers(2, 4)) if classes is None else classes))
    network = Network(stages, input_shape)
    if heads and draw(st.booleans()):
        means, stds = (draw(st.lists(st.sampled_from([0.3, 0.5]), min_size=2, max_size=2)) for _ in range(2))
        network = headed(Pixels(tuple(means[: input_shape[0]]), tuple(stds[: input_shape[0]])), network)
    return network


def images_for(network: Network, generator: np.random.Generator, samples: int) -> np.ndarray:
    """Images as the network takes them: bytes, or standard normal numbers."""
    shape = (samples, *network.input_shape)
    return generator.integers(0, 256, shape, np.uint8) if network.takes_bytes else generator.standard_normal(shape)
