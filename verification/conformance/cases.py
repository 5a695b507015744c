"""The conformance cases: small training problems and the method that runs on them.

All inputs come from :func:`numbers`, a generator written out in one line, so that they do not depend on the version of
any library. A change of a case or of the format raises ``VERSION``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, RelativeTest
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.augmentation import ClassicRule, CurvatureRule
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError, nearest
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
    Standardise,
    Tanh,
    residual,
)
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf, NoPenalty

VERSION = 2


@dataclass(frozen=True)
class Conformance:
    """One case: a problem, a method, a number of trials, and what the case is for."""

    name: str
    purpose: str
    problem: Problem
    samples: int
    method: Method
    trials: int
    batch_size: int | None = None
    dtype: str = "float64"
    seed: int = 1
    spread: float = field(default=1.0)

    def inputs(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """(x, y, initial controls): images on ±1, or bytes where the network takes them, labels going round the
        classes, controls on ±spread/√fan-in, projected on the admissible set; every fifth kernel entry is 0."""
        network = self.problem.network
        x = numbers(self.seed, (self.samples, *network.input_shape))
        x = np.floor(128 * (x + 1)).astype(np.uint8) if network.takes_bytes else x.astype(self.dtype)
        if isinstance(self.problem.loss, CrossEntropy):
            y = np.arange(self.samples) % network.output_shape[0]
        else:
            y = numbers(self.seed + 1, (self.samples, *network.output_shape)).astype(self.dtype)
        controls = []
        for l, shapes in enumerate(network.control_shapes):
            arrays = []
            for k, shape in enumerate(shapes):
                a = self.spread * numbers(self.seed + 10 * l + k + 2, shape) / np.sqrt(np.prod(shape[1:]))
                if len(shape) > 1:
                    a.flat[::5] = 0.0
                arrays.append(a.astype(self.dtype))
            controls.append(tuple(arrays))
        return (
            x,
            y,
            map_controls(lambda s, a: s.project(a), self.problem.admissible, tuple(controls)),
        )


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers on (−1, 1) with at most 16 binary digits after the point: s ← 1103515245 s + 12345 mod 2³¹ from the seed,
    16 steps thrown away, ⌊s/2¹⁵⌋/2¹⁵ − 1 taken; exact in float32 and float64."""
    s, out = seed, []
    for k in range(16 + int(np.prod(shape))):
        s = (1103515245 * s + 12345) % 2**31
        if k >= 16:
            out.append((s >> 15) / 2**15 - 1)
    return np.array(out).reshape(shape)


