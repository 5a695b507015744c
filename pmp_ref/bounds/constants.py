"""Constants of single stages that the bounds T7 and T7a are made of.

Activations: s₁ ≥ sup|σ′|, s₂ ≥ sup|σ″|, s₃ ≥ sup|σ‴|. tanh: s₁ = 1, s₂ = 4/(3√3), s₃ = 2. The logistic function is
(1 + tanh(z/2))/2, so its derivatives are those of tanh by 1/4, 1/8, 1/16; softplus has them one order later. SiLU:
σ″ = s′(z)(2 − z tanh(z/2)), at most σ″(0) = ½ in modulus, and σ′ is largest, 1.0998…, at the zero z = 2.399… of σ″.

Convolution: every output entry is ⟨kernel row, window of x⟩, hence ‖A(x, K)‖² ≤ ‖K‖² Σ_windows ‖window‖² ≤ m‖K‖²‖x‖²
with m the largest number of (position o, tap t) that see one input entry, o·stride + t·dilation − padding = i.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmp_ref.bounds.taylor import suprema
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AffineStage,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Stage,
    Tanh,
)
from pmp_ref.layers.windows import Windows


def activation_constants(stage: Activation) -> tuple[float, float, float]:
    """(s₁, s₂, s₃). Raises InputError for activations that are not smooth."""
    if isinstance(stage, SiLU):
        return 1.09984, 0.5, 6 * suprema(stage)[3]
    bound = suprema(stage)
    return bound[1], 2 * bound[2], 6 * bound[3]


def largest_value(stage: Activation) -> float:
    """sup|σ|."""
    return 1.0 if isinstance(stage, Tanh | Sigmoid) else math.inf


def value_at_zero(stage: Activation) -> float:
    """|σ(0)|."""
    return {Sigmoid: 0.5, Softplus: math.log(2.0)}.get(type(stage), 0.0)


def bilinear_norm(stage: AffineStage, shape: Any) -> float:
    """k with ‖A(x, K)‖ ≤ k‖K‖‖x‖ (Frobenius); ``shape`` is the per-sample shape entering."""
    if isinstance(stage, Convolution):
        return math.sqrt(overlaps(stage.windows, shape[1], shape[2]))
    if isinstance(stage, Dense | ScaleShift):
        return 1.0
    raise InputError(f"no bound for {stage}; expected a dense, convolution or scale-and-shift stage")


def bias_norm(stage: AffineStage, shape: Any) -> float:
    """β with ‖bias placed along the channels‖ ≤ β‖bias‖: the root of the number of positions; 0 without bias."""
    if not stage.bias:
        return 0.0
    return math.sqrt(math.prod(stage.output_shape(shape)[1:]))


def linear_norm(stage: Stage, shape: Any) -> float:
    """‖Λ‖ of a linear stage: pooling has row sums of at most 1 and column sums of at most m/(entries of a mean)."""
    if isinstance(stage, Flatten):
        return 1.0
    if isinstance(stage, GlobalAveragePool):
        return 1 / math.sqrt(shape[1] * shape[2])
    if isinstance(stage, AveragePool):
        return math.sqrt(overlaps(stage.windows, shape[1], shape[2]) / fewest(stage, shape[1], shape[2]))
    raise InputError(f"no bound for {stage}; it is left out (standardisation, and stages that are not smooth)")


def fewest(stage: AveragePool, rows: int, columns: int) -> int:
    """The least number of entries that a mean over a window is of, on a rows × columns image."""
    counts = stage.counted(np.empty((1, 1, rows, columns)))
    return int(np.min(counts))


def overlaps(windows: Windows, rows: int, columns: int) -> int:
    """m, the largest number of (position, tap) that see one entry of a rows × columns image."""
    m = 1
    for axis, (length, count) in enumerate(zip((rows, columns), windows.positions(rows, columns), strict=True)):
        seen = [0] * length
        for o in range(count):
            for t in range(windows.size[axis]):
                i = o * windows.stride[axis] + t * windows.dilation[axis] - windows.padding[axis]
                if 0 <= i < length:
                    seen[i] += 1
        m *= max(seen)
    return m
