"""Constants into the next bias: x_i = c for every input, so k_oi x_i joins the bias and k_oi becomes 0. Exact.

Dense:        β_o ← β_o + Σ_{i known} k_oi c_i,  k_oi ← 0.

Convolution:  a channel with the value c at every pixel gives Σ_{s,t} k_oist c·[tap (s, t) lies in the image]. With zero
padding the bracket depends on the position, so only taps that lie in the image at *every* position join the bias.
Taps that never do, and all taps where c = 0, give nothing and go. What is left of a constant channel is kept; where
several are left, one stands for all of them (:func:`merge_constants`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls
from pmp_ref.compact.constants import Entries, Range, constants
from pmp_ref.layers import Convolution, Dense, Stage
from pmp_ref.layers.windows import patches
from pmp_ref.network import Network


def fold_constants(network: Network, controls: Controls, input_range: Range = None) -> tuple[Network, Controls]:
    """The same map with all that is known of the states folded into biases; a stage without bias gets one if needed.

    Controls are NumPy arrays in float64 (:func:`pmp_ref.compact.compact` converts).
    """
    return _each_reader(network, controls, input_range, folded)


def merge_constants(network: Network, controls: Controls, input_range: Range = None) -> tuple[Network, Controls]:
    """The same map with constant channels before a padded convolution read through one of them.

    Channels i with constants c_i, read by one group of a convolution, have together the effect of the channel m of
    the largest |c_m| with the kernel Σ_i (c_i/c_m) k_oi. The others are then read by no weight.
    """
    return _each_reader(network, controls, input_range, merged)


def _each_reader(network: Network, controls: Controls, input_range: Range, change: Any) -> tuple[Network, Controls]:
    states = constants(network, controls, input_range)
    stages, new = list(network.stages), list(controls)
    for l, stage in enumerate(network.stages):
        if type(stage) in (Dense, Convolution):
            stages[l], new[l] = change(stage, controls[l], network.entering(l, states))
    return replace(network, stages=tuple(stages)), tuple(new)


def taps(stage: Convolution, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Masks (kh, kw): taps that lie in the image at every position, taps that do at none; the others meet padding."""
    inside = patches(np.ones((1, 1, *shape[1:])), stage.windows)[0, 0] > 0
    return inside.all(axis=(2, 3)), ~inside.any(axis=(2, 3))


def channels_read(stage: Convolution, kernel: np.ndarray) -> np.ndarray:
    """(O, C/groups): the input channel that kernel[o, j] reads."""
    o, c = kernel.shape[:2]
    return (np.arange(o) // (o // stage.groups))[:, None] * c + np.arange(c)


def constant_channels(e: Entries) -> tuple[np.ndarray, np.ndarray]:
    """(C,) masks and values: channels known at every pixel, with the same value at each."""
    known, value = (a[0].reshape(a.shape[1], -1) for a in (e.known, e.value))
    same = known.all(axis=1) & (value == value[:, :1]).all(axis=1)
    return same, np.where(same, value[:, 0], 0.0)


def folded(stage: Any, u: tuple[np.ndarray, ...], e: Entries) -> tuple[Stage, tuple[np.ndarray, ...]]:
    """A reader without the weights that meet constants, their contribution in its bias."""
    k = u[0]
    if isinstance(stage, Dense):
        gone = np.broadcast_to(e.known[0], k.shape) & (k != 0)
        shift = np.where(gone, k, 0) @ e.value[0]
    else:
        always, never = taps(stage, e.value.shape[1:])
        same, c = constant_channels(e)
        read = channels_read(stage, k)
        same, c = same[read][:, :, None, None], c[read][:, :, None, None]
        gone = (never | (same & (always | (c == 0)))) & (k != 0)
        shift = np.sum(np.where(gone & ~never, k * c, 0), axis=(1, 2, 3))
    if not gone.any():
        return stage, u
    k = np.where(gone, 0, k)
    if stage.bias:
        return stage, (k, shifted(u[1], shift))
    if not shift.any():
        return stage, (k,)
    return replace(stage, bias=True), (k, shifted(np.zeros(k.shape[0]), shift))


def shifted(bias: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """β + Σ k c."""
    return bias + shift


def merged(stage: Any, u: tuple[np.ndarray, ...], e: Entries) -> tuple[Stage, tuple[np.ndarray, ...]]:
    """A convolution that reads, in each of its groups, at most one channel whose constant is not 0."""
    if isinstance(stage, Dense):
        return stage, u
    k, (same, c), new = u[0], constant_channels(e), None
    size, outputs = k.shape[1], k.shape[0] // stage.groups
    for g in range(stage.groups):
        rows, channels = slice(g * outputs, (g + 1) * outputs), slice(g * size, (g + 1) * size)
        read = np.any(k[rows] != 0, axis=(0, 2, 3)) & same[channels] & (c[channels] != 0)
        if read.sum() < 2:
            continue
        constant = np.where(read, c[channels], 0.0)
        one = int(np.argmax(np.abs(constant)))
        new = k.copy() if new is None else new
        new[rows, one] = np.einsum("i,oist->ost", constant / constant[one], k[rows])
        new[rows, np.flatnonzero(read & (np.arange(size) != one))] = 0
    return stage, (u if new is None else (new, *u[1:]))