def cases() -> dict[str, Conformance]:
    """All cases by name."""
    dense = Network((Dense(4), Tanh(), Dense(4), Tanh(), Dense(3)), (4,))
    conv = Network(
        (
            Convolution(4, (3, 2), stride=(1, 2), padding=1, dilation=(2, 1), groups=2),
            Sigmoid(),
            AveragePool(2),
            Flatten(),
            Dense(3),
        ),
        (2, 7, 6),
    )
    block = (Convolution(3, 3, padding=1), Standardise(1), ScaleShift(), Tanh(), Convolution(3, (1, 3), padding=(0, 1)))
    down = (Convolution(4, 3, stride=2, padding=1), Tanh())
    skip = Network(
        (
            Convolution(3, 3, padding=1),
            Tanh(),
            residual(*block, step=0.5),
            Tanh(),
            residual(*down, projection=Convolution(4, 1, stride=2)),
            GlobalAveragePool(),
            Dense(2),
        ),
        (1, 4, 4),
    )
    relu = Network((Convolution(3, 3), LeakyReLU(0.1), MaxPool(2), Flatten(), Dense(5), ReLU(), Dense(3)), (1, 7, 6))
    bytes_ = Network(
        (Pixels((0.5, 0.25), (0.25, 0.375)), Convolution(3, (2, 3)), Tanh(), Flatten(), Dense(3)), (2, 4, 5)
    )
    tiny = Network((Dense(3, bias=False), Tanh(), Dense(2, bias=False)), (3,))
    groups = tuple(
        tuple(GroupL0(omega=2.0) if len(a) > 1 else NoPenalty() for a in shapes) for shapes in relu.control_shapes
    )
    found = (
        Conformance(
            "dense-l0",
            "square dense stages (an untransposed kernel shows), L0, classic rule, absolute test",
            Problem(dense, CrossEntropy(), L0(), rho=0.01),
            7,
            Method(ClassicRule(eps0=0.05, sigma=1.5, zeta=0.6)),
            8,
        ),
        Conformance(
            "conv-l1-box",
            "convolution with stride, padding, dilation and groups; L1 on a box; curvature rule",
            Problem(conv, CrossEntropy(), L1(), rho=0.02, admissible=Box(-0.5, 0.5)),
            5,
            Method(CurvatureRule(eps0=0.05), AbsoluteTest(1e-4)),
            6,
        ),
        Conformance(
            "residual-relative",
            "residual blocks with and without projection, standardisation, layer weights, L0; "
            "relative test, curvature rule, rejections",
            Problem(skip, CrossEntropy(), L0(), rho=0.002, weights=layer_weights(skip, by_stage={0: 2.0})),
            4,
            Method(CurvatureRule(eps0=0.02), RelativeTest(0.3)),
            5,
        ),
        Conformance(
            "relu-group",
            "leaky ReLU, ReLU and max pooling, group L0 on filters and neurons, classic rule",
            Problem(relu, CrossEntropy(), groups, rho=0.01),
            6,
            Method(ClassicRule(eps0=0.1, sigma=2.0)),
            6,
        ),
        Conformance(
            "finite-minibatch",
            "controls in {−1, 0, 1} under L0, squared loss, mini-batches, classic rule, rejections",
            Problem(tiny, SquaredLoss(), L0(), rho=0.01, admissible=FiniteSet((-1.0, 0.0, 1.0))),
            8,
            Method(ClassicRule(eps0=0.02, sigma=2.0)),
            10,
            batch_size=3,
            spread=2.0,
        ),
        Conformance(
            "metric-half",
            "|w|^½, gradient-scaled metric, squared loss, mini-batches; relative test, curvature rule",
            Problem(dense, SquaredLoss(), LHalf(), rho=0.005),
            6,
            Method(CurvatureRule(eps0=0.02), RelativeTest(0.2), GradientMetric(0.9)),
            6,
            batch_size=3,
        ),
        Conformance(
            "dense-float32",
            "float32: L0, classic rule, rejections",
            Problem(dense, CrossEntropy(), L0(), rho=0.01),
            7,
            Method(ClassicRule(eps0=0.1, sigma=1.5, zeta=0.6)),
            5,
            dtype="float32",
            seed=7,
        ),
        Conformance(
            "pixels-l0",
            "images in bytes, standardised by the first stage; convolution, L0, classic rule",
            Problem(bytes_, CrossEntropy(), L0(), rho=0.01),
            6,
            Method(ClassicRule(eps0=0.1, sigma=1.5, zeta=0.6)),
            6,
        ),
    )
    return {case.name: case for case in found}


def chosen(names: list[str]) -> dict[str, Conformance]:
    """The cases of those names, all if none is given. Raises InputError for an unknown name."""
    every = cases()
    for name in names:
        if name not in every:
            raise InputError(f"unknown case {name!r}: {nearest(name, every)}")
    return {name: every[name] for name in names} if names else every


def describe(thing: Any) -> Any:
    """Frozen dataclasses as JSON data: {"kind": class name, parameter: value, …}; infinite numbers as strings."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return {"kind": type(thing).__name__, **{f.name: describe(getattr(thing, f.name)) for f in fields(thing)}}
    if isinstance(thing, tuple | list):
        return [describe(part) for part in thing]
    if isinstance(thing, float) and not np.isfinite(thing):
        return str(thing)
    return thing


def described(problem: Problem, method: Method) -> dict[str, Any]:
    """What ``case.json`` says of problem and method."""
    network = problem.network
    stages = [
        {
            "stage": l,
            **describe(stage),
            "reads": list(network.reads[l]),
            "enters": describe(network.entering(l, network.shapes)),
            "leaves": describe(network.shapes[l + 1]),
            "controls": dict(zip(stage.control_names, map(list, network.control_shapes[l]), strict=True)),
        }
        for l, stage in enumerate(network.stages)
    ]
    return {
        "stages": stages,
        "loss": type(problem.loss).__name__,
        "rho": problem.rho,
        "regulariser": describe(problem.regulariser),
        "admissible": describe(problem.admissible),
        "weights": describe(problem.weights),
        "method": describe(method),
    }
