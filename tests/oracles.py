"""Independent computations: stages and losses by loops over single entries (T0), and bounds of their roundings."""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np

from pmp_ref import layers as L
from pmp_ref.loss import CrossEntropy, Loss


def forward(stage: L.Stage, x: Any, u: Any) -> Any:
    """Λ(x, u) of one sample (no batch axis), entry by entry from the definition."""
    match stage:
        case L.WeightedSum():
            return each(lambda *parts: sum(w * a for w, a in zip(stage.weights, parts, strict=True)), *x)
        case L.Pixels():
            return np.stack([(a / 255 - m) / s for a, m, s in zip(x, stage.mean, stage.std, strict=True)])
        case L.Convolution():
            return convolution(stage, x, u)
        case L.Dense():
            return np.array(
                [sum(k * a for k, a in zip(row, x, strict=True)) + offset(u, o, stage) for o, row in enumerate(u[0])]
            )
        case L.ScaleShift():
            return np.stack([u[0][c] * x[c] + offset(u, c, stage) for c in range(x.shape[0])])
        case L.Activation():
            return each(lambda z: sigma(stage, z), x)
        case L.AveragePool() | L.MaxPool():
            return pool(stage, x)
        case L.GlobalAveragePool():
            return np.array([sum(channel.ravel().tolist()) / channel.size for channel in x])
        case L.Flatten():
            return np.array([x[i] for i in np.ndindex(x.shape)])
        case L.Standardise():
            return standardise(stage, x)
    raise AssertionError(f"no oracle for {stage}")


def each(f: Any, *arrays: Any) -> np.ndarray:
    return np.array([f(*(a[i] for a in arrays)) for i in np.ndindex(arrays[0].shape)]).reshape(arrays[0].shape)


def offset(u: Any, channel: int, stage: Any) -> Any:
    return u[1][channel] if stage.bias else 0.0


def both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def convolution(stage: L.Convolution, x: Any, u: Any) -> np.ndarray:
    (kh, kw), (sh, sw) = both(stage.size), both(stage.stride)
    (ph, pw), (dh, dw) = both(stage.padding), both(stage.dilation)
    inputs, rows, columns = x.shape
    per, out = inputs // stage.groups, stage.channels // stage.groups
    first_rows = range(-ph, rows + ph - dh * (kh - 1), sh)
    first_columns = range(-pw, columns + pw - dw * (kw - 1), sw)
    y = np.zeros((stage.channels, len(first_rows), len(first_columns)))
    for o, (i, r), (j, c) in itertools.product(range(stage.channels), enumerate(first_rows), enumerate(first_columns)):
        total = offset(u, o, stage)
        for m, s, t in itertools.product(range(per), range(kh), range(kw)):
            row, column = r + s * dh, c + t * dw
            if 0 <= row < rows and 0 <= column < columns:
                total += u[0][o, m, s, t] * x[o // out * per + m, row, column]
        y[o, i, j] = total
    return y


def pool(stage: Any, x: Any) -> np.ndarray:
    (kh, kw), (sh, sw) = both(stage.size), both(stage.size if stage.stride is None else stage.stride)
    ph, pw = both(stage.padding)
    rows, columns = range(-ph, x.shape[1] + ph - kh + 1, sh), range(-pw, x.shape[2] + pw - kw + 1, sw)
    y = np.zeros((x.shape[0], len(rows), len(columns)))
    for c, (i, r), (j, s) in itertools.product(range(x.shape[0]), enumerate(rows), enumerate(columns)):
        places = [(r + a, s + b) for a in range(kh) for b in range(kw)]
        window = [x[c, a, b] for a, b in places if 0 <= a < x.shape[1] and 0 <= b < x.shape[2]]
        if isinstance(stage, L.MaxPool):
            y[c, i, j] = max(window)
        else:
            y[c, i, j] = sum(window) / (kh * kw if stage.count_include_pad else len(window))
    return y


def standardise(stage: L.Standardise, x: Any) -> np.ndarray:
    per = x.shape[0] // stage.groups
    y = np.empty(x.shape)
    for first in range(0, x.shape[0], per):
        group = x[first : first + per].ravel().tolist()
        mean = math.fsum(group) / len(group)
        deviation = math.sqrt(math.fsum((a - mean) ** 2 for a in group) / len(group) + stage.delta)
        y[first : first + per] = (x[first : first + per] - mean) / deviation
    return y


def sigma(stage: L.Activation, z: float) -> float:
    logistic = 1 / (1 + math.exp(-z))
    match stage:
        case L.Tanh():
            return (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z))
        case L.Sigmoid():
            return logistic
        case L.Softplus():
            return math.log(1 + math.exp(z))
        case L.SiLU():
            return z * logistic
        case L.LeakyReLU():  # ReLU too
            return z if z > 0 else stage.leak * z
    raise AssertionError(f"no oracle for {stage}")


def loss(kind: Loss, x: np.ndarray, y: Any) -> Any:
    """Φ of one sample; x may be complex."""
    if isinstance(kind, CrossEntropy):
        return cmath.log(sum(cmath.exp(a) for a in x)) - x[int(y)]
    return sum((a - b) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)) / 2


def absolute_tangent(stage: L.Stage, x: Any, u: Any, dx: Any, v: Any) -> Any:
    """|∂_xΛ| |dx| + |∂_uΛ| |v|, or a bound of it: the scale of the roundings of ``tangent``."""
    match stage:
        case L.Pixels():
            return stage.tangent(x, u, np.abs(dx), v)
        case L.WeightedSum():
            return sum(abs(w) * np.abs(a) for w, a in zip(stage.weights, dx, strict=True))
        case L.AffineStage():
            k, a, b = np.abs(u[0]), np.abs(x), np.abs(dx)
            y = stage.apply(b, k) + stage.apply(a, np.abs(v[0]))
            return y + L.layer.along_channels(np.abs(v[1]), y) if stage.bias else y
        case L.LinearStage():
            return stage.forward(absolute(dx), u)
        case L.Standardise():
            y, s = stage._standardised(x)
            mean = lambda a: a.mean(axis=2, keepdims=True)  # noqa: E731
            a, y = np.abs(stage._grouped(dx)), np.abs(y)
            return ((a + mean(a) + y * mean(y * a)) / s).reshape(x.shape)
        case L.MaxPool():
            return stage.tangent(x, u, np.abs(dx), v)
        case L.Activation():
            return np.abs(stage.slope(x)) * np.abs(dx)
    raise AssertionError(f"no bound for {stage}")


def absolute(a: Any) -> Any:
    return tuple(map(absolute, a)) if isinstance(a, tuple) else np.abs(a)
